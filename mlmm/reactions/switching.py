"""Switching between force field and hybrid: short runs in which the weight goes from one end to the other.

From frames of each end the weight w of U(w) = U_MM + w D, D = U_hybrid - U_MM, is changed in steps while the
region moves. Each change costs work at the positions where it happens,

    W = sum_k (w_k+1 - w_k) D(x_k),

and the works of both directions give the free energy (`mlmm.reactions.switching_analysis`). Between changes a
thermostat acts at constant volume, also where the ends were sampled at constant pressure: what leaves the
distribution at each volume as it is leaves that of all volumes as it is.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from mlmm.collective_variables.openmm_forces import set_parameters
from mlmm.collective_variables.options import Restraint
from mlmm.dynamics.integrators import forget_forces, make_integrator, separate_reciprocal
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import choose_platform
from mlmm.dynamics.stability import ADVICE
from mlmm.dynamics.stages import Produce
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.end_states import WEIGHT
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.correction import frames_of
from mlmm.reactions.end_states import EndStates, weighted
from mlmm.reactions.switching_analysis import SwitchingResult, analyse_switching
from mlmm.reactions.window_runs import TaskRunner, seed_of
from mlmm.whole_files import write_whole

__all__ = ["SwitchRunner", "SwitchTask", "SwitchedEnds", "switch"]

_SWITCH = 3  # what a seed is for, beside those of `mlmm.reactions.end_states`
_CONSTRAINT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class SwitchTask:
    """One switching run: the frame where it begins, its direction, the file of its differences."""

    trajectory: str
    frame: int
    n_atoms: int
    backward: bool
    seed: int
    result: str


def switch(context: openmm.Context, group: int, weights: Sequence[float], update_every: int) -> np.ndarray:
    """Change the weight of the model step by step in a simulation; returns D before each change.

    Parameters
    ----------
    context : openmm.Context
        Of a system from `mlmm.reactions.end_states.weighted`, at the first of the weights.
    group : int
        Of the forces that depend on the weight.
    weights : sequence of float
    update_every : int
        Steps of the integrator between two changes.

    Returns
    -------
    ndarray, shape (len(weights) - 1,)
        U_hybrid - U_MM, kJ/mol, at the positions of each change.

    Raises
    ------
    SimulationError
        An energy that is not finite.
    """
    integrator = context.getIntegrator()
    context.setParameter(WEIGHT, weights[0])
    found = np.empty(len(weights) - 1)
    for k, weight in enumerate(weights[1:]):
        if k:
            integrator.step(update_every)
        # The energy is linear in the weight: both ends give the derivative without loss of digits.
        ends = []
        for end in (1.0, 0.0):
            context.setParameter(WEIGHT, end)
            ends.append(context.getState(energy=True, groups={group}).getPotentialEnergy()._value)
        found[k] = ends[0] - ends[1]
        if not np.isfinite(found[k]):
            raise SimulationError(
                "finite energies while the weight is switched", f"{found[k]} at weight {weights[k]:g}", ADVICE
            )
        context.setParameter(WEIGHT, weight)
        forget_forces(integrator)
    return found


class SwitchRunner:
    """Carries out switching runs; it is sent to a worker once and keeps its hybrid system there.

    Parameters
    ----------
    make_hybrid : callable
        Without arguments, for the hybrid at weight 1.
    restraints : sequence of Restraint
        They act all the time.
    options : RunOptions
    length : float
        Of a run, ps.
    update_every : int
        Steps between two changes of the weight.
    """

    def __init__(
        self,
        make_hybrid: Callable[[], HybridSystem],
        restraints: Sequence[Restraint],
        options: RunOptions,
        length: float,
        update_every: int,
    ):
        self._make, self._restraints, self._every = make_hybrid, tuple(restraints), update_every
        self._options = options
        self._stage = Produce(length, ensemble="NVT").under(options)
        self._hybrid: HybridSystem | None = None
        self._system: openmm.System | None = None
        if self._stage.steps < 2 * update_every:
            raise ConfigError(
                "two changes of the weight or more in a switching run",
                f"{self._stage.steps} steps and one change every {update_every}",
                "make switch_length in [endstate] longer, or update_every smaller",
            )

    def __getstate__(self) -> dict[str, Any]:
        # A System with a PythonForce of torch cannot be sent.
        return self.__dict__ | {"_hybrid": None, "_system": None}

    @property
    def changes(self) -> int:
        """Changes of the weight in a run."""
        return self._stage.steps // self._every

    def __call__(self, task: SwitchTask) -> str:
        """Carry out a run unless its result is there; returns the file, written whole or not at all."""
        if not Path(task.result).exists():
            started = time.monotonic()
            differences = self._run(task)
            content = io.BytesIO()
            np.savez(content, differences=differences, seconds=time.monotonic() - started)
            write_whole(task.result, content.getvalue())
        return task.result

    def _run(self, task: SwitchTask) -> np.ndarray:
        hybrid, system, stage = *self._prepared(), self._stage
        integrator = make_integrator(
            stage, hybrid.force_groups, task.seed, constrained=system.getNumConstraints() > 0
        )
        platform = choose_platform(self._options.platform, self._options.threads, system)
        context = openmm.Context(system, integrator, *platform)
        set_parameters(context, hybrid.biases, "produce")
        positions, box = frames_of(Path(task.trajectory), task.n_atoms)[task.frame]
        if box is not None and hybrid.built.periodic:
            context.setPeriodicBoxVectors(*box)
        context.setPositions(positions)
        # Frames have single precision.
        context.applyConstraints(_CONSTRAINT_TOLERANCE)
        context.computeVirtualSites()
        context.setVelocitiesToTemperature(stage.temperature, task.seed)
        weights = np.linspace(0.0, 1.0, self.changes + 1)
        found = switch(
            context,
            hybrid.force_groups["ml"],
            (weights[::-1] if task.backward else weights).tolist(),
            self._every,
        )
        return found[::-1] if task.backward else found

    def _prepared(self) -> tuple[HybridSystem, openmm.System]:
        """Hybrid and System, made when they are first needed."""
        if self._hybrid is None or self._system is None:
            self._hybrid = weighted(self._make(), 0.0).restrained(self._restraints)
            self._system = self._hybrid.system
            if self._stage.reciprocal_every > 1:
                separate_reciprocal(self._system)
        return self._hybrid, self._system


class SwitchedEnds(EndStates):
    """Both ends sampled, and joined by switching runs; parameters as of `EndStates`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weights = [0.0, 1.0]
        self._switches = SwitchRunner(
            self.make_hybrid,
            self.restraints,
            self.run,
            float(self.options.switch_length),
            self.options.update_every,
        )

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {
            "switch_length": float(self.options.switch_length),
            "update_every": self.options.update_every,
        }

    def _joined(
        self, tasks: TaskRunner, n_atoms: int, told: Callable[[str], Callable[[int, int], None]]
    ) -> tuple[SwitchingResult, dict[str, Any]]:
        (self.out / "switches").mkdir(exist_ok=True)
        runs = [self._tasks(n_atoms, backward) for backward in (False, True)]
        tasks(self._switches, [one for pair in zip(*runs, strict=True) for one in pair], told("switches"))
        found, seconds = [], self._seconds()
        for own in runs:
            loaded = [np.load(task.result) for task in own]
            found.append(np.array([one["differences"] for one in loaded]))
            seconds += sum(float(one["seconds"]) for one in loaded)
        result = analyse_switching(
            found[0],
            found[1],
            self.run.temperature,
            bootstraps=self.options.bootstraps,
            seed=seed_of(self.run.seed, _SWITCH),
        )
        return result, {"cost": seconds, "switch_length": float(self.options.switch_length)}

    def _tasks(self, n_atoms: int, backward: bool) -> list[SwitchTask]:
        """Runs from frames at equal distances: a longer production with more runs keeps those there."""
        trajectory = self._folder(int(backward), "production") / "trajectory.dcd"
        frames, count = len(frames_of(trajectory, n_atoms)), self.options.switches
        if frames < count:
            raise ConfigError(
                f"{count} frames or more in {trajectory.parent}, one for each switching run",
                str(frames),
                "make produce in [run] longer, or trajectory_interval in [report] shorter, or switches in "
                "[endstate] fewer",
            )
        apart, name = frames // count, "backward" if backward else "forward"
        places = [(k + 1) * apart - 1 for k in range(count)]
        return [
            SwitchTask(
                str(trajectory),
                frame,
                n_atoms,
                backward,
                seed_of(self.run.seed, _SWITCH, int(backward), frame) % 0x3FFFFFFF + 1,
                str(self.out / "switches" / f"{name}_{frame:06d}.npz"),
            )
            for frame in places
        ]
