"""Glycans under the names of the PDB take the GLYCAM residues of their bonds and stereocentres."""

import shutil
import subprocess
import sys
from pathlib import Path

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


def test_a_free_reducing_end_is_left_to_leap(tmp_path):
    """GLYCAM keeps the hydroxyl of a free end in a residue of its own, which no PDB entry has."""
    sugar = [
        line for line in CASE.read_text().splitlines() if line[17:20] not in ("ALA", "ASN", "SER", "NME")
    ]
    sugar = [line for line in sugar if line[17:20] != "ACE" and line[:3] not in ("TER", "END")]
    first = {
        line[12:16].strip(): np.array([float(line[s : s + 8]) for s in (30, 38, 46)]) for line in sugar[:14]
    }
    centre = (first["C2"] + first["O5"]) / 2
    place = first["C1"] + 1.42 * (first["C1"] - centre) / np.linalg.norm(first["C1"] - centre)
    hydroxyl = (
        sugar[0][:12] + " O1 " + sugar[0][16:30] + "".join(f"{x:8.3f}" for x in place) + sugar[0][54:76]
    )
    path = tmp_path / "free.pdb"
    path.write_text("\n".join([hydroxyl + " O", *sugar, "END"]) + "\n")
    with pytest.raises(StructureError, match="without a template of NAG") as caught:
        build_system(path, solvate=False)
    assert "reducing end" in caught.value.do and "leaprc.GLYCAM_06j-1" in caught.value.do


def test_a_ring_of_carbons_with_acids_is_no_sugar(built):
    """Control: shikimate-like names without an ether in the ring, and a sugar with its ring open."""
    sugar = next(r for r in built.topology.residues() if r.name == "MAN")
    places = {atom.name: built.positions[atom.index] for atom in sugar.atoms()}
    assert is_sugar(places)
    assert not is_sugar({name: place for name, place in places.items() if name != "O5"})
    assert not is_sugar(places | {"O5": places["O5"] + 0.1})
