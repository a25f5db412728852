"""Pairs that are subtracted, as a force of the plugin: those of the PythonForce, without Python in a step."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from pair_gases import BOXES, gas, gas_system
from toys import evaluate

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.dynamics.platforms import _has_foreign_force
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.bridge import make_force
from mlmm.hybrid.hosts import PairEnergy
from mlmm.hybrid.system import hybrid_system
from mlmm.kernels.direct_pairs import REGION_PAIRS, ZONE_PAIRS, RegionPairs, ZonePairs
from mlmm.plugin import plugin_problem
from mlmm.plugin.blend_force import pair_force
from mlmm.plugin.members import MemberEvaluation
from mlmm.potentials import load_potential
from mlmm.potentials.ani.native import instruction_set
from mlmm.term_weights import make_term_weights
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(
        instruction_set() is None or plugin_problem() is not None,
        reason="built without a compiler or the plugin",
    ),
]
N = 70


def pairs_of(kind: str, system: openmm.System) -> RegionPairs | ZonePairs:
    tables = read_mm_tables(system)
    if kind == "region":
        return RegionPairs(tables, np.arange(3, N), tables.exception_atoms[:4])
    weights = np.repeat([1.0, 0.3, 0.0, 0.8, 0.0, 0.0, 1.0], 10)
    visible = (weights > 0) | (np.arange(N) % 5 != 0)
    shares = make_term_weights("per_atom", weights, visible, (0.4, 0.6))
    return ZonePairs(tables, shares, np.array([[5, 9]]))


def context_with(force: openmm.Force, box: np.ndarray | None, platform: str) -> openmm.Context:
    system = openmm.System()
    for _ in range(N):
        system.addParticle(1.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box.tolist())
    system.addForce(force)
    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("kind", ["region", "zone"])
def test_they_are_those_of_the_python_force(kind, name, platform):
    """To the last digits, copies and XML too, in a box that has changed; without one pair they are not."""
    box = BOXES[name]
    pairs = pairs_of(kind, gas_system(N, box, seed=8, switch=0.6))
    force = pair_force(pairs)
    xml = openmm.XmlSerializer.serialize(force)
    other = copy.copy(pairs)
    other.parameters = pairs.parameters.copy()
    other.parameters[20] *= 1.01
    python = make_force(PairEnergy(pairs), bridge="pythonforce", periodic=pairs.periodic, name=pairs.name)
    contexts = [
        context_with(one, box, platform)
        for one in (
            python,
            copy.deepcopy(force),
            openmm.XmlSerializer.deserialize(xml),
            pair_force(other),
            force,
        )
    ]
    positions = 1.03 * gas(N, box, seed=8)
    found = []
    for context in contexts:
        if box is not None:
            context.setPeriodicBoxVectors(*(1.03 * box).tolist())
        found.append(evaluate(context, positions))
    (energy, forces), largest = found[0], np.abs(found[0][1]).max()
    assert largest > 10
    for k, (own, of_own) in enumerate(found[1:]):
        same = k != 2
        assert (abs(own - energy) < 1e-11 * abs(energy)) == same
        assert (np.abs(of_own - forces).max() < 1e-11 * largest) == same


@pytest.mark.parametrize("scheme", ["per_atom", "additive", "supermolecular"])
def test_nothing_in_a_step_is_python(scheme, monkeypatch):
    """Networks and pairs of every scheme, read from XML too; no force of it is one of another plugin.

    Control: where pairs go the way that they go without the plugin, one force is Python.
    """
    water = build_bulk_water("2 nm", nonbonded_cutoff="0.9 nm")
    potential = load_potential("ani1x", kernel="native", members=[0])
    region = region_from_atoms(water.topology, range(240 if scheme == "additive" else 3), "molecule")
    zones = hard_zones(water, region)
    if scheme == "per_atom":
        zones = static_zones(water, region, "0.2 nm", "0.2 nm")
    hybrid = hybrid_system(water, zones, potential, scheme=scheme, bridge="native")
    names = [force.getName() for force in hybrid.system.getForces()]
    assert (REGION_PAIRS if scheme == "additive" else ZONE_PAIRS) in names
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(hybrid.system))
    assert [force.getName() for force in again.getForces()] == names
    assert not in_python(hybrid.system) and not in_python(again) and not _has_foreign_force(again)
    monkeypatch.setattr("mlmm.hybrid.assemble.plugin_problem", lambda: "not built")
    assert len(in_python(hybrid.create_system())) == 1
    monkeypatch.setattr("mlmm.plugin.members.plugin_problem", lambda: "not built")
    assert _has_foreign_force(again)


def in_python(system: openmm.System) -> list[openmm.Force]:
    return [force for force in system.getForces() if isinstance(force, openmm.PythonForce)]


def test_pairs_have_no_members():
    force = pair_force(pairs_of("region", gas_system(N, None, seed=8)))
    evaluation = MemberEvaluation(force, N)
    with pytest.raises(
        openmm.OpenMMException, match="a force with networks, but got one of force-field pairs"
    ):
        evaluation(gas(N, None, seed=8))
