"""Pairs that stay in OpenMM and that the C++ kernel subtracts in a force of its own: as by exceptions."""

from __future__ import annotations

import copy
import math
import threading

import numpy as np
import openmm
import pytest
import torch
from pair_gases import BOXES, CUBE, LEANING, assert_same, gas, gas_system, names_of
from toys import energy_and_forces, evaluate

from mlmm.bench.measure import resident_mb
from mlmm.blending.full_pairs import FullPairs
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.errors import EmbeddingError
from mlmm.forcefield.remove_terms import remove_region_terms
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.bridge import make_force
from mlmm.hybrid.direct_pairs import pair_correction
from mlmm.hybrid.hosts import PairEnergy
from mlmm.hybrid.system import hybrid_system
from mlmm.kernels import direct_pairs
from mlmm.kernels.direct_pairs import REGION_PAIRS, RegionPairs, close_pairs, region_pairs
from mlmm.potentials import load_potential
from mlmm.structures import minimum_image
from mlmm.units import COULOMB
from mlmm.validation.check import _bridge_difference, finite_difference_error
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

pytestmark = pytest.mark.usefixtures("kernels_by_default")


def direct(system: openmm.System, atoms: list[int], positions, box, pairs=None) -> openmm.System:
    """The force field without the region's own pairs, by a few exceptions and the host."""
    tables = read_mm_tables(system)
    pairs = region_pairs(tables, atoms, positions, box) if pairs is None else pairs
    assert pairs is not None
    embedded, _ = remove_region_terms(system, atoms, emptied=pairs.emptied.tolist())
    host = PairEnergy(pairs)
    embedded.addForce(make_force(host, bridge="pythonforce", periodic=pairs.periodic, name=pairs.name))
    return embedded


def region_of(n: int) -> list[int]:
    """Four fifths of the atoms, sites with their carriers."""
    return [i for i in range(n) if (i // 10) % 5 != 2]


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("switch", [None, 0.5])
def test_equals_exceptions(name, switch):
    """Random force fields, a region larger than the cutoff: energy and forces on the Reference platform."""
    for seed in (1, 2):
        n, box = 110, BOXES[name]
        system, positions = gas_system(n, box, seed=seed, switch=switch), gas(n, box, seed=seed)
        atoms = region_of(n)
        expected = energy_and_forces(remove_region_terms(system, atoms)[0], positions)
        embedded = direct(system, atoms, positions, box)
        assert_same(energy_and_forces(embedded, positions), expected)
        whole = energy_and_forces(system, positions)
        assert abs(whole[0] - expected[0]) > 100.0
        nonbonded = embedded.getForce(0)
        assert nonbonded.getNumExceptions() < 0.3 * len(atoms) ** 2 / 2


def test_ewald_sums_and_uncharged_cutoffs():
    """What else has a pair energy of this form: Ewald, and Lennard-Jones alone with a cutoff."""
    for method in ("Ewald", "CutoffPeriodic"):
        system = gas_system(110, CUBE, seed=3, method=getattr(openmm.NonbondedForce, method))
        if method == "CutoffPeriodic":
            force = system.getForce(0)
            for i in range(110):
                force.setParticleParameters(i, 0.0, *force.getParticleParameters(i)[1:])
        positions, atoms = gas(110, CUBE, seed=3), region_of(110)
        expected = energy_and_forces(remove_region_terms(system, atoms)[0], positions)
        assert_same(energy_and_forces(direct(system, atoms, positions, CUBE), positions), expected)


@pytest.mark.parametrize("name", ["cube", "leaning"])
def test_pairs_may_come_and_go_after_the_build(name):
    """Other positions, in which most neighbours are new ones, and other boxes, as under a barostat."""
    n, box = 110, BOXES[name]
    system, atoms = gas_system(n, box, seed=4, switch=0.6), region_of(n)
    contexts = [
        openmm.Context(s, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        for s in (direct(system, atoms, gas(n, box, seed=4), box), remove_region_terms(system, atoms)[0])
    ]
    # Not any seed: in a box that leans OpenMM's Reference platform (8.6.1) overlooks a few pairs within the
    # cutoff, unless they are exceptions.
    for seed, scale in ((5, 1.0), (7, 1.04), (8, 0.97)):
        positions = scale * gas(n, box, seed=seed)
        for context in contexts:
            context.setPeriodicBoxVectors(*(scale * box).tolist())
        assert_same(*(evaluate(context, positions) for context in contexts))


@pytest.mark.parametrize("name", BOXES)
def test_equals_torch(name):
    """The other route to the same pairs, in any image."""
    n, box = 70, BOXES[name]
    tables: MMTables = read_mm_tables(gas_system(n, box, seed=8, switch=0.6))
    positions, atoms = gas(n, box, seed=8), np.arange(n)
    # 1-4 pairs are pairs in torch; here they are left out.
    none = np.zeros(len(tables.exception_atoms))
    empty = {"exception_charge": none, "exception_epsilon": none}
    torch_pairs = FullPairs(MMTables(**(vars(tables) | empty)), atoms)
    x = torch.tensor(positions, requires_grad=True)
    energy = torch_pairs(x, None if box is None else torch.tensor(box)).sum()
    (gradient,) = torch.autograd.grad(energy, x)
    found = RegionPairs(tables, atoms, tables.exception_atoms)(positions, box)
    assert_same((-found[0], -found[1]), (energy.item(), gradient.numpy()))


def two_atoms(alpha: float, cutoff: float) -> RegionPairs:
    """Two charges of 1 e and no wells."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(2):
        system.addParticle(1.0)
        force.addParticle(1.0, 0.3, 0.0)
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * 500))
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setPMEParameters(alpha, 8, 8, 8)
    force.setCutoffDistance(cutoff)
    system.addForce(force)
    return RegionPairs(read_mm_tables(system), [0, 1], np.zeros((0, 2)))


def test_the_error_function_beyond_the_cutoff():
    """K erf(alpha r)/r and its slope against math.erf, from alpha r near zero to where erf is 1."""
    for alpha in (0.01, 1.0, 3.0, 40.0):
        pairs = two_atoms(alpha, 1e-3)
        for r in np.geomspace(2e-3, 200.0, 90):
            energy, gradient = pairs(np.array([[0.0, 0, 0], [0, 0, r]]), np.eye(3) * 500)
            erf, bell = math.erf(alpha * r), 2 / math.sqrt(math.pi) * alpha * math.exp(-((alpha * r) ** 2))
            # The complement is what is evaluated: errors are those of 1.
            assert abs(-energy - COULOMB * erf / r) < 1e-12 * COULOMB / r
            assert abs(-gradient[1, 2] - COULOMB * (bell / r - erf / r**2)) < 1e-12 * COULOMB / r**2


def test_forces_are_derivatives_and_the_sum_of_images_does_not_matter():
    n = 60
    tables = read_mm_tables(gas_system(n, LEANING, seed=9, switch=0.5))
    pairs, positions = RegionPairs(tables, range(n), np.zeros((0, 2))), gas(n, LEANING, seed=9)
    energy, gradient = pairs(positions, LEANING)
    rng = np.random.default_rng(0)
    moved = positions + rng.integers(-2, 3, positions.shape) @ LEANING
    assert pairs(moved, LEANING)[0] == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-9 * np.abs(gradient).max())
    # A pair that crosses the cutoff in the step would jump: by the median.
    errors = []
    for atom in range(n):
        ends = []
        for sign in (1, -1):
            shifted = positions.copy()
            shifted[atom, 1] += sign * 1e-6
            ends.append(pairs(shifted, LEANING)[0])
        errors.append(abs((ends[0] - ends[1]) / 2e-6 - gradient[atom, 1]))
    assert np.sort(errors)[n * 9 // 10] < 1e-6 * np.abs(gradient).max()


def test_each_part_of_the_pair_energy_is_needed():
    """Negative controls: without the mesh beyond the cutoff, the switch or an exception the sum is off."""
    n = 110
    system, positions = gas_system(n, CUBE, seed=1, switch=0.5), gas(n, CUBE, seed=1)
    atoms = region_of(n)
    expected, _ = energy_and_forces(remove_region_terms(system, atoms)[0], positions)
    right = region_pairs(read_mm_tables(system), atoms, positions, CUBE)
    cutoff, alpha, _, switch, coulomb = right.ranges
    for wrong in (
        (cutoff, 1e-9, 1.0, switch, coulomb),
        (cutoff, 1.02 * alpha, 1.0, switch, coulomb),
        (cutoff, alpha, 0.0, switch, coulomb),
        (0.99 * cutoff, alpha, 1.0, switch, coulomb),
    ):
        other = copy.copy(right)
        other.ranges = wrong
        energy, _ = energy_and_forces(direct(system, atoms, positions, CUBE, other), positions)
        assert abs(energy - expected) > 1e-5
    twice = RegionPairs(read_mm_tables(system), right.atoms, right.emptied[1:])
    twice.emptied = right.emptied
    energy, _ = energy_and_forces(direct(system, atoms, positions, CUBE, twice), positions)
    assert abs(energy - expected) > 1e-4


def test_neighbours_are_those_of_a_double_loop():
    positions = gas(90, LEANING, seed=2)
    found = {tuple(pair) for pair in close_pairs(positions, LEANING, 0.4).tolist()}
    cell = torch.tensor(LEANING)
    separation = minimum_image(torch.tensor(positions[None] - positions[:, None]), cell).norm(dim=2).numpy()
    assert found == {(i, j) for i in range(90) for j in range(i + 1, 90) if separation[i, j] < 0.4}
    assert len(found) > 50


def test_the_sums_do_not_depend_on_threads(monkeypatch):
    """The same bits from one thread and from several, from call to call, and from two callers at once."""
    n = 700
    rng = np.random.default_rng(1)
    tables = read_mm_tables(gas_system(n, 2 * CUBE, seed=1))
    pairs = RegionPairs(tables, range(n), tables.exception_atoms)
    positions, box = rng.uniform(0, 3.8, (n, 3)), 2 * CUBE
    energy, gradient = pairs(positions, box)
    results = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    callers = [
        threading.Thread(target=lambda: results.extend(pairs(positions, box) for _ in range(3)))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 9
    for other, slope in results:
        assert other == energy
        np.testing.assert_array_equal(slope, gradient)
    before = resident_mb()
    for _ in range(60):
        pairs(positions, box)
    assert resident_mb() - before < 2


def test_nan_propagates_and_bad_shapes_are_rejected():
    tables = read_mm_tables(gas_system(40, CUBE, seed=1))
    pairs, positions = RegionPairs(tables, range(40), np.zeros((0, 2))), gas(40, CUBE, seed=1)
    for value in (np.nan, np.inf, 1e300):
        broken = positions.copy()
        broken[7, 1] = value
        energy, gradient = pairs(broken, CUBE)
        assert np.isnan(energy) and np.isnan(gradient).all()
    with pytest.raises(EmbeddingError, match=r"positions of shape \(40, 3\)"):
        pairs(positions[1:], CUBE)
    with pytest.raises(EmbeddingError, match=r"a cell of shape \(3, 3\)"):
        pairs(positions, CUBE[0])


@pytest.fixture(scope="module")
def water():
    """Some 130 flexible water molecules."""
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")


def make(built, n=120, bridge="native", precision="float64", **options):
    region = region_from_atoms(built.topology, range(n), "molecule")
    potential = load_potential("ani1x", precision=precision, kernel="native", members=[0])
    return hybrid_system(
        built, hard_zones(built, region), potential, scheme="additive", bridge=bridge, **options
    )


def exceptions_of(system: openmm.System) -> int:
    return next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)).getNumExceptions()


@pytest.mark.parametrize("bridge", ["native", "torchforce", "pythonforce"])
def test_region_pairs_beside_any_host(water, bridge):
    """As by exceptions: energy, forces, record; the pairs stand in the group of the non-bonded ones."""
    hybrid = make(water, bridge=bridge)
    assert hybrid.bridge == bridge
    without = hybrid.reassembled(direct_pairs=False)
    other = without.system
    assert REGION_PAIRS in names_of(hybrid.system) and REGION_PAIRS not in names_of(other)
    assert exceptions_of(hybrid.system) < 0.2 * exceptions_of(other)
    assert_same(energy_and_forces(hybrid.system, water.positions), energy_and_forces(other, water.positions))
    for group in hybrid.force_groups.values():
        found, expected = (energy_and_forces(s, water.positions, 1 << group) for s in (hybrid.system, other))
        assert_same(found, expected)
    assert hybrid.removed == without.removed
    assert finite_difference_error(hybrid, n_coordinates=6) < 1e-6
    if bridge != "torchforce":  # which cannot be copied
        copied = energy_and_forces(copy.deepcopy(hybrid.system), water.positions)
        assert_same(copied, energy_and_forces(hybrid.system, water.positions))


def test_region_pairs_of_a_region_with_caps(dipeptide_water):
    """Bonds that are cut change nothing about the pairs inside."""
    waters = [atom.index for atom in dipeptide_water.topology.atoms() if atom.residue.name == "HOH"]
    region = region_from_atoms(dipeptide_water.topology, [*range(6, 16), *waters[:90]], "atoms")
    hybrid = hybrid_system(
        dipeptide_water,
        hard_zones(dipeptide_water, region),
        load_potential("ani1x", members=[0]),
        scheme="additive",
    )
    assert region.cut_bonds and REGION_PAIRS in names_of(hybrid.system)
    found, expected = (
        energy_and_forces(system, dipeptide_water.positions)
        for system in (hybrid.system, hybrid.create_system(direct_pairs=False))
    )
    assert_same(found, expected)


def test_better_fixed_charges_are_subtracted_too(water):
    """Reference charges stand in the force field before the tables are read."""
    charges = np.tile([-0.9, 0.5, 0.4], 40)
    plain, changed = make(water), make(water, charges=charges)
    expected = energy_and_forces(changed.create_system(direct_pairs=False), water.positions)
    found = energy_and_forces(changed.system, water.positions)
    assert_same(found, expected)
    assert abs(found[0] - energy_and_forces(plain.system, water.positions)[0]) > 1.0


@pytest.mark.parametrize("bridges", [("native", "pythonforce"), ("pythonforce", "pythonforce")])
def test_mlmm_check_sees_pairs_that_are_wrong(water, monkeypatch, bridges):
    """The comparison of hosts contains the pairs."""
    hybrid = make(water, bridge=bridges[0])
    assert _bridge_difference(hybrid, bridges) < 1e-9
    right = direct_pairs._parameters
    monkeypatch.setattr(direct_pairs, "_parameters", lambda *a: 1.001 * right(*a))
    assert _bridge_difference(hybrid, bridges) > 1e-6


def knobs(force):
    force.addGlobalParameter("knob", 0.0)
    force.addParticleParameterOffset("knob", 0, 0.1, 0.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda force: force.setNonbondedMethod(openmm.NonbondedForce.LJPME),
        lambda force: force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic),
        lambda force: force.setIncludeDirectSpace(False),
        knobs,
    ],
)
def test_exceptions_where_a_pair_is_more(water, change):
    """A mesh for Lennard-Jones, a reaction field, no direct space, offsets: as before, all by exceptions."""
    assert isinstance(pair_correction(make(water).spec), RegionPairs)
    built = copy.copy(water)
    object.__setattr__(built, "system", openmm.XmlSerializer.clone(water.system))
    change(next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce)))
    hybrid = make(built)
    assert pair_correction(hybrid.spec) is None and REGION_PAIRS not in names_of(hybrid.system)
    assert exceptions_of(hybrid.system) >= 120 * 119 // 2


def test_exceptions_where_another_force_wants_them(water):
    """A CustomNonbondedForce needs the same exclusions; a force that is kept whole has no pairs to give."""
    built = copy.copy(water)
    object.__setattr__(built, "system", openmm.XmlSerializer.clone(water.system))
    custom = openmm.CustomNonbondedForce("0.1/r")
    nonbonded = next(f for f in water.system.getForces() if isinstance(f, openmm.NonbondedForce))
    for _ in range(water.n_atoms):
        custom.addParticle([])
    for i in range(nonbonded.getNumExceptions()):
        custom.addExclusion(*nonbonded.getExceptionParameters(i)[:2])
    custom.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    custom.setCutoffDistance(0.8)
    built.system.addForce(custom)
    hybrid = make(built)
    assert REGION_PAIRS not in names_of(hybrid.system)
    energy_and_forces(hybrid.system, water.positions)
    assert REGION_PAIRS not in names_of(make(water, keep=["NonbondedForce"]).system)


def test_small_regions_keep_their_exceptions(water):
    assert REGION_PAIRS not in names_of(make(water, n=60).system)


def test_rounding_on_the_cpu_platform(water):
    """Single precision costs no more than in the force field itself, and where a pair comes close, its wall.

    Two water oxygens far apart at the build meet at 0.25 nm: less than 1e-4 of the force between them.
    """
    hybrid = make(water, precision="float32")
    exact = hybrid.create_system(direct_pairs=False)
    cpu = openmm.Platform.getPlatformByName("CPU")

    def on_cpu(system, positions):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), cpu, {"Threads": "1"})
        return evaluate(context, positions)[1]

    def error(system, reference, positions):
        difference = on_cpu(system, positions) - energy_and_forces(reference, positions)[1]
        return np.sqrt((difference[:120] ** 2).mean())

    x = water.positions
    of_force_field = error(water.system, water.system, x)
    assert error(hybrid.system, exact, x) < 1.2 * of_force_field
    y = x.copy()
    y[:3] = x[117:120]
    y[:3] += 0.25 * (x[117] - x[118]) / np.linalg.norm(x[117] - x[118])
    wall = np.abs(energy_and_forces(water.system, y)[1]).max()
    assert error(hybrid.system, exact, y) < 1e-4 * wall
