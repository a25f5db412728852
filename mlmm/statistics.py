"""Means, drifts and their errors from correlated time series."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["block_standard_error", "drift_limit", "linear_drift", "statistical_inefficiency"]


def statistical_inefficiency(series: np.ndarray) -> float:
    """Number of samples that count as one independent sample, g = 1 + 2 sum_t (1 − t/N) C(t) >= 1.

    The sum runs to the first lag where the autocorrelation C is not positive any more (Chodera et al., J.
    Chem. Theory Comput. 3, 26 (2007), doi 10.1021/ct0502864).

    Parameters
    ----------
    series : ndarray, shape (N,)
    """
    x = np.asarray(series, dtype=float) - np.mean(series)
    n = len(x)
    variance = float(np.mean(x * x))
    if n < 3 or variance == 0.0:
        return 1.0
    g = 1.0
    for lag in range(1, n - 1):
        correlation = float(np.sum(x[: n - lag] * x[lag:])) / (variance * (n - lag))
        if correlation <= 0.0:
            break
        g += 2.0 * correlation * (1.0 - lag / n)
    return g


def linear_drift(times: np.ndarray, energies: np.ndarray) -> tuple[float, float]:
    """Slope of a straight line through an energy that should be constant, and its standard error.

    The error of the least-squares slope is widened by the statistical inefficiency of the residuals, which
    for the total energy of a Verlet trajectory are strongly correlated.

    Parameters
    ----------
    times, energies : ndarray, shape (N,)
        At least three samples.

    Returns
    -------
    slope, error : float
        In units of energy per time.
    """
    times, energies = np.asarray(times, dtype=float), np.asarray(energies, dtype=float)
    centred = times - times.mean()
    scale = float(np.sum(centred**2))
    slope = float(np.sum(centred * (energies - energies.mean()))) / scale
    residuals = energies - energies.mean() - slope * centred
    variance = float(np.sum(residuals**2)) / max(len(times) - 2, 1)
    return slope, float(np.sqrt(variance / scale * statistical_inefficiency(residuals)))


def block_standard_error(values: np.ndarray) -> float:
    """Estimate the standard error of the mean of a correlated series from averages over blocks.

    Neighbouring samples of a trajectory repeat each other, so that s/sqrt(N) is too small. Means of blocks
    much longer than the memory are independent. The block length B is doubled until B^3 > 2 N g^2, where g is
    the number of samples that count as one: a balance between the bias of short blocks and the noise of few
    (Lee et al., Phys. Rev. E 83, 066706 (2011), doi:10.1103/PhysRevE.83.066706).

    Parameters
    ----------
    values : ndarray (N,)
        Equally spaced samples; those that are not finite are left out.

    Returns
    -------
    float
        Standard error in the unit of the values. NaN if no block length satisfies the criterion with at least
        four blocks, that is when the series is too short to say how long its own memory is.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    count = len(values)
    if count < 4:
        return math.nan
    naive = float(values.std(ddof=1)) / math.sqrt(count)
    if naive == 0.0:
        return 0.0
    length = 1
    while count // length >= 4:
        blocks = count // length
        # The first samples are the ones to drop: they are the closest to the preparation.
        means = values[count - blocks * length :].reshape(blocks, length).mean(axis=1)
        error = float(means.std(ddof=1)) / math.sqrt(blocks)
        if length**3 > 2 * count * (error / naive) ** 4:
            return error
        length *= 2
    return math.nan


def drift_limit(reference: float, reference_error: float, error: float) -> float:
    """Largest drift of an energy that is still that of a reference: twice it, and two standard errors.

    Both drifts are sampled, and often zero within their errors: a bare ratio of the two would be noise. The
    error is that of the difference between the drift and twice the reference.

    Parameters
    ----------
    reference, reference_error : float
        Drift of the reference and its standard error.
    error : float
        Standard error of the drift that is judged, in the same unit.
    """
    return 2.0 * abs(reference) + 2.0 * math.hypot(error, 2.0 * reference_error)
