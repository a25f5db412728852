"""Energies and forces of `ANIForce` on every platform against the networks in torch, and their gradient."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openmm
import pytest
import torch
from ani_contexts import (
    PLATFORMS,
    context_of,
    evaluated,
    force_of,
    in_torch,
    parameters,
    picked,
    system_of,
    tolerance,
)
from ani_gases import gas

from mlmm.blending.link_atoms import CappedModel
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.errors import PotentialError
from mlmm.plugin import ANIForce, MemberEvaluation, plugin_problem
from mlmm.potentials import load_potential

pytestmark = pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built")

FEW = ("Reference", "GPU-mixed", "GPU-double")
SIDE = 1.2
CUBE = SIDE * np.eye(3)
LEANING = SIDE * np.array([[1.0, 0, 0], [0.3, 0.95, 0], [-0.4, 0.2, 0.9]])
NUMBERS = [8, 1, 1, 6, 7, 1, 1, 6] * 5
N = len(NUMBERS)
#: Some are neighbours only, one counts negatively.
WEIGHTS = np.where(np.arange(N) % 4 == 3, 0.0, np.linspace(1.0, 0.1, N))
WEIGHTS[5] = -0.5


@pytest.fixture(scope="module")
def positions() -> np.ndarray:
    return gas(N, SIDE, [1, 6, 7, 8], cell=torch.tensor(CUBE), seed=3).positions.numpy()


@pytest.fixture(scope="module", params=[None, CUBE, LEANING], ids=["open", "cube", "leaning"])
def cell(request):
    return request.param


@pytest.mark.parametrize("platform", PLATFORMS)
def test_energy_and_forces_are_those_of_torch(platform, positions, cell):
    """Weights of any sign, neighbours without weight, any image; energies of each member and atom."""
    energy, forces, members = in_torch(NUMBERS, positions, WEIGHTS, cell)
    force = force_of(NUMBERS, WEIGHTS, periodic=cell is not None)
    context = context_of(system_of(N, force, cell=cell), platform)
    found = evaluated(context, positions)
    relative, largest = tolerance(platform), np.abs(forces).max()
    scale = np.abs(members).mean(axis=0).sum()
    assert abs(found[0] - energy) < relative * scale
    assert np.abs(found[1] - forces).max() < relative * largest
    own = force.getMemberEnergies(context)
    seen = WEIGHTS != 0
    assert np.isnan(own[:, ~seen]).all()
    assert np.abs(own - members)[:, seen].max() < relative * scale
    assert np.abs(members[0] - members[1]).max() > 1.0
    again = evaluated(context, positions)
    assert again[0] == found[0] and np.array_equal(again[1], found[1])
    if cell is not None:
        images = np.random.default_rng(1).integers(-2, 3, size=(N, 3)) @ cell
        moved = evaluated(context, positions + images)
        assert abs(moved[0] - energy) < 10 * relative * scale
        assert np.abs(moved[1] - forces).max() < 10 * relative * largest


@pytest.mark.parametrize("platform", picked("Reference", "CPU", "GPU-double"))
def test_forces_are_the_gradient(platform, positions):
    """Finite differences of the energy, and of another energy, which must not fit."""
    force = force_of(NUMBERS, WEIGHTS, periodic=True)
    context = context_of(system_of(N, force, cell=LEANING), platform)
    _, forces = evaluated(context, positions)
    largest, step = np.abs(forces).max(), 2e-5
    for atom, axis in ((0, 0), (3, 1), (N // 2, 2), (N - 1, 0)):
        energies = []
        for shift in (2, 1, -1, -2):
            moved = positions.copy()
            moved[atom, axis] += shift * step
            energies.append(evaluated(context, moved)[0])
        slope = (-energies[0] + 8 * energies[1] - 8 * energies[2] + energies[3]) / (12 * step)
        assert abs(slope + forces[atom, axis]) < 2e-7 * largest
        assert abs(0.99 * slope + forces[atom, axis]) > 2e-7 * largest or abs(slope) < 1e-4 * largest


@pytest.mark.parametrize("platform", PLATFORMS)
def test_caps_are_those_of_torch(platform, positions):
    """Hydrogens on two cut bonds, one of them across the box; forces on both atoms of the bond."""
    inside = [0, 1, 2, 3, 4, 6, 8, 9, 11, 12]
    caps = [(3, 20, 0.109), (4, 31, 0.102)]
    numbers = [NUMBERS[i] for i in inside]
    potential = load_potential("ani1x", members=[0, 1], precision="float64", kernel="torch")
    model = CappedModel(potential, numbers, inside, [c[:2] for c in caps], [c[2] for c in caps])
    where = torch.tensor(positions, requires_grad=True)
    energy = model(where, torch.tensor(CUBE))
    (gradient,) = torch.autograd.grad(energy, where)
    forces = -gradient.numpy()
    force = ANIForce(parameters(), numbers, inside, caps=caps, periodic=True, precision="float64")
    assert force.getCaps() == caps and force.getNumCaps() == 2
    context = context_of(system_of(N, force, cell=CUBE), platform)
    relative, largest = tolerance(platform), np.abs(forces).max()
    for _ in range(2):
        found = evaluated(context, positions)
        assert abs(found[0] - energy.item()) < relative * np.abs(force.getMemberEnergies(context)).sum()
        assert np.abs(found[1] - forces).max() < relative * largest
    assert np.abs(forces[20]).max() > 1.0 and np.abs(forces[31]).max() > 1.0
    without = ANIForce(parameters(), numbers, inside, periodic=True)
    assert (
        abs(evaluated(context_of(system_of(N, without, cell=CUBE), platform), positions)[0] - found[0]) > 10
    )


@pytest.mark.parametrize("name", ["ani2x", "ani1ccx"])
@pytest.mark.parametrize("platform", picked(*FEW))
def test_the_family(platform, name):
    """ANI-2x: seven elements, exponents that are no whole numbers, wider networks; all eight members.

    Float32 in torch itself is 7e-6 of max|F| off for this gas.
    """
    try:
        potential = load_potential(name, precision="float64", kernel="torch")
    except PotentialError as error:
        pytest.skip(f"weights that are not here: {error}")
    structure = gas(30, 1.1, list(potential.spec.elements), seed=8)
    numbers, where = structure.numbers.tolist(), structure.positions.clone().requires_grad_(True)
    members = potential.scriptable(numbers)(where, None)
    energy = members.mean(dim=0).sum()
    (gradient,) = torch.autograd.grad(energy, where)
    force = ANIForce(name, numbers, precision="float64")
    found = evaluated(context_of(system_of(30, force), platform), where.detach().numpy())
    relative = 2 * tolerance(platform)
    assert abs(found[0] - energy.item()) < relative * float(members.detach().abs().mean(dim=0).sum())
    assert np.abs(found[1] + gradient.numpy()).max() < relative * float(gradient.abs().max())


@pytest.mark.parametrize("platform", picked("GPU-mixed", "GPU-double"))
def test_lists_of_neighbours_grow(platform):
    """More atoms within the cutoff than the lists have room for at first: as on the processor.

    Four times as dense as water: 300 centres with up to 250 neighbours each, among 4,000 atoms. So many atoms
    are nothing that the networks know, and large numbers cancel: float32 keeps five digits of them.
    """
    generator, n, side = np.random.default_rng(5), 4000, 2.08
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
    where = side / 16 * (grid + generator.uniform(-0.3, 0.3, (n, 3)))
    numbers = generator.choice([1, 8], n).tolist()
    weights = np.zeros(n)
    weights[generator.choice(n, 300, replace=False)] = 1.0
    single = load_potential("ani1x", members=[0]).parameters
    cell, found = side * np.eye(3), []
    for host in (("CPU", {"Threads": "1"}), platform):
        force = ANIForce(single, numbers, None, weights, periodic=True, precision="float64")
        found.append(evaluated(context_of(system_of(n, force, cell=cell), host), where))
    (energy, forces), (other_energy, other_forces) = found
    relative = 20 * tolerance(platform)
    assert abs(other_energy - energy) < relative * abs(energy)
    assert np.abs(other_forces - forces).max() < relative * np.abs(forces).max()


@pytest.mark.slow
def test_cost_is_linear_in_the_region():
    """Networks of 500 to 8,000 atoms of liquid water on one thread: cells, no search among all by all."""
    water = build_bulk_water("4.7 nm", nonbonded_cutoff="0.9 nm")
    from_middle = np.linalg.norm(water.positions - water.positions.mean(axis=0), axis=1)[::3]
    single, cost = load_potential("ani1x", members=[0]).parameters, {}
    for n in (501, 8001):
        molecules = np.sort(np.argsort(from_middle)[: n // 3])
        atoms = (3 * molecules[:, None] + np.arange(3)).ravel()
        force = ANIForce(single, water.numbers[atoms].tolist(), atoms.tolist(), periodic=True)
        system = system_of(water.n_atoms, force, cell=np.array(water.box_vectors))
        context, times = context_of(system, ("CPU", {"Threads": "1"})), []
        for _ in range(4):
            begun = time.process_time()
            evaluated(context, water.positions)
            times.append(time.process_time() - begun)
        cost[n] = min(times) / n
    # Few atoms have fewer neighbours, as more of them are at the surface.
    assert cost[8001] < 2.0 * cost[501]


def test_threads_change_no_bit(positions):
    """Those of the platform CPU, one, two and three of them; and the force's own."""
    results = []
    for threads, own in (("1", 0), ("2", 0), ("3", 0), ("1", 2), ("2", 1)):
        force = force_of(NUMBERS * 3, threads=own)
        system = system_of(3 * N, force)
        shifted = np.concatenate([positions + 1.3 * k for k in range(3)])
        results.append(evaluated(context_of(system, ("CPU", {"Threads": threads})), shifted))
    for energy, forces in results[1:]:
        assert energy == results[0][0] and np.array_equal(forces, results[0][1])


def test_one_evaluation_of_members_in_several_threads(positions):
    """They wait for each other."""
    evaluation = MemberEvaluation(force_of(NUMBERS), N, threads=2)
    places = [positions + 0.002 * np.random.default_rng(k).normal(size=(N, 3)) for k in range(3)]
    expected = [evaluation(place).forces for place in places]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda k: evaluation(places[k % 3]).forces, range(60)))
    assert all(np.array_equal(forces, expected[k % 3]) for k, forces in enumerate(found))
    assert not np.array_equal(expected[0], expected[1])


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="not Linux")
def test_a_forked_process_has_threads_of_its_own(positions):
    """Threads do not survive a fork: the child has the same bits, and threads to share the work with."""
    evaluation = MemberEvaluation(force_of(NUMBERS * 3), 3 * N, threads=3)
    shifted = np.concatenate([positions + 1.3 * k for k in range(3)])
    before = evaluation(shifted)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        after = evaluation(shifted)
        same = np.array_equal(after.forces, before.forces) and np.array_equal(after.energies, before.energies)
        alone = len(os.listdir("/proc/self/task")) == 1
        os._exit(0 if same and not alone else 1 + alone)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status), f"ended by signal {os.WTERMSIG(status)}"
    assert os.WEXITSTATUS(status) == 0, "1: other bits; 2: no threads"
    assert np.abs(before.forces).max() > 100


def test_float32_networks_on_the_processor(positions):
    """The default: within float32 of the networks in float64, and not equal to them."""
    energies = []
    for precision in ("float32", "float64"):
        force = force_of(NUMBERS, WEIGHTS, precision=precision)
        assert force.getPrecision() == precision
        energies.append(evaluated(context_of(system_of(N, force), ("Reference", {})), positions))
    difference = np.abs(energies[0][1] - energies[1][1]).max()
    assert 0 < difference < 1e-6 * np.abs(energies[1][1]).max()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_virtual_site_hands_its_force_on(platform, positions):
    """A hydrogen between two others: the energy is a function of those two."""
    force = force_of(NUMBERS, periodic=True)
    system = system_of(N, force, cell=CUBE)
    system.setParticleMass(5, 0.0)
    system.setVirtualSite(5, openmm.TwoParticleAverageSite(4, 6, 0.4, 0.6))
    context = context_of(system, platform)
    context.setPositions(positions)
    context.computeVirtualSites()
    placed = context.getState(positions=True).getPositions(asNumpy=True)._value
    _, forces, _ = in_torch(NUMBERS, placed, np.ones(N), CUBE)
    expected = forces.copy()
    expected[4] += 0.4 * forces[5]
    expected[6] += 0.6 * forces[5]
    found = evaluated(context)[1]
    real = np.arange(N) != 5
    assert np.abs(found - expected)[real].max() < 2 * tolerance(platform) * np.abs(forces).max()
    assert np.abs(forces[5]).max() > 1e-3 * np.abs(forces).max()
