"""Neighbour search among points in numpy, with scipy's k-d tree, in open space or in a periodic cell.

The search that the model differentiates through is `mlmm.structures.neighbour_pairs`, in torch.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["closest_pair", "has_neighbour", "minimum_images", "nearest", "pairs_within"]

# The tree looks a little further than asked; distances by minimum image then decide.
_SLACK = 1.0 + 1e-9


def pairs_within(
    points: np.ndarray, others: np.ndarray, distance: float, cell: np.ndarray | None = None
) -> np.ndarray:
    """Find all pairs of a point and another at most a distance apart, by minimum image.

    Parameters
    ----------
    points : ndarray, shape (N, 3), nm
    others : ndarray, shape (M, 3), nm
    distance : float
        nm; in a cell below half of its smallest width, else of several images only the nearest counts.
    cell : ndarray, shape (3, 3), nm, optional
        Reduced box vectors in rows.

    Returns
    -------
    ndarray, shape (P, 2), int64
        Indices of the point and of the other, sorted. Equal sets hold every pair twice and each point with
        itself; a point that is not finite has no neighbours.
    """
    if not len(points) or not len(others) or not distance > 0:
        return np.zeros((0, 2), dtype=np.int64)
    points, others = np.asarray(points, dtype=np.float64), np.asarray(others, dtype=np.float64)
    first, second = (np.flatnonzero(np.isfinite(places).all(axis=1)) for places in (points, others))
    here, there = points[first], others[second]
    if cell is not None and len(first) and len(second):
        here, there, which = _images(here, there, distance, np.asarray(cell, dtype=np.float64))
        second = second[which]
    found = cKDTree(here).sparse_distance_matrix(cKDTree(there), distance * _SLACK, output_type="ndarray")
    pairs = np.column_stack([first[found["i"]], second[found["j"]]]).astype(np.int64)
    if cell is not None:
        pairs = np.unique(pairs, axis=0)
    vectors = minimum_images(others[pairs[:, 1]] - points[pairs[:, 0]], cell)
    pairs = pairs[(vectors**2).sum(axis=1) <= distance * distance]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def has_neighbour(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Return for each point, shape (N,), whether any of the others lies within the distance, nm."""
    close = np.zeros(len(points), dtype=bool)
    close[pairs_within(points, others, distance)[:, 0]] = True
    return close


def nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distance, shape (N,), nm, and index of the nearest of the others for each point."""
    return cKDTree(others).query(points)


def closest_pair(points: np.ndarray) -> tuple[int, int, float]:
    """Return the two closest of at least two points, shape (N, 3), and their distance, nm."""
    distances, indices = cKDTree(points).query(points, k=2)
    first = int(distances[:, 1].argmin())
    second = int(indices[first][indices[first] != first][0])
    return min(first, second), max(first, second), float(distances[first, 1])


def minimum_images(vectors: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
    """Move vectors, shape (..., 3), nm, to their nearest periodic image; unchanged without a cell.

    Exact below half of the smallest width of a reduced cell, as `mlmm.structures.minimum_image` is.
    """
    if cell is None:
        return vectors
    vectors = np.array(vectors, dtype=np.float64)
    for axis in (2, 1, 0):
        vectors -= np.round(vectors[..., axis, None] / cell[axis, axis]) * cell[axis]
    return vectors


def _images(
    points: np.ndarray, others: np.ndarray, distance: float, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the cell, all images of the others that can be in reach of one, and whose images they are."""
    to_fractions = np.linalg.inv(cell)
    here, there = points @ to_fractions, others @ to_fractions
    here, there = here - np.floor(here), there - np.floor(there)
    # A distance in fractions of an axis: over the width of the cell between its two faces.
    reach = distance * _SLACK * np.linalg.norm(to_fractions, axis=0)
    low, high = here.min(axis=0) - reach, here.max(axis=0) + reach
    places, which = [], []
    for shift in itertools.product(*(range(-count, count + 1) for count in np.ceil(reach).astype(int))):
        image = there + shift
        inside = np.flatnonzero(((image >= low) & (image <= high)).all(axis=1))
        places.append(image[inside])
        which.append(inside)
    return here @ cell, np.concatenate(places) @ cell, np.concatenate(which)
