"""Adaptive zones and scheme ``supermolecular`` on GPU platforms: the device code against the processor."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import openmm
import pytest
from adaptive_water import around_one, relaxed_water
from ani_contexts import context_of, picked, tolerance
from native_blends import (
    adaptive,
    by_mass,
    cases,
    model,
    networks,
    supermolecular,
    without_force_of_weights,
)
from toys import energy_and_forces, evaluate

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.plugin import SupermolecularANIForce, plugin_problem
from mlmm.potentials.ani.native import instruction_set

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(
        instruction_set() is None or plugin_problem() is not None,
        reason="built without a compiler or the plugin",
    ),
]


@pytest.fixture(scope="module")
def water():
    return relaxed_water()


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
        # Without an energy the kernels have a queue of their own, beside OpenMM's.
        alone = context.getState(forces=True, groups=groups).getForces(asNumpy=True)._value
        assert np.array_equal(forces, alone)
        assert np.abs(forces - expected).max() < tolerance(platform) * largest
        assert found[0].getPotentialEnergy()._value == pytest.approx(energy, rel=1e-5)
        # Whatever acts on the zone acts back.
        assert np.abs(forces.sum(axis=0)).max() < 1e-6 * largest
        if make is adaptive:
            _, other = energy_and_forces(without_force_of_weights(hybrid), where, groups)
            assert np.abs(forces - other).max() > 1e-3 * largest


@pytest.mark.parametrize("platform", picked("GPU-single", "GPU-mixed"))
def test_lambda_is_known_beyond_single_precision(water, platform):
    """Charges 20 times as large: what λ weighs is then nearly all, and its last digits are seen.

    6e-8 of the largest. Controls: single precision; mixed with λ alone rounded to it was off by 2.8e-6.
    """
    strong = copy.copy(cases(water)["by mass"][0])
    object.__setattr__(strong, "system", openmm.XmlSerializer.clone(strong.system))
    nonbonded = next(f for f in strong.system.getForces() if isinstance(f, openmm.NonbondedForce))
    for atom in range(strong.n_atoms):
        charge, *wells = nonbonded.getParticleParameters(atom)
        nonbonded.setParticleParameters(atom, 20 * charge, *wells)
    zones = by_mass(around_one(strong, "0.2 nm", "0.3 nm", molecules=2))
    hybrid = adaptive(strong, "native", networks(members=(0,)), zones, None)
    groups = 1 << hybrid.force_groups["ml"]
    context = context_of(hybrid.system, platform)
    context.setPositions(strong.positions)
    state = context.getState(forces=True, positions=True, groups=groups)
    _, expected, _ = model(hybrid, state.getPositions(asNumpy=True)._value)
    error = np.abs(state.getForces(asNumpy=True)._value - expected).max() / np.abs(expected).max()
    assert error > 5e-7 if platform[1]["Precision"] == "single" else error < 3e-7


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

    The latter by a committee of 36 alike members: 96 MB have room for 1,200 atoms.
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
    """Of one member 36."""
    return {element: [np.repeat(layer, 36, axis=0) for layer in own] for element, own in layers.items()}
