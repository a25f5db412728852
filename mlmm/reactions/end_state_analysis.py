"""Free energy from the force field to the hybrid, from samples of states between them.

Along U(w) = U_MM + w D with D = U_hybrid - U_MM every sample knows its energy in every state, so that MBAR
(`mlmm.reactions.mbar`) joins them all; and dF/dw is the mean of D, whose integral is a second answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.mbar import overlap_matrix, resampled, solve_mbar
from mlmm.statistics import statistical_inefficiency
from mlmm.units import GAS_CONSTANT

__all__ = ["EndStateResult", "analyse_states"]

_FEWEST = 10
_PARTS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class EndStateResult:
    """Free energy of the hybrid less that of the force field, and what tells whether to believe it.

    Parameters
    ----------
    temperature : float
        K.
    weights : ndarray, shape (K,)
    free_energies, errors : ndarray, shape (K,)
        Of each state relative to the force field and its standard error, kJ/mol; the last one is the answer.
    slopes, slope_errors : ndarray, shape (K,)
        Mean of D in each state and its standard error, kJ/mol: dF/dw.
    integral, integral_error : float
        Of the slopes by the trapezoidal rule: a coarse check.
    overlap : ndarray, shape (K, K)
    independent : ndarray, shape (K,)
        Independent samples of each state.
    forward, backward : ndarray, shape (5,)
        The answer from the first and from the last 20, 40, 60, 80 and 100 % of every state.
    one_sided : tuple of float
        The answer from samples of the force field alone and of the hybrid alone, for comparison.
    """

    temperature: float
    weights: np.ndarray
    free_energies: np.ndarray
    errors: np.ndarray
    slopes: np.ndarray
    slope_errors: np.ndarray
    integral: float
    integral_error: float
    overlap: np.ndarray
    independent: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    one_sided: tuple[float, float]

    @property
    def least_overlap(self) -> float:
        """Of neighbours."""
        return float(np.minimum(np.diag(self.overlap, 1), np.diag(self.overlap, -1)).min())

    def facts(self) -> dict[str, Any]:
        """As a record holds it."""
        found: dict[str, Any] = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self.__dict__.items()
        }
        return found | {
            "value": float(self.free_energies[-1]),
            "error": float(self.errors[-1]),
            "least_overlap": self.least_overlap,
        }


def analyse_states(
    weights: Sequence[float],
    differences: Sequence[np.ndarray],
    temperature: float,
    *,
    bootstraps: int = 200,
    seed: int = 0,
) -> EndStateResult:
    """MBAR over all states, with the error of drawing as many samples of each as are independent.

    Parameters
    ----------
    weights : sequence of float
        From 0 to 1, rising.
    differences : sequence of ndarray
        D = U_hybrid - U_MM in the samples of each state in the order of time, kJ/mol.
    temperature : float
        K.
    bootstraps, seed : int

    Raises
    ------
    ConfigError
        Fewer than ten samples in a state, some that are not finite, or states that do not overlap.
    """
    given = [np.asarray(own, dtype=float) for own in differences]
    for weight, own in zip(weights, given, strict=True):
        if len(own) < _FEWEST or not np.isfinite(own).all():
            raise ConfigError(
                f"{_FEWEST} finite differences or more in the state of weight {weight:g}",
                f"{np.isfinite(own).sum()} of {len(own)}",
                "make produce in [run] longer, or trajectory_interval in [report] shorter",
            )
    thermal = GAS_CONSTANT * temperature
    places = np.asarray(weights, dtype=float)
    inefficiencies = np.array([statistical_inefficiency(own) for own in given])
    lengths = np.array([len(own) for own in given])
    counts = lengths / inefficiencies
    reduced = np.outer(places, np.concatenate(given)) / thermal
    drawn = np.repeat(1.0 / inefficiencies, lengths)
    start = solve_mbar(reduced, lengths)
    free = resampled(reduced, counts, drawn, start)[0]
    generator = np.random.default_rng(seed)
    replicates = []
    for _ in range(bootstraps):
        chosen = [
            generator.multinomial(max(1, round(count)), np.full(length, 1.0 / length))
            for count, length in zip(counts, lengths, strict=True)
        ]
        sizes = np.array([one.sum() for one in chosen], dtype=float)
        replicates.append(resampled(reduced, sizes, np.concatenate(chosen).astype(float), free)[0])
    slopes = np.array([own.mean() for own in given])
    slope_errors = np.array(
        [own.std(ddof=1) / np.sqrt(count) for own, count in zip(given, counts, strict=True)]
    )
    shares = 0.5 * (np.append(np.diff(places), 0.0) + np.append(0.0, np.diff(places)))

    def of_part(first: float, last: float) -> float:
        parts = [own[int(first * len(own)) : max(2, int(last * len(own)))] for own in given]
        part = np.outer(places, np.concatenate(parts)) / thermal
        return float(thermal * solve_mbar(part, np.array([len(one) for one in parts]))[-1])

    return EndStateResult(
        temperature,
        places,
        thermal * free,
        thermal * np.std(replicates, axis=0, ddof=1),
        slopes,
        slope_errors,
        float(shares @ slopes),
        float(np.sqrt((shares**2) @ slope_errors**2)),
        overlap_matrix(reduced, counts, free, drawn),
        counts,
        np.array([of_part(0.0, part) for part in _PARTS]),
        np.array([of_part(1.0 - part, 1.0) for part in _PARTS]),
        (-thermal * _log_mean(-given[0] / thermal), thermal * _log_mean(given[-1] / thermal)),
    )


def _log_mean(logs: np.ndarray) -> float:
    top = float(logs.max())
    return top + float(np.log(np.exp(logs - top).mean()))
