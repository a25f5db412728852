"""Frames of the 3-D view: some of a trajectory, packed as 16-bit coordinates of the atoms that are drawn."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from mlmm.report.structure_series import Frames

__all__ = ["packed_coordinates", "packed_frames"]

#: Frames at most, and bytes of coordinates (a third more as text).
_FRAMES, _BYTES = 120, 1_500_000
#: Å: resolution, no finer than need be, and what lies farther from the middle stays at the edge.
_FINEST, _FARTHEST = 0.005, 500.0


def packed_frames(frames: Frames | None, kept: np.ndarray, region: list[int]) -> dict[str, Any] | None:
    """Pack the frames that the view plays; None where there are fewer than two.

    Waters are drawn near the region only, so that those that are drawn change from frame to frame: each place
    of a water in the view holds one of the nearest, the same one for as long as it is among them.

    Parameters
    ----------
    frames : Frames
    kept : ndarray of int, shape (K,)
        Atoms of the view, in its order.
    region : list of int
        Atoms of the region, which are no passing waters.

    Returns
    -------
    dict
        ``times`` in ps (None: unknown); ``xyz``, base64 of little-endian int16 (F, K, 3) in units of ``step``
        Å around ``centre``; ``weights``, base64 of uint8 (F, K), 255 λ, for a zone that moves, else None.
    """
    if frames is None or frames.trajectory is None or not len(kept):
        return None
    trajectory = frames.trajectory
    shown = trajectory.spread(max(2, min(_FRAMES, _BYTES // (6 * len(kept)))))
    if len(shown) < 2:
        return None
    places = _WaterPlaces(frames, kept, set(region))
    xyz = np.empty((len(shown), len(kept), 3))
    weights = None if frames.weights is None else np.empty((len(shown), len(kept)), dtype=np.uint8)
    # From the last frame backwards, which is the one nearest to the view's own.
    for k in reversed(range(len(shown))):
        positions = frames.superposition.place(*trajectory[shown[k]])
        atoms = places.atoms(positions)
        xyz[k] = 10.0 * positions[atoms]
        if weights is not None and frames.weights is not None:
            weights[k] = np.round(255.0 * np.clip(frames.weights[shown[k]][atoms], 0.0, 1.0))
    times = trajectory.times[shown]
    return {
        "times": [round(float(time), 6) if np.isfinite(time) else None for time in times],
        "numbers": [k + 1 for k in shown],
        "of": len(trajectory),
        **packed_coordinates(xyz),
        "weights": None if weights is None else base64.b64encode(weights.tobytes()).decode(),
    }


def packed_coordinates(xyz: np.ndarray) -> dict[str, Any]:
    """Coordinates (F, K, 3) in Å as the view reads them: ``step``, ``centre`` and ``xyz``."""
    xyz = np.nan_to_num(xyz)
    centre = np.median(xyz.reshape(-1, 3), axis=0)
    offset = np.clip(xyz - centre, -_FARTHEST, _FARTHEST)
    step = max(_FINEST, float(np.abs(offset).max()) / 32_000)
    return {
        "step": step,
        "centre": [round(float(x), 3) for x in centre],
        "xyz": base64.b64encode(np.round(offset / step).astype("<i2").tobytes()).decode(),
    }


class _WaterPlaces:
    """Which water stands in which place of the view."""

    def __init__(self, frames: Frames, kept: np.ndarray, region: set[int]):
        residues = list(frames.start.topology.residues)
        waters = [r for r in residues if r.is_water and not region.intersection(a.index for a in r.atoms)]
        size = waters[0].n_atoms if waters else 0
        alike = [[atom.index for atom in r.atoms] for r in waters if r.n_atoms == size]
        self._atoms = np.array(alike, dtype=int).reshape(len(alike), size)
        self._kept, self._place = kept, {int(atom): k for k, atom in enumerate(kept)}
        drawn = [w for w, atoms in enumerate(alike) if all(atom in self._place for atom in atoms)]
        self._where = np.array([[self._place[a] for a in alike[w]] for w in drawn], dtype=int)
        self._now = list(drawn)
        self._region = frames.superposition.region

    def atoms(self, positions: np.ndarray) -> np.ndarray:
        """Atoms of the view in a frame (K,), the waters nearest to the region in the places for waters."""
        atoms = self._kept.copy()
        if not self._now or not len(self._region):
            return atoms
        near, _ = cKDTree(positions[self._region]).query(positions[self._atoms[:, 0]])
        nearest = set(np.argsort(near, kind="stable")[: len(self._now)].tolist())
        arriving = sorted(nearest.difference(self._now))
        for place, water in enumerate(self._now):
            if water not in nearest:
                self._now[place] = arriving.pop()
        atoms[self._where] = self._atoms[self._now]
        return atoms
