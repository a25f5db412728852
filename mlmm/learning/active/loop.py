"""The loop of active learning. Every step leaves a file, so that a killed loop goes on to the same result.

Round k explores with the model of round k − 1, chooses, labels, trains on all labels so far and measures on
structures that were held out before the first training. Steps that are done are read, not repeated; those
that were cut short start again from seeds that depend on the round alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.dynamics.lock import locked
from mlmm.ensembles.tasks import TaskFailure
from mlmm.errors import ConfigError
from mlmm.learning.active.choice import Chosen, choose
from mlmm.learning.active.folder import (
    LoopFolder,
    keep_candidates,
    kept_candidates,
    read_facts,
)
from mlmm.learning.active.measure import Measured, Model, measure, unmet_targets
from mlmm.learning.active.options import ChoiceOptions, LoopOptions, StopOptions, check_choice
from mlmm.learning.dataset.splits import block_names
from mlmm.learning.dataset.store import Dataset
from mlmm.learning.descriptors import structure_descriptors
from mlmm.reference.labels import Label, Molecule
from mlmm.short_repr import counted
from mlmm.whole_files import write_json

__all__ = ["Steps", "learn"]

Pair = tuple[Molecule, Label]


@dataclass(frozen=True)
class Steps:
    """The parts of a loop; each gives the same result for the same arguments.

    Parameters
    ----------
    method : str
        Level of theory of the labels.
    explore : callable
        (round, folder of the last model or None, seed, folder to work in) -> sequence of Molecule.
    label : callable
        Sequence of Molecule -> iterable of (index, Label or TaskFailure), in any order.
    train : callable
        (pairs, seed, folder): writes a model into the folder; may go on from what it left there.
    load : callable
        Folder -> Model.
    """

    method: str
    explore: Callable[[int, Path | None, int, Path], Sequence[Molecule]]
    label: Callable[[Sequence[Molecule]], Iterable[tuple[int, Label | TaskFailure]]]
    train: Callable[[Sequence[Pair], int, Path], None]
    load: Callable[[Path], Model]


def learn(
    path: str | Path,
    steps: Steps,
    options: LoopOptions | None = None,
    choice: ChoiceOptions | None = None,
    stop: StopOptions | None = None,
    *,
    settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Run a loop of active learning, or go on with one.

    Parameters
    ----------
    path : path
        Its folder.
    steps : Steps
    options, choice, stop : options, optional
    settings : dict, optional
        What else the results depend on; a loop is not resumed with others.
    say : callable
        Gets sentences.

    Returns
    -------
    list of dict
        Facts of each round.

    Raises
    ------
    ConfigError
        Other settings than those of the loop that is there, nothing to choose from, or too many labels that
        failed. Nothing that was labelled is lost.
    """
    loop = _Loop(path, steps, options or LoopOptions(), choice or ChoiceOptions(), stop or StopOptions())
    facts = {"method": steps.method, "loop": asdict(loop.options), "choice": asdict(loop.choice)}
    loop.folder = LoopFolder(path, facts | (settings or {}))
    with locked(Path(path)):
        return loop.run(say)


class _Loop:
    folder: LoopFolder

    def __init__(
        self, path: str | Path, steps: Steps, options: LoopOptions, choice: ChoiceOptions, stop: StopOptions
    ):
        self.path, self.steps = Path(path), steps
        self.options, self.choice, self.stop = options, choice, stop

    def run(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        # Targets may change from start to start.
        write_json(self.path / "result.json", {"state": "running", "stop": asdict(self.stop)})
        for number in range(self.stop.rounds):
            folder = self.folder.round(number)
            if not (folder / "done.json").exists():
                self._round(number, folder, say)
            done = read_facts(folder / "done.json")
            missed = unmet_targets(Measured.from_facts(read_facts(folder / "measured.json")), self.stop)
            say(_sentence(done, missed))
            if not missed:
                self._finish(number, "All targets are met on the held-out structures.", met=True)
                break
        else:
            self._finish(self.stop.rounds - 1, " ".join(missed), met=False)
        return self.folder.rounds()

    def _finish(self, number: int, why: str, *, met: bool) -> None:
        write_json(
            self.path / "result.json",
            {"state": "finished", "rounds": number + 1, "why": why, "met": met, "stop": asdict(self.stop)},
        )

    def _seed(self, number: int, step: int) -> int:
        """A seed of its own for each step of each round."""
        return int(np.random.SeedSequence([self.options.seed, number, step]).generate_state(1)[0])

    def _round(self, number: int, folder: Path, say: Callable[[str], None]) -> None:
        data = Dataset.create(self.path / "data", self.steps.method)
        candidates = self._candidates(number, folder, say)
        if number == 0:
            self._hold_out(candidates, say)
        chosen = self._chosen(number, folder, candidates, data)
        say(f"round {number}: {_reasons(chosen)} of {counted(len(candidates), 'candidate')} get a label")
        molecules = [candidates[one.index] for one in chosen]
        failed = self._label(molecules, data, folder / "labels", f"round {number}")
        model_folder = folder / "model"
        if not (folder / "trained.json").exists():
            pairs = data.pairs()
            say(f"round {number}: training on {counted(len(pairs), 'label')}")
            model_folder.mkdir(exist_ok=True)
            self.steps.train(pairs, self._seed(number, 2), model_folder)
            write_json(folder / "trained.json", {"labels": len(pairs)})
        model = self.steps.load(model_folder)
        measured = measure(model, Dataset(self.path / "held_out").pairs(), self.options.basin)
        write_json(folder / "measured.json", measured.as_facts())
        reasons = {why: sum(one.why == why for one in chosen) for why in sorted({one.why for one in chosen})}
        done = {
            "round": number,
            "labels": len(data.usable),
            "new": len(chosen),
            "failed": failed,
            "chosen": reasons,
            "candidates": len(candidates),
            "energy": measured.overall.energy,
            "force": measured.overall.force,
            "data_sha256": data.content_hash,
        }
        write_json(folder / "done.json", done)

    def _candidates(self, number: int, folder: Path, say: Callable[[str], None]) -> list[Molecule]:
        kept = kept_candidates(folder)
        if kept is not None:
            return kept
        model = self.path / f"round_{number - 1:03d}" / "model" if number else None
        say(f"round {number}: exploring")
        work = folder / "exploration"
        work.mkdir(exist_ok=True)
        return keep_candidates(folder, self.steps.explore(number, model, self._seed(number, 0), work))

    def _hold_out(self, candidates: Sequence[Molecule], say: Callable[[str], None]) -> None:
        """Label structures of some blocks, basin by basin, which are never chosen for training."""
        path = self.path / "held_out.json"
        if not path.exists():
            random = np.random.default_rng(self._seed(0, 3))
            blocks = block_names([m.origin for m in candidates], self.options.block)
            basins: dict[str, list[str]] = {}
            for place in random.permutation(len(candidates)).tolist():
                names = basins.setdefault(candidates[place].origin.get(self.options.basin, "all"), [])
                if blocks[place] not in names:
                    names.append(blocks[place])
            wanted, picked = min(self.options.held_out, len(candidates) // 2), []
            places: list[int] = []
            # One block of each basin in turn; the last one of a basin stays for training.
            while len(places) < wanted and any(len(names) > 1 for names in basins.values()):
                for name in sorted(basins):
                    if len(basins[name]) > 1 and len(places) < wanted:
                        picked.append(basins[name].pop())
                        places += [k for k, block in enumerate(blocks) if block == picked[-1]]
            if not places:
                raise ConfigError(
                    f"two blocks of explored structures or more in a basin (the {self.options.basin} of "
                    "their origin), of which one is held out",
                    f"{counted(len(basins), 'basin')} of one block each in "
                    f"{counted(len(candidates), 'structure')}",
                    "explore more, or reduce loop.block, the frames that are held out together",
                )
            write_json(path, {"blocks": sorted(picked), "candidates": sorted(places[:wanted])})
        molecules = [candidates[k] for k in read_facts(path)["candidates"]]
        held = Dataset.create(self.path / "held_out", self.steps.method)
        if any(molecule not in held for molecule in molecules):
            say(f"labelling {counted(len(molecules), 'structure')} that are held out")
        self._label(molecules, held, self.path / "held_out_labels", "the held-out structures")
        without = sum(label.forces is None for _, label in held.pairs())
        if without:
            raise ConfigError(
                "forces in every held-out label, by which a loop measures its models",
                f"{without} of {len(held.usable)} without",
                "choose a method that gives forces in [method]",
            )
        if len(held.usable) < 2:
            raise ConfigError(
                "two held-out labels or more that converged",
                f"{len(held.usable)}",
                "explore milder structures",
            )

    def _chosen(
        self, number: int, folder: Path, candidates: Sequence[Molecule], data: Dataset
    ) -> list[Chosen]:
        path = folder / "chosen.json"
        if path.exists():
            return [Chosen(e["index"], e["why"], float(e["score"] or "nan")) for e in read_facts(path)]
        away = set(read_facts(self.path / "held_out.json")["blocks"])
        names = block_names([molecule.origin for molecule in candidates], self.options.block)
        held = Dataset(self.path / "held_out")
        free = [
            k
            for k, molecule in enumerate(candidates)
            if names[k] not in away and molecule not in data and molecule not in held
        ]
        if not free:
            raise ConfigError(
                f"structures without a label in round {number}",
                f"{counted(len(candidates), 'candidate')}, all labelled or held out",
                "explore more, or stop here: the models of the rounds so far are there",
            )
        molecules = [candidates[k] for k in free]
        known = data.pairs()
        table = structure_descriptors([*molecules, *(molecule for molecule, _ in known)])
        spreads = None
        options = self.choice
        if number:
            model = self.steps.load(self.path / f"round_{number - 1:03d}" / "model")
            spreads = model.predict(molecules).largest_deviations
            check_choice(options, spreads is not None)
        elif options.by == "spread":
            # Nothing is known of uncertainty yet: the first labels are spread out.
            options = ChoiceOptions(**asdict(options) | {"by": "distance"})
        count = self.choice.batch if number else self.choice.start
        random = np.random.default_rng(self._seed(number, 1))
        picked = choose(options, count, table[: len(free)], table[len(free) :], spreads, random)
        chosen = [Chosen(free[one.index], one.why, one.score) for one in picked]
        facts = [
            {"index": c.index, "why": c.why, "score": repr(c.score) if c.score == c.score else None}
            | {"origin": dict(candidates[c.index].origin)}
            for c in chosen
        ]
        write_json(path, facts)
        return chosen

    def _label(self, molecules: Sequence[Molecule], data: Dataset, path: Path, what: str) -> int:
        """Label into a store of the round as results come, then into the data set in the order of choice.

        Returns the number of labels that failed.
        """
        kept = Dataset.create(path, self.steps.method)
        left = [molecule for molecule in molecules if molecule not in kept]
        for index, outcome in self.steps.label(left) if left else ():
            if isinstance(outcome, TaskFailure):
                record = {"failure": outcome.sentence}
                outcome = Label(float("nan"), converged=False, method=self.steps.method, record=record)
            kept.append([(left[index], outcome)])
        places = [kept.index_of(molecule) for molecule in molecules]
        pairs = [
            (molecule, kept[place][1])
            for molecule, place in zip(molecules, places, strict=True)
            if place is not None
        ]
        data.append(pairs)
        bad = [label for _, label in pairs if not label.converged]
        if len(bad) > self.stop.failures * len(molecules):
            said = next((label.record["failure"] for label in bad if "failure" in label.record), "")
            raise ConfigError(
                f"at most {100 * self.stop.failures:.0f} % of the labels of {what} to fail",
                f"{len(bad)} of {len(molecules)}" + (f", such as: {said}" if said else ""),
                "explore milder structures in a new loop, or raise stop.failures and go on; labels are kept",
            )
        return len(bad)


def _reasons(chosen: Sequence[Chosen]) -> str:
    counts = {why: sum(one.why == why for one in chosen) for why in dict.fromkeys(c.why for c in chosen)}
    return " and ".join(
        f"{number} by {why}" if why != "random" else f"{number} at random" for why, number in counts.items()
    )


def _sentence(done: dict[str, Any], missed: Sequence[str]) -> str:
    more = "all targets met" if not missed else " ".join(missed)
    return (
        f"round {done['round']}: {done['labels']} labels, energy off by {done['energy']:.3g} kJ/mol, force "
        f"by {done['force']:.3g} kJ/mol/nm: {more}"
    )
