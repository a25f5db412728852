"""Names, bonds and metals as programs write them, with what a careful person expects of each."""

from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit
from pdbfixer import PDBFixer

from mlmm.build import build_system
from mlmm.build.build_log import Decision
from mlmm.build.described import settle_ions
from mlmm.build.files.atoms import VARIANTS
from mlmm.build.files.reading import read_structure
from mlmm.build.ionisable import group_charge
from mlmm.build.joints import bond_by_distance, joints
from mlmm.build.parametrise import load_force_field
from mlmm.build.protons.metals import metal_states
from mlmm.build.templates import TemplateGraphs, bonded_atoms
from mlmm.errors import ConfigError, StructureError

CASES = Path(__file__).parent / "cases"

AMBER = ["amber14/protein.ff14SB.xml", "amber14/tip3p.xml"]


@pytest.fixture(scope="module")
def force_field():
    return load_force_field(AMBER)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Heavy atoms of standard residues, from PDBFixer: name -> [(atom, element, place in angstrom)]."""
    path = tmp_path_factory.mktemp("shapes") / "one.pdb"
    path.write_text("ATOM      1  CA  GLY A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n")
    found = {}
    for name, template in PDBFixer(str(path)).templates.items():
        places = template.positions.value_in_unit(unit.angstrom)
        found[name] = [
            (atom.name, atom.element.symbol, place)
            for atom, place in zip(template.topology.atoms(), places, strict=True)
            if atom.element is not app.element.hydrogen and atom.name not in ("OXT", "P", "OP1", "OP2", "OP3")
        ]
    return found


def line(atom, residue, number, element, place, blank=False, chain="A"):
    x, y, z = place
    symbol = "" if blank else element.upper()
    column = f" {atom:<3s}" if len(atom) < 4 and len(element) < 2 else f"{atom:<4s}"
    return (
        f"ATOM  {number:5d} {column} {residue:<4s}{chain}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"  1.00  0.00          {symbol:>2s}"
    )


def residue_lines(shape, name, number=1, shift=0.0, rename=None, without=()):
    return [
        line((rename or {}).get(atom, atom), name, number, element, (x + shift, y, z))
        for atom, element, (x, y, z) in shape
        if atom not in without
    ]


def read(folder, lines):
    path = folder / "case.pdb"
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return read_structure(path)


# ---- residues: name in the file, shape, name that is read, protonation that is read ----

RESIDUES = [
    *[(name, "HIS", "HID") for name in ("HID", "HSD", "HISD", "HISA", "NHID")],
    *[(name, "HIS", "HIE") for name in ("HIE", "HSE", "HISE", "HISB", "CHIE")],
    *[(name, "HIS", "HIP") for name in ("HIP", "HSP", "HISH", "HISP")],
    *[(name, "LYS", "LYN") for name in ("LYN", "LSN", "LYSN")],
    *[(name, "ASP", "ASH") for name in ("ASH", "ASPP", "ASPH")],
    *[(name, "GLU", "GLH") for name in ("GLH", "GLUP", "GLUH")],
    *[(name, "CYS", "CYM") for name in ("CYM", "CYSD")],
    *[(name, parent, None) for name, parent in (("NGLY", "GLY"), ("CALA", "ALA"), ("LYSH", "LYS"))],
    *[(name, parent, None) for name, parent in (("CYSH", "CYS"), ("NTRP", "TRP"), ("CARG", "ARG"))],
]


@pytest.mark.parametrize(("written", "shape", "state"), RESIDUES, ids=[row[0] for row in RESIDUES])
def test_protein_residues_of_other_programs(tmp_path, shapes, written, shape, state):
    structure = read(tmp_path, residue_lines(shapes[shape], written))
    assert list(structure.protonation.values()) == ([state] if state else [])
    name = structure.atoms[0].residue_name
    assert VARIANTS.get(name, name) in (state, shape)
    assert len(structure.atoms) == len(shapes[shape])


NUCLEOTIDES = [
    *[(name, "DA", "DA") for name in ("DA", "DA5", "DA3", "DAN", "ADE", "A")],
    *[(name, "A", "A") for name in ("A", "ADE", "RA", "RA5", "RA3", "A5")],
    *[(name, "U", "U") for name in ("U", "URA", "RU3")],
    *[(name, "DT", "DT") for name in ("DT", "THY", "T", "DT5")],
]


@pytest.mark.parametrize(("written", "shape", "expected"), NUCLEOTIDES)
def test_nucleotides_are_told_apart_by_their_sugar(tmp_path, shapes, written, shape, expected):
    structure = read(tmp_path, residue_lines(shapes[shape], written))
    assert {atom.residue_name for atom in structure.atoms} == {expected}


IONS = [
    *[(name, "Na", 1) for name in ("SOD", "NA+", "NA", "Na+")],
    *[(name, "Cl", -1) for name in ("CLA", "CL-", "CL", "Cl-")],
    *[(name, "K", 1) for name in ("POT", "K+", "K")],
    *[(name, "Ca", 2) for name in ("CAL", "CA2+", "CA")],
    *[(name, "Zn", 2) for name in ("ZN", "ZN2", "ZN2+", "Zn2+")],
    *[(name, "Mg", 2) for name in ("MG", "MG2", "MG2+")],
    *[("CES", "Cs", 1), ("LIT", "Li", 1), ("RUB", "Rb", 1), ("BAR", "Ba", 2), ("CAD", "Cd", 2)],
    *[("FE2", "Fe", 2), ("FE", "Fe", 3), ("FE3", "Fe", 3), ("MN", "Mn", 2), ("IOD", "I", -1)],
]


@pytest.mark.parametrize("blank", [False, True], ids=["element", "no element"])
@pytest.mark.parametrize(("written", "symbol", "charge"), IONS, ids=[row[0] for row in IONS])
def test_ions_get_the_template_of_their_element_and_charge(
    tmp_path, shapes, force_field, written, symbol, charge, blank
):
    """POT is no phosphorus and SOD no sulfur, whether or not the file gives the element."""
    ion = line(written, written, 2, symbol, (20.0, 0.0, 0.0), blank)
    structure = read(tmp_path, [*residue_lines(shapes["GLY"], "GLY"), "TER", ion])
    atom = structure.atoms[-1]
    assert (atom.element, atom.charge) == (symbol.upper(), charge)
    topology = app.Topology()
    residue = topology.addResidue(atom.residue_name, topology.addChain("A"), "2")
    topology.addAtom(atom.name, app.element.get_by_symbol(symbol), residue, formalCharge=atom.charge)
    assert all(isinstance(entry, Decision) for entry in settle_ions(topology, force_field, set(), "case"))
    assert TemplateGraphs(force_field).matches(residue, bonded_atoms(topology))
    assert residue.name in force_field._templates


def test_an_ion_with_a_charge_that_the_force_field_lacks_is_a_question(force_field):
    topology = app.Topology()
    residue = topology.addResidue("CU1", topology.addChain("A"), "2")
    topology.addAtom("CU", app.element.copper, residue, formalCharge=1)
    with pytest.raises(
        StructureError, match=r"an ion Cu .*it has CU \(\+2\).* CU1 2 of chain A with charge \+1"
    ):
        settle_ions(topology, force_field, set(), "case")


@pytest.mark.parametrize("written", ["HOH", "WAT", "SOL", "TIP3", "T3P", "SPCE", "OPC", "TIP4"])
def test_water_under_any_name(tmp_path, shapes, written):
    """A fourth site of another model is left out."""
    oxygen = [line("OH2", written, 2, "O", (20, 0, 0)), line("MW", written, 2, "", (20, 0, 0.15), True)]
    structure = read(tmp_path, [*residue_lines(shapes["GLY"], "GLY"), "TER", *oxygen])
    assert [(a.residue_name, a.element) for a in structure.atoms[-1:]] == [("HOH", "O")]


PARENTS = ("N", "N", "CA", "CB", "CB", "CB")
HYDROGENS = {
    "PDB": ("H2", "H3", "HA", "HB1", "HB2", "HB3"),
    "PDB 2": ("2H", "3H", "HA", "1HB", "2HB", "3HB"),
    "CHARMM": ("HT2", "HT3", "HA", "HB1", "HB2", "HB3"),
    "PyMOL": ("H02", "H03", "H04", "H05", "H06", "H07"),
    "Maestro": ("H12", "H13", "H14", "H15", "H16", "H17"),
    "mixed": ("H2", "HX", "HA", "HQ1", "HB2", "HQ3"),
}


@pytest.mark.parametrize("program", HYDROGENS)
def test_hydrogens_of_any_program_stay_where_they_are(tmp_path, shapes, program):
    """Alanine with two of three hydrogens on N: the build adds the third."""
    at = {atom: np.array([*place]) for atom, _, place in shapes["ALA"]}
    lines = residue_lines(shapes["ALA"], "ALA")
    for number, (name, parent) in enumerate(zip(HYDROGENS[program], PARENTS, strict=True)):
        away = at[parent] - np.mean([*at.values()], axis=0)
        away /= np.linalg.norm(away)
        one = np.cross(away, [0.3, 0.5, 0.8])
        other = np.cross(away, one := one / np.linalg.norm(one))
        angle = 2 * np.pi * number / 3
        place = at[parent] + 0.4 * away + 0.95 * (np.cos(angle) * one + np.sin(angle) * other)
        lines.append(line(name, "ALA", 1, "H", place))
    structure = read(tmp_path, lines)
    table = app.PDBFile._atomNameReplacements["ALA"]
    names = {table.get(atom.name, atom.name) for atom in structure.atoms if atom.element == "H"}
    assert {"HA", "HB1", "HB2", "HB3"} <= names and len(names) == 6
    assert names <= {"H", "H2", "H3", "HA", "HB1", "HB2", "HB3"}


# ---- bonds ----


def two_residues(shapes, one, other, ends, distance):
    """Two residues with one atom of each at a distance, everything else far apart."""
    topology, places = app.Topology(), []
    chain = topology.addChain("A")
    for number, (name, end, sign) in enumerate(((one, ends[0], -1), (other, ends[1], 1)), start=1):
        residue = topology.addResidue(name, chain, str(2 * number))
        at = {atom: np.array([*place]) / 10 for atom, _, place in shapes[name]}
        middle = np.mean([*at.values()], axis=0)
        outwards = (at[end] - middle) / np.linalg.norm(at[end] - middle)
        turn = rotation(outwards, np.array([-sign, 0.0, 0.0]))
        for atom, element, _ in shapes[name]:
            topology.addAtom(atom, app.element.get_by_symbol(element), residue)
            places.append(turn @ (at[atom] - at[end]) + sign * np.array([distance / 2, 0, 0]))
    return topology, np.array(places)


def rotation(start, end):
    """The matrix that turns one unit vector into another."""
    axis, cosine = np.cross(start, end), float(start @ end)
    if cosine < -0.999999:
        return -np.eye(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


BONDS = [
    ("LYS", "ASP", ("NZ", "OD2"), 0.140, True),
    ("LYS", "GLU", ("NZ", "CD"), 0.133, True),
    ("CYS", "LYS", ("SG", "NZ"), 0.175, True),
    ("SER", "GLU", ("OG", "CD"), 0.137, True),
    ("TYR", "TYR", ("CE1", "CE1"), 0.149, True),
    ("HIS", "TYR", ("NE2", "CE2"), 0.142, True),
    ("CYS", "TYR", ("SG", "CE1"), 0.178, True),
    ("LYS", "ASP", ("NZ", "OD2"), 0.280, False),
    ("LYS", "ASP", ("NZ", "OD2"), 0.240, False),
    ("SER", "SER", ("OG", "OG"), 0.260, False),
    ("PHE", "LEU", ("CZ", "CD1"), 0.340, False),
    ("CYS", "MET", ("SG", "SD"), 0.340, False),
]


@pytest.mark.parametrize(("one", "other", "ends", "distance", "bonded"), BONDS)
def test_bonds_between_residues_by_distance(shapes, one, other, ends, distance, bonded):
    """Bonds, and as controls the shortest hydrogen bonds and contacts."""
    topology, positions = two_residues(shapes, one, other, ends, distance)
    sources = bond_by_distance(topology, positions, "case")
    found = [{joint.one.name, joint.other.name} for joint in joints(topology)]
    assert (set(ends) in found) is bonded
    assert len(sources) == len(found)


def test_a_water_on_an_atom_is_left_to_the_user(shapes):
    topology, positions = two_residues(shapes, "LYS", "ASP", ("NZ", "OD2"), 1.0)
    water = topology.addResidue("HOH", topology.addChain("W"), "301")
    topology.addAtom("O", app.element.oxygen, water)
    beside = positions[[atom.name for atom in topology.atoms()].index("NZ")] + [0, 0.14, 0]
    with pytest.raises(StructureError, match=r'HOH 301 of chain W .*remove = \["W:HOH301"\]'):
        bond_by_distance(topology, np.vstack([positions, beside]), "case")
    beside[2] += 0.5
    assert bond_by_distance(topology, np.vstack([positions, beside]), "case") == {}


# ---- charges of modified residues ----

#: Name, heavy atoms as SMILES (backbone N, CA, C, O first), charge of the side chain at pH 7.
SIDE_CHAINS = [
    ("SEP", "NC(C=O)COP(=O)(O)O", -2),
    ("PTR", "NC(C=O)Cc1ccc(OP(=O)(O)O)cc1", -2),
    ("TYS", "NC(C=O)Cc1ccc(OS(=O)(=O)O)cc1", -1),
    ("KCX", "NC(C=O)CCCCNC(=O)O", -1),
    ("ALY", "NC(C=O)CCCCNC(C)=O", 0),
    ("MLY", "NC(C=O)CCCCN(C)C", 1),
    ("M3L", "NC(C=O)CCCC[N+](C)(C)C", 1),
    ("CGU", "NC(C=O)CC(C(=O)O)C(=O)O", -2),
    ("OCS", "NC(C=O)CS(=O)(=O)O", -1),
    ("CSO", "NC(C=O)CSO", 0),
    ("MSE", "NC(C=O)CC[Se]C", 0),
    ("HYP", "N1C(C=O)CC(O)C1", 0),
    ("TRP", "NC(C=O)Cc1c[nH]c2ccccc12", 0),
    ("HIS", "NC(C=O)Cc1c[nH]cn1", 0),
    ("ARG", "NC(C=O)CCCNC(N)=N", 1),
]


@pytest.mark.parametrize(("name", "smiles", "charge"), SIDE_CHAINS, ids=[row[0] for row in SIDE_CHAINS])
def test_charge_of_side_chains_from_heavy_atoms(name, smiles, charge):
    chem = pytest.importorskip("rdkit.Chem")
    molecule = chem.MolFromSmiles(smiles)
    topology = app.Topology()
    residue = topology.addResidue(name, topology.addChain("A"), "1")
    backbone = dict(enumerate(("N", "CA", "C", "O")))
    elements = [app.Element.getByAtomicNumber(atom.GetAtomicNum()) for atom in molecule.GetAtoms()]
    atoms = [topology.addAtom(backbone.get(i, f"X{i}"), e, residue) for i, e in enumerate(elements)]
    for bond in molecule.GetBonds():
        topology.addBond(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()])
    assert group_charge(residue, bonded_atoms(topology), atoms) == charge


def phosphorylated():
    """The peptide of the cases with its serine as SEP: a phosphate in place of the hydroxyl's proton."""
    lines, at = [], {}
    for text in (CASES / "af.pdb").read_text().splitlines():
        if text.startswith("ATOM") and text[17:20] == "SER":
            at[text[12:16].strip()] = np.array([float(text[start : start + 8]) for start in (30, 38, 46)])
            lines.append(text.replace("SER", "SEP"))
            continue
        if at and text[22:26].strip() == "6" and not any(" P " in old for old in lines):
            away = (at["OG"] - at["CA"]) / np.linalg.norm(at["OG"] - at["CA"])
            side = np.cross(away, at["N"] - at["CA"])
            side /= np.linalg.norm(side)
            phosphorus = at["OG"] + 1.6 * away
            lines.append(line("P", "SEP", 5, "P", phosphorus))
            for number, way in enumerate((side, -side, np.cross(away, side)), start=1):
                lines.append(line(f"O{number}P", "SEP", 5, "O", phosphorus + 1.4 * (0.4 * away + way)))
        lines.append(text)
    return lines


def test_a_substitution_that_changes_the_charge_is_a_question_whose_advice_works(tmp_path):
    path = tmp_path / "sep.pdb"
    path.write_text("\n".join(phosphorylated()) + "\n")
    with pytest.raises(StructureError, match=r"SEP 5 of chain A, .*from -2 to 0 e") as caught:
        build_system(path, solvate=False)
    assert 'mutate = ["SEP -> SER"]' in caught.value.do
    built = build_system(path, solvate=False, mutate=["SEP -> SER"])
    assert [residue.name for residue in built.topology.residues()][4] == "SER"
    assert built.n_atoms == build_system(CASES / "af.pdb", solvate=False).n_atoms


@pytest.mark.slow
def test_a_phosphate_with_a_proton_of_the_force_field_is_a_warning(tmp_path):
    """CHARMM36m has the monoanion of phosphoserine under its name: no guess without a word."""
    path = tmp_path / "sep.pdb"
    path.write_text("\n".join(phosphorylated()) + "\n")
    built = build_system(path, solvate=False, forcefield="charmm36m")
    (entry,) = (e for e in built.provenance["log"] if e["kind"] == "modified residue")
    assert entry["warning"] and "SEP 5 of chain A kept" in entry["text"]
    assert "(SEP), with a charge of -1 e, where its groups have -2 e at pH 7" in entry["text"]
    native = build_system(CASES / "af.pdb", solvate=False).provenance["net_charge"]
    assert built.provenance["net_charge"] == native - 1
    # Control: a modified residue whose template has the charge of its groups is kept without a warning.
    plain = build_system(CASES / "hyp_h.pdb", solvate=False)
    (entry,) = (e for e in plain.provenance["log"] if e["kind"] == "modified residue")
    assert "kept" in entry["text"] and not entry["warning"]


def test_residues_are_mutated_by_chain_and_number():
    native = build_system(CASES / "af.pdb", solvate=False)
    built = build_system(CASES / "af.pdb", solvate=False, mutate=["A:LEU4 -> ALA", "A:SER5 -> LYS"])
    names = [residue.name for residue in built.topology.residues()]
    assert names == ["GLY", "ALA", "VAL", "ALA", "LYS", "GLU"]
    assert built.provenance["net_charge"] == native.provenance["net_charge"] + 1
    texts = [entry["text"] for entry in built.provenance["log"] if entry["kind"] == "mutation"]
    assert texts[0] == "LEU 4 of chain A turned into ALA, as asked for"
    with pytest.raises(ConfigError, match="A:LEU5"):
        build_system(CASES / "af.pdb", solvate=False, mutate=["A:LEU5 -> ALA"])


# ---- metals ----

METALS = [
    ("HIS", "ND1", "Zn", 0.205, "HIE"),
    ("HIS", "NE2", "Zn", 0.205, "HID"),
    ("HIS", "NE2", "Fe", 0.215, "HID"),
    ("CYS", "SG", "Zn", 0.233, "CYM"),
    ("CYS", "SG", "Cu", 0.225, "CYM"),
    ("HIS", "NE2", "Zn", 0.400, None),
    ("CYS", "SG", "Zn", 0.400, None),
    ("HIS", "NE2", "Na", 0.240, None),
]


@pytest.mark.parametrize(("name", "donor", "symbol", "distance", "state"), METALS)
def test_protonation_at_metals_by_the_atom_that_binds(
    shapes, force_field, name, donor, symbol, distance, state
):
    """Controls: the same metal further away, and sodium."""
    topology, positions = app.Topology(), []
    chain = topology.addChain("A")
    at = {}
    for number, residue_name in enumerate(("GLY", name, "GLY"), start=1):
        residue = topology.addResidue(residue_name, chain, str(number))
        for atom, element, place in shapes[residue_name]:
            topology.addAtom(atom, app.element.get_by_symbol(element), residue)
            positions.append(np.array([*place]) / 10 + [2.0 * number, 0, 0])
            at[number, atom] = positions[-1]
    topology.createStandardBonds()
    ion = topology.addResidue(symbol.upper(), topology.addChain("B"), "301")
    topology.addAtom(symbol.upper(), app.element.get_by_symbol(symbol), ion)
    middle = np.mean([place for (number, _), place in at.items() if number == 2], axis=0)
    outwards = (at[2, donor] - middle) / np.linalg.norm(at[2, donor] - middle)
    positions = np.array([*positions, at[2, donor] + distance * outwards])
    states, decisions = metal_states(topology, positions, force_field, {})
    assert states == ({1: state} if state else {})
    assert bool(decisions) is bool(state)
    if state:
        wrong = {"HIE": "HID", "HID": "HIE", "CYM": "CYS"}[state]
        states, decisions = metal_states(topology, positions, force_field, {1: wrong})
        assert not states and decisions[0].warning and f"stays {wrong}" in decisions[0].text
