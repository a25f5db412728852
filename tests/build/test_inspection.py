"""What a structure file holds: the same from PDB and mmCIF, chosen by the user, nothing kept in silence."""

import gzip
from functools import cache

import numpy as np
import pytest
from fragments import hetatm, moved, put, structure_file
from peptides import peptide

from mlmm.build import inspect_structure, plan_system
from mlmm.build.draft import draft_topology
from mlmm.build.files.atoms import coordinates
from mlmm.build.files.inspection import inspect_file
from mlmm.build.files.reading import read_file, read_structure, settle
from mlmm.build.files.sanity import handedness
from mlmm.build.files.selection import Selection
from mlmm.errors import ConfigError, StructureError


def needs(*names):
    missing = [name for name in names if structure_file(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} in MLMM_STRUCTURES")


trypsin = needs("3PTB.pdb", "3PTB.cif")
mutase = needs("2CHT.pdb", "2CHT.cif")
GOOD = peptide()


def write(folder, lines, name="case.pdb"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


@cache
def mutase_file(ending="pdb"):
    return read_file(structure_file(f"2CHT.{ending}"))


def texts(structure):
    return "\n".join(decision.text for decision in structure.decisions)


# ---- PDB and mmCIF ----


@trypsin
def test_pdb_and_mmcif_give_the_same_atoms_and_topology():
    one, other = (read_structure(structure_file(f"3PTB.{ending}")) for ending in ("pdb", "cif"))
    fields = ("name", "residue_name", "chain", "number", "insertion_code", "element", "hetero", "occupancy")
    for a, b in zip(one.atoms, other.atoms, strict=True):
        assert [getattr(a, field) for field in fields] == [getattr(b, field) for field in fields]
    np.testing.assert_array_equal(coordinates(one.atoms), coordinates(other.atoms))
    assert (one.runs, one.missing) == (other.runs, other.missing)
    bonds = [
        {(min(a.index, b.index), max(a.index, b.index)) for a, b in draft_topology(s)[0].bonds()}
        for s in (one, other)
    ]
    assert bonds[0] == bonds[1]
    assert {(a.number, a.insertion_code) for a in one.atoms if a.insertion_code} == {
        *(("184", "A"), ("188", "A"), ("221", "A"))
    }


@trypsin
def test_both_chain_ids_ligands_and_disulfides_are_shown():
    facts = inspect_structure(structure_file("3PTB.cif"))
    assert [(c.chain, c.labels, c.residues) for c in facts.chains] == [("A", ("A",), 223)]
    assert [(ligand.name, ligand.label, ligand.heavy_atoms) for ligand in facts.ligands] == [
        *(("CA", "B", 1), ("BEN", "C", 9))
    ]
    assert facts.ligands[0].metal and not facts.ligands[1].metal
    assert facts.waters == 62 and facts.assemblies == ("1 (monomeric): label A, B, C, D",)
    assert sum(decision.kind == "disulfide" for decision in facts.decisions) == 6
    assert not facts.problems
    page = str(facts)
    for words in ("A (label A)  protein, 223 residues, ILE 16 to ASN 245", "BEN 1 of chain A, label C"):
        assert words in page


@trypsin
def test_a_compressed_file_is_the_same_structure(tmp_path):
    path = tmp_path / "3PTB.cif.gz"
    path.write_bytes(gzip.compress(structure_file("3PTB.cif").read_bytes()))
    assert read_structure(path).atoms == read_structure(structure_file("3PTB.cif")).atoms


@mutase
def test_twelve_chains_are_four_trimers_and_ligands_lie_between_chains():
    facts = inspect_file(mutase_file())
    assert facts.groups == (("A", "B", "C"), ("D", "E", "F"), ("G", "H", "I"), ("J", "K", "L"))
    assert facts.assemblies == () and "none described" in str(facts)
    inhibitors = [ligand for ligand in facts.ligands if ligand.name == "BAR"]
    assert len(inhibitors) == 12 and all(len(ligand.touches) == 2 for ligand in inhibitors)
    trimer = [ligand for ligand in inhibitors if set(ligand.touches) <= {"A", "B", "C"}]
    assert len(trimer) == 3


@mutase
def test_a_trimer_takes_its_ligands_and_waters_along():
    kept = {}
    for ending in ("pdb", "cif"):
        chosen = Selection(chains=["A", "B", "C"], hydrogens="strip", waters="0.5 nm")
        structure = settle(mutase_file(ending), chosen)
        assert sum(a.residue_name in ("BAR", "TSA") and a.element != "H" for a in structure.atoms) == 48
        assert {a.chain for a in structure.atoms} == {"A", "B", "C"}
        assert {a.residue_name for a in structure.atoms if a.element == "H"} <= {"BAR", "TSA"}
        # The newer file leaves out OXT where the sequence goes on; inhibitors have other names there.
        same = [a for a in structure.atoms if a.residue_name not in ("BAR", "TSA") and a.name != "OXT"]
        kept[ending] = sorted((a.chain, a.number, a.name, a.x) for a in same)
        log = texts(structure)
        assert "left out: D, E, F, G, H, I, J, K, L" in log and "waters kept within 0.5 nm" in log
        assert "chain A touches chain F (4 pairs of residues), which is left out" in log
        tails = [len(segment.names) for segment in structure.missing]
        assert tails == [1, 12, 1, 9, 1, 8]
    assert kept["pdb"] == kept["cif"]


@mutase
def test_chain_without_its_neighbours_is_logged():
    log = settle(mutase_file(), Selection(chains=["A"], waters="none"))
    warnings = [decision.text for decision in log.decisions if decision.warning]
    assert any("chain A touches chain B" in text for text in warnings)
    assert any("chain A touches chain C" in text for text in warnings)
    assert "\n0 of " in texts(log)


@mutase
def test_hydrogens_of_a_refinement_program_do_not_fix_the_protonation():
    """X-PLOR put polar hydrogens everywhere and two on every histidine: all would be charged."""
    structure = settle(mutase_file(), Selection(chains=["A"], waters="none"))
    assert not any(a.element == "H" for a in structure.atoms if a.residue_name != "BAR")
    assert "both nitrogens of every histidine" in texts(structure)
    kept = Selection(chains=["A"], waters="none", hydrogens="keep")
    names = {a.name for a in settle(mutase_file(), kept).atoms if a.residue_name == "HIS"}
    assert {"HD1", "HE2"} <= names and "HB2" not in names


# ---- what is chosen ----

ASSEMBLY = """REMARK 350 BIOMOLECULE: 1
REMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: DIMERIC
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       80.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000""".splitlines()


def test_an_assembly_is_made_by_its_operations(tmp_path):
    on_axis = hetatm(900, "NA  ", "NA", "A", 300, (40.0, 0.0, 20.0), "NA")
    path = write(tmp_path, [*ASSEMBLY, *GOOD, "TER", on_axis, "END"])
    plain = read_structure(path)
    assert "assembly 1 (dimeric) takes 2 copies of what stands in the file, moved by symmetry" in texts(plain)
    dimer = read_structure(path, Selection(assembly="1"))
    assert len(dimer.atoms) == 2 * 216 + 1  # the ion on the axis once
    assert "copy 2: chains A as B; 1 small molecules on a symmetry axis" in texts(dimer)
    first = coordinates(a for a in dimer.atoms if a.chain == "A" and a.residue_name != "NA")
    second = coordinates(a for a in dimer.atoms if a.chain == "B")
    np.testing.assert_allclose(second, first * [-1, -1, 1] + [8, 0, 0], atol=1e-9)
    # A rotation keeps handedness; a reflection would not have passed.
    assert handedness([a for a in dimer.atoms if a.chain == "B"][:8]) > 0
    with pytest.raises(StructureError, match=r"assembly that case\.pdb describes: 1 \(dimeric\).*'2'"):
        read_structure(path, Selection(assembly="2"))


@trypsin
def test_empty_selection_lists_the_residues():
    path = structure_file("3PTB.cif")
    with pytest.raises(StructureError, match=r"chains A of.*chain C \(label_asym_id C belongs to chain A\)"):
        read_structure(path, Selection(chains=["C"]))
    with pytest.raises(StructureError, match=r"'SO4', which is not there.*BEN, CA, HOH"):
        read_structure(path, Selection(remove=["SO4"]))
    with pytest.raises(StructureError, match="model 2"):
        read_structure(path, Selection(model=2))
    for wrong in (
        {"chains": "A"},
        {"waters": "5"},
        {"hydrogens": "some"},
        {"chains": ["A"], "assembly": "1"},
    ):
        with pytest.raises(ConfigError):
            Selection(**wrong)


@trypsin
def test_removal_by_name_and_by_number():
    kept = read_structure(structure_file("3PTB.pdb"), Selection(remove=["BEN", "A:480", "A:401"]))
    assert len(kept.atoms) == 1701 - 9 - 1 - 1
    assert "1 residue BEN left out" in texts(kept)


@trypsin
def test_waters_by_distance_are_those_within_it():
    everything = read_structure(structure_file("3PTB.pdb"))
    solute = coordinates(a for a in everything.atoms if a.residue_name != "HOH")
    waters = [a for a in everything.atoms if a.residue_name == "HOH"]
    distance = [np.linalg.norm(solute - coordinates([a]), axis=1).min() for a in waters]
    near_ones = read_structure(structure_file("3PTB.pdb"), Selection(waters="0.29 nm"))
    found = {a.number for a in near_ones.atoms if a.residue_name == "HOH"}
    assert found == {a.number for a, d in zip(waters, distance, strict=True) if d <= 0.29}
    assert 0 < len(found) < 62


def test_residues_missing_from_the_sequence_are_found_where_the_chain_is_broken(tmp_path):
    names = list(dict.fromkeys((line[17:20], line[22:27]) for line in GOOD))
    full = ["GLY", *(residue for residue, _ in names), "ALA", "ALA"]
    sequence = [f"SEQRES{i // 13 + 1:4d} A   33  {' '.join(full[i : i + 13])}" for i in range(0, 33, 13)]
    lines = [line for line in GOOD if int(line[22:26]) not in (25, 26)]
    structure = read_structure(write(tmp_path, [*sequence, *lines, "END"]))
    assert [(s.run, s.position, s.names) for s in structure.missing] == [
        (0, 0, ("GLY",)),
        (0, 9, ("ASN", "THR")),
        (0, 28, ("ALA", "ALA")),
    ]


def test_a_sequence_of_another_molecule_is_ignored_and_logged(tmp_path):
    path = write(tmp_path, [f"SEQRES   1 A   13  {' '.join(['TRP'] * 13)}", *GOOD, "END"])
    structure = read_structure(path)
    assert structure.missing == () and "does not fit its residues" in texts(structure)


def test_names_in_old_files_do_not_hide_the_chain_of_a_ligand(tmp_path):
    ligand = [hetatm(900 + i, f" C{i} ", "LIG", " ", 1, (i * 1.5, 0, 0), "C") for i in range(1, 3)]
    far = [put(moved(line, x=200), 22, "B") for line in GOOD]
    here = [moved(line, x=8) for line in GOOD]
    structure = read_structure(write(tmp_path, [*here, "TER", *far, "TER", *ligand, "END"]))
    assert [a.chain for a in structure.atoms if a.residue_name == "LIG"] == ["A", "A"]
    assert "LIG 1 has no chain id: nearest to chain A" in texts(structure)


# ---- a plan, and what it stands on ----


@trypsin
def test_a_plan_tells_decisions_and_what_is_in_the_way():
    plan = plan_system("3PTB", waters="none")
    assert plan.problem is not None and "BEN 1 of chain A" in str(plan.problem)
    assert "the build would stop" in str(plan) and "0 of 62 waters kept" in str(plan)
    through = plan_system("3PTB", remove=["BEN"])
    assert through.problem is None and "nothing is in the way" in str(through)
