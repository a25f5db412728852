"""Profiles of wells by MBAR against exact ones, in standard errors; gaps; errors that are too small."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from wells import KT, LINE, TEMPERATURE, double_well, exact_bins, harmonic, metropolis

from mlmm.errors import ConfigError
from mlmm.reactions.mbar import log_mixture, resampled, solve_mbar
from mlmm.reactions.profile import free_energies
from mlmm.reactions.rate import eyring_rate
from mlmm.reactions.samples import load_pymbar, sampled_neighbours, window_samples
from mlmm.reactions.umbrella_analysis import analyse_windows, result_facts
from mlmm.reactions.windows import Coordinate, Window, neighbours, plan_windows

CENTRES = np.linspace(-0.13, 0.13, 9)


def windows_on(ground) -> list[Window]:
    """Stiffer where the ground curves down, as a scan would tell."""
    h = 1e-4
    curvatures = (ground(CENTRES + h) - 2 * ground(CENTRES) + ground(CENTRES - h)) / h**2
    return plan_windows(CENTRES, None, TEMPERATURE, curvatures=curvatures)


def results(ground, seeds, length: int, *, temperature: float = TEMPERATURE, bootstraps: int = 60):
    windows = windows_on(ground)
    found = []
    for values in metropolis(ground, windows, seeds, length):
        samples = [window_samples(w, x, LINE) for w, x in zip(windows, values, strict=True)]
        found.append(analyse_windows(samples, LINE, temperature, bootstraps=bootstraps))
    return found


def deviations(found, ground, temperature: float = TEMPERATURE) -> np.ndarray:
    """Of barrier (or difference of the ends) from the exact value in the same bins, in standard errors."""
    off = []
    for result in found:
        exact = exact_bins(ground, result.profile.edges, temperature)
        off.append((result.profile.step(result.profile.values) - result.profile.step(exact)) / result.error)
    return np.array(off)


@pytest.mark.parametrize("ground", [harmonic, double_well])
def test_a_profile_is_exact_within_its_errors(ground):
    """Three seeds, every bin: within 4 sigma; root mean square deviation of all bins about 1 sigma."""
    squares = []
    found = results(ground, range(3), 400)
    for result in found:
        profile = result.profile
        exact = exact_bins(ground, profile.edges)
        off = profile.values - (exact - exact[profile.landmarks.reactant])
        known = profile.errors > 0
        squares.append(np.mean((off[known] / profile.errors[known]) ** 2))
        assert np.abs(off[known] / profile.errors[known]).max() < 4
        assert profile.errors[known].max() < 2
    assert 0.4 < np.sqrt(np.mean(squares)) < 1.6
    assert np.abs(deviations(found, ground)).max() < 3


@pytest.mark.slow
@pytest.mark.parametrize("ground", [harmonic, double_well])
def test_errors_are_honest(ground):
    """95 % of 20 seeds inside 2 sigma, and errors no larger than the deviations ask for."""
    found = results(ground, range(100, 120), 600, bootstraps=100)
    off = deviations(found, ground)
    assert (np.abs(off) < 2).mean() >= 0.95
    assert 0.5 < np.sqrt(np.mean(off**2)) < 1.3


def test_landmarks_and_barrier_of_the_double_well():
    (result,) = results(double_well, [3], 400)
    centres, marks = result.profile.centres, result.profile.landmarks
    width = centres[1] - centres[0]
    assert centres[marks.reactant] == pytest.approx(-0.1, abs=1.5 * width)
    assert centres[marks.transition_state] == pytest.approx(0.0, abs=1.5 * width)
    assert centres[marks.product] == pytest.approx(0.1, abs=1.5 * width)
    barrier, error = result.profile.barrier
    assert error < 1
    assert barrier == pytest.approx(20 + 3, abs=1.5)
    facts = result_facts(result)
    assert facts["barrier"] == [barrier, error]
    assert len(facts["windows"]) == len(CENTRES)


def test_another_temperature_shifts_the_profile():
    """Control: samples of 300 K taken for those of 600 K are off by many errors, and right ones are not."""
    seeds = range(3)
    wrong = deviations(results(double_well, seeds, 300, temperature=600.0), double_well)
    right = deviations(results(double_well, seeds, 300), double_well)
    assert abs(wrong.sum()) / np.sqrt(len(wrong)) > 5
    assert abs(right.sum()) / np.sqrt(len(right)) < 3


def test_errors_that_are_too_small_are_detected():
    """Control: a slow coordinate whose samples count as independent; its blocks scatter too much."""
    windows = windows_on(double_well)
    slow = metropolis(double_well, windows, [5], 600, step=0.01, every=1)[0]
    kept = [window_samples(w, x, LINE) for w, x in zip(windows, slow, strict=True)]
    naive = analyse_windows([entry.counted(1.0) for entry in kept], LINE, TEMPERATURE, bootstraps=60)
    assert naive.block_probability < 0.01
    assert naive.error > 2 * naive.profile.barrier[1]
    # Drawn as often as they are independent, the error is larger by the root of the inefficiency.
    honest = analyse_windows(kept, LINE, TEMPERATURE, bootstraps=60)
    memory = np.sqrt(np.mean([entry.inefficiency for entry in kept]))
    assert memory > 3
    assert honest.profile.barrier[1] / naive.profile.barrier[1] == pytest.approx(memory, rel=0.35)
    fast = results(double_well, [5], 250)[0]
    assert fast.block_probability > 0.01


def test_bootstrap_error_is_that_of_repeated_experiments():
    """The scatter of 24 independent experiments and the mean bootstrap error agree within 40 %."""
    found = results(double_well, range(200, 224), 60, bootstraps=25)
    heights = [
        result.profile.step(result.profile.values)
        - result.profile.step(exact_bins(double_well, result.profile.edges))
        for result in found
    ]
    errors = [result.profile.barrier[1] for result in found]
    assert np.mean(errors) == pytest.approx(np.std(heights, ddof=1), rel=0.4)


def test_a_gap_is_named_with_the_window_that_closes_it():
    """Without its window at the barrier the profile has a gap; the window that is proposed closes it."""
    windows = windows_on(double_well)
    left = [w for k, w in enumerate(windows) if k != 4]
    values = metropolis(double_well, left, [1], 200)[0]
    result = analyse_windows(
        [window_samples(w, x, LINE) for w, x in zip(left, values, strict=True)],
        LINE,
        TEMPERATURE,
        bootstraps=10,
    )
    ((below, above, shared),) = result.gaps
    assert (below, above) == (left[3].centre, left[4].centre)
    assert shared < 0.03
    assert [window.number for window in result.missing] == [9, 10][: len(result.missing)]
    assert {window.added for window in result.missing} == {1}
    more = [*left, *result.missing]
    values = metropolis(double_well, more, [1], 200)[0]
    again = analyse_windows(
        [window_samples(w, x, LINE) for w, x in zip(more, values, strict=True)],
        LINE,
        TEMPERATURE,
        bootstraps=10,
    )
    assert again.gaps == ()
    for samples in values[8:]:
        assert values[3].mean() < samples.mean() < values[4].mean()


def test_windows_that_slid_off_a_barrier_are_found():
    """Control: soft windows whose biases are alike and whose samples are on two sides; MBAR sees no gap."""
    generator = np.random.default_rng(0)
    windows = [Window(x, 1500.0, k) for k, x in enumerate((-0.1, -0.01, 0.01, 0.1))]
    places = (-0.11, -0.095, 0.095, 0.11)
    samples = [
        window_samples(w, generator.normal(x, 0.015, 300), LINE) for w, x in zip(windows, places, strict=True)
    ]
    result = analyse_windows(samples, LINE, TEMPERATURE, bootstraps=10)
    assert result.overlap[1, 2] > 0.1
    assert [gap[:2] for gap in result.gaps] == [(-0.01, 0.01)]
    assert result.least_overlap < 1e-6
    assert len(result.missing) == 4
    # Stiffer than the ground curves down, and in between.
    slope = -1500.0 * (-0.095 + 0.01), -1500.0 * (0.095 - 0.01)
    curvature = (slope[1] - slope[0]) / 0.19
    assert all(window.force_constant > -1.9 * curvature for window in result.missing)
    assert all(-0.095 < window.centre < 0.095 for window in result.missing)
    ((low, high),) = result_facts(result)["empty"]
    assert low == pytest.approx(-0.05, abs=0.03)
    assert high == pytest.approx(0.05, abs=0.03)


def test_resampled_equations_are_those_of_pymbar():
    """Each sample once: the solution of pymbar to 1e-6; drawn anew: pymbar's for the drawn samples."""
    generator = np.random.default_rng(3)
    windows = plan_windows(CENTRES, None, TEMPERATURE)
    values = metropolis(double_well, windows, [2], 60)[0]
    reduced = np.array([w.energies(values.ravel(), LINE) / KT for w in windows])
    counts = np.full(len(windows), 60)
    free = solve_mbar(reduced, counts)
    once, weights = resampled(reduced, counts, np.ones(values.size), np.zeros(len(windows)))
    np.testing.assert_allclose(once, free, atol=1e-6)
    np.testing.assert_allclose(weights, -log_mixture(reduced, counts, free), atol=1e-5)
    drawn = np.concatenate([generator.multinomial(60, np.full(60, 1 / 60)) for _ in windows])
    again, weights = resampled(reduced, counts, drawn, free)
    # Weights of drawn samples give back the free energy of every window.
    found = -np.log(np.exp(weights - reduced).sum(axis=1))
    np.testing.assert_allclose(found - found[0], again, atol=1e-5)
    other = load_pymbar().MBAR(
        np.repeat(reduced, drawn, axis=1), counts, solver_protocol=({"method": "adaptive"},)
    )
    np.testing.assert_allclose(again, other.f_k, atol=1e-5)
    assert np.abs(again - free).max() > 1e-3


def test_equilibration_is_left_out():
    generator = np.random.default_rng(0)
    values = generator.normal(0.1, 0.01, 1000)
    values[:150] += np.linspace(0.2, 0, 150)
    found = window_samples(Window(0.1, 1000.0), values, LINE)
    assert 90 < found.dropped < 250
    assert window_samples(Window(0.1, 1000.0), values[300:], LINE).dropped < 100


def test_correlated_samples_count_less():
    """An autoregressive series has g = (1 + a)/(1 - a)."""
    generator = np.random.default_rng(1)
    values = np.zeros(20000)
    for k in range(1, len(values)):
        values[k] = 0.8 * values[k - 1] + generator.normal()
    found = window_samples(Window(0.0, 1.0), values, LINE)
    assert found.inefficiency == pytest.approx(9.0, rel=0.15)
    assert found.independent == pytest.approx(len(found.values) / 9, rel=0.15)


def test_windows_on_a_circle():
    """Neighbours go around; the profile of cos(3 phi) is exact within its errors."""
    circle = Coordinate("phi", "rad", 2 * np.pi)
    windows = plan_windows(np.linspace(-np.pi, np.pi, 16, endpoint=False), None, TEMPERATURE)
    assert neighbours(windows, circle)[-1] == (15, 0)

    def ground(x):
        return 3.0 * np.cos(3 * x)

    samples = []
    for window in windows:
        around = Window(0.0, window.force_constant)
        values = metropolis(
            lambda x, w=window: ground(x + w.centre), [around], [window.number], 300, step=0.3
        )
        samples.append(window_samples(window, window.centre + values[0, 0], circle))
    result = analyse_windows(samples, circle, TEMPERATURE, bootstraps=60)
    profile = result.profile
    assert profile.edges[[0, -1]] == pytest.approx([-np.pi, np.pi])
    exact = exact_bins(ground, profile.edges)
    off = profile.values - (exact - exact[profile.landmarks.reactant])
    known = profile.errors > 0
    assert np.abs(off[known] / profile.errors[known]).max() < 4
    assert profile.errors.max() < 1
    assert profile.values.max() > 5
    # Values a turn further on are the same places.
    turned = [
        dataclasses.replace(entry, values=entry.values + 2 * np.pi * (k % 3 - 1))
        for k, entry in enumerate(samples)
    ]
    again = analyse_windows(turned, circle, TEMPERATURE, bootstraps=2).profile
    np.testing.assert_allclose(again.values, profile.values, atol=1e-6)


def test_errors_of_bins_are_no_smaller_than_those_of_counting():
    """Few samples resample to few values, and fall below kT sqrt(1/n + 1/n0) without it."""
    windows = windows_on(double_well)
    values = metropolis(double_well, windows, [7], 80)[0]
    samples = [window_samples(w, x, LINE) for w, x in zip(windows, values, strict=True)]
    profile = analyse_windows(samples, LINE, TEMPERATURE, bins=60, bootstraps=40).profile
    pairs = [(x, 1 / (len(entry.spaced) / entry.independent)) for entry in samples for x in entry.spaced]
    places, shares = np.array(pairs).T
    counts = np.histogram(places, profile.edges, weights=shares)[0]
    with np.errstate(divide="ignore"):
        least = KT * np.sqrt(1 / counts + 1 / counts[profile.landmarks.reactant])
    known = np.isfinite(profile.errors) & (profile.errors > 0)
    assert (profile.errors[known] >= least[known] - 1e-9).all()
    drawn = np.nanstd(profile.replicates[:, known], axis=0, ddof=1)
    assert (drawn < least[known]).any()


def test_planned_windows_overlap_as_wanted():
    """Neighbours 1.5 widths apart; on a barrier of curvature -F'' the window is stiffer by F''."""
    flat = plan_windows([0.0, 0.1, 0.2], None, TEMPERATURE)
    assert np.sqrt(KT / flat[1].force_constant) == pytest.approx(0.1 / 1.5)
    curved = plan_windows([0.0, 0.1, 0.2], None, TEMPERATURE, curvatures=np.array([0.0, -400.0, 1e9]))
    assert curved[1].force_constant == pytest.approx(flat[1].force_constant + 400)
    assert curved[2].force_constant == pytest.approx(0.25 * flat[2].force_constant)


@pytest.mark.parametrize("centres", [[0.1], [0.1, 0.1]])
def test_bad_centres_are_refused(centres):
    with pytest.raises(ConfigError):
        plan_windows(centres, None, TEMPERATURE)


def test_bad_samples_are_refused():
    with pytest.raises(ConfigError, match="at least 10 samples"):
        window_samples(Window(0.1, 1.0), np.zeros(3), LINE)
    with pytest.raises(ConfigError, match="finite"):
        window_samples(Window(0.1, 1.0), np.full(30, np.nan), LINE)
    one = window_samples(Window(0.1, 1.0), np.random.default_rng(0).normal(0.1, 0.1, 30), LINE)
    with pytest.raises(ConfigError, match="two windows"):
        analyse_windows([one], LINE, TEMPERATURE)


def test_eyring():
    """k_B T/h at 298.15 K is 6.2124e12/s; 10 kJ/mol more slow it down by exp(10/RT)."""
    assert eyring_rate(0.0, 0.0, 298.15).value == pytest.approx(6.21244e12, rel=1e-5)
    found = eyring_rate(60.0, 2.0, 300.0)
    assert found.value == pytest.approx(2.083661912e10 * 300 * np.exp(-60 / KT), rel=1e-8)
    assert found.factor == pytest.approx(np.exp(2.0 / KT))
    assert eyring_rate(60.0, 2.0, 300.0, 0.5).value == pytest.approx(0.5 * found.value)
    with pytest.raises(ConfigError, match="above 0 K"):
        eyring_rate(60.0, 2.0, 0.0)


def test_a_barrier_far_above_the_deepest_valley_keeps_its_bins():
    """Weights over 60 kT and over 2000 kT, exact: every bin has its mean, whatever stands in the others.

    The control: running sums of all weights, as numpy's histogram takes them, lose bins beyond 36 kT.
    """
    edges = np.linspace(0.0, 1.0, 11)
    values = np.repeat(0.5 * (edges[1:] + edges[:-1]), 4)
    for height in (60.0, 2000.0):
        ground = height * np.sin(np.pi * values)
        found = free_energies(values, -ground - 30.0 * values, edges, TEMPERATURE) / KT
        exact = (ground + 30.0 * values)[::4]
        np.testing.assert_allclose(found - found[0], exact - exact[0], atol=1e-9)
    shallow = np.exp(-60.0 * np.sin(np.pi * values) + 30.0 * (values - 1))
    lost = np.histogram(values, edges, weights=shallow)[0]
    assert (lost == 0).any()
    beyond = free_energies(np.array([-0.1, 0.05, 1.0, 1.2]), np.zeros(4), edges, TEMPERATURE)
    assert np.isfinite(beyond).sum() == 2


def test_a_window_that_closes_a_gap_behind_a_soft_one_is_beside_the_stiff_one():
    """On a slope a soft window slides past its neighbour: what closes the gap has a centre beyond its own.

    The control: by their centres, the stiff and the soft window would be neighbours that share nothing.
    """
    slope, generator = 300.0, np.random.default_rng(2)
    windows = [Window(0.04, 15000.0, 0), Window(0.06, 3900.0, 1), Window(0.078, 15000.0, 2)]
    samples = []
    for window in windows:
        spread = np.sqrt(KT / window.force_constant)
        mean = window.centre + slope / window.force_constant
        samples.append(
            window_samples(window, mean + spread * generator.normal(size=300), LINE, equilibrated=True)
        )
    assert sampled_neighbours(samples, LINE) == [(0, 2), (2, 1)]
    result = analyse_windows(samples, LINE, TEMPERATURE, bootstraps=10, limits=(0.05, 0.15))
    assert not result.gaps
    assert result.least_overlap > 0.03
    assert min(result.overlap[0, 1], result.overlap[1, 0]) < 0.03


def test_windows_at_one_place_keep_the_order_of_their_centres():
    """Two that slid into one valley; a third that slid past both is beside the far one."""
    generator = np.random.default_rng(5)
    windows = [
        Window(0.24, 12000.0, 0),
        Window(0.26, 12000.0, 1),
        Window(0.30, 3000.0, 2),
        Window(0.32, 12000.0, 3),
    ]
    means = [0.242, 0.241, 0.36, 0.32]
    samples = [
        window_samples(
            window,
            mean + np.sqrt(KT / window.force_constant) * generator.normal(size=300),
            LINE,
            equilibrated=True,
        )
        for window, mean in zip(windows, means, strict=True)
    ]
    assert sampled_neighbours(samples, LINE) == [(0, 1), (1, 3), (3, 2)]
    assert sampled_neighbours(samples[::-1], LINE) == [(3, 2), (2, 0), (0, 1)]
