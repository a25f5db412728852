"""Gaps: never bonded across; split or capped with sound geometry where the user says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlmm.build import build_system, plan_system
from mlmm.build.gaps import place_atom
from mlmm.errors import ConfigError, StructureError

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "cases"
LYSOZYME = (ROOT / "systems/lysozyme_xylene/input.pdb").read_text().splitlines()
CHAIN = [line for line in LYSOZYME if line.startswith("ATOM") and int(line[22:26]) <= 16 and line[77] != "H"]
NAMES = [next(line[17:20] for line in CHAIN if int(line[22:26]) == n) for n in range(1, 17)]


def sequence(names):
    return [
        f"SEQRES {i // 13 + 1:3d} A {len(names):4d}  {' '.join(names[i : i + 13])}"
        for i in range(0, len(names), 13)
    ]


def gapped(folder, lost, seqres=True, extra=()):
    lines = [line for line in CHAIN if int(line[22:26]) not in lost]
    path = folder / "gap.pdb"
    path.write_text("\n".join([*(sequence([*NAMES, *extra]) if seqres else []), *lines, "TER", "END", ""]))
    return path


def at(built, residue, name):
    atom = next(a for a in built.topology.atoms() if a.residue is residue and a.name == name)
    return built.positions[atom.index]


def angle(one, two, three):
    first, second = one - two, three - two
    return np.degrees(np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second)))


def torsion(one, two, three, four):
    b1, b2, b3 = two - one, three - two, four - three
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    return np.degrees(np.arctan2(np.cross(n1, n2) @ b2 / np.linalg.norm(b2), n1 @ n2))


def bonds_across(built):
    return [
        np.linalg.norm(built.positions[one.index] - built.positions[other.index])
        for one, other in built.topology.bonds()
        if one.residue is not other.residue
    ]


def test_place_atom_gives_the_length_angle_and_torsion_asked_for():
    generator = np.random.default_rng(3)
    for wanted in (-120.0, -60.0, 0.5, 75.0, 179.0):
        one, two, three = generator.normal(size=(3, 3))
        four = place_atom(one, two, three, 0.15, 111.0, wanted)
        assert np.linalg.norm(four - three) == pytest.approx(0.15)
        assert angle(two, three, four) == pytest.approx(111.0)
        assert torsion(one, two, three, four) == pytest.approx(wanted)


@pytest.mark.parametrize("seqres", [True, False])
def test_gap_is_refused_with_the_choices(tmp_path, seqres):
    with pytest.raises(StructureError, match=r"MET 6 of chain A and ASP 10 of chain A") as caught:
        build_system(gapped(tmp_path, {7, 8, 9}, seqres), solvate=False)
    assert 'gaps = "cap"' in str(caught.value) and 'gaps = "split"' in str(caught.value)


@pytest.mark.parametrize("seqres", [True, False])
def test_split_gives_two_chains_with_charged_ends_and_no_bond_across(tmp_path, seqres):
    built = build_system(gapped(tmp_path, {7, 8, 9}, seqres), solvate=False, gaps="split")
    chains = [chain for chain in built.topology.chains()]
    assert [chain.id for chain in chains] == ["A", "A"]
    assert [[r.id for r in chain.residues()][-1] for chain in chains] == ["6", "16"]
    ends = [{a.name for a in list(chain.residues())[-1].atoms()} for chain in chains]
    starts = [{a.name for a in next(iter(chain.residues())).atoms()} for chain in chains]
    assert all("OXT" in names for names in ends) and all("H3" in names for names in starts)
    assert max(bonds_across(built)) < 0.15
    text = "\n".join(built.provenance["decisions"])
    assert "missing between MET 6 of chain A and ASP 10 of chain A: two chains with charged ends" in text
    assert ("3 residues (LEU-ARG-ILE)" in text) == seqres


@pytest.mark.parametrize("seqres", [True, False])
def test_caps_are_neutral_and_have_the_geometry_of_peptides(tmp_path, seqres):
    lost = {7, 8, 9}
    split = build_system(gapped(tmp_path, lost, seqres), solvate=False, gaps="split")
    built = build_system(gapped(tmp_path, lost, seqres), solvate=False, gaps="cap")
    # One ammonium and one carboxylate less.
    assert built.provenance["net_charge"] == split.provenance["net_charge"]
    assert [r.name for r in built.topology.residues() if r.name in ("ACE", "NME")] == ["NME", "ACE"]
    residues = {(r.name, r.id): r for r in built.topology.residues()}
    before, cap = residues["MET", "6"], residues["NME", "7"]
    assert np.linalg.norm(at(built, before, "C") - at(built, cap, "N")) == pytest.approx(0.133, abs=0.005)
    assert angle(at(built, before, "CA"), at(built, before, "C"), at(built, cap, "N")) == pytest.approx(
        117, abs=6
    )
    omega = torsion(*(at(built, before, n) for n in ("CA", "C")), *(at(built, cap, n) for n in ("N", "C")))
    assert abs(omega) > 170
    after, cap = residues["ASP", "10"], residues["ACE", "9"]
    assert np.linalg.norm(at(built, cap, "C") - at(built, after, "N")) == pytest.approx(0.133, abs=0.005)
    omega = torsion(*(at(built, cap, n) for n in ("CH3", "C")), *(at(built, after, n) for n in ("N", "CA")))
    assert abs(omega) > 170
    heavy = [a for a in built.topology.atoms() if a.element.symbol != "H"]
    caps = [a for a in heavy if a.residue.name in ("ACE", "NME")]
    own = {"NME": before, "ACE": after}
    for atom in caps:
        others = [o for o in heavy if o.residue not in (atom.residue, own[atom.residue.name])]
        distance = np.linalg.norm(
            built.positions[[o.index for o in others]] - built.positions[atom.index], axis=1
        )
        assert distance.min() > 0.25
    assert max(bonds_across(built)) < 0.15


def test_cap_without_room_is_rejected(tmp_path):
    path = gapped(tmp_path, {8})
    # The next residue comes where the cap would go.
    lines = path.read_text().splitlines()
    carbon = next(line for line in lines if line[12:26] == " C   LEU A   7")
    carbon = np.array([float(carbon[k : k + 8]) for k in (30, 38, 46)])
    moved = []
    nitrogen = next(line for line in lines if line[12:16] == " N  " and line[22:26] == "   9")
    start = np.array([float(nitrogen[k : k + 8]) for k in (30, 38, 46)])
    away = (start - carbon) / np.linalg.norm(start - carbon)
    shift = carbon + 2.4 * away - start
    for line in lines:
        if line.startswith("ATOM") and int(line[22:26]) >= 9:
            place = np.array([float(line[k : k + 8]) for k in (30, 38, 46)]) + shift
            line = line[:30] + "".join(f"{value:8.3f}" for value in place) + line[54:]
        moved.append(line)
    path.write_text("\n".join(moved) + "\n")
    with pytest.raises(StructureError, match=r"room for (NME|ACE) on .*nm to .*gaps = \"split\""):
        build_system(path, solvate=False, gaps="cap")


@pytest.mark.parametrize("forcefield", ["amber14", pytest.param("charmm36m", marks=pytest.mark.slow)])
def test_unresolved_tails_are_capped_where_asked(tmp_path, forcefield):
    path = gapped(tmp_path, {1, 2}, extra=("ALA", "GLY"))
    charged = build_system(path, solvate=False, forcefield=forcefield)
    capped = build_system(path, solvate=False, tails="cap", forcefield=forcefield)
    names = [residue.name for residue in capped.topology.residues()]
    assert names[0] == "ACE" and names[-1] == "NME"
    assert capped.provenance["net_charge"] == charged.provenance["net_charge"]
    text = "\n".join(capped.provenance["decisions"])
    assert "2 residues (MET-ASN) missing beyond ILE 3 of chain A: capped with ACE" in text
    assert f"2 residues (ALA-GLY) missing beyond {NAMES[-1]} 16 of chain A: capped with NME" in text
    assert "charged terminus" not in text
    # A chain whose ends are in the file keeps its charged ends.
    whole = build_system(gapped(tmp_path, set()), solvate=False, tails="cap", forcefield=forcefield)
    assert not {"ACE", "NME"} & {residue.name for residue in whole.topology.residues()}


def test_missing_loops_are_not_modelled(tmp_path):
    with pytest.raises(ConfigError, match=r"gaps = refuse \| split \| cap.*'model'.*MODELLER"):
        build_system(gapped(tmp_path, {8}), solvate=False, gaps="model")


# ---- nucleic acids ----


def broken_strand(folder):
    """Four nucleotides without the second; nothing else in the file says so."""
    lines = [line for line in (CASES / "dna.pdb").read_text().splitlines() if line[22:26].strip() != "2"]
    path = folder / "strand.pdb"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_gap_in_a_nucleic_acid_is_a_question(tmp_path):
    """Readers bond O3' to P across it, as they do C to N."""
    plan = plan_system(broken_strand(tmp_path), solvate=False)
    assert "bonds O3'-P of a chain shorter than 0.2 nm" in str(plan.problem)
    assert 'write gaps = "split"' in plan.problem.do.lower()
    assert plan.inspection.chains[0].gaps[0].startswith("DA 1 of chain A - DG 3 of chain A")


@pytest.mark.parametrize("gaps", ["split", "cap"])
def test_a_nucleic_acid_is_split_at_its_gap(tmp_path, gaps):
    built = build_system(broken_strand(tmp_path), solvate=False, gaps=gaps)
    names = [[residue.name for residue in chain.residues()] for chain in built.topology.chains()]
    assert names == [["DA"], ["DG", "DT"]] and built.provenance["net_charge"] == -1
    assert "missing between DA 1 of chain A and DG 3 of chain A: two chains" in str(built.provenance["log"])
