"""``mlmm calibrate --refine``: from the command to a file that a run file takes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toys import ForceFieldPotential

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.cli.program import main
from mlmm.config.load import load_config
from mlmm.zones.compensation import Compensation

START = Compensation(
    {"HOH": 0.0},
    np.array([0.0, 0.5, 1.0]),
    {"HOH": np.array([0.0, 1.0, 1.0])},
    facts={"solvent": "bulk tip3p", "samples": [{"density": 33.0}], "final_density": "of another refinement"},
)
QUICK = ["--plateau", "0.3 nm", "--width", "0.3 nm", "--length", "0.2 ps", "--check-length", "0.24 ps"]
QUICK += ["--equilibration", "0 ps", "--iterations", "1", "--sample-interval", "5"]
QUICK += ["--set", "potential.bridge=pythonforce"]


@pytest.fixture(scope="module")
def potential():
    """The force field of the box that the verb builds for this zone, times 1.2."""
    return ForceFieldPotential(build_bulk_water("1.5 nm", nonbonded_cutoff="0.66 nm"), 1.2)


@pytest.fixture
def prepared(root, tmp_path, monkeypatch, potential):
    """A run file with an adaptive zone and a start; the command that refines it."""
    import mlmm.potentials

    monkeypatch.setattr(mlmm.potentials, "load_potential", lambda *_, **__: potential)
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    text = (root / "systems/n_methylacetamide/adaptive_wide.toml").read_text()
    text = text.replace("input.pdb", str(root / "systems/n_methylacetamide/input.pdb"))
    (tmp_path / "run.toml").write_text(text.replace('compensation = "water_ani1x_refined.json"\n', ""))
    START.save("start.json")
    return ["calibrate", "run.toml", "--refine", "start.json", "--out", "new.json"]


def test_refine_writes_a_file_that_a_run_file_takes(prepared, tmp_path, capsys, monkeypatch):
    """Interrupted between two pieces it goes on from there; picture and check lie in the end."""
    import mlmm.compensation.refine_runs

    monkeypatch.setattr(mlmm.compensation.refine_runs, "_PIECE", 0.1)
    write, calls = mlmm.compensation.refine_runs.KeptRefinement.write, []

    def interrupted(self, state):
        write(self, state)
        calls.append(state.steps)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(mlmm.compensation.refine_runs.KeptRefinement, "write", interrupted)
    assert main([*prepared, *QUICK]) == 130
    assert calls == [50] and (tmp_path / "new.partial.npz").exists() and not (tmp_path / "new.json").exists()
    assert "waters around a point, plateau 0.3 nm, width 0.3 nm" in capsys.readouterr().err
    assert main([*prepared, *QUICK, "--timestep", "1 fs"]) == 2
    assert "other timestep_ps. Refine with the same settings" in capsys.readouterr().err
    assert main([*prepared, *QUICK, "--gain", "1"]) == 0
    printed = capsys.readouterr()
    assert "0 iterations are done, 0.1 ps of the next" in printed.err
    assert "ms/step" in printed.err and "lambda          density" in printed.err
    assert 'compensation = "new.json"' in printed.out and printed.out.startswith("check: ")
    assert not list(tmp_path.glob("*.partial.*")) and (tmp_path / "new.png").stat().st_size > 20_000
    facts = json.loads((tmp_path / "new.json").read_text())["facts"]
    refinement = facts["refinement"]
    assert refinement["density_per_nm3"] == 33.0 and refinement["gain"] == 1.0
    assert refinement["lengths_ps"] == [0.2] and refinement["check"]["length_ps"] == 0.24
    assert len(refinement["check"]["density"]) == len(refinement["check"]["lambda"]) == 7
    assert (
        facts["refinements"] == 1 and facts["samples"] == [{"density": 33.0}] and "final_density" not in facts
    )
    assert main([*prepared, *QUICK]) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    run_file = tmp_path / "run.toml"
    run_file.write_text(
        run_file.read_text().replace('width = "0.5 nm"\n', 'width = "0.5 nm"\ncompensation = "new.json"\n')
    )
    assert load_config("run.toml").zones.compensation == str((tmp_path / "new.json").resolve())
    assert len(Compensation.load("new.json").knots) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refine", "none.json"], "a file of `mlmm calibrate`, but got none.json (FileNotFoundError"),
        (["--refine", "run.toml"], "a file of `mlmm calibrate`, but got run.toml"),
        (["--refine", "methanol.json"], "a start for HOH, but got one for MOH"),
        (["--refine", "spce.json"], "a start of the solvent bulk tip3p, but got spce.json, of bulk spce"),
        (["--refine", "mace.json"], "got mace.json, of MACE"),
        (["--refine", "zero.json"], "an alignment of 1e+06 kJ/mol where the built structure has"),
        (["--tolerance", "0"], "--tolerance above 0, but got 0"),
        (["--iterations", "-1"], "--iterations 0 or more"),
        (["--gain", "0"], "gain above 0 and at most 1, but got"),
        (["--length", "4"], "'4' without a unit"),
        (["--plateau", "-1 nm"], "--plateau and --width above 0, but got -1 and 0.3 nm"),
        (["--edge", "1.3 nm", "--plateau", "0.5 nm"], "below half of the box"),
        (["--out", "new.txt"], "--out FILE.json in a folder that exists"),
        (["--set", "zones.kind=static", "--set", "zones.molecules=[]", "--set", "zones.centre="], "adaptive"),
    ],
)
def test_refine_refuses_before_it_works(prepared, tmp_path, capsys, arguments, message):
    changes = {
        "methanol": {"alignment": {"MOH": 0.0}, "values": {}},
        "spce": {"facts": {"solvent": {"source": "bulk spce"}}},
        "mace": {"facts": {"potential": "MACE, 1 members, float64"}},
        "zero": {"alignment": {"HOH": 1e6}},
    }
    for name, change in changes.items():
        content = START.as_dict() | change
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert main([*prepared, *QUICK, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "new.json").exists() and not (tmp_path / "new.partial.npz").exists()


def test_help_says_what_it_costs_and_when_it_is_needed(capsys):
    with pytest.raises(SystemExit):
        main(["calibrate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--refine START.json",
        "386 waters",
        "needed for",
        "NAME.partial.npz",
        "with --refine 60 ps",
    ):
        assert part in text, part
