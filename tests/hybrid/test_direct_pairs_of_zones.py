"""Pairs of a static zone that the C++ kernel subtracts in a force of their own: the energy of OpenMM."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import openmm
import pytest
import torch
from pair_gases import BOXES, LEANING, assert_same, gas, gas_system, names_of, pytestmark
from toys import InPython, energy_and_forces, evaluate

from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.replaced_terms import ReplacedTerms
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.errors import EmbeddingError
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.forcefield.scale_pairs import INSIDE, SURROUNDINGS
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.bridge import make_force
from mlmm.hybrid.hosts import PairEnergy
from mlmm.hybrid.system import hybrid_system
from mlmm.kernels.direct_pairs import ZONE_PAIRS, ZonePairs, neighbours_with_wells
from mlmm.potentials import load_potential
from mlmm.term_weights import make_term_weights
from mlmm.validation.check import finite_difference_error
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

__all__ = ["pytestmark"]
SWITCHING = (0.4, 0.6)


def term_weights(n: int, seed: int, scheme: str = "per_atom"):
    """Random weights on half of the molecules, each with its site; some atoms invisible outside.

    They are hard under schemes without shares.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros(n)
    for first in range(0, n, 10):
        if rng.random() < 0.5:
            weights[first : first + 10] = rng.choice([1.0, 0.3, 0.8] if scheme == "per_atom" else [1.0])
    visible = (weights > 0) | (rng.random(n) < 0.8)
    return make_term_weights(scheme, weights, visible, SWITCHING)


def direct(system, owned, positions, box, pairs=None) -> openmm.System:
    """The compiled route with the pairs in the host."""
    tables = read_mm_tables(system)
    if pairs is None:
        near = neighbours_with_wells(tables, owned.active, positions, box)
        near = near[tables.exception_index(near[:, 0], near[:, 1]) < 0]
        assert len(near) > 3
        pairs = ZonePairs(tables, owned, near)
    embedded, _ = scale_terms(system, owned, near=pairs.emptied)
    host = PairEnergy(pairs)
    embedded.addForce(make_force(host, bridge="pythonforce", periodic=pairs.periodic, name=pairs.name))
    return embedded


def subtracted(system, owned, positions, box) -> float:
    """The energy by the route through torch."""
    tables = read_mm_tables(system)
    energy, _ = energy_and_forces(remove_zone_pairs(system, owned.active)[0], positions)
    x, cell = torch.tensor(positions), None if box is None else torch.tensor(box)
    # The compiled route measures 1-4 pairs of the zone by minimum image in a box.
    core, given = FullPairs(tables, owned.active, wrap=True), ReplacedTerms(tables, owned, wrap=True)
    return energy + (core(x, cell).sum() - given(x, cell)).item()


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("switch", [None, 0.5, 0.65])
@pytest.mark.parametrize("scheme", ["per_atom", "supermolecular", "additive"])
def test_equals_openmm_and_torch(name, switch, scheme):
    """Random force fields and weights: the custom forces of OpenMM, the C++ kernel, and torch."""
    for seed in (1, 2):
        n, box = 110, BOXES[name]
        system, positions = gas_system(n, box, seed=seed, switch=switch), gas(n, box, seed=seed)
        system.getForce(0).setExceptionsUsePeriodicBoundaryConditions(box is not None)
        owned = term_weights(n, seed, scheme)
        found = energy_and_forces(direct(system, owned, positions, box), positions)
        assert_same(found, energy_and_forces(scale_terms(system, owned)[0], positions))
        assert found[0] == pytest.approx(subtracted(system, owned, positions, box), abs=1e-8)
        assert abs(found[0] - energy_and_forces(system, positions)[0]) > 1.0


def test_pairs_may_come_and_go_after_the_build():
    n = 110
    system, owned = gas_system(n, LEANING, seed=4, switch=0.6), term_weights(n, 4)
    systems = (direct(system, owned, gas(n, LEANING, seed=4), LEANING), scale_terms(system, owned)[0])
    platform = openmm.Platform.getPlatformByName("Reference")
    contexts = [openmm.Context(s, openmm.VerletIntegrator(0.001), platform) for s in systems]
    for seed, scale in ((5, 1.0), (7, 1.04), (8, 0.97)):
        for context in contexts:
            context.setPeriodicBoxVectors(*(scale * LEANING).tolist())
        assert_same(*(evaluate(context, scale * gas(n, LEANING, seed=seed)) for context in contexts))


def test_each_part_of_the_pair_energy_is_needed():
    """Negative controls: other weights, another switching range, no switch, an excluded pair counted."""
    n, box = 110, BOXES["cube"]
    system, positions, owned = gas_system(n, box, seed=1, switch=0.5), gas(n, box, seed=1), term_weights(n, 1)
    expected, _ = energy_and_forces(scale_terms(system, owned)[0], positions)
    tables = read_mm_tables(system)
    right = ZonePairs(tables, owned, np.zeros((0, 2)))
    energy, _ = energy_and_forces(direct(system, owned, positions, box, right), positions)
    assert energy == pytest.approx(expected, abs=1e-8)
    start, end, _, switch, cutoff, coulomb = right.ranges
    for change in (
        {"weights": np.ascontiguousarray(right.weights**2)},
        {"ranges": (start, 1.01 * end, 1.0, switch, cutoff, coulomb)},
        {"ranges": (start, end, 0.0, switch, cutoff, coulomb)},
        {"start": np.zeros_like(right.start)},
    ):
        other = copy.copy(right)
        vars(other).update(change)
        energy, _ = energy_and_forces(direct(system, owned, positions, box, other), positions)
        assert abs(energy - expected) > 1e-4


def test_nan_propagates_and_other_schemes_are_rejected():
    n, box = 60, BOXES["cube"]
    tables, positions = read_mm_tables(gas_system(n, box, seed=1)), gas(n, box, seed=1)
    pairs = ZonePairs(tables, term_weights(n, 3), np.zeros((0, 2)))
    broken = positions[pairs.atoms]
    broken[5, 0] = np.nan
    energy, gradient = pairs(broken, box)
    assert np.isnan(energy) and np.isnan(gradient).any()
    with pytest.raises(EmbeddingError, match="positions of shape"):
        pairs(positions[:3], box)
    smooth = dataclasses.replace(term_weights(n, 3), scheme="additive")
    for other in (smooth, term_weights(n, 3, "delta")):
        with pytest.raises(EmbeddingError, match=f"or those of a hard zone, but got scheme '{other.scheme}'"):
            ZonePairs(tables, other, np.zeros((0, 2)))


@pytest.fixture(scope="module")
def water():
    """Some 130 flexible water molecules."""
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")


def make(built, bridge="auto", precision="float64", **options):
    region = region_from_atoms(built.topology, range(3), "molecule")
    potential = load_potential("ani1x", precision=precision, kernel="native", members=[0])
    zones = static_zones(built, region, "0.2 nm", "0.25 nm")
    return hybrid_system(built, zones, potential, scheme="per_atom", bridge=bridge, **options)


@pytest.mark.parametrize("bridge", ["native", "torchforce", "pythonforce"])
def test_zone_pairs_beside_any_host(water, bridge):
    """With and without direct pairs, and in torch: one energy and one record; OpenMM keeps few pairs."""
    hybrid = make(water, bridge)
    assert hybrid.bridge == bridge
    without = hybrid.reassembled(direct_pairs=False)
    in_torch = hybrid.create_system(mm_side="torch")
    assert ZONE_PAIRS in names_of(hybrid.system) and SURROUNDINGS not in names_of(hybrid.system)
    assert ZONE_PAIRS not in names_of(without.system) and SURROUNDINGS in names_of(without.system)
    found = energy_and_forces(hybrid.system, water.positions)
    for system in (without.system, in_torch):
        assert_same(found, energy_and_forces(system, water.positions))
    for group in hybrid.force_groups.values():
        ours, other = (energy_and_forces(h.system, water.positions, 1 << group) for h in (hybrid, without))
        assert_same(ours, other)
    assert hybrid.removed == without.removed
    inside = next(force for force in hybrid.system.getForces() if force.getName() == INSIDE)
    whole = next(force for force in without.system.getForces() if force.getName() == INSIDE)
    assert inside.getNumBonds() < 0.2 * whole.getNumBonds()
    assert finite_difference_error(hybrid, n_coordinates=6) < 1e-6
    if bridge != "torchforce":  # which cannot be copied
        assert_same(energy_and_forces(copy.deepcopy(hybrid.system), water.positions), found)


@pytest.mark.parametrize(
    ("scheme", "options"), [("supermolecular", {}), ("additive", {"mm_tail": True}), ("per_atom", {})]
)
def test_zone_pairs_of_every_scheme_and_potential(water, scheme, options):
    """A potential in Python, whose pairs no host of networks could take."""
    zones = hard_zones(water, region_from_atoms(water.topology, range(30), "molecule"))
    potential = InPython(load_potential("ani1x", precision="float64", members=[0]))
    hybrid = hybrid_system(water, zones, potential, scheme=scheme, **options)
    assert hybrid.bridge == "pythonforce"
    without = hybrid.reassembled(direct_pairs=False)
    assert ZONE_PAIRS in names_of(hybrid.system) and ZONE_PAIRS not in names_of(without.system)
    found, expected = (energy_and_forces(h.system, water.positions) for h in (hybrid, without))
    assert_same(found, expected)
    assert abs(found[0] - energy_and_forces(water.system, water.positions)[0]) > 1.0


def test_where_there_is_a_gpu_or_no_compiler_openmm_keeps_the_pairs(water, monkeypatch):
    """A GPU platform would wait for the processor."""
    with monkeypatch.context() as patch:
        patch.setattr("mlmm.hybrid.system.has_gpu", lambda: True)
        for bridge in ("auto", "pythonforce", "native"):
            assert ZONE_PAIRS not in names_of(make(water, bridge).system)
    monkeypatch.setenv("MLMM_KERNEL", "torch")
    assert ZONE_PAIRS not in names_of(make(water).system)


def test_rounding_on_the_cpu_platform(water):
    """Single precision costs no more than in the force field itself."""
    hybrid = make(water)
    cpu = openmm.Platform.getPlatformByName("CPU")
    active = list(hybrid.zones.active)
    errors = []
    for system, exact in (
        (water.system, water.system),
        (hybrid.system, hybrid.create_system(direct_pairs=False)),
    ):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), cpu, {"Threads": "1"})
        difference = evaluate(context, water.positions)[1] - energy_and_forces(exact, water.positions)[1]
        errors.append(np.sqrt((difference[active] ** 2).mean()))
    assert errors[1] < 1.2 * errors[0]
