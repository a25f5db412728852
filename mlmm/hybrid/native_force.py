"""The model's energy as a force of OpenMM's own kind, where it is ANI networks with constant weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlmm.blending.link_atoms import CappedModel
from mlmm.hybrid.hosts import RegionEnergy
from mlmm.hybrid.spec import HybridSpec, atomic_numbers, model_atoms, visible_atoms
from mlmm.modules import Module
from mlmm.plugin import ANIForce

__all__ = ["native_force"]


def native_force(spec: HybridSpec, energy: RegionEnergy | Module, name: str) -> ANIForce:
    """sum_i lambda_i eps_i of a static zone among all that it sees, or the energy of a region with its caps.

    Parameters
    ----------
    spec : HybridSpec
        With a potential and a scheme that `mlmm.hybrid.rules.choose_host` gave to the plugin.
    energy : RegionEnergy or Module
        As `mlmm.hybrid.assemble.model_energy` gives it to other bridges; its caps are taken over.
    name : str
        Of the force.
    """
    built = spec.built
    potential: Any = spec.potential
    if spec.rules.isolated:
        seen = np.array(model_atoms(spec), dtype=np.int64)
        weights = np.ones(len(seen))
    else:
        seen = np.flatnonzero(visible_atoms(built, potential.spec))
        everywhere = np.zeros(built.n_atoms)
        everywhere[list(spec.zones.active)] = spec.zones.active_weights
        weights = everywhere[seen]
    caps: list[tuple[int, int, float]] = []
    if isinstance(energy, CappedModel):
        columns: Any = (energy.capped.outer, energy.capped.inner, energy.capped.lengths)
        caps = list(zip(*(column.tolist() for column in columns), strict=True))
    force = ANIForce(
        potential.parameters,
        atomic_numbers(built, seen.tolist()),
        seen.tolist(),
        weights.tolist(),
        periodic=built.periodic,
        caps=caps,
        precision=potential.spec.precision,
        threads=torch.get_num_threads(),
    )
    force.setName(name)
    return force
