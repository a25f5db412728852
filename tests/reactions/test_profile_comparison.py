"""Differences of two barriers: exact in standard errors; settings and residues side by side; the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from wells import KT, LINE, TEMPERATURE, double_well, exact_bins, metropolis

from mlmm.cli import main
from mlmm.errors import ConfigError
from mlmm.reactions.profile_comparison import compare_folders, compare_profiles, compare_residues
from mlmm.reactions.samples import window_samples
from mlmm.reactions.umbrella_analysis import analyse_windows, result_facts
from mlmm.reactions.umbrella_folder import write_profile
from mlmm.reactions.umbrella_record import UmbrellaRecord
from mlmm.reactions.windows import plan_windows

SEEDS = list(range(6))
WINDOWS = plan_windows(np.linspace(-0.13, 0.13, 13), None, TEMPERATURE, curvatures=np.full(13, -4000.0))


def lifted(x: np.ndarray) -> np.ndarray:
    """The double well with a barrier that is 6 kJ/mol higher."""
    return double_well(x) + 6.0 * np.exp(-((x / 0.04) ** 2))


def profiles(ground, seeds: list[int]) -> list:
    found = []
    for values in metropolis(ground, WINDOWS, seeds, 300):
        samples = [
            window_samples(w, x, LINE, equilibrated=True) for w, x in zip(WINDOWS, values, strict=True)
        ]
        found.append(analyse_windows(samples, LINE, TEMPERATURE, bootstraps=30))
    return found


@pytest.fixture(scope="module")
def both() -> tuple[list, list]:
    return profiles(lifted, SEEDS), profiles(double_well, [seed + 100 for seed in SEEDS])


def exact_barrier(ground, edges: np.ndarray) -> float:
    values = exact_bins(ground, edges)
    middle = len(values) // 2
    return float(values[middle - 6 : middle + 6].max() - values[:middle].min())


def test_the_difference_of_barriers_is_exact_within_its_error(both):
    """Six pairs: none beyond 3.5 standard errors, which add in squares; the control is the other sign."""
    edges = both[0][0].profile.edges
    exact = exact_barrier(lifted, edges) - exact_barrier(double_well, edges)
    assert exact == pytest.approx(6.0, abs=0.7)
    away = []
    for one, other in zip(*both, strict=True):
        facts = compare_profiles(result_facts(one), result_facts(other))
        difference, error = facts["barrier"]
        assert error == pytest.approx(math.hypot(one.error, other.error), rel=1e-9)
        assert facts["rate_ratio"] == pytest.approx(math.exp(-difference / KT))
        away.append((difference - exact) / error)
        swapped = compare_profiles(result_facts(other), result_facts(one))
        assert swapped["barrier"][0] == pytest.approx(-difference)
        assert abs(swapped["barrier"][0] - exact) > 5 * error
    assert np.abs(away).max() < 3.5
    assert 0.3 < np.sqrt(np.mean(np.square(away))) < 1.8


def written(folder: Path, result, setting: str, residues: str = "") -> Path:
    """A folder of windows as `mlmm pmf` leaves it."""
    folder.mkdir()
    record = UmbrellaRecord(folder, LINE, TEMPERATURE, WINDOWS, state="finished")
    record.write()
    (folder / "result.json").write_text(json.dumps(result_facts(result) | {"cost": [], "exchange": {}}))
    write_profile(folder / "profile.csv", result)
    (folder / "resolved.toml").write_text(f'[system]\nmutate = ["{setting}"]\n[run]\nseed = 1\n')
    if residues:
        header = "residue,reactant,reactant_error,top,top_error,difference,difference_error\n"
        (folder / "residues.csv").write_text(header + residues)
    return folder


def test_two_folders_by_the_verb(both, tmp_path, capsys):
    """Residues stand side by side, the mutated one alone; what was chosen otherwise is listed."""
    wild = written(tmp_path / "wild", both[1][0], "", "ARG 90,0,0,0,0,-20.0,1.0\nGLU 78,0,0,0,0,3.0,1.0\n")
    mutant = written(
        tmp_path / "mutant", both[0][0], "ARG90 -> ALA", "ALA 90,0,0,0,0,0.5,0.1\nGLU 78,0,0,0,0,7.0,1.0\n"
    )
    assert main(["pmf", str(mutant), "--compare", str(wild)]) == 0
    said = capsys.readouterr().out
    assert "barrier of" in said
    assert "ratio of rates" in said
    facts = json.loads((mutant / "comparison.json").read_text())
    by_name = {entry["residue"]: entry for entry in facts["residues"]}
    assert by_name["GLU 78"]["difference"] == [4.0, pytest.approx(math.sqrt(2))]
    assert by_name["ARG 90"]["first"] is None
    assert by_name["ARG 90"]["difference"] is None
    assert facts["residues"][0]["residue"] == "ARG 90"
    assert facts["settings"] == [["system.mutate", '["ARG90 -> ALA"]', '[""]']]
    page = (mutant / "comparison.html").read_text()
    for text in ("Difference of barriers", "Ratio of rates", "GLU 78", "system.mutate"):
        assert text in page
    elsewhere = tmp_path / "elsewhere"
    assert main(["pmf", str(mutant), "--compare", str(wild), "--out", str(elsewhere)]) == 0
    assert (elsewhere / "comparison.html").exists()


def test_profiles_that_cannot_be_compared_are_refused(both, tmp_path):
    facts = result_facts(both[0][0])
    with pytest.raises(ConfigError, match="one variable"):
        compare_profiles(facts, facts | {"variable": "other"})
    with pytest.raises(ConfigError, match="one temperature"):
        compare_profiles(facts, facts | {"temperature": 310.0})
    with pytest.raises(ConfigError, match="none in the second"):
        compare_profiles(facts, facts | {"barrier": None})
    with pytest.raises(ConfigError, match="analysed"):
        compare_folders(tmp_path, tmp_path)


def test_barriers_that_are_the_same_are_not_told_apart(both, tmp_path):
    one = written(tmp_path / "one", both[1][0], "a")
    other = written(tmp_path / "other", both[1][1], "b")
    from mlmm.report.profile_comparison_page import write_profile_comparison

    _, verdict = write_profile_comparison(compare_folders(one, other), tmp_path / "page.html")
    levels = {judgement.name: judgement.level for judgement in verdict.judgements}
    assert levels["difference"] == "look"


def test_residues_without_a_partner(tmp_path):
    header = "residue,difference,difference_error\n"
    for name, row in (("a", "X 1,1.0,0.1\n"), ("b", "Y 2,-5.0,0.1\n")):
        (tmp_path / name).write_text(header + row)
    found = compare_residues(tmp_path / "a", tmp_path / "b")
    assert [entry["residue"] for entry in found] == ["Y 2", "X 1"]
