"""Cells and images of other programs in the form that OpenMM asks for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from mlmm.errors import ConfigError

__all__ = ["WholeMolecules", "reduced_box"]


def reduced_box(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same lattice in OpenMM's form: a along x, b in the xy plane, no vector longer than it need be.

    Parameters
    ----------
    cell : ndarray, shape (3, 3), nm
        Box vectors in rows, right-handed.

    Returns
    -------
    box : ndarray, shape (3, 3), nm
    rotation : ndarray, shape (3, 3)
        Positions r of the given cell are ``r @ rotation`` in the new one; exactly 1 where nothing turns.

    Raises
    ------
    ConfigError
        A cell without volume, or a left-handed one: a mirror image is another molecule.
    """
    cell = np.asarray(cell, dtype=np.float64)
    volume = float(np.linalg.det(cell)) if np.isfinite(cell).all() else 0.0
    if not volume > 0.0:
        raise ConfigError(
            "three cell vectors that span a volume, right-handed",
            f"{np.round(cell, 4).tolist()} nm",
            "set the cell with three vectors, the third on the side of the right-hand rule",
        )
    rotation = np.eye(3)
    if np.triu(cell, 1).any() or not (np.diag(cell) > 0.0).all():
        q, r = np.linalg.qr(cell.T)
        signs = np.sign(np.diag(r))
        rotation = q * signs
        cell = np.tril(r.T * signs)
    a, b, c = cell
    c = c - b * round(c[1] / b[1])
    c = c - a * round(c[0] / a[0])
    b = b - a * round(b[0] / a[0])
    # A half that rounding left longer by its last bit would be refused.
    b[0], c[0] = (np.clip(x, -a[0] / 2, a[0] / 2) for x in (b[0], c[0]))
    c[1] = np.clip(c[1], -b[1] / 2, b[1] / 2)
    return np.array([a, b, c]), rotation


class WholeMolecules:
    """Puts molecules together that another program wrapped atom by atom, and into the cell.

    Bonded terms of a force field take vectors as they are, so that a bond through the cell would be torn. The
    neighbour lists of OpenMM's Reference and CPU platforms (8.6) miss pairs of atoms far outside of the cell
    where a Context has, or has had, a leaning box: molecules are moved there.

    Parameters
    ----------
    n_atoms : int
    bonds : ndarray, shape (B, 2), int
    """

    def __init__(self, n_atoms: int, bonds: np.ndarray):
        self._n_atoms = n_atoms
        self._bonds = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _molecules(self) -> np.ndarray:
        """Number of each atom's molecule."""
        n, (first, second) = self._n_atoms, self._bonds.T
        graph = csr_array((np.ones(len(first)), (first, second)), shape=(n, n))
        found: np.ndarray = connected_components(graph, directed=False)[1]
        return found

    @cached_property
    def _levels(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Parents and children by depth, of one tree for each molecule."""
        n, (first, second) = self._n_atoms, self._bonds.T
        _, heads = np.unique(self._molecules, return_index=True)
        # A node that is joined to one atom of every molecule reaches all of them in one walk.
        first, second = np.append(first, np.full(len(heads), n)), np.append(second, heads)
        graph = csr_array((np.ones(len(first)), (first, second)), shape=(n + 1, n + 1))
        order, parents = breadth_first_order(graph, n, directed=False)
        depth = np.zeros(n + 1, dtype=np.int64)
        for atom in order[1:].tolist():
            depth[atom] = depth[parents[atom]] + 1
        levels = (np.flatnonzero(depth == level) for level in range(2, depth.max() + 1))
        return [(parents[children], children) for children in levels]

    def join(self, positions: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Positions (N, 3) with every bond at its nearest image and molecules centred in the cell, nm.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
        box : ndarray, shape (3, 3), nm
            As `reduced_box` returns it.
        """
        first, second = self._bonds.T
        if _lattice_shifts(positions[second] - positions[first], box).any():
            positions = positions.copy()
            for parents, children in self._levels:
                positions[children] += _lattice_shifts(positions[children] - positions[parents], box)
        sizes = np.bincount(self._molecules)
        sums = [np.bincount(self._molecules, weights=positions[:, k]) for k in range(3)]
        centres = np.stack(sums, axis=1) / sizes[:, None]
        return positions + _lattice_shifts(centres - box.sum(axis=0) / 2, box)[self._molecules]


def _lattice_shifts(vectors: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Lattice vectors to add so that each vector is the nearest image in a reduced box."""
    shifts = np.zeros_like(vectors)
    for k in (2, 1, 0):
        shifts -= np.round((vectors[:, k] + shifts[:, k]) / box[k, k])[:, None] * box[k]
    return shifts
