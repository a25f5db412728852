"""Walls that keep a molecule's bonds to hydrogen where they are: no reactions across an adaptive zone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import openmm

__all__ = ["bond_walls"]

_STIFFNESS = 5e5  # kJ/mol/nm²: that of a bond to hydrogen


def bond_walls(topology: Any, atoms: Collection[int], start: float, periodic: bool) -> openmm.CustomBondForce:
    """A harmonic wall for bonds to hydrogen, k/2 (r − start)² beyond `start` and nothing below.

    Where lambda of two neighbours differs much, a proton can leave a molecule that the model describes for
    one of the force field: the model still counts it as bound, the acceptor's energy counts for nothing, and
    the hydrogens of most water models have no repulsion of their own. The wall is out of reach for an intact
    molecule (a bond of 0.096 nm fluctuates by 0.003 nm), has the same energy at any lambda and is conserved.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : collection of int
        Atoms of the molecules.
    start : float
        nm.
    periodic : bool
    """
    inside = set(atoms)
    force = openmm.CustomBondForce("0.5*wall_stiffness*max(0, r - wall_start)^2")
    force.addGlobalParameter("wall_stiffness", _STIFFNESS)
    force.addGlobalParameter("wall_start", start)
    force.setName("bond walls")
    force.setUsesPeriodicBoundaryConditions(periodic)
    for bond in topology.bonds():
        elements = {atom.element.symbol for atom in bond if atom.element is not None}
        if "H" in elements and bond[0].index in inside:
            force.addBond(bond[0].index, bond[1].index, [])
    return force
