"""Repair of misplaced hydrogens: on the wrong side of their atom, where a minimiser leaves them."""

from __future__ import annotations

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue

__all__ = ["mend_hydrogens"]

_NARROWEST = 80.0  # degrees between a bond to hydrogen and any other; 109 or 120 at equilibrium
_HALF_HCH = np.radians(54.75)


def mend_hydrogens(topology: app.Topology, positions: np.ndarray) -> tuple[np.ndarray, list[Decision]]:
    """Move hydrogens that sit between the other neighbours of their atom to where ideal angles have them.

    OpenMM adds hydrogens at random places and minimises. One that starts on the side of the other three
    substituents of a carbon stays there; minimised later with everything free, the carbon turns into its
    mirror image.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm

    Returns
    -------
    positions (N, 3) nm, decisions
    """
    neighbours: dict[int, list[int]] = {}
    light = np.array([atom.element == app.element.hydrogen for atom in topology.atoms()], dtype=bool)
    for one, other in topology.bonds():
        neighbours.setdefault(one.index, []).append(other.index)
        neighbours.setdefault(other.index, []).append(one.index)
    positions, mended = positions.copy(), []
    atoms = list(topology.atoms())
    for centre, bonded in neighbours.items():
        hydrogens = [i for i in bonded if light[i]]
        heavy = [i for i in bonded if not light[i]]
        if light[centre] or not hydrogens or len(heavy) < 2 or len(bonded) > 4:
            continue
        directions = positions[bonded] - positions[centre]
        lengths = np.linalg.norm(directions, axis=1)
        if lengths.min() == 0:
            continue  # reported as a clash
        directions /= lengths[:, None]
        angles = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1)))
        rows = [bonded.index(i) for i in hydrogens]
        if all(np.delete(angles[row], row).min() > _NARROWEST for row in rows):
            continue
        units = directions[[bonded.index(i) for i in heavy]]
        away = -units.sum(axis=0)
        if np.linalg.norm(away) < 0.1:
            continue
        away /= np.linalg.norm(away)
        if len(hydrogens) == 1:
            places = [away]
        elif len(hydrogens) == 2 and len(heavy) == 2:
            normal = np.cross(units[0], units[1])
            normal /= np.linalg.norm(normal)
            places = [np.cos(_HALF_HCH) * away + sign * np.sin(_HALF_HCH) * normal for sign in (1, -1)]
        else:
            continue
        for hydrogen, place in zip(hydrogens, places, strict=True):
            length = np.linalg.norm(positions[hydrogen] - positions[centre])
            positions[hydrogen] = positions[centre] + length * place
        mended.append(f"{atoms[hydrogens[0]].name} of {describe_residue(atoms[centre].residue)}")
    if not mended:
        return positions, []
    more = f" and {len(mended) - 6} more" if len(mended) > 6 else ""
    text = f"{len(mended)} hydrogens stood among the other neighbours of their atom and were turned round: "
    return positions, [Decision("protonate", "hydrogens", text + ", ".join(mended[:6]) + more)]
