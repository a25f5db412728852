"""How long may a time step be? Short NVE runs from one state, with drift and temperature for each setting."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import openmm
from openmm import unit

from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.graph_choice import choose_graphs
from mlmm.dynamics.integrators import make_integrator, separate_reciprocal
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import choose_platform, platform_arguments
from mlmm.dynamics.reporters import degrees_of_freedom
from mlmm.dynamics.stages import Dynamics, NVECheck
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.options import split_changes, with_changes
from mlmm.statistics import linear_drift
from mlmm.units import FEMTOSECOND, GAS_CONSTANT, NANOSECOND
from mlmm.validation.options import TimeStepOptions
from mlmm.validation.time_step_table import StepTest, TimeStepScan

__all__ = ["judge_settings", "scan_time_steps"]

logger = logging.getLogger(__name__)
_USED = ("temperature", "seed", "platform", "threads")
_FRICTION = 1.0  # 1/ps; of the thermostat against which heating is judged
#: Before each run, under a thermostat with its own steps: the energy that a longer step conserves is another
#: one, and vibrations that have not come to rest in it look like drift. ps, 1/ps.
_SETTLING, _SETTLING_FRICTION = 0.2, 20.0
_QUIET = 0.2  # largest fluctuation of the total energy, in units of that of the kinetic energy
_SAMPLES = 200


def scan_time_steps(
    hybrid: HybridSystem,
    options: TimeStepOptions | None = None,
    run: RunOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> TimeStepScan:
    """Energy drift and temperature in NVE for time steps and multiples of them, each after settling in it.

    A setting is stable if its total energy fluctuates by no more than a fifth of what its kinetic energy
    does, k_B T sqrt(n) / 2, and if what it gains more than the smallest one would warm the zone by no more
    than `max_heating`, within two standard errors, under a thermostat of 1/ps: a power P over n degrees of
    freedom leaves a temperature that is too high by P / (n k_B gamma). A run is "too short" to say where
    twice the error is more than the limit. A larger multiple of an unstable setting is not run.

    Parameters
    ----------
    hybrid : HybridSystem
    options : TimeStepOptions, optional
        Time steps and multiples to test, lengths, limit.
    run : RunOptions, optional
        Temperature, seed, platform and threads are used.
    progress : callable, optional
        Called with a line of text for each setting.
    **changes
        Fields of `options`, and those of `run` that are used.

    Raises
    ------
    ConfigError
        Steps or multiples that are not positive, a length of fewer than 20 whole steps, or a barostat in the
        System.
    SimulationError
        NaN in the equilibration already.
    """

    own, shared = split_changes(changes, TimeStepOptions, _USED)
    run = with_changes(RunOptions, run, shared)
    # As a run has it.
    hybrid, _ = choose_graphs(hybrid, choose_platform(run.platform, run.threads, hybrid.system))

    def system_for(separate: bool) -> openmm.System:
        if not separate:
            return hybrid.system
        system = hybrid.create_system()
        separate_reciprocal(system)
        return system

    return judge_settings(
        system_for,
        hybrid.force_groups,
        hybrid.built.positions,
        hybrid.zones.active,
        with_changes(TimeStepOptions, options, own),
        run,
        progress=progress,
    )


def judge_settings(
    system_for: Callable[[bool], openmm.System],
    force_groups: Mapping[str, int],
    positions: np.ndarray,
    zone: Collection[int],
    options: TimeStepOptions,
    run: RunOptions,
    *,
    minimise: bool = True,
    progress: Callable[[str], None] | None = None,
) -> TimeStepScan:
    """`scan_time_steps` for any System.

    Parameters
    ----------
    system_for : callable
        The System; with True, one whose reciprocal sum has a force group of its own.
    force_groups : mapping of str to int
    positions : ndarray, shape (N, 3), nm
    zone : collection of int
        Atoms that would have to take up all of the heat.
    options : TimeStepOptions
    run : RunOptions
        Temperature, seed, platform and threads are used.
    minimise : bool
        Whether to go downhill before the equilibration.
    """
    steps = sorted(set(options.timesteps))
    _check(steps, options.nonbonded_every_values, options.reciprocal_every_values, options.length)
    progress = progress or (lambda text: None)
    arguments = platform_arguments(run.platform, run.threads, system_for(False))
    length = options.length
    progress(f"equilibration, {options.equilibration:g} ps at {steps[0] / FEMTOSECOND:g} fs")
    own = own_barostats(system_for(False))
    if own:
        raise ConfigError(
            "a System without a barostat, to see its energy conserved", ", ".join(own), "remove it"
        )
    start = _start(system_for(False), positions, steps[0], options.equilibration, run, minimise)
    tests: list[StepTest] = []
    first: tuple[float, float] | None = None
    for step in steps:
        for nonbonded_every in sorted(set(options.nonbonded_every_values)):
            for reciprocal_every in sorted(set(options.reciprocal_every_values)):
                if _beyond_unstable(tests, step, nonbonded_every, reciprocal_every):
                    continue
                multiples = f"nonbonded_every {nonbonded_every}, reciprocal_every {reciprocal_every}"
                progress(f"{step / FEMTOSECOND:g} fs, {multiples}, {length:g} ps")
                stage = NVECheck(
                    length,
                    run.temperature,
                    timestep=step,
                    nonbonded_every=nonbonded_every,
                    reciprocal_every=reciprocal_every,
                ).under(run)
                system = system_for(reciprocal_every > 1)
                found = _run(system, force_groups, stage, start, zone, arguments, run.seed)
                test, first = _judged(stage, found, system, zone, first, options.max_heating)
                tests.append(test)
                progress(f"   {test.verdict}")
    return TimeStepScan(tuple(tests), length, options.max_heating)


def _check(
    steps: list[float],
    nonbonded_every_values: Sequence[int],
    reciprocal_every_values: Sequence[int],
    length: float,
) -> None:
    if not steps or steps[0] <= 0 or min([*nonbonded_every_values, *reciprocal_every_values], default=0) < 1:
        raise ConfigError(
            "positive time steps, nonbonded_every and reciprocal_every of 1 or more", "others", "correct them"
        )
    if 1 not in nonbonded_every_values or 1 not in reciprocal_every_values:
        raise ConfigError(
            "nonbonded_every and reciprocal_every with 1 among them",
            "none",
            "add 1: the others are judged by it",
        )
    if length < 20 * steps[-1] * max(nonbonded_every_values) * max(reciprocal_every_values):
        raise ConfigError("NVE runs of at least 20 whole steps", f"{length:g} ps", 'write --nve "1 ps"')


def _beyond_unstable(tests: list[StepTest], step: float, nonbonded_every: int, reciprocal_every: int) -> bool:
    """Whether a setting is no smaller in any way than one that has failed."""
    return any(
        t.verdict == "unstable"
        and step >= t.timestep
        and nonbonded_every >= t.nonbonded_every
        and reciprocal_every >= t.reciprocal_every
        for t in tests
    )


def _start(
    system: openmm.System,
    positions: np.ndarray,
    step: float,
    equilibration: float,
    run: RunOptions,
    minimise: bool,
) -> openmm.State:
    """Positions and velocities from which every setting goes on."""
    integrator = openmm.LangevinMiddleIntegrator(run.temperature, 5.0, step)
    integrator.setRandomNumberSeed(run.seed + 1)
    context = openmm.Context(system, integrator, *platform_arguments(run.platform, run.threads, system))
    context.setPositions(positions)
    if minimise:
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(run.temperature, run.seed + 1)
    try:
        integrator.step(round(equilibration / step))
    except openmm.OpenMMException as error:
        if "nan" not in str(error).lower():
            raise
        raise SimulationError(
            f"an equilibration that holds at the smallest step, {step / FEMTOSECOND:g} fs",
            "NaN",
            "test smaller steps: --timesteps 0.25,0.5",
        ) from error
    return context.getState(positions=True, velocities=True)


def _run(
    system: openmm.System,
    force_groups: Mapping[str, int],
    stage: Dynamics,
    start: openmm.State,
    zone: Collection[int],
    arguments: list[Any],
    seed: int,
) -> dict[str, np.ndarray] | None:
    """Times (ps), energies and kinetic energies (kJ/mol) along an NVE run; None if it explodes."""
    try:
        settled = _settled(system, force_groups, stage, start, arguments, seed)
        return _sampled(system, force_groups, stage, settled, zone, arguments)
    except openmm.OpenMMException as error:
        if "nan" not in str(error).lower():
            raise
        return None


def _context(
    system: openmm.System, integrator: openmm.Integrator, start: openmm.State, arguments: list[Any]
) -> openmm.Context:
    integrator.setConstraintTolerance(1e-7)
    context = openmm.Context(system, integrator, *arguments)
    if system.usesPeriodicBoundaryConditions():
        context.setPeriodicBoxVectors(*start.getPeriodicBoxVectors())
    context.setPositions(start.getPositions())
    context.setVelocities(start.getVelocities())
    return context


def _settled(
    system: openmm.System,
    force_groups: Mapping[str, int],
    stage: Dynamics,
    start: openmm.State,
    arguments: list[Any],
    seed: int,
) -> openmm.State:
    """The state after a short thermostatted run with the steps of the setting."""
    warm = dataclasses.replace(stage, ensemble="NVT", length=_SETTLING, friction=_SETTLING_FRICTION)
    constrained = system.getNumConstraints() > 0
    integrator = make_integrator(warm, force_groups, seed + 1, constrained=constrained)
    context = _context(system, integrator, start, arguments)
    integrator.step(warm.steps)
    return context.getState(positions=True, velocities=True)


def _sampled(
    system: openmm.System,
    force_groups: Mapping[str, int],
    stage: Dynamics,
    start: openmm.State,
    zone: Collection[int],
    arguments: list[Any],
) -> dict[str, np.ndarray] | None:
    integrator = make_integrator(stage, force_groups, 1, constrained=system.getNumConstraints() > 0)
    context = _context(system, integrator, start, arguments)
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])[:, None]
    inside = np.array([atom for atom in zone if masses[atom] > 0])
    # Verlet's velocities are half a step behind.
    behind = 0.5 * stage.timestep if isinstance(integrator, openmm.VerletIntegrator) else 0.0
    interval = max(1, stage.steps // _SAMPLES)
    rows, spent = [], 0.0
    integrator.step(1)
    for k in range(1, stage.steps // interval + 1):
        cpu = time.process_time()
        integrator.step(interval)
        spent += time.process_time() - cpu
        state = context.getState(energy=True, velocities=True, forces=behind > 0)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)[inside]
        if behind:
            velocities = velocities + behind * _forces(state)[inside] / masses[inside]
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        total = kinetic + state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        local = 0.5 * float(np.sum(masses[inside] * velocities**2))
        rows.append((k * interval * stage.step_length, total, kinetic, local))
        # A local explosion need not reach NaN within the run: a hundredfold kinetic energy is none either.
        if not np.isfinite(total) or kinetic > 100 * max(rows[0][2], 1e-9):
            return None
    table = dict(zip(("time", "total", "kinetic", "local"), np.array(rows).T, strict=True))
    return table | {"cpu": np.array(1e3 * spent / (len(rows) * interval * stage.step_length / FEMTOSECOND))}


def _forces(state: openmm.State) -> np.ndarray:
    forces = state.getForces(asNumpy=True)
    return forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def _judged(
    stage: Dynamics,
    found: dict[str, np.ndarray] | None,
    system: openmm.System,
    zone: Collection[int],
    first: tuple[float, float] | None,
    max_heating: float,
) -> tuple[StepTest, tuple[float, float] | None]:
    """The figures of a run and the verdict; `first` is power and error of the setting to compare with."""
    setting = (stage.timestep, stage.nonbonded_every, stage.reciprocal_every)
    nan = math.nan
    if found is None:
        return StepTest(*setting, nan, nan, nan, nan, nan, nan, nan, nan, "unstable"), first
    freedom = degrees_of_freedom(system)
    power, error = linear_drift(found["time"], found["total"])
    around = found["total"] - np.polyval(np.polyfit(found["time"], found["total"], 1), found["time"])
    inside = _freedom_inside(system, zone)
    if first is None:
        # Nothing to compare with: all of it, spread over all.
        heating = np.array([power, error]) / (freedom * GAS_CONSTANT * _FRICTION)
        first = (power, error)
    else:
        both = np.array([power - first[0], np.hypot(error, first[1])])
        heating = both / (inside * GAS_CONSTANT * _FRICTION)
    fluctuation = float(np.std(around))
    loud = fluctuation > _QUIET * 0.5 * GAS_CONSTANT * stage.temperature * math.sqrt(freedom)
    if loud or abs(heating[0]) > max_heating + 2 * heating[1]:
        verdict = "unstable"
    else:
        verdict = "too short" if 2 * heating[1] > max_heating else "stable"
    test = StepTest(
        *setting,
        power * NANOSECOND / freedom,
        error * NANOSECOND / freedom,
        fluctuation,
        float(2 * found["kinetic"].mean() / (freedom * GAS_CONSTANT)),
        float(2 * found["local"].mean() / (inside * GAS_CONSTANT)),
        float(heating[0]),
        float(heating[1]),
        float(found["cpu"]),
        verdict,
    )
    return test, first


def _freedom_inside(system: openmm.System, zone: Collection[int]) -> int:
    """Degrees of freedom of the zone's atoms."""
    inside = {atom for atom in zone if system.getParticleMass(atom)._value > 0}
    held = sum(
        inside.issuperset(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())
    )
    return max(1, 3 * len(inside) - held)
