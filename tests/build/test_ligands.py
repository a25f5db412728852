"""Ligands: the same molecule and the same hand as in the coordinates, or an error that names the atom."""

import itertools
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from ligands import (
    ANALOGUE,
    BENZAMIDINIUM,
    CHORISMATE,
    LACTATE,
    PREPHENATE,
    needs_ambertools,
    pdb_lines,
    residue_of,
)

from mlmm.build import Ligand, build_system, parametrise_ligand
from mlmm.build.ligands import ambertools
from mlmm.build.ligands import parameters as ligand_parameters
from mlmm.build.ligands.definition import plan_ligands
from mlmm.build.ligands.matching import ResidueAtoms, place, wrong_stereo
from mlmm.build.ligands.molecules import canonical, molecule_from_smiles, plain_smiles
from mlmm.build.ligands.parameters import gaff_parameters, whole_charges
from mlmm.build.ligands.templates import molecules_of_template
from mlmm.cli import program as cli
from mlmm.config.load import load_config
from mlmm.errors import ConfigError, MissingPackageError, StructureError

Chem = pytest.importorskip("rdkit.Chem", reason='needs RDKit: pip install "mlmm[ligands]"')
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_programs(monkeypatch):
    """AmberTools as if not installed."""
    monkeypatch.setattr(ambertools.sysconfig, "get_path", lambda name: "/nonexistent")
    monkeypatch.setattr(ambertools.shutil, "which", lambda name: None)


def write(path: Path, lines) -> Path:
    path.write_text("\n".join([*lines, "END", ""]), encoding="utf-8")
    return path


# ---- a molecule laid onto coordinates ----


@pytest.mark.parametrize("smiles", [CHORISMATE, PREPHENATE, ANALOGUE, BENZAMIDINIUM, LACTATE, "C/C=C/C(=O)O"])
def test_a_molecule_finds_its_own_atoms_and_hydrogens_stand_off_their_atoms(smiles):
    placed = place(molecule_from_smiles(smiles), residue_of(smiles))
    assert plain_smiles(placed.molecule) == Chem.CanonSmiles(smiles)
    assert len(set(placed.names)) == placed.molecule.GetNumAtoms()
    positions = placed.molecule.GetConformer().GetPositions()
    for bond in placed.molecule.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        if 1 in (ends[0].GetAtomicNum(), ends[1].GetAtomicNum()):
            length = np.linalg.norm(positions[ends[0].GetIdx()] - positions[ends[1].GetIdx()])
            assert 0.9 < length < 1.15


@pytest.mark.parametrize("centres", [(0,), (1,), (0, 1)])
def test_every_mirrored_centre_is_named(centres):
    residue = residue_of(CHORISMATE)
    molecule = molecule_from_smiles(CHORISMATE)
    placed = place(molecule, residue)
    stereo = [atom.GetIdx() for atom in molecule.GetAtoms() if str(atom.GetChiralTag()) != "CHI_UNSPECIFIED"]
    mirrored = Chem.Mol(molecule)
    for centre in centres:
        mirrored.GetAtomWithIdx(stereo[centre]).InvertChirality()
    with pytest.raises(StructureError, match="in the coordinates") as caught:
        place(mirrored, residue)
    for number, index in enumerate(stereo):
        assert (f"{placed.names[index]} is R in the coordinates, S" in str(caught.value)) == (
            number in centres
        )


def test_mirror_image_of_the_coordinates_is_refused_though_its_energy_is_the_same():
    residue = residue_of(LACTATE)
    mirrored = ResidueAtoms(residue.label, residue.names, residue.numbers, residue.positions * [-1, 1, 1])
    with pytest.raises(StructureError, match=r"is R in the coordinates, S in the SMILES"):
        place(molecule_from_smiles(LACTATE), mirrored)


@pytest.mark.parametrize(
    ("smiles", "other"),
    [
        ("C/C=C/C(=O)[O-]", "C/C=C\\C(=O)[O-]"),
        ("C[C@H]1CC[C@H](O)CC1", "C[C@H]1CC[C@@H](O)CC1"),  # no R or S: cis and trans on a ring
        (PREPHENATE, PREPHENATE.replace("[C@@H]", "[C@H]")),
    ],
)
def test_cis_and_trans_are_told_apart(smiles, other):
    residue = residue_of(smiles)
    assert plain_smiles(place(molecule_from_smiles(smiles), residue).molecule) == Chem.CanonSmiles(smiles)
    with pytest.raises(StructureError, match=r"in the coordinates|mirror image"):
        place(molecule_from_smiles(other), residue)


def test_meso_compound_is_laid_the_way_that_fits():
    # The two centres are equivalent by the graph; only one of the two ways has the right hand at both.
    for seed in range(1, 6):
        residue = residue_of("C[C@H](O)[C@@H](O)C", seed=seed)
        place(molecule_from_smiles("C[C@H](O)[C@@H](O)C"), residue)
        with pytest.raises(StructureError):
            place(molecule_from_smiles("C[C@@H](O)[C@@H](O)C"), residue)


def test_open_centres_come_from_the_coordinates_and_are_told():
    bare = Chem.MolToSmiles(Chem.MolFromSmiles(CHORISMATE), isomericSmiles=False)
    placed = place(molecule_from_smiles(bare), residue_of(CHORISMATE))
    assert plain_smiles(placed.molecule) == Chem.CanonSmiles(CHORISMATE)
    told = next(text for text in placed.decisions if "from the coordinates" in text)
    assert told.count(" R") == 2


def test_atom_map_numbers_do_not_change_the_hand():
    mapped = Chem.MolFromSmiles(CHORISMATE)
    for atom in mapped.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    text = Chem.MolToSmiles(mapped, canonical=False)
    labels = [label for _, label in Chem.FindMolChiralCenters(Chem.MolFromSmiles(text))]
    assert labels == ["R", "S"]  # the trap: RDKit's own labels are wrong while the numbers are there
    molecule = molecule_from_smiles(text)
    assert canonical(molecule) == canonical(molecule_from_smiles(CHORISMATE))
    assert [label for _, label in Chem.FindMolChiralCenters(molecule)] == ["R", "R"]
    placed = place(molecule, residue_of(CHORISMATE))
    assert wrong_stereo(molecule, placed.molecule.GetConformer().GetPositions()[:16] / 10, placed.names) == []


@pytest.mark.parametrize("shown", ["polar", "all"])
@pytest.mark.parametrize(
    ("built", "claimed", "words"),
    [
        (BENZAMIDINIUM, "NC(=N)c1ccccc1", ["hydrogens on N", "2 in the file, 1 in the SMILES"]),
        ("CC(=O)O", "CC(=O)[O-]", ["hydrogens on O", "1 in the file, 0 in the SMILES"]),
        ("CC(=O)[O-]", "CC(=O)O", ["hydrogens on O", "0 in the file, 1 in the SMILES"]),
    ],
)
def test_another_protonation_than_in_the_file_is_refused(built, claimed, words, shown):
    residue = residue_of(built, hydrogens=shown)
    if built == "CC(=O)[O-]" and shown == "polar":
        residue = residue_of(built, hydrogens="all")  # without any hydrogen, nothing contradicts the acid
    with pytest.raises(StructureError) as caught:
        place(molecule_from_smiles(claimed), residue)
    for word in words:
        assert word in str(caught.value)
    assert not [text for text in place(molecule_from_smiles(built), residue).decisions if "stereo" in text]


def test_hydrogens_of_the_file_stay_where_they_are():
    residue = residue_of(CHORISMATE, hydrogens="polar")
    placed = place(molecule_from_smiles(CHORISMATE), residue)
    hydrogen = residue.numbers.index(1)
    index = placed.origin.index(hydrogen)
    assert placed.names[index] == residue.names[hydrogen]
    np.testing.assert_allclose(
        placed.molecule.GetConformer().GetPositions()[index] / 10, residue.positions[hydrogen], atol=1e-9
    )
    assert placed.origin.count(None) == 7


def test_protonated_oxygen_is_the_one_with_the_longer_bond():
    residue = residue_of("CC(=O)O")
    placed = place(molecule_from_smiles("CC(=O)O"), residue)
    acid = placed.molecule.GetBonds()
    positions = placed.molecule.GetConformer().GetPositions()
    lengths = {}
    for bond in acid:
        if {bond.GetBeginAtom().GetAtomicNum(), bond.GetEndAtom().GetAtomicNum()} == {6, 8}:
            lengths[bond.GetBondTypeAsDouble()] = np.linalg.norm(
                positions[bond.GetBeginAtomIdx()] - positions[bond.GetEndAtomIdx()]
            )
    assert lengths[1.0] > lengths[2.0] + 0.05


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        ("NC(=[NH2+])c1ccccc1C", ["missing C on "]),
        ("NC=[NH2+]", ["left over C"]),
        ("NC(=[NH2+])c1ccncc1", ["missing N on"]),
        ("N=C(C=C=CC=C=C)[NH3+]", ["bonded in another way", "does not have"]),
    ],
)
def test_missing_and_surplus_atoms_are_named(claimed, words):
    with pytest.raises(StructureError, match="LIG 1") as caught:
        place(molecule_from_smiles(claimed), residue_of(BENZAMIDINIUM))
    for word in words:
        assert word in str(caught.value)


# ---- mutation ----


@pytest.mark.parametrize(
    ("product", "name"),
    [(CHORISMATE, "chorismate"), (PREPHENATE, "prephenate")],
    ids=["substrate", "product"],
)
def test_transition_state_analogue_becomes_either_side_with_natural_stereo(product, name):
    residue = residue_of(ANALOGUE, hydrogens="polar")
    bare = Chem.MolToSmiles(Chem.MolFromSmiles(product), isomericSmiles=False)
    placed = place(molecule_from_smiles(bare), residue, mutate=True)
    assert plain_smiles(placed.molecule) == Chem.CanonSmiles(product)
    assert any("cut; the atoms move apart" in text for text in placed.decisions)
    assert [atom.GetAtomicNum() for atom in placed.molecule.GetAtoms()].count(1) == 8
    with pytest.raises(StructureError, match="bonds that the SMILES does not have"):
        place(molecule_from_smiles(product), residue_of(ANALOGUE))


def test_mutation_needs_the_same_heavy_atoms():
    with pytest.raises(StructureError, match=r"missing C on .*the same heavy atoms"):
        place(
            molecule_from_smiles(CHORISMATE.replace("[C@H]1O", "[C@H]1OC")), residue_of(ANALOGUE), mutate=True
        )


# ---- what the user writes ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"smiles": "C1CC"}, ["SMILES that RDKit can read for ligand LIG", "C1CC", "PubChem"]),
        ({"smiles": "CC(C)(C)(C)C"}, ["valence", "ligand LIG"]),
        ({"smiles": "CC(=O)[O-].[Na+]"}, ["one molecule", "2"]),
        ({"smiles": "C[CH]C"}, ["closed shells", "1 unpaired"]),
        ({"smiles": "CC(=O)O", "charge": -1}, ["net charge -1 e", "+0 e", "protonation state"]),
        ({"smiles": "CCO", "atoms": ["C1"]}, ["3 atom names", "1: C1"]),
        ({"smiles": "CCO", "charges": "file"}, ["mol2 file with a partial charge"]),
    ],
)
def test_impossible_ligands_are_rejected(arguments, words):
    with pytest.raises(ConfigError) as caught:
        Ligand("LIG", **arguments).molecule()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"name": "LIG"}, "neither"),
        ({"name": "LIG", "smiles": "C", "file": "a.sdf"}, "both"),
        ({"name": "LIG", "smiles": "C", "charges": "gasteiger"}, r"am1bcc \| file"),
        ({"name": "LIG-1", "smiles": "C"}, "letters or digits"),
    ],
)
def test_definitions_are_checked_at_entry(arguments, word):
    with pytest.raises(ConfigError, match=word):
        Ligand(**arguments)


SDF = Chem.MolToMolBlock(Chem.AddHs(Chem.MolFromSmiles(BENZAMIDINIUM))).splitlines()


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("a.sdf", SDF[:12], ["complete sdf file", "a.sdf"]),
        ("a.sdf", ["", "", "", "no counts"], ["complete sdf file", "a.sdf"]),
        ("a.sdf", [line for line in SDF if not line.startswith("M  CHG")], ["valence", "N", "formal charge"]),
        ("a.mol2", ["@<TRIPOS>MOLECULE", "x", "2 1"], ["complete mol2 file", "a.mol2"]),
        ("a.pdb", ["HETATM"], [".sdf, .mol or .mol2", "a.pdb"]),
    ],
)
def test_broken_files_are_named(tmp_path, name, lines, words):
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError) as caught:
        Ligand("BEN", file=tmp_path / name).molecule()
    for word in words:
        assert word in str(caught.value)


def test_sdf_and_smiles_are_the_same_molecule(tmp_path):
    (tmp_path / "ben.sdf").write_text("\n".join(SDF) + "\n")
    plan = plan_ligands([tmp_path / "ben.sdf"])
    assert canonical(plan.definitions["BEN"].molecule) == canonical(molecule_from_smiles(BENZAMIDINIUM))


ACETATE_MOL2 = """@<TRIPOS>MOLECULE
ACT
7 6 1 0 0
SMALL
USER_CHARGES
@<TRIPOS>ATOM
1 CH3 0.000 0.000 0.000 C.3 1 ACT -0.2000
2 C 1.520 0.000 0.000 C.2 1 ACT 0.9000
3 O1 2.100 1.110 0.000 O.co2 1 ACT -0.8600
4 O2 2.100 -1.110 0.000 O.co2 1 ACT -0.8600
5 H1 -0.360 1.030 0.000 H 1 ACT 0.0067
6 H2 -0.360 -0.510 0.890 H 1 ACT 0.0066
7 H3 -0.360 -0.510 -0.890 H 1 ACT 0.0067
@<TRIPOS>BOND
1 1 2 1
2 2 3 ar
3 2 4 ar
4 1 5 1
5 1 6 1
6 1 7 1
"""


def test_mol2_names_charges_and_net_charge_are_read(tmp_path):
    (tmp_path / "act.mol2").write_text(ACETATE_MOL2)
    ligand = Ligand("ACT", file=tmp_path / "act.mol2", charge=-1, charges="file")
    molecule, charges = ligand.molecule()
    assert [atom.GetProp("name") for atom in molecule.GetAtoms()] == ["CH3", "C", "O1", "O2"]
    np.testing.assert_allclose(charges, [-0.2, 0.9, -0.86, -0.86, 0.0067, 0.0066, 0.0067])
    with pytest.raises(ConfigError, match=r"net charge \+0 e.*-1 e"):
        Ligand("ACT", file=tmp_path / "act.mol2", charge=0).molecule()


def test_run_file_tables_become_ligands(tmp_path):
    (tmp_path / "ben.sdf").write_text("\n".join(SDF) + "\n")
    text = '[system]\npdb = "x.pdb"\nmutate = ["TSA -> CHA"]\n[system.ligand.BEN]\nfile = "ben.sdf"\n'
    (tmp_path / "run.toml").write_text(text + 'charge = 1\n[system.ligand.CHA]\nsmiles = "CO"\n')
    config = load_config(tmp_path / "run.toml", needs=("system.pdb",))
    assert config.system.mutate == ("TSA -> CHA",)
    assert config.system.ligand == {
        "BEN": {"file": str(tmp_path / "ben.sdf"), "charge": 1},
        "CHA": {"smiles": "CO"},
    }
    for wrong, word in (
        ("chrge = 1", "charge"),
        ('charge = "1"', "a whole number"),
        ('charges = "resp"', "am1bcc"),
    ):
        (tmp_path / "run.toml").write_text(text + wrong + "\n")
        with pytest.raises(ConfigError, match=word):
            load_config(tmp_path / "run.toml", needs=("system.pdb",))


def test_absent_ligands_and_unknown_targets_are_refused(tmp_path):
    path = write(tmp_path / "a.pdb", pdb_lines(residue_of(LACTATE), "LAC"))
    with pytest.raises(StructureError, match=r"a residue BEN in the structure.*LAC"):
        build_system(path, ligands=[Ligand("LAC", LACTATE), Ligand("BEN", BENZAMIDINIUM)], solvate=False)
    with pytest.raises(ConfigError, match=r"a ligand CHA that LAC is turned into.*system.ligand.CHA"):
        build_system(path, mutate=["LAC -> CHA"], solvate=False)
    with pytest.raises(ConfigError, match=r'mutate = \["TSA -> CHA"\]'):
        build_system(path, mutate=["LAC CHA"], solvate=False)
    with pytest.raises(ConfigError, match="neither"):
        build_system(solvate=False)
    with pytest.raises(ConfigError, match=r"every stereocentre.*none at C2"):
        build_system(smiles="CC(O)C(=O)[O-]", solvate=False)


# ---- parameters ----


def test_without_ambertools_the_message_says_what_to_install(no_programs):
    with pytest.raises(MissingPackageError, match=r"no program antechamber.*pip install"):
        gaff_parameters(canonical(molecule_from_smiles(LACTATE)))


def test_elements_and_guessed_parameters_are_refused(monkeypatch):
    with pytest.raises(StructureError, match=r"elements of GAFF.*B in"):
        gaff_parameters(canonical(molecule_from_smiles("OB(O)c1ccccc1")))

    def guessing(program, arguments, folder, product, what):
        (folder / product).write_text("c3-xx 0.0 0.0  ATTN, need revision\n")

    monkeypatch.setattr(ligand_parameters, "run_program", guessing)
    monkeypatch.setattr(ligand_parameters, "find_programs", lambda: {n: n for n in ambertools._PROGRAMS})
    with pytest.raises(StructureError, match=r"none similar enough: c3-xx 0.0 0.0  ATTN"):
        gaff_parameters(canonical(molecule_from_smiles("CO")))


def test_failing_or_hanging_ambertools_programs_are_reported_and_killed(tmp_path, monkeypatch):
    script = tmp_path / "antechamber"
    script.write_text(
        "#!/bin/sh\nprintf '\\033[31mbad input\\033[0m\\n'\nsleep $1 & echo $! > child\nwait\nexit 3\n"
    )
    script.chmod(0o755)
    arguments = (tmp_path, "typed.mol2", "CCO")
    with pytest.raises(
        StructureError, match=r"for CCO, but got antechamber failed \(exit status 3\): bad input\."
    ):
        ambertools.run_program(str(script), ["0"], *arguments)
    monkeypatch.setattr(ambertools, "_TIMEOUT", 3.0)
    with pytest.raises(StructureError, match=r"no end after 3\.0 s\): bad input\. Check charge"):
        ambertools.run_program(str(script), ["60"], *arguments)
    state = Path(f"/proc/{int((tmp_path / 'child').read_text())}/stat")
    for _ in range(3000):
        if not state.exists() or state.read_text(encoding="utf-8").split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the program's own child is still running")


def test_without_rdkit_files_still_work_by_name_and_say_what_was_not_compared(tmp_path, monkeypatch):
    template = molecules_of_template(ROOT / "forcefields/chorismate.xml")["CHA"]
    residue = residue_of(CHORISMATE)
    placed = place(template, residue)
    names = dict(zip(placed.origin, (atom.GetProp("name") for atom in template.GetAtoms()), strict=False))
    residue.names[:] = [names[index] for index in range(16)]
    path = write(tmp_path / "a.pdb", pdb_lines(residue, "CHA"))
    monkeypatch.setitem(sys.modules, "rdkit", None)
    built = build_system(path, ligands=["chorismate.xml"], solvate=False)
    assert built.n_atoms == 24
    assert "chorismate.xml: stereo not compared, RDKit is not installed" in built.provenance["decisions"]
    with pytest.raises(MissingPackageError, match="no package rdkit"):
        build_system(path, ligands=[Ligand("CHA", CHORISMATE)], solvate=False)


@needs_ambertools()
def test_the_verb_writes_a_file_and_refuses_to_replace_it(tmp_path, capsys):
    arguments = [
        "ligand",
        "CC(=O)[O-]",
        "--name",
        "ACT",
        "--out",
        str(tmp_path / "act.xml"),
        "--charge",
        "-1",
    ]
    assert cli.main(arguments) == 0
    assert 'ligands = ["act.xml"]' in capsys.readouterr().out
    assert list(molecules_of_template(tmp_path / "act.xml")) == ["ACT"]
    assert cli.main(arguments) == 2
    assert "which exists" in capsys.readouterr().err
    assert cli.main([*arguments[:-1], "0", "--overwrite"]) == 2
    assert "net charge +0 e" in capsys.readouterr().err


def test_a_proton_that_moved_in_the_am1_geometry_is_refused():
    molecule = Chem.AddHs(Chem.MolFromSmiles("[NH3+]C"))
    positions = np.array([[0, 0, 0], [1.5, 0, 0], *([2.5, 0, 0.1 * i] for i in range(6))], dtype=float)
    rows = [
        f"ATOM  {i:5d}  X   MOL     1    {x:8.3f}{y:8.3f}{z:8.3f}" for i, (x, y, z) in enumerate(positions)
    ]
    with pytest.raises(StructureError, match="a proton that left its N for a C"):
        ligand_parameters._check_same_molecule(molecule, "\n".join(rows), "methylammonium")


def test_charges_are_moved_evenly_to_the_whole_number():
    charges, shift = whole_charges(np.array([0.4, 0.3, 0.299]), 1)
    assert sum(charges) == pytest.approx(1.0, abs=1e-7) and shift == pytest.approx(0.001 / 3)
    with pytest.raises(StructureError, match=r"\+2 e, but got \+1\.0000 e"):
        whole_charges(np.array([0.5, 0.5]), 2)


@pytest.mark.parametrize("name", ["chorismate", "prephenate"])
def test_shipped_files_say_what_they_are(name):
    path = ROOT / "forcefields" / f"{name}.xml"
    smiles = {"chorismate": CHORISMATE, "prephenate": PREPHENATE}[name]
    residue, molecule = next(iter(molecules_of_template(path).items()))
    assert residue == {"chorismate": "CHA", "prephenate": "PRE"}[name]
    assert plain_smiles(molecule) == Chem.CanonSmiles(smiles)
    atoms = ElementTree.parse(path).getroot().findall("Residues/Residue/Atom")
    charges = {atom.get("name"): float(atom.get("charge")) for atom in atoms}
    assert sum(charges.values()) == pytest.approx(-2.0, abs=1e-6)
    assert charges["O1"] == charges["O2"] and charges["O3"] == charges["O4"]


def test_damaged_molecule_line_is_refused(tmp_path):
    text = (ROOT / "forcefields/chorismate.xml").read_text()
    (tmp_path / "a.xml").write_text(
        text.replace('<Atom name="C9"', '<Atom name="C9"', 1).replace("[H:24]", "[H:23]")
    )
    with pytest.raises(ConfigError, match="one mapped atom per atom"):
        plan_ligands([tmp_path / "a.xml"])


def test_shipped_parameters_are_used_without_ambertools(no_programs):
    built = build_system(smiles=CHORISMATE, solvate=False)
    assert "parameters of the same molecule in chorismate.xml" in "\n".join(built.provenance["decisions"])
    assert built.provenance["net_charge"] == -2
    # The mirror image is another molecule, for which nothing is known.
    with pytest.raises(MissingPackageError):
        build_system(smiles=CHORISMATE.replace("@@", "@"), solvate=False)


def test_xml_with_its_molecule_refuses_the_mirror_image_that_openmm_accepts(tmp_path):
    residue = residue_of(CHORISMATE, hydrogens="all")
    write(tmp_path / "right.pdb", pdb_lines(residue, "CHA"))
    mirrored = ResidueAtoms(residue.label, residue.names, residue.numbers, residue.positions * [-1, 1, 1])
    write(tmp_path / "left.pdb", pdb_lines(mirrored, "CHA"))
    built = build_system(tmp_path / "right.pdb", ligands=["chorismate.xml"], solvate=False)
    assert built.n_atoms == 24
    with pytest.raises(StructureError, match=r"is S in the coordinates, R in the SMILES"):
        build_system(tmp_path / "left.pdb", ligands=["chorismate.xml"], solvate=False)
    # Negative control: a file that does not say which molecule it is cannot be compared.
    text = (ROOT / "forcefields/chorismate.xml").read_text()
    start = text.index("<Molecule")
    (tmp_path / "silent.xml").write_text(text[:start] + text[text.index("/>", start) + 2 :])
    lines = [*(tmp_path / "left.pdb").read_text().splitlines()[:-1], *_conect(mirrored)]
    write(tmp_path / "bonded.pdb", lines)
    assert (
        build_system(tmp_path / "bonded.pdb", ligands=[tmp_path / "silent.xml"], solvate=False).n_atoms == 24
    )


def _conect(residue: ResidueAtoms) -> list[str]:
    squared = ((residue.positions[:, None] - residue.positions[None]) ** 2).sum(-1)
    lines = []
    for i, j in itertools.combinations(range(len(residue.numbers)), 2):
        limit = 0.125 if 1 in (residue.numbers[i], residue.numbers[j]) else 0.17
        if squared[i, j] < limit**2 and not residue.numbers[i] == residue.numbers[j] == 1:
            lines.append(f"CONECT{i + 1:5d}{j + 1:5d}")
    return lines


@needs_ambertools()
def test_ligand_parameters_are_reproducible_and_cached(tmp_path, monkeypatch):
    smiles = canonical(molecule_from_smiles("CC(=O)[O-]"))
    first = gaff_parameters(smiles)
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "other"))
    told: list[str] = []
    assert gaff_parameters(smiles, progress=told.append) == first and told == ["charges"]
    monkeypatch.setattr(ligand_parameters, "find_programs", lambda: pytest.fail("AmberTools was asked for"))
    assert gaff_parameters(smiles) == first
    for path in (tmp_path / "other/ligands").iterdir():
        path.write_text("{")
    with pytest.raises(pytest.fail.Exception):
        gaff_parameters(smiles)


@needs_ambertools()
def test_template_is_written_from_any_order_of_the_atoms():
    one = parametrise_ligand(Ligand("ACT", "CC(=O)[O-]"))
    other = parametrise_ligand(Ligand("ACT", "[O-]C(=O)C"))
    charges = [
        sorted(a.get("charge") for a in ElementTree.fromstring(xml).iterfind("Residues/Residue/Atom"))
        for xml in (one, other)
    ]
    assert charges[0] == charges[1] and len(charges[0]) == 7


@needs_ambertools()
def test_charges_of_a_mol2_file_are_kept_with_gaff_types(tmp_path):
    (tmp_path / "act.mol2").write_text(ACETATE_MOL2)
    xml = parametrise_ligand(Ligand("ACT", file=tmp_path / "act.mol2", charges="file"))
    atoms = ElementTree.fromstring(xml).findall("Residues/Residue/Atom")
    charges = {atom.get("name"): float(atom.get("charge")) for atom in atoms}
    assert sum(charges.values()) == pytest.approx(-1.0, abs=1e-6)
    assert charges["C"] == pytest.approx(0.9, abs=1e-8) and charges["H1"] == charges["H2"] == charges["H3"]
    assert [atom.get("type") for atom in atoms][:2] == ["ACT-CH3", "ACT-C"]
