"""Minimise, equilibrate, produce: dynamics of a hybrid system that can be interrupted and resumed."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import unit

from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid import HybridSystem
from mlmm.records import log_to, measure_drift, measure_timing, run_facts, write_pdb
from mlmm.reporters import EnergyTable, TrajectoryWriter
from mlmm.run_directory import Checkpoint, RunDirectory
from mlmm.stages import Dynamics, Minimise
from mlmm.units import NANOSECOND

__all__ = ["Progress", "simulate"]

logger = logging.getLogger(__name__)
_PROGRESS_SECONDS = 0.5
_MINIMISE_PIECE = 25


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the `progress` callable about twice a second.

    Parameters
    ----------
    stage : str
    done, total : int
        Steps of the stage (iterations of a minimisation, total 0 without limit).
    ns_per_day : float
        0 while unknown.
    seconds_left : float or None
        Of the stage.
    energy : float or None
        kJ/mol; while minimising.
    """

    stage: str
    done: int
    total: int
    ns_per_day: float = 0.0
    seconds_left: float | None = None
    energy: float | None = None


def simulate(
    hybrid: HybridSystem,
    out: str | Path,
    stages: Sequence[Minimise | Dynamics],
    *,
    seed: int = 0,
    platform: str | None = None,
    threads: int | None = None,
    report_interval: int = 100,
    trajectory_interval: int = 500,
    checkpoint_interval: int = 1000,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    title: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Run the stages one after the other and write a run directory.

    SIGINT and SIGTERM end the run after the current steps with a checkpoint; ``resume=True`` goes on from it
    and, on the Reference platform, gives the same numbers bit for bit as a run that was never interrupted.

    Parameters
    ----------
    hybrid : HybridSystem
    out : path
        The run directory: new or empty, unless `resume` or `overwrite`.
    stages : sequence of Minimise, Equilibrate, Produce, NVECheck
    seed : int
        Of velocities, thermostat and barostat.
    platform : str, optional
        OpenMM platform; the fastest by default.
    threads : int, optional
        Threads of the CPU platform.
    report_interval, trajectory_interval, checkpoint_interval : int
        Steps between rows of the energy table, frames and checkpoints.
    resume, overwrite : bool
        Go on with the run in `out`, or replace it.
    progress : callable, optional
        Called with `Progress` about twice a second.
    title : str, optional
        Of the report; the name of the directory by default.
    settings : mapping, optional
        Written to ``resolved.toml``.

    Returns
    -------
    RunDirectory
        Its `state` is ``finished`` or ``interrupted``.

    Raises
    ------
    ConfigError
        A directory that is taken, another run to resume, intervals below 1, or an unknown platform.
    SimulationError
        Energies or positions that are not finite: the last finite frame is in ``last_finite_frame.pdb``.
    """
    if min(report_interval, trajectory_interval, checkpoint_interval) < 1:
        raise ConfigError("intervals of at least 1 step", "a smaller one", "correct the report settings")
    plan = [stage.facts() if isinstance(stage, Dynamics) else {"name": stage.name} for stage in stages]
    if resume:
        run = RunDirectory(Path(out))
        checkpoint = run.read_checkpoint()
        _check_same_run(run, checkpoint, plan, seed, hybrid)
    else:
        chosen = _platform(platform, threads)
        run = RunDirectory.create(out, overwrite)
        checkpoint = None
        hybrid.built.save(run.built_folder)
        write_pdb(run.file("topology.pdb"), hybrid, hybrid.built.positions)
        if settings is not None:
            import tomli_w

            run.file("resolved.toml").write_text(tomli_w.dumps(settings))
    chosen = _platform(platform, threads)
    with log_to(run.file("run.log")):
        summary = checkpoint.summary if checkpoint else run_facts(hybrid, plan, seed, title or run.path.name)
        summary |= {"state": "running", "message": None, "platform": chosen[0].getName(), "threads": threads}
        runner = _Runner(hybrid, run, list(stages), seed, chosen, summary, progress or (lambda _: None))
        runner.intervals = (report_interval, trajectory_interval, checkpoint_interval)
        return runner.run_from(checkpoint)


class _Runner:
    """The state of one call of `simulate`."""

    intervals: tuple[int, int, int]

    def __init__(
        self,
        hybrid: HybridSystem,
        run: RunDirectory,
        stages: list[Minimise | Dynamics],
        seed: int,
        platform: tuple[openmm.Platform, dict[str, str]],
        summary: dict[str, Any],
        progress: Callable[[Progress], None],
    ):
        self.hybrid, self.run, self.stages, self.seed = hybrid, run, stages, seed
        self.platform, self.summary, self.progress = platform, summary, progress
        self.stop_signal: int | None = None
        self.last_positions: np.ndarray = hybrid.built.positions
        self.table: EnergyTable
        self.trajectory: TrajectoryWriter

    def run_from(self, checkpoint: Checkpoint | None) -> RunDirectory:
        """Run every stage that is not done yet."""
        resumed = checkpoint is not None
        self.table = EnergyTable(
            self.run.file("energies.csv"), self.hybrid, checkpoint.table_bytes if resumed else None
        )
        written = [stage for stage in self.stages if isinstance(stage, Dynamics) and stage.trajectory]
        self.trajectory = TrajectoryWriter(
            self.run.file("trajectory.dcd"),
            self.hybrid,
            written[0].timestep if written else 0.001,
            self.intervals[1],
            (checkpoint.trajectory_bytes, checkpoint.frames) if resumed else None,
        )
        state = openmm.XmlSerializer.deserialize(checkpoint.state) if resumed else None
        first = checkpoint.stage if resumed else 0
        self.run.write_summary(self.summary)
        try:
            with self._signals():
                for index in range(first, len(self.stages)):
                    stage = self.stages[index]
                    self.summary |= {"stage": stage.name, "step": 0}
                    logger.info("stage %s", stage.name)
                    within = checkpoint if resumed and index == first and checkpoint.context else None
                    if isinstance(stage, Minimise):
                        state = self._minimise(stage, state)
                    else:
                        state = self._dynamics(index, stage, state, within)
                    if self.stop_signal is not None:
                        return self._end("interrupted", f"signal {signal.Signals(self.stop_signal).name}")
                    self._checkpoint(index + 1, 0, state, b"")
            return self._end("finished", None)
        except (SimulationError, openmm.OpenMMException) as error:
            raise self._failure(error) from error
        except BaseException as error:
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.table.close()
            self.trajectory.close()

    def _minimise(self, stage: Minimise, state: openmm.State | None) -> openmm.State:
        context = self._context(self.hybrid.system, openmm.VerletIntegrator(0.001), state)
        before = context.getState(energy=True).getPotentialEnergy()._value
        started = time.monotonic()
        tolerance = stage.tolerance * unit.kilojoule_per_mole / unit.nanometer
        # In pieces, not with OpenMM's MinimizationReporter: with one, OpenMM holds Python's lock and torch
        # refuses to differentiate. A piece that gains nothing has met the tolerance.
        energy, done = before, 0
        while self.stop_signal is None and (done < stage.max_iterations or stage.max_iterations == 0):
            piece = _MINIMISE_PIECE
            if stage.max_iterations:
                piece = min(piece, stage.max_iterations - done)
            openmm.LocalEnergyMinimizer.minimize(context, tolerance, piece)
            previous, energy = energy, context.getState(energy=True).getPotentialEnergy()._value
            done += piece
            self.progress(Progress(stage.name, done, stage.max_iterations, energy=energy))
            if previous - energy < 1e-7 * abs(energy):
                break
        result = context.getState(positions=True, parameters=True)
        if not np.isfinite(energy):
            raise SimulationError(
                "a finite energy after minimisation",
                f"{energy} kJ/mol",
                "look for overlapping atoms in the input",
            )
        if self.stop_signal is None:
            self._add_stage(
                {
                    "name": stage.name,
                    "energy_before": before,
                    "energy_after": energy,
                    "iterations": done,
                    "seconds": time.monotonic() - started,
                }
            )
        return result

    def _dynamics(
        self, index: int, stage: Dynamics, state: openmm.State | None, checkpoint: Checkpoint | None
    ) -> openmm.State:
        system = self.hybrid.system
        if stage.ensemble == "NPT":
            system = self.hybrid.create_system()
            barostat = openmm.MonteCarloBarostat(stage.pressure, stage.temperature)
            barostat.setRandomNumberSeed(self._stage_seed(index, 2))
            system.addForce(barostat)
        context = self._context(system, self._integrator(index, stage), state)
        if checkpoint is not None:
            self._load(context, checkpoint)
        elif not any(isinstance(earlier, Dynamics) for earlier in self.stages[:index]):
            context.setVelocitiesToTemperature(stage.temperature, self._stage_seed(index, 1))
        step = checkpoint.step if checkpoint is not None else 0
        before = self._seconds_so_far(stage)
        started = time.monotonic()
        first_step = step
        chunk = 1
        while step < stage.steps and self.stop_signal is None:
            # Up to the next event; short enough to show progress and to react to a signal.
            upto = min(stage.steps, step + chunk, *(step - step % n + n for n in self.intervals))
            chunk_started = time.monotonic()
            context.getIntegrator().step(upto - step)
            per_step = (time.monotonic() - chunk_started) / (upto - step)
            chunk = max(1, int(_PROGRESS_SECONDS / max(per_step, 1e-6)))
            step = upto
            self._events(index, stage, step, context)
            elapsed = time.monotonic() - started
            rate = (step - first_step) / elapsed
            ns_per_day = rate * stage.timestep / NANOSECOND * 86400
            self.progress(Progress(stage.name, step, stage.steps, ns_per_day, (stage.steps - step) / rate))
            self.summary["step"] = step
        elapsed = time.monotonic() - started
        self.summary.setdefault("seconds", {})[stage.name] = before + elapsed
        if self.stop_signal is not None and step < stage.steps:
            self._checkpoint(index, step, *self._snapshot(context))
        else:
            self._finish_stage(index, stage, context, before + elapsed)
        return self._snapshot(context)[0]

    def _events(self, index: int, stage: Dynamics, step: int, context: openmm.Context) -> None:
        """Whatever is due after this step; the last step is always reported."""
        report, frame, checkpoint = self.intervals
        last = step == stage.steps
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value
        if not np.isfinite(positions).all():
            raise SimulationError(
                "finite positions",
                f"NaN at step {step} of stage {stage.name}",
                "try a smaller time step or a longer minimisation",
            )
        if step % report == 0 or last:
            self.table.write(stage.name, step, step * stage.timestep, context)
        if stage.trajectory and step % frame == 0:
            self.trajectory.write(context)
        self.last_positions = positions
        if step % checkpoint == 0 and not last:
            self._checkpoint(index, step, *self._snapshot(context))

    def _finish_stage(self, index: int, stage: Dynamics, context: openmm.Context, seconds: float) -> None:
        self._add_stage(stage.facts() | {"seconds": seconds})
        if stage.trajectory:
            self.summary["timing"] = measure_timing(self.hybrid, stage, context, seconds)
        if stage.ensemble == "NVE":
            self.summary["drift"] = measure_drift(self.hybrid, stage, self.run)

    def _integrator(self, index: int, stage: Dynamics) -> openmm.Integrator:
        if stage.ensemble == "NVE":
            integrator = openmm.VerletIntegrator(stage.timestep)
        else:
            integrator = openmm.LangevinMiddleIntegrator(stage.temperature, stage.friction, stage.timestep)
            integrator.setRandomNumberSeed(self._stage_seed(index, 0))
        integrator.setConstraintTolerance(1e-6)
        return integrator

    def _stage_seed(self, index: int, use: int) -> int:
        """A different, never zero seed for each stage and use (OpenMM takes 0 as "choose one")."""
        return int(np.random.SeedSequence([self.seed, index, use]).generate_state(1)[0] & 0x3FFFFFFF) + 1

    def _context(
        self, system: openmm.System, integrator: openmm.Integrator, state: openmm.State | None
    ) -> openmm.Context:
        context = openmm.Context(system, integrator, *self.platform)
        if state is None:
            context.setPositions(self.hybrid.built.positions)
        else:
            if self.hybrid.built.periodic:
                context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
            context.setPositions(state.getPositions())
            if (state.getDataTypes() & openmm.State.Velocities) != 0:
                context.setVelocities(state.getVelocities())
        return context

    def _load(self, context: openmm.Context, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint bit for bit, or its portable half where the platform has changed."""
        try:
            context.loadCheckpoint(checkpoint.context)
        except openmm.OpenMMException as error:
            logger.warning(
                "going on from positions and velocities only (%s): the random numbers differ", error
            )

    def _snapshot(self, context: openmm.Context) -> tuple[openmm.State, bytes]:
        state = context.getState(positions=True, velocities=True, parameters=True)
        return state, context.createCheckpoint()

    def _checkpoint(self, stage: int, step: int, state: openmm.State, context: bytes) -> None:
        xml = openmm.XmlSerializer.serialize(state)
        sizes = (self.table.size, self.trajectory.size, self.trajectory.frames)
        self.run.write_checkpoint(Checkpoint(stage, step, xml, context, *sizes, dict(self.summary)))
        self.run.write_summary(self.summary)

    def _add_stage(self, facts: dict[str, Any]) -> None:
        self.summary["stages"] = [*self.summary.get("stages", []), facts]

    def _seconds_so_far(self, stage: Dynamics) -> float:
        return float(self.summary.get("seconds", {}).get(stage.name, 0.0))

    def _end(self, state: str, message: str | None) -> RunDirectory:
        self.summary |= {"state": state, "message": message}
        self.run.write_summary(self.summary)
        logger.info("%s%s", state, f": {message}" if message else "")
        return self.run

    def _failure(self, error: Exception) -> SimulationError:
        """Save the last finite frame and retell the error."""
        frame = self.run.file("last_finite_frame.pdb")
        write_pdb(frame, self.hybrid, self.last_positions)
        if isinstance(error, SimulationError):
            failure = SimulationError(error.expected, error.got, f"{error.do}; last finite frame: {frame}")
        elif "nan" in str(error).lower():
            where = f"stage {self.summary.get('stage')} after step {self.summary.get('step', 0)}"
            failure = SimulationError(
                "finite positions",
                f"NaN in {where}",
                f"try a smaller time step or a longer minimisation; last finite frame: {frame}",
            )
        else:
            logger.error("%s", error)
            failure = SimulationError(
                "OpenMM to run this system",
                str(error).strip().splitlines()[0],
                f"see {self.run.file('run.log')} and the last finite frame {frame}",
            )
        self._end("failed", str(failure))
        return failure

    @contextmanager
    def _signals(self):
        """SIGINT and SIGTERM ask for a stop; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: object) -> None:
            self.stop_signal = number
            signal.signal(number, previous[number])
            logger.info("signal %d: stopping after these steps", number)

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _platform(name: str | None, threads: int | None) -> tuple[openmm.Platform, dict[str, str]]:
    """The asked-for platform, or the fastest, with its properties."""
    available = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    if name is None:
        platform = max(available, key=lambda p: p.getSpeed())
    else:
        found = [p for p in available if p.getName().lower() == name.lower()]
        if not found:
            raise ConfigError(
                f"platform = {' | '.join(p.getName() for p in available)}", repr(name), "choose one of these"
            )
        platform = found[0]
    properties = {}
    if threads is not None and platform.getName() == "CPU":
        properties["Threads"] = str(threads)
    return platform, properties


def _check_same_run(
    run: RunDirectory, checkpoint: Checkpoint, plan: list[dict[str, Any]], seed: int, hybrid: HybridSystem
) -> None:
    if run.state == "finished":
        raise ConfigError(
            "an unfinished run to resume", f"{run.path}, which is finished", "see its report.html"
        )
    old = checkpoint.summary
    for what, then, now in (
        ("stages", old["plan"], plan),
        ("seed", old["seed"], seed),
        ("region", old["region"]["atoms"], list(hybrid.zones.core)),
        ("number of atoms", old["system"]["atoms"], hybrid.built.n_atoms),
    ):
        if then != now:
            raise ConfigError(
                f"the same {what} as in {run.path}", "another", "resume without changes, or start anew"
            )
