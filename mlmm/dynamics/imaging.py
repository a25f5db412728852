"""Periodic images for output: the region in the middle, whole molecules around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmm.zones.region import molecules_of

__all__ = ["RegionImages"]


class RegionImages:
    """Chooses an image of every molecule.

    Parameters
    ----------
    topology : openmm.app.Topology
    region : sequence of int
        Atoms around which the images are gathered.
    """

    def __init__(self, topology: Any, region: Sequence[int]):
        self._molecule = np.empty(topology.getNumAtoms(), dtype=np.int64)
        for index, atoms in enumerate(molecules_of(topology)):
            self._molecule[list(atoms)] = index
        self._sizes = np.bincount(self._molecule)[:, None]
        self._origin = self._molecule[region[0]]

    def gather(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """Move each molecule, whole, to its image nearest to the region, and the region to the box centre.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
            Molecules whole, as a simulation keeps them.
        box : ndarray, shape (3, 3), nm, or None
            Reduced box vectors in rows; without a box nothing moves.
        """
        if box is None:
            return positions
        sums = [np.bincount(self._molecule, weights=positions[:, k]) for k in range(3)]
        centres = np.stack(sums, axis=1) / self._sizes
        # The region's first molecule is the origin of all images.
        origin = centres[self._origin]
        shifts = np.zeros_like(centres)
        for k in (2, 1, 0):
            n = np.round((centres[:, k] + shifts[:, k] - origin[k]) / box[k, k])
            shifts -= n[:, None] * box[k]
        return positions + shifts[self._molecule] - origin + box.sum(axis=0) / 2
