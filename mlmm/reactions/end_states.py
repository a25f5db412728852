"""States between force field and hybrid: run each, evaluate D in its frames, join them by MBAR."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.collective_variables.options import Restraint, Variable
from mlmm.dynamics.lock import locked
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.dynamics.run_directory import RunDirectory, timestamp, versions
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Dynamics, Equilibrate, Minimise, Produce
from mlmm.dynamics.start import Start
from mlmm.errors import ConfigError
from mlmm.hybrid.end_states import check_weight
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.correction import DifferenceRunner, FrameChunk, frame_chunks
from mlmm.reactions.end_state_analysis import EndStateResult, analyse_states
from mlmm.reactions.sampling_options import EndStateOptions
from mlmm.reactions.umbrella_record import read_json
from mlmm.reactions.window_runs import TaskRunner, finished, seed_of
from mlmm.whole_files import write_json

__all__ = ["EndStates", "StateRunner", "StateTask", "asked_weights", "weighted"]

logger = logging.getLogger(__name__)
RECORD, RESULT = "endstate.json", "result.json"
_EQUILIBRATION, _PRODUCTION, _BOOTSTRAP = range(3)  # what a seed is for


def weighted(hybrid: HybridSystem, weight: float) -> HybridSystem:
    """A state between force field (0) and hybrid (1); errors as of `mlmm.hybrid.end_states.check_weight`."""
    check_weight(hybrid.spec, weight)
    return hybrid.reassembled(model_weight=weight, direct_pairs=False)


def asked_weights(options: EndStateOptions) -> list[float]:
    """Weights of the states that [endstate] asks for.

    Raises
    ------
    ConfigError
        Weights that do not rise from 0 to 1.
    """
    if not len(options.weights):
        return [float(weight) for weight in np.linspace(0.0, 1.0, options.states)]
    found = [float(weight) for weight in options.weights]
    if found[0] != 0.0 or found[-1] != 1.0 or (np.diff(found) <= 0).any():
        raise ConfigError(
            "weights in [endstate] that rise from 0 to 1", str(found), "write weights = [0.0, 0.5, 1.0]"
        )
    return found


@dataclass(frozen=True)
class StateTask:
    """One run of a state: its directory, the weight of the model, its stages, where it begins."""

    folder: str
    weight: float
    stages: tuple[Minimise | Dynamics, ...]
    seed: int
    start: Start | None = None


class StateRunner:
    """Carries out runs of states; it is sent to a worker once and keeps its hybrid system there.

    Parameters
    ----------
    make_hybrid : callable
        Without arguments, for the hybrid at weight 1.
    variables, restraints : sequence
        Of the run file; restraints act in all states alike.
    options : RunOptions
    """

    def __init__(
        self,
        make_hybrid: Callable[[], HybridSystem],
        variables: Sequence[Variable],
        restraints: Sequence[Restraint],
        options: RunOptions,
    ):
        self._make, self._options = make_hybrid, options
        self._variables, self._restraints = tuple(variables), tuple(restraints)
        self._hybrid: HybridSystem | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A System with a TorchForce cannot be sent.
        return self.__dict__ | {"_hybrid": None}

    def __call__(self, tasks: Sequence[StateTask]) -> list[str]:
        """Carry out or go on with every run that has not finished; returns their folders."""
        for task in tasks:
            if not finished(task.folder, task.stages):
                self._run(task)
        return [task.folder for task in tasks]

    def _run(self, task: StateTask) -> None:
        if self._hybrid is None:
            self._hybrid = self._make()
        run = RunDirectory(Path(task.folder))
        going_on = run.file("run.json").exists()
        simulate(
            weighted(self._hybrid, task.weight),
            run,
            task.stages,
            self._options,
            resume=going_on,
            restraints=list(self._restraints),
            variables=self._variables,
            start=None if going_on else task.start,
            seed=task.seed,
            title=f"weight {task.weight:g}",
        )
        if run.state != "finished":
            raise ConfigError(
                f"a run in {run.path} that finishes",
                f"one that is {run.state}: {run.summary.get('message')}",
                "go on with --resume",
            )


@dataclass
class EndStates:
    """States between force field and hybrid of one system in one folder; resumed by running it again.

    Parameters
    ----------
    make_hybrid : callable
        Without arguments, for a hybrid system; it is sent to worker processes.
    make_difference : callable
        Without arguments, for U_MM - U_hybrid of positions and box, kJ/mol.
    out : Path
    options : EndStateOptions
    protocol : ProtocolOptions
        Minimisation, equilibration and production of a state.
    run : RunOptions
    variables, restraints : sequence
        Restraints act in all states alike.
    facts : dict
        Title and potential, for the report.
    """

    make_hybrid: Callable[[], HybridSystem]
    make_difference: Callable[[], Callable[[np.ndarray, np.ndarray | None], float]]
    out: Path
    options: EndStateOptions
    protocol: ProtocolOptions
    run: RunOptions
    variables: Sequence[Variable] = ()
    restraints: Sequence[Restraint] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = asked_weights(self.options)
        if not self.protocol.produce > 0 or not self.protocol.equilibrate > 0:
            raise ConfigError(
                "lengths of equilibration and production in [run]",
                f"{self.protocol.equilibrate:g} and {self.protocol.produce:g} ps",
                'write equilibrate = "1 ps" and produce = "10 ps", or longer ones',
            )

    def sample(
        self, tasks: TaskRunner, n_atoms: int, progress: Callable[[str], None] = logger.info
    ) -> EndStateResult:
        """Run all states, evaluate their frames and join them; writes ``result.json``.

        Parameters
        ----------
        tasks : callable
            From `mlmm.reactions.window_runs.task_runner`.
        n_atoms : int
            Of the whole system.
        progress : callable
            Called with a line of text.

        Raises
        ------
        ConfigError
            A folder of other states, or too few frames.
        SimulationError
            A state whose simulation failed; the others go on when it is run again.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with locked(self.out):
            self._write("running", check=True)
            runner = StateRunner(self.make_hybrid, self.variables, self.restraints, self.run)

            def told(what: str) -> Callable[[int, int], None]:
                return lambda done, total: progress(f"{what}: {done} of {total}")

            # Each state begins where its neighbour is in equilibrium.
            tasks(runner, [[self._equilibration(k) for k in range(len(self.weights))]], told("chains"))
            tasks(runner, [[self._production(k)] for k in range(len(self.weights))], told("states sampled"))
            found, facts = self._joined(tasks, n_atoms, told)
            write_json(self.out / RESULT, found.facts() | facts, nan=True)
            self._write("finished")
        return found

    def _joined(
        self, tasks: TaskRunner, n_atoms: int, told: Callable[[str], Callable[[int, int], None]]
    ) -> tuple[EndStateResult, dict[str, Any]]:
        """The free energy from what was sampled, and further facts of the result."""
        differences = self._differences(tasks, n_atoms, told("frames"))
        return self._analysed(differences), {"cost": self._seconds()}

    def _analysed(self, differences: Sequence[np.ndarray]) -> EndStateResult:
        return analyse_states(
            self.weights,
            differences,
            self.run.temperature,
            bootstraps=self.options.bootstraps,
            seed=seed_of(self.run.seed, _BOOTSTRAP),
        )

    def _settings(self) -> dict[str, Any]:
        """What a folder that goes on has to agree in."""
        return {
            "method": self.options.method,
            "weights": self.weights,
            "temperature": self.run.temperature,
        }

    def _write(self, state: str, check: bool = False) -> None:
        path, content = self.out / RECORD, self._settings()
        if check and path.exists():
            there = read_json(path, "a folder of states between", "give the --out of mlmm endstate")
            if any(there.get(name) != value for name, value in content.items()):
                raise ConfigError(
                    f"the states of {self.out}, whose run goes on",
                    f"others ({', '.join(name for name in content if there.get(name) != content[name])})",
                    "leave them as they are there, or choose another --out",
                )
        more = {"state": state, "written": timestamp(), "versions": versions(), "facts": self.facts}
        write_json(path, content | more, nan=True)

    def _folder(self, k: int, name: str) -> Path:
        return self.out / "states" / f"{k:03d}" / name

    def _equilibration(self, k: int) -> StateTask:
        stages: list[Minimise | Dynamics] = []
        if k == 0 and self.protocol.minimise:
            stages.append(Minimise(max_iterations=self.protocol.minimise))
        stages.append(Equilibrate(self.protocol.equilibrate, friction=self.protocol.equilibrate_friction))
        start = Start(self._folder(k - 1, "equilibration"), velocities="kept") if k else None
        seed = seed_of(self.run.seed, _EQUILIBRATION, k)
        folder = str(self._folder(k, "equilibration"))
        return StateTask(folder, self.weights[k], tuple(stages), seed, start)

    def _production(self, k: int) -> StateTask:
        start = Start(self._folder(k, "equilibration"), velocities="kept")
        seed = seed_of(self.run.seed, _PRODUCTION, k)
        folder = str(self._folder(k, "production"))
        return StateTask(folder, self.weights[k], (Produce(self.protocol.produce),), seed, start)

    def _differences(
        self, tasks: TaskRunner, n_atoms: int, told: Callable[[int, int], None]
    ) -> list[np.ndarray]:
        """D = U_hybrid - U_MM in the frames of every state."""
        there = self.out / "differences"
        there.mkdir(exist_ok=True)
        by_state: list[list[FrameChunk]] = [
            frame_chunks(
                self._folder(k, "production") / "trajectory.dcd",
                n_atoms,
                there,
                f"{k:03d}",
                self.options.every,
            )
            for k in range(len(self.weights))
        ]
        tasks(DifferenceRunner(self.make_difference), [one for own in by_state for one in own], told)
        return [
            -np.concatenate([np.load(one.result) for one in own]) if own else np.empty(0) for own in by_state
        ]

    def _seconds(self) -> float:
        total = 0.0
        for k in range(len(self.weights)):
            for name in ("equilibration", "production"):
                total += sum(RunDirectory(self._folder(k, name)).summary.get("seconds", {}).values())
        return total
