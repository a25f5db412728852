"""Between force field and hybrid: both ends are the two systems, and the path between is linear."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

import mlmm
from mlmm.errors import ConfigError
from mlmm.forcefield.reference_platform import reference_context
from mlmm.hybrid.end_states import WEIGHT
from mlmm.reactions.end_states import weighted


@pytest.fixture(scope="module", params=["vacuum", "water"])
def hybrid(request):
    water = request.param == "water"
    built = mlmm.build_system(
        "systems/alanine_dipeptide/input.pdb",
        solvate=water,
        constraints="none",
        **({"padding": "0.6 nm", "nonbonded_cutoff": "0.6 nm"} if water else {}),
    )
    region = mlmm.select_region(built, "protein")
    potential = mlmm.load_potential("ani1x", members=[0], precision="float64")
    return mlmm.hybrid_system(built, mlmm.hard_zones(built, region), potential, scheme="additive")


def energy_and_forces(system: openmm.System, built, positions) -> tuple[float, np.ndarray]:
    context = reference_context(system, built.box_vectors)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def test_both_ends_are_the_two_systems_and_the_path_is_linear(hybrid):
    """Energies and forces at w = 0, 1 and between, off the built structure; w = 0.5 is neither end."""
    built = hybrid.built
    moved = np.array(built.positions)
    inside = list(hybrid.zones.core)
    moved[inside] += np.random.default_rng(0).normal(0, 0.004, (len(inside), 3))
    field, forces = energy_and_forces(built.system, built, moved)
    model, model_forces = energy_and_forces(hybrid.system, built, moved)
    assert abs(model - field) > 100
    for weight in (0.0, 0.3, 1.0):
        found, slopes = energy_and_forces(weighted(hybrid, weight).system, built, moved)
        assert found == pytest.approx(field + weight * (model - field), rel=1e-7, abs=2e-3)
        np.testing.assert_allclose(slopes, forces + weight * (model_forces - forces), atol=0.2)
    assert abs(found - field) > 100


@pytest.mark.parametrize("bridge", ["torchforce", "pythonforce"])
def test_other_bridges_give_the_same(hybrid, bridge):
    """A TorchForce cannot be copied by OpenMM: its energy is scaled in Python."""
    built = hybrid.built
    ends = [energy_and_forces(one, built, built.positions) for one in (built.system, hybrid.system)]
    found, slopes = energy_and_forces(
        weighted(hybrid.reassembled(bridge), 0.4).system, built, built.positions
    )
    assert found == pytest.approx(0.6 * ends[0][0] + 0.4 * ends[1][0], rel=1e-7, abs=2e-3)
    np.testing.assert_allclose(slopes, 0.6 * ends[0][1] + 0.4 * ends[1][1], atol=0.2)


@pytest.mark.parametrize("bridge", [None, "pythonforce"])
def test_the_weight_can_be_changed_in_a_context(hybrid, bridge):
    """A context begun at w = 0 and set to 0.7 is one that was begun there; without the change it is not."""
    system = weighted(hybrid.reassembled(bridge), 0.0).system
    context = reference_context(system, hybrid.built.box_vectors)
    context.setPositions(hybrid.built.positions)
    there = weighted(hybrid, 0.7).system
    energy, forces = energy_and_forces(there, hybrid.built, hybrid.built.positions)
    before = context.getState(energy=True).getPotentialEnergy()._value
    context.setParameter(WEIGHT, 0.7)
    state = context.getState(energy=True, forces=True)
    assert state.getPotentialEnergy()._value == pytest.approx(energy, rel=1e-9, abs=1e-3)
    np.testing.assert_allclose(state.getForces(asNumpy=True)._value, forces, atol=0.05)
    assert abs(before - energy) > 50


def test_what_has_no_states_between_is_refused(hybrid):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        weighted(hybrid, 1.5)
    other = mlmm.hybrid_system(hybrid.built, hybrid.zones, hybrid.potential, scheme="additive", mm_tail=True)
    with pytest.raises(ConfigError, match="mm_tail"):
        weighted(other, 0.5)
