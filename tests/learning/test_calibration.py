"""Calibrated spreads: constants found again, coverage nominal in sigma, stored and read, bad sets refused."""

import dataclasses
import json
import math

import numpy as np
import pytest

from mlmm.errors import ConfigError, PotentialError
from mlmm.learning.uncertainty.calibrate import (
    NOMINAL,
    SpreadsAndErrors,
    calibrate_forces,
    reliability,
    with_coverage,
)
from mlmm.potentials.calibration import Calibration


def drawn(seed, structures=400, scale=4.0, floor=20.0, tails=False):
    """Errors of 10 atoms a structure with variance scale² spread²/3 + floor² of a component."""
    random = np.random.default_rng(seed)
    spreads = 30.0 * random.chisquare(3, size=10 * structures)
    shape = (len(spreads), 3)
    noise = random.standard_t(4, size=shape) / math.sqrt(2.0) if tails else random.standard_normal(shape)
    sigma = np.sqrt(scale**2 * spreads**2 / 3.0 + floor**2)
    return SpreadsAndErrors(spreads, sigma[:, None] * noise, structures)


def test_the_constants_are_found_again_and_cover():
    """Scale to 3 %, floor to 15 %, coverage of fresh draws to four standard errors; control: plain spread."""
    found = with_coverage(calibrate_forces(drawn(1), "spread"), drawn(2))
    assert found.scale == pytest.approx(4.0, rel=0.03) and found.floor == pytest.approx(20.0, rel=0.15)
    error = 4.0 * math.sqrt(0.25 / (3 * 10 * 400)) * math.sqrt(2.0)
    assert found.coverage68 == pytest.approx(NOMINAL[0], abs=error)
    assert found.coverage95 == pytest.approx(NOMINAL[1], abs=error)
    assert found.raw_coverage68 < 0.35 and found.correlation > 0.3
    nominal, measured = reliability(found, drawn(3))
    assert np.abs(nominal - measured).max() < 0.02
    wrong = dataclasses.replace(found, scale=1.0, floor=0.0)
    assert np.abs(np.subtract(*reliability(wrong, drawn(3)))).max() > 0.2


def test_heavy_tails_are_covered_by_the_quantiles():
    """Student errors: intervals hold their share though the Gaussian's would not."""
    found = with_coverage(calibrate_forces(drawn(4, tails=True), "spread"), drawn(5, tails=True))
    assert found.coverage68 == pytest.approx(NOMINAL[0], abs=0.02)
    assert found.coverage95 == pytest.approx(NOMINAL[1], abs=0.01)
    gaussian = with_coverage(dataclasses.replace(found, factor68=1.0), drawn(5, tails=True))
    assert gaussian.coverage68 > found.coverage68 + 0.01


def test_a_deviation_is_that_of_the_force_on_an_atom():
    calibration = Calibration("spread", 2.0, 10.0)
    assert calibration.deviation(np.array([0.0, 100.0])) == pytest.approx(
        [math.sqrt(300.0), math.sqrt(40300.0)]
    )


def test_it_is_stored_and_read_with_what_is_not_known():
    found = calibrate_forces(drawn(1, structures=20), "spread")
    assert math.isnan(found.coverage68) and "not tested" in found.sentence()
    text = json.dumps(found.as_facts(), allow_nan=False)
    again = Calibration.from_facts(json.loads(text), "a file")
    assert repr(again) == repr(found)
    with pytest.raises(PotentialError, match="a calibration in a file"):
        Calibration.from_facts({"scale": 1.0}, "a file")


def test_too_few_structures_and_members_that_agree_are_refused():
    with pytest.raises(ConfigError, match="5 held-out structures"):
        calibrate_forces(drawn(1, structures=3), "spread")
    flat = SpreadsAndErrors(np.zeros(50), np.ones((50, 3)), 10)
    with pytest.raises(ConfigError, match="members that disagree"):
        calibrate_forces(flat, "spread")
