"""Half-harmonic walls: for bonds to hydrogen in an adaptive zone, and for water in a droplet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import openmm

from mlmm.units import ANGSTROM, KILOCALORIE

__all__ = ["bond_walls", "spherical_wall"]

_STIFFNESS = 5e5  # kJ/mol/nm²: that of a bond to hydrogen
_WATER_STIFFNESS = 1.5 * KILOCALORIE / ANGSTROM**2  # kJ/mol/nm²: `fcap` of sander


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


def spherical_wall(
    atoms: Collection[int],
    centre: Sequence[float] | np.ndarray,
    radius: float,
    stiffness: float = _WATER_STIFFNESS,
) -> openmm.CustomExternalForce:
    """A half-harmonic wall around a droplet, k/2 (r − radius)² beyond `radius` of a point and nothing inside.

    Parameters
    ----------
    atoms : collection of int
        Usually oxygens of water.
    centre : sequence of 3 floats
        nm.
    radius : float
        nm.
    stiffness : float
        k in kJ/mol/nm²; by default Amber's 1.5 kcal/mol/Å² for a cap of water.
    """
    force = openmm.CustomExternalForce(
        "0.5*droplet_stiffness*max(0, r - droplet_radius)^2;"
        "r = sqrt((x-droplet_x)^2 + (y-droplet_y)^2 + (z-droplet_z)^2)"
    )
    force.addGlobalParameter("droplet_stiffness", stiffness)
    force.addGlobalParameter("droplet_radius", radius)
    for name, value in zip("xyz", centre, strict=True):
        force.addGlobalParameter(f"droplet_{name}", float(value))
    force.setName("droplet wall")
    for atom in atoms:
        force.addParticle(int(atom), [])
    return force
