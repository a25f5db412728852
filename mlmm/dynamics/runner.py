"""The inside of a run: stages one after the other, in chunks of steps, with whatever is due between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import openmm

from mlmm.build.foreign_xml import read_serialised
from mlmm.collective_variables.openmm_forces import set_parameters
from mlmm.dynamics.barostat import Barostat, own_barostats
from mlmm.dynamics.beside import quick_switches
from mlmm.dynamics.biases import unjoined_molecules
from mlmm.dynamics.checksums import GrowingChecksums
from mlmm.dynamics.drift import measure_drift
from mlmm.dynamics.failures import cause_of, retold
from mlmm.dynamics.frames import has_velocities, positions_and_box
from mlmm.dynamics.imaging import RegionImages
from mlmm.dynamics.integrators import make_integrator, separate_reciprocal
from mlmm.dynamics.interruption import StopRequest
from mlmm.dynamics.minimisation import minimise
from mlmm.dynamics.moments import Moment, fetch
from mlmm.dynamics.options import CHECKPOINT_SHARE, RunOptions
from mlmm.dynamics.platforms import leaves_processor_idle
from mlmm.dynamics.progress import Progress
from mlmm.dynamics.records import measure_timing, write_pdb
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.resuming import extensible
from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.dynamics.stability_watch import StabilityWatch
from mlmm.dynamics.stages import Dynamics, Minimise
from mlmm.dynamics.trajectory import TrajectoryWriter
from mlmm.dynamics.uncertainty import Uncertainty, UncertaintyMonitor
from mlmm.errors import SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.units import NANOSECOND

__all__ = ["Runner"]

logger = logging.getLogger(__name__)
_PROGRESS_SECONDS = 0.5
#: Steps between two looks at whether the run is stable: an explosion cools within some thousands.
_LOOK = 100


class Runner:
    """The stages of one run, one after the other, with everything that has to happen between steps.

    Parameters
    ----------
    hybrid : HybridSystem
    run : RunDirectory
    stages : list of Minimise or Dynamics
        With everything filled in by `Dynamics.under`.
    options : RunOptions
        Seed and intervals.
    platform : tuple of (openmm.Platform, dict)
        With its properties.
    summary : dict
        Facts of the run; grows as it goes on.
    monitor : UncertaintyMonitor
        Of the uncertainty; it may end the run.
    progress : callable, optional
    """

    def __init__(
        self,
        hybrid: HybridSystem,
        run: RunDirectory,
        stages: list[Minimise | Dynamics],
        options: RunOptions,
        platform: tuple[openmm.Platform, dict[str, str]],
        summary: dict[str, Any],
        monitor: UncertaintyMonitor,
        progress: Callable[[Progress], None] | None = None,
    ):
        self.hybrid, self.run, self.stages, self.options = hybrid, run, stages, options
        self.platform, self.summary, self.monitor = platform, summary, monitor
        self.progress = progress or (lambda _: None)
        self.looks = tuple(n for n in (monitor.interval,) if n)
        self.stop = StopRequest()
        self._beside = leaves_processor_idle(platform[0])
        self._watch = StabilityWatch(hybrid, options.unstable, summary, beside=self._beside)
        self._looked = 0  # step of the stage
        self._last_checkpoint = (0.0, 0.0)  # of whatever stage: when it ended, and how long it took, s
        self._images = RegionImages(hybrid.built.topology, hybrid.zones.region.atoms)
        self._sums: GrowingChecksums
        self.table: EnergyTable
        self.trajectory: TrajectoryWriter

    def run_from(self, checkpoint: Checkpoint | None, state: openmm.State | None = None) -> RunDirectory:
        """Run every stage that is not done yet; a new run from a state, or else from the built structure."""
        # The first checkpoint of a run that starts from its built structure has no state.
        if checkpoint and checkpoint.state:
            state = read_serialised(checkpoint.state, "State", "state.xml of the checkpoint")
        first = checkpoint.stage if checkpoint else 0
        with ExitStack() as files:
            if self._beside:
                files.enter_context(quick_switches())
            self._open(checkpoint, files)
            self.summary["state"] = "running"
            if checkpoint is None:
                self._checkpoint(0, 0, state, b"")
            self.run.write_summary(self.summary)
            try:
                with self.stop.by_signals():
                    for index in range(first, len(self.stages)):
                        stage = self.stages[index]
                        self.summary |= {"stage": stage.name, "step": 0}
                        logger.info("stage %s", stage.name)
                        within = checkpoint if checkpoint and index == first and checkpoint.context else None
                        if isinstance(stage, Minimise):
                            state, complete = self._minimise(stage, state)
                        else:
                            state, complete = self._dynamics(index, stage, state, within)
                        self._write_final(state)
                        # The last stage keeps the checkpoint of its last step: it can be made longer.
                        if complete and (stage is not self.stages[-1] or isinstance(stage, Minimise)):
                            self._checkpoint(index + 1, 0, state, b"")
                        if self.stop:
                            return self._end("interrupted", str(self.stop))
                return self._end("finished", None)
            except (SimulationError, openmm.OpenMMException) as error:
                found = cause_of(error, (self._watch.beside.finish, self.table.beside.finish))
                raise self._failure(found) from error
            except BaseException as error:
                with suppress(OSError):  # on a full disk that cannot be written either
                    self._end("failed", f"{type(error).__name__}: {error}")
                raise

    def _open(self, checkpoint: Checkpoint | None, files: ExitStack) -> None:
        """Open what grows, cut to its length at the checkpoint; closed by `files`."""

        def close(file: EnergyTable | TrajectoryWriter) -> None:
            # All that counts is flushed already; the rest of a row that did not fit is cut off again.
            with suppress(OSError):
                file.close()

        files.callback(self._watch.beside.close)
        sizes = checkpoint.sizes if checkpoint else {}
        self._sums = GrowingChecksums(self.run.path, sizes, checkpoint.sums if checkpoint else None)
        table = self.run.file("energies.csv")
        # Limits on the uncertainty are held against a row before the next step.
        beside = self._beside and not self.monitor.limits.by_column()
        self.table = EnergyTable(table, self.hybrid, sizes.get(table.name), self.monitor, beside=beside)
        files.callback(close, self.table)
        self.monitor.resume(self.summary.get("uncertainty") if checkpoint else None, self.run.path)
        self.summary["uncertainty"] = self.monitor.facts
        written = [stage for stage in self.stages if isinstance(stage, Dynamics) and stage.trajectory]
        self.trajectory = TrajectoryWriter(
            self.run.file("trajectory.dcd"),
            self.hybrid,
            written[0].step_length if written else 0.001,
            self.options.trajectory_interval,
            (sizes["trajectory.dcd"], checkpoint.frames) if checkpoint else None,
            beside=self._beside,
        )
        files.callback(close, self.trajectory)

    def _minimise(self, stage: Minimise, state: openmm.State | None) -> tuple[openmm.State, bool]:
        """Minimise; returns the state and whether it was not interrupted."""
        context = self._context(stage, self.hybrid.system, openmm.VerletIntegrator(0.001), state)
        result, facts = minimise(context, stage, self.stop, self.progress)
        if self.stop:
            return result, False
        self._add_stage({"name": stage.name} | facts)
        return result, True

    def _dynamics(
        self, index: int, stage: Dynamics, state: openmm.State | None, checkpoint: Checkpoint | None
    ) -> tuple[openmm.State, bool]:
        """Run a stage, from a checkpoint within it if there is one; returns its state and if it is done."""
        system = self.hybrid.system
        if stage.reciprocal_every > 1:
            system = self.hybrid.create_system()
            separate_reciprocal(system)
        integrator = make_integrator(
            stage,
            self.hybrid.force_groups,
            self._stage_seed(index, 0),
            constrained=system.getNumConstraints() > 0,
            moved_between_steps=bool(own_barostats(system)),
        )
        context = self._context(stage, system, integrator, state)
        if checkpoint is not None:
            self._load(context, checkpoint)
        elif not has_velocities(state):
            context.setVelocitiesToTemperature(stage.temperature, self._stage_seed(index, 1))
        barostat = None
        if stage.ensemble == "NPT":
            facts = checkpoint.summary.get("barostat") if checkpoint is not None else None
            numbers = self._stage_seed(index, 2)
            conditions = stage.pressure, stage.temperature, numbers
            molecules = unjoined_molecules(self.hybrid)
            barostat = Barostat(context, integrator, *conditions, facts, molecules)
            self.summary["barostat"] = barostat.facts
        step = checkpoint.step if checkpoint is not None else 0
        before = self._seconds_so_far(stage)
        started = time.monotonic()
        first_step = step
        self._watch.begin(stage, step)
        self._looked = step
        chunk = 1
        events = (*self._intervals, *self.looks, _LOOK)
        while step < stage.steps and not self.stop:
            # Up to the next event; short enough to show progress and to react to a signal.
            upto = min(stage.steps, step + chunk, *(step - step % n + n for n in events))
            chunk_started = time.monotonic()
            if barostat is not None:
                upto = min(upto, barostat.next_move(step))
            context.getIntegrator().step(upto - step)
            if barostat is not None:
                barostat.move(upto)
            per_step = (time.monotonic() - chunk_started) / (upto - step)
            chunk = max(1, int(_PROGRESS_SECONDS / max(per_step, 1e-6)))
            step = upto
            self._events(index, stage, step, context)
            elapsed = time.monotonic() - started
            rate = (step - first_step) / elapsed
            ns_per_day = rate * stage.step_length / NANOSECOND * 86400
            self.progress(Progress(stage.name, step, stage.steps, ns_per_day, (stage.steps - step) / rate))
            self.summary["step"] = step
        elapsed = time.monotonic() - started
        self.summary.setdefault("seconds", {})[stage.name] = before + elapsed
        complete = step == stage.steps
        if self._looked != step:  # interrupted
            self._watch.look(stage, step, fetch(context, self.hybrid.built.periodic, velocities=True))
        self._checkpoint(index, step, *self._snapshot(context))
        if complete:
            if stage is not self.stages[-1] and index == extensible(self.stages):
                self.run.keep_checkpoint()
            # Only here, after the checkpoint: a longer stage has no such row.
            if step % self.options.report_interval:
                self._row(index, stage, step, context)
            self._finish_stage(stage, context, before + elapsed)
        return self._snapshot(context)[0], complete

    @property
    def _intervals(self) -> tuple[int, int, int]:
        """Steps between rows of the energy table, frames, checkpoints."""
        options = self.options
        return options.report_interval, options.trajectory_interval, options.checkpoint_every

    def _events(self, index: int, stage: Dynamics, step: int, context: openmm.Context) -> None:
        """Whatever is due after this step."""
        report, frame, checkpoint = self._intervals
        row, image = step % report == 0, bool(stage.trajectory) and step % frame == 0
        saved = step % checkpoint == 0 and step < stage.steps and self._checkpoint_is_due()
        # As often as it has to be where the device would wait; a frame is written once it was found good.
        look = not self._beside or image or saved or step % _LOOK == 0 or step == stage.steps
        for part in (self._watch, self.table, self.trajectory):
            part.beside.catch_up()
        # On a GPU one State for all; elsewhere no energy is evaluated of what was not found good.
        shared = row and self._beside
        if shared:
            now = self.table.moment(context, velocities=look)
        elif look:
            now = fetch(context, self.hybrid.built.periodic, velocities=True)
        if look:
            self._looked = step
            self._watch.look(stage, step, now, *([self.trajectory.append] if image and self._beside else []))
        if row:
            self._row(index, stage, step, context, now if shared else None)
        elif any(step % n == 0 for n in self.looks):
            self._look(stage, step, None, context)
        if image and not self._beside:
            self.trajectory.append(now)
        if saved:
            self._checkpoint(index, step, *self._snapshot(context))

    def _checkpoint_is_due(self) -> bool:
        """Whether another checkpoint stays within its share of the time, unless the interval is given."""
        ended, took = self._last_checkpoint
        return bool(self.options.checkpoint_interval) or time.monotonic() - ended > took / CHECKPOINT_SHARE

    def _row(
        self, index: int, stage: Dynamics, step: int, context: openmm.Context, now: Moment | None = None
    ) -> None:
        """A row of the energy table; the last step always has one."""
        when = self._start_time(index) + step * stage.step_length
        self.table.write(stage.name, step, when, now or self.table.moment(context))
        self._look(stage, step, self.table.last_uncertainty, context)

    def _look(self, stage: Dynamics, step: int, known: Uncertainty | None, context: openmm.Context) -> None:
        """Hold the uncertainty against its limits; what the table has measured is not measured again."""
        if not self.monitor.limits.by_column():
            return
        state = context.getState(positions=True)
        positions, box = positions_and_box(state, self.hybrid.built.periodic)
        found = known or self.monitor.measure(positions, box)
        where = f"stage {stage.name}, step {step}"
        self.stop.reason = self.monitor.judge(found, positions, box, where, self.run.path)

    def _finish_stage(self, stage: Dynamics, context: openmm.Context, seconds: float) -> None:
        self.table.beside.finish()
        self._add_stage(stage.facts() | {"seconds": seconds})
        if stage.trajectory:
            self.summary["timing"] = measure_timing(self.hybrid, stage, context, seconds)
        if stage.ensemble == "NVE":

            def going_on(done: int, total: int) -> bool:
                self.progress(Progress(f"{stage.name}, force field", done, total))
                return not self.stop

            arguments = self.hybrid, stage, self.run, context, self.options
            self.summary["drift"] = measure_drift(*arguments, going_on)

    def _stage_seed(self, index: int, use: int) -> int:
        """A different, never zero seed for each stage and use (OpenMM takes 0 as "choose one")."""
        return (
            int(np.random.SeedSequence([self.options.seed, index, use]).generate_state(1)[0] & 0x3FFFFFFF) + 1
        )

    def _context(
        self,
        stage: Minimise | Dynamics,
        system: openmm.System,
        integrator: openmm.Integrator,
        state: openmm.State | None,
    ) -> openmm.Context:
        context = openmm.Context(system, integrator, *self.platform)
        if state is None:
            context.setPositions(self.hybrid.built.positions)
        else:
            self._watch.start_from(state)
            if self.hybrid.built.periodic:
                context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
            context.setPositions(state.getPositions())
            if has_velocities(state):
                context.setVelocities(state.getVelocities())
        set_parameters(context, self.hybrid.biases, stage.name)
        # TorchScript rewrites its graph after the first call and rounds differently from then on: without
        # this, a resumed run would leave the path of an uninterrupted one.
        for _ in range(2):
            context.getState(forces=True, groups=1 << self.hybrid.force_groups["ml"])
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

    def _checkpoint(self, stage: int, step: int, state: openmm.State | None, context: bytes) -> None:
        started = time.monotonic()
        # No frame in it that is still to be looked at.
        self._watch.beside.finish()
        xml = "" if state is None else openmm.XmlSerializer.serialize(state)
        sizes = {"energies.csv": self.table.size, **self.trajectory.sizes, **self.monitor.sizes}
        frames, sums = self.trajectory.frames, self._sums.up_to(sizes)
        facts = dict(self.summary)
        self.run.write_checkpoint(Checkpoint(stage, step, xml, context, sizes, frames, facts, sums))
        self.run.write_summary(self.summary)
        self._last_checkpoint = time.monotonic(), time.monotonic() - started

    def _write_final(self, state: openmm.State) -> None:
        """The structure as the last stage left it, gathered around the region."""
        positions, box = positions_and_box(state, self.hybrid.built.periodic)
        write_pdb(self.run.file("final.pdb"), self.hybrid, self._images.gather(positions, box), box)

    def _add_stage(self, facts: dict[str, Any]) -> None:
        self.summary["stages"] = [*self.summary.get("stages", []), facts]

    def _start_time(self, index: int) -> float:
        """Simulated time before a stage, ps."""
        earlier = (stage for stage in self.stages[:index] if isinstance(stage, Dynamics))
        return sum(stage.steps * stage.step_length for stage in earlier)

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
        box = self._watch.box
        write_pdb(frame, self.hybrid, self._images.gather(self._watch.positions, box), box)
        where = f"stage {self.summary.get('stage')} after step {self.summary.get('step', 0)}"
        failure = retold(error, where, self.hybrid, self.platform[0].getName(), frame)
        self._end("failed", str(failure))
        return failure
