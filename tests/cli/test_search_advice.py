"""Searches that go wrong: each is answered with a sentence and a next step, which is tried."""

from __future__ import annotations

import dataclasses

import pytest
from hydrogen_cyanide import CYANIDE, ISOCYANIDE, SCAN
from model_surfaces import MINIMA, at, mueller_brown_surface

import mlmm.reactions.conservation
from mlmm.cli import main
from mlmm.reactions.conservation import check_forces
from mlmm.reactions.options import NEBOptions
from mlmm.reactions.path import nudged_elastic_band
from mlmm.reactions.results import path_result
from mlmm.report.search_verdict import judge_search

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


_CYANIDE = f"""{SCAN}
[neb]
start = "hcn.xyz"
end = "hnc.xyz"
images = 9
steps = 60
"""


def test_images_that_cross_are_named_and_a_path_from_a_scan_does_not(folder, capsys):
    """The straight way of H from one end of CN to the other runs through both atoms."""
    (folder / "hcn.xyz").write_text(CYANIDE)
    (folder / "hnc.xyz").write_text(ISOCYANIDE)
    (folder / "cyanide.toml").write_text(_CYANIDE)
    main(["neb", "cyanide.toml", "--out", "straight"])
    said = capsys.readouterr().out
    assert "the path turns back on itself at image" in said and "images cross" in said
    assert 'begin from a scan along the reaction (--from, interpolation = "given")' in said
    assert main(["scan", "cyanide.toml", "--out", "scan"]) == 0
    around = ["--from", "scan", "--set", "neb.interpolation=given", "--set", "neb.images=5"]
    assert main(["neb", "cyanide.toml", "--out", "around", *around]) == 0
    said = capsys.readouterr().out
    assert "in order along the path" in said and "Nothing speaks against this run" in said


def test_stiffer_springs_put_images_that_cross_in_order():
    """Images that nearly no spring holds apart run into one minimum past each other."""
    ends = at(MINIMA["deep"][0]), at(MINIMA["middle"][0])
    options = NEBOptions(images=15, interpolation="linear", force_tolerance="1 kJ/mol/nm", relax_ends=False)
    soft = dataclasses.replace(options, spring="0.001 eV/A^2", spring_top="0.001 eV/A^2")
    for given, order in ((soft, False), (options, True)):
        surface = mueller_brown_surface()
        found = nudged_elastic_band(surface, *ends, given)
        run = {"kind": "neb", "state": "finished", "result": path_result(surface, found)[0]}
        judged = {one.name: one for one in judge_search(run).judgements}["images"]
        assert (judged.level == "ok") == order == (not found.folds)
        assert ("use stiffer springs (neb.spring and neb.spring_top)" in judged.advice) == (not order)
