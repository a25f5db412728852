"""`ANIForce` behaves as OpenMM's own forces do: copies, files, groups, boxes, checkpoints, order of atoms."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import openmm
import pytest
import torch
from ani_contexts import context_of, evaluated, force_of, in_torch, picked, system_of, tolerance
from ani_gases import gas

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.plugin import ANIForce, plugin_problem

pytestmark = pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built")

SIDE = 1.25
CUBE = SIDE * np.eye(3)
NUMBERS = [8, 1, 1, 6, 7, 1, 1, 6] * 4
N = len(NUMBERS)
WEIGHTS = np.linspace(1.0 / 3.0, 0.0, N)
ON_PROCESSOR = picked("Reference", "CPU")
BRIEF = picked("Reference", "CPU", "GPU-mixed")


@pytest.fixture(scope="module")
def positions() -> np.ndarray:
    return gas(N, SIDE, [1, 6, 7, 8], cell=torch.tensor(CUBE), seed=4).positions.numpy()


def copies(system: openmm.System) -> dict[str, openmm.System]:
    xml = openmm.XmlSerializer.serialize(system)
    return {
        "deepcopy": copy.deepcopy(system),
        "xml": openmm.XmlSerializer.deserialize(xml),
        "pickle": pickle.loads(pickle.dumps(system)),
        "clone": openmm.XmlSerializer.clone(system),
    }


def test_copies_of_a_system_are_exact(positions):
    """By deepcopy, XML, pickle: weights, networks, group, name, caps bit for bit, and so the energy."""
    force = force_of(NUMBERS, WEIGHTS, periodic=True, caps=[(0, 9, 1.0 / 9.0)], precision="float32")
    force.setForceGroup(7)
    force.setName("the region")
    system = system_of(N, force, cell=CUBE)
    expected = evaluated(context_of(system, ("Reference", {})), positions)
    xml = openmm.XmlSerializer.serialize(system)
    for how, other in copies(system).items():
        found = ANIForce.cast(other.getForce(0))
        assert np.array_equal(found.getWeights(), WEIGHTS), how
        assert found.getParticles().tolist() == list(range(N)) and found.getElements()[:5] == list("OHHCN")
        assert found.getCaps() == [(0, 9, 1.0 / 9.0)] and found.getNumMembers() == 2
        assert (found.getForceGroup(), found.getName(), found.getPrecision()) == (7, "the region", "float32")
        assert found.usesPeriodicBoundaryConditions() and other.usesPeriodicBoundaryConditions()
        again = evaluated(context_of(other, ("Reference", {})), positions)
        assert again[0] == expected[0] and np.array_equal(again[1], expected[1])
        assert openmm.XmlSerializer.serialize(other) == xml


def test_a_force_can_be_copied_by_itself():
    """Each of these is an ANIForce again, and may change alone."""
    force = force_of(NUMBERS, WEIGHTS)
    for other in (copy.deepcopy(force), pickle.loads(pickle.dumps(force))):
        assert isinstance(other, ANIForce) and np.array_equal(other.getWeights(), WEIGHTS)
        other.setWeights(np.ones(N))
        other.setUsesPeriodicBoundaryConditions(True)
        assert np.array_equal(force.getWeights(), WEIGHTS) and not force.usesPeriodicBoundaryConditions()


def test_the_plugin_needs_neither_torch_nor_the_rest(tmp_path, positions):
    """In a process of its own: a force by name, and a System that another process wrote."""
    force = force_of(NUMBERS, WEIGHTS, precision="float64")
    system = system_of(N, force)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(tmp_path / "positions.npy", positions)
    script = (
        "import sys, numpy, openmm\n"
        "from mlmm.plugin import ANIForce\n"
        f"system = openmm.XmlSerializer.deserialize(open({str(tmp_path / 'system.xml')!r}).read())\n"
        "ANIForce('ani1x', [8, 1, 1])\n"
        "platform = openmm.Platform.getPlatformByName('Reference')\n"
        "context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)\n"
        f"context.setPositions(numpy.load({str(tmp_path / 'positions.npy')!r}))\n"
        "print(repr(context.getState(energy=True).getPotentialEnergy()._value))\n"
        "assert 'torch' not in sys.modules and 'mlmm.hybrid' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = evaluated(context_of(system, ("Reference", {})), positions)[0]
    assert float(done.stdout.split()[-1]) == expected


def test_without_the_plugin_a_system_with_an_aniforce_is_refused_by_name(tmp_path):
    """What OpenMM says of XML with a force that it does not know."""
    system = system_of(3, force_of([8, 1, 1]))
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    script = f"import openmm; openmm.XmlSerializer.deserialize(open({str(tmp_path / 'system.xml')!r}).read())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0 and "'ANIForce'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("platform", BRIEF)
def test_force_groups_and_new_weights(platform, positions):
    """Two forces in groups of their own; new weights in a Context that is there, and in that one alone."""
    first, second = force_of(NUMBERS, WEIGHTS, periodic=True), force_of(NUMBERS, periodic=True)
    second.setForceGroup(3)
    system = system_of(N, first, second, cell=CUBE)
    context, untouched = context_of(system, platform), context_of(system, platform)
    relative, largest = tolerance(platform), np.abs(in_torch(NUMBERS, positions, np.ones(N), CUBE)[1]).max()
    energies = []
    for weights in (WEIGHTS, np.where(WEIGHTS > 0, 0.5, 0.0)):
        if energies:
            first.setWeights(weights)
            first.updateParametersInContext(context)
        context.setPositions(positions)
        for groups, shares in ((1, weights), (8, np.ones(N)), (9, weights + 1.0), (4, np.zeros(N))):
            state = context.getState(energy=True, forces=True, groups=groups)
            energy, forces, members = in_torch(NUMBERS, positions, shares, CUBE)
            scale = np.abs(members).mean(axis=0).sum()
            assert abs(state.getPotentialEnergy()._value - energy) < 2 * relative * scale
            difference = state.getForces(asNumpy=True)._value - forces
            assert np.abs(difference).max() <= 2 * relative * largest
            energies.append(energy)
    assert abs(energies[0] - energies[4]) > 10.0
    untouched.setPositions(positions)
    kept = untouched.getState(energy=True, groups=1).getPotentialEnergy()._value
    assert abs(kept - energies[0]) < 2 * relative * scale


@pytest.mark.parametrize("platform", BRIEF)
def test_a_box_that_changes(platform, positions):
    """By hand and by a barostat: forces as in a Context made for that box."""
    force = force_of(NUMBERS, periodic=True, precision="float32")
    system = system_of(N, force, cell=CUBE)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
    barostat.setRandomNumberSeed(3)
    system.addForce(barostat)
    integrator = openmm.VerletIntegrator(1e-6)
    context = context_of(system, platform, integrator)
    context.setPeriodicBoxVectors(*(1.1 * CUBE))
    evaluated(context, 1.1 * positions)
    integrator.step(20)
    state = context.getState(positions=True, forces=True)
    box = state.getPeriodicBoxVectors(asNumpy=True)._value
    assert not np.allclose(box, 1.1 * CUBE, atol=1e-5)
    where = state.getPositions(asNumpy=True)._value
    _, forces, _ = in_torch(NUMBERS, where, np.ones(N), np.array(box))
    found = state.getForces(asNumpy=True)._value
    assert np.abs(found - forces).max() < 2 * max(tolerance(platform), 1e-6) * np.abs(forces).max()


@pytest.fixture(scope="module")
def water():
    """Flexible water molecules, of which OpenMM's GPU platforms may change the order."""
    return build_bulk_water("1.9 nm", nonbonded_cutoff="0.8 nm")


@pytest.mark.parametrize("platform", picked("CPU", "GPU-mixed"))
def test_identical_molecules_may_change_places_in_memory(platform, water):
    """A zone in the middle, all others seen: after 600 steps as on Reference at the same positions.

    OpenCL sorts molecules by place every 250 steps; those without a weight take part.
    """
    weights = np.zeros(water.n_atoms)
    middle = np.linalg.norm(water.positions - water.positions.mean(axis=0), axis=1)
    zone = np.unique(np.flatnonzero(middle < 0.35) // 3)
    for k in range(3):
        weights[3 * zone + k] = np.linspace(1.0, 0.2, len(zone))
    system = copy.deepcopy(water.system)
    force = force_of(water.numbers.tolist(), weights, periodic=True, precision="float32")
    force.setForceGroup(9)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(600.0, 5.0, 0.0005)
    integrator.setRandomNumberSeed(2)
    # The zone's forces do not move it: only their agreement counts here.
    integrator.setIntegrationForceGroups({0, 1, 2, 3})
    context = context_of(system, platform, integrator)
    context.setPositions(water.positions)
    context.setVelocitiesToTemperature(600.0, 1)
    integrator.step(600)
    state = context.getState(positions=True, forces=True, groups={9})
    reference = system_of(water.n_atoms, copy.deepcopy(force), cell=np.array(water.box_vectors))
    where = state.getPositions(asNumpy=True)._value
    assert np.abs(where - water.positions).max() > 0.05
    _, forces = evaluated(context_of(reference, ("Reference", {})), where)
    difference = np.abs(state.getForces(asNumpy=True)._value - forces).max()
    assert difference < 2 * max(tolerance(platform), 1e-6) * np.abs(forces).max()


@pytest.mark.parametrize("platform", BRIEF)
def test_a_checkpoint_leads_to_the_same_place(platform, positions):
    """On the same context, to what the arithmetic allows; bit for bit on Reference."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0002)
    integrator.setRandomNumberSeed(4)
    context = context_of(system_of(N, force_of(NUMBERS, periodic=True), cell=CUBE), platform, integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300.0, 5)
    integrator.step(5)
    checkpoint, ends = context.createCheckpoint(), []
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        integrator.step(25)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(ends[0] - positions).max() > 1e-3
    assert np.abs(ends[1] - ends[0]).max() <= (0.0 if platform[0] == "Reference" else 1e-5)


@pytest.mark.parametrize("platform", BRIEF)
def test_without_weight_or_particles_there_is_no_energy(platform, positions):
    """All of weight 0, nothing at all; and a Context that is made anew is what it was."""
    nothing = ANIForce("ani1x", [], periodic=True)
    for force in (force_of(NUMBERS, np.zeros(N), periodic=True), nothing):
        context = context_of(system_of(N, force, cell=CUBE), platform)
        energy, forces = evaluated(context, positions)
        assert energy == 0.0 and not forces.any()
        assert np.isnan(force.getMemberEnergies(context)).all()
    force = force_of(NUMBERS, WEIGHTS, periodic=True)
    context = context_of(system_of(N, force, cell=CUBE), platform)
    before = evaluated(context, positions)
    context.reinitialize(preserveState=True)
    after = evaluated(context)
    assert after[0] == pytest.approx(before[0], rel=1e-6) and np.abs(before[1]).max() > 100


@pytest.mark.parametrize("platform", ON_PROCESSOR)
def test_contexts_in_threads_do_not_mix(platform, positions):
    """Four at once, with positions of their own."""
    contexts = [
        context_of(system_of(N, force_of(NUMBERS, WEIGHTS, periodic=True), cell=CUBE), platform)
        for _ in range(4)
    ]
    places = [positions + 0.002 * np.random.default_rng(k).normal(size=(N, 3)) for k in range(4)]
    expected = [evaluated(c, p) for c, p in zip(contexts, places, strict=True)]
    assert len({energy for energy, _ in expected}) == 4
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(20):
            energy, forces = evaluated(contexts[k], places[k])
            if energy != expected[k][0] or not np.array_equal(forces, expected[k][1]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("platform", picked("GPU-double"))
def test_on_two_devices_it_is_what_it_is_on_one(platform, water):
    """OpenMM clears the buffers of each device in a thread of its own: nothing may be added before."""
    weights = np.where(np.arange(water.n_atoms) < 60, 1.0, 0.0)
    force, found = force_of(water.numbers.tolist(), weights, periodic=True), []
    for devices in ("0", "0,0"):
        system = copy.deepcopy(water.system)
        system.addForce(copy.deepcopy(force))
        context = context_of(system, (platform[0], platform[1] | {"DeviceIndex": devices}))
        context.setPositions(water.positions)
        found += [evaluated(context) for _ in range(3)]
    for energy, forces in found[1:]:
        assert energy == pytest.approx(found[0][0], abs=1e-3)
        assert np.abs(forces - found[0][1]).max() < 1e-6 * np.abs(forces).max()


@pytest.mark.parametrize("platform", ON_PROCESSOR)
def test_inside_a_customcvforce(platform, positions):
    """As a collective variable: half of its energy has half of its forces."""
    plain = evaluated(context_of(system_of(N, force_of(NUMBERS)), platform), positions)
    outer = openmm.CustomCVForce("0.5*ani")
    outer.addCollectiveVariable("ani", force_of(NUMBERS))
    energy, forces = evaluated(context_of(system_of(N, outer), platform), positions)
    assert energy == pytest.approx(0.5 * plain[0], rel=1e-12)
    assert np.abs(forces - 0.5 * plain[1]).max() < 1e-10 * np.abs(plain[1]).max()


def test_energy_is_conserved(positions):
    """Verlet steps of 0.1 fs on the platform CPU: the total energy stays while the potential energy moves."""
    integrator = openmm.VerletIntegrator(0.0001)
    context = context_of(system_of(N, force_of(NUMBERS, periodic=True), cell=CUBE), ("CPU", {}), integrator)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 30)
    context.setVelocitiesToTemperature(300.0, 1)
    totals, potentials = [], []
    for _ in range(40):
        integrator.step(10)
        state = context.getState(energy=True)
        potentials.append(state.getPotentialEnergy()._value)
        totals.append(potentials[-1] + state.getKineticEnergy()._value)
    assert np.std(potentials) > 5
    assert np.std(totals) < 0.02 * np.std(potentials)


@pytest.mark.parametrize("platform", picked("GPU-single", "GPU-mixed", "GPU-double"))
@pytest.mark.parametrize("n", [60, 90])
def test_forces_beside_those_of_openmm_are_those_of_a_queue(platform, n, water):
    """Without an energy the networks of more than 64 atoms have a queue of their own: the same bits, and none
    of another step.

    Control: the forces of the next positions are others.
    """
    weights = np.where(np.arange(water.n_atoms) < n, 1.0, 0.0)
    system, force = copy.deepcopy(water.system), force_of(water.numbers.tolist(), weights, periodic=True)
    force.setForceGroup(5)
    system.addForce(force)
    # OpenMM adds its forces without atomics.
    system.addForce(openmm.RMSDForce(water.positions[::-1], list(range(n))))
    context = context_of(system, platform)
    moved = water.positions + 0.002 * np.random.default_rng(4).normal(size=water.positions.shape)
    found = {}

    def forces(groups: int, energy: bool) -> np.ndarray:
        state = context.getState(forces=True, energy=energy, groups=groups)
        return state.getForces(asNumpy=True)._value

    for name, where in (("first", water.positions), ("moved", moved)) * 4:
        context.setPositions(where)
        alone, together, again = (forces(1 << 5, energy) for energy in (False, True, False))
        assert np.array_equal(alone, together) and np.array_equal(again, together)
        found[name] = together
        # OpenMM's own forces have last digits of their own in a kernel with an energy.
        alone, together = (forces(-1, energy) for energy in (False, True))
        assert np.abs(alone - together).max() < tolerance(platform) * np.abs(together).max()
    assert np.abs(found["first"] - found["moved"]).max() > 0.01 * np.abs(found["first"]).max()


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
def test_no_forces_are_left_over_from_an_evaluation_that_was_broken_off(platform, water):
    """Another force raises while the networks run; the next evaluation is of other groups.

    Control: the networks' forces, which would be added, are some thousand times what may be between them.
    """
    raises = []

    def moody(state):
        if raises:
            raise ValueError(raises.pop())
        return 0.0, np.zeros((water.n_atoms, 3))

    weights = np.where(np.arange(water.n_atoms) < 90, 1.0, 0.0)
    system, force = copy.deepcopy(water.system), force_of(water.numbers.tolist(), weights, periodic=True)
    other = openmm.PythonForce(moody)
    force.setForceGroup(5), other.setForceGroup(6)
    system.addForce(force), system.addForce(other)
    context = context_of(system, platform)
    context.setPositions(water.positions)

    def forces(groups: int) -> np.ndarray:
        return context.getState(forces=True, groups=groups).getForces(asNumpy=True)._value

    expected = [forces(groups) for groups in (1, 1 << 5)]
    for groups, good in zip((1, 1 << 5), expected, strict=True):
        raises.append("in the midst")
        with pytest.raises(Exception, match="in the midst"):
            forces(-1)
        assert np.abs(forces(groups) - good).max() < tolerance(platform) * np.abs(good).max()
    assert np.abs(expected[1]).max() > 0.01 * np.abs(expected[0]).max()
