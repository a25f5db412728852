"""A dry run looks behind what would stop a build: all questions at once, and the system under assumptions."""

import re
from pathlib import Path

import pytest
from fragments import hetatm

from mlmm.build import build_system
from mlmm.build.ligands.definition import Ligand
from mlmm.build.plan import plan_system
from mlmm.build.questions import OpenQuestionError

CASES = Path(__file__).parent / "cases"
#: A zwitterion of glycine in angstrom, flat enough for a template.
GLYCINE = {
    "N": (0, 0, 0),
    "CA": (1.46, 0, 0),
    "C": (2.01, 1.42, 0),
    "O": (1.25, 2.39, 0),
    "OXT": (3.24, 1.5, 0),
}


def case(name="af"):
    lines = (CASES / f"{name}.pdb").read_text().splitlines()
    return [line for line in lines if line.startswith(("ATOM", "HETATM", "TER"))]


def glycine(number, shift, name="GLY", chain="A"):
    return [
        hetatm(
            800 + i,
            f" {atom:<3s}",
            name,
            chain,
            number,
            tuple(c + s for c, s in zip(xyz, shift, strict=True)),
            atom[0],
        )
        for i, (atom, xyz) in enumerate(GLYCINE.items())
    ]


def write(folder, lines):
    path = folder / "case.pdb"
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return path


def charge(page):
    return int(re.search(r"before ions of the solvent: ([+-]?\d+) e", page)[1])


def several(folder):
    """A gap, a phosphate at a metal, a free glycine and a water on an atom in one file."""
    lines = [line for line in case() if line[22:26].strip() not in ("3", "4")]
    places = [("P", 0, 0), ("O1", 1.5, 0), ("O2", -1.5, 0), ("O3", 0, 1.5), ("O4", 0, -1.5)]
    lines += [hetatm(700, " P  ", "PO4", "A", 301, (60, 0, 0), "P")]
    lines += [
        hetatm(701 + i, f" {n} ", "PO4", "A", 301, (60 + x, y, 0), "O")
        for i, (n, x, y) in enumerate(places[1:])
    ]
    lines += [hetatm(710, "ZN  ", "ZN", "A", 302, (63.4, 0, 0), "ZN")]
    lines += glycine(303, (80, 0, 0))
    lines += [hetatm(720, " O  ", "HOH", "A", 401, (80, 0, 0.02), "O")]
    return write(folder, lines)


def test_all_questions_are_asked_at_once_and_the_rest_is_shown(tmp_path):
    plan = plan_system(several(tmp_path), solvate=False)
    text = str(plan)
    words = ["0.05 nm apart", "bonds C-N of a chain", "unknown PO4 301 of chain A, GLY 303 of chain A"]
    assert len(plan.problems) == len(words) and plan.planned is None and plan.problem is plan.problems[0]
    for number, (problem, expected) in enumerate(zip(plan.problems, words, strict=True), 1):
        assert re.search(expected, str(problem)) and f"  {number}. {problem}" in text
    assumed = 'gaps = "split", without HOH 401 of chain A, PO4, GLY 303 of chain A'
    assert f"would be built, {assumed}\n" in text and "nothing is in the way" not in text
    # The phosphate is left out of the page alone: it still binds its metal in the file.
    assert "O1 of PO4 301 of chain A (0.190 nm)" in text


def test_the_page_under_assumptions_is_that_of_a_build_with_them(tmp_path):
    path = several(tmp_path)
    plan = plan_system(path, solvate=False)
    chosen = {"gaps": "split", "remove": ["A:HOH401", "PO4", "A:GLY303"]}
    answered = plan_system(path, solvate=False, **chosen)
    assert answered.problem is None
    assert answered.planned.page() == plan.assumed.page()
    assert build_system(path, solvate=False, **chosen).provenance["net_charge"] == charge(str(plan))


def test_what_no_assumption_settles_ends_the_list(tmp_path):
    """An isopeptide bond: neither of the residues can be left out of the chain."""
    lines = case("isopeptide_link") + glycine(303, (80, 0, 0), "LIG")
    plan = plan_system(write(tmp_path, lines), solvate=False)
    assert "isopeptide bond" in str(plan.problems[-1])
    assert not isinstance(plan.problems[-1], OpenQuestionError) and plan.assumed is None


def test_a_question_is_pickled_whole():
    import pickle

    question = OpenQuestionError("a", "b", "c", {"remove": ["X"]}, "without X")
    copy = pickle.loads(pickle.dumps(question))
    assert str(copy) == str(question) and (copy.changes, copy.assumption) == ({"remove": ["X"]}, "without X")


# ---- amino acids and nucleotides that are ligands ----


def free(folder, name="GLY", ter=True):
    """Six residues of a chain, and behind them two glycines with the same chain id."""
    lines = [line for line in case() if ter or not line.startswith("TER")]
    return write(folder, lines + glycine(301, (60, 0, 0), name) + glycine(302, (80, 0, 0), name))


@pytest.mark.parametrize("ter", [True, False], ids=["TER", "no TER"])
def test_free_amino_acids_are_ligands_and_no_links_of_a_chain(tmp_path, ter):
    plan = plan_system(free(tmp_path, ter=ter), solvate=False)
    facts = plan.inspection
    assert [(c.residues, c.last, c.gaps) for c in facts.chains] == [(6, "GLU 6 of chain A", ())]
    assert [(ligand.residue, ligand.free) for ligand in facts.ligands] == [
        ("GLY 301 of chain A", True),
        ("GLY 302 of chain A", True),
    ]
    assert "GLY 301 of chain A: 5 heavy atoms, a free amino acid, touches no chain" in str(plan)
    assert len(plan.problems) == 1 and "unknown GLY 301 of chain A, GLY 302 of chain A" in str(plan.problem)
    assert "charged ends GLY 1 (N), GLU 6 (C)" in str(plan) and charge(str(plan)) == -1


def test_what_is_advised_for_a_free_amino_acid_works(tmp_path):
    path = free(tmp_path)
    do = plan_system(path, solvate=False).problem.do
    assert 'remove = ["A:GLY301"]' in do and "[system.ligand.LIG]" in do
    without = build_system(path, solvate=False, remove=["A:GLY301", "A:GLY302"])
    assert without.topology.getNumResidues() == 6
    plan = plan_system(
        free(tmp_path, "LIG"), solvate=False, ligands=[Ligand("LIG", smiles="[NH3+]CC(=O)[O-]")]
    )
    assert plan.problem is None and "besides: 2 LIG" in str(plan) and charge(str(plan)) == -1


def test_a_modified_residue_between_two_gaps_stays_a_link_of_its_chain(tmp_path):
    """HETATM records alone make no ligand: before the end of its chain the residue is a link of it."""
    kept = [line for line in case() if line[22:26].strip() in ("1", "3", "6")]
    lines = [("HETATM" + line[6:]) if line[22:26].strip() == "3" else line for line in kept]
    plan = plan_system(write(tmp_path, lines), solvate=False)
    assert plan.inspection.chains[0].residues == 3 and plan.inspection.ligands == ()


def test_a_residue_to_remove_is_named_with_its_number(tmp_path):
    """A water may have the number of a residue: the name tells them apart."""
    path = write(tmp_path, [*case(), hetatm(900, " O  ", "HOH", "A", 3, (60, 0, 0), "O")])
    plan = plan_system(path, solvate=False, remove=["A:HOH3"])
    assert plan.problem is None and plan.inspection.waters == 1
    names = [residue.name for residue in plan.planned.topology.residues()]
    assert len(names) == 6 and "HOH" not in names


# ---- what is said of a file ----


def master(count):
    return f"MASTER        0    0    0    0    0    0    0    0{count:5d}    1    0    0"


@pytest.mark.parametrize(("difference", "said"), [(-5, False), (0, False), (3, True)])
def test_fewer_atoms_than_the_master_record_counts_are_said(tmp_path, difference, said):
    """More are no sign of an edit: wwPDB counts a residue with alternate locations once."""
    lines = case()
    count = sum(line.startswith(("ATOM", "HETATM")) for line in lines) + difference
    plan = plan_system(write(tmp_path, [*lines, master(count)]), solvate=False)
    assert ("the file was edited" in str(plan)) == said


def test_a_part_of_the_file_that_is_an_assembly_is_told_as_one(tmp_path):
    lines = [
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: MONOMERIC",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
        "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
        "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
        "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
    ]
    other = [
        f"{line[:21]}B{line[22:30]}{float(line[30:38]) + 60:8.3f}{line[38:]}"
        for line in case()
        if line[:3] != "TER"
    ]
    path = write(tmp_path, [*lines, *case(), "TER", *other])
    text = str(plan_system(path, solvate=False))
    assert "assembly 1 (monomeric) is a part of what stands in the file; all of it is built" in text
    one = plan_system(path, solvate=False, assembly="1")
    assert one.problem is None and one.planned.topology.getNumResidues() == 6


def test_a_sugar_is_told_with_what_it_is_bonded_to(tmp_path):
    lines = [
        line for line in (CASES / "n_glycan.pdb").read_text().splitlines() if not line.startswith("CONECT")
    ]
    ligands = {
        facts.residue: facts
        for facts in plan_system(write(tmp_path, lines), solvate=False).inspection.ligands
    }
    assert ligands["NAG 1 of chain B"].bonded == ("ASN 3 of chain A", "FUC 6 of chain B", "NAG 2 of chain B")
    assert "BMA 3 of chain B" in ligands["NAG 2 of chain B"].bonded


def cluster(folder):
    """Four cysteines at an iron, one of them under a name of its own and bonded to it by a record."""
    lines = case("zncys4")
    zinc = next(line for line in lines if line[17:20] == " ZN")
    place = [float(zinc[start : start + 8]) for start in (30, 38, 46)]
    named = [line.replace("CYS A   2", "CYF A   2") for line in lines]
    named = [line for line in named if line != zinc]
    sulfur = next(line for line in named if line[17:20] == "CYF" and line[12:16].strip() == "SG")
    named += [hetatm(900, "FE  ", "FS1", "M", 9, place, "FE")]
    named += [hetatm(901, " S1 ", "FS1", "M", 9, [place[0] + 2.2, *place[1:]], "S")]
    return write(folder, [*named, f"CONECT  900{sulfur[6:11]}", "CONECT  900  901"])


def test_a_link_of_a_chain_under_another_name_stays_where_its_metal_is_left_out(tmp_path):
    """A cluster is built with AmberTools; its cysteine has the atoms of one, and the chain stays whole."""
    plan = plan_system(cluster(tmp_path), solvate=False)
    assert len(plan.problems) == 1 and "SG of CYF" in str(plan.problem)
    assert "Metals with bonds" in plan.problem.do and "<ExternalBond>" not in plan.problem.do
    assert plan.assumptions == "without FS1 9 of chain M"
    assert "CYF" in {residue.name for residue in plan.assumed.topology.residues()}


SUGARS = {
    "a furanose or another ring": (
        "RIB",
        "O[C@@H]1O[C@H](CO)[C@@H](O)[C@H]1O",
        "O1 C1 O4 C4 C5 O5 C3 O3 C2 O2",
    ),
    "unknown FRU 1": ("FRU", "OC[C@]1(O)O[C@H](CO)[C@@H](O)[C@@H]1O", "O1 C1 C2 O2 O5 C5 C6 O6 C4 O4 C3 O3"),
    "unknown SIA 1": (
        "SIA",
        "OC(=O)[C@@]1(O)C[C@H](O)[C@@H](NC(C)=O)[C@@H](O1)[C@H](O)[C@H](O)CO",
        "O1A C1 O1B C2 O2 C3 C4 O4 C5 N5 C10 C11 O10 C6 O6 C7 O7 C8 O8 C9 O9",
    ),
}


@pytest.mark.parametrize("words", SUGARS)
def test_a_sugar_that_glycam_lacks_leads_to_leap_and_to_a_smiles(tmp_path, words):
    chemistry = pytest.importorskip("rdkit.Chem.AllChem")
    name, smiles, labels = SUGARS[words]
    molecule = chemistry.AddHs(chemistry.MolFromSmiles(smiles))
    chemistry.EmbedMolecule(molecule, randomSeed=1)
    places = molecule.GetConformer().GetPositions()
    lines = [
        hetatm(i + 1, f" {label:<3s}", name, "A", 1, places[i], label[0])
        for i, label in enumerate(labels.split())
    ]
    plan = plan_system(write(tmp_path, lines), solvate=False)
    # Behind the assumption that it is left out nothing is left to look at.
    assert len(plan.problems) == 1 and words in str(plan.problem) and plan.assumed is None
    assert "tleap" in plan.problem.do and f"[system.ligand.{name}]" in plan.problem.do
    described = plan_system(write(tmp_path, lines), solvate=False, ligands=[Ligand(name, smiles=smiles)])
    assert described.problem is None


def test_an_unknown_link_of_a_chain_is_no_ligand(tmp_path):
    """A SMILES cannot describe what is bonded to both neighbours, and the chain is not shown without it."""
    lines = [line.replace("ALA A   2", "XYZ A   2") for line in case()]
    lines = [f"{line[:76]} P" if line[17:20] == "XYZ" and line[12:16] == " CB " else line for line in lines]
    plan = plan_system(write(tmp_path, [*lines, *glycine(303, (80, 0, 0), "LIG")]), solvate=False)
    assert [isinstance(problem, OpenQuestionError) for problem in plan.problems] == [True, False]
    assert "unknown LIG 303" in str(plan.problems[0]) and "unknown XYZ 2 of chain A in" in str(
        plan.problems[1]
    )
    assert (
        '<ExternalBond> to each neighbour in the chain and write ligands = ["XYZ.xml"]' in plan.problems[1].do
    )
    assert "smiles" not in plan.problems[1].do


def test_a_bond_of_a_replaced_residue_is_told_under_the_name_of_the_file(tmp_path):
    """CSO has become CYS when its bonds are looked at; the file, and its LINK record, say CSO."""
    path = CASES / "covalent_link_only.pdb"
    assert "CSO" not in path.read_text()
    plan = plan_system(path, solvate=False)
    assert "SG of CYS" in str(plan.problem)
    renamed = tmp_path / "renamed.pdb"
    lines = [line.replace("CYS A", "CSX A") for line in path.read_text().splitlines()]
    number = next(line[22:26] for line in lines if line[17:22] == "CSX A")
    renamed.write_text("\n".join([f"MODRES 1ABC CSX A {number}  CYS  MADE", *lines]) + "\n")
    plan = plan_system(renamed, solvate=False)
    assert f"SG of CSX {number.strip()} of chain A" in str(plan.problem) and "LINK" in str(plan.problem)
