"""``mlmm pmf``: a run file in, a folder with profile and report out; resumed, analysed again, refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from toys import energy_and_forces

import mlmm
import mlmm.reference
from mlmm.build import BuiltSystem
from mlmm.cli import main
from mlmm.reactions.correction import frames_of
from mlmm.report.free_energy_verdict import judge_profile

_PHI = Path(__file__).parents[2] / "systems/alanine_dipeptide/phi.toml"
#: The run file of the guide, made tiny.
_CHANGES = {
    'pdb = "input.pdb"': f'pdb = "{_PHI.with_name("input.pdb")}"',
    'name = "ani1x"': 'name = "ani1x"\nmembers = [0]',
    '"-180 degree"': '"-166 degree"',
    '"180 degree"': '"-146 degree"',
    "windows = 24": "windows = 2\nbins = 6\nbootstraps = 20",
    'exchange = "5 ps"\n': "",
    "minimise = 200": "minimise = 20",
    'equilibrate = "2 ps"': 'equilibrate = "10 fs"',
    'produce = "20 ps"': 'produce = "80 fs"',
    "seed = 1": 'seed = 2\nplatform = "Reference"',
    "interval = 25\n": "interval = 2\n",
    "trajectory_interval = 500": "trajectory_interval = 10",
}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Run file and folder of two windows."""
    folder = tmp_path_factory.mktemp("pmf")
    file, text = folder / "phi.toml", _PHI.read_text()
    for old, new in _CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)
    assert main(["pmf", str(file), "--out", str(folder / "out")]) == 0
    return file, folder / "out"


def test_a_run_file_becomes_a_profile_with_a_report(sampled, capsys):
    _, out = sampled
    result = json.loads((out / "result.json").read_text())
    assert len(result["windows"]) == 2
    assert result["variable"] == "phi"
    assert (out / "profile.csv").read_text().startswith("phi,free_energy_kj_per_mol,standard_error")
    page = (out / "report.html").read_text()
    for text in ("Free-energy profile", "Overlap of the windows", "Convergence", "transmission 1"):
        assert text in page
    assert main(["report", str(out)]) == 0
    assert "report.html" in capsys.readouterr().out


def test_it_goes_on_and_is_analysed_again(sampled, capsys):
    file, out = sampled
    before = (out / "profile.csv").read_bytes()
    assert main(["pmf", str(file), "--out", str(out), "--resume"]) == 0
    assert (out / "profile.csv").read_bytes() == before
    assert main(["pmf", "--analyse", str(out), "--set", "umbrella.bins=8"]) == 0
    assert len(json.loads((out / "result.json").read_text())["windows"]) == 2
    assert (out / "profile.csv").read_text().count("\n") == 9
    assert "reaction free energy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "holds earlier ones"),
        (["--resume", "--set", "umbrella.windows=3"], "the windows of"),
        (["--resume", "--workers", "0"], "--workers 1 or more"),
        (["--resume", "--set", "umbrella.variable=chi"], "did you mean|define"),
        (["--resume", "--set", "potential.members=[1]"], "other potential.members"),
    ],
)
def test_what_does_not_go_together_is_refused(sampled, capsys, arguments, message):
    file, out = sampled
    assert main(["pmf", str(file), "--out", str(out), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert (out / "result.json").exists()


def test_a_run_file_without_windows_is_refused(tmp_path, sampled, capsys):
    file, _ = sampled
    plain = tmp_path / "plain.toml"
    text = file.read_text()
    plain.write_text(text[: text.index("[umbrella]")] + text[text.index("[run]") :])
    assert main(["pmf", str(plain), "--out", str(tmp_path / "out")]) == 2
    assert "[umbrella]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_windows_are_reweighted_to_the_force_field(sampled, capsys):
    """Differences of frames are those of two Systems; a second call evaluates nothing again."""
    _, out = sampled
    there = out.with_name("out-to-mm")
    assert main(["correct", str(out), "--to", "mm"]) == 0
    said = capsys.readouterr().out
    assert "reaction free energy: sampled" in said
    assert "effective samples or more" in said
    facts = json.loads((there / "correction.json").read_text())
    assert facts["frames"] == 16
    assert (there / "corrected.csv").read_text().startswith("phi,change_kj_per_mol")
    assert "Effective samples" in (there / "report.html").read_text()
    files = sorted((there / "differences").glob("*.npy"))
    assert len(files) == 2
    times = [file.stat().st_mtime_ns for file in files]
    assert main(["correct", str(out), "--to", "mm"]) == 0
    assert [file.stat().st_mtime_ns for file in files] == times
    run = out / "windows/000/production_001"
    built = BuiltSystem.load(out / "built")
    frame = frames_of(run / "trajectory.dcd", built.n_atoms)[0]
    force_field, _ = energy_and_forces(built.system, frame[0])
    region = mlmm.select_region(built, "all")
    ani = mlmm.hybrid_system(
        built, mlmm.hard_zones(built, region), mlmm.load_potential("ani1x", members=[0]), scheme="additive"
    )
    model = float(ani.region_energies(frame[0]).energies.double().sum())
    assert np.load(files[0])[0] == pytest.approx(force_field - model, abs=0.05)


def test_a_run_is_reweighted_to_another_potential(sampled, capsys):
    """Member 0 to member 0 changes nothing; to all eight members something."""
    _, out = sampled
    window = out / "windows/000/production_001"
    (window / "resolved.toml").write_bytes((out / "resolved.toml").read_bytes())
    assert main(["correct", str(window), "--to", "ani1x", "--out", str(out.with_name("to_ani"))]) == 0
    assert "effective samples" in capsys.readouterr().out
    found = json.loads((out.with_name("to_ani") / "correction.json").read_text())["one_sided"]
    assert found["samples"] == 8
    assert abs(found["mean"]) > 0.01


def test_windows_are_reweighted_to_a_reference_method(sampled, capsys):
    """Differences are the label's energy less that of the potential; a method that fails is counted."""
    _, out = sampled
    to = "tblite:hamiltonian=GFN1-xTB"
    assert main(["correct", str(out), "--to", to, "--every", "4"]) == 0
    there = out.with_name("out-to-tblite_hamiltonian_GFN1_xTB")
    facts = json.loads((there / "correction.json").read_text())
    assert facts["method"] == "GFN1-xTB (tblite)"
    assert facts["failed"] == 0
    assert "GFN1-xTB" in (there / "report.html").read_text()
    built = BuiltSystem.load(out / "built")
    positions, _ = frames_of(out / "windows/000/production_001/trajectory.dcd", built.n_atoms)[0]
    label = mlmm.reference.written_method(to).label(mlmm.reference.Molecule(built.numbers, positions))
    ani = mlmm.hybrid_system(
        built,
        mlmm.hard_zones(built, mlmm.select_region(built, "all")),
        mlmm.load_potential("ani1x", members=[0]),
        scheme="additive",
    )
    model = float(ani.region_energies(positions).energies.double().sum())
    own = np.load(sorted((there / "differences").glob("*.npy"))[0])
    assert own[0] == pytest.approx(label.energy - model, abs=0.05)
    assert main(["report", str(there)]) == 0
    assert "effective samples" in capsys.readouterr().out
    # One frame in two of a window fails: more than a tenth of all.
    for file in sorted((there / "differences").glob("*.npy")):
        broken = np.load(file)
        broken[::2] = np.nan
        np.save(file, broken)
    assert main(["correct", str(out), "--to", to, "--every", "4"]) == 2
    assert "nine frames in ten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "xtb:nonsense=1"], "nonsense"),
        (["--to", "mm", "--every", "0"], "1 or more"),
        (["--to", "nonsense"], "nonsense"),
        (["--to", "mm", "--with", "elsewhere"], "Leave --with out"),
        (["--to", "mm", "--every", "99"], "two bins"),
    ],
)
def test_corrections_that_cannot_be_are_refused(sampled, tmp_path, capsys, arguments, message):
    _, out = sampled
    assert main(["correct", str(out), "--out", str(tmp_path / "no"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_another_method_in_a_folder_with_differences_is_refused(sampled, tmp_path, capsys):
    """One that failed before its first frame leaves nothing behind."""
    _, out = sampled
    there = tmp_path / "there"
    assert main(["correct", str(out), "--to", "nonsense", "--out", str(there)]) == 2
    assert main(["correct", str(out), "--to", "mm", "--every", "4", "--out", str(there)]) == 0
    assert main(["correct", str(out), "--to", "gfn1", "--out", str(there)]) == 2
    assert "others, of" in capsys.readouterr().err


def test_residues_need_an_embedded_region(sampled, tmp_path, capsys):
    assert main(["pmf", "--residues", str(sampled[1])]) == 2
    assert 'electrostatics = "embedded"' in capsys.readouterr().err
    assert main(["pmf", "--residues", str(tmp_path)]) == 2
    assert "resolved.toml" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["correct", str(tmp_path), "--to", "mm"]) == 2
    assert "resolved.toml" in capsys.readouterr().err


def test_frames_under_a_bias_that_grew_are_not_reweighted(sampled, tmp_path, capsys):
    (tmp_path / "resolved.toml").write_bytes((sampled[1] / "resolved.toml").read_bytes())
    (tmp_path / "metadynamics.json").write_text("{}")
    assert main(["correct", str(tmp_path), "--to", "mm", "--out", str(tmp_path / "no")]) == 2
    assert "under a bias that grew" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def _result(**changes):
    window = {"independent": 50.0, "centre": 0.3}
    good = {
        "unit": "nm",
        "overlap": [[0.7, 0.3], [0.3, 0.7]],
        "least_overlap": 0.3,
        "gaps": [],
        "missing": [],
        "windows": [window, window],
        "blocks": [1.0] * 5,
        "block_error": 0.5,
        "block_probability": 0.4,
        "barrier": [60.0, 0.5],
        "reaction": [-5.0, 0.5],
        "error": 0.5,
        "forward": [60.0] * 5,
        "backward": [60.0] * 5,
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "name", "level", "said"),
    [
        ({}, "overlap", "ok", "0.30 or more"),
        ({"least_overlap": 0.05}, "overlap", "look", "more windows"),
        ({"empty": [[0.21, 0.25]]}, "range", "bad", "no samples from 0.21 nm to 0.25 nm"),
        (
            {
                "gaps": [[0.2, 0.3, 0.001]],
                "missing": [{"centre": 0.25, "force_constant": 5000.0}],
            },
            "overlap",
            "bad",
            "add windows at 0.25 nm with 5000 kJ/mol/nm^2",
        ),
        ({"windows": [{"independent": 4.0, "centre": 0.3}]}, "samples", "bad", "produce"),
        ({"block_probability": 1e-6, "block_error": 3.0}, "blocks", "bad", "slow"),
        ({"block_probability": float("nan")}, "blocks", "unknown", "longer"),
        ({"backward": [50.0] * 5}, "convergence", "look", "drifts"),
        ({"error": 4.0}, "barrier", "look", "times the production"),
        ({"barrier": None}, "reaction free energy", "look", "range"),
    ],
)
def test_verdict(changes, name, level, said):
    verdict = judge_profile(_result(**changes))
    (found,) = [one for one in verdict.judgements if one.name == name]
    assert found.level == level
    assert said in f"{found.finding} {found.advice}"
    assert judge_profile(_result()).level == "ok"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["pmf", "--help"])
    shown = capsys.readouterr().out
    for text in ("[umbrella]", "--resume", "umbrella.windows", "MBAR", "--workers"):
        assert text in shown
