"""BuiltSystem: taken over from OpenMM, and given back bit by bit after saving."""

import dataclasses
import pickle

import numpy as np
import openmm
import pytest
from openmm import app, unit

from mlmm.build import BuiltSystem
from mlmm.build.topology_json import topology_from_dict, topology_to_dict
from mlmm.errors import ConfigError, StructureError


def argon(periodic=True):
    """Two argon atoms with a bond of known type and an extra particle without element."""
    topology = app.Topology()
    chain = topology.addChain("Z")
    residue = topology.addResidue("ARG", chain, "12", "B")
    first = topology.addAtom("A1", app.element.argon, residue, "7", 1)
    second = topology.addAtom("A2", app.element.argon, residue, "9")
    topology.addAtom("EP", None, residue, "10")
    topology.addBond(first, second, app.topology.Aromatic, 2)
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(3):
        system.addParticle(39.948)
        force.addParticle(0.0, 0.34, 1.0)
    if periodic:
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        system.setDefaultPeriodicBoxVectors([3, 0, 0], [0.1, 3, 0], [0, 1 / 3, 3])
    system.addForce(force)
    return topology, system, np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 1 / 3, 0.0]])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: unit.Quantity(10 * x, unit.angstrom),
        lambda x: [openmm.Vec3(*row) for row in x],
        lambda x: [openmm.Vec3(*row) * unit.nanometer for row in x],
        lambda x: [openmm.Vec3(*row) for row in x] * unit.nanometer,
    ],
)
def test_from_openmm_takes_every_kind_of_positions(convert):
    topology, system, positions = argon()
    built = BuiltSystem.from_openmm(topology, system, convert(positions))
    np.testing.assert_allclose(built.positions, positions, rtol=1e-15)
    assert built.n_atoms == 3 and not built.positions.flags.writeable


def test_box_of_the_system_wins_and_arguments_stay_untouched():
    topology, system, positions = argon()
    topology.setUnitCellDimensions(openmm.Vec3(5, 5, 5) * unit.nanometer)
    built = BuiltSystem.from_openmm(topology, system, positions)
    np.testing.assert_array_equal(built.box_vectors, [[3, 0, 0], [0.1, 3, 0], [0, 1 / 3, 3]])
    assert built.topology.getPeriodicBoxVectors()[1][0] == 0.1 * unit.nanometer
    assert topology.getUnitCellDimensions()[0] == 5 * unit.nanometer
    assert "default box" in "".join(built.provenance["decisions"])
    topology, system, positions = argon(periodic=False)
    topology.setUnitCellDimensions(openmm.Vec3(5, 5, 5) * unit.nanometer)
    built = BuiltSystem.from_openmm(topology, system, positions, {"source": "mine"})
    assert not built.periodic and built.box_vectors is None and built.topology.getPeriodicBoxVectors() is None
    assert built.provenance["source"] == "mine" and "no force is periodic" in "".join(
        built.provenance["decisions"]
    )


def test_disagreeing_parts_are_refused():
    topology, system, positions = argon()
    with pytest.raises(StructureError, match=r"3 atoms in the topology.*shape \(2, 3\).*same molecule"):
        BuiltSystem.from_openmm(topology, system, positions[:2])
    with pytest.raises(StructureError, match=r"finite.*nan.*atom 1"):
        BuiltSystem.from_openmm(topology, system, positions * np.array([[1.0], [np.nan], [1.0]]))
    with pytest.raises(StructureError, match=r"positions as an array.*str"):
        BuiltSystem.from_openmm(topology, system, "abc")
    with pytest.raises(StructureError, match=r"both periodic.*from_openmm"):
        BuiltSystem(topology, positions, system)


def test_topology_survives_json_exactly():
    topology, system, _ = argon()
    topology.setPeriodicBoxVectors(system.getDefaultPeriodicBoxVectors())
    data = topology_to_dict(topology)
    again = topology_from_dict(data)
    assert topology_to_dict(again) == data
    bond = next(again.bonds())
    assert bond.type is app.topology.Aromatic and bond.order == 2
    residue = next(again.residues())
    assert (residue.chain.id, residue.id, residue.insertionCode) == ("Z", "12", "B")
    assert [atom.element for atom in again.atoms()] == [app.element.argon, app.element.argon, None]
    assert [atom.formalCharge for atom in again.atoms()] == [1, None, None]


def test_save_and_load_give_back_every_bit(tmp_path):
    built = BuiltSystem.from_openmm(*argon(), {"source": "argon", "number": 1 / 3})
    again = BuiltSystem.load(built.save(tmp_path / "built"))
    assert again.positions.tobytes() == built.positions.tobytes()
    assert openmm.XmlSerializer.serialize(again.system) == openmm.XmlSerializer.serialize(built.system)
    assert topology_to_dict(again.topology) == topology_to_dict(built.topology)
    assert again.provenance == built.provenance
    built.save(tmp_path / "built")  # over an older one
    assert sorted(file.name for file in (tmp_path / "built").iterdir()) == [
        "built.json",
        "positions.npy",
        "system.xml",
    ]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "built.json").unlink(), ["no file built.json", "Build the system again"]),
        (lambda folder: (folder / "system.xml").unlink(), ["no file system.xml"]),
        (lambda folder: (folder / "built.json").write_text('{"format": 1'), ["not JSON"]),
        (lambda folder: (folder / "built.json").write_text('{"format": 9}'), ["format 9 instead of 1"]),
        (
            lambda folder: (folder / "system.xml").write_text("<System/>"),
            ["system.xml that is not the file described"],
        ),
    ],
)
def test_damaged_folder_is_not_taken_for_a_system(tmp_path, damage, words):
    BuiltSystem.from_openmm(*argon()).save(tmp_path / "built")
    damage(tmp_path / "built")
    with pytest.raises(StructureError) as caught:
        BuiltSystem.load(tmp_path / "built")
    for word in words:
        assert word in str(caught.value)


def test_provenance_that_is_no_json_is_refused(tmp_path):
    built = BuiltSystem.from_openmm(*argon(), {"array": np.zeros(3)})
    with pytest.raises(ConfigError, match="JSON-able provenance"):
        built.save(tmp_path / "built")
    assert not (tmp_path / "built" / "built.json").exists()


def four_site_water() -> BuiltSystem:
    force_field = app.ForceField("amber14/tip4pew.xml")
    model = app.Modeller(app.Topology(), [])
    model.addSolvent(force_field, model="tip4pew", numAdded=3)
    system = force_field.createSystem(model.topology, nonbondedMethod=app.NoCutoff)
    model.topology.setPeriodicBoxVectors(None)
    return BuiltSystem.from_openmm(model.topology, system, model.positions)


def test_facts_are_those_of_topology_and_system():
    built = four_site_water()
    assert built.numbers.tolist() == [8, 1, 1, 0] * 3
    assert built.virtual_sites.tolist() == [False, False, False, True] * 3
    assert built.bonds.tolist() == [[b[0].index, b[1].index] for b in built.topology.bonds()]
    # The site has no bond and still goes with its molecule.
    assert built.molecules == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11))
    assert built.label(4) == built.labels[4] == "HOH2:O" and len(built.labels) == 12


def test_facts_are_read_once_and_cannot_be_written():
    built = four_site_water()
    for name in ("numbers", "virtual_sites", "bonds"):
        assert getattr(built, name) is getattr(built, name)
        with pytest.raises(ValueError, match="read-only"):
            getattr(built, name)[0] = 0
    assert built.molecules is built.molecules and built.labels is built.labels


def test_facts_belong_to_one_system_and_are_not_stored(tmp_path):
    """A changed copy, a pickled one and a saved one read their own; nothing else is kept of them."""
    built = four_site_water()
    assert built.numbers.any() and built.molecules and built.bonds.any()
    system = openmm.XmlSerializer.clone(built.system)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    assert dataclasses.replace(built, system=system).virtual_sites.sum() == 4 == built.virtual_sites.sum() + 1
    content = pickle.dumps(built)
    again = pickle.loads(content)
    assert set(vars(again)) == {own.name for own in dataclasses.fields(built)}
    assert again.molecules == built.molecules
    np.testing.assert_array_equal(again.numbers, built.numbers)
    loaded = BuiltSystem.load(built.save(tmp_path / "saved"))
    assert loaded.labels == built.labels and loaded.bonds.tolist() == built.bonds.tolist()
