"""Models that predict charges, and small systems for them."""

from __future__ import annotations

import numpy as np
import openmm
import torch
from toys import ChargedContacts, chains, random_zones

from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones


def charges_of(built) -> np.ndarray:
    return read_charges(built.system).charge.copy()


def quick(tolerance: float = 1e-6, **options):
    """Chains with Ewald sums, the limit of PME for a fine mesh; for so few atoms they are faster."""
    built = chains(**options)
    for force in built.system.getForces():
        if isinstance(force, openmm.NonbondedForce) and built.periodic:
            force.setNonbondedMethod(openmm.NonbondedForce.Ewald)
            force.setEwaldErrorTolerance(tolerance)
    return built


def first_molecule(built, n_atoms: int):
    return hard_zones(built, region_from_atoms(built.topology, range(n_atoms)))


def small(
    scheme: str,
    box: float | None = 3.0,
    charge_range: float = 1.0,
    flow: float = 0.1,
    *,
    attached: bool = True,
    n_molecules: int = 3,
    n_zone: int = 8,
    **options,
):
    """Some chains; the first one, or random atoms with random lambda, in the zone."""
    built = quick(n_molecules=n_molecules, n_atoms=5, box=box, cutoff=1.4, seed=2)
    zones = first_molecule(built, 5) if scheme == "additive" else random_zones(built, n_zone, 1)
    own = charges_of(built)[:5] if scheme == "additive" else charges_of(built)
    potential = ChargedContacts(own, flow, attached)
    options = {"electrostatics": "charges", "charge_range": charge_range} | options
    return hybrid_system(built, zones, potential, scheme=scheme, **options)


def state_of(hybrid, positions=None):
    """d, atoms, lambda of a hybrid system, and its whole correction in kJ/mol."""
    built = hybrid.built
    where = torch.tensor(built.positions if positions is None else positions)
    box = None if built.box_vectors is None else torch.tensor(built.box_vectors)
    with torch.no_grad():
        atoms, weights, predicted = hybrid.blend.predicted(where, box)
        predicted = predicted[: len(atoms)]
        d = hybrid.blend.correction.changes(atoms, weights, predicted)
        energy = hybrid.blend.correction(where, box, atoms, weights, predicted)
    return d.numpy(), atoms.numpy(), weights.numpy(), float(energy)
