"""Claims of the verification list that belong to no other file: see the table in tests/README.md."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from mm_systems import pair_loop
from openmm import app, unit
from toys import (
    ForceFieldPotential,
    chains,
    energy_and_forces,
    evaluate,
    random_zones,
    reference_context,
    zones_with,
)

import mlmm
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.dynamics.drift import energy_drift
from mlmm.errors import SelectionError
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.hybrid.spec import SWITCHING_START
from mlmm.hybrid.system import hybrid_system
from mlmm.term_weights import make_term_weights
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import molecules_of, region_from_atoms

NOTHING = Compensation({"HOH": 0.0})
LEANING = np.array([[1.8, 0.0, 0.0], [0.5, 1.75, 0.0], [-0.6, 0.4, 1.8]])


def water_in(box):
    """Flexible water, minimised on the platform whose sums are the same every time; any box."""
    built = build_bulk_water("1.8 nm", nonbonded_cutoff="0.8 nm")
    system, model = openmm.XmlSerializer.clone(built.system), app.Modeller(built.topology, built.positions)
    vectors = [openmm.Vec3(*row) for row in box.tolist()]
    system.setDefaultPeriodicBoxVectors(*vectors)
    model.topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    context = reference_context(system)
    positions = built.positions @ np.linalg.inv(built.box_vectors) @ box
    for molecule in molecules_of(built.topology):
        # Their places follow the box, their shapes stay.
        atoms = list(molecule)
        positions[atoms] = positions[atoms[0]] + built.positions[atoms] - built.positions[atoms[0]]
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    return mlmm.BuiltSystem.from_openmm(model.topology, system, positions)


@pytest.fixture(scope="module")
def leaning():
    """Water in a box that leans to all sides."""
    return water_in(LEANING)


def moving(built, potential, compensation=NOTHING, bridge="torchforce"):
    region = region_from_atoms(built.topology, range(3), "molecule")
    zones = adaptive_zones(built, region, "0.25 nm", "0.3 nm", walls=None)
    return hybrid_system(built, zones, potential, scheme="per_atom", compensation=compensation, bridge=bridge)


def static(built, potential, mm_side):
    """Lambda between 0 and 1 on whole molecules and inside some."""
    zones = zones_with(built, {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.6, 4: 0.6, 5: 0.6, 30: 0.3, 31: 0.8})
    return hybrid_system(built, zones, potential, scheme="per_atom").reassembled(mm_side=mm_side)


@pytest.mark.slow
def test_200_steps_of_a_moving_zone_are_those_of_the_force_field(leaning):
    """eps^ML = eps^MM: the same trajectory to 1e-9 nm (V2); control: 50 steps of a model 0.1 % off."""
    cell, frames = torch.tensor(leaning.box_vectors), {}
    hybrid = moving(leaning, ForceFieldPotential(leaning))
    other = moving(leaning, ForceFieldPotential(leaning, 1.001))
    for name, system, pieces in (
        ("mm", leaning.system, 4),
        ("same", hybrid.system, 4),
        ("off", other.system, 1),
    ):
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(leaning.positions)
        context.setVelocitiesToTemperature(300, 4)
        frames[name] = []
        for _ in range(pieces):
            context.getIntegrator().step(50)
            frames[name].append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    before, after = (
        hybrid.zones.weights(torch.tensor(x), cell).numpy() for x in (leaning.positions, frames["mm"][-1])
    )
    assert ((after > 0) & (after < 1)).sum() > 6 and np.abs(after - before).max() > 0.05
    assert np.abs(frames["same"][-1] - frames["mm"][-1]).max() < 1e-9
    assert np.abs(frames["off"][0] - frames["mm"][0]).max() > 1e-7


def test_weight_one_everywhere_by_a_loop_over_pairs():
    """E = E_ML + E_MM,bonded + sum over pairs of the tail, by an independent O(N²) loop (V4)."""
    built = chains(n_molecules=3, n_atoms=5, box=None)
    potential = ForceFieldPotential(built, scale=0.7)
    zones = zones_with(built, dict.fromkeys(range(built.n_atoms), 1.0))
    found = {
        mm_side: energy_and_forces(
            hybrid_system(built, zones, potential, scheme="per_atom").create_system(mm_side=mm_side),
            built.positions,
        )[0]
        for mm_side in ("openmm", "torch")
    }
    end, every = potential.spec.cutoff, np.ones(built.n_atoms, dtype=bool)
    model = potential.scriptable([6] * built.n_atoms)(torch.tensor(built.positions), None).sum()
    # All pairs of the force field less their short-ranged part: what is left is the tail.
    nonbonded = next(
        k for k, f in enumerate(built.system.getForces()) if isinstance(f, openmm.NonbondedForce)
    )
    built.system.getForce(nonbonded).setForceGroup(5)
    whole, _ = energy_and_forces(built.system, built.positions, groups=1 << 5)
    loops = {
        how: pair_loop(
            built.system, built.positions, None, every, SWITCHING_START * end, end, coulomb=how
        ).sum()
        for how in ("split", "switched")
    }
    for energy in found.values():
        assert energy == pytest.approx(float(model) + whole - loops["split"], abs=1e-8)
        # Control: the switching function that must not be, f(r) times the whole Coulomb energy.
        assert abs(energy - (float(model) + whole - loops["switched"])) > 0.1


@pytest.mark.parametrize("kind", ["openmm", "torch", "adaptive"])
def test_molecules_in_any_image_of_a_leaning_box(leaning, kind):
    """Random box vectors per molecule, triclinic box, centre anywhere and at the edge: |dE| < 1e-8 (V10)."""
    potential = ForceFieldPotential(leaning, 1.2)
    built = leaning
    hybrid = moving(built, potential) if kind == "adaptive" else static(built, potential, kind)
    context, generator = reference_context(hybrid.system), np.random.default_rng(3)
    for start in (np.zeros(3), -leaning.positions[0]):
        positions = leaning.positions + start
        before, forces = evaluate(context, positions)
        moved = np.array(positions)
        for molecule in molecules_of(built.topology):
            moved[list(molecule)] += generator.integers(-2, 3, 3) @ built.box_vectors
        after, found = evaluate(context, moved)
        assert abs(after - before) < 1e-8
        assert np.abs(found - forces).max() < 1e-8 * max(1.0, np.abs(forces).max())
        # Control: half a box vector is no image.
        moved[:3] += 0.5 * built.box_vectors[0]
        assert abs(evaluate(context, moved)[0] - before) > 1.0


def test_no_atom_with_lambda_is_refused_and_lambda_zero_changes_no_bit():
    """S empty (V3): no region, no hybrid system; weights of 0 leave the compiled system as it was."""
    built = chains(n_molecules=2, n_atoms=4)
    with pytest.raises(SelectionError, match="at least one atom"):
        zones_with(built, {})
    everything = np.ones(built.n_atoms, dtype=bool)
    term_weights = make_term_weights("per_atom", np.zeros(built.n_atoms), everything, (0.35, 0.5))
    system, embedding = scale_terms(built.system, term_weights)
    assert embedding.counts == {} and system.getNumForces() == built.system.getNumForces()
    expected, forces = energy_and_forces(built.system, built.positions)
    energy, found = energy_and_forces(system, built.positions)
    assert energy == expected and np.array_equal(found, forces)


def reordered(built, order):
    """The same system with its particles in another order: new index of old atom order[k] is k."""
    place = np.argsort(order)
    system = openmm.System()
    for old in order:
        system.addParticle(built.system.getParticleMass(int(old)))
    if built.periodic:
        system.setDefaultPeriodicBoxVectors(*built.system.getDefaultPeriodicBoxVectors())
    for force in built.system.getForces():
        other = openmm.XmlSerializer.clone(force)
        if isinstance(force, openmm.NonbondedForce):
            for old in range(built.n_atoms):
                other.setParticleParameters(int(place[old]), *force.getParticleParameters(old))
            for k in range(force.getNumExceptions()):
                a, b, *own = force.getExceptionParameters(k)
                other.setExceptionParameters(k, int(place[a]), int(place[b]), *own)
        for kind in ("Bond", "Angle", "Torsion"):
            if hasattr(force, f"getNum{kind}s"):
                for k in range(getattr(force, f"getNum{kind}s")()):
                    numbers = getattr(force, f"get{kind}Parameters")(k)
                    n = {"Bond": 2, "Angle": 3, "Torsion": 4}[kind]
                    moved = [int(place[i]) for i in numbers[:n]]
                    getattr(other, f"set{kind}Parameters")(k, *moved, *numbers[n:])
        system.addForce(other)
    topology = app.Topology()
    chain = topology.addChain()
    old_atoms, residues, new_atoms = list(built.topology.atoms()), {}, {}
    for old in order:
        # One residue for each atom: molecules are what bonds join.
        residues[old] = topology.addResidue(old_atoms[old].residue.name, chain)
        new_atoms[old] = topology.addAtom(old_atoms[old].name, old_atoms[old].element, residues[old])
    for bond in built.topology.bonds():
        topology.addBond(new_atoms[bond[0].index], new_atoms[bond[1].index])
    topology.setPeriodicBoxVectors(built.topology.getPeriodicBoxVectors())
    return mlmm.BuiltSystem.from_openmm(topology, system, built.positions[order])


@pytest.mark.parametrize("mm_side", ["openmm", "torch"])
def test_particles_in_any_order(mm_side):
    """Energy to 1e-10 of its parts and forces, atom by atom, do not depend on the order (V11)."""
    built = chains(n_molecules=3, n_atoms=5, box=None)
    weights = {0: 1.0, 1: 0.4, 2: 0.9, 6: 1.0, 7: 0.2, 11: 0.7}
    order = np.random.default_rng(3).permutation(built.n_atoms)
    place = np.argsort(order)
    other = reordered(built, order)
    found = []
    for system, at in ((built, lambda i: i), (other, lambda i: int(place[i]))):
        zones = zones_with(system, {at(i): weight for i, weight in weights.items()})
        hybrid = hybrid_system(system, zones, ForceFieldPotential(system, 1.3), scheme="per_atom")
        found.append(energy_and_forces(hybrid.create_system(mm_side=mm_side), system.positions))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-10 * max(1.0, abs(found[0][0])))
    assert np.abs(found[1][1] - found[0][1][order]).max() < 1e-10 * np.abs(found[0][1]).max()
    # Control: the same weights on other atoms are another system.
    wrong = hybrid_system(
        other, zones_with(other, weights), ForceFieldPotential(other, 1.3), scheme="per_atom"
    )
    assert abs(energy_and_forces(wrong.system, other.positions)[0] - found[0][0]) > 1e-3


@pytest.mark.parametrize("mm_side", ["openmm", "torch"])
def test_translation_and_rotation_to_ten_digits(mm_side):
    """Without cutoff: |dE| < 1e-10 kJ/mol when all atoms are shifted and turned (V11); no net force (V15)."""
    built = chains(n_molecules=3, n_atoms=5, box=None)
    hybrid = hybrid_system(
        built, random_zones(built, 9, 1), ForceFieldPotential(built, 1.3), scheme="per_atom"
    ).reassembled(mm_side=mm_side)
    context = reference_context(hybrid.system)
    energy, forces = evaluate(context, built.positions)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    shifted, _ = evaluate(context, built.positions + np.array([0.3, -0.7, 0.2]))
    turned, _ = evaluate(context, built.positions @ turn.T)
    assert abs(shifted - energy) < 1e-10 * max(1.0, abs(energy))
    assert abs(turned - energy) < 1e-10 * max(1.0, abs(energy))
    assert np.abs(forces.sum(axis=0)).max() < 1e-9
    arms = built.positions - built.positions.mean(axis=0)
    assert np.abs(np.cross(arms, forces).sum(axis=0)).max() < 1e-9
    # Control: a mirror image with other torsions is another structure.
    stretched, _ = evaluate(context, built.positions * np.array([1.0, 1.0, 1.001]))
    assert abs(stretched - energy) > 1e-3


@pytest.mark.parametrize("kind", ["openmm", "torch", "adaptive"])
def test_the_blend_has_no_net_force(leaning, kind):
    """What the blend adds sums to less than 1e-9 kJ/mol/nm under PME, whose mesh alone does not (V15)."""
    potential = ForceFieldPotential(leaning, 1.2)
    hybrid = moving(leaning, potential) if kind == "adaptive" else static(leaning, potential, kind)
    group = 1 << hybrid.force_groups["ml"]
    _, forces = energy_and_forces(hybrid.system, leaning.positions, groups=group)
    assert np.abs(forces).max() > 1.0
    assert np.abs(forces.sum(axis=0)).max() < 1e-9
    # Control: without one atom the sum is not zero.
    assert np.abs(np.delete(forces, np.abs(forces).max(axis=1).argmax(), axis=0).sum(axis=0)).max() > 1.0


@pytest.mark.slow
def test_rigid_water_around_a_flexible_zone_conserves_energy():
    """Constraints on every molecule but those of the zone, 10 ps at 0.5 fs: no drift (V19, as V14)."""
    built = build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")
    system = openmm.XmlSerializer.clone(built.system)
    for first in range(9, built.n_atoms, 3):
        for a, b, length in ((0, 1, 0.09572), (0, 2, 0.09572), (1, 2, 0.15139)):
            system.addConstraint(first + a, first + b, length)
    rigid = mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)
    zones = zones_with(rigid, dict.fromkeys(range(3), 1.0) | dict.fromkeys(range(3, 9), 0.5))
    hybrid = hybrid_system(rigid, zones, ForceFieldPotential(rigid, 1.15), scheme="per_atom")
    assert hybrid.system.getNumConstraints() == built.n_atoms - 9
    run = {"equilibration": 0.5, "length": 10.0, "timestep": 0.0005, "platform": "CPU"}
    drift, error, _ = energy_drift(hybrid.system, rigid.positions, **run)
    plain, plain_error, _ = energy_drift(system, rigid.positions, **run)
    assert abs(drift) < 0.02 + 2 * error and error < 0.03
    assert abs(drift - plain) < 0.02 + 2 * np.hypot(error, plain_error)
