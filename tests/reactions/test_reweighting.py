"""Free energies of another description against exact ones: exponential averages, BAR, Crooks; controls."""

from __future__ import annotations

import numpy as np
import pytest
from wells import KT, TEMPERATURE

from mlmm.errors import ConfigError
from mlmm.reactions.mbar import resampled, solve_mbar
from mlmm.reactions.reweighting import effective_samples, exponential_average, two_sided


def oscillator(seed: int, n: int, k: float) -> np.ndarray:
    """Places of a harmonic oscillator."""
    return np.random.default_rng(seed).normal(0.0, np.sqrt(KT / k), n)


#: From k = 1000 to 1500 kJ/mol/nm^2: DeltaF = kT/2 ln(k1/k0).
SOFT, STIFF = 1000.0, 1500.0
EXACT = 0.5 * KT * np.log(STIFF / SOFT)


def change(x: np.ndarray) -> np.ndarray:
    return 0.5 * (STIFF - SOFT) * x**2


def test_exponential_average_of_an_oscillator_is_exact_in_sigma():
    """20 seeds: 95 % inside 2 sigma, and the scatter is that of the errors."""
    found = [exponential_average(change(oscillator(seed, 500, SOFT)), TEMPERATURE) for seed in range(20)]
    off = np.array([(one.value - EXACT) / one.error for one in found])
    assert (np.abs(off) < 2).mean() >= 0.95
    assert 0.6 < np.sqrt((off**2).mean()) < 1.4
    assert all(one.error < 0.1 for one in found)
    assert all(300 < one.effective < 500 for one in found)


def test_frames_of_the_wrong_temperature_shift_the_answer():
    """Control: frames of 300 K taken for those of 600 K."""
    wrong = exponential_average(change(oscillator(0, 3000, SOFT)), 2 * TEMPERATURE)
    right = exponential_average(change(oscillator(0, 3000, SOFT)), TEMPERATURE)
    assert abs(right.value - EXACT) < 3 * right.error
    assert abs(wrong.value - 2 * EXACT) > 6 * wrong.error


def test_correlated_frames_have_larger_errors():
    """Each frame five times: the error is that of the frames that differ, not of all."""
    once = change(oscillator(1, 400, SOFT))
    found = [exponential_average(values, TEMPERATURE) for values in (once, np.repeat(once, 5))]
    assert found[1].value == pytest.approx(found[0].value)
    assert found[1].error == pytest.approx(found[0].error, rel=0.3)
    assert found[1].independent == pytest.approx(found[0].independent, rel=0.3)


def test_a_description_far_away_has_hardly_any_effective_samples():
    """Control: DeltaU scattered by 10 kT leaves one sample in a hundred, or fewer."""
    far = np.random.default_rng(0).normal(0.0, 10 * KT, 300)
    found = exponential_average(far, TEMPERATURE)
    assert found.effective < 5
    assert abs(found.value - found.gaussian) > 5 * KT
    near = exponential_average(0.01 * far, TEMPERATURE)
    assert near.effective > 250
    assert near.value == pytest.approx(near.gaussian, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_both_sides_of_an_oscillator(seed):
    """BAR: exact in sigma, with a smaller error than one side; samples of one side twice are off."""
    forward = change(oscillator(seed, 3000, SOFT))
    backward = -change(oscillator(seed + 100, 3000, STIFF))
    value, error, overlap = two_sided(forward, backward, TEMPERATURE)
    assert abs(value - EXACT) < 3 * error
    assert error < 0.1
    assert 0.7 < overlap <= 1.0
    wrong, error, _ = two_sided(forward, -change(oscillator(seed + 100, 3000, SOFT)), TEMPERATURE)
    assert abs(wrong - EXACT) > 3 * error


def test_states_between_two_oscillators():
    """lambda from 0 to 1 in five states, k eight times as stiff at the end, by MBAR: kT/2 ln 8 in sigma."""
    stiffness = SOFT * (1 + 7 * np.linspace(0, 1, 5))
    values = np.concatenate([oscillator(k, 400, one) for k, one in enumerate(stiffness)])
    reduced = 0.5 * stiffness[:, None] * values**2 / KT
    counts = np.full(5, 400)
    free = solve_mbar(reduced, counts)
    generator = np.random.default_rng(0)
    drawn = [
        np.concatenate([generator.multinomial(400, np.full(400, 1 / 400)) for _ in counts]) for _ in range(60)
    ]
    error = np.std([resampled(reduced, counts, one, free)[0][-1] for one in drawn], ddof=1)
    exact = 0.5 * np.log(8.0)
    assert abs(free[-1] - exact) < 3 * error
    assert error < 0.1
    wrong = solve_mbar(0.5 * reduced, counts)
    assert abs(wrong[-1] - exact) > 5 * error


def test_ideal_gas_from_fast_changes():
    """A gas of N particles in a box that is made longer: DeltaF = -N kT ln(L1/L0), from Gaussian work.

    Work of changes with dissipation d is Gaussian of variance 2 d kT around DeltaF + d (Crooks).
    """
    exact = -5 * KT * np.log(1.3)
    dissipation = 1.5 * KT
    generator = np.random.default_rng(2)
    width = np.sqrt(2 * dissipation * KT)
    forward = generator.normal(exact + dissipation, width, 300)
    backward = generator.normal(-exact + dissipation, width, 300)
    value, error, _ = two_sided(forward, backward, TEMPERATURE)
    assert abs(value - exact) < 3 * error
    assert error < 0.5
    assert abs(forward.mean() - exact) > 10 * error


def test_a_moved_trap_obeys_crooks():
    """Overdamped dynamics of a particle in a trap that moves: DeltaF = 0, whatever work it takes."""

    def work(seed: int, direction: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        k, steps, dt = 1000.0, 200, 2e-6
        x = generator.normal(0.0, np.sqrt(KT / k), 400)
        total = np.zeros(400)
        for step in range(steps):
            before, after = (direction * 0.1 * (step + one) / steps for one in (0, 1))
            total += 0.5 * k * ((x - after) ** 2 - (x - before) ** 2)
            x += -k * (x - after) * dt + generator.normal(0, np.sqrt(2 * KT * dt), 400)
        return total

    forward, backward = work(1, 1), work(2, -1)
    value, error, _ = two_sided(forward, backward, TEMPERATURE)
    assert forward.mean() > 1.0 * KT
    assert abs(value) < 3 * error
    assert error < 1.0


def test_samples_of_small_weight_or_that_are_correlated_count_less():
    assert effective_samples(np.full(100, 3.0)) == pytest.approx(100)
    assert effective_samples(np.log(np.array([1.0, 1e-9, 1e-9]))) == pytest.approx(1.0, abs=1e-6)
    assert effective_samples(np.zeros(100), 4.0) == pytest.approx(25)
    # Half of them alone, half ten times each.
    assert effective_samples(np.zeros(100), np.repeat([1.0, 10.0], 50)) == pytest.approx(100**2 / 550)


def test_bad_differences_are_refused():
    with pytest.raises(ConfigError, match="5 frames or more"):
        exponential_average(np.zeros(3), TEMPERATURE)
    with pytest.raises(ConfigError, match="finite"):
        exponential_average(np.array([0.0] * 9 + [np.nan]), TEMPERATURE)
