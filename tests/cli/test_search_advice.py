"""Searches that go wrong: each is answered with a sentence and a next step, which is tried."""

from __future__ import annotations

import pytest
from model_surfaces import mueller_brown_surface

import mlmm.reactions.conservation
from mlmm.cli import main
from mlmm.reactions.conservation import check_forces
from mlmm.report.search_verdict import judge_search
from mlmm.report.verdict import Judgement

_WATER = "3\n\nH -0.93 0.0 0\nO 0 0 0\nH 0.93 0 0\n"
_ECLIPSED = """11

C 0.000 0.000 0.588
C 0.000 1.267 -0.260
C 0.000 -1.267 -0.260
H -0.877 0.000 1.245
H 0.877 0.000 1.245
H 0.881 1.883 -0.061
H -0.881 -1.883 -0.061
H -0.004 1.022 -1.327
H -0.887 1.873 -0.055
H 0.004 -1.022 -1.327
H 0.887 -1.873 -0.055
"""
_RUN_FILE = """
[surface]
molecule = "water.xyz"
method = "gfn2"

[variable.bend]
kind = "angle"
groups = ["name H1", "name O1", "name H2"]

[scan]
variables = ["bend"]
start = ["120 degree"]
end = ["100 degree"]
points = [3]
directions = "forward"
"""
_TOP = """
[surface]
molecule = "water.xyz"
method = "gfn2"

[ts]
guess = "water.xyz"
force_tolerance = "2000 kJ/mol/nm"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "water.xyz").write_text(_WATER)
    (tmp_path / "my.toml").write_text(_RUN_FILE)
    (tmp_path / "top.toml").write_text(_TOP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_imaginary_modes_leave_structures_to_begin_from(folder, capsys):
    """Propane with both methyl groups eclipsed: from a displaced structure one of them turns back."""
    (folder / "propane.xyz").write_text(_ECLIPSED)
    propane = ["--set", "surface.molecule=propane.xyz"]
    main(["ts", "top.toml", "--out", "both", *propane, "--set", "ts.guess=propane.xyz"])
    said = capsys.readouterr().out
    assert "2 imaginary modes" in said
    assert "begin mlmm ts from one of them with ts.guess" in said
    displaced = folder / "both" / "second_mode_plus.xyz"
    assert displaced.exists() and (folder / "both" / "second_mode_minus.xyz").exists()
    begin = ["--set", f"ts.guess={displaced}", "--set", "ts.force_tolerance=5 kJ/mol/nm"]
    main(["ts", "top.toml", "--out", "one", *propane, *begin])
    said = capsys.readouterr().out
    assert "one imaginary mode" in said and "Nothing speaks against this run" in said


def test_forces_that_are_no_gradient_are_refused_and_the_advice_goes_on(folder, monkeypatch, capsys):
    """Nothing is left of the refused scan; nonconservative = "warn" runs it, and says so."""
    angle = ["--set", "surface.molecule=bent.xyz"]
    (folder / "bent.xyz").write_text(_WATER.replace("H 0.93 0 0", "H 0.2 0.93 0"))
    turned = check_forces(mueller_brown_surface((0.1, 0.5), wrong=30.0))
    monkeypatch.setattr(mlmm.reactions.conservation, "check_forces", lambda *_: turned)
    assert main(["scan", "my.toml", "--out", "refused", *angle]) == 2
    said = capsys.readouterr().err
    assert "forces that are the gradient of the energy" in said
    assert 'write nonconservative = "warn" in [surface]' in said
    assert not (folder / "refused" / "run.json").exists()
    assert main(["scan", "my.toml", "--out", "warned", *angle, "--set", "surface.nonconservative=warn"]) == 0
    assert "warning: Expected forces that are the gradient" in capsys.readouterr().err
    assert (folder / "warned" / "result.npz").exists()


def test_an_angle_on_a_straight_line_is_refused(folder, capsys):
    """The variable has no gradient there; the bent structure of the advice is scanned."""
    assert main(["scan", "my.toml", "--out", "line"]) == 2
    said = capsys.readouterr().err
    assert "groups 1, 2 and 3 on a straight line" in said
    assert "start from another structure" in said
    assert not (folder / "line" / "run.json").exists()
    (folder / "bent.xyz").write_text(_WATER.replace("H 0.93 0 0", "H 0.2 0.93 0"))
    assert main(["scan", "my.toml", "--out", "bent", "--set", "surface.molecule=bent.xyz"]) == 0


def test_images_that_cross_are_said_to_and_which():
    """The verdict names the images and what to change; the same path in order is fine."""
    path = {"force": 10.0, "converged": True, "iterations": 5, "highest": 2, "images": 4}

    def judged(folds: list[int]) -> dict[str, Judgement]:
        run = {"kind": "neb", "state": "finished", "result": path | {"folds": folds}}
        return {one.name: one for one in judge_search(run).judgements}

    found = judged([2, 3])
    assert found["images"].level == "bad"
    assert "turns back on itself at image 2, 3: images cross" in found["images"].finding
    assert "neb.spring" in found["images"].advice
    assert judged([])["images"].level == "ok"
