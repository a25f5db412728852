"""Mutants by one key: a profile of its own, from the wild type's scan, beside that of the wild type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlmm.build import BuiltSystem
from mlmm.cli import main

_PHI = Path(__file__).parents[2] / "systems/alanine_dipeptide/phi.toml"
_CHANGES = {
    'pdb = "input.pdb"': f'pdb = "{_PHI.with_name("input.pdb")}"',
    'name = "ani1x"': 'name = "ani1x"\nmembers = [0]',
    '"-180 degree"': '"-170 degree"',
    '"180 degree"': '"-140 degree"',
    "windows = 24": "windows = 3\nbins = 6\nbootstraps = 20\nscan = 'scan'",
    'exchange = "5 ps"\n': "",
    "minimise = 200": "minimise = 20",
    'equilibrate = "2 ps"': 'equilibrate = "10 fs"',
    'produce = "20 ps"': 'produce = "60 fs"',
    "seed = 1": 'seed = 2\nplatform = "Reference"',
    "interval = 25\n": "interval = 2\n",
    "trajectory_interval = 500": "trajectory_interval = 10",
}
_SCAN = """
[scan]
variables = ["phi"]
start = ["-170 degree"]
end = ["-140 degree"]
points = [5]
directions = "forward"
"""
_GLYCINE = ["--set", 'system.mutate=["A:ALA2 -> GLY"]']


@pytest.fixture(scope="module")
def sampled(tmp_path_factory) -> Path:
    """Folder with run file, the wild type's scan, and both profiles."""
    folder = tmp_path_factory.mktemp("mutant")
    text = _PHI.read_text()
    for old, new in _CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "phi.toml").write_text(text)
    plain = text.replace("scan = 'scan'", "")
    (folder / "scan.toml").write_text(plain[: plain.index("[umbrella]")] + _SCAN)
    assert main(["scan", str(folder / "scan.toml"), "--out", str(folder / "scan")]) == 0
    for name, changes in (("wild", []), ("glycine", _GLYCINE)):
        assert main(["pmf", str(folder / "phi.toml"), "--out", str(folder / name), *changes]) == 0
    return folder


def residues(folder: Path) -> list[str]:
    return [residue.name for residue in BuiltSystem.load(folder / "built").topology.residues()]


def test_a_mutant_is_sampled_from_the_wild_types_scan(sampled):
    """Another residue, another energy, the same windows: their force constants are those of one scan."""
    assert residues(sampled / "wild") == ["ACE", "ALA", "NME"]
    assert residues(sampled / "glycine") == ["ACE", "GLY", "NME"]
    results = [json.loads((sampled / name / "result.json").read_text()) for name in ("wild", "glycine")]
    constants = [[window["force_constant"] for window in one["windows"]] for one in results]
    np.testing.assert_array_equal(*constants)
    means = [[window["mean"] for window in one["windows"]] for one in results]
    assert np.abs(np.subtract(*means)).min() > 1e-4


def test_a_mutant_does_not_go_on_in_the_folder_of_the_wild_type(sampled, capsys):
    before = (sampled / "wild" / "umbrella.json").read_bytes()
    changes = ["--out", str(sampled / "wild"), "--resume", *_GLYCINE]
    assert main(["pmf", str(sampled / "phi.toml"), *changes]) == 2
    assert "other system.mutate" in capsys.readouterr().err
    assert (sampled / "wild" / "umbrella.json").read_bytes() == before


def test_structures_of_the_wild_type_are_no_start_for_a_mutant(sampled, tmp_path, capsys):
    """Its atoms are others; the advice, to leave them out, is what the profile above did."""
    path = sampled / "wild" / "windows" / "000" / "equilibration" / "topology.pdb"
    changes = ["--out", str(tmp_path / "other"), *_GLYCINE, "--set", f"umbrella.structures={path}"]
    assert main(["pmf", str(sampled / "phi.toml"), *changes]) == 2
    said = capsys.readouterr().err
    assert "all 19 atoms of the system" in said
    assert "a mutant starts from its own" in said


def test_the_difference_of_both_barriers_by_the_verb(sampled, capsys):
    """The mutation stands among what was chosen otherwise; a range without barrier is said to be one."""
    folders = [sampled / "glycine", sampled / "wild"]
    facts = [json.loads((folder / "result.json").read_text()) for folder in folders]
    kept = [(folder / "result.json").read_bytes() for folder in folders]
    for folder, own, barrier in zip(folders, facts, (24.0, 30.0), strict=True):
        own |= {"barrier": [barrier, 0.6], "error": 0.8}
        (folder / "result.json").write_text(json.dumps(own))
    try:
        assert main(["pmf", str(folders[0]), "--compare", str(folders[1])]) == 0
    finally:
        for folder, content in zip(folders, kept, strict=True):
            (folder / "result.json").write_bytes(content)
    comparison = json.loads((folders[0] / "comparison.json").read_text())
    assert comparison["barrier"] == [pytest.approx(-6.0), pytest.approx(0.8 * np.sqrt(2))]
    assert ["system.mutate", '["A:ALA2 -> GLY"]', "[]"] in comparison["settings"]
    assert "ratio of rates 11" in capsys.readouterr().out


def test_what_is_no_mutation_is_answered_with_both_kinds(sampled, tmp_path, capsys):
    words = ["--set", 'system.mutate=["GLY"]', "--out", str(tmp_path / "x")]
    assert main(["pmf", str(sampled / "phi.toml"), *words]) == 2
    assert 'mutate = ["A:ARG90 -> ALA"] for the protein' in capsys.readouterr().err
