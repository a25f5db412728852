"""Errors of means and drifts, judged against processes with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlmm.statistics import block_standard_error, linear_drift, statistical_inefficiency


def ar1(generator: np.random.Generator, memory: float, shape: tuple[int, int]) -> np.ndarray:
    """Autoregressive series in columns, x' = memory x + noise, started in its stationary distribution."""
    noise = generator.normal(size=shape)
    series = np.empty(shape)
    series[0] = noise[0] / math.sqrt(1 - memory**2)
    for k in range(1, shape[0]):
        series[k] = memory * series[k - 1] + noise[k]
    return series


def test_statistical_inefficiency_of_ar1():
    """g = (1 + a) / (1 - a)."""
    series = ar1(np.random.default_rng(2), 0.8, (20000, 20))
    found = np.array([statistical_inefficiency(column) for column in series.T])
    exact = 1.8 / 0.2
    assert found.mean() == pytest.approx(exact, abs=4 * found.std(ddof=1) / math.sqrt(20) + 0.05 * exact)
    assert statistical_inefficiency(np.random.default_rng(0).normal(size=5000)) < 1.3


def test_drift_is_found_within_its_error():
    """A known slope under correlated noise: the scores of 200 replicas have unit variance, not more."""
    times = np.linspace(0, 2.0, 400)
    noise = ar1(np.random.default_rng(5), 0.7, (400, 200))
    fits = np.array([linear_drift(times, 3.0 * times + column) for column in noise.T])
    scores = (fits[:, 0] - 3.0) / fits[:, 1]
    assert abs(scores.mean()) < 4 / math.sqrt(200)
    assert 0.8 < scores.std() < 1.35  # short series underestimate their own memory a little
    naive = fits[:, 1] / np.sqrt([statistical_inefficiency(column) for column in noise.T])
    assert (
        (fits[:, 0] - 3.0) / naive
    ).std() > 1.6  # negative control: without the correlation it is too sure


def test_drift_of_a_line_is_exact():
    slope, error = linear_drift(np.arange(10.0), 4.0 - 2.0 * np.arange(10.0))
    assert slope == pytest.approx(-2.0, abs=1e-12)
    assert error == pytest.approx(0.0, abs=1e-12)


def test_block_standard_error_of_correlated_data():
    """AR(1), x' = a x + noise: the variance of the mean is (1 + a) / (1 - a) times the naive one."""
    rng, memory, length, replicas = np.random.default_rng(11), 0.9, 2**14, 200
    noise = rng.normal(size=(length, replicas))
    series = np.empty_like(noise)
    series[0] = noise[0] / math.sqrt(1 - memory**2)  # starts in its stationary distribution
    for k in range(1, length):
        series[k] = memory * series[k - 1] + noise[k]
    exact = math.sqrt((1 + memory) / (1 - memory) / (1 - memory**2) / length)
    estimates = np.array([block_standard_error(column) for column in series.T])
    # The mean estimate against the exact value, in sigma of the mean over replicas.
    uncertainty = estimates.std(ddof=1) / math.sqrt(replicas)
    assert (
        abs(estimates.mean() - exact) < 4 * uncertainty + 0.02 * exact
    )  # 2%: the known bias of finite blocks
    assert estimates.std() < 0.2 * exact
    # Errors of the means, each in its own standard error, must have unit variance.
    scores = (series.mean(axis=0) / estimates) ** 2
    assert abs(scores.mean() - 1) < 4 * math.sqrt(2 / replicas)
    naive = series.std(axis=0, ddof=1) / math.sqrt(length)
    assert naive.mean() < 0.3 * exact


def test_block_standard_error_of_independent_data():
    rng, length, replicas = np.random.default_rng(3), 1000, 300
    estimates = np.array([block_standard_error(rng.normal(size=length)) for _ in range(replicas)])
    exact = 1 / math.sqrt(length)
    assert abs((estimates**2).mean() / exact**2 - 1) < 4 * (estimates**2).std() / exact**2 / math.sqrt(
        replicas
    )


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [math.nan] * 50, list(range(40))])
def test_block_standard_error_admits_that_it_does_not_know(values):
    assert math.isnan(block_standard_error(np.array(values)))


def test_block_standard_error_of_a_constant_is_zero():
    assert block_standard_error(np.full(100, 2.5)) == 0.0
