"""Whether water will be within some distance of a region, before any water is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openmm import app

from mlmm.build.options import BuildOptions
from mlmm.build.plan import PlannedStructure
from mlmm.neighbours import has_neighbour, nearest

__all__ = ["water_will_be_near"]

#: How far a molecule may move while a build relaxes it, nm.
_SHIFT = 0.05
#: Between the oxygen of a water molecule in contact and a heavy atom, nm.
_CONTACT = 0.35
_GRID = 0.1  # nm
#: Room for ten molecules of liquid water, 33.4 per nm³: fewer may be left out by chance.
_ROOM = 0.3  # nm³
#: Room that an atom takes which the build will add, with its hydrogens and its contacts, nm³.
_ADDED = 0.1


def water_will_be_near(
    planned: PlannedStructure, options: BuildOptions, atoms: Sequence[int], distance: float
) -> bool:
    """Return True if a water molecule will surely be within a distance of the given atoms.

    It is so where the structure has one there, or where the solvent will have room for ten of them: points
    within the distance of the atoms that are in contact with no heavy atom.

    Parameters
    ----------
    planned : PlannedStructure
    options : BuildOptions
    atoms : sequence of int
        Of the planned structure.
    distance : float
        nm.
    """
    distance -= _SHIFT
    positions = planned.positions
    if not len(atoms) or distance <= 0:
        return False
    listed = list(planned.topology.atoms())
    inside = set(atoms)
    oxygens = [
        atom.index
        for atom in listed
        if atom.residue.name == "HOH" and atom.element is app.element.oxygen and atom.index not in inside
    ]
    if oxygens and has_neighbour(positions[oxygens], positions[list(atoms)], distance).any():
        return True
    if options.solvent != "box":
        return False
    low, high = (end(positions[list(atoms)], axis=0) for end in (np.min, np.max))
    axes = [np.arange(a - distance, b + distance, _GRID) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[has_neighbour(points, positions[list(atoms)], distance)]
    heavy = [atom.index for atom in listed if atom.element is not app.element.hydrogen]
    if len(points):
        points = points[nearest(points, positions[heavy])[0] > _CONTACT]
    added = sum(len(names) for names in planned.missing.values())
    return len(points) * _GRID**3 > _ROOM + _ADDED * added
