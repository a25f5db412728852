"""What a prompt or a notebook shows of the public objects: facts in a line, never arrays."""

from __future__ import annotations

import inspect
import xml.etree.ElementTree as ElementTree

import pytest
import torch

import mlmm
from mlmm.check_report import CheckReport, CheckResult
from mlmm.potentials.committee import Committee
from mlmm.short_repr import ShortRepr, counted, shortened
from mlmm.structures import Structure


@pytest.fixture(scope="module")
def shown(root, dipeptide_water, ani1x):
    """Objects of the public classes, with words that their line has to hold."""
    built = dipeptide_water
    region = mlmm.select_region(built, "resname ACE ALA NME")
    hard = mlmm.hard_zones(built, region)
    soft = mlmm.static_zones(built, region, plateau="0 nm", width="0.2 nm")
    moving = mlmm.adaptive_zones(built, region, "0.2 nm", "0.2 nm")
    hybrid = mlmm.hybrid_system(built, soft, ani1x, scheme="per_atom")
    structure = hybrid.region_structure(built.positions)
    pdb = root / "systems/alanine_dipeptide/input.pdb"
    return [
        (built, ("atoms: 589", "residues: 192", "box: 1.89 × 1.89 × 1.89 nm", "constraints: 0")),
        (region, ("atoms: 22", "selection: resname ACE ALA NME", "residues: ACE1, ALA2, NME3")),
        (hard, ("kind: hard", "atoms: 589", "lambda = 1: 22", "0 < lambda < 1: 0")),
        (soft, ("lambda = 1: 22", f"0 < lambda < 1: {len(soft.transition)}", "width 0.2 nm")),
        (moving, ("may change: 567 atoms",)),
        (
            hybrid,
            ("atoms: 589", "region: 22 atoms", "ANI-1x", "scheme: per_atom", "electrostatics: mechanical"),
        ),
        (structure, ("elements: H", "cell: periodic", "charge: 0 e")),
        (mlmm.ExternalCharges(structure.positions[:1], torch.ones(1)), ("charges: 1", "sum: +1.000 e")),
        (hybrid.region_energies(built.positions), ("members: 8", "kJ/mol")),
        (ani1x, ("ANIPotential", "name: ANI-1x", "elements: H C N O", "members: 8", "charge: 0")),
        (ani1x.spec, ("PotentialSpec", "trained on: total energies")),
        (
            mlmm.load_potential("amp-bms"),
            ("AMPPotential", "charge: any", "takes of charges around it: charges"),
        ),
        (Committee([ani1x, ani1x], name="two"), ("Committee", "name: two", "members: 16")),
        (mlmm.Compensation({"HOH": 5.0}), ("alignment: HOH 5.00 kJ/mol",)),
        (mlmm.inspect_structure(pdb), ("file: input.pdb", "chains: A")),
        (mlmm.plan_system(pdb), ("file: input.pdb",)),
        (CheckReport((CheckResult("forces", 1.0, "", 0.5, passed=False),)), ("failed: forces",)),
    ]


def test_one_line_of_facts_and_no_arrays(shown):
    for thing, words in shown:
        line = repr(thing)
        assert line.startswith(f"{type(thing).__name__}(") and line.endswith(")")
        assert "\n" not in line and len(line) < 500, line
        assert not [word for word in ("array(", "tensor(", " at 0x") if word in line], line
        assert not [word for word in words if word not in line], line


def test_tables_for_notebooks_are_well_formed(shown):
    for thing, _ in shown:
        ElementTree.fromstring(thing._repr_html_())


def test_every_public_class_that_holds_arrays_is_among_them(shown):
    """Options and stages are numbers and words, whose dataclass line is what was given."""
    numbers = {"Structure", "AtomEnergies", "Compensation", "BuiltSystem", "HybridSystem", "RunDirectory"}
    numbers |= {"Region", "ZonePartition", "CheckReport", "Inspection", "BuildPlan", "ExternalCharges"}
    numbers |= {"PotentialSpec"}
    public = {name for name in mlmm.__all__ if inspect.isclass(getattr(mlmm, name))}
    short = {name for name in public if issubclass(getattr(mlmm, name), ShortRepr)}
    assert short == numbers
    assert len(repr(mlmm.RunOptions())) < 600 and len(repr(mlmm.Produce("1 ps"))) < 400


def test_a_run_shows_its_state_and_a_folder_that_is_none_says_so(tmp_path, dipeptide_vacuum, ani1x):
    zones = mlmm.hard_zones(dipeptide_vacuum, mlmm.select_region(dipeptide_vacuum, "all"))
    hybrid = mlmm.hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="additive")
    stages = [mlmm.Minimise(max_iterations=2), mlmm.Produce("1 fs", timestep="0.5 fs")]
    run = mlmm.simulate(hybrid, tmp_path / "run", stages, platform="Reference")
    line = repr(run)
    assert "state: finished" in line and "stages: minimise, produce" in line and "Reference" in line
    assert "no readable run.json" in repr(mlmm.RunDirectory(tmp_path))
    ElementTree.fromstring(run._repr_html_())


def test_words_of_a_user_are_escaped():
    class Note(ShortRepr):
        def _summary(self):
            return {"said": "<script>alert(1)</script>", "empty": ""}

    assert "<script>" not in Note()._repr_html_() and repr(Note()) == "Note(said: <script>alert(1)</script>)"


def test_counts_and_lengths():
    assert counted(1, "atom") == "1 atom" and counted(2269, "atom") == "2,269 atoms"
    assert counted(2, "molecule of water", "molecules of water") == "2 molecules of water"
    assert shortened("abc", 3) == "abc" and shortened("abcd", 3) == "ab…"


def test_a_large_structure_is_still_one_line():
    """Control: the plain dataclass line of the same object is long."""
    structure = Structure(torch.ones(500, dtype=torch.int64), torch.rand(500, 3, dtype=torch.float64))
    assert len(repr(structure)) < 120 < len(repr(vars(structure)))
