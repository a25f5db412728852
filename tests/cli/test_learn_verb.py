"""``mlmm learn`` from a file to a potential in a file, its page, and its answers to bad input."""

from __future__ import annotations

import pytest
from labelled_pairs import WATER

from mlmm.cli import main
from mlmm.cli.learn import TEMPLATE
from mlmm.learning.active.config import SECTIONS, load_learning
from mlmm.learning.dataset.store import Dataset
from mlmm.potentials import load_potential

TEXT = """
[explore]
kind = "distortion"
structures = "water.xyz"
count = 50
size = "0.006 nm"
[method]
name = "tblite"
[choice]
start = 12
by = "distance"
[loop]
held_out = 6
[stop]
rounds = 1
[networks]
start = "scratch"
hidden = [8, 8]
members = 2
[fit]
epochs = 2
[executor]
workers = 1
"""


@pytest.fixture
def file(tmp_path):
    rows = "\n".join(
        f"{symbol} {' '.join(map(str, 10 * row))}" for symbol, row in zip("OHH", WATER, strict=True)
    )
    (tmp_path / "water.xyz").write_text(f"3\n\n{rows}\n")
    (tmp_path / "learn.toml").write_text(TEXT)
    return tmp_path / "learn.toml"


def test_from_a_file_to_a_potential(file, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["learn", str(file), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "report: " in said and "target" in said
    assert load_potential(str(out / "model.safetensors")).spec.members == 2
    assert len(Dataset(out / "data")) == 12 and (out / "report.html").exists()
    # Again: nothing is left to do, and the same is said.
    assert main(["learn", str(file), "--out", str(out)]) == 0
    assert main(["learn", str(file), "--out", str(out), "--set", "choice.start=13"]) == 2
    assert "others for choice" in capsys.readouterr().err


def test_template_is_a_file_that_is_read(file, tmp_path, capsys):
    assert main(["learn", "--template"]) == 0
    text = capsys.readouterr().out
    assert text == TEMPLATE
    (tmp_path / "template.toml").write_text(text)
    config = load_learning(tmp_path / "template.toml")
    assert config.method == "xtb" and config.choice.by == "spread" and config.training.networks.members == 4


@pytest.mark.parametrize("section", list(SECTIONS))
def test_every_section_is_explained(section, capsys):
    assert main(["learn", "--explain", section]) == 0
    assert f"[{section}]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "mlmm learn --template"),
        (["none.toml"], "mlmm learn --template"),
        (["--explain", "model1"], "a section of"),
        (["FILE", "--set", "method.name=xtbb"], "Did you mean 'xtb'"),
        (["FILE", "--set", "method.accurcy=1"], "Did you mean 'accuracy'"),
        (["FILE", "--set", "explore.structures=none.xyz"], "none.xyz"),
    ],
)
def test_what_is_wrong_is_said(file, tmp_path, capsys, arguments, said):
    arguments = [str(file) if text == "FILE" else text for text in arguments]
    assert main(["learn", *arguments, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


RUN = """
[system]
pdb = "{pdb}"
solvate = false
constraints = "none"
rigid_water = false
[region]
select = "resname ACE ALA NME"
[potential]
name = "ani1x"
[embedding]
scheme = "additive"
[run]
minimise = 20
equilibrate = "10 fs"
produce = "100 fs"
nve = "0 ps"
timestep = "0.5 fs"
platform = "Reference"
[report]
interval = 20
trajectory_interval = 5
checkpoint_interval = 20
"""


@pytest.mark.slow
def test_exploration_in_ml_mm_that_is_killed(root, file, tmp_path):
    """Dynamics with the model of the round before; killed in the second round: the same labels and models."""
    import subprocess
    import sys
    import time

    (tmp_path / "run.toml").write_text(RUN.format(pdb=root / "systems/alanine_dipeptide/input.pdb"))
    changes = ["explore.kind=run", "explore.run=run.toml", "explore.radius=0 nm", "stop.rounds=2"]
    changes += ["choice.batch=4", "networks.start=ani1x", "loop.block=4", "choice.by=spread"]
    options = [part for change in changes for part in ("--set", change)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["learn", str(file), "--out", str(whole), *options]) == 0
    command = [sys.executable, "-m", "mlmm.cli", "learn", str(file), "--out", str(cut), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    checkpoint = cut / "round_001/exploration/run/checkpoint.zip"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (cut / "round_001/explored.json").exists()
    assert main(["learn", str(file), "--out", str(cut), *options]) == 0
    assert Dataset(cut / "data").content_hash == Dataset(whole / "data").content_hash
    for number in range(2):
        name = f"round_{number:03d}/measured.json"
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
