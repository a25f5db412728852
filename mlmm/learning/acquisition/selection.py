"""Which of many structures: those farthest from each other, or those that span the rest."""

from __future__ import annotations

import numpy as np

from mlmm.errors import ConfigError
from mlmm.learning.descriptors import distances_between

__all__ = ["cur", "farthest_points"]


def farthest_points(
    descriptors: np.ndarray, count: int, known: np.ndarray | None = None, first: int | None = None
) -> list[int]:
    """Choose rows one after the other, each the farthest from all that were chosen before.

    The largest distance of any row to the chosen ones is at most twice that of the best choice (Gonzalez,
    Theor. Comput. Sci. 38, 293 (1985), doi 10.1016/0304-3975(85)90224-5).

    Parameters
    ----------
    descriptors : ndarray, shape (S, L)
    count : int
        Fewer are chosen where the others are copies of those chosen.
    known : ndarray, shape (K, L), optional
        Rows that are there already, to keep away from.
    first : int, optional
        The first choice without `known`; by default the row nearest to the mean.

    Returns
    -------
    list of int
        In the order of choice.

    Raises
    ------
    ConfigError
        A number that is negative, or descriptors that are not finite.
    """
    table = _checked(descriptors, count)
    chosen: list[int] = []
    if known is not None and len(known):
        away = distances_between(table, known).min(axis=1)
    elif len(table) and count:
        middle = table.mean(axis=0, keepdims=True)
        start = int(distances_between(table, middle)[:, 0].argmin()) if first is None else first
        chosen.append(start)
        away = distances_between(table, table[[start]])[:, 0]
    while len(chosen) < min(count, len(table)):
        place = int(away.argmax())
        if away[place] <= 0.0:
            break
        chosen.append(place)
        away = np.minimum(away, distances_between(table, table[[place]])[:, 0])
    return chosen


def cur(descriptors: np.ndarray, count: int, known: np.ndarray | None = None) -> list[tuple[int, float]]:
    """Choose the rows that span the others best (CUR decomposition, greedy and without chance).

    Each choice is the row with the largest weight in the first right singular vectors of what the earlier
    ones do not span; then the rest is made orthogonal to it. A matrix of rank r is spanned by r choices.
    Mahoney, Drineas, PNAS 106, 697 (2009), doi 10.1073/pnas.0803205106; Imbalzano et al., J. Chem. Phys. 148,
    241730 (2018), doi 10.1063/1.5024611.

    Parameters
    ----------
    descriptors : ndarray, shape (S, L)
    count : int
        Fewer are chosen where they span everything already.
    known : ndarray, shape (K, L), optional
        Rows that are there already: what they span is left out first.

    Returns
    -------
    list of (int, float)
        Index, and norm of what of the row was not spanned before, in the order of choice.

    Raises
    ------
    ConfigError
        As `farthest_points`.
    """
    rest = _checked(descriptors, count).copy()
    smallest = 1e-10 * np.linalg.norm(rest)
    if known is not None and len(known):
        basis, sizes, _ = np.linalg.svd(np.asarray(known, dtype=float).T, full_matrices=False)
        basis = basis[:, sizes > 1e-10 * sizes.max()]
        for _ in range(2):  # once more, for what rounding left of large rows
            rest -= (rest @ basis) @ basis.T
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(count, len(rest)) and np.linalg.norm(rest) > smallest:
        left = np.linalg.svd(rest, full_matrices=False)[0][:, 0]
        weights = np.square(left)
        weights[[index for index, _ in chosen]] = -1.0
        place = int(weights.argmax())
        size = float(np.linalg.norm(rest[place]))
        chosen.append((place, size))
        row = rest[place] / size
        rest = rest - np.outer(rest @ row, row)
    return chosen


def _checked(descriptors: np.ndarray, count: int) -> np.ndarray:
    table = np.asarray(descriptors, dtype=float)
    if table.ndim != 2 or not np.isfinite(table).all() or count < 0:
        raise ConfigError(
            "finite descriptors, one row for each structure, and a number of choices of 0 or more",
            f"an array of shape {table.shape} and {count}",
            "use mlmm.learning.descriptors.structure_descriptors",
        )
    return table
