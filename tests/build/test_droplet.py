"""Droplets: what is kept has its full energy, what is frozen stays, the wall conserves energy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.build.options import DropletOptions
from mlmm.build.subset import subset_system, subset_topology
from mlmm.errors import ConfigError, SelectionError, StructureError
from mlmm.options import with_changes

ROOT = Path(__file__).resolve().parents[2]
LYSOZYME = (ROOT / "systems/lysozyme_xylene/input.pdb").read_text().splitlines()
#: Heavy atoms of residues 1-30 of lysozyme: helices and a sheet, 1.9 nm across.
PEPTIDE = [
    line for line in LYSOZYME if line.startswith("ATOM") and int(line[22:26]) <= 30 and line[77] != "H"
]
SMALL = {"centre": "resSeq 12 and name CA", "radius": "1.1 nm", "mobile": "0.75 nm", "relax": 60}


def reference(system, positions):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    return context


@pytest.fixture(scope="module")
def pdb(tmp_path_factory):
    path = tmp_path_factory.mktemp("droplet") / "peptide.pdb"
    path.write_text("\n".join([*PEPTIDE, "TER", "END", ""]))
    return path


@pytest.fixture(scope="module")
def droplet(pdb):
    return build_system(pdb, solvent="droplet", droplet=SMALL)


@pytest.fixture(scope="module")
def whole(pdb):
    """The peptide without water or box."""
    return build_system(pdb, solvent="none", constraints="none")


def frozen(system):
    return np.array([system.getParticleMass(i)._value == 0 for i in range(system.getNumParticles())])


def random_mask(topology, share, seed=1):
    """Whole residues, chosen at random."""
    generator = np.random.default_rng(seed)
    keep = np.zeros(topology.getNumAtoms(), dtype=bool)
    for residue in topology.residues():
        keep[[atom.index for atom in residue.atoms()]] = generator.random() < share
    return keep


def silenced(system, keep):
    """The full system with every term switched off that touches an atom outside `keep`."""
    silent = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for force in silent.getForces():
        if isinstance(force, openmm.NonbondedForce):
            for i in np.flatnonzero(~keep):
                _, sigma, _ = force.getParticleParameters(int(i))
                force.setParticleParameters(int(i), 0.0, sigma, 0.0)
            for k in range(force.getNumExceptions()):
                i, j, _, sigma, _ = force.getExceptionParameters(k)
                if not (keep[i] and keep[j]):
                    force.setExceptionParameters(k, i, j, 0.0, sigma, 0.0)
        elif isinstance(force, openmm.HarmonicBondForce):
            for k in range(force.getNumBonds()):
                i, j, length, strength = force.getBondParameters(k)
                if not (keep[i] and keep[j]):
                    force.setBondParameters(k, i, j, length, 0 * strength)
        elif isinstance(force, openmm.HarmonicAngleForce):
            for k in range(force.getNumAngles()):
                *atoms, value, strength = force.getAngleParameters(k)
                if not keep[atoms].all():
                    force.setAngleParameters(k, *atoms, value, 0 * strength)
        elif isinstance(force, openmm.PeriodicTorsionForce):
            for k in range(force.getNumTorsions()):
                *atoms, n, phase, strength = force.getTorsionParameters(k)
                if not keep[atoms].all():
                    force.setTorsionParameters(k, *atoms, n, phase, 0 * strength)
    return silent


def test_kept_terms_have_the_energy_that_they_have_in_the_full_system(whole):
    keep = random_mask(whole.topology, 0.6)
    smaller, lost = subset_system(whole.system, keep)
    reduced = reference(smaller, whole.positions[keep])
    full = reference(silenced(whole.system, keep), whole.positions)
    expected = full.getState(energy=True, forces=True)
    state = reduced.getState(energy=True, forces=True)
    assert abs(expected.getPotentialEnergy()._value) > 100
    assert state.getPotentialEnergy()._value == pytest.approx(expected.getPotentialEnergy()._value, rel=1e-10)
    np.testing.assert_allclose(
        state.getForces(asNumpy=True)._value,
        expected.getForces(asNumpy=True)._value[keep],
        atol=1e-6,
    )
    # Broken peptide bonds were found, and at their ends only.
    topology = subset_topology(whole.topology, keep)
    assert {list(topology.atoms())[i].name for i in lost} >= {"C", "N", "CA", "O"}
    assert not any(list(topology.atoms())[i].name.startswith("HG") for i in lost)
    assert topology.getNumAtoms() == smaller.getNumParticles() == keep.sum()


def test_subset_of_everything_is_everything(whole):
    keep = np.ones(whole.n_atoms, dtype=bool)
    smaller, lost = subset_system(whole.system, keep)
    assert not lost
    energies = [
        reference(system, whole.positions).getState(energy=True).getPotentialEnergy()._value
        for system in (smaller, whole.system)
    ]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)
    custom = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(whole.system))
    custom.addForce(openmm.CustomBondForce("r"))
    with pytest.raises(StructureError, match=r"CustomBondForce.*solvent = \"box\""):
        subset_system(custom, keep)


def test_only_frozen_atoms_lost_terms_and_whole_residues_are_kept(droplet, whole):
    still = frozen(droplet.system)
    assert 0 < still.sum() < droplet.n_atoms
    complete = {(r.id, r.name): len(list(r.atoms())) for r in whole.topology.residues()}
    bonds = {}
    for topology in (whole.topology, droplet.topology):
        for bond in topology.bonds():
            for one, other in (bond, bond[::-1]):
                if one.residue.name != "HOH":
                    key = (topology is droplet.topology, one.residue.id, one.name)
                    bonds.setdefault(key, set()).add((other.residue.id, other.name))
    for residue in droplet.topology.residues():
        atoms = list(residue.atoms())
        assert len({bool(still[atom.index]) for atom in atoms}) == 1
        if residue.name == "HOH":
            continue
        assert len(atoms) == complete[residue.id, residue.name]
        for atom in atoms:
            if not still[atom.index]:
                assert bonds[True, residue.id, atom.name] == bonds[False, residue.id, atom.name]
    missing = {r.id for r in whole.topology.residues()} - {
        r.id for r in droplet.topology.residues() if r.name != "HOH"
    }
    assert missing  # the control: there were residues to delete


def test_size_and_settings_are_stated(droplet):
    decisions = "\n".join(droplet.provenance["decisions"])
    for words in (
        "droplet of radius 1.1 nm around 'resSeq 12 and name CA'",
        "whole residues of the solute deleted after parametrising",
        "every pair is computed",
        "relaxed before freezing",
        "atoms frozen beyond 0.75 nm; half-harmonic wall",
        "net charge",
    ):
        assert words in decisions, words
    assert not droplet.periodic and droplet.box_vectors is None
    assert droplet.provenance["options"]["droplet"]["mobile_nm"] == 0.75
    names = {residue.name for residue in droplet.topology.residues()}
    assert "HOH" in names and not names & {"NA", "CL"}


def test_same_input_gives_the_same_droplet(pdb, droplet):
    again = build_system(pdb, solvent="droplet", droplet=SMALL)
    np.testing.assert_array_equal(again.positions, droplet.positions)
    assert openmm.XmlSerializer.serialize(again.system) == openmm.XmlSerializer.serialize(droplet.system)


def test_frozen_atoms_do_not_move_and_energy_is_conserved_at_the_wall(pdb):
    built = build_system(pdb, solvent="droplet", droplet=SMALL, constraints="none", rigid_water=False)
    still = frozen(built.system)
    integrator = openmm.VerletIntegrator(0.00025)
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 50)
    start = context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(start[still], built.positions[still], atol=1e-6)
    context.setVelocitiesToTemperature(300, 1)
    wall = next(i for i, f in enumerate(built.system.getForces()) if f.getName() == "droplet wall")
    totals = []
    integrator.step(100)
    for _ in range(20):
        integrator.step(20)
        state = context.getState(energy=True)
        totals.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
    kinetic = state.getKineticEnergy()._value
    assert np.ptp(totals) < 0.01 * kinetic, (np.ptp(totals), kinetic)
    end = context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_array_equal(end[still], start[still])
    assert np.linalg.norm(end[~still] - start[~still], axis=1).max() > 0.01
    assert built.system.getForce(wall).getNumParticles() > 0


def test_wall_pushes_back_beyond_its_radius_only():
    from mlmm.build.surroundings.walls import spherical_wall

    system = openmm.System()
    for _ in range(3):
        system.addParticle(16.0)
    system.addForce(spherical_wall([0, 1], [1.0, 2.0, 3.0], 0.5, stiffness=1000.0))
    positions = np.array([[1.0, 2.0, 3.4], [1.0, 2.6, 3.8], [9.0, 9.0, 9.0]])
    state = reference(system, positions).getState(energy=True, forces=True)
    # 1.0 nm from the centre: 0.5 nm into the wall, along (0, 0.6, 0.8).
    assert state.getPotentialEnergy()._value == pytest.approx(0.5 * 1000 * 0.25)
    expected = [[0, 0, 0], [0, -300, -400], [0, 0, 0]]
    np.testing.assert_allclose(state.getForces(asNumpy=True)._value, expected, atol=1e-9)


def test_cutoff_is_a_choice(pdb):
    built = build_system(pdb, solvent="droplet", droplet=SMALL | {"cutoff": "0.9 nm", "relax": 0})
    force = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    assert force.getNonbondedMethod() == openmm.NonbondedForce.CutoffNonPeriodic
    assert force.getCutoffDistance()._value == pytest.approx(0.9)
    assert "pairs to 0.9 nm, with a reaction field beyond" in "\n".join(built.provenance["decisions"])
    assert built.provenance["options"]["nonbonded_method"] == app.CutoffNonPeriodic.__class__.__name__


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "centre of a droplet"),
        ({"centre": "all", "radus": "2 nm"}, "Did you mean 'radius'"),
        ({"centre": "all", "radius": "2"}, "without a unit"),
        ({"centre": "all", "radius": "2 nm", "mobile": "1.9 nm"}, r'frozen shell.*Write mobile = "1.6 nm"'),
        ({"centre": "all", "relax": "many"}, "droplet.relax"),
        ({"centre": "all", "cutoff": "0 nm"}, "cutoff above 0 nm"),
    ],
)
def test_bad_droplet_settings_are_rejected(given, words):
    with pytest.raises(ConfigError, match=words):
        with_changes(DropletOptions, None, given)


def test_a_droplet_has_one_centre_and_its_own_solvent_word(pdb):
    with pytest.raises(SelectionError, match=r"fits into the mobile radius.*chainid 0"):
        build_system(pdb, solvent="droplet", droplet=SMALL | {"centre": "protein"})
    with pytest.raises(ConfigError, match='solvent = "droplet" only'):
        build_system(pdb, droplet=SMALL)
    with pytest.raises(ConfigError, match=r"solvent = box \| droplet \| none"):
        build_system(pdb, solvent="sphere")
