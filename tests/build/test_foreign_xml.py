"""XML of strangers: code in a force field or a serialised System is refused, and does not run."""

import hashlib
import os
from pathlib import Path

import openmm
import pytest
from openmm import app, unit
from toys import SpringPotential, chains

from mlmm.build import BuiltSystem, build_system, plan_system
from mlmm.build.foreign_xml import read_serialised
from mlmm.build.parametrised.serialised import load_openmm
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Minimise
from mlmm.errors import ConfigError, MLMMError, StructureError
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

PDB = Path(__file__).parents[2] / "systems/alanine_dipeptide/input.pdb"
RESIDUE = '<Residues><Residue name="LIG"/></Residues>'


class Harm:
    """Called by OpenMM it is a force, unpickled it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __call__(self, state):
        return 0.0

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def force_field(code: str, where: Path) -> Path:
    where.write_text(f"<ForceField>\n{RESIDUE}\n{code}\n</ForceField>", encoding="utf-8")
    return where


CODE = {
    "script": ("<Script>__import__('os').mkdir({!r})</Script>", r"<Script> in .*bad\.xml, line 3"),
    "at the start": (
        "<InitializationScript>__import__('os').mkdir({!r})</InitializationScript>",
        r"<InitializationScript> in .*bad\.xml, line 3",
    ),
    "evaluated": (
        "<LennardJonesForce lj14scale='1' useDispersionCorrection=\"__import__('os').mkdir({!r})\"/>",
        r"useDispersionCorrection=.*bad\.xml, line 3",
    ),
}


@pytest.mark.parametrize("kind", CODE)
@pytest.mark.parametrize("build", [build_system, plan_system])
def test_code_in_a_ligand_file_does_not_run(tmp_path, kind, build):
    code, words = CODE[kind]
    marker = tmp_path / "ran"
    bad = force_field(code.format(str(marker)), tmp_path / "bad.xml")
    problem = refusal(build, ligands=[bad])
    assert not marker.exists()
    with pytest.raises(ConfigError, match=f"{words}.*trust = true"):
        raise problem
    # It is the harm that it is taken for: trusted, it runs; a script when parameters are given.
    refusal(build, ligands=[bad], trust=True)
    assert marker.exists() == ((build, kind) != (plan_system, "script"))


def refusal(build, **options) -> MLMMError | None:
    """What stops a build or the plan of one."""
    try:
        return getattr(build(PDB, solvate=False, **options), "problem", None)
    except MLMMError as error:
        return error


def test_code_in_an_included_file_does_not_run(tmp_path):
    """Also two files deep, beside the file that includes it; a circle of files ends."""
    marker = tmp_path / "ran"
    (tmp_path / "deep").mkdir()
    force_field(CODE["script"][0].format(str(marker)), tmp_path / "deep/bad.xml")
    force_field('<Include file="bad.xml"/><Include file="middle.xml"/>', tmp_path / "deep/middle.xml")
    outer = force_field('<Include file="deep/middle.xml"/>', tmp_path / "outer.xml")
    with pytest.raises(ConfigError, match=r"<Script> in .*deep/bad\.xml, line 3"):
        build_system(PDB, solvate=False, forcefield=[str(outer)])
    assert not marker.exists()


def test_code_by_way_of_an_entity_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    code = CODE["script"][0].format(str(marker))
    bad = tmp_path / "bad.xml"
    bad.write_text(f'<!DOCTYPE x [<!ENTITY e "{code}">]>\n<ForceField>{RESIDUE}&e;</ForceField>')
    with pytest.raises(ConfigError, match="<Script> in"):
        build_system(PDB, solvate=False, ligands=[bad])
    assert not marker.exists()


def test_a_file_with_the_name_of_a_shipped_force_field_is_not_trusted(tmp_path, monkeypatch):
    """OpenMM takes the one in the working folder before its own."""
    marker = tmp_path / "ran"
    (tmp_path / "implicit").mkdir()
    force_field(CODE["script"][0].format(str(marker)), tmp_path / "implicit/obc2.xml")
    files = ["amber14/protein.ff14SB.xml", "implicit/obc2.xml"]
    build_system(PDB, solvate=False, forcefield=files)  # OpenMM's own has a script as well
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"<Script> in implicit/obc2\.xml"):
        build_system(PDB, solvate=False, forcefield=files)
    assert not marker.exists()


def with_harm(system: openmm.System, marker: Path) -> str:
    """XML of the system with a force whose pickle makes a folder."""
    copied = openmm.XmlSerializer.clone(system)
    copied.addForce(openmm.PythonForce(Harm(marker)))
    return openmm.XmlSerializer.serialize(copied)


def test_python_in_a_serialised_system_does_not_run(dipeptide_vacuum, tmp_path):
    built, marker = dipeptide_vacuum, tmp_path / "ran"
    (tmp_path / "system.xml").write_text(with_harm(built.system, marker))
    with open(tmp_path / "model.cif", "w", encoding="utf-8") as file:
        app.PDBxFile.writeFile(built.topology, built.positions * unit.nanometer, file)
    problem = None
    try:
        load_openmm(tmp_path / "system.xml", tmp_path / "model.cif")
    except MLMMError as error:
        problem = error
    assert not marker.exists()
    assert "a PythonForce in system.xml, line" in str(problem)


def test_python_in_a_saved_build_does_not_run(dipeptide_vacuum, tmp_path):
    """With the right checksum in built.json, which whoever changes the one changes too."""
    folder, marker = tmp_path / "built", tmp_path / "ran"
    before = dipeptide_vacuum.save(folder) / "system.xml"
    index = (folder / "built.json").read_text()
    old = hashlib.sha256(before.read_bytes()).hexdigest()
    before.write_text(with_harm(dipeptide_vacuum.system, marker))
    new = hashlib.sha256(before.read_bytes()).hexdigest()
    (folder / "built.json").write_text(index.replace(old, new))
    problem = None
    try:
        BuiltSystem.load(folder)
    except MLMMError as error:
        problem = error
    assert not marker.exists()
    assert "a PythonForce in" in str(problem)


def test_python_in_a_checkpoint_does_not_run(tmp_path):
    built, marker = chains(), tmp_path / "ran"
    hybrid = hybrid_system(
        built, hard_zones(built, region_from_atoms(built.topology, range(4))), SpringPotential()
    )
    run = simulate(hybrid, tmp_path / "run", [Minimise(max_iterations=1)], platform="Reference")
    checkpoint = run.read_checkpoint()
    harm = openmm.XmlSerializer.serialize(openmm.PythonForce(Harm(marker)))
    facts = dict(checkpoint.__dict__) | {"state": harm, "stage": 0}
    summary = run.summary | {"state": "interrupted"}
    run.write_summary(summary)
    RunDirectory(run.path).write_checkpoint(type(checkpoint)(**facts))
    problem = None
    try:
        simulate(hybrid, run.path, [Minimise(max_iterations=1)], platform="Reference", resume=True)
    except Exception as error:  # before the mend OpenMM's own
        problem = error
    assert not marker.exists()
    assert isinstance(problem, StructureError) and "a PythonForce in state.xml of the checkpoint" in str(
        problem
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '<System type="System"><Forces><Force type="TorchForce" file=""/></Forces></System>',
            "a TorchForce",
        ),
        ('<System type="System"><!-- > --></System>', "a comment, declaration or instruction in x, line 1"),
        ('<?xml version="1.0" ?>\n<![CDATA[<]]>', "declaration or instruction in x, line 2"),
        ('<System type="System"', "unclosed token"),
        ("<System/>", "a serialised None"),
    ],
)
def test_other_xml_is_refused(text, words):
    with pytest.raises(StructureError, match=words):
        read_serialised(text, "System", "x")


def test_every_force_of_openmm_is_read(dipeptide_water):
    """Nothing that OpenMM writes for its own forces is taken for a stranger's."""
    system = openmm.System()
    for made in openmm.Force.__subclasses__():
        try:
            system.addForce(made())
        except (TypeError, ValueError, AttributeError, IndexError, openmm.OpenMMException):
            continue  # it needs arguments
    assert system.getNumForces() > 15
    custom = openmm.CustomNonbondedForce("f(r)")
    custom.addTabulatedFunction("f", openmm.Continuous1DFunction([0.0, 1.0, 0.0], 0.0, 1.0))
    system.addForce(custom)
    for one in (system, dipeptide_water.system):
        text = openmm.XmlSerializer.serialize(one)
        assert openmm.XmlSerializer.serialize(read_serialised(text, "System", "x")) == text
