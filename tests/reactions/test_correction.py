"""Profiles reweighted to another description, against exact changes in standard errors."""

from __future__ import annotations

import numpy as np
import pytest
from wells import KT, LINE, TEMPERATURE, double_well, exact_bins, metropolis

from mlmm.errors import ConfigError
from mlmm.reactions.correction import correct_profile
from mlmm.reactions.samples import window_samples
from mlmm.reactions.umbrella_analysis import analyse_windows, unbiased_log_weights
from mlmm.reactions.windows import Window, plan_windows

CENTRES = np.linspace(-0.13, 0.13, 13)


def change(x: np.ndarray) -> np.ndarray:
    """Lifts the barrier and tilts."""
    return 4.0 * np.exp(-((x / 0.04) ** 2)) + 20.0 * x


@pytest.fixture(scope="module")
def sampled():
    """Windows on the double well, and every fourth sample as a frame."""
    windows = plan_windows(CENTRES, None, TEMPERATURE, curvatures=np.full(13, -4000.0))
    values = metropolis(double_well, windows, [4], 400)[0]
    samples = [window_samples(w, x, LINE, equilibrated=True) for w, x in zip(windows, values, strict=True)]
    return analyse_windows(samples, LINE, TEMPERATURE, bootstraps=20), list(values[:, ::4])


def exact_change(edges: np.ndarray) -> np.ndarray:
    return exact_bins(lambda x: double_well(x) + change(x), edges) - exact_bins(double_well, edges)


def edges_of(found) -> np.ndarray:
    width = found.places[1] - found.places[0]
    return np.append(found.places - 0.5 * width, found.places[-1] + 0.5 * width)


def test_the_change_of_a_profile_is_exact_within_its_errors(sampled):
    """Also with noise in the difference, as other coordinates bring it: a constant of -s^2/2kT."""
    result, frames = sampled
    generator = np.random.default_rng(0)
    for noise in (0.0, 0.7 * KT):
        differences = [change(x) + generator.normal(0, noise, len(x)) for x in frames]
        found = correct_profile(result, frames, differences, bootstraps=100)
        exact = exact_change(edges_of(found))
        reference = int(np.flatnonzero(found.errors == 0)[0])
        off = found.shifts - (exact - exact[reference])
        known = found.errors > 0
        assert np.abs(off[known] / found.errors[known]).max() < 4
        assert found.errors[known].max() < 1.0
        barrier, error = found.barrier
        assert barrier > 2
        assert 0 < error < 1.0
        assert found.effective.min() > 10
    with pytest.raises(AssertionError):
        wrong = correct_profile(result, frames, [-one for one in differences], bootstraps=20)
        assert np.abs((wrong.shifts - found.shifts)[known] / found.errors[known]).max() < 4


def test_windows_with_few_frames_beside_windows_with_many():
    """One window in two has a tenth of the frames, in bins as wide as their distance: exact in sigma.

    The control, weights of frames that were as many in all windows, is far off.
    """
    windows = [Window(x, 2000.0, k) for k, x in enumerate(np.linspace(-0.1, 0.1, 5))]
    generator = np.random.default_rng(5)
    lengths = (20_000, 400, 20_000, 400, 20_000)
    # On flat ground a window is a Gaussian.
    frames = [
        w.centre + generator.normal(0, np.sqrt(KT / 2000.0), n) for w, n in zip(windows, lengths, strict=True)
    ]
    kept = [window_samples(w, x[:400], LINE, equilibrated=True) for w, x in zip(windows, frames, strict=True)]
    result = analyse_windows(kept, LINE, TEMPERATURE, bootstraps=10)

    def lifted(x):
        return 20.0 * KT * np.abs(x / 0.1)

    found = correct_profile(result, frames, [lifted(x) for x in frames], bootstraps=40)
    exact = exact_bins(lifted, edges_of(found))
    reference = int(np.flatnonzero(found.errors == 0)[0])
    known = found.errors > 0
    off = (found.shifts - (exact - exact[reference]))[known] / found.errors[known]
    assert np.abs(off).max() < 4
    assert found.errors[known].max() < 0.3
    wrong = mixed(result, frames, [lifted(x) for x in frames], edges_of(found))
    away = (wrong - wrong[reference] - (exact - exact[reference]))[known] / found.errors[known]
    assert np.abs(away).max() > 6


def test_frames_that_repeat_each_other_count_once(sampled):
    """In every second window each frame ten times: the same change, with the same error."""
    result, frames = sampled
    found = correct_profile(result, frames, [change(x) for x in frames])
    several = [np.repeat(x, 10) if k % 2 else x for k, x in enumerate(frames)]
    again = correct_profile(result, several, [change(x) for x in several])
    known = found.errors > 0
    assert np.abs((again.shifts - found.shifts)[known] / found.errors[known]).max() < 0.3
    assert again.barrier[1] == pytest.approx(found.barrier[1], rel=0.3)
    assert again.effective == pytest.approx(found.effective, rel=0.3)


def mixed(result, frames, differences, edges) -> np.ndarray:
    """Changes with the weights of as many frames from each window."""
    x, delta = np.concatenate(frames), np.concatenate(differences)
    logs = unbiased_log_weights(result.samples, LINE, TEMPERATURE, x, np.full(len(frames), 1.0))
    weights = np.exp(logs)
    before, after = (
        np.histogram(x, edges, weights=weights * factor)[0] for factor in (1.0, np.exp(-delta / KT))
    )
    return -KT * np.log(after / before)


def test_a_description_far_away_leaves_few_effective_frames(sampled):
    """Control: noise of 6 kT, and the error grows."""
    result, frames = sampled
    generator = np.random.default_rng(1)
    differences = [generator.normal(0, 6 * KT, len(x)) for x in frames]
    found = correct_profile(result, frames, differences, bootstraps=50)
    assert found.effective.min() < 5
    assert found.barrier[1] > 2


def test_frames_in_one_bin_are_refused(sampled):
    result, frames = sampled
    alone = [frames[0][:3], *[np.empty(0)] * 12]
    alone[0] = np.full(3, -0.129)
    with pytest.raises(ConfigError, match="two bins"):
        correct_profile(result, alone, [np.zeros(len(x)) for x in alone])
