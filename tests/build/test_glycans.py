"""Glycans under the names of the PDB take the GLYCAM residues of their bonds and stereocentres."""

import shutil
import subprocess
import sys
from pathlib import Path

import amber_reference
import numpy as np
import openmm
import parmed
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.build.families import GLYCAM, force_field_files
from mlmm.build.glycans import is_sugar, name_glycans
from mlmm.build.parametrise import load_force_field
from mlmm.build.plan import plan_system
from mlmm.build.templates import TemplateGraphs
from mlmm.errors import StructureError

CASE = Path(__file__).parent / "cases" / "n_glycan.pdb"
#: A core of N-glycans with fucose: names of the file, names of GLYCAM.
NAMES = ["ACE", "ALA", "ASN", "SER", "NME", "NAG", "NAG", "BMA", "MAN", "MAN", "FUC"]
GLYCAN = ["UYB", "4YB", "VMB", "0MA", "0MA", "0fA"]
TLEAP = shutil.which("tleap") or shutil.which("tleap", path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module")
def built():
    return build_system(CASE, solvate=False, constraints="none")


@pytest.fixture(scope="module")
def graphs():
    return TemplateGraphs(load_force_field(force_field_files("amber14", "tip3p", sugars=True)))


def energies(system, positions):
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return {
        force.getName(): context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        for group, force in enumerate(system.getForces())
    }


def text(built):
    return "\n".join(built.provenance["decisions"])


def test_a_glycan_of_the_pdb_is_built_and_keeps_its_names(built):
    assert [residue.name for residue in built.topology.residues()] == NAMES
    assert (built.n_atoms, built.provenance["net_charge"]) == (184, 0)
    assert GLYCAM in built.provenance["forcefield_files"]
    for name in {*GLYCAN}:
        assert f"is {name} of GLYCAM" in text(built)
    assert not any(e["warning"] for e in built.provenance["log"])
    amide = next(r for r in built.topology.residues() if r.name == "ASN")
    assert [a.name for a in amide.atoms() if a.name.startswith("HD")] == ["HD21"]


def test_terms_are_those_of_openmm_with_the_templates_named(built):
    """The same topology under GLYCAM's names, parametrised by OpenMM alone; other anomers are the control."""

    def plain(names):
        topology = built.topology
        residues = list(topology.residues())
        told = dict(zip(residues[5:], names, strict=True)) | {residues[2]: "NLN", residues[0]: "ACE"}
        files = built.provenance["forcefield_files"]
        return app.ForceField(*files).createSystem(topology, residueTemplates=told)

    found, expected = (energies(s, built.positions) for s in (built.system, plain(GLYCAN)))
    assert found.keys() == expected.keys() and found == pytest.approx(expected, rel=1e-9)
    other = energies(plain(["UYA", "4YA", "VMA", "0MB", "0LA", "0FA"]), built.positions)
    assert abs(other["NonbondedForce"] - found["NonbondedForce"]) > 1


def test_a_dry_run_shows_the_glycan_under_its_names():
    plan = plan_system(CASE)
    assert plan.problem is None and "beta-D-GlcNAc" in str(plan)
    assert [residue.name for residue in plan.planned.topology.residues()] == NAMES


@pytest.mark.skipif(TLEAP is None, reason="tleap of AmberTools is not installed")
def test_every_pyranose_of_amber_is_known_by_its_shape(graphs, tmp_path):
    """LEaP builds each sugar, both series, both anomers; mirrored, each is the other series."""
    sugars = "GMLNEKTRAXDFQHYWVZOU"
    letters = [form for letter in sugars for form in (letter, letter.lower())]
    names = [f"0{letter}{anomer}" for letter in letters for anomer in "AB"]
    names = [name for name in names if name in graphs.names] + ["0SA", "0SB"]
    lines = ["source leaprc.GLYCAM_06j-1"]
    lines += [f"m{i} = sequence {{ ROH {name} }}" for i, name in enumerate(names)]
    whole = " ".join(f"m{i}" for i in range(len(names)))
    lines += [f"x = combine {{ {whole} }}", "saveamberparm x all.parm7 all.rst7", "quit"]
    (tmp_path / "leap.in").write_text("\n".join(lines))
    subprocess.run([TLEAP, "-f", "leap.in"], cwd=tmp_path, check=True, capture_output=True)
    structure = parmed.load_file(str(tmp_path / "all.parm7"), str(tmp_path / "all.rst7"))
    positions = np.array(structure.coordinates) / 10
    found, mirrored = [], []
    for collected, places in ((found, positions), (mirrored, positions * [1, 1, -1])):
        topology = structure.topology
        for residue in topology.residues():
            if residue.name != "ROH":
                residue.name = "XXX"
        name_glycans(topology, places, graphs, set())
        collected += [r.name for r in topology.residues() if r.name != "ROH"]
    assert len(names) > 70 and found == names
    assert mirrored == [name[0] + name[1].swapcase() + name[2] for name in names]


def test_a_sugar_of_another_configuration_is_said(tmp_path):
    """The file calls a mannose by the name of its anomer: the coordinates decide."""
    lines = [line.replace("MAN B   4", "BMA B   4") for line in CASE.read_text().splitlines()]
    path = tmp_path / "named.pdb"
    path.write_text("\n".join(lines) + "\n")
    warned = [decision.text for decision in plan_system(path, solvate=False).decisions if decision.warning]
    assert len(warned) == 1 and "BMA 4 of chain B is 0MA of GLYCAM: alpha-D-Man" in warned[0]


def test_a_force_field_without_glycans_says_which_has_them():
    with pytest.raises(StructureError, match="ND2 of ASN 3 of chain A - C1 of NAG 1") as caught:
        build_system(CASE, solvate=False, forcefield="amber19")
    assert 'forcefield = "amber14"' in caught.value.do


def free_end(folder, hydrogen=False):
    """The glycan of the case without its protein: O1 where the amide's nitrogen was."""
    lines, sugar, place = CASE.read_text().splitlines(), [], None
    for line in lines:
        if line[12:16] == " ND2" and line[17:20] == "ASN":
            place = np.array([float(line[start : start + 8]) for start in (30, 38, 46)])
        if line.startswith(("ATOM", "HETATM")) and line[21] == "B":
            sugar.append(line)
    first = sugar[0]
    added = [(" O1 ", place, "O")] + ([(" HO ", place + np.array([0.6, 0.6, 0.45]), "H")] if hydrogen else [])
    for name, (x, y, z), element in added:
        sugar.insert(0, f"{first[:12]}{name}{first[16:30]}{x:8.3f}{y:8.3f}{z:8.3f}{first[54:76]} {element}")
    path = folder / "free.pdb"
    path.write_text("\n".join([*sugar, "END"]) + "\n")
    return path


FREE = ["NAG", "ROH", *NAMES[6:]]


@pytest.mark.parametrize("hydrogen", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_free_reducing_end_has_the_hydroxyl_of_glycam(tmp_path, hydrogen):
    built = build_system(free_end(tmp_path, hydrogen), solvate=False, constraints="none")
    residues = list(built.topology.residues())
    assert [residue.name for residue in residues] == FREE
    assert (residues[1].id, residues[1].chain.id) == (residues[0].id, residues[0].chain.id)
    assert sorted(atom.name for atom in residues[1].atoms()) == ["HO1", "O1"]
    assert built.provenance["net_charge"] == 0 and "NAG 1 of chain B has a free reducing end" in text(built)
    names = dict(zip(residues, [GLYCAN[0], "ROH", *GLYCAN[1:]], strict=True))
    plain = app.ForceField(*built.provenance["forcefield_files"]).createSystem(
        built.topology, residueTemplates=names
    )
    found, expected = (energies(s, built.positions) for s in (built.system, plain))
    assert found == pytest.approx(expected, rel=1e-9)
    if TLEAP is not None and not hydrogen:
        leaprc = ["leaprc.GLYCAM_06j-1"]
        structure, order = amber_reference.by_leap(tmp_path, built, leaprc, names)
        peer = energies(structure.createSystem(), built.positions[order])
        for term in ("HarmonicBondForce", "HarmonicAngleForce", "NonbondedForce"):
            assert found[term] == pytest.approx(peer[term], rel=1e-6)


def test_a_free_end_is_told_by_its_bonds_not_by_the_names_of_its_oxygens(tmp_path):
    """Entries of the PDB from before 2020 call the hydroxyl of NDG O1L, and the oxygen of its ring O."""
    path = free_end(tmp_path)
    renamed = {"NAG B   1": {" O1 ": " O1L", " O5 ": " O  "}}
    lines = [
        line[:12] + renamed.get(line[17:26], {}).get(line[12:16], line[12:16]) + line[16:]
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    plan = plan_system(path, solvate=False)
    assert plan.problem is None
    names = [residue.name for residue in plan.planned.topology.residues()]
    assert names == FREE and "NAG 1 of chain B has a free reducing end" in str(plan)


def test_the_anomer_of_a_free_end_is_that_of_its_coordinates(tmp_path):
    """O1 on the other side of the ring, in place of the hydrogen: alpha."""
    path = free_end(tmp_path)
    lines = path.read_text().splitlines()
    at = {
        line[12:16].strip(): np.array([float(line[start : start + 8]) for start in (30, 38, 46)])
        for line in lines[:15]
    }
    normal = np.cross(at["O5"] - at["C1"], at["C2"] - at["C1"])
    normal /= np.linalg.norm(normal)
    x, y, z = at["O1"] - 2 * np.dot(at["O1"] - at["C1"], normal) * normal
    lines[0] = f"{lines[0][:30]}{x:8.3f}{y:8.3f}{z:8.3f}{lines[0][54:]}"
    path.write_text("\n".join(lines) + "\n")
    said = str(plan_system(path, solvate=False))
    assert "NAG 1 of chain B is UYA of GLYCAM" in said and "NAG means beta-D-GlcNAc" in said


def test_a_free_end_without_glycam_is_left_to_leap(tmp_path):
    with pytest.raises(StructureError, match="NAG") as caught:
        build_system(free_end(tmp_path), solvate=False, forcefield="amber19")
    assert "leaprc.GLYCAM_06j-1" in caught.value.do


def test_a_ring_of_carbons_with_acids_is_no_sugar(built):
    """Control: shikimate-like names without an ether in the ring, and a sugar with its ring open."""
    sugar = next(r for r in built.topology.residues() if r.name == "MAN")
    places = {atom.name: built.positions[atom.index] for atom in sugar.atoms()}
    assert is_sugar(places)
    assert not is_sugar({name: place for name, place in places.items() if name != "O5"})
    assert not is_sugar(places | {"O5": places["O5"] + 0.1})
