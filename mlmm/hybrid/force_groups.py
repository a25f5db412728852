"""What the potential's force joins: force groups by kind of energy, and molecules that stay whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import openmm

from mlmm.build import BuiltSystem
from mlmm.forcefield.scale_pairs import INSIDE
from mlmm.forcefield.term_catalogue import CATALOGUE, COLLECTIVE, WITHOUT_ENERGY, class_of
from mlmm.kernels.direct_pairs import REGION_PAIRS, ZONE_PAIRS

__all__ = ["grouped", "join_molecules"]

_GROUPS = {
    "nonbonded": 0,
    "bonds": 1,
    "angles": 2,
    "torsions": 3,
    "other": 4,
    "ml": 5,
    # 6 is that of PME's reciprocal sum, where it has one of its own.
    "bias": 7,
}


def join_molecules(system: openmm.System, built: BuiltSystem, atoms: Collection[int]) -> None:
    """Bonds without energy where the force field's have gone: OpenMM knows molecules by them.

    It wraps molecules into the box, and a barostat moves them, as a whole only if they are joined.
    """
    inside = set(atoms)
    joints = openmm.CustomBondForce("0*r")
    joints.setName("molecules")
    joints.setUsesPeriodicBoundaryConditions(built.periodic)
    for a, b in built.bonds.tolist():
        if a in inside or b in inside:
            joints.addBond(a, b, [])
    if joints.getNumBonds():
        system.addForce(joints)


def grouped(
    system: openmm.System, force: openmm.Force, biases: Iterable[openmm.Force] = ()
) -> dict[str, int]:
    """Put each force in the group of its kind, and add the potential's and biases; returns the groups.

    A force on a collective variable that the force field came with is a bias as well.
    """
    names = set()
    for mm_force in system.getForces():
        kind = class_of(mm_force)
        if kind in WITHOUT_ENERGY:
            continue
        # Pairs that were compiled into a bond force, or are subtracted, are pairs all the same.
        pairs = mm_force.getName() in (INSIDE, REGION_PAIRS, ZONE_PAIRS)
        own = CATALOGUE[kind].group if kind in CATALOGUE else "other"
        name = "nonbonded" if pairs else "bias" if kind in COLLECTIVE else own
        mm_force.setForceGroup(_GROUPS[name])
        names.add(name)
    force.setForceGroup(_GROUPS["ml"])
    system.addForce(force)
    names.add("ml")
    for bias in biases:
        bias.setForceGroup(_GROUPS["bias"])
        system.addForce(bias)
        names.add("bias")
    return {name: group for name, group in _GROUPS.items() if name in names}
