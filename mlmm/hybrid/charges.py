"""Which charges a hybrid system carries: the force field's, better fixed ones, or predicted ones on top."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mlmm.electrostatics.fixed_charges import (
    check_total,
    original_charges,
    read_charges,
    requested_charges,
    with_reference_charges,
)
from mlmm.errors import ConfigError
from mlmm.hybrid.assemble import assemble
from mlmm.hybrid.region_checks import check_charges
from mlmm.hybrid.spec import HybridSpec, atom_labels, built_cell
from mlmm.modules import Module
from mlmm.schemes import check_options

__all__ = ["Charges", "check_predicted", "predicted_charges", "with_charges"]

#: How charges of a region may be given.
Charges = Mapping[int, float] | Sequence[float] | np.ndarray | str


def predicted_charges(spec: HybridSpec, blend: Module | None = None) -> tuple[dict[int, float], float]:
    """Charges of the zone's atoms by the model in the built structure, e, and their sum with those of caps.

    Parameters
    ----------
    spec : HybridSpec
    blend : torch.nn.Module, optional
        Of that spec with electrostatics "charges"; assembled for the purpose without.
    """
    if blend is None:
        level = dataclasses.replace(spec, electrostatics="charges", bridge="pythonforce")
        blend = assemble(level).blend
        assert blend is not None
    built, device = spec.built, blend.visible.device
    positions, cell = torch.tensor(built.positions, device=device), built_cell(built)
    with torch.no_grad():
        atoms, _, charges = blend.predicted(positions, None if cell is None else cell.to(device))
    charges = charges.to(torch.float64).cpu()
    return dict(zip(atoms.tolist(), charges.tolist(), strict=False)), float(charges.sum())


def with_charges(spec: HybridSpec, charges: Charges) -> HybridSpec:
    """The spec on a force field with better fixed charges: those of a zone that moves on its core alone."""
    zones, built = spec.zones, spec.built
    weights = dict(zip(zones.active, zones.active_weights, strict=True))
    if isinstance(charges, str):
        if charges != "model":
            raise ConfigError('charges as values, or "model"', repr(charges), 'write charges = "model"')
        potential_spec = spec.potential.spec
        check_options(spec.scheme, "charges")
        check_charges(potential_spec.cutoff, built, zones, potential_spec)
        found, total = predicted_charges(spec)
        check_predicted(spec, found, total)
        wanted = {atom: charge for atom, charge in found.items() if atom in weights}
    else:
        label = atom_labels(built)
        wanted = requested_charges(charges, zones.region.atoms, zones.active, built.n_atoms, label)
        own = original_charges(built)
        expected = float(sum(own[atom] for atom in wanted))
        check_total(sum(wanted.values()), expected, "the given ones", not zones.cut_bonds)
    source = spec.potential.spec.name if isinstance(charges, str) else "given"
    charged = with_reference_charges(built, weights, wanted, source=source)
    now = read_charges(charged.system).charge
    reference = {atom: float(now[atom]) for atom in wanted}
    return dataclasses.replace(spec, built=charged, reference_charges=reference)


def check_predicted(spec: HybridSpec, charges: dict[int, float], total: float) -> None:
    """Predicted charges belong to the same state of charge as those that they replace."""
    name = spec.potential.spec.name
    if spec.rules.isolated:
        check_total(total, spec.charge, name, True)
        return
    own = read_charges(spec.built.system).charge
    expected = float(sum(own[atom] for atom in charges))
    check_total(sum(charges.values()), expected, name, False)
