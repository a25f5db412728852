"""Frames laid on the starting structure: rotation, translation and periodic images taken out."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from mlmm.report.trajectory import Start

__all__ = ["Superposition", "distance_between"]

_BACKBONE = {"N", "CA", "C", "O", "P", "O5'", "C5'", "C4'", "C3'", "O3'"}
#: Residues from which on a polymer is a frame of reference, and not just a small molecule that bends.
_FEWEST = 3
_IMAGES = np.array(list(itertools.product((-1, 0, 1), repeat=3)), dtype=float)


class Superposition:
    """Lays frames on the structure that a run began with, by the backbone of proteins and nucleic acids.

    Without a polymer the heavy atoms of the region are laid on each other.

    Parameters
    ----------
    start : Start
    region : sequence of int
        Atoms of the region.

    Attributes
    ----------
    backbone, region : ndarray of int
        Backbone of the polymers, empty without one; heavy atoms of the region.
    """

    def __init__(self, start: Start, region: list[int]):
        topology = start.topology
        self.start = start.positions
        inside = {atom for atom in region if isinstance(atom, int) and 0 <= atom < topology.n_atoms}
        heavy = [a.index for a in topology.atoms if a.index in inside and a.element.atomic_number > 1]
        self.region = np.array(heavy or sorted(inside), dtype=int)
        polymers = [r for r in topology.residues if r.is_protein or r.is_nucleic]
        chosen = [atom.index for residue in polymers for atom in residue.atoms if atom.name in _BACKBONE]
        self.backbone = np.array(chosen if len(polymers) >= _FEWEST else [], dtype=int)
        self._fitted = self.backbone if len(self.backbone) else self.region
        self._molecule = _molecules(topology)
        solute = [
            atom.index
            for residue in topology.residues
            if not (residue.is_water or residue.n_atoms == 1)
            for atom in residue.atoms
        ]
        self._solute = np.array(solute, dtype=int)
        self._sizes = np.maximum(np.bincount(self._molecule), 1)[:, None]
        # The molecule with most of the fitted atoms places all others.
        labels = self._molecule[self._fitted]
        self._anchor = self._fitted[labels == np.bincount(labels).argmax()] if len(labels) else labels

    def place(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """Move a frame onto the start, every molecule of the solute in the image in which it began.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
            Molecules whole, around the region.
        box : ndarray, shape (3, 3), nm, or None

        Returns
        -------
        ndarray, shape (N, 3), nm
        """
        if not len(self._anchor):
            return positions
        if box is not None:
            turn, here, there = _fit(positions[self._anchor], self.start[self._anchor])
            # Where the solute would be had everything moved with the anchor as one body.
            expected = turn.apply(self._centres(self.start) - there, inverse=True) + here
            images = np.round((self._centres(positions) - expected) @ np.linalg.inv(box))
            # The region, around which solvent was gathered, stays where it is.
            images -= images[self._molecule[self.region[0]]] if len(self.region) else 0
            moved = positions.copy()
            moved[self._solute] -= (images @ box)[self._molecule[self._solute]]
            positions = moved
        turn, here, there = _fit(positions[self._fitted], self.start[self._fitted])
        return turn.apply(positions - here) + there

    def _centres(self, positions: np.ndarray) -> np.ndarray:
        sums = [np.bincount(self._molecule, weights=positions[:, k]) for k in range(3)]
        return np.stack(sums, axis=1) / self._sizes

    def rmsd(self, placed: np.ndarray, atoms: np.ndarray) -> float:
        """Root-mean-square distance of some atoms of a placed frame from where they began, nm."""
        return float(np.sqrt(((placed[atoms] - self.start[atoms]) ** 2).sum(axis=1).mean()))


def distance_between(
    positions: np.ndarray, box: np.ndarray | None, first: list[int], second: list[int]
) -> float:
    """Distance between the centres of two groups of atoms, to the nearest periodic image, nm.

    Parameters
    ----------
    positions : ndarray, shape (N, 3), nm
    box : ndarray, shape (3, 3), nm, or None
    first, second : list of int
    """
    vector = positions[second].mean(axis=0) - positions[first].mean(axis=0)
    if box is None:
        return float(np.linalg.norm(vector))
    vector = vector - np.round(vector @ np.linalg.inv(box)) @ box
    return float(np.linalg.norm(vector + _IMAGES @ box, axis=1).min())


def _fit(moving: np.ndarray, fixed: np.ndarray) -> tuple[Rotation, np.ndarray, np.ndarray]:
    """Rotation that lays one set of points on another, and the centres of both."""
    here, there = moving.mean(axis=0), fixed.mean(axis=0)
    if len(moving) < 3:
        return Rotation.identity(), here, there
    with warnings.catch_warnings():
        # Atoms on a line can be turned about it: any such turn is as good.
        warnings.simplefilter("ignore", UserWarning)
        turn, _ = Rotation.align_vectors(fixed - there, moving - here)
    return turn, here, there


def _molecules(topology: Any) -> np.ndarray:
    """Number of the molecule of each atom (N,)."""
    pairs = np.array([[bond[0].index, bond[1].index] for bond in topology.bonds], dtype=int).reshape(-1, 2)
    shape = (topology.n_atoms, topology.n_atoms)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
    return connected_components(graph, directed=False)[1]
