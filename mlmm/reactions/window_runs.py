"""Runs of umbrella windows: each one a run directory of the dynamics, in this process or in workers."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.collective_variables.options import Restraint, Variable
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Dynamics, Minimise
from mlmm.dynamics.start import Start
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.windows import Window

__all__ = ["RunTask", "TaskRunner", "WindowRunner", "finished", "production_values", "seed_of", "task_runner"]

TaskRunner = Callable[[Callable[[Any], Any], Sequence[Any], Callable[[int, int], None]], list[Any]]


@dataclass(frozen=True)
class RunTask:
    """One run of a window.

    Parameters
    ----------
    folder : str
        Its run directory.
    window : Window
    stages : tuple of Minimise or Dynamics
    seed : int
    start : Start, optional
        Another run, where it begins.
    positions : ndarray, shape (N, 3), nm, optional
        Where it begins instead of at the built structure.
    """

    folder: str
    window: Window
    stages: tuple[Minimise | Dynamics, ...]
    seed: int
    start: Start | None = None
    positions: np.ndarray | None = None


class WindowRunner:
    """Carries out runs one after the other; it is sent to a worker once and keeps its hybrid system there.

    Parameters
    ----------
    make_hybrid : callable
        Without arguments, for a hybrid system.
    variable : Variable
        Along which windows stand.
    variables, restraints : sequence
        Further ones of the run file.
    options : RunOptions
    """

    def __init__(
        self,
        make_hybrid: Callable[[], HybridSystem],
        variable: Variable,
        variables: Sequence[Variable],
        restraints: Sequence[Restraint],
        options: RunOptions,
    ):
        self._make, self._variable, self._options = make_hybrid, variable, options
        self._variables = [other for other in variables if other.name != variable.name]
        self._restraints = tuple(restraints)
        self._hybrid: HybridSystem | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A System with a TorchForce cannot be sent.
        return self.__dict__ | {"_hybrid": None}

    @property
    def hybrid(self) -> HybridSystem:
        """The hybrid system, made when it is first needed."""
        if self._hybrid is None:
            self._hybrid = self._make()
        return self._hybrid

    def __call__(self, tasks: Sequence[RunTask]) -> list[str]:
        """Carry out or go on with every run that has not finished; returns their folders."""
        for task in tasks:
            if not finished(task.folder, task.stages):
                self._run(task)
        return [task.folder for task in tasks]

    def _run(self, task: RunTask) -> None:
        run = RunDirectory(Path(task.folder))
        hybrid = self.hybrid
        if task.positions is not None:
            built = dataclasses.replace(hybrid.built, positions=task.positions)
            hybrid = hybrid.reassembled(built=built)
        window = task.window
        bias = Restraint(self._variable, at=window.centre, force_constant=window.force_constant)
        going_on = run.file("run.json").exists()
        simulate(
            hybrid,
            run,
            task.stages,
            self._options,
            resume=going_on,
            restraints=[*self._bound(), bias],
            variables=self._variables,
            start=None if going_on else task.start,
            seed=task.seed,
            title=run.path.name,
        )
        if run.state != "finished":
            raise ConfigError(
                f"a run in {run.path} that finishes",
                f"one that is {run.state}: {run.summary.get('message')}",
                "go on with --resume",
            )

    def _bound(self) -> list[Restraint]:
        """Restraints of the run file; those on the variable itself hold the variable, not its name."""
        return [
            dataclasses.replace(restraint, variable=self._variable)
            if restraint.name == self._variable.name
            else restraint
            for restraint in self._restraints
        ]


def finished(folder: str | Path, stages: Sequence[Minimise | Dynamics]) -> bool:
    """Whether a run has come to its end, which may be later than that of an earlier plan."""
    run = RunDirectory(Path(folder))
    if not run.file("run.json").exists() or run.state != "finished":
        return False
    last = stages[-1]
    done = run.summary["plan"][-1]
    if not isinstance(last, Dynamics):
        return True
    return bool(done["steps"] >= round(last.length / done.get("step_ps", done["timestep_ps"])))


def production_values(folders: Sequence[Path], name: str, stage: str = "produce") -> np.ndarray:
    """Values of a variable in the production of runs one after the other, in internal units."""
    found: list[float] = []
    for folder in folders:
        with (folder / "energies.csv").open(newline="", encoding="utf-8") as file:
            found += [float(row[name]) for row in csv.DictReader(file) if row["stage"] == stage]
    return np.array(found)


def seed_of(seed: int, *use: int) -> int:
    """A seed of its own for every window, segment and use."""
    return int(np.random.SeedSequence([seed, *use]).generate_state(1)[0] & 0x7FFFFFFF)


@contextmanager
def task_runner(workers: int, threads: int = 1) -> Iterator[TaskRunner]:
    """Runs tasks in this process, or in worker processes if there are to be several.

    Parameters
    ----------
    workers, threads : int
        Processes, and threads of each.
    """
    if workers <= 1:

        def here(
            function: Callable[[Any], Any], tasks: Sequence[Any], progress: Callable[[int, int], None]
        ) -> list[Any]:
            found = []
            for k, task in enumerate(tasks):
                found.append(function(task))
                progress(k + 1, len(tasks))
            return found

        yield here
        return
    from mlmm.ensembles.executors import open_executor, run_all

    with open_executor(workers=workers, threads=threads) as executor:

        def there(
            function: Callable[[Any], Any], tasks: Sequence[Any], progress: Callable[[int, int], None]
        ) -> list[Any]:
            return run_all(executor, function, tasks, progress=progress)

        yield there
