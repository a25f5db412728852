"""Protonation: who decides, in which order, and one state for equal positions of copies of a chain."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit

from mlmm.build import build_system, plan_system
from mlmm.build.protons.propka_run import pka_values
from mlmm.build.protons.protonation import choose_states, named_by_user, related_positions
from mlmm.build.protons.tautomers import tautomer_score
from mlmm.errors import ConfigError, MissingPackageError

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "cases"
LYSOZYME = [
    line
    for line in (ROOT / "systems/lysozyme_xylene/input.pdb").read_text().splitlines()
    if line.startswith("ATOM") and line[17:20] not in ("TMP", "HOH") and line[77] != "H"
]
NEAR = [line for line in LYSOZYME if 28 <= int(line[22:26]) <= 33]  # HIS 31 in the middle


def written(folder, lines, name="model.pdb"):
    path = folder / name
    path.write_text("\n".join([*lines, "TER", "END", ""]))
    return path


def shifted(lines, chain, move):
    """A copy of a chain, elsewhere."""
    return [f"{line[:21]}{chain}{line[22:30]}{float(line[30:38]) + move:8.3f}{line[38:]}" for line in lines]


def model(path):
    pdb = app.PDBFile(str(path))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


@pytest.fixture(scope="module")
def two_chains(tmp_path_factory):
    """Twice the surroundings of HIS 31, 10 nm apart."""
    lines = [*NEAR, "TER", *shifted(NEAR, "B", 100.0)]
    return model(written(tmp_path_factory.mktemp("protonation"), lines))


@pytest.fixture(scope="module")
def lysozyme(tmp_path_factory):
    return model(written(tmp_path_factory.mktemp("protonation"), LYSOZYME))


def states(topology, positions, **options):
    defaults = {"ph": 7.0, "method": "modeller", "given": {}, "named": {}}
    chosen, decisions = choose_states(topology, positions, **(defaults | options))
    residues = list(topology.residues())
    named = {f"{residues[i].chain.id}:{residues[i].name}{residues[i].id}": s for i, s in chosen.items()}
    return named, [decision.text for decision in decisions]


# ---- the user's word ----


def test_keys_name_residues_by_chain_name_and_number(two_chains):
    topology, _ = two_chains
    residues = list(topology.residues())
    (index,) = named_by_user(topology, {"B:HIS31": "HIE"})
    assert (residues[index].chain.id, residues[index].id) == ("B", "31")
    assert named_by_user(topology, {"b:31": "hse"}) == {index: "HIE"}
    assert set(named_by_user(topology, {"*:HIS31": "HIP"}).values()) == {"HIP"}
    assert len(named_by_user(topology, {"*:HIS31": "HIP"})) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"A:HIS32": "HIE"}, r'CHAIN:NAMENUMBER.*"A:HIS54".*such as A:HIS31'),
        ({"HIS31": "HIE"}, r'2 residues.*"A:HIS31", "B:HIS31".*"\*:HIS31" for all'),
        ({"A:HIS31": "HIX"}, r"a state of HIS 31 of chain A: HID, HIE, HIP.*HIX"),
        ({"A:ALA30": "ASP"}, r"ALA 30"),
    ],
)
def test_unknown_residues_and_states_are_rejected(two_chains, given, words):
    if "A:ALA30" in given:
        residue = next(r for r in two_chains[0].residues() if r.id == "30" and r.chain.id == "A")
        given, words = {f"A:{residue.name}30": "HIE"}, rf"a state of {residue.name} 30 of chain A"
    with pytest.raises(ConfigError, match=words):
        named_by_user(two_chains[0], given)


def test_requested_protonation_is_built(tmp_path):
    path = written(tmp_path, NEAR)
    charges = {}
    for state in ("HID", "HIE", "HIP"):
        built = build_system(path, solvate=False, protonate={"A:HIS31": state})
        names = {a.name for a in built.topology.atoms() if a.residue.name == "HIS"}
        assert {"HD1", "HE2"} & names == {"HID": {"HD1"}, "HIE": {"HE2"}, "HIP": {"HD1", "HE2"}}[state]
        charges[state] = built.provenance["net_charge"]
        assert f"HIS 31 of chain A is {state}, as asked for" in built.provenance["decisions"]
    assert charges["HIP"] == charges["HID"] + 1 == charges["HIE"] + 1


def test_the_user_overrides_hydrogens_and_names_of_the_file(tmp_path):
    built = build_system(written(tmp_path, NEAR), solvate=False, protonate={"A:HIS31": "HIP"})
    with open(tmp_path / "with_h.pdb", "w", encoding="utf-8") as file:
        app.PDBFile.writeFile(built.topology, 10 * built.positions, file, keepIds=True)
    kept = build_system(tmp_path / "with_h.pdb", solvate=False)
    assert kept.provenance["net_charge"] == built.provenance["net_charge"]
    other = build_system(tmp_path / "with_h.pdb", solvate=False, protonate={"A:HIS31": "HIE"})
    assert other.provenance["net_charge"] == built.provenance["net_charge"] - 1
    named = [line.replace("HIS A  31", "HIP A  31") for line in NEAR]
    third = build_system(written(tmp_path, named, "named.pdb"), solvate=False, protonate={"A:HIS31": "HID"})
    assert third.provenance["net_charge"] == built.provenance["net_charge"] - 1


# ---- propka ----


def test_propka_reads_what_we_write(lysozyme, tmp_path):
    run = pytest.importorskip("propka.run")
    topology, positions = lysozyme
    pka = pka_values(topology, positions)
    residues = list(topology.residues())
    ours = {(group, int(residues[i].id)): value for (i, group), value in pka.items()}
    path = written(tmp_path, LYSOZYME)
    molecule = run.single(str(path), ["-q"], write_pka=False)
    groups = molecule.conformations["AVR"].groups
    expected = {(group.residue_type, group.atom.res_num): group.pka_value for group in groups}
    assert len(ours) > 50 and ours.keys() == expected.keys()
    assert all(value == pytest.approx(expected[key], abs=0.006) for key, value in ours.items())
    # HIS 31 is in a salt bridge with ASP 70, which raises its pKa from 6.5 (to 9.1: Anderson, Becktel and
    # Dahlquist, Biochemistry 29, 2403 (1990)).
    assert ours["HIS", 31] > 7.0 > 6.5 > ours["ASP", 70]


def test_ph_against_pka_decides(lysozyme):
    pytest.importorskip("propka")
    topology, positions = lysozyme
    neutral, text = states(topology, positions, method="propka", ph=7.0)
    assert neutral["A:HIS31"] == "HIP" and neutral["A:ASP70"] == "ASP"
    assert any("HIS 31 of chain A: HIP (pKa" in line for line in text)
    acid, _ = states(topology, positions, method="propka", ph=1.0)
    assert "ASH" in acid.values() and "GLH" in acid.values() and acid["A:HIS31"] == "HIP"
    basic, text = states(topology, positions, method="propka", ph=12.5)
    assert "LYN" in basic.values() and basic["A:HIS31"] in ("HID", "HIE")
    assert any("TYR" in line and "kept as OH" in line for line in text)


def test_without_propka_the_message_says_what_to_install(monkeypatch, two_chains):
    monkeypatch.setitem(sys.modules, "propka", None)
    monkeypatch.setitem(sys.modules, "propka.run", None)
    with pytest.raises(MissingPackageError, match=r'pip install "mlmm\[protonation\]".*"modeller"'):
        pka_values(*two_chains)


def test_names_in_the_file_come_before_propka_and_the_user_before_both(lysozyme):
    pytest.importorskip("propka")
    topology, positions = lysozyme
    index = next(r.index for r in topology.residues() if r.name == "HIS")
    chosen, _ = states(topology, positions, method="propka", named={index: "HIE"})
    assert chosen["A:HIS31"] == "HIE"
    chosen, _ = states(topology, positions, method="propka", named={index: "HIE"}, given={index: "HID"})
    assert chosen["A:HIS31"] == "HID"


# ---- tautomers and copies ----


def ring(acceptors=(), donors=()):
    """A histidine ring with atoms of neighbours at 0.28 nm from ND1 or NE2, along its hydrogen."""
    topology = app.Topology()
    chain = topology.addChain("A")
    residue = topology.addResidue("HIS", chain, "5")
    at = {"CA": (0, 0.4, 0), "CG": (0.11, 0, 0), "ND1": (0, 0.09, 0), "CE1": (-0.11, 0.02, 0)}
    at |= {"NE2": (-0.07, -0.1, 0), "CD2": (0.06, -0.11, 0)}
    positions = []
    for name, place in at.items():
        topology.addAtom(name, app.element.get_by_symbol(name[0]), residue)
        positions.append(place)
    at = {name: np.array(place, dtype=float) for name, place in at.items()}
    for names, atom_name, symbol in ((acceptors, "O", "O"), (donors, "N", "N")):
        for name in names:
            one, other = {"ND1": ("CG", "CE1"), "NE2": ("CD2", "CE1")}[name]
            outwards = 2 * at[name] - at[one] - at[other]
            neighbour = topology.addResidue("GLY", chain, "9")
            topology.addAtom("CA", app.element.carbon, neighbour)
            positions.append(np.array([5.0, 5.0, 5.0]))
            topology.addAtom(atom_name, app.element.get_by_symbol(symbol), neighbour)
            positions.append(at[name] + 0.28 * outwards / np.linalg.norm(outwards))
    return topology, np.array(positions, dtype=float), residue


def test_histidine_hydrogen_points_to_an_acceptor():
    assert tautomer_score(*ring()) == 0
    assert tautomer_score(*ring(acceptors=["ND1"])) == pytest.approx(1.0)
    assert tautomer_score(*ring(acceptors=["NE2"])) == pytest.approx(-1.0)
    assert tautomer_score(*ring(donors=["NE2"])) == pytest.approx(1.0)
    assert tautomer_score(*ring(acceptors=["ND1"], donors=["NE2"])) == pytest.approx(2.0)
    assert tautomer_score(*ring(acceptors=["ND1", "NE2"])) == pytest.approx(0.0)


def test_metal_keeps_its_nitrogen_bare():
    topology, positions, residue = ring(acceptors=["ND1"])
    for bound, free in (("ND1", -1), ("NE2", 1)):
        place = {atom.name: positions[atom.index] for atom in residue.atoms()}
        one = {"ND1": "CG", "NE2": "CD2"}[bound]
        outwards = 2 * place[bound] - place[one] - place["CE1"]
        grown = app.Topology()
        modeller = app.Modeller(topology, positions)
        zinc = grown.addResidue("ZN", grown.addChain("Z"), "1")
        grown.addAtom("ZN", app.element.zinc, zinc)
        modeller.add(grown, [place[bound] + 0.21 * outwards / np.linalg.norm(outwards)] * unit.nanometer)
        where = np.array(modeller.positions.value_in_unit(unit.nanometer))
        histidine = next(modeller.topology.residues())
        assert np.sign(tautomer_score(modeller.topology, where, histidine)) == free


def test_copies_of_a_chain_share_one_tautomer_by_default(two_chains):
    topology, positions = two_chains
    pairs = related_positions(topology, symmetry=True)
    assert {len(pair) for pair in pairs} == {2}
    assert {len(alone) for alone in related_positions(topology, symmetry=False)} == {1}
    # In chain B an acceptor comes to the nitrogen that the copy in A has no partner for.
    chosen, text = states(topology, positions)
    assert chosen["A:HIS31"] == chosen["B:HIS31"]
    assert any("HIS 31 of chains A, B" in line for line in text)
    moved, where = app.Modeller(topology, positions), None
    histidine = next(r for r in topology.residues() if r.name == "HIS" and r.chain.id == "B")
    place = {atom.name: positions[atom.index] for atom in histidine.atoms()}
    nitrogen, one = ("NE2", "CD2") if chosen["B:HIS31"] == "HID" else ("ND1", "CG")
    outwards = 2 * place[nitrogen] - place[one] - place["CE1"]
    grown = app.Topology()
    residue = grown.addResidue("ACT", grown.addChain("L"), "1")
    points = []
    for k in range(3):
        grown.addAtom(f"O{k}", app.element.oxygen, residue)
        points.append(place[nitrogen] + (0.28 + 0.001 * k) * outwards / np.linalg.norm(outwards))
    moved.add(grown, np.array(points) * unit.nanometer)
    where = np.array(moved.positions.value_in_unit(unit.nanometer))
    together, _ = states(moved.topology, where)
    assert together["A:HIS31"] == together["B:HIS31"] != chosen["B:HIS31"]
    # Told otherwise, each copy decides alone (here left to OpenMM's own rule).
    alone, _ = states(moved.topology, where, symmetry=False)
    assert "A:HIS31" not in alone


def test_mean_pka_decides_for_all_copies(monkeypatch, two_chains):
    from mlmm.build.protons import protonation

    topology, positions = two_chains
    histidines = [r.index for r in topology.residues() if r.name == "HIS"]
    values = {(histidines[0], "HIS"): 6.6, (histidines[1], "HIS"): 7.6}
    monkeypatch.setattr(protonation, "pka_values", lambda *_: values)
    chosen, text = states(topology, positions, method="propka")
    assert chosen == {"A:HIS31": "HIP", "B:HIS31": "HIP"}
    assert any("pKa 6.60, 7.60 at pH 7), close to the pH" in line for line in text)
    apart, _ = states(topology, positions, method="propka", symmetry=False)
    assert apart["A:HIS31"] != "HIP" and apart["B:HIS31"] == "HIP"


def test_different_chains_are_no_copies(tmp_path):
    other = [line for line in LYSOZYME if 60 <= int(line[22:26]) <= 66]
    topology, _ = model(written(tmp_path, [*NEAR, "TER", *shifted(other, "B", 100.0)]))
    assert {len(position) for position in related_positions(topology, symmetry=True)} == {1}


# ---- states that the force field lacks at the ends of chains ----


@pytest.mark.parametrize("make", [build_system, plan_system])
def test_a_state_that_an_end_of_a_chain_cannot_have_is_refused_by_name(make):
    """Amber has no C-terminal GLH; OpenMM says that a hydrogen is too many, and a dry run said nothing."""
    path = CASES / "af.pdb"
    try:
        problem = make(path, solvate=False, protonate={"A:GLU6": "GLH"}).problem
    except ConfigError as error:
        problem = error
    assert isinstance(problem, ConfigError)
    assert "GLU 6 of chain A that the force field has at its place in the chain: GLU" in str(problem)
    assert 'forcefield = "charmm36m"' in problem.do


def test_a_low_ph_leaves_an_end_of_a_chain_in_a_state_that_the_force_field_has():
    built = build_system(CASES / "af.pdb", solvate=False, ph=2.0)
    warned = [entry["text"] for entry in built.provenance["log"] if entry["warning"]]
    assert "GLU 6 of chain A stays GLU: the force field has no GLH for its place in the chain" in warned
    assert built.provenance["net_charge"] == -1
    inside = build_system(CASES / "af.pdb", solvate=False, ph=2.0, mutate=["A:LEU4 -> GLU"])
    assert inside.provenance["net_charge"] == -1  # residue 4 is GLH
    usual = build_system(CASES / "af.pdb", solvate=False)
    assert "for its place in the chain" not in str(usual.provenance["log"])
