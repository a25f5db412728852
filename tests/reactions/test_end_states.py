"""From the force field to the hybrid: oscillators and an ideal gas in a field, exact in standard errors."""

from __future__ import annotations

import numpy as np
import pytest

from mlmm.errors import ConfigError
from mlmm.reactions.correction import DifferenceRunner, FrameChunk
from mlmm.reactions.end_state_analysis import analyse_states
from mlmm.reactions.end_states import asked_weights
from mlmm.reactions.sampling_options import EndStateOptions
from mlmm.report.end_state_page import judge_end_states
from mlmm.units import GAS_CONSTANT

TEMPERATURE = 300.0
KT = GAS_CONSTANT * TEMPERATURE
SOFT, STIFF, ZERO = 1000.0, 6000.0, 40.0
WEIGHTS = np.linspace(0, 1, 5)
OSCILLATOR = ZERO + 0.5 * KT * np.log(STIFF / SOFT)
FIELD, PARTICLES = 8.0 * KT, 3  # at the far end of a box of unit length
GAS = -PARTICLES * KT * np.log((1 - np.exp(-FIELD / KT)) / (FIELD / KT))


def oscillators(seed: int, samples: int = 300, memory: float = 0.5) -> list[np.ndarray]:
    """D of a particle whose spring becomes stiffer; neighbours in time are correlated by `memory`."""
    generator = np.random.default_rng(seed)
    found = []
    for weight in WEIGHTS:
        width = np.sqrt(KT / (SOFT + weight * (STIFF - SOFT)))
        noise = generator.normal(0, 1, samples)
        for k in range(1, samples):
            noise[k] = memory * noise[k - 1] + np.sqrt(1 - memory**2) * noise[k]
        found.append(ZERO + 0.5 * (STIFF - SOFT) * (width * noise) ** 2)
    return found


def gas(seed: int, samples: int = 300) -> list[np.ndarray]:
    """D of particles that do not see each other, in a box in which a field is switched on."""
    generator = np.random.default_rng(seed)
    found = []
    for weight in WEIGHTS:
        share = generator.uniform(size=(samples, PARTICLES))
        steep = weight * FIELD / KT
        places = share if steep == 0 else -np.log(1 - share * (1 - np.exp(-steep))) / steep
        found.append(FIELD * places.sum(axis=1))
    return found


@pytest.mark.parametrize(("sample", "exact"), [(oscillators, OSCILLATOR), (gas, GAS)])
def test_the_free_energy_is_exact_within_its_error(sample, exact):
    """20 seeds: 18 or more inside two standard errors, which are neither too small nor too large.

    The controls: the mean of D at one end, the path's slope there, is far off, and so is half of every D.
    """
    away, errors = [], []
    for seed in range(20):
        found = analyse_states(WEIGHTS, sample(seed), TEMPERATURE, bootstraps=25, seed=seed)
        errors.append(found.errors[-1])
        away.append((found.free_energies[-1] - exact) / errors[-1])
    assert (np.abs(away) < 2).sum() >= 18
    assert 0.6 < np.std(away) < 1.5
    assert max(errors) < 0.8
    assert abs(found.slopes[0] - exact) > 5 * found.slope_errors[0]
    half = analyse_states(WEIGHTS, [0.5 * own for own in sample(0)], TEMPERATURE, bootstraps=20)
    assert abs(half.free_energies[-1] - exact) > 5 * errors[0]


def test_the_slope_falls_and_its_integral_is_the_free_energy():
    """Gibbs-Bogoliubov: dF/dw falls; with 21 states the trapezoidal rule is exact in standard errors."""
    generator = np.random.default_rng(3)
    weights = np.linspace(0, 1, 21)
    widths = np.sqrt(KT / (SOFT + weights * (STIFF - SOFT)))
    given = [ZERO + 0.5 * (STIFF - SOFT) * (one * generator.normal(size=400)) ** 2 for one in widths]
    found = analyse_states(weights, given, TEMPERATURE, bootstraps=20)
    assert abs(found.integral - OSCILLATOR) < 4 * found.integral_error
    assert found.slopes[0] > found.slopes[10] > found.slopes[-1]
    np.testing.assert_allclose(found.overlap.sum(axis=1), 1, atol=1e-6)


def test_correlated_samples_count_for_less():
    """Each sample five times over: the same answer, the same error; a fifth of them is independent."""
    plain = oscillators(1, memory=0.0)
    once = analyse_states(WEIGHTS, plain, TEMPERATURE)
    again = analyse_states(WEIGHTS, [np.repeat(own, 5) for own in plain], TEMPERATURE)
    assert again.free_energies[-1] == pytest.approx(once.free_energies[-1], abs=0.3 * once.errors[-1])
    assert again.errors[-1] == pytest.approx(once.errors[-1], rel=0.3)
    assert again.independent == pytest.approx(once.independent, rel=0.3)


def test_states_that_do_not_overlap_are_said_to_be_bad():
    """Two states far apart; the five between them are fine."""
    good = analyse_states(WEIGHTS, oscillators(0), TEMPERATURE, bootstraps=20)
    assert judge_end_states(good.facts()).level == "ok"
    apart = np.random.default_rng(0).normal(0, KT, (2, 100)) + np.array([[60 * KT], [-60 * KT]])
    bad = analyse_states([0, 1], list(apart), TEMPERATURE, bootstraps=10)
    levels = {one.name: one.level for one in judge_end_states(bad.facts()).judgements}
    assert levels["overlap"] == "bad"


def test_weights_and_samples_that_cannot_be_are_refused():
    assert asked_weights(EndStateOptions(states=3)) == [0.0, 0.5, 1.0]
    assert asked_weights(EndStateOptions(weights=[0.0, 0.2, 1.0])) == [0.0, 0.2, 1.0]
    for weights in ([0.0, 0.5], [0.1, 1.0], [0.0, 0.7, 0.3, 1.0]):
        with pytest.raises(ConfigError, match="rise from 0 to 1"):
            asked_weights(EndStateOptions(weights=weights))
    with pytest.raises(ConfigError, match="10 finite differences"):
        analyse_states([0, 1], [np.zeros(20), np.zeros(5)], TEMPERATURE)
    with pytest.raises(ConfigError, match=r"weight 0, .*19 of 20"):
        analyse_states([0, 1], [np.append(np.zeros(19), np.nan), np.zeros(20)], TEMPERATURE)


def test_a_piece_with_fewer_frames_than_its_run_has_now_is_evaluated_again(tmp_path, monkeypatch):
    """A run that became longer: the last piece is renewed, a whole one stays."""
    frames = [(np.full((1, 3), float(k)), None) for k in range(7)]
    monkeypatch.setattr("mlmm.reactions.correction.frames_of", lambda path, n_atoms: frames)
    file = tmp_path / "piece.npy"
    np.save(file, [0.0, 1.0])
    runner = DifferenceRunner(lambda: lambda positions, box: 10 * float(positions[0, 0]))
    runner(FrameChunk("trajectory.dcd", 1, (0, 1), str(file)))
    np.testing.assert_array_equal(np.load(file), [0, 1])
    runner(FrameChunk("trajectory.dcd", 1, (0, 1, 2), str(file)))
    np.testing.assert_array_equal(np.load(file), [0, 10, 20])
