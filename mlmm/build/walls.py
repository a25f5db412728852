"""Walls that keep a molecule's bonds where they are: no reactions across an adaptive zone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import openmm

from mlmm import units
from mlmm.build.built import BuiltSystem
from mlmm.errors import ConfigError

__all__ = ["BOND_WALLS", "with_bond_walls"]

#: Name of the force, to be given to `hybrid_system` as ``keep``.
BOND_WALLS = "bond walls"
_STIFFNESS = 5e5  # kJ/mol/nm²: that of a bond to hydrogen


def with_bond_walls(
    built: BuiltSystem, start: Any = "0.125 nm", *, molecules: Iterable[str] = ("HOH",)
) -> BuiltSystem:
    """A copy of the system in which bonds to hydrogen meet a harmonic wall, k/2 (r − start)² beyond `start`.

    Where lambda of two neighbours differs much, a proton can leave a molecule that the model describes for
    one of the force field: the model still counts it as bound, the acceptor's energy counts for nothing, and
    the hydrogens of most water models have no repulsion of their own. The wall is out of reach for an intact
    molecule (a bond of 0.096 nm fluctuates by 0.003 nm), has the same energy at any lambda and is conserved.
    Give ``keep=[BOND_WALLS]`` to `hybrid_system`.

    Parameters
    ----------
    built : BuiltSystem
    start : str or float
        nm.
    molecules : iterable of str
        Residue names.

    Raises
    ------
    ConfigError
        No bond to hydrogen in such molecules.
    """
    length, names = units.parse(start, "length", "start"), set(molecules)
    force = openmm.CustomBondForce("0.5*wall_stiffness*max(0, r - wall_start)^2")
    force.addGlobalParameter("wall_stiffness", _STIFFNESS)
    force.addGlobalParameter("wall_start", length)
    force.setName(BOND_WALLS)
    force.setUsesPeriodicBoundaryConditions(built.periodic)
    for bond in built.topology.bonds():
        elements = {atom.element.symbol for atom in bond if atom.element is not None}
        if "H" in elements and bond[0].residue.name in names:
            force.addBond(bond[0].index, bond[1].index, [])
    if not force.getNumBonds():
        present = sorted({residue.name for residue in built.topology.residues()})
        raise ConfigError(
            f"bonds to hydrogen in {' or '.join(sorted(names))}",
            "none",
            f"name some of: {' '.join(present[:20])}",
        )
    system = copy.deepcopy(built.system)
    system.addForce(force)
    return dataclasses.replace(built, system=system)
