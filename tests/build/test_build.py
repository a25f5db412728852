"""Building: what is refused and in which words, what is mended and what is recorded."""

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.build.surroundings.solvent import BOX_SHAPES, bounding_radius, widths
from mlmm.errors import ConfigError, StructureError

ROOT = Path(__file__).resolve().parents[2]
DIPEPTIDE = (ROOT / "systems/alanine_dipeptide/input.pdb").read_text().splitlines()
LYSOZYME = (ROOT / "systems/lysozyme_xylene/input.pdb").read_text().splitlines()
#: Heavy atoms of the first eight residues of lysozyme, MET ASN ILE PHE GLU MET LEU ARG.
PEPTIDE = [line for line in LYSOZYME if line.startswith("ATOM") and int(line[22:26]) <= 8 and line[77] != "H"]
XYLENE = [line for line in LYSOZYME if line[17:20] == "TMP"]


def vacuum(path, **options):
    return build_system(path, solvate=False, **options)


def write(folder: Path, lines, name="bad.pdb") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def edited(lines, number, start, text):
    """Lines with other text from a column (counted from 1) of one line (counted from 1)."""
    line = lines[number - 1]
    return [*lines[: number - 1], line[: start - 1] + text + line[start - 1 + len(text) :], *lines[number:]]


def without(lines, residue, *names):
    return [
        line
        for line in lines
        if not (line[22:26].strip() == str(residue) and (not names or line[12:16].strip() in names))
    ]


# ---- files that are refused: (lines, words the message must hold) ----

BAD_TEXT = {
    "empty": ([""], ["bad.pdb, which is empty", "again"]),
    "no_atoms": (["HEADER    NOTHING", "END"], ["ATOM or HETATM records", "bad.pdb", "Give a PDB file"]),
    "free_format": (
        ["ATOM 1 N ALA A 1 1.0 2.0 3.0 1.0 0.0 N"],
        ["fixed columns", "line 1", "PDBFile.writeFile"],
    ),
    "tabs": (["ATOM\t1\tN\tALA\tA\t1\t1.0\t2.0\t3.0"], ["fixed columns", "line 1", "PDBFile.writeFile"]),
    "serial_shifts_columns": (
        [DIPEPTIDE[2], "ATOM  100000  CH3 ACE A   1       2.000   2.090   0.000  1.00  0.00           C"],
        ["fixed columns", "line 2"],
    ),
    "overflow": (
        edited(DIPEPTIDE, 5, 31, "********"),
        ["********", "line 5", "Move the molecule to the origin"],
    ),
    "letters": (edited(DIPEPTIDE, 5, 31, "   a.bcd"), ["a.bcd", "line 5", "Correct the line"]),
    "nan": (edited(DIPEPTIDE, 6, 31, "     nan"), ["finite", "nan", "line 6", "delete the atom"]),
    "infinite": (edited(DIPEPTIDE, 6, 39, "     inf"), ["finite", "inf", "line 6"]),
    "truncated": ([*DIPEPTIDE[:9], DIPEPTIDE[9][:40]], ["54 columns", "line 10", "truncated"]),
    "duplicate": (
        [*DIPEPTIDE[:4], *DIPEPTIDE[3:]],
        ["CH3 of ACE 1 of chain A", "lines 4 and 5", "Delete one"],
    ),
    "two_models": (
        ["MODEL        1", *DIPEPTIDE[2:-1], "ENDMDL", "MODEL        2", *DIPEPTIDE[2:-1], "ENDMDL"],
        ["one model", "2 in bad.pdb", "keep the lines of one"],
    ),
    "frames_without_model": (
        [*DIPEPTIDE, *DIPEPTIDE],
        ["one model", "after the END in line 26", "Keep one frame"],
    ),
    "bad_cell": (["CRYST1   10.000   ab.000   10.000", *DIPEPTIDE], ["CRYST1", "line 1", "delete the line"]),
    "clash": (
        edited(DIPEPTIDE, 8, 31, DIPEPTIDE[6][30:54]),
        ["0.05 nm", "C of ACE 1", "O of ACE 1", "Delete one"],
    ),
    "unknown_residue": (
        [*DIPEPTIDE[:-1], "HETATM   90  C1  LIG B  77      20.000  20.000  20.000  1.00  0.00           C"],
        ["LIG 77 of chain B", "Write [system.ligand.LIG] with smiles", 'remove = ["LIG"]'],
    ),
    "water_only": (
        ["HETATM    1  O   HOH A   1       1.000   1.000   1.000  1.00  0.00           O"],
        ["only water", "holds the solute"],
    ),
    "gap": (without(PEPTIDE, 4), ["ILE 3 of chain A", "GLU 5 of chain A", "TER line"]),
    "gap_in_sequence": (
        ["SEQRES   1 A    8  MET ASN ILE PHE GLU MET LEU ARG", *without(PEPTIDE, 4)],
        ["PHE between ILE 3 of chain A and GLU 5 of chain A", "model the missing residues"],
    ),
    "trace": (
        [line for line in PEPTIDE if line[12:16] == " CA "],
        ["half of the heavy atoms", "chain A", "Rebuild"],
    ),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_text_is_refused_with_place_and_next_step(tmp_path, case):
    lines, words = BAD_TEXT[case]
    with pytest.raises(StructureError) as caught:
        vacuum(write(tmp_path, lines))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"ATOM", mtime=0)[:-3], ["gzip", "cannot be unpacked", "Download it again"]),
        (bytes(range(256)) * 10, ["no text", "structure file itself"]),
        (b"data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n", ["bad.pdb"]),
        (b"data_x\n_cell.length_a 1.0\n", ["_atom_site", "bad.pdb", "coordinates"]),
    ],
)
def test_other_file_formats_are_named(tmp_path, content, words):
    path = tmp_path / "bad.pdb"
    path.write_bytes(content)
    with pytest.raises(StructureError) as caught:
        vacuum(path)
    for word in words:
        assert word in str(caught.value)


def test_missing_file_and_directory_list_what_is_there(tmp_path):
    write(tmp_path, DIPEPTIDE, "good.pdb")
    with pytest.raises(StructureError, match=r"no file at .*none\.pdb.*Check the path.*good\.pdb"):
        vacuum(tmp_path / "none.pdb")
    with pytest.raises(StructureError, match=r"the directory .*Give a file in it.*good\.pdb"):
        vacuum(tmp_path)


def test_openmm_template_errors_name_the_residue(tmp_path):
    # An oxygen that belongs to nothing: no template has it.
    extra = "ATOM     90  OX  ALA A   2       2.900   6.900   1.000  1.00  0.00           O"
    lines = [*DIPEPTIDE[:10], extra, *DIPEPTIDE[10:]]
    with pytest.raises(
        StructureError, match=r"ALA 2 of chain A while adding hydrogens.*Compare ALA 2"
    ) as caught:
        vacuum(write(tmp_path, lines))
    assert "wiki" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forcefield": "amber99"}, ["amber14", "amber99"]),
        ({"forcefield": ["nothing.xml"]}, ["nothing.xml", "Correct the file names"]),
        ({"water": "tip7p"}, ["tip3p", "tip7p"]),
        ({"water": "opc", "forcefield": "charmm36m"}, ["charmm36m: tip3p, spce, tip4pew", "'opc'"]),
        ({"constraints": "all"}, ["none | hbonds", "'all'", 'Write constraints = "hbonds"']),
        ({"box_shape": "sphere"}, ["cube | dodecahedron | octahedron", "'sphere'"]),
        ({"padding": "1.0"}, ["padding", "without a unit"]),
        ({"padding": "-1 nm"}, ["padding of 0 nm or more"]),
        ({"nonbonded_cutoff": "0 nm"}, ["nonbonded_cutoff above 0 nm"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"ph": 70}, ["ph between 0 and 14", "70"]),
        ({"ligands": ["nowhere.xml"]}, ["nowhere.xml", "p-xylene.xml", "Check the path"]),
        ({"ligands": "p-xylene.xml"}, ["ligands as a list", 'ligands = ["p-xylene.xml"]']),
    ],
)
def test_settings_are_checked_at_entry(options, words):
    with pytest.raises(ConfigError) as caught:
        build_system(ROOT / "systems/alanine_dipeptide/input.pdb", **options)
    for word in words:
        assert word in str(caught.value)


def test_ligand_file_without_residue_is_refused(tmp_path):
    for text, word in (("<ForceField/>", "Residue name"), ("no xml", "syntax error")):
        (tmp_path / "ligand.xml").write_text(text)
        with pytest.raises(ConfigError, match=word):
            vacuum(write(tmp_path, DIPEPTIDE), ligands=[tmp_path / "ligand.xml"])


def test_box_too_small_says_which_padding_fits():
    with pytest.raises(
        StructureError, match=r"twice the cutoff.*padding 0\.2 nm.*Write padding = \"0\.\d\d nm\""
    ):
        build_system(ROOT / "systems/alanine_dipeptide/input.pdb", padding="0.2 nm")


def test_fractional_charge_is_refused(tmp_path):
    text = (ROOT / "forcefields/p-xylene.xml").read_text().replace('charge="-0.081912"', 'charge="-0.071912"')
    (tmp_path / "ligand.xml").write_text(text)
    with pytest.raises(StructureError, match=r"whole number.*0\.020000 e.*Correct the charges"):
        vacuum(write(tmp_path, XYLENE), ligands=[tmp_path / "ligand.xml"])


# ---- files that are mended, and what is recorded ----


def decisions(built) -> str:
    return "\n".join(built.provenance["decisions"])


def test_missing_heavy_atoms_and_terminus_are_added_and_recorded(tmp_path):
    built = vacuum(write(tmp_path, without(PEPTIDE, 4, "CZ", "CE2")))
    assert "PHE 4 of chain A: missing CZ, CE2 added" in decisions(built)
    assert "ARG 8 of chain A: terminal OXT added" in decisions(built)
    assert built.provenance["net_charge"] == 0  # N and C terminus, GLU and ARG


def test_unresolved_ends_are_left_out_and_recorded(tmp_path):
    sequence = "SEQRES   1 A   10  GLY MET ASN ILE PHE GLU MET LEU ARG LYS"
    built = vacuum(write(tmp_path, [sequence, *PEPTIDE]))
    assert "at the start of chain A (GLY) not modelled" in decisions(built)
    assert "at the end of chain A (LYS) not modelled" in decisions(built)
    assert built.topology.getNumResidues() == 8


def test_selenomethionine_becomes_methionine(tmp_path):
    lines = [
        line.replace(" SD  MET A   6", "SE   MSE A   6").replace("MET A   6", "MSE A   6") for line in PEPTIDE
    ]
    built = vacuum(write(tmp_path, lines))
    assert "MSE 6 of chain A replaced by MET" in decisions(built)
    assert "MET 6 of chain A: missing SD added" in decisions(built)


def test_location_with_highest_summed_occupancy_is_taken(tmp_path):
    lines = []
    for line in PEPTIDE:
        if line[22:26].strip() == "4" and line[12:16].strip() in {"CZ", "CE1", "CE2"}:
            x = float(line[30:38])
            lines.append(line[:16] + "A" + line[17:54] + "  0.30" + line[60:])
            lines.append(
                line[:16] + "B" + line[17:30] + f"{x + 0.1:8.3f}" + line[38:54] + "  0.70" + line[60:]
            )
        else:
            lines.append(line)
    built = vacuum(write(tmp_path, lines))
    assert "PHE 4 of chain A: alternate location B taken" in decisions(built)
    atom = next(a for a in built.topology.atoms() if a.residue.id == "4" and a.name == "CZ")
    original = next(line for line in PEPTIDE if line[22:26].strip() == "4" and line[12:16].strip() == "CZ")
    assert built.positions[atom.index, 0] == pytest.approx(0.1 * (float(original[30:38]) + 0.1), abs=1e-9)


@pytest.mark.parametrize(("name", "charge"), [("HID", 0), ("HIE", 0), ("HIP", 1), ("HIS", 0)])
def test_histidine_name_fixes_its_protonation(tmp_path, name, charge):
    lines = [
        line.replace("HIS A  31", f"{name} A  31")
        for line in LYSOZYME
        if line.startswith("ATOM") and line[22:26].strip() in {"30", "31", "32"} and line[77] != "H"
    ]
    built = vacuum(write(tmp_path, lines))
    assert built.provenance["net_charge"] == charge
    if name != "HIS":
        assert f"HIS 31 of chain A is {name}, as named in the file" in decisions(built)


def test_ligand_without_bonds_or_hydrogens_is_completed_from_its_template(tmp_path):
    heavy = [line for line in XYLENE if line.startswith("ATOM") and line[77] != "H"]
    built = vacuum(write(tmp_path, [*PEPTIDE, *heavy]), ligands=["p-xylene.xml"])
    assert "TMP 163 of chain A: 10 hydrogens added from its template" in decisions(built)
    # Without TER the ligand would count as the end of the protein, whose OXT would then be forgotten.
    assert "ARG 8 of chain A: terminal OXT added" in decisions(built)
    ligand = [residue for residue in built.topology.residues() if residue.name == "TMP"]
    assert len(ligand) == 1 and len(list(ligand[0].bonds())) == 18 and ligand[0].chain.index == 1


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        ("CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1", "place-holder"),
        ("CRYST1   40.000   40.000   40.000  90.00  90.00  90.00 P 21 21 21    4", "P 21 21 21"),
    ],
)
def test_cells_that_are_no_periodic_box_are_ignored_and_recorded(tmp_path, cell, word):
    built = vacuum(write(tmp_path, [cell, *DIPEPTIDE]))
    assert not built.periodic and built.box_vectors is None
    assert word in decisions(built)


def test_cell_of_a_periodic_file_is_kept(tmp_path):
    cell = "CRYST1   40.000   40.000   40.000  90.00  90.00 120.00 P 1           1"
    built = vacuum(write(tmp_path, [cell, *DIPEPTIDE]), nonbonded_cutoff="0.9 nm")
    assert built.periodic
    np.testing.assert_allclose(np.linalg.norm(built.box_vectors, axis=1), 4.0)
    with pytest.raises(StructureError, match=r"twice the cutoff.*Write nonbonded_cutoff"):
        vacuum(tmp_path / "bad.pdb", nonbonded_cutoff="1.9 nm")


def test_byte_order_mark_and_foreign_remarks_are_harmless(tmp_path):
    path = tmp_path / "good.pdb"
    path.write_bytes(b"\xef\xbb\xbf" + "REMARK  Å\n".encode() + "\r\n".join(DIPEPTIDE).encode())
    assert vacuum(path).n_atoms == 22


def test_mmcif_gives_the_same_molecule(tmp_path):
    model = app.PDBFile(str(write(tmp_path, DIPEPTIDE)))
    with open(tmp_path / "good.cif", "w", encoding="utf-8") as file:
        app.PDBxFile.writeFile(model.topology, model.positions, file)
    built = vacuum(tmp_path / "good.cif")
    np.testing.assert_allclose(built.positions, vacuum(tmp_path / "bad.pdb").positions, atol=1e-6)


def test_stages_are_told_and_random_state_is_given_back():
    stages: list[str] = []
    random.seed(42)
    expected = random.Random(42).random()
    vacuum(ROOT / "systems/alanine_dipeptide/input.pdb", progress=stages.append)
    assert stages == ["read", "repair", "hydrogens", "parametrise", "check"]
    assert random.random() == expected


def test_box_shapes_keep_images_at_unit_distance():
    counts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
    counts = counts[(counts != 0).any(axis=1)]
    for name, volume in (("cube", 1.0), ("dodecahedron", np.sqrt(0.5)), ("octahedron", 4 * np.sqrt(3) / 9)):
        shape = BOX_SHAPES[name]
        assert np.linalg.norm(counts @ shape, axis=1).min() == pytest.approx(1.0)
        assert np.linalg.det(shape) == pytest.approx(volume)
    np.testing.assert_allclose(widths(np.diag([2.0, 3.0, 4.0])), [2.0, 3.0, 4.0])


def test_bounding_radius_of_an_octahedron_is_its_half_diagonal():
    corners = np.concatenate([np.eye(3), -np.eye(3)]) + 5.0
    assert 1.0 <= bounding_radius(corners) < 1.002
