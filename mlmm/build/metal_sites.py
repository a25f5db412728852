"""Coordination of metals: which atoms bind one, at which distance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from openmm import app

from mlmm.build.files.atoms import BINDING_METALS
from mlmm.neighbours import pairs_within

__all__ = ["REACH", "CoordinationBond", "coordination_bonds"]

#: nm; bonds of transition metals to S, N, O have 0.23, 0.21, 0.20 nm, those of calcium to O up to 0.26 nm.
REACH = {"S": 0.285, "SE": 0.295, "N": 0.27, "O": 0.27}


class CoordinationBond(NamedTuple):
    """A metal and an atom that binds it; the distance in nm."""

    metal: app.topology.Atom
    donor: app.topology.Atom
    distance: float


def coordination_bonds(topology: app.Topology, positions: np.ndarray) -> list[CoordinationBond]:
    """Atoms N, O, S and Se of other residues than water within a bond's length of a metal.

    Water is left out, since it exchanges with the solvent. Periodic images are not looked at.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    """
    atoms = [atom for atom in topology.atoms() if atom.element is not None]
    metals = [atom for atom in atoms if atom.element.symbol.upper() in BINDING_METALS]
    donors = [atom for atom in atoms if atom.element.symbol.upper() in REACH and atom.residue.name != "HOH"]
    if not metals or not donors:
        return []
    points = positions[[a.index for a in metals]], positions[[a.index for a in donors]]
    found = []
    for i, j in pairs_within(*points, max(REACH.values())):
        distance = float(np.linalg.norm(points[0][i] - points[1][j]))
        reached = distance <= REACH[donors[j].element.symbol.upper()]
        if reached and donors[j].residue is not metals[i].residue:
            found.append(CoordinationBond(metals[i], donors[j], distance))
    return sorted(found, key=lambda bond: (bond.metal.index, bond.donor.index))
