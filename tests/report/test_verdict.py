"""The verdict on a run follows from its records alone, at the limits that it states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlmm.report.bonds import BondFacts, ChangedBond
from mlmm.report.verdict import LEVELS, Judgement, Verdict, judge
from mlmm.statistics import block_standard_error, drift_limit
from mlmm.units import AMU_PER_NM3

_STAGE = {"name": "produce", "ensemble": "NVT", "steps": 1000, "timestep_ps": 0.001, "temperature": 300.0}


def _run(**changes) -> dict:
    plan = [{"name": "equilibrate", "ensemble": "NVT", "temperature": 300.0}, _STAGE | {"trajectory": True}]
    return {
        "state": "finished",
        "plan": plan,
        "system": {"degrees_of_freedom": 600},
        "zones": {"core": 16, "transition": 0},
        "potential": {"name": "ANI-1x"},
    } | changes


def _rows(**columns) -> dict[str, np.ndarray]:
    """An energy table: twenty rows of heating that must not count, then the columns."""
    length = len(next(iter(columns.values())))
    table = {name: np.concatenate([np.full(20, 1e6), values]) for name, values in columns.items()}
    return table | {"stage": np.array(["equilibrate"] * 20 + ["produce"] * length)}


def _noise(size: int = 4096, scale: float = 1.0) -> np.ndarray:
    """White noise with mean 0."""
    values = np.random.default_rng(3).normal(size=size)
    return scale * (values - values.mean())


def _found(name: str, run: dict, energies: dict | None = None, bonds: BondFacts | None = None) -> Judgement:
    verdict = judge(run, energies or {}, bonds)
    (judgement,) = [judgement for judgement in verdict.judgements if judgement.name == name]
    return judgement


# --- temperature ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "level"),
    [(0.0, "ok"), (2.99, "ok"), (3.01, "look"), (4.99, "look"), (5.01, "bad"), (-5.01, "bad")],
)
def test_temperature_in_standard_errors(sigma, level):
    noise = _noise(scale=500.0)  # a standard error of some 8 K: every one of these is beyond 5 % from 3 on
    error = block_standard_error(noise)
    assert 3 * error > 0.05 * 300
    found = _found("temperature", _run(), _rows(temperature=300.0 + sigma * error + noise))
    assert found.level == level
    assert f"{abs(sigma):.1f} standard errors from 300 K" in found.finding
    assert bool(found.advice) == (level != "ok")


@pytest.mark.parametrize(
    ("part", "level"), [(0.0099, "ok"), (0.0101, "look"), (0.0499, "look"), (0.0501, "bad"), (-0.0501, "bad")]
)
def test_small_deviations_of_the_temperature_do_not_matter(part, level):
    found = _found("temperature", _run(), _rows(temperature=300.0 * (1 + part) + _noise(scale=1.0)))
    assert found.level == level


def test_temperature_takes_the_error_of_correlated_samples():
    """A slow series ten standard errors away, if its samples were independent, is within three of its own."""
    rng, series = np.random.default_rng(8), [0.0]
    for _ in range(8191):
        series.append(0.98 * series[-1] + rng.normal())
    series = 10.0 * (np.array(series) - np.mean(series))
    naive = series.std(ddof=1) / math.sqrt(len(series))
    found = _found("temperature", _run(), _rows(temperature=300.0 + 10 * naive + series))
    assert 10 * naive > 3.0  # beyond what does not matter
    assert found.level == "ok"
    # Negative control: the samples in random order are independent, and the mean is then far off.
    shuffled = np.random.default_rng(1).permutation(series)
    assert _found("temperature", _run(), _rows(temperature=300.0 + 10 * naive + shuffled)).level == "look"


def test_a_short_run_has_the_error_of_one_sample():
    canonical = 300.0 * math.sqrt(2 / 600)  # K
    for sigma, level in ((2.9, "ok"), (3.1, "look")):
        found = _found(
            "temperature", _run(), _rows(temperature=300.0 + sigma * canonical + np.arange(-1.0, 2.0))
        )
        assert found.level == level and "too short for an error of its own" in found.finding
    unknown = _found("temperature", _run(system={}), _rows(temperature=np.array([900.0, 901.0, 902.0])))
    assert unknown.level == "unknown"


def test_temperature_needs_a_thermostat_and_samples():
    plan = [_STAGE | {"ensemble": "NVE", "trajectory": True}]
    assert _found("temperature", _run(plan=plan), _rows(temperature=_noise() + 900)).level == "unknown"
    assert _found("temperature", _run()).finding == "no production yet"


# --- drift ----------------------------------------------------------------------------------------


def _drift(slope: float, error: float, reference: tuple[float, float] | None = None) -> Judgement:
    facts = {"kj_per_mol_per_ns_per_dof": slope, "standard_error": error, "length_ps": 10.0}
    if reference is not None:
        facts["force_field"] = dict(
            zip(("kj_per_mol_per_ns_per_dof", "standard_error"), reference, strict=True)
        )
    return _found("energy drift", _run(drift=facts))


@pytest.mark.parametrize(
    ("slope", "error", "level"),
    [
        (0.03, 0.01, "ok"),
        (-0.069, 0.01, "ok"),
        (-0.071, 0.01, "look"),
        (0.519, 0.01, "look"),
        (0.521, 0.01, "bad"),
        (0.0, 0.249, "ok"),
        (0.0, 0.251, "unknown"),
        (3.0, 0.5, "bad"),
    ],
)
def test_drift_against_zero(slope, error, level):
    assert _drift(slope, error).level == level


def test_drift_against_the_force_field():
    reference = (0.2, 0.02)
    limit = drift_limit(*reference, 0.03)
    assert limit == pytest.approx(0.4 + 2 * math.hypot(0.03, 0.04))
    assert _drift(limit - 1e-6, 0.03, reference).level == "ok"
    assert _drift(limit + 1e-6, 0.03, reference).level == "look"
    assert _drift(2 * limit + 0.06 - 1e-6, 0.03, reference).level == "look"
    assert _drift(2 * limit + 0.06 + 1e-6, 0.03, reference).level == "bad"
    # Against zero the same drift would be judged otherwise.
    assert _drift(limit - 1e-6, 0.03).level == "look"
    assert "the force field alone 0.200 ± 0.020" in _drift(0.0, 0.03, reference).finding


def test_a_drift_over_a_short_stage_is_not_judged():
    """Over 0.3 ps three runs of one system gave 0.47(26), -0.63(28), -0.99(21); from 0.5 ps on it counts."""
    facts = {"kj_per_mol_per_ns_per_dof": -0.99, "standard_error": 0.21}
    short = _found("energy drift", _run(drift=facts | {"length_ps": 0.3}))
    assert short.level == "unknown" and "0.3 ps are too short to say" in short.finding
    assert _found("energy drift", _run(drift=facts | {"length_ps": 0.5})).level == "bad"


def test_a_drift_that_was_not_measured_is_not_claimed():
    found = _found("energy drift", _run())
    assert found.level == "unknown" and "not measured" in found.finding and "nve" in found.advice


# --- bonds ----------------------------------------------------------------------------------------


def _broken(modelled: bool) -> ChangedBond:
    return ChangedBond("C1-C2 of LIG9", modelled, 0.31, 0.154, "1.5 ps", 4)


_NEW = ChangedBond("C1-O2 of LIG9", True, 0.145, 0.142, "2.5 ps", 3)


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (BondFacts(10, 200), "ok"),
        (BondFacts(10, 200, (_broken(True),), 0.5), "look"),
        (BondFacts(10, 200, (_broken(True),) * 4, 0.25), "look"),
        (BondFacts(10, 200, (_broken(True),) * 3, 0.26), "bad"),
        (BondFacts(10, 200, (_broken(True),) * 2, 1.0), "look"),
        (BondFacts(10, 200, (_broken(False), _broken(True)), 0.1), "bad"),
        (BondFacts(10, 200, formed=(_NEW,), formed_share=0.5), "look"),
        (BondFacts(10, 200, formed=(_NEW,) * 3, formed_share=0.25), "look"),
        (BondFacts(10, 200, formed=(_NEW,) * 3, formed_share=0.26), "bad"),
        (BondFacts(10, 200, (_broken(True),), 0.1, (_NEW,), 0.1), "look"),
        (None, "unknown"),
    ],
)
def test_a_reaction_is_looked_at_and_an_explosion_is_bad(facts, level):
    found = _found("bonds", _run(), bonds=facts)
    assert found.level == level
    if facts and facts.broken:
        assert "C1-C2 of LIG9 0.31 nm instead of 0.154 nm at 1.5 ps" in found.finding and found.advice
    if facts and facts.formed:
        assert "C1-O2 of LIG9 0.145 nm instead of 0.142 nm at 2.5 ps" in found.finding and found.advice
        assert f"{len(facts.formed)} bond" in found.finding and " new" in found.finding


# --- density --------------------------------------------------------------------------------------


def _density(values: np.ndarray, water: float = 0.99, **stage) -> Judgement:
    mass = 50_000.0
    run = _run(
        plan=[_STAGE | {"ensemble": "NPT", "trajectory": True} | stage],
        system={"mass_amu": mass, "water_mass_fraction": water},
    )
    return _found("density", run, _rows(volume=mass * AMU_PER_NM3 / values))


@pytest.mark.parametrize(
    ("part", "level"),
    [(0.0, "ok"), (0.0385, "ok"), (0.0415, "look"), (-0.0415, "look"), (0.0985, "look"), (0.1015, "bad")],
)
def test_density_of_water(part, level):
    """Within 4 % and the noise, which is less than 0.05 % here."""
    found = _density(0.997 * (1 + part) + _noise(scale=0.001))
    assert found.level == level and "water has 0.997" in found.finding


def test_density_of_what_is_no_water_is_held_against_itself_only():
    assert _density(1.3 + _noise(scale=0.001), water=0.94).level == "ok"
    assert _density(1.3 + _noise(scale=0.001), water=0.95).level == "bad"
    assert _density(0.9 + _noise(scale=0.001), temperature=350.0).level == "ok"


@pytest.mark.parametrize(
    ("change", "level"), [(0.0045, "ok"), (0.0055, "look"), (0.0495, "look"), (-0.0505, "bad")]
)
def test_density_that_still_changes(change, level):
    halves = 1.2 * (1 + change * np.repeat([-0.5, 0.5], 500)) + np.tile([-1e-5, 1e-5], 500)
    found = _density(halves, water=0.5)
    assert found.level == level
    if level != "ok":
        assert f"{change:+.1%}" in found.finding and "equilibrate longer" in found.advice


def test_no_density_without_constant_pressure():
    verdict = judge(_run(system={"mass_amu": 5e4}), _rows(volume=np.full(50, 80.0)))
    assert "density" not in [judgement.name for judgement in verdict.judgements]


# --- committee, training, state -------------------------------------------------------------------


def test_spread_against_the_limits_of_the_run():
    values = np.concatenate([np.full(95, 1.0), np.full(5, 9.0)])
    run = _run(uncertainty={"limits": {"force_spread": 8.0}})
    assert _found("committee spread", run, _rows(force_spread=values)).level == "ok"
    more = np.append(values, 9.0)
    assert _found("committee spread", run, _rows(force_spread=more)).level == "look"
    assert _found("committee spread", run, _rows(force_spread=np.full(50, 16.1))).level == "bad"
    assert _found("committee spread", run, _rows(force_spread=np.full(50, 15.9))).level == "look"


def test_spread_against_what_its_authors_accepted():
    limit = 0.23 * 4.184 * math.sqrt(16)
    for factor, level in ((0.99, "ok"), (1.01, "look"), (1.99, "look"), (2.01, "bad")):
        found = _found("committee spread", _run(), _rows(committee_spread=np.full(50, factor * limit)))
        assert found.level == level, factor
    mean = _found("committee spread", _run(), _rows(committee_spread=np.full(50, 4.0)))
    assert "mean 1 kJ/mol per √atoms, 100% of the samples beyond 0.96, quoted as the limit" in mean.finding
    other = _run(potential={"name": "another"})
    found = _found("committee spread", other, _rows(committee_spread=np.full(50, 1e3)))
    assert found.level == "unknown" and "without a limit" in found.finding


def test_a_charge_that_was_not_trained_on_is_bad():
    said = ["The region has charge +1; ANI-1x was trained on neutral molecules."]
    found = _found("training", _run(region={"outside_training": said}))
    assert found.level == "bad" and said[0] in found.finding
    assert _found("training", _run(region={"outside_training": []})).level == "ok"
    names = [judgement.name for judgement in judge(_run(region={}), {}).judgements]
    assert "training" not in names  # not recorded, not claimed


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ("finished", "ok", "finished"),
        ("interrupted", "look", "--resume"),
        ("running", "look", "killed"),
        ("failed", "bad", "energy became NaN"),
        (None, "look", "run.log"),
    ],
)
def test_state_of_the_run(state, level, words):
    found = _found("run", _run(state=state, message="energy became NaN", stage="produce", step=40))
    assert found.level == level and words in found.finding + found.advice


# --- the whole ------------------------------------------------------------------------------------


def test_the_worst_comes_first_and_decides():
    run = _run(state="failed", message="NaN", region={"outside_training": []})
    verdict = judge(run, _rows(temperature=304.0 + _noise()), BondFacts(3, 9))
    assert [judgement.level for judgement in verdict.judgements] == ["bad", "look", "ok", "ok", "unknown"]
    assert verdict.level == "bad" and "Do not use" in verdict.headline
    assert verdict.line.startswith("verdict: bad: run: failed in") and "\n" not in verdict.line
    assert len(verdict.of("ok")) == 2
    assert judge(_run(), {}, BondFacts(3, 9)).level == "ok"


def test_nothing_judged_is_not_good():
    verdict = Verdict((Judgement("bonds", "unknown", "no frames to look at"),))
    assert verdict.level == "unknown" and Verdict(()).level == "unknown"
    assert "0 points" not in verdict.headline and "Nothing speaks" not in verdict.headline


def test_a_judgement_without_ok_has_a_next_step():
    """Whatever is to be looked at or bad tells what to do."""
    run = _run(
        state="interrupted",
        region={"outside_training": ["x"]},
        drift={"kj_per_mol_per_ns_per_dof": 9.0, "standard_error": 0.1},
    )
    verdict = judge(run, _rows(temperature=350 + _noise(), committee_spread=90 + _noise()))
    troubled = verdict.of("look", "bad")
    assert len(troubled) == 5 and all(judgement.advice for judgement in troubled)
    assert all(judgement.level in LEVELS for judgement in verdict.judgements)


@pytest.mark.parametrize("value", [None, "text", [None], {"a": 1}, math.nan, True, 3])
def test_records_of_any_kind_are_survived(value):
    keys = (
        "state",
        "plan",
        "stages",
        "system",
        "region",
        "zones",
        "potential",
        "drift",
        "uncertainty",
        "settings",
    )
    for key in keys:
        judge(_run(**{key: value}), _rows(temperature=_noise(64) + 300, volume=_noise(64) + 80))
    for key in ("system", "region", "zones", "potential", "drift", "uncertainty"):
        inner = dict.fromkeys(
            ("limits", "outside_training", "mass_amu", "core", "force_field", "name"), value
        )
        judge(_run(**{key: inner}), _rows(committee_spread=_noise(64) + 5))
