"""What a row of the energy table is evaluated from: each force group once, and one kinetic energy."""

from __future__ import annotations

import contextlib
import csv
import math

import numpy as np
import openmm
import pytest
from runs import chain_hybrid
from test_restraints_in_runs import RESTRAINTS, SMALL

import mlmm.dynamics.moments
import mlmm.plugin.energies
from mlmm.dynamics.integrators import energy_groups, make_integrator
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.stages import NVECheck, Produce
from mlmm.plugin import plugin_problem, potential_energies
from mlmm.plugin.energies import take

#: One time step with and without thermostat, and several.
STAGES = {
    "Langevin": Produce("1 ps", timestep="0.5 fs").under(RunOptions()),
    "Verlet": NVECheck("1 ps", timestep="0.5 fs").under(RunOptions()),
    "several": NVECheck("1 ps", timestep="0.5 fs", nonbonded_every=2).under(RunOptions()),
}


@pytest.fixture(scope="module")
def hybrid():
    return chain_hybrid(**SMALL).restrained(RESTRAINTS)


@pytest.fixture(params=["plugin", "states"])
def source(request, monkeypatch):
    """With the plugin and without it."""
    if request.param == "states":
        monkeypatch.setattr(mlmm.plugin.energies, "plugin_problem", lambda: "not built")
    elif plugin_problem() is not None:
        pytest.skip("the plugin was not built")
    return request.param


def moving(kind: str, hybrid):
    """A Context after some steps."""
    integrator = make_integrator(STAGES[kind], hybrid.force_groups, 1, constrained=False)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(hybrid.built.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(6)
    return context


@pytest.fixture(scope="module")
def contexts(hybrid):
    return {kind: moving(kind, hybrid) for kind in STAGES}


def row_of(path, hybrid, context, step=6):
    """Numbers of the one row of a table."""
    with contextlib.closing(EnergyTable(path, hybrid)) as table:
        table.write("produce", step, 0.0005 * step, table.moment(context))
    with path.open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    return {name: float(value) for name, value in row.items() if value and name != "stage"}


def separate(hybrid, context) -> dict[str, float]:
    """The same columns from a State for each group and one for all."""
    state, row = context.getState(energy=True), {}
    for name, group in hybrid.force_groups.items():
        own = context.getState(energy=True, groups=energy_groups(name, group))
        row[f"E_{name}"] = own.getPotentialEnergy()._value
    row["kinetic"] = state.getKineticEnergy()._value
    row["total"] = math.fsum(value for value in row.values())
    return row


@pytest.mark.parametrize("kind", STAGES)
def test_columns_are_those_of_a_state_for_each_group(tmp_path, kind, source, hybrid, contexts):
    """Group by group, and the kinetic energy; that of half a step earlier is another."""
    context = contexts[kind]
    expected = separate(hybrid, context)
    row = row_of(tmp_path / "energies.csv", hybrid, context)
    assert len(hybrid.force_groups) > 3 and {"nonbonded", "ml", "bias"} <= set(hybrid.force_groups)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-13, abs=1e-12), name
    masses = [hybrid.system.getParticleMass(i)._value for i in range(hybrid.built.n_atoms)]
    velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    stored = 0.5 * (np.array(masses)[:, None] * velocities**2).sum()
    assert (abs(stored - row["kinetic"]) > 1e-6 * stored) == (kind == "Verlet")


@pytest.mark.parametrize("kind", STAGES)
def test_each_group_is_evaluated_once_for_a_row(tmp_path, kind, source, hybrid, contexts, monkeypatch):
    """Sets of groups in all evaluations, and one kinetic energy; from half steps one evaluation more."""
    context, states, asked, plain = contexts[kind], [], [], openmm.Context.getState

    def state(self, **what):
        if what.get("energy"):
            states.append(what["groups"])
        return plain(self, **what)

    def watched(context, groups, *, kinetic, velocities):
        asked.append((list(groups), kinetic))
        return take(context, groups, kinetic=kinetic, velocities=velocities)

    monkeypatch.setattr(openmm.Context, "getState", state)
    monkeypatch.setattr(mlmm.dynamics.moments, "take", watched)
    row_of(tmp_path / "energies.csv", hybrid, context)
    own = [energy_groups(name, group) for name, group in hybrid.force_groups.items()]
    ((groups, kinetic),) = asked
    assert sorted(map(sorted, groups)) == sorted(map(sorted, own)) and groups[-1] == energy_groups(
        "nonbonded", 0
    )
    assert kinetic == ("forces" if kind == "Verlet" else "velocities")
    whole = -1 if kind == "Verlet" else 0
    assert states == ([] if source == "plugin" else [*groups, whole])


def test_a_row_between_steps_changes_no_step(tmp_path, hybrid):
    """Multiple time steps go on as they would without it, to the last bit."""
    ends = []
    for rows in (0, 3):
        context = moving("several", hybrid)
        for k in range(3):
            if k < rows:
                row_of(tmp_path / "energies.csv", hybrid, context, k)
            context.getIntegrator().step(2)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.array_equal(*ends)


def test_potential_energies_need_positions(hybrid):
    """Without them the message is OpenMM's, whatever the source."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(hybrid.system, openmm.VerletIntegrator(0.001), platform)
    with pytest.raises(openmm.OpenMMException, match="positions"):
        potential_energies(context, [{0}])
    context.setPositions(hybrid.built.positions)
    whole, parts = (
        potential_energies(context, [range(32)]),
        potential_energies(context, [{k} for k in range(32)]),
    )
    assert whole[0] == pytest.approx(math.fsum(parts), rel=1e-13)
    assert sum(part != 0 for part in parts) > 1


@pytest.mark.parametrize("kind", STAGES)
def test_what_a_context_holds_is_that_of_a_state(kind, source, hybrid, contexts):
    """Positions, velocities, box and kinetic energy, bit for bit; nothing that was not asked for."""
    context = contexts[kind]
    state = context.getState(positions=True, velocities=True, energy=True)
    needed = "forces" if kind == "Verlet" else "velocities"
    held = take(context, [{0}, {1, 2}], kinetic=needed, velocities=True)
    assert np.array_equal(held.positions, state.getPositions(asNumpy=True)._value)
    assert np.array_equal(held.velocities, state.getVelocities(asNumpy=True)._value)
    assert np.array_equal(held.box, state.getPeriodicBoxVectors(asNumpy=True)._value)
    assert held.kinetic == state.getKineticEnergy()._value and len(held.energies) == 2
    bare = take(context)
    assert bare.velocities is None and math.isnan(bare.kinetic) and bare.energies == []
    assert np.array_equal(bare.positions, held.positions) and held.positions.std() > 0.01
