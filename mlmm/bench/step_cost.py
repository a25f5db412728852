"""Cost of a step of one hybrid system, divided into force field, pairs, potential, bridge and reporters.

The parts are differences between contexts of one structure that take their steps in turn:

- force field that stays: steps of the hybrid System without the groups of the potential and of pairs;
- pairs: what the steps cost more with the forces that subtract pairs outside of OpenMM's own kernels;
- potential: energy and forces as the bridge evaluates them, without OpenMM;
- bridge and caches: what the whole step costs beyond these.

Each block of steps begins at the same positions and velocities. Where forces are left out, the atoms that
lack them are held by large masses: bare hydrogens would fly into their neighbours within 100 steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from mlmm.bench.measure import (
    Task,
    interleaved,
    machine_facts,
    peak_resident_mb,
    reason,
    step_task,
)
from mlmm.bench.potential_call import potential_task
from mlmm.bench.table import StepCost, cost_rows
from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.frames import positions_and_box
from mlmm.dynamics.graph_choice import choose_graphs
from mlmm.dynamics.integrators import forget_forces, make_integrator, separate_reciprocal
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import choose_platform, device_name, leaves_processor_idle
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.dynamics.stages import Dynamics
from mlmm.dynamics.trajectory import TrajectoryWriter
from mlmm.dynamics.uncertainty import UncertaintyMonitor
from mlmm.hybrid.system import HybridSystem
from mlmm.kernels.direct_pairs import REGION_PAIRS, ZONE_PAIRS

__all__ = ["StepCost", "measure_step"]

_PAIR_GROUP = 8  # one that no force of a hybrid system has
_SETTLING_STEPS = 50
_STEPS_IN_A_BLOCK = 100
# Rows, frames or checkpoints; no more wait for the thread that makes them without keeping the steps.
_ROWS_IN_A_BLOCK = 8
_HOLDING_MASS = 1e6  # times an atom's own; a step costs as much


def measure_step(
    hybrid: HybridSystem,
    stage: Dynamics,
    options: RunOptions | None = None,
    *,
    rounds: int = 12,
    minimise: int = 100,
    monitor: UncertaintyMonitor | None = None,
    against: Mapping[str, Callable[[], HybridSystem]] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> StepCost:
    """Time the step of a hybrid system and its parts, in turn, on one platform.

    Parameters
    ----------
    hybrid : HybridSystem
    stage : Dynamics
        Integrator, time step and temperature; a constant pressure is not timed.
    options : RunOptions, optional
        What the stage leaves open; platform, threads, seed, and the intervals of the reporters.
    rounds : int
        Blocks of each row.
    minimise : int
        Iterations of a minimisation by the force field alone before the steps.
    monitor : UncertaintyMonitor, optional
        What is measured of the uncertainty with every row of the energy table.
    against : mapping of str to callable, optional
        Other hybrid systems of the same atoms whose whole steps are timed in the same turns; one that cannot
        be made or run loses its row with the reason.
    progress : callable, optional
        Called with a line of text.

    Raises
    ------
    ConfigError
        An unknown platform.
    """
    options = options or RunOptions()
    stage = stage.under(options)
    platform = choose_platform(options.platform, options.threads, hybrid.system)
    hybrid, _ = choose_graphs(hybrid, platform)
    bench = _Bench(hybrid, stage, platform, options.seed + 1)
    progress("settling the structure under the force field")
    bench.settle(minimise)
    progress("timing")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        tasks = bench.tasks()
        tasks |= bench.reporters(options, monitor, Path(folder), files)
        lost = {}
        for name, make in (against or {}).items():
            try:
                tasks[name] = bench.steps(choose_graphs(make(), platform)[0].system, bench.single)
            # One that lacks a package or memory is a row with a reason.
            except Exception as error:
                lost[name] = reason(error)
        timings, failed = interleaved(tasks, rounds)
    lost |= failed
    platform = bench.platform[0]
    facts = machine_facts(options.threads if platform.getName() == "CPU" else 0)
    facts |= {"platform": platform.getName(), "device": device_name(platform), "peak_mb": peak_resident_mb()}
    rows = cost_rows(timings, stage, options, tuple(against or ()))
    notes = [f"{name} is left out: {why}" for name, why in lost.items()]
    if stage.ensemble == "NPT":
        notes.append("the barostat, which moves the box every 25 steps, is not timed")
    return StepCost(facts, _system_facts(hybrid, stage), tuple(rows), tuple(notes))


class _Bench:
    """Contexts of one structure."""

    def __init__(
        self,
        hybrid: HybridSystem,
        stage: Dynamics,
        platform: tuple[openmm.Platform, dict[str, str]],
        seed: int,
    ):
        self.hybrid, self.platform, self.seed = hybrid, platform, seed
        self.stage = dataclasses.replace(stage, ensemble="NVT" if stage.ensemble == "NPT" else stage.ensemble)
        self.single = dataclasses.replace(self.stage, nonbonded_every=1, reciprocal_every=1)
        self.start: openmm.State

    def context(self, system: openmm.System, stage: Dynamics, leave_out: int = 0) -> openmm.Context:
        """A context with the integrator of a stage, at the built structure.

        Parameters
        ----------
        system : openmm.System
        stage : Dynamics
        leave_out : int
            Bit mask of force groups that do not act.
        """
        integrator = make_integrator(
            stage,
            self.hybrid.force_groups,
            self.seed,
            constrained=system.getNumConstraints() > 0,
            moved_between_steps=bool(own_barostats(system)),
        )
        if leave_out:
            integrator.setIntegrationForceGroups({k for k in range(32) if not leave_out >> k & 1})
        context = openmm.Context(system, integrator, *self.platform)
        context.setPositions(self.hybrid.built.positions)
        return context

    def settle(self, iterations: int) -> None:
        """Minimise and run a few steps of the force field alone: the start of every block."""
        context = self.context(self.hybrid.built.system, self.single)
        if iterations:
            openmm.LocalEnergyMinimizer.minimize(context, 10.0, iterations)
        context.setVelocitiesToTemperature(self.single.temperature, self.seed)
        context.getIntegrator().step(_SETTLING_STEPS)
        self.start = context.getState(positions=True, velocities=True)

    def steps(self, system: openmm.System, stage: Dynamics) -> Task:
        """Steps of a System, each block from the start."""
        return self.steps_of(self.context(system, stage))

    def steps_without(self, system: openmm.System, leave_out: int) -> Task:
        """Steps without some force groups; the atoms that feel the potential are held.

        Parameters
        ----------
        system : openmm.System
            Its masses are changed.
        leave_out : int
            Bit mask of force groups.
        """
        held = self.hybrid.zones.active
        for atom in held:
            system.setParticleMass(int(atom), _HOLDING_MASS * system.getParticleMass(int(atom)))
        return self.steps_of(self.context(system, self.single, leave_out), held)

    def steps_of(self, context: openmm.Context, at_rest: Sequence[int] | np.ndarray = ()) -> Task:
        """Steps of a context, each block from the start.

        Parameters
        ----------
        context : openmm.Context
        at_rest : sequence of int
            Atoms that begin without a velocity.
        """
        box = self.start.getPeriodicBoxVectors() if self.hybrid.built.periodic else None
        positions = self.start.getPositions(asNumpy=True)
        velocities = self.start.getVelocities(asNumpy=True)
        velocities[list(at_rest)] = 0 * velocities.unit

        def restart() -> None:
            if box is not None:
                context.setPeriodicBoxVectors(*box)
            context.setPositions(positions)
            context.setVelocities(velocities)
            forget_forces(context.getIntegrator())

        return step_task(context, restart=restart, at_most=_STEPS_IN_A_BLOCK)

    def tasks(self) -> dict[str, Task]:
        """Steps with all forces and with some, and the potential by itself, by name."""
        hybrid = self.hybrid
        potential = 1 << hybrid.force_groups["ml"]
        tasks = {"force field alone": self.steps(hybrid.built.system, self.single)}
        if _pair_forces(hybrid.system):
            apart = hybrid.create_system()
            for force in _pair_forces(apart):
                force.setForceGroup(_PAIR_GROUP)
            tasks["without pairs"] = self.steps_without(apart, potential | 1 << _PAIR_GROUP)
        tasks["without potential"] = self.steps_without(hybrid.create_system(), potential)
        tasks["whole step"] = self.steps(hybrid.system, self.single)
        positions, box = positions_and_box(self.start, hybrid.built.periodic)
        tasks["potential"] = potential_task(hybrid, positions, box)
        if self.stage.step_length != self.stage.timestep:
            system = hybrid.system
            if self.stage.reciprocal_every > 1:
                system = hybrid.create_system()
                separate_reciprocal(system)
            tasks["multiple time steps"] = self.steps(system, self.stage)
        return tasks

    def reporters(
        self,
        options: RunOptions,
        monitor: UncertaintyMonitor | None,
        folder: Path,
        files: contextlib.ExitStack,
    ) -> dict[str, Task]:
        """A row of the energy table, a frame and a checkpoint of a run, each written into a folder.

        On a GPU rows and frames cost what they keep the steps waiting; the rest goes on beside, as in a run.

        Parameters
        ----------
        options : RunOptions
        monitor : UncertaintyMonitor, optional
        folder : Path
        files : ExitStack
            Closes them.
        """
        context = self.context(self.hybrid.system, self.single)
        self.steps_of(context).prepare()
        beside = leaves_processor_idle(self.platform[0])
        table = EnergyTable(folder / "energies.csv", self.hybrid, None, monitor, beside=beside)
        frames = TrajectoryWriter(
            folder / "trajectory.dcd",
            self.hybrid,
            self.stage.step_length,
            options.trajectory_interval,
            beside=beside,
        )
        files.callback(table.close)
        files.callback(frames.close)
        run = RunDirectory(folder)
        counter = iter(range(1, 10**9))

        def row() -> None:
            table.write("bench", next(counter), 0.0, table.moment(context))

        def checkpoint() -> None:
            state = context.getState(positions=True, velocities=True, parameters=True)
            xml = openmm.XmlSerializer.serialize(state)
            run.write_checkpoint(Checkpoint(0, 0, xml, context.createCheckpoint(), {}, 0, {}))

        return {
            "energy table": Task(_repeated(row), check=table.beside.finish, at_most=_ROWS_IN_A_BLOCK),
            "frame": Task(
                _repeated(lambda: frames.write(context)), check=frames.beside.finish, at_most=_ROWS_IN_A_BLOCK
            ),
            "checkpoint": Task(_repeated(checkpoint), at_most=_ROWS_IN_A_BLOCK),
        }


def _repeated(once: Callable[[], Any]) -> Callable[[int], None]:
    def run(n: int) -> None:
        for _ in range(n):
            once()

    return run


def _pair_forces(system: openmm.System) -> list[openmm.Force]:
    """Forces that subtract pairs in C++, beside OpenMM's own."""
    return [force for force in system.getForces() if force.getName() in (REGION_PAIRS, ZONE_PAIRS)]


def _system_facts(hybrid: HybridSystem, stage: Dynamics) -> dict[str, Any]:
    """What was timed."""
    potential = hybrid.potential
    return {
        "atoms": hybrid.built.n_atoms,
        "ml_atoms": len(hybrid.zones.active),
        "potential": potential.spec.name,
        "members": potential.spec.members,
        "kernel": getattr(potential, "kernel", "torch"),
        "scheme": hybrid.scheme,
        "mm_side": hybrid.mm_side,
        "bridge": hybrid.bridge,
        "cuda_graphs": hybrid.cuda_graphs,
        "timestep_fs": float(stage.timestep) * 1e3,
    }
