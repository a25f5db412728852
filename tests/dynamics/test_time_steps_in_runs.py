"""`mlmm check timestep`, and multiple time steps in a run file."""

from __future__ import annotations

import json

import pytest

from mlmm.cli.program import main

RUN = """
[system]
pdb = "{pdb}"
solvate = false
constraints = "none"
rigid_water = false
[region]
select = "all"
[potential]
members = [0]
[embedding]
scheme = "additive"
[run]
minimise = 20
equilibrate = "0 ps"
produce = "20 fs"
platform = "CPU"
[report]
interval = 5
"""


@pytest.fixture
def run_file(tmp_path, root):
    path = tmp_path / "small.toml"
    path.write_text(RUN.format(pdb=root / "systems/alanine_dipeptide/input.pdb"))
    return path


def test_check_names_the_largest_stable_step_and_no_other(run_file, capsys):
    options = [
        "--nve",
        "0.1 ps",
        "--equilibration",
        "0.02 ps",
        "--timesteps",
        "0.25,4",
        "--nonbonded-every",
        "1",
    ]
    main(["check", "timestep", str(run_file), *options])
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[:1] in (["0.25"], ["4"])]
    assert [row[0] for row in rows] == ["0.25", "4"]
    assert rows[0][-1] == "stable" and rows[1][-1] == "unstable"
    assert "largest stable step with all forces at each: 0.25 fs" in printed
    assert 'timestep = "0.25 fs"' in printed


def test_check_without_a_stable_step_fails(run_file, capsys):
    options = [
        "--nve",
        "0.1 ps",
        "--equilibration",
        "0.02 ps",
        "--timesteps",
        "4.5",
        "--nonbonded-every",
        "1",
    ]
    status = main(["check", "timestep", str(run_file), *options])
    printed = capsys.readouterr()
    assert "timestep =" not in printed.out
    # It breaks in the run, or before.
    assert (status, "no setting is stable" in printed.out) in ((1, True), (2, False))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--timesteps", "a"], "--timesteps"),
        (["--nonbonded-every", "1.5"], "whole numbers"),
        (["--nonbonded-every", "2"], "1 among them"),
    ],
)
def test_meaningless_time_step_settings_are_rejected(run_file, capsys, options, said):
    assert main(["check", "timestep", str(run_file), *options]) == 2
    assert said in capsys.readouterr().err


def test_run_file_with_outer(run_file, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["run", str(run_file), "--out", str(out), "--set", "run.nonbonded_every=2"]) == 0
    stage = json.loads((out / "run.json").read_text())["stages"][-1]
    assert (stage["nonbonded_every"], stage["steps"]) == (2, 20)
    assert "nonbonded_every = 2" in (out / "resolved.toml").read_text()
    assert (
        main(["run", str(run_file), "--out", str(out), "--overwrite", "--set", "run.nonbonded_every=0"]) == 2
    )
