"""Cuts: bridges by brute force, verdicts by textbook, groups of atoms that share one lambda."""

from __future__ import annotations

import gc
import itertools
import time

import numpy as np
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.errors import ConfigError
from mlmm.zones.bond_graph import bond_distances, bridges, components
from mlmm.zones.cut_bonds import classify_bonds, named_cuts, residue_groups, snap_groups

#: Bonds of side chains between two sp3 carbons, by residue.
SP3 = {
    "ALA": "CA-CB",
    "ARG": "CA-CB CB-CG CD-CG",
    "ASN": "CA-CB",
    "ASP": "CA-CB",
    "CYS": "CA-CB",
    "GLN": "CA-CB CB-CG",
    "GLU": "CA-CB CB-CG",
    "GLY": "",
    "HIS": "CA-CB",
    "ILE": "CA-CB CB-CG1 CB-CG2 CD1-CG1",
    "LEU": "CA-CB CB-CG CD1-CG CD2-CG",
    "LYS": "CA-CB CB-CG CD-CG CD-CE",
    "MET": "CA-CB CB-CG",
    "PHE": "CA-CB",
    "PRO": "",
    "SER": "CA-CB",
    "THR": "CA-CB CB-CG2",
    "TMP": "",
    "TRP": "CA-CB",
    "TYR": "CA-CB",
    "VAL": "CA-CB CB-CG1 CB-CG2",
}


def molecule(formula: str) -> app.Topology:
    """A topology from "C1 C2 H3 | 0-1 1-2": elements with any digits, bonds; "/" begins a residue."""
    atoms, bonds = formula.split("|")
    topology = app.Topology()
    chain = topology.addChain()
    residue, made = topology.addResidue("MOL", chain, "1"), []
    for name in atoms.split():
        if name == "/":
            residue = topology.addResidue("MOL", chain, str(int(residue.id) + 1))
            continue
        symbol = name.rstrip("0123456789")
        element = None if symbol == "EP" else app.Element.getBySymbol(symbol)
        made.append(topology.addAtom(name, element, residue))
    for bond in bonds.split():
        first, second = map(int, bond.split("-"))
        topology.addBond(made[first], made[second])
    return topology


def from_templates(*names: str, link: tuple[str, str], files: str, extra=()) -> app.Topology:
    """A chain of force-field residues; `link` are the atoms that join neighbours, `extra` other bonds."""
    templates = app.ForceField(files)._templates
    topology = app.Topology()
    chain, residues = topology.addChain(), []
    for number, name in enumerate(names, start=1):
        residue = topology.addResidue(name, chain, str(number))
        template = templates[name]
        atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in template.atoms]
        for first, second in template.bonds:
            topology.addBond(atoms[first], atoms[second])
        residues.append({atom.name: atom for atom in atoms})
    for before, after in itertools.pairwise(residues):
        topology.addBond(before[link[0]], after[link[1]])
    for (i, first), (j, second) in extra:
        topology.addBond(residues[i][first], residues[j][second])
    return topology


def peptide(*names: str, extra=()) -> app.Topology:
    return from_templates(*names, link=("C", "N"), files="amber14/protein.ff14SB.xml", extra=extra)


def labels(topology: app.Topology) -> list[str]:
    return [f"{atom.residue.name}{atom.residue.id}:{atom.name}" for atom in topology.atoms()]


def verdicts(topology: app.Topology) -> dict[str, str]:
    """Reasons by bond, atom names in alphabetical order."""
    names = [atom.name for atom in topology.atoms()]
    return {"-".join(sorted((names[c.first], names[c.second]))): c.reason for c in classify_bonds(topology)}


@pytest.fixture(scope="module")
def lysozyme(root) -> app.Topology:
    pdb = root / "systems/lysozyme_xylene/input.pdb"
    options = {"solvate": False, "constraints": "none", "rigid_water": False}
    return build_system(pdb, ligands=["p-xylene.xml"], **options).topology


def parts_without(n: int, bonds: list[tuple[int, int]]) -> int:
    """Number of connected parts, by flooding."""
    left, parts = set(range(n)), 0
    while left:
        parts, front = parts + 1, {left.pop()}
        while front:
            near = {b for bond in bonds for b in bond if front & set(bond)} & left
            left, front = left - near, near
    return parts


@pytest.mark.parametrize("seed", range(30))
def test_bridges_are_the_bonds_whose_removal_adds_a_part(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(2, 16))
    ends = generator.integers(0, n, (int(generator.integers(1, 22)), 2))
    bonds = [(int(a), int(b)) for a, b in ends if a != b]
    bonds += bonds[:1] if seed % 3 == 0 else []  # one bond twice
    whole = parts_without(n, bonds)
    expected = [parts_without(n, bonds[:i] + bonds[i + 1 :]) > whole for i in range(len(bonds))]
    pairs = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    assert bridges(n, pairs).tolist() == expected
    labels = components(n, pairs)
    assert len(set(labels.tolist())) == labels.max() + 1 == whole
    assert all(labels[a] == labels[b] for a, b in bonds)
    assert (np.diff([labels.tolist().index(i) for i in range(whole)]) > 0).all()


def test_distances_in_bonds_by_repeated_relaxation():
    generator = np.random.default_rng(1)
    bonds = np.array([(a, b) for a, b in generator.integers(0, 40, (45, 2)) if a != b])
    slow = np.full(40, np.inf)
    slow[[3, 17]] = 0
    for _ in range(40):
        for a, b in bonds:
            slow[a], slow[b] = min(slow[a], slow[b] + 1), min(slow[b], slow[a] + 1)
    assert np.isinf(slow).any() and slow[np.isfinite(slow)].max() > 4
    np.testing.assert_array_equal(bond_distances(40, bonds, [3, 17], 40), slow)
    np.testing.assert_array_equal(bond_distances(40, bonds, [3, 17], 2), np.where(slow > 2, np.inf, slow))


@pytest.mark.parametrize(
    ("formula", "bond", "reason"),
    [
        ("C0 C1 H2 H3 H4 H5 H6 H7 | 0-1 0-2 0-3 0-4 1-5 1-6 1-7", "C0-C1", "sp3–sp3 C–C"),
        ("C0 C1 H2 H3 H4 H5 H6 H7 | 0-1 0-2 0-3 0-4 1-5 1-6 1-7", "C0-H2", "bond to hydrogen"),
        ("C0 C1 H2 H3 H4 H5 | 0-1 0-2 0-3 1-4 1-5", "C0-C1", "double bond"),
        ("C0 O1 H2 H3 | 0-1 0-2 0-3", "C0-O1", "double bond"),
        ("C0 N1 H2 H3 H4 | 0-1 0-2 0-3 1-4", "C0-N1", "double bond"),
        ("C0 C1 C2 H3 H4 H5 H6 H7 H8 | 0-1 1-2 0-2 0-3 0-4 1-5 1-6 2-7 2-8", "C0-C1", "ring"),
        ("C0 O1 N2 H3 H4 H5 | 0-1 0-2 0-3 2-4 2-5", "C0-N2", "amide"),
        ("C0 O1 N2 H3 H4 H5 | 0-1 0-2 0-3 2-4 2-5", "C0-O1", "double bond"),
        ("C0 S1 N2 H3 H4 H5 | 0-1 0-2 0-3 2-4 2-5", "C0-N2", "amide"),
        ("C0 O1 O2 H3 H4 | 0-1 0-2 0-3 2-4", "C0-O2", "polar bond"),
        ("C0 O1 O2 H3 | 0-1 0-2 0-3", "C0-O2", "double bond"),  # carboxylate
        ("C0 N1 N2 N3 H4 H5 H6 H7 H8 H9 | 0-1 0-2 0-3 1-4 1-5 2-6 2-7 3-8 3-9", "C0-N1", "double bond"),
        ("C0 N1 H2 H3 H4 H5 H6 | 0-1 0-2 0-3 0-4 1-5 1-6", "C0-N1", "polar bond"),
        ("C0 C1 C2 H3 H4 H5 H6 H7 H8 | 0-1 1-2 0-3 0-4 0-5 1-6 2-7 2-8", "C0-C1", "bond to an sp2 carbon"),
        ("P0 O1 O2 O3 O4 H5 | 0-1 0-2 0-3 0-4 4-5", "O1-P0", "double bond"),
        ("P0 O1 O2 O3 O4 H5 | 0-1 0-2 0-3 0-4 4-5", "O4-P0", "polar bond"),
        ("S0 O1 O2 C3 C4 | 0-1 0-2 0-3 0-4", "O1-S0", "double bond"),
        ("N0 O1 O2 C3 | 0-1 0-2 0-3", "N0-O1", "double bond"),
        ("S0 S1 H2 H3 | 0-1 0-2 1-3", "S0-S1", "disulfide"),
        ("Zn0 S1 C2 H3 H4 H5 | 0-1 1-2 2-3 2-4 2-5", "S1-Zn0", "metal"),
        ("O0 H1 H2 EP3 | 0-1 0-2 0-3", "EP3-O0", "virtual site"),
    ],
)
def test_verdicts_on_small_molecules(formula, bond, reason):
    assert verdicts(molecule(formula))[bond] == reason


def test_a_repeated_bond_changes_nothing():
    ethane = "C0 C1 H2 H3 H4 H5 H6 H7 | 0-1 0-2 0-3 0-4 1-5 1-6 1-7"
    assert verdicts(molecule(f"{ethane} 1-0 0-2")) == verdicts(molecule(ethane))


def test_without_hydrogens_nothing_is_cut():
    assert not any(cut.allowed for cut in classify_bonds(molecule("C0 C1 C2 C3 | 0-1 1-2 2-3")))


def test_rings_closed_by_a_metal_or_through_sulfur():
    """A chelated chain stays as cuttable as it was; a dithiolane within one residue is a ring."""
    chain = "C2 C3 H4 H5 H6 H7 | 0-2 1-3 2-3 2-4 2-5 3-6 3-7"
    assert verdicts(molecule(f"S0 S1 {chain}"))["C2-C3"] == "sp3–sp3 C–C"
    chelated = f"S0 S1 {chain} 0-8 1-8".replace(" |", " Zn8 |")
    assert verdicts(molecule(chelated))["C2-C3"] == "sp3–sp3 C–C"
    assert verdicts(molecule(f"S0 S1 {chain} 0-1"))["C2-C3"] == "ring"


def test_cuttable_bonds_of_lysozyme_equal_a_textbook_list(lysozyme):
    """Cut may be CA–C of every residue but the last, and sp3–sp3 C–C by residue name; nothing else."""
    found = {name: set() for name in SP3}
    for cut in classify_bonds(lysozyme):
        atoms = list(lysozyme.atoms())[cut.first], list(lysozyme.atoms())[cut.second]
        if cut.allowed:
            assert atoms[0].residue is atoms[1].residue
            names = "-".join(sorted(atom.name for atom in atoms))
            assert (names == "C-CA") is (cut.reason == "CA–C")
            found[atoms[0].residue.name].add((atoms[0].residue.id, names))
        elif atoms[0].residue is not atoms[1].residue:
            assert cut.reason == "amide" and {a.name for a in atoms} == {"C", "N"}
    residues = list(lysozyme.residues())
    last = max(residue.index for residue in residues if residue.name != "TMP")
    for name, bonds in SP3.items():
        here = [residue for residue in residues if residue.name == name]
        expected = {(residue.id, bond) for residue in here for bond in bonds.split()}
        expected |= {(residue.id, "C-CA") for residue in here if residue.index != last and name != "TMP"}
        assert found[name] == expected, name


def test_fragments_are_joined_by_what_may_not_be_cut(lysozyme):
    """A fragment's bonds are all forbidden, and forbidden bonds never leave one: against flooding by hand."""
    labels, cuts = snap_groups(lysozyme, "fragment"), classify_bonds(lysozyme)
    assert all((labels[cut.first] == labels[cut.second]) is not cut.allowed for cut in cuts)
    # Bridges are cut one by one: each adds a part.
    molecules = snap_groups(lysozyme, "molecule")
    assert labels.max() - molecules.max() == sum(cut.allowed for cut in cuts)


def test_shifted_residues_of_lysozyme(lysozyme):
    """C and O go with the next residue; all else stays with its own, proline too."""
    groups, at_home = residue_groups(lysozyme)
    last = max(residue.index for residue in lysozyme.residues() if residue.name != "TMP")
    for atom in lysozyme.atoms():
        moved = atom.name in ("C", "O") and atom.residue.index < last
        assert groups[atom.index] == atom.residue.index + moved
        assert at_home[atom.index] == (not moved)
    assert "PRO" in {residue.name for residue in lysozyme.residues()}
    bad = {frozenset((cut.first, cut.second)) for cut in classify_bonds(lysozyme) if not cut.allowed}
    assert all(groups[a] == groups[b] for a, b in bad)


def test_capped_alanine_is_two_groups():
    """ACE has no bond of its own to cut: it goes with ALA, and its atoms still speak for themselves."""
    topology = peptide("ACE", "ALA", "NME")
    groups, at_home = residue_groups(topology)
    names = np.array(labels(topology))
    assert set(names[groups == 2]) == {name for name in names if "NME" in name} | {"ALA2:C", "ALA2:O"}
    assert set(names[groups == 1]) == set(names) - set(names[groups == 2])
    assert set(names[~at_home]) == {"ALA2:C", "ALA2:O"}


def test_disulfide_joins_two_residues_and_not_the_loop_between():
    bridge = [((1, "SG"), (4, "SG"))]
    topology = peptide("NALA", "CYX", "GLY", "ALA", "CYX", "CALA", extra=bridge)
    names, cuts = labels(topology), classify_bonds(topology)
    reasons = {(names[cut.first], names[cut.second]): cut.reason for cut in cuts}
    assert reasons["CYX2:SG", "CYX5:SG"] == "disulfide"
    assert reasons["GLY3:CA", "GLY3:C"] == "CA–C" and reasons["ALA4:CA", "ALA4:CB"] == "sp3–sp3 C–C"
    groups = residue_groups(topology)[0]
    index = {name: i for i, name in enumerate(names)}
    assert groups[index["CYX2:CA"]] == groups[index["CYX5:CA"]] == groups[index["ALA4:C"]]
    # Five groups for six residues.
    assert len(set(groups.tolist())) == 5
    piece = snap_groups(topology, "fragment")
    joined = {names[i] for i in np.flatnonzero(piece == piece[index["CYX2:SG"]])}
    assert joined == {f"CYX{i}:{name}" for i in (2, 5) for name in ("CB", "HB2", "HB3", "SG")}
    without = peptide("NALA", "CYX", "GLY", "ALA", "CYX", "CALA")
    assert len(set(residue_groups(without)[0].tolist())) == 6


def test_adjacent_cysteines_with_a_disulfide():
    topology = peptide("NALA", "CYX", "CYX", "CALA", extra=[((1, "SG"), (2, "SG"))])
    groups = residue_groups(topology)[0]
    assert len(set(groups.tolist())) == 3
    assert all(groups[c.first] == groups[c.second] for c in classify_bonds(topology) if not c.allowed)


def test_strand_of_dna_is_separated_between_c4_and_c5():
    """The phosphate and C5' go with the sugar before: one group per residue."""
    topology = from_templates("DA5", "DT", "DG", "DC3", link=("O3'", "P"), files="amber14/DNA.OL15.xml")
    groups, _ = residue_groups(topology)
    names = labels(topology)
    assert len(set(groups.tolist())) == 4
    different = {
        (names[c.first], names[c.second])
        for c in classify_bonds(topology)
        if groups[c.first] != groups[c.second]
    }
    assert {tuple(sorted(name.split(":")[1] for name in bond)) for bond in different} == {("C4'", "C5'")}
    assert len(different) == 3
    phosphorus = names.index("DT2:P")
    assert groups[phosphorus] == groups[names.index("DA51:C1'")]


def test_glycosidic_bond_joins_and_macrocycle_is_one_ring():
    """What reaches over residues by neither amide nor phosphate makes one group of them."""
    ether = molecule(
        "C0 H1 H2 H3 O4 / C5 H6 H7 C8 H9 H10 H11 | 0-1 0-2 0-3 0-4 4-5 5-6 5-7 5-8 8-9 8-10 8-11"
    )
    assert len(set(residue_groups(ether)[0].tolist())) == 1
    assert len(set(snap_groups(ether, "fragment").tolist())) == 2
    cyclic = peptide("GLY", "GLY", "GLY", extra=[((2, "C"), (0, "N"))])
    assert not any(cut.allowed for cut in classify_bonds(cyclic))
    assert len(set(residue_groups(cyclic)[0].tolist())) == 1


def test_snapping_levels():
    topology = molecule("C0 C1 H2 H3 H4 H5 H6 H7 / O8 H9 H10 EP11 | 0-1 0-2 0-3 0-4 1-5 1-6 1-7 8-9 8-10")
    expected = {
        "atom": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 8],  # a virtual site goes with its atom always
        "hydrogen": [0, 1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2],
        "fragment": [0, 1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2],
        "residue": [0] * 8 + [1] * 4,
        "molecule": [0] * 8 + [1] * 4,
    }
    for snap, groups in expected.items():
        assert snap_groups(topology, snap).tolist() == groups, snap
    with pytest.raises(ConfigError, match=r"snap = residue \| molecule .*, but got 'chain'"):
        snap_groups(topology, "chain")


def test_bad_cuts_are_named(lysozyme):
    topology = peptide("NALA", "GLY", "CPHE")
    names = labels(topology)

    def named(first: str, second: str) -> tuple[str, ...]:
        return named_cuts(topology, [(names.index(first), names.index(second))])

    assert named("NALA1:C", "GLY2:N") == ("NALA1:C–GLY2:N is an amide bond; cut CA–C instead",)
    assert named("GLY2:N", "NALA1:C") == ("GLY2:N–NALA1:C is an amide bond; cut CA–C instead",)
    assert named("CPHE3:CG", "CPHE3:CD1") == ("CPHE3:CG–CPHE3:CD1 is in a ring; keep the ring whole",)
    assert "keep H with its heavy atom" in named("GLY2:CA", "GLY2:HA2")[0]
    assert named("GLY2:CA", "GLY2:C") == named("CPHE3:CA", "CPHE3:CB") == named_cuts(topology, []) == ()
    bonds = [(bond[0].index, bond[1].index) for bond in lysozyme.bonds()]
    assert len(named_cuts(lysozyme, bonds)) == sum(not cut.allowed for cut in classify_bonds(lysozyme))


def polyethylene(residues):
    """One chain of ten carbons a residue, the deepest graph there is."""
    topology = app.Topology()
    chain, before = topology.addChain(), None
    for _ in range(residues):
        residue = topology.addResidue("POL", chain)
        for k in range(10):
            carbon = topology.addAtom(f"C{k}", app.element.carbon, residue)
            for name in ("H1", "H2"):
                topology.addBond(carbon, topology.addAtom(name, app.element.hydrogen, residue))
            if before is not None:
                topology.addBond(before, carbon)
            before = carbon
    return topology


def processor_time(topology):
    """Without the collector of cycles, whose passes go through everything that the process holds."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        classify_bonds(topology)
        return time.process_time() - start
    finally:
        gc.enable()


def test_bonds_are_classified_in_linear_time():
    """Ten times the atoms take ten times as long, 100,000 of them too; a quadratic search 100 times."""
    large, small = polyethylene(3300), polyethylene(330)
    cuts = classify_bonds(large)
    assert sum(cut.allowed for cut in cuts) == 33_000 - 3  # the ends have three neighbours only
    # A ratio of two times on one processor, the shorter of several each: its speed does not matter.
    assert min(processor_time(large) for _ in range(2)) < 30 * min(processor_time(small) for _ in range(5))
