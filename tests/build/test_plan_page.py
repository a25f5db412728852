"""The page of a dry run says what the build then makes: ends, states, charge."""

import os
import re
from pathlib import Path

import pytest

from mlmm.build import build_system
from mlmm.build.plan import plan_system
from mlmm.errors import ConfigError

CASES = Path(__file__).parent / "cases"


def page(name, **options):
    text = str(plan_system(CASES / f"{name}.pdb", solvate=False, **options))
    assert "would be built" in text
    return text.partition("would be built")[2]


def charge(text):
    return int(re.search(r"before ions of the solvent: ([+-]?\d+) e", text)[1])


ROWS = [
    ("af", {}, -1, "charged ends GLY 1 (N), GLU 6 (C)"),
    ("cyclic", {}, 0, "6 residues, GLY 1 to ALA 6; no free ends"),
    ("zncys4", {}, -2, "side chains: 4 CYM"),
    ("zncys4", {"protonate": {"*:CYS2": "CYS"}}, 2, "side chains: 4 thiols"),
    ("charmmgui", {}, 1, "besides: 1 NA, 1 CL, 1 K"),
    ("dna", {}, -3, "4 residues, DA 1 to DT 4"),
    ("n_glycan", {}, 0, "besides: 1 ACE, 1 NME, 2 NAG, 1 BMA, 2 MAN, 1 FUC"),
    ("af", {"mutate": ["A:LEU4 -> LYS"]}, 0, "side chains: 1 GLU, 1 LYS"),
    ("af", {"mutate": ["A:LEU4 -> GLU"]}, -2, "side chains: 2 GLU"),
    (
        "af",
        {"mutate": ["A:LEU4 -> GLU"], "protonate": {"A:GLU4": "GLH"}},
        -1,
        "charged ends GLY 1 (N), GLU 6 (C)",
    ),
    ("hyp_h", {}, 0, "4 residues, GLY 1 to GLY 4; charged ends GLY 1 (N), GLY 4 (C)"),
]


@pytest.mark.parametrize(("name", "options", "expected", "words"), ROWS)
def test_the_page_tells_the_charge_that_the_build_has(name, options, expected, words):
    text = page(name, **options)
    assert words in text and charge(text) == expected
    built = build_system(CASES / f"{name}.pdb", solvate=False, **options)
    assert built.provenance["net_charge"] == expected


def test_a_state_that_a_residue_cannot_have_is_said_in_the_dry_run():
    plan = plan_system(CASES / "af.pdb", solvate=False, protonate={"A:GLU6": "HIP"})
    assert isinstance(plan.problem, ConfigError) and "GLU, GLH" in str(plan.problem)


def test_trypsin_is_told_with_its_insertion_codes():
    folders = [Path(name) for name in os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep) if name]
    if not any((folder / "3PTB.pdb").is_file() for folder in folders):
        pytest.skip("set MLMM_STRUCTURES to a folder that holds 3PTB.pdb")
    text = str(plan_system("3PTB", remove=["BEN"]))
    assert "charged ends ILE 16 (N), ASN 245 (C); insertion codes 184A, 188A, 221A" in text
    assert "12 CYS in disulfides" in text and "40 of chain A, 57 of chain A, 91 of chain A" in text
    assert charge(text) == 8


def test_a_residue_that_takes_the_template_of_another_has_its_charge(tmp_path):
    """A cysteine under a name of its own, as files of AmberTools call those at iron-sulfur clusters."""
    path = tmp_path / "named.pdb"
    path.write_text((CASES / "zncys4.pdb").read_text().replace("CYS", "CYF"))
    text = str(plan_system(path, solvate=False))
    template = re.search(r"CYF 2 of chain A has the heavy atoms and bonds of (\w+)", text)[1]
    assert "A: 3 residues, GLY 1 to GLY 3; charged ends" in text and "modified residues: 4 CYF" in text
    built = build_system(path, solvate=False)
    assert built.provenance["net_charge"] == charge(text) == {"CYM": -2, "CYS": 2}[template]
