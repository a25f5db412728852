"""The model's energy as a force of OpenMM's own kind, where the model is ANI networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import torch

from mlmm.blending.link_atoms import CappedAtoms, CappedModel
from mlmm.blending.supermolecular import SupermolecularBlend
from mlmm.hybrid.adaptive_arrays import adaptive_arrays
from mlmm.hybrid.hosts import RegionEnergy
from mlmm.hybrid.spec import HybridSpec, atomic_numbers, model_atoms, visible_atoms
from mlmm.modules import Module
from mlmm.plugin import AdaptiveANIForce, ANIForce, MemberEvaluation, SupermolecularANIForce
from mlmm.plugin.members import as_force
from mlmm.zones.adaptive import UniformWeights

__all__ = ["member_evaluation", "native_force"]


def native_force(spec: HybridSpec, energy: RegionEnergy | Module, name: str) -> openmm.Force:
    """The whole of what other bridges evaluate in torch, without torch.

    Parameters
    ----------
    spec : HybridSpec
        With a potential and a scheme that `mlmm.hybrid.rules.choose_host` gave to the plugin.
    energy : RegionEnergy or Module
        As `mlmm.hybrid.assemble.model_energy` gives it to other bridges; its caps are taken over.
    name : str
        Of the force.

    Returns
    -------
    ANIForce, AdaptiveANIForce or SupermolecularANIForce
        The first for sum_i lambda_i eps_i with constant lambda, or the energy of a region with its caps.
    """
    make: Callable[..., openmm.Force] = _static
    if isinstance(energy, SupermolecularBlend):
        make = _supermolecular
    elif spec.zones.moves:
        make = _adaptive
    options = {
        "periodic": spec.built.periodic,
        "precision": spec.potential.spec.precision,
    }
    force = make(spec, energy, options)
    force.setName(name)
    return force


def _static(spec: HybridSpec, energy: RegionEnergy | Module, options: dict[str, Any]) -> ANIForce:
    built, potential = spec.built, spec.potential
    if spec.rules.isolated:
        seen = np.array(model_atoms(spec), dtype=np.int64)
        weights = np.ones(len(seen))
    else:
        seen = np.flatnonzero(visible_atoms(built, potential.spec))
        everywhere = np.zeros(built.n_atoms)
        everywhere[list(spec.zones.active)] = spec.zones.active_weights
        weights = everywhere[seen]
    caps = _caps(energy.capped) if isinstance(energy, CappedModel) else []
    networks, numbers, particles = _seen(spec, seen)
    return ANIForce(networks, numbers, particles, weights.tolist(), caps=caps, **options)


def _supermolecular(
    spec: HybridSpec, energy: SupermolecularBlend, options: dict[str, Any]
) -> SupermolecularANIForce:
    region = energy.visible[energy.inside > 0].tolist()
    caps = [cap for remainder in energy.remainders for cap in _caps(remainder.capped)]
    return SupermolecularANIForce(*_seen(spec), region, caps=caps, **options)


def _adaptive(spec: HybridSpec, energy: Any, options: dict[str, Any]) -> AdaptiveANIForce:
    weights = energy.zone_weights
    uniform = float(weights.weight[0]) if isinstance(weights, UniformWeights) else None
    return AdaptiveANIForce(*_seen(spec), *adaptive_arrays(spec, uniform), **options)


def _seen(spec: HybridSpec, atoms: np.ndarray | None = None) -> tuple[Any, list[int], list[int]]:
    """Networks, atomic numbers and indices of some atoms, by default of all that the networks see."""
    potential: Any = spec.potential
    particles = np.flatnonzero(visible_atoms(spec.built, potential.spec)) if atoms is None else atoms
    return potential.parameters, atomic_numbers(spec.built, particles.tolist()), particles.tolist()


def _caps(capped: CappedAtoms) -> list[tuple[int, int, float]]:
    """The atom that keeps a cap, the one beyond, and the length of the bond to it."""
    columns: Any = (capped.outer, capped.inner, capped.lengths)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def member_evaluation(system: openmm.System) -> MemberEvaluation | None:
    """Energies and forces of each member from a System's force of the plugin; None without such a force."""
    for force in system.getForces():
        own = as_force(force)
        if own is not None:
            return MemberEvaluation(own, system.getNumParticles(), torch.get_num_threads())
    return None
