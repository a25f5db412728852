"""Choosing structures for labels: uncertain, far or informative ones, unlike each other, some at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from mlmm.errors import ConfigError
from mlmm.learning.acquisition.selection import cur, farthest_points
from mlmm.learning.active.options import ChoiceOptions
from mlmm.learning.descriptors import distances_between

__all__ = ["Chosen", "choose", "extrapolation_grades", "most_informative"]

_RIDGE = 1e-4  # relative to the mean square of a descriptor


@dataclass(frozen=True)
class Chosen:
    """A structure that was chosen.

    Parameters
    ----------
    index : int
        Among the candidates.
    why : str
        "spread", "distance", "determinant", "cur" or "random".
    score : float
        Of that criterion: kJ/mol/nm, distance of descriptors, grade, norm of what was not spanned; NaN at
        random.
    """

    index: int
    why: str
    score: float = float("nan")


def choose(
    options: ChoiceOptions,
    count: int,
    descriptors: np.ndarray,
    known: np.ndarray,
    spreads: np.ndarray | None,
    random: np.random.Generator,
) -> list[Chosen]:
    """Choose a batch.

    Parameters
    ----------
    options : ChoiceOptions
    count : int
        Structures; fewer where there are no more that differ.
    descriptors : ndarray, shape (S, L)
        Of the candidates.
    known : ndarray, shape (K, L)
        Of the training set; empty before the first labels.
    spreads : ndarray, shape (S,), optional
        Uncertainty of each candidate: the largest standard deviation of a force on an atom, kJ/mol/nm.
    random : numpy.random.Generator

    Raises
    ------
    ConfigError
        A choice by spread without spreads.
    """
    total = min(count, len(descriptors))
    at_random = total if options.by == "passive" else round(options.thermal * total)
    by_score = total - at_random
    chosen: list[Chosen] = []
    if by_score:
        if options.by == "spread" and spreads is None:
            raise ConfigError(
                "uncertainties of the candidates, for a choice by spread",
                "none",
                'train a committee of two or more, or write by = "distance"',
            )
        chosen = _by_score(options, by_score, descriptors, known, spreads)
    rest = np.setdiff1d(np.arange(len(descriptors)), [one.index for one in chosen])
    picked = random.choice(rest, size=min(total - len(chosen), len(rest)), replace=False)
    return chosen + [Chosen(int(index), "random") for index in picked]


def extrapolation_grades(descriptors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How far each row is outside of what the known ones determine: x^T (A^T A + r)^-1 x.

    The variance of a prediction that is linear in the descriptors, in units of the noise: below 1 for known
    rows. A maximum of det(A^T A) is what D-optimality asks for (Podryabinkin, Shapeev, Comput. Mater. Sci.
    140, 171 (2017), doi 10.1016/j.commatsci.2017.08.031).

    Parameters
    ----------
    descriptors : ndarray, shape (S, L)
    known : ndarray, shape (K, L)
    """
    rows, explained = _scaled(descriptors, known)
    return np.maximum(np.square(rows).sum(axis=1) - np.square(explained).sum(axis=0), 0.0)


def most_informative(descriptors: np.ndarray, known: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Choose rows one after the other, each of the largest grade given those before: greedy D-optimality.

    The determinant of A^T A + r grows by the factor 1 + grade with each.

    Returns
    -------
    list of (int, float)
        Index and grade at the time of its choice.
    """
    rows, explained = _scaled(descriptors, known)
    grades = np.square(rows).sum(axis=1) - np.square(explained).sum(axis=0)
    chosen: list[tuple[int, float]] = []
    for _ in range(min(count, len(rows))):
        best = int(grades.argmax())
        chosen.append((best, float(grades[best])))
        # The chosen row takes its share of the others with it (Sherman, Morrison).
        share = rows @ rows[best] - explained.T @ explained[:, best]
        share /= np.sqrt(1.0 + grades[best])
        explained = np.concatenate([explained, share[None]])
        grades = grades - np.square(share)
        grades[[index for index, _ in chosen]] = -np.inf
    return chosen


def _scaled(descriptors: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (S, L) in units of the ridge, and what the known ones explain of them, (K, S).

    x^T (A^T A + 1)^-1 y = x·y − e(x)·e(y) with e = C^-1 A x and C C^T = A A^T + 1: as many equations as there
    are known rows.
    """
    scale = _ridge(descriptors, known)
    rows, table = descriptors / scale, known / scale
    lower = np.linalg.cholesky(table @ table.T + np.eye(len(table)))
    return rows, solve_triangular(lower, table @ rows.T, lower=True)


def _ridge(descriptors: np.ndarray, known: np.ndarray) -> float:
    square = float(np.square(np.concatenate([descriptors, known])).sum(axis=1).mean())
    return float(np.sqrt(_RIDGE * square)) or 1.0


def _by_score(
    options: ChoiceOptions,
    count: int,
    descriptors: np.ndarray,
    known: np.ndarray,
    spreads: np.ndarray | None,
) -> list[Chosen]:
    if options.by == "determinant":
        return [Chosen(k, "determinant", grade) for k, grade in most_informative(descriptors, known, count)]
    if options.by == "cur":
        return [Chosen(k, "cur", norm) for k, norm in cur(descriptors, count, known)]
    if options.by == "distance":
        picked = farthest_points(descriptors, count, known)
        near = known
        chosen = []
        for index in picked:
            away = distances_between(descriptors[[index]], near).min() if len(near) else float("nan")
            chosen.append(Chosen(index, "distance", float(away)))
            near = np.concatenate([near, descriptors[[index]]]) if len(near) else descriptors[[index]]
        return chosen
    assert spreads is not None
    # The most uncertain ones resemble each other: of a longer list those farthest apart are taken.
    order = np.argsort(-spreads, kind="stable")[: options.shortlist * count]
    picked = farthest_points(descriptors[order], count, known if len(known) else None)
    return [Chosen(int(order[k]), "spread", float(spreads[order[k]])) for k in picked]
