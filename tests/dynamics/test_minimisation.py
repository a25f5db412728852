"""Minimisation that meets a hole of the potential: undone, and gone again by short steps."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from mlmm.dynamics.interruption import StopRequest
from mlmm.dynamics.minimisation import minimise
from mlmm.dynamics.stages import Minimise


def water_like(hole: float) -> openmm.Context:
    """Ten pairs with a bond at 0.1 nm; below 0.06 nm the energy may fall by so much, kJ/mol/nm."""
    system = openmm.System()
    well = "1e5*(r-0.1)^2" + (f" - {hole}*step(0.06-r)*(0.06-r)" if hole else "")
    force = openmm.CustomBondForce(well)
    for k in range(10):
        system.addParticle(12.0)
        system.addParticle(1.0)
        force.addBond(2 * k, 2 * k + 1, [])
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    positions = np.random.default_rng(3).random((20, 3))
    positions[1::2] = positions[::2] + np.array([0.13, 0.0, 0.0])
    context.setPositions(positions)
    return context


def over_the_wall(context: openmm.Context) -> None:
    """As a line search that is too long: one pair at 0.03 nm."""
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    positions[1] = positions[0] + np.array([0.03, 0.0, 0.0])
    context.setPositions(positions)


@pytest.mark.parametrize(("hole", "depth"), [(1e30, -1e28), (1e6, -2e4)])
def test_a_hole_is_no_minimum(monkeypatch, hole, depth):
    """A bottomless one, and one that a whole system could have as its energy."""
    context, calls = water_like(hole), []
    whole = openmm.LocalEnergyMinimizer.minimize

    def careless(context, *arguments):
        calls.append(1)
        if len(calls) == 2:
            over_the_wall(context)
            return
        whole(context, *arguments)

    monkeypatch.setattr(openmm.LocalEnergyMinimizer, "minimize", careless)
    stage = Minimise(max_iterations=200, tolerance=1e-3)
    state, facts = minimise(context, stage, StopRequest(), lambda _: None)
    positions = state.getPositions(asNumpy=True)._value
    lengths = np.linalg.norm(positions[1::2] - positions[::2], axis=1)
    assert len(calls) >= 2 and lengths == pytest.approx(0.1, abs=1e-4)
    assert 0.0 <= facts["energy_after"] < 1e-3
    # Control: what the second piece left behind.
    over_the_wall(context)
    assert context.getState(energy=True).getPotentialEnergy()._value < depth


def test_short_steps_alone_reach_the_minimum(monkeypatch):
    """Not-a-number from the minimiser itself, at every piece."""

    def broken(*_):
        raise openmm.OpenMMException("Particle coordinate is NaN.")

    monkeypatch.setattr(openmm.LocalEnergyMinimizer, "minimize", broken)
    context = water_like(hole=0.0)
    stage = Minimise(max_iterations=300, tolerance=1.0)
    _, facts = minimise(context, stage, StopRequest(), lambda _: None)
    assert facts["energy_after"] < 1e-3 * facts["energy_before"]
    monkeypatch.setattr(
        openmm.LocalEnergyMinimizer,
        "minimize",
        lambda *_: (_ for _ in ()).throw(openmm.OpenMMException("other")),
    )
    with pytest.raises(openmm.OpenMMException, match="other"):
        minimise(context, stage, StopRequest(), lambda _: None)
