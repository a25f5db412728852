"""Exploration with a bias that grows and is then held: the held part is sampled like any equilibrium."""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app

from mlmm.build import BuiltSystem
from mlmm.collective_variables.bind import bind_variable
from mlmm.collective_variables.openmm_forces import set_parameters
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.dynamics.beginning import begin
from mlmm.dynamics.graph_choice import choose_graphs
from mlmm.dynamics.integrators import make_integrator
from mlmm.dynamics.interruption import StopRequest
from mlmm.dynamics.lock import locked
from mlmm.dynamics.moments import fetch
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.dynamics.platforms import choose_platform
from mlmm.dynamics.run_directory import RunDirectory, timestamp, versions
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Minimise, Produce
from mlmm.dynamics.start import Start
from mlmm.dynamics.trajectory import TrajectoryWriter
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.growing_bias import Axis, GrowingBias, axes_of, make_bias
from mlmm.reactions.run import load_arrays, save_arrays
from mlmm.reactions.sampling_options import MetadynamicsOptions
from mlmm.reactions.umbrella_plan import the_variable
from mlmm.reactions.window_runs import seed_of
from mlmm.whole_files import write_json

__all__ = ["Metadynamics"]

logger = logging.getLogger(__name__)
_CHECKPOINT, _TABLE, _RECORD = "bias.npz", "variables.csv", "metadynamics.json"


@dataclass
class Metadynamics:
    """A run with a growing bias in one folder; a folder is resumed by running it again.

    Parameters
    ----------
    hybrid : HybridSystem
        With the restraints of the run file; variables of the bias need not be among its own.
    out : Path
    options : MetadynamicsOptions
    protocol : ProtocolOptions
        Minimisation, equilibration without the bias, and production with it.
    run : RunOptions
    variables : sequence of Variable
    restraints : sequence of Restraint
        Walls, for example, beyond which the bias has no table.
    facts : mapping
        Title and potential, for the report.

    Raises
    ------
    ConfigError
        Variables or numbers that do not go together, or an ensemble other than NVT.
    """

    hybrid: HybridSystem
    out: Path
    options: MetadynamicsOptions
    protocol: ProtocolOptions
    run: RunOptions
    variables: Sequence[Variable]
    restraints: Sequence[Restraint] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.options.variables
        chosen = [
            the_variable(name, self.variables, "metadynamics")
            for name in ([names] if isinstance(names, str) else names)
        ]
        built: BuiltSystem = self.hybrid.built
        self.axes: list[Axis] = axes_of(self.options, chosen, [bind_variable(built, one) for one in chosen])
        if self.run.ensemble != "NVT" or self.run.nonbonded_every * self.run.reciprocal_every != 1:
            raise ConfigError(
                'ensemble = "NVT" and one time step for all forces under [metadynamics]',
                f"{self.run.ensemble}, nonbonded_every = {self.run.nonbonded_every}",
                "change [run]",
            )
        self.stage = Produce(self.protocol.produce).under(self.run)
        if self.growing < 1 or self.stage.steps // self.options.every < 20:
            raise ConfigError(
                f"a production of 20 times {self.options.every} steps or more",
                f"{self.stage.steps}",
                "make produce in [run] longer, or every in [metadynamics] smaller",
            )

    @property
    def growing(self) -> int:
        """Steps in which the bias grows."""
        every = self.options.every
        return int(self.options.build * self.stage.steps) // every * every

    def sample(self, progress: Callable[[str], None] = logger.info) -> None:
        """Equilibrate without bias, let it grow, hold it and sample.

        Parameters
        ----------
        progress : callable
            Called with a line of text.

        Raises
        ------
        SimulationError
            Positions that are not finite.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        hybrid = self.hybrid.restrained(self.restraints)
        with locked(self.out):
            self._check_same()
            self._equilibrate(hybrid, progress)
            self._biased(hybrid, progress)

    def _check_same(self) -> None:
        """A folder goes on with the same settings only; its record holds them."""
        settings = {
            "options": {name: _plain(getattr(self.options, name)) for name in _SETTINGS},
            "temperature": self.run.temperature,
            "timestep": self.run.timestep,
            "seed": self.run.seed,
        }
        path = self.out / _RECORD
        content = {
            "axes": [
                {
                    "variable": axis.variable.name,
                    "unit": axis.variable.unit,
                    "low": axis.low,
                    "high": axis.high,
                    "period": axis.period,
                }
                for axis in self.axes
            ],
            "settings": settings,
            "steps": self.stage.steps,
            "growing": self.growing,
            "facts": dict(self.facts),
            "written": timestamp(),
            "versions": versions(),
        }
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            if there["settings"] != settings or there["steps"] != self.stage.steps:
                raise ConfigError(
                    f"the settings of {self.out}, whose run goes on",
                    "others in [metadynamics] or [run]",
                    "leave them as they are there, or choose another --out",
                )
            return
        write_json(path, content, nan=True)

    def _equilibrate(self, hybrid: HybridSystem, progress: Callable[[str], None]) -> None:
        run = RunDirectory(self.out / "equilibration")
        going_on = run.file("run.json").exists()
        if going_on and run.state == "finished":
            return
        stages: list[Any] = (
            [Minimise(max_iterations=self.protocol.minimise)] if self.protocol.minimise else []
        )
        stages.append(Equilibrate(self.protocol.equilibrate, friction=self.protocol.equilibrate_friction))
        seed = seed_of(self.run.seed, 0)
        simulate(hybrid, run, stages, self.run, resume=going_on, seed=seed, title="equilibration")
        progress("equilibrated without bias")

    def _biased(self, hybrid: HybridSystem, progress: Callable[[str], None]) -> None:
        platform = choose_platform(self.run.platform, self.run.threads, hybrid.system)
        # What the equilibration found holds here, and whenever this goes on.
        equilibration = RunDirectory(self.out / "equilibration").summary
        hybrid, _ = choose_graphs(hybrid, platform, equilibration["embedding"])
        system = hybrid.create_system()
        bias = make_bias(system, self.axes, self.options, self.run.temperature)
        seed = seed_of(self.run.seed, 1) % 0x3FFFFFFF + 1
        integrator = make_integrator(
            self.stage,
            hybrid.force_groups,
            seed,
            constrained=system.getNumConstraints() > 0,
        )
        simulation = app.Simulation(hybrid.built.topology, system, integrator, *platform)
        set_parameters(simulation.context, hybrid.biases, "produce")
        with _Files(self.out, hybrid, self.stage.step_length, self.run.trajectory_interval) as files:
            found = files.read()
            if found is None:
                self._start(hybrid, simulation)
            else:
                _take_up(simulation.context, found)
                simulation.currentStep = int(found["step"])
                bias.take_up(
                    {k[5:]: v for k, v in found.items() if k.startswith("bias_")}, simulation.context
                )
            files.open(found, [axis.variable.name for axis in self.axes])
            self._steps(simulation, bias, files, progress)

    def _start(self, hybrid: HybridSystem, simulation: app.Simulation) -> None:
        start = Start(self.out / "equilibration", velocities="kept")
        state = begin(start, hybrid.built, [self.stage], self.run).state
        context = simulation.context
        if hybrid.built.periodic:
            context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
        context.setPositions(state.getPositions())
        context.setVelocities(state.getVelocities())

    def _steps(
        self,
        simulation: app.Simulation,
        bias: GrowingBias,
        files: _Files,
        progress: Callable[[str], None],
    ) -> None:
        stop, every, growing = StopRequest(), self.options.every, self.growing
        told = started = time.monotonic()
        first = simulation.currentStep
        with stop.by_signals():
            while (step := simulation.currentStep) < self.stage.steps and not (stop and step % every == 0):
                # Frames are written when the trajectory says, between two Gaussians too.
                due = [step + length - step % length for length in (every, self.run.trajectory_interval)]
                simulation.step(min(self.stage.steps, *due) - step)
                step = simulation.currentStep
                files.frame(simulation, step)
                if step % every and step < self.stage.steps:
                    continue
                values, energy = bias.values(simulation), bias.energy(simulation.context)
                if not np.isfinite([*values, energy]).all():
                    raise SimulationError(
                        "finite values of the variables", f"{values} at step {step}", "shorten the time step"
                    )
                files.row(step, step * self.stage.step_length, values, energy, step > growing)
                if step <= growing:
                    bias.deposit(simulation)
                if step % self.run.checkpoint_every < every or stop or step == self.stage.steps:
                    files.write(simulation, bias)
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    left = (told - started) / (step - first) * (self.stage.steps - step)
                    what = "the bias grows" if step <= growing else "the bias is held"
                    progress(f"{what}: step {step:,} of {self.stage.steps:,}, {left:.0f} s left")
        stop.pass_on()


def _take_up(context: openmm.Context, found: Mapping[str, Any]) -> None:
    """A checkpoint bit for bit, or positions and velocities where platform or precision have changed."""
    try:
        context.loadCheckpoint(found["context"].tobytes())
    except openmm.OpenMMException as error:
        if "positions" not in found:
            raise ConfigError(
                "a checkpoint of this platform and precision", str(error), "choose another --out"
            ) from error
        logger.warning("going on from positions and velocities only (%s): the random numbers differ", error)
        if "box" in found:
            context.setPeriodicBoxVectors(*found["box"])
        context.setPositions(found["positions"])
        context.setVelocities(found["velocities"])


class _Files:
    """Table of the variables, frames, and the checkpoint to which both are cut when a run goes on."""

    def __init__(self, folder: Path, hybrid: HybridSystem, step_length: float, interval: int):
        self._folder, self._hybrid = folder, hybrid
        self._step_length, self._interval = step_length, interval
        self._table: Any = None
        self._frames: TrajectoryWriter | None = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.close()
        if self._frames is not None:
            self._frames.close()

    def read(self) -> dict[str, Any] | None:
        """The checkpoint, or None before the first one."""
        path = self._folder / _CHECKPOINT
        return load_arrays(path) if path.exists() else None

    def open(self, found: Mapping[str, Any] | None, names: Sequence[str]) -> None:
        """Open the table and the trajectory, cut to their lengths at the checkpoint."""
        path = self._folder / _TABLE
        self._table = path.open("r+" if found else "w", newline="", encoding="utf-8")
        if found:
            self._table.truncate(int(found["table_size"]))
            self._table.seek(0, os.SEEK_END)
        else:
            csv.writer(self._table).writerow(["step", "time_ps", *names, "bias", "held"])
        at = (int(found["trajectory_size"]), int(found["frames"])) if found else None
        self._frames = TrajectoryWriter(
            self._folder / "trajectory.dcd", self._hybrid, self._step_length, self._interval, at
        )

    def row(self, step: int, when: float, values: Sequence[float], energy: float, held: bool) -> None:
        """Append a row: what the bias is at a place before it grows there."""
        numbers = [repr(float(value)) for value in (*values, energy)]
        csv.writer(self._table).writerow([step, f"{when:.6f}", *numbers, int(held)])

    def frame(self, simulation: app.Simulation, step: int) -> None:
        """Append a frame if one is due."""
        if step % self._interval == 0 and self._frames is not None:
            self._frames.write(simulation.context)

    def write(self, simulation: app.Simulation, bias: GrowingBias) -> None:
        """Write a checkpoint, whole or not at all."""
        assert self._frames is not None
        self._table.flush()
        sizes = self._frames.sizes
        arrays = {f"bias_{name}": value for name, value in bias.state().items()}
        now = fetch(simulation.context, self._hybrid.built.periodic, velocities=True)
        checkpoint = {
            "positions": now.positions,
            "velocities": now.velocities,
            **({} if now.box is None else {"box": now.box}),
            "context": np.frombuffer(simulation.context.createCheckpoint(), dtype=np.uint8),
            "step": simulation.currentStep,
            "table_size": self._table.tell(),
            "trajectory_size": sizes["trajectory.dcd"],
            "frames": self._frames.frames,
            **arrays,
        }
        # A bias that is taken up is summed anew, and differs in its last digits: so does that of a run which
        # goes on at once, and both stay the same.
        bias.take_up(bias.state(), simulation.context)
        save_arrays(self._folder / _CHECKPOINT, checkpoint)


_SETTINGS = (
    "variables",
    "low",
    "high",
    "width",
    "method",
    "height",
    "bias_factor",
    "barrier",
    "every",
    "build",
)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
