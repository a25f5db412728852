"""Corrections: failed frames, facts on disk, verdict and page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlmm.errors import ConfigError
from mlmm.reactions.correction_results import run_facts, without_failures
from mlmm.reactions.reweighting import exponential_average
from mlmm.report.correction_page import (
    is_correction,
    judge_correction,
    read_correction,
    write_correction_report,
)
from mlmm.units import GAS_CONSTANT

KT = 300 * GAS_CONSTANT


def test_frames_without_an_energy_are_left_out_and_counted():
    differences, values = [np.arange(20.0), np.arange(5.0)], [np.arange(20.0) + 100, np.arange(5.0) + 200]
    differences[0][3] = np.nan
    kept, places, failed = without_failures(differences, values)
    assert failed == 1
    assert 3.0 not in kept[0]
    assert 103.0 not in places[0]
    np.testing.assert_array_equal(places[0] - kept[0], 100)
    np.testing.assert_array_equal(kept[1], differences[1])
    differences[0][4:6] = np.nan
    with pytest.raises(ConfigError, match="3 frames"):
        without_failures(differences, values)


def facts_of(width: float, frames: int, seed: int = 0) -> dict:
    differences = np.random.default_rng(seed).normal(5.0, width * KT, frames)
    found = exponential_average(differences, 300.0)
    extra = {"run": "runs/my", "to": "gfn2", "failed": 0}
    return run_facts(found, differences, 300.0) | extra


def test_histograms_are_those_of_the_weights():
    """The weighted mean of a Gaussian DeltaU of width s lies s^2/kT below the mean."""
    facts = facts_of(0.8, 40_000)
    edges = np.array(facts["histogram"]["edges"])
    middle = 0.5 * (edges[1:] + edges[:-1])
    means = [float(middle @ np.array(facts["histogram"][name])) for name in ("sampled", "reweighted")]
    assert means[0] - means[1] == pytest.approx(0.64 * KT, rel=0.05)
    assert sum(facts["histogram"]["reweighted"]) == pytest.approx(1.0)


def levels(facts: dict) -> dict[str, str]:
    return {judgement.name: judgement.level for judgement in judge_correction(facts).judgements}


def test_verdicts():
    """Narrow differences can be believed, broad ones not, few frames neither."""
    assert levels(facts_of(0.5, 400)) == {
        "samples": "ok", "spread": "ok", "method": "ok", "free energy": "ok"
    }  # fmt: skip
    broad = levels(facts_of(6.0, 400))
    assert broad["samples"] == broad["spread"] == "bad"
    assert levels(facts_of(0.5, 400) | {"least_effective": 20.0})["samples"] == "look"
    assert levels(facts_of(0.5, 400) | {"failed": 3})["method"] == "look"
    two = facts_of(6.0, 400) | {"two_sided": {"value": 1.0, "error": 0.5, "overlap": 0.2}}
    assert levels(two)["samples"] == "look"
    assert levels(two | {"two_sided": {"value": 1.0, "error": 0.5, "overlap": 0.01}})["overlap"] == "bad"


def test_axes_are_written_without_tex(tmp_path):
    """Also of a profile, whose effective samples stand on a logarithmic axis; options stay out of legends."""
    places = [0.1, 0.2, 0.3]
    flat = {name: [0.0, 20.0, -5.0] for name in ("corrected", "shifts", "value")}
    errors = {name: [0.0, 1.0, 1.0] for name in ("corrected_errors", "shift_errors", "error")}
    pair = {"sampled": [20.0, 1.0], "change": [1.0, 0.5], "corrected": [21.0, 1.1]}
    facts = facts_of(0.5, 400) | flat | errors | {"to": "aiqm2:networks=/a/long/path/to/somewhere"}
    facts |= {"kind": "profile", "variable": "d", "unit": "nm", "places": places, "barrier": pair}
    facts |= {"reaction": pair, "effective": [12.0, 40.0, 300.0]}
    facts["profile"] = {"place": places, "value": flat["value"], "error": errors["error"]}
    (tmp_path / "correction.json").write_text(json.dumps(facts))
    text = write_correction_report(tmp_path).read_text()
    assert ">by aiqm2<" in text
    assert ">100<" in text
    assert "mathdefault" not in text


def test_the_page_of_a_run(tmp_path):
    assert not is_correction(tmp_path)
    (tmp_path / "correction.json").write_text(json.dumps(facts_of(0.5, 400)))
    assert is_correction(tmp_path)
    text = write_correction_report(tmp_path).read_text()
    for words in ("my by gfn2", "Effective samples", "Differences of energies", "kcal/mol"):
        assert words in text
    (tmp_path / "correction.json").write_text("{}")
    with pytest.raises(ConfigError, match="Run mlmm correct again"):
        read_correction(tmp_path)
