"""Turn spreads of forces into standard deviations of their errors, by held-out labels.

Constants a and b of the variance a² s²/3 + b² of a component by maximum likelihood of Gaussian errors;
factors of the 68 and 95 % intervals as quantiles of the errors in units of that deviation (split-
conformal), so that tails are what they are. Reliability: how often intervals of nominal coverage hold the
error.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm, spearmanr

from mlmm.errors import ConfigError
from mlmm.potentials.calibration import Calibration

__all__ = ["LEAST", "NOMINAL", "SpreadsAndErrors", "calibrate_forces", "reliability", "with_coverage"]

#: Nominal coverage of one and of two standard deviations.
NOMINAL = (0.6827, 0.9545)
#: Structures that determine constants, at least.
LEAST = 5
_SMALL = 1e-9


@dataclass(frozen=True)
class SpreadsAndErrors:
    """Spreads and errors of forces on atoms that were not trained on.

    Parameters
    ----------
    spreads : ndarray, shape (A,), kJ/mol/nm
        Of the force on each atom, sqrt of the sum over its components.
    errors : ndarray, shape (A, 3), kJ/mol/nm
        Prediction minus label.
    structures : int
        To which they belong.
    """

    spreads: np.ndarray
    errors: np.ndarray
    structures: int


def calibrate_forces(found: SpreadsAndErrors, measure: str) -> Calibration:
    """Determine scale, floor and interval factors by held-out labels.

    Parameters
    ----------
    found : SpreadsAndErrors
    measure : str
        What the spread is, in words.

    Raises
    ------
    ConfigError
        Fewer than five structures, or spreads that are all zero.
    """
    if found.structures < LEAST:
        raise ConfigError(
            f"{LEAST} held-out structures or more to calibrate an uncertainty",
            f"{found.structures}",
            "hold out more, or train without calibration",
        )
    spreads, errors = np.asarray(found.spreads, np.float64), np.asarray(found.errors, np.float64)
    if not spreads.max() > 0.0:
        raise ConfigError(
            "members that disagree somewhere",
            "a spread of zero on every atom",
            "train a committee of two members or more, of different seeds or bootstrap",
        )
    size, typical = math.sqrt(np.square(errors).mean()), math.sqrt(np.square(spreads).mean() / 3.0)
    size = max(size, _SMALL)

    def minus_log_likelihood(logs: np.ndarray) -> float:
        variance = np.exp(2.0 * logs[0]) * np.square(spreads) / 3.0 + np.exp(2.0 * logs[1])
        variance = np.maximum(variance, _SMALL**2)
        return float((3.0 * np.log(variance) + np.square(errors).sum(axis=1) / variance).mean())

    begin = np.array([math.log(size / typical), math.log(0.3 * size)])
    bounds = [(begin[0] - 7.0, begin[0] + 7.0), (begin[1] - 9.0, begin[1] + 3.0)]
    best = minimize(minus_log_likelihood, begin, method="L-BFGS-B", bounds=bounds).x
    scale, floor = math.exp(best[0]), math.exp(best[1])
    scaled = np.abs(errors) / _component(spreads, scale, floor)[:, None]
    inner, outer = (float(np.quantile(scaled, share)) for share in NOMINAL)
    return Calibration(measure, scale, floor, inner, outer, labels=found.structures)


def with_coverage(calibration: Calibration, found: SpreadsAndErrors) -> Calibration:
    """Measure the coverage on labels that determined none of the constants."""
    spreads, errors = np.asarray(found.spreads, np.float64), np.abs(np.asarray(found.errors, np.float64))
    deviation = _component(spreads, calibration.scale, calibration.floor)[:, None]
    inside = [
        float((errors <= factor * deviation).mean())
        for factor in (calibration.factor68, calibration.factor95)
    ]
    plain = float((errors <= spreads[:, None] / math.sqrt(3.0)).mean())
    size = np.sqrt(np.square(errors).sum(axis=1))
    related = float(spearmanr(spreads, size).statistic) if np.ptp(spreads) > 0 and len(size) > 2 else math.nan
    return dataclasses.replace(
        calibration,
        coverage68=inside[0],
        coverage95=inside[1],
        tested=found.structures,
        raw_coverage68=plain,
        correlation=related,
    )


def reliability(
    calibration: Calibration, found: SpreadsAndErrors, steps: int = 19
) -> tuple[np.ndarray, np.ndarray]:
    """Measured against nominal coverage, for a reliability diagram.

    Returns
    -------
    nominal, measured : ndarray, shape (steps,)
        Of Gaussian intervals around the predictions.
    """
    nominal = np.linspace(0.05, 0.95, steps)
    deviation = _component(np.asarray(found.spreads), calibration.scale, calibration.floor)[:, None]
    scaled = np.abs(found.errors) / deviation
    return nominal, np.array([float((scaled <= norm.ppf(0.5 + 0.5 * share)).mean()) for share in nominal])


def _component(spreads: np.ndarray, scale: float, floor: float) -> np.ndarray:
    """Standard deviation of a component."""
    return np.asarray(np.maximum(np.sqrt(scale**2 * np.square(spreads) / 3.0 + floor**2), _SMALL))
