"""Drift of the energy in a stage without thermostat, beside that of the force field alone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm

from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.reporters import degrees_of_freedom
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.stages import Dynamics
from mlmm.hybrid.system import HybridSystem
from mlmm.statistics import linear_drift
from mlmm.units import NANOSECOND

__all__ = ["measure_drift"]

_CONSTRAINTS = 1e-7
_SAMPLES = 200


def measure_drift(
    hybrid: HybridSystem,
    stage: Dynamics,
    run: RunDirectory,
    context: openmm.Context,
    platform: tuple[openmm.Platform, dict[str, str]],
    going_on: Callable[[int, int], bool],
) -> dict[str, Any] | None:
    """Slope of the total energy in an NVE stage, and of the pure force field in a run as long.

    Parameters
    ----------
    hybrid : HybridSystem
    stage : Dynamics
    run : RunDirectory
        With the energy table.
    context : openmm.Context
        Where the stage ended: the force field alone goes on from there.
    platform : tuple of (openmm.Platform, dict)
        With its properties.
    going_on : callable
        Called with the steps of the force field that are done and their total; False ends them.

    Returns
    -------
    dict or None
        Slope and standard error in kJ/mol/ns per degree of freedom, length and time step in ps; those of the
        force field, or None, under ``force_field``. None for fewer than ten rows of the table.
    """
    drift = _hybrid_drift(hybrid, stage, run)
    if drift is None:
        return None
    alone = None
    if not own_barostats(hybrid.built.system):
        state = context.getState(positions=True, velocities=True)
        alone = _force_field_drift(hybrid, stage, state, platform, going_on)
    return drift | {"force_field": alone}


def _hybrid_drift(hybrid: HybridSystem, stage: Dynamics, run: RunDirectory) -> dict[str, Any] | None:
    """Slope of the total energy in an NVE stage, from the energy table; None for fewer than ten rows."""
    with run.file("energies.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == stage.name]
    if len(rows) < 10:
        return None
    times = np.array([float(row["time_ps"]) for row in rows])
    energies = np.array([float(row["total"]) for row in rows])
    slope, error = linear_drift(times / NANOSECOND, energies / degrees_of_freedom(hybrid.system))
    return {
        "kj_per_mol_per_ns_per_dof": slope,
        "standard_error": error,
        "length_ps": stage.length,
        "timestep_ps": stage.timestep,
    }


def _force_field_drift(
    hybrid: HybridSystem,
    stage: Dynamics,
    state: openmm.State,
    platform: tuple[openmm.Platform, dict[str, str]],
    going_on: Callable[[int, int], bool],
) -> dict[str, float] | None:
    """Drift of the pure force field in a run as long as an NVE stage, from where that ended.

    It is what the drift of the hybrid is held against: what cutoffs and the time step do to the force field
    alone is no fault of the potential.

    Time step and length are those of the stage, without multiple time steps. None where the run was ended, or
    gave energies that are not finite.
    """
    system, steps = hybrid.built.system, round(stage.length / stage.timestep)
    integrator = openmm.VerletIntegrator(stage.timestep)
    integrator.setConstraintTolerance(_CONSTRAINTS)
    context = openmm.Context(system, integrator, *platform)
    if hybrid.built.periodic:
        context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    # The hybrid leaves bonds of the region free that the force field may hold.
    context.applyConstraints(_CONSTRAINTS)
    context.applyVelocityConstraints(_CONSTRAINTS)
    interval = max(1, steps // _SAMPLES)
    times, energies = [], []
    for done in range(interval, steps + 1, interval):
        if not going_on(done, steps):
            return None
        try:
            integrator.step(interval)
        except openmm.OpenMMException:  # the run itself is sound
            return None
        now = context.getState(energy=True)
        times.append(done * stage.timestep / NANOSECOND)
        energies.append(now.getPotentialEnergy()._value + now.getKineticEnergy()._value)
    if len(times) < 10 or not np.isfinite(energies).all():
        return None
    slope, error = linear_drift(np.array(times), np.array(energies) / degrees_of_freedom(system))
    return {"kj_per_mol_per_ns_per_dof": slope, "standard_error": error, "length_ps": stage.length}
