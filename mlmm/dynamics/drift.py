"""Drift of the energy in a stage without thermostat, beside that of the force field alone."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from openmm import unit

from mlmm.collective_variables.openmm_forces import follow_box
from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.frames import positions_and_box
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import platform_arguments
from mlmm.dynamics.reporters import degrees_of_freedom
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.stages import Dynamics
from mlmm.hybrid.system import HybridSystem
from mlmm.options import with_changes
from mlmm.statistics import linear_drift
from mlmm.units import NANOSECOND

__all__ = ["SHORTEST", "USED", "energy_drift", "measure_drift"]

#: Fields of `RunOptions` that a run without thermostat makes use of.
USED = ("timestep", "temperature", "seed", "platform", "threads")
_SAMPLES = 200  # energies along a run
_PIECE = 50  # steps between two looks at whether to go on
#: ps: the energy of a shorter run wanders by more than the error of its slope says, so that it tells nothing.
SHORTEST = 0.5


class _Ended(Exception):  # noqa: N818 - no error
    """The run was asked to end."""


def measure_drift(
    hybrid: HybridSystem,
    stage: Dynamics,
    run: RunDirectory,
    context: openmm.Context,
    options: RunOptions,
    going_on: Callable[[int, int], bool],
) -> dict[str, Any] | None:
    """Slope of the total energy in an NVE stage, and of the pure force field in a run as long.

    What cutoffs and the time step do to the force field alone is no fault of the potential. It is minimised
    and brought to the temperature first, since a structure of the potential may strain it.

    Parameters
    ----------
    hybrid : HybridSystem
    stage : Dynamics
    run : RunDirectory
        With the energy table.
    context : openmm.Context
        Where the stage ended: the force field alone begins with that structure.
    options : RunOptions
        Platform, threads and seed.
    going_on : callable
        Called with the steps of the force field that are done and their total; False ends them.

    Returns
    -------
    dict or None
        Slope and standard error in kJ/mol/ns per degree of freedom, length and time step in ps; those of the
        force field, or None where they were not measured, under ``force_field``. None for fewer than ten
        rows of the table.
    """
    drift = _hybrid_drift(hybrid, stage, run)
    if drift is None:
        return None
    alone = None
    if stage.length >= SHORTEST and not own_barostats(hybrid.built.system):
        alone = _force_field_drift(hybrid, stage, context, options, going_on)
    return drift | {"force_field": alone}


def _force_field_drift(
    hybrid: HybridSystem,
    stage: Dynamics,
    context: openmm.Context,
    options: RunOptions,
    going_on: Callable[[int, int], bool],
) -> dict[str, float] | None:
    """Drift of the force field alone, without multiple time steps; None where it was ended or blew up."""

    def look(done: int, total: int) -> None:
        if not going_on(done, total):
            raise _Ended

    state = context.getState(positions=True)
    positions, box = positions_and_box(state, hybrid.built.periodic)
    options = dataclasses.replace(options, timestep=stage.timestep, temperature=stage.temperature)
    try:
        slope, error, _ = energy_drift(
            hybrid.built.system,
            positions,
            options,
            equilibration=SHORTEST,
            length=stage.length,
            box=box,
            progress=look,
        )
    except (_Ended, openmm.OpenMMException):  # the run itself is sound
        return None
    if not (np.isfinite(slope) and np.isfinite(error)):
        return None
    return {"kj_per_mol_per_ns_per_dof": slope, "standard_error": error, "length_ps": stage.length}


def _hybrid_drift(hybrid: HybridSystem, stage: Dynamics, run: RunDirectory) -> dict[str, Any] | None:
    """Slope of the total energy in an NVE stage, from the energy table; None for fewer than ten rows."""
    with run.file("energies.csv").open(newline="", encoding="utf-8") as file:
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


def energy_drift(
    system: openmm.System,
    positions: np.ndarray,
    run: RunOptions | None = None,
    *,
    equilibration: float,
    length: float,
    box: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> tuple[float, float, float]:
    """Drift of the total energy in NVE after minimisation and a thermostatted start.

    Parameters
    ----------
    system : openmm.System
    positions : ndarray, shape (N, 3), nm
    run : RunOptions, optional
        Time step, temperature, seed, platform and threads are used.
    equilibration, length : float
        ps.
    box : ndarray, shape (3, 3), nm, optional
        Instead of the System's own.
    progress : callable, optional
        Called with steps that are done and their total; what it raises ends the run.
    **changes
        Fields of `run` that are used.

    Returns
    -------
    drift, error, fluctuation : float
        Slope and standard error in kJ/mol/ns per degree of freedom; standard deviation around the line,
        kJ/mol.
    """
    run = with_changes(RunOptions, run, changes, USED)
    timestep, arguments = run.timestep, platform_arguments(run.platform, run.threads, system)
    integrator = openmm.LangevinMiddleIntegrator(run.temperature, 5.0, timestep)
    integrator.setRandomNumberSeed(run.seed + 1)
    integrator.setConstraintTolerance(1e-7)
    context = openmm.Context(system, integrator, *arguments)
    if box is not None:
        context.setPeriodicBoxVectors(*box)
        follow_box(context)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(run.temperature, run.seed + 1)
    interval = max(1, round(length / timestep / _SAMPLES))
    samples, before = round(length / timestep) // interval, round(equilibration / timestep)
    done = 0

    def advance(integrator: openmm.Integrator, steps: int) -> None:
        nonlocal done
        for first in range(0, steps, _PIECE):
            integrator.step(min(_PIECE, steps - first))
            done += min(_PIECE, steps - first)
            if progress is not None:
                progress(done, before + samples * interval)

    advance(integrator, before)
    state = context.getState(positions=True, velocities=True)
    verlet = openmm.VerletIntegrator(timestep)
    verlet.setConstraintTolerance(1e-7)
    context = openmm.Context(system, verlet, *arguments)
    if box is not None:
        context.setPeriodicBoxVectors(*box)
        follow_box(context)
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    times, energies = [], []
    for k in range(1, samples + 1):
        advance(verlet, interval)
        now = context.getState(energy=True)
        times.append(k * interval * timestep / NANOSECOND)
        energies.append(
            (now.getPotentialEnergy() + now.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole)
        )
    slope, error = linear_drift(np.array(times), np.array(energies))
    around = np.array(energies) - np.polyval(np.polyfit(times, energies, 1), times)
    freedom = degrees_of_freedom(system)
    return slope / freedom, error / freedom, float(np.std(around))
