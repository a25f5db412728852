"""Adaptive zones and scheme ``supermolecular`` without torch in the loop: the plugin against torch."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import openmm
import pytest
from adaptive_water import around_one, relaxed_water
from ani_contexts import context_of, picked, tolerance
from mm_systems import random_force
from toys import energy_and_forces, evaluate, reference_context

import mlmm
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.uncertainty import _contributions, measure_uncertainty
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.hybrid.assemble import assemble, join
from mlmm.hybrid.native_force import member_evaluation
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.plugin import AdaptiveANIForce, SupermolecularANIForce, plugin_problem
from mlmm.plugin.members import as_force
from mlmm.potentials import load_potential
from mlmm.potentials.ani.native import instruction_set
from mlmm.potentials.committee import member_forces
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(
        instruction_set() is None or plugin_problem() is not None,
        reason="built without a compiler or the plugin",
    ),
]

#: A curve whose pieces differ, and an alignment.
CURVE = Compensation({"HOH": -3.3}, np.array([0.0, 0.2, 0.6, 1.0]), {"HOH": np.array([0.5, 1.0, -2.0, 4.0])})
#: Of max|F|: the same networks in float64, and those in torch, whose constants are rounded otherwise.
EXACT, IN_TORCH = 1e-11, 2e-8


def networks(precision="float64", kernel="native", members=(0, 1)):
    return load_potential("ani1x", members=members, precision=precision, kernel=kernel)


@pytest.fixture(scope="module")
def water():
    return relaxed_water()


def crowded(built):
    """More terms of every class among the first molecules, core and zone alike; Lennard-Jones switched."""
    system, generator = copy.deepcopy(built.system), np.random.default_rng(11)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.setUseSwitchingFunction(True)
    nonbonded.setSwitchingDistance(0.4)
    nonbonded.setExceptionsUsePeriodicBoundaryConditions(True)
    for kind in ("bond", "angle", "torsion", "improper", "RB", "CMAP"):
        force = random_force(kind, generator)
        force.setUsesPeriodicBoundaryConditions(kind != "angle")
        system.addForce(force)
    for a, b in ((0, 3), (1, 6), (4, 7), (2, 5)):
        nonbonded.addException(a, b, generator.normal(0, 0.2), 0.25, 0.6)
    for index in range(nonbonded.getNumExceptions()):
        a, b, charge, _, epsilon = nonbonded.getExceptionParameters(index)
        if a < 6 and b < 6 and charge._value == 0 and epsilon._value == 0:
            # Pairs inside molecules of which something is left.
            nonbonded.setExceptionParameters(index, a, b, 0.05, 0.2, 0.3)
    return mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)


def by_mass(zones):
    """Centres of mass, one of them far from the first atom, in place of the oxygens; two centres."""
    shares = [(0.6, 0.3, 0.1) for _ in zones.molecules]
    return dataclasses.replace(zones, anchors=tuple(shares), centres=(0, 4))


def adaptive(built, bridge, potential, zones=None, compensation=CURVE) -> HybridSystem:
    zones = around_one(built, "0.2 nm", "0.3 nm", molecules=2) if zones is None else zones
    return hybrid_system(built, zones, potential, scheme="per_atom", compensation=compensation, bridge=bridge)


def supermolecular(built, bridge, potential, atoms=range(6)) -> HybridSystem:
    region = region_from_atoms(built.topology, atoms, "atoms")
    return hybrid_system(built, hard_zones(built, region), potential, scheme="supermolecular", bridge=bridge)


def model(hybrid, positions, platform=("Reference", {})):
    """Energy and forces of what is added to OpenMM, where the platform has the atoms, and those positions."""
    groups = 1 << hybrid.force_groups["ml"]
    context = context_of(hybrid.system, platform)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True, positions=True, groups=groups)
    where = state.getPositions(asNumpy=True)._value
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value, where


def cases(water):
    """Built systems and makers of hybrids that differ in all that the forces hold."""
    many = crowded(water)
    return {
        "adaptive": (water, adaptive),
        "every term": (many, adaptive),
        "by mass": (
            many,
            lambda built, *rest: adaptive(built, *rest, by_mass(around_one(built, "0.2 nm", "0.3 nm", 2))),
        ),
        "supermolecular": (water, supermolecular),
    }


@pytest.mark.parametrize("case", ["adaptive", "every term", "by mass", "supermolecular"])
def test_they_equal_torch(water, case, monkeypatch):
    """Reference and CPU in float64 against terms, pairs and zone in torch, and networks in torch too."""
    built, make = cases(water)[case]
    with monkeypatch.context() as patch:
        patch.setenv("MLMM_KERNEL", "torch")
        energy, forces, _ = model(make(built, "pythonforce", networks()), built.positions)
        in_torch = model(make(built, "pythonforce", networks(kernel="torch")), built.positions)
    native = make(built, "native", networks())
    largest = np.abs(forces).max()
    assert largest > 500 and native.bridge == "native"
    for platform in (("Reference", {}), ("CPU", {"Threads": "2"})):
        found = model(native, built.positions, platform)
        assert found[0] == pytest.approx(energy, rel=EXACT, abs=1e-8)
        assert np.abs(found[1] - forces).max() < EXACT * largest
        assert found[0] == pytest.approx(in_torch[0], rel=1e-7)
        assert np.abs(found[1] - in_torch[1]).max() < IN_TORCH * largest
        # Whatever acts on the zone acts back: the networks, lambda and its centres, replaced terms.
        assert np.abs(found[1].sum(axis=0)).max() < 1e-11 * np.abs(forces).sum()
    single, other = (
        model(make(built, bridge, networks("float32")), built.positions)
        for bridge in ("native", "pythonforce")
    )
    assert np.abs(single[1] - other[1]).max() < EXACT * largest
    assert 0 < np.abs(single[1] - forces).max() < 5e-6 * largest


@pytest.mark.parametrize("platform", picked("GPU-single", "GPU-mixed", "GPU-double"))
def test_they_run_on_a_gpu_platform(water, platform):
    """As on Reference at the positions of the platform, twice the same forces bit for bit; controls fail.

    Not every term in single precision: pairs inside molecules, which are added and taken away, are 500
    times what remains.
    """
    single = platform[1]["Precision"] == "single"
    for case in ("adaptive" if single else "every term", "by mass", "supermolecular"):
        if single and case == "by mass":
            continue
        built, make = cases(water)[case]
        hybrid = make(built, "native", networks())
        groups = 1 << hybrid.force_groups["ml"]
        context = context_of(hybrid.system, platform)
        context.setPositions(built.positions)
        found = [context.getState(energy=True, forces=True, positions=True, groups=groups) for _ in range(2)]
        forces, again = (state.getForces(asNumpy=True)._value for state in found)
        where = found[0].getPositions(asNumpy=True)._value
        energy, expected, _ = model(hybrid, where)
        largest = np.abs(expected).max()
        assert np.array_equal(forces, again)
        assert np.abs(forces - expected).max() < tolerance(platform) * largest
        assert found[0].getPotentialEnergy()._value == pytest.approx(energy, rel=1e-5)
        # Whatever acts on the zone acts back.
        assert np.abs(forces.sum(axis=0)).max() < 1e-6 * largest
        if make is adaptive:
            _, other = energy_and_forces(without_force_of_weights(hybrid), where, groups)
            assert np.abs(forces - other).max() > 1e-3 * largest


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
@pytest.mark.parametrize("kind", ["adaptive", pytest.param("supermolecular", marks=pytest.mark.slow)])
def test_identical_molecules_may_change_places_in_memory(water, kind, platform):
    """After 600 steps, in which the platform sorts molecules by place, as on Reference at those positions."""
    hybrid = {"adaptive": adaptive, "supermolecular": supermolecular}[kind](water, "native", networks())
    group = hybrid.force_groups["ml"]
    integrator = openmm.LangevinMiddleIntegrator(600.0, 5.0, 0.0005)
    integrator.setRandomNumberSeed(2)
    # The model does not move them: only its agreement counts here.
    integrator.setIntegrationForceGroups(set(range(32)) - {group})
    context = context_of(hybrid.system, platform, integrator)
    context.setPositions(water.positions)
    context.setVelocitiesToTemperature(600.0, 1)
    integrator.step(600)
    state = context.getState(positions=True, forces=True, energy=True, groups={group})
    where = state.getPositions(asNumpy=True)._value
    assert np.abs(where - water.positions).max() > 0.05
    energy, expected, _ = model(hybrid, where)
    assert state.getPotentialEnergy()._value == pytest.approx(energy, rel=1e-5, abs=1e-2)
    difference = np.abs(state.getForces(asNumpy=True)._value - expected).max()
    assert difference < 2 * tolerance(platform) * np.abs(expected).max()


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
@pytest.mark.parametrize("kind", ["adaptive", "supermolecular"])
def test_boxes_and_checkpoints_on_a_gpu(water, kind, platform):
    """A barostat, and a way twice from a checkpoint; in each place the forces of Reference."""
    hybrid = {"adaptive": adaptive, "supermolecular": supermolecular}[kind](water, "native", networks())
    groups, system = 1 << hybrid.force_groups["ml"], copy.deepcopy(hybrid.system)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 2)
    barostat.setRandomNumberSeed(3)
    system.addForce(barostat)
    context = context_of(system, platform, openmm.VerletIntegrator(0.0002))
    context.setPositions(water.positions)
    context.setVelocitiesToTemperature(300.0, 5)
    context.getIntegrator().step(10)
    checkpoint, ends = context.createCheckpoint(), []
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        context.getIntegrator().step(10)
        ends.append(context.getState(positions=True, forces=True, groups=groups))
    places = [state.getPositions(asNumpy=True)._value for state in ends]
    assert np.abs(places[1] - places[0]).max() < 1e-5 < np.abs(places[0] - water.positions).max()
    box = ends[1].getPeriodicBoxVectors()
    assert abs(box[0][0]._value - water.box_vectors[0][0]) > 1e-6
    reference = context_of(hybrid.system, ("Reference", {}))
    reference.setPeriodicBoxVectors(*box)
    _, expected = evaluate(reference, places[1], groups)
    difference = np.abs(ends[1].getForces(asNumpy=True)._value - expected).max()
    assert difference < 2 * tolerance(platform) * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("platform", picked("OpenCL-double"))
def test_on_two_devices_they_are_what_they_are_on_one(water, platform):
    """All their work is done on the first."""
    for make in (adaptive, supermolecular):
        hybrid = make(water, "native", networks())
        found = [
            model(hybrid, water.positions, (platform[0], platform[1] | {"DeviceIndex": devices}))
            for devices in ("0", "0,0")
        ]
        assert found[1][0] == pytest.approx(found[0][0], abs=1e-6)
        assert np.abs(found[1][1] - found[0][1]).max() < 1e-7 * np.abs(found[0][1]).max()


@pytest.mark.slow
@pytest.mark.parametrize("platform", picked("GPU-double"))
@pytest.mark.parametrize("case", ["neighbours", "rows"])
def test_lists_on_a_gpu_grow(case, platform):
    """More neighbours than there is room for at first, or more atoms with networks: as on the processor.

    The latter by a committee of 24 alike members: 64 MB have room for 1,200 atoms.
    """
    built, scale = build_bulk_water("2.8 nm", nonbonded_cutoff="0.8 nm"), 1.0
    if case == "rows":
        one = networks(members=(0,)).parameters
        many = dataclasses.replace(one, weights=repeated(one.weights), biases=repeated(one.biases))
        system = copy.deepcopy(built.system)
        force = SupermolecularANIForce(
            many, built.numbers.tolist(), range(built.n_atoms), range(500), periodic=True, precision="float64"
        )
        force.setForceGroup(9)
        system.addForce(force)
        groups = 1 << 9
    else:
        hybrid = adaptive(built, "native", networks(members=(0,)), around_one(built, "0.2 nm", "0.1 nm"))
        system, groups = hybrid.system, 1 << hybrid.force_groups["ml"]
        # Water of four times its density is nothing that exists, and as good a test.
        scale = 4 ** (-1 / 3)
    found = []
    for host in (("CPU", {"Threads": "2"}), platform):
        context = context_of(system, host)
        context.setPeriodicBoxVectors(*(scale * np.array(built.box_vectors)))
        found.append(evaluate(context, scale * built.positions, groups))
    assert len(built.positions) > 1900
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-7)
    assert np.abs(found[1][1] - found[0][1]).max() < 1e-7 * np.abs(found[0][1]).max()


def repeated(layers):
    """Of one member 24."""
    return {element: [np.repeat(layer, 24, axis=0) for layer in own] for element, own in layers.items()}


def without_force_of_weights(hybrid):
    """Negative control: the same energy in torch, its forces without d lambda / dr."""
    spec = dataclasses.replace(hybrid.spec, bridge="pythonforce")
    blend = assemble(spec).blend
    blend.weight_forces = False
    system, removed = remove_zone_pairs(hybrid.built.system, hybrid.zones.core)
    return join(spec, system, removed, blend).system


def test_forces_of_an_adaptive_zone_are_the_gradient(water):
    """Finite differences over atoms of the core, its centres and every depth of the zone; controls fail."""
    built = crowded(water)
    hybrid = adaptive(built, "native", networks(), by_mass(around_one(built, "0.2 nm", "0.3 nm", 2)))
    groups = 1 << hybrid.force_groups["ml"]
    context = reference_context(hybrid.system)
    _, forces = evaluate(context, built.positions, groups)
    _, other = energy_and_forces(without_force_of_weights(hybrid), built.positions, groups)
    lam = hybrid.zones.weights(*as_tensors(built.positions, np.array(built.box_vectors))).numpy()
    inside = np.flatnonzero((lam > 0.05) & (lam < 0.95))
    assert len(inside) > 10
    worst, missed = 0.0, 0.0
    for atom in [0, 4, 5, 7, *inside[:: len(inside) // 8]]:
        energies = []
        for shift in (2, 1, -1, -2):
            moved = built.positions.copy()
            moved[atom, atom % 3] += shift * 2e-5
            energies.append(evaluate(context, moved, groups)[0])
        slope = (-energies[0] + 8 * energies[1] - 8 * energies[2] + energies[3]) / (12 * 2e-5)
        worst = max(worst, abs(slope + forces[atom, atom % 3]))
        missed = max(missed, abs(slope + other[atom, atom % 3]))
    largest = np.abs(forces).max()
    assert worst < 2e-7 * largest
    assert missed > 1e-3 * largest


def test_an_adaptive_zone_conserves_energy(water):
    """NVE of 50 fs while molecules cross the zone, as of the force field alone; not without that force.

    A steep G makes that force as large as others in so short a time.
    """
    steep, spreads = Compensation({"HOH": -2.5}, values={"HOH": np.array([0.0, -400.0])}), []
    hybrid = adaptive(water, "native", networks("float32", members=(0,)), compensation=steep)
    for system in (water.system, hybrid.system, without_force_of_weights(hybrid)):
        integrator = openmm.VerletIntegrator(0.00025)
        context = context_of(system, ("CPU", {"Threads": "1"}), integrator)
        context.setPositions(water.positions)
        context.setVelocitiesToTemperature(400.0, 3)
        totals = []
        for _ in range(25):
            integrator.step(8)
            state = context.getState(energy=True)
            totals.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
        spreads.append(np.std(totals))
    assert spreads[1] < 3 * spreads[0]
    assert spreads[2] > 5 * spreads[1], spreads


def test_supermolecular_with_caps_equals_torch(dipeptide_water, monkeypatch):
    """A side chain and its neighbours, two bonds cut, all others seen within a cutoff or not."""
    built = dipeptide_water
    names = {atom.name: atom.index for atom in built.topology.atoms() if atom.residue.name == "ALA"}
    atoms = [names[name] for name in ("CB", "HB1", "HB2", "HB3")]
    with monkeypatch.context() as patch:
        patch.setenv("MLMM_KERNEL", "torch")
        expected = supermolecular(built, "pythonforce", networks(members=[0]), atoms)
        energy, forces, _ = model(expected, built.positions)
    hybrid = supermolecular(built, "native", networks(members=[0]), atoms)
    own = SupermolecularANIForce.cast(
        next(f for f in hybrid.system.getForces() if isinstance(as_force(f), SupermolecularANIForce))
    )
    assert len(own.getCaps()) == 1 and own.getRegion().tolist() == sorted(atoms)
    found = model(hybrid, built.positions)
    largest = np.abs(forces).max()
    assert found[0] == pytest.approx(energy, abs=1e-7)
    assert np.abs(found[1] - forces).max() < EXACT * largest
    without = SupermolecularANIForce(
        hybrid.potential.parameters,
        built.numbers.tolist(),
        list(range(built.n_atoms)),
        atoms,
        periodic=True,
        precision="float64",
    )
    system = openmm.System()
    for _ in range(built.n_atoms):
        system.addParticle(1.0)
    system.setDefaultPeriodicBoxVectors(*np.array(built.box_vectors))
    system.addForce(without)
    assert abs(energy_and_forces(system, built.positions)[0] - energy) > 1.0


def static(built, bridge, potential):
    region = region_from_atoms(built.topology, range(3), "molecule")
    return hybrid_system(
        built, static_zones(built, region, "0.2 nm", "0.25 nm"), potential, scheme="per_atom", bridge=bridge
    )


@pytest.mark.parametrize("case", ["static", "adaptive", "supermolecular"])
def test_members_are_those_of_torch(water, case):
    """Energies and forces of each member, and what a report says of their spread; without a torch module."""
    make = {"static": static, "adaptive": adaptive, "supermolecular": supermolecular}[case]
    native, other = (make(water, bridge, networks()) for bridge in ("native", "pythonforce"))
    box = np.array(water.box_vectors)
    found = member_evaluation(native.system)(water.positions, box)
    where, cell = as_tensors(water.positions, box)
    where.requires_grad_(True)
    members = _contributions(other, where, cell)
    forces = member_forces(members.sum(dim=1), where).numpy()
    scale = np.abs(forces).max()
    assert np.abs(found.energies - members.detach().numpy()).max() < 1e-8
    assert np.abs(found.forces - forces).max() < EXACT * scale
    assert np.abs(forces[0] - forces[1]).max() > 1e-3 * scale
    assert member_evaluation(other.system) is None
    reports = [measure_uncertainty(hybrid, water.positions, box) for hybrid in (native, other)]
    assert reports[0].energy == pytest.approx(reports[1].energy, rel=1e-9) and reports[0].energy > 0.01
    np.testing.assert_allclose(reports[0].forces, reports[1].forces, rtol=0, atol=EXACT * scale)
    if case == "supermolecular":
        assert reports[0].atoms is None and reports[1].atoms is None
    else:
        np.testing.assert_allclose(reports[0].atoms, reports[1].atoms, rtol=0, atol=1e-9)


def test_members_of_a_capped_region(dipeptide_vacuum):
    """Scheme additive with hydrogens on cut bonds: the caps' energies count, their forces go to the atoms."""
    names = {
        atom.name: atom.index for atom in dipeptide_vacuum.topology.atoms() if atom.residue.name == "ALA"
    }
    atoms = [names[name] for name in ("CB", "HB1", "HB2", "HB3")]
    zones = hard_zones(dipeptide_vacuum, region_from_atoms(dipeptide_vacuum.topology, atoms, "atoms"))
    native, other = (
        hybrid_system(dipeptide_vacuum, zones, networks(), scheme="additive", bridge=bridge)
        for bridge in ("native", "pythonforce")
    )
    found = member_evaluation(native.system)(dipeptide_vacuum.positions)
    where, _ = as_tensors(dipeptide_vacuum.positions, None)
    where.requires_grad_(True)
    members = _contributions(other, where, None)
    forces = member_forces(members.sum(dim=1), where).numpy()
    assert found.particles.tolist() == [*sorted(atoms), -1]
    assert np.abs(found.energies - members.detach().numpy()).max() < 1e-8
    assert np.abs(found.forces - forces).max() < EXACT * np.abs(forces).max()


@pytest.mark.parametrize("kind", ["adaptive", "supermolecular"])
def test_copies_and_checkpoints(water, kind):
    """By deepcopy, XML and pickle bit for bit; a checkpoint leads to the same place; groups; two Contexts."""
    make, cls = {
        "adaptive": (adaptive, AdaptiveANIForce),
        "supermolecular": (supermolecular, SupermolecularANIForce),
    }[kind]
    hybrid = make(water, "native", networks("float32", members=(0,)))
    group = hybrid.force_groups["ml"]
    expected = energy_and_forces(hybrid.system, water.positions, groups=1 << group)
    xml = openmm.XmlSerializer.serialize(hybrid.system)
    # The pairs that a PythonForce subtracts are pickled with it.
    for other in (
        copy.deepcopy(hybrid.system),
        openmm.XmlSerializer.deserialize(xml),
        pickle.loads(pickle.dumps(hybrid.system)),
    ):
        again = energy_and_forces(other, water.positions, groups=1 << group)
        assert again[0] == expected[0] and np.array_equal(again[1], expected[1])
        own = next(f for f in other.getForces() if isinstance(as_force(f), cls))
        assert own.getForceGroup() == group and cls.cast(own).getNumMembers() == 1
        assert cls.cast(own).getPrecision() == "float32" and cls.cast(own).usesPeriodicBoundaryConditions()
        assert isinstance(copy.deepcopy(cls.cast(own)), cls)
    none = energy_and_forces(hybrid.system, water.positions, groups=1 << 30)
    assert none[0] == 0.0 and not none[1].any()
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(4)
    context, ends = context_of(hybrid.system, ("Reference", {}), integrator), []
    context.setPositions(water.positions)
    context.setVelocitiesToTemperature(300.0, 5)
    integrator.step(2)
    checkpoint = context.createCheckpoint()
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        integrator.step(5)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.array_equal(ends[0], ends[1]) and np.abs(ends[0] - water.positions).max() > 1e-4


@pytest.mark.parametrize("platform", picked("Reference", "CPU", "GPU-mixed"))
@pytest.mark.parametrize("kind", ["adaptive", "supermolecular"])
def test_what_is_no_number_and_a_small_box_reach_the_host(water, kind, platform):
    """Of an atom far from the zone too; a sentence and not the end of the process for a box that shrank."""
    make = {"adaptive": adaptive, "supermolecular": supermolecular}[kind]
    hybrid = make(water, "native", networks("float32", members=(0,)))
    groups = 1 << hybrid.force_groups["ml"]
    context = context_of(hybrid.system, platform)
    for atom in (0, water.n_atoms - 1):
        positions = water.positions.copy()
        positions[atom, 1] = np.nan
        context.setPositions(positions)
        try:
            assert np.isnan(context.getState(energy=True, groups=groups).getPotentialEnergy()._value)
        except openmm.OpenMMException as error:  # the platform CPU looks by itself
            assert "NaN" in str(error)
    small = openmm.System()
    for _ in range(water.n_atoms):
        small.addParticle(1.0)
    small.setDefaultPeriodicBoxVectors(*(0.9 * np.eye(3)))
    small.addForce(copy.deepcopy(next(f for f in hybrid.system.getForces() if as_force(f) is not None)))
    context = context_of(small, platform)
    context.setPositions(water.positions)
    with pytest.raises(openmm.OpenMMException, match="periodic box of at least"):
        context.getState(energy=True)
    members = member_evaluation(small)
    with pytest.raises(openmm.OpenMMException, match="periodic box of at least"):
        members(water.positions, 0.9 * np.eye(3))


def test_any_adaptive_zone_of_networks_is_native_by_default(water):
    """Nothing of torch is left in the System; charges that follow the atoms still need it."""
    zones = adaptive_zones(
        water, region_from_atoms(water.topology, range(3), "molecule"), "0.25 nm", "0.3 nm"
    )
    hybrid = hybrid_system(water, zones, networks(members=(0,)), compensation=CURVE)
    assert (hybrid.bridge, hybrid.mm_side) == ("native", "plugin")
    assert "TorchForce" not in {type(force).__name__ for force in hybrid.system.getForces()}
    assert supermolecular(water, "auto", networks(members=(0,))).bridge == "native"
