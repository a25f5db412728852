"""The verb: states of a molecule in a vacuum, resumed, refused where there are none between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlmm.cli import main

RUN = """
[system]
pdb = "{pdb}"
solvate = false
constraints = "none"

[region]
select = "protein"

[potential]
name = "ani1x"
members = [0]

[embedding]
scheme = "additive"

[endstate]
states = 2
bootstraps = 20

[run]
seed = 1
minimise = 20
equilibrate = "0.02 ps"
produce = "0.1 ps"
platform = "Reference"

[report]
interval = 10
trajectory_interval = 10
checkpoint_interval = 50
"""


@pytest.fixture(scope="module")
def sampled(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("endstate")
    file = folder / "run.toml"
    file.write_text(RUN.format(pdb=Path("systems/alanine_dipeptide/input.pdb").resolve()))
    assert main(["endstate", str(file), "--out", str(folder / "out")]) == 0
    return file, folder / "out"


def test_both_ends_are_sampled_and_joined(sampled, capsys):
    """The slope of every state is the mean of the frames' differences; longer states keep what is there."""
    file, out = sampled
    result = json.loads((out / "result.json").read_text())
    assert result["weights"] == [0.0, 1.0]
    first = -np.concatenate([np.load(f) for f in sorted((out / "differences").glob("000_*.npy"))])
    assert len(first) == 20
    assert result["slopes"][0] == pytest.approx(first.mean())
    # The force field's own structures are worse for the model than its own, and the other way round.
    assert result["slopes"][0] > result["slopes"][1]
    assert "Slope" in (out / "report.html").read_text()
    longer = ["--resume", "--set", "run.produce=0.15 ps"]
    assert main(["endstate", str(file), "--out", str(out), *longer]) == 0
    assert "free energy of the hybrid less that of the force field" in capsys.readouterr().out
    again = -np.concatenate([np.load(f) for f in sorted((out / "differences").glob("000_*.npy"))])
    np.testing.assert_array_equal(again[:20], first)
    assert len(again) == 30
    assert main(["report", str(out)]) == 0
    assert "independent samples" in capsys.readouterr().out


def test_both_ends_are_joined_by_switching_runs(sampled, tmp_path, capsys):
    """Each run's work lies around the slope of the states; the page shows its distributions; it goes on."""
    file, states = sampled
    out = tmp_path / "switched"
    asked = ["method=switching", "switches=10", "switch_length=20 fs", "update_every=4"]
    changes = [part for one in asked for part in ("--set", f"endstate.{one}")]
    assert main(["endstate", str(file), "--out", str(out), *changes]) == 0
    assert "free energy of the hybrid less that of the force field" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["method"] == "switching"
    assert len(result["work_forward"]) == len(result["work_backward"]) == 10
    assert result["slopes"][0] > result["value"] > result["slopes"][1]
    slopes = json.loads((states / "result.json").read_text())["slopes"]
    # Runs begin where the states are, and both begin apart.
    begun = result["paths"][0][0], result["paths"][1][-1]
    assert begun == pytest.approx(slopes, abs=0.4 * (slopes[0] - slopes[1]))
    first = np.load(sorted((out / "switches").glob("forward_*.npz"))[0])
    assert first["differences"].mean() == pytest.approx(result["work_forward"][0])
    assert "Work of both directions" in (out / "report.html").read_text()
    assert main(["report", str(out)]) == 0
    assert "independent works" in capsys.readouterr().out
    other = ["--set", "endstate.states=2", "--resume"]
    assert main(["endstate", str(file), "--out", str(out), *other]) == 2
    assert "others (method)" in capsys.readouterr().err


def test_other_states_and_other_schemes_are_refused(sampled, tmp_path, capsys):
    file, out = sampled
    assert main(["endstate", str(file), "--out", str(out), "--resume", "--set", "endstate.states=3"]) == 2
    assert "others (weights)" in capsys.readouterr().err
    other = ["--resume", "--set", "potential.members=[1]", "--set", "embedding.scheme=auto"]
    assert main(["endstate", str(file), "--out", str(out), *other]) == 2
    assert "other potential.members, embedding.scheme" in capsys.readouterr().err
    assert main(["endstate", str(file), "--out", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    held = ["--set", "system.constraints=hbonds", "--out", str(tmp_path / "held")]
    assert main(["endstate", str(file), *held]) == 2
    assert 'constraints = "none"' in capsys.readouterr().err
