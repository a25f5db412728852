"""Umbrella sampling: plan windows, run them on several processes, add what is missing, join them by MBAR."""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.build import BuiltSystem
from mlmm.collective_variables.bind import bind_variable
from mlmm.collective_variables.definitions import BoundVariable
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.collective_variables.values import value
from mlmm.dynamics.lock import locked
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.dynamics.stages import Dynamics, Equilibrate, Minimise, Produce
from mlmm.dynamics.start import Start
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.replica_exchange import exchanged
from mlmm.reactions.sampling_options import UmbrellaOptions
from mlmm.reactions.seeds import nearest_models
from mlmm.reactions.umbrella_analysis import UmbrellaResult
from mlmm.reactions.umbrella_folder import analyse_folder
from mlmm.reactions.umbrella_plan import planned, the_variable
from mlmm.reactions.umbrella_record import UmbrellaRecord
from mlmm.reactions.window_runs import RunTask, TaskRunner, WindowRunner, production_values, seed_of
from mlmm.reactions.windows import Coordinate, Window, neighbours

__all__ = ["Umbrella", "coordinate_of"]

logger = logging.getLogger(__name__)
_EQUILIBRATION, _PRODUCTION, _EXCHANGE, _BOOTSTRAP = range(4)  # what a seed is for


def coordinate_of(variable: BoundVariable) -> Coordinate:
    """The variable as the analysis knows it."""
    return Coordinate(variable.name, variable.unit, 2 * math.pi if variable.kind == "torsion" else 0.0)


@dataclass
class Umbrella:
    """Umbrella windows of one system in one folder.

    Each window is brought into equilibrium in a run of its own, from its neighbour or from a structure along
    a path, and sampled in another. A folder is resumed by running it again: what has finished stays, a run
    that was killed goes on from its checkpoint.

    Parameters
    ----------
    make_hybrid : callable
        Without arguments, for a hybrid system; it is sent to worker processes.
    built : BuiltSystem
        The force field of that hybrid.
    out : Path
    options : UmbrellaOptions
    protocol : ProtocolOptions
        Minimisation, equilibration and production of a window.
    run : RunOptions
    variables : sequence of Variable
        Among them the one along which windows stand; the others are recorded.
    restraints : sequence of Restraint
        That act in all windows alike.
    facts : mapping
        Title and potential, for the report.
    """

    make_hybrid: Callable[[], HybridSystem]
    built: BuiltSystem
    out: Path
    options: UmbrellaOptions
    protocol: ProtocolOptions
    run: RunOptions
    variables: Sequence[Variable]
    restraints: Sequence[Restraint] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.variable = the_variable(self.options.variable, self.variables)
        if not self.protocol.produce > 0 or not self.protocol.equilibrate > 0:
            raise ConfigError(
                "lengths of equilibration and production in [run]",
                f"{self.protocol.equilibrate:g} and {self.protocol.produce:g} ps",
                'write equilibrate = "1 ps" and produce = "5 ps", or longer ones',
            )
        self.runner = WindowRunner(self.make_hybrid, self.variable, self.variables, self.restraints, self.run)

    def sample(self, tasks: TaskRunner, progress: Callable[[str], None] = logger.info) -> UmbrellaResult:
        """Run all windows, add those that are missing, and analyse them.

        Parameters
        ----------
        tasks : callable
            From `mlmm.reactions.window_runs.task_runner`.
        progress : callable
            Called with a line of text.

        Raises
        ------
        ConfigError
            A folder of other windows, or options that do not go together.
        SimulationError
            A window whose simulation failed; the others go on when it is run again.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with locked(self.out):
            record = self._record()
            while True:
                self._equilibrate(record, tasks, progress)
                self._produce(record, tasks, progress)
                result = self._analysed(record)
                room = self.options.add - sum(window.added > 0 for window in record.windows)
                if not result.missing or room <= 0:
                    break
                more = list(result.missing[:room])
                for window in more:
                    at = record.coordinate.shown(window.centre)
                    progress(f"neighbours do not overlap: window {window.number} added at {at}")
                record.windows += more
                record.write()
            record.state = "finished"
            record.write()
        return result

    def _record(self) -> UmbrellaRecord:
        bound = bind_variable(self.built, self.variable)
        coordinate = coordinate_of(bound)
        windows = planned(self.options, self.variable, self.run.temperature)
        segments = 1
        if self.options.exchange:
            segments = max(1, round(self.protocol.produce / self.options.exchange))
        if not UmbrellaRecord.there(self.out):
            record = UmbrellaRecord(self.out, coordinate, self.run.temperature, windows, segments)
            record.facts = {**self.facts, "built_value": self._value(bound)}
            record.write()
            return record
        record = UmbrellaRecord.read(self.out)
        there = [window for window in record.windows if window.added == 0]
        same = record.temperature == self.run.temperature and (record.segments > 1) == (segments > 1)
        if there != windows or not same:
            raise ConfigError(
                f"the windows of {self.out}, whose run goes on",
                "others (centres, force constants, exchange or temperature)",
                "leave them as they are there, or choose another --out",
            )
        record.segments, record.state = max(segments, record.segments), "running"
        record.write()
        return record

    def _value(self, bound: BoundVariable) -> float:
        built = self.built
        cell = None if built.box_vectors is None else torch.tensor(np.array(built.box_vectors))
        return float(value(bound, torch.tensor(np.array(built.positions)), cell))

    def _equilibrate(
        self, record: UmbrellaRecord, tasks: TaskRunner, progress: Callable[[str], None]
    ) -> None:
        first_round = [window for window in record.windows if window.added == 0]
        if self.options.structures:
            chosen = nearest_models(self.options.structures, self.built, self.variable, first_round)
            chains = [
                [self._first_run(record, window, model)]
                for window, model in zip(first_round, chosen, strict=True)
            ]
            self._all(tasks, chains, progress, "equilibrated")
        else:
            start = record.facts["built_value"]
            order = sorted(first_round, key=lambda window: window.centre)
            apart = [abs(float(record.coordinate.apart(window.centre, start))) for window in order]
            middle = int(np.argmin(apart))
            self._all(tasks, [[self._first_run(record, order[middle])]], progress, "equilibrated")
            walks = [order[middle::-1], order[middle:]]
            chains = [
                [self._next_run(record, b, record.equilibration(a)) for a, b in _steps(walk)]
                for walk in walks
            ]
            self._all(tasks, [chain for chain in chains if chain], progress, "equilibrated")
        added = [window for window in record.windows if window.added > 0]
        for number in sorted({window.added for window in added}):
            older = [window for window in record.windows if window.added < number]
            chains = []
            for window in (entry for entry in added if entry.added == number):
                apart = [abs(float(record.coordinate.apart(w.centre, window.centre))) for w in older]
                near = older[int(np.argmin(apart))]
                chains.append([self._next_run(record, window, record.productions(near)[-1])])
            self._all(tasks, chains, progress, "equilibrated")

    def _first_run(
        self, record: UmbrellaRecord, window: Window, positions: np.ndarray | None = None
    ) -> RunTask:
        stages: list[Minimise | Dynamics] = []
        if self.protocol.minimise:
            stages.append(Minimise(max_iterations=self.protocol.minimise))
        stages.append(self._equilibration())
        return self._task(record.equilibration(window), window, stages, _EQUILIBRATION, positions=positions)

    def _next_run(self, record: UmbrellaRecord, window: Window, source: Path) -> RunTask:
        start = Start(source, velocities="kept")
        stages = [self._equilibration()]
        return self._task(record.equilibration(window), window, stages, _EQUILIBRATION, start=start)

    def _equilibration(self) -> Equilibrate:
        return Equilibrate(self.protocol.equilibrate, friction=self.protocol.equilibrate_friction)

    def _task(
        self,
        folder: Path,
        window: Window,
        stages: Sequence[Minimise | Dynamics],
        use: int,
        segment: int = 0,
        **more: Any,
    ) -> RunTask:
        seed = seed_of(self.run.seed, use, window.number, segment)
        return RunTask(str(folder), window, tuple(stages), seed, **more)

    def _produce(self, record: UmbrellaRecord, tasks: TaskRunner, progress: Callable[[str], None]) -> None:
        count = record.segments
        length = self.protocol.produce if count == 1 else self.options.exchange
        sources = list(range(len(record.windows)))
        for segment in range(1, count + 1):
            chains = []
            for k, window in enumerate(record.windows):
                source = record.windows[sources[k]]
                before = (
                    record.production(source, segment - 1) if segment > 1 else record.equilibration(window)
                )
                start = Start(before, velocities="kept")
                folder = record.production(window, segment)
                chains.append(
                    [self._task(folder, window, [Produce(length)], _PRODUCTION, segment, start=start)]
                )
            self._all(tasks, chains, progress, "sampled" if count == 1 else f"segment {segment} of {count}")
            if segment < count:
                sources = self._exchange(record, segment)
                self._prune(record, segment - 1)

    def _exchange(self, record: UmbrellaRecord, segment: int) -> list[int]:
        """Sources of the next segment; a round that was decided before a kill is decided alike again.

        Windows that were added later exchange among themselves: segments of the others have been sampled.
        """
        windows = record.windows
        before = [entry for entry in record.exchanges if entry["segment"] == segment]
        decided: list[int] = before[0]["sources"] if before else []
        if len(decided) == len(windows):
            return decided
        values = np.array(
            [
                production_values([record.production(window, segment)], record.coordinate.name)[-1]
                for window in windows
            ]
        )
        new = len(decided)
        pairs = [pair for pair in neighbours(windows, record.coordinate) if min(pair) >= new]
        generator = np.random.default_rng(seed_of(self.run.seed, _EXCHANGE, segment, len(windows)))
        conditions = (record.coordinate, record.temperature, generator, segment)
        sources, attempts = exchanged(windows, values, pairs, *conditions)
        if before:
            sources[:new], attempts = decided, [*before[0]["attempts"], *attempts]
            record.exchanges.remove(before[0])
        record.exchanges.append({"segment": segment, "sources": sources, "attempts": attempts})
        record.write()
        return sources

    def _prune(self, record: UmbrellaRecord, segment: int) -> None:
        """Systems and checkpoints of segments that no other starts from any more; there may be hundreds."""
        if segment < 1:
            return
        for window in record.windows:
            folder = record.production(window, segment)
            shutil.rmtree(folder / "built", ignore_errors=True)
            for checkpoint in folder.glob("checkpoint*.zip"):
                checkpoint.unlink()

    def _all(
        self,
        tasks: TaskRunner,
        chains: Sequence[Sequence[RunTask]],
        progress: Callable[[str], None],
        what: str,
    ) -> None:
        if not chains:
            return

        def told(done: int, total: int) -> None:
            progress(f"{what}: {done} of {total}")

        tasks(self.runner, chains, told)

    def _analysed(self, record: UmbrellaRecord) -> UmbrellaResult:
        seed = seed_of(self.run.seed, _BOOTSTRAP)
        return analyse_folder(self.out, self.options, seed=seed, record=record)


def _steps(walk: Sequence[Window]) -> list[tuple[Window, Window]]:
    return list(itertools.pairwise(walk))
