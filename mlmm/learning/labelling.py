"""Labels into a data set: nothing twice, safe to kill, the same set whatever the number of processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmm.ensembles.executors import Executor
from mlmm.ensembles.tasks import ProgressHook
from mlmm.learning.dataset.frames import molecule_key
from mlmm.learning.dataset.store import Dataset, Pair
from mlmm.reference.labelling import FAILURE_LIMIT, LOST, label
from mlmm.reference.labels import Molecule
from mlmm.reference.method import ReferenceMethod
from mlmm.reference.methods import reference_method
from mlmm.short_repr import ShortRepr

__all__ = ["LabelReport", "label_into"]

_EVERY = 1.0  # seconds between two writes


@dataclass(frozen=True, repr=False)
class LabelReport(ShortRepr):
    """What a call of `label_into` did.

    Parameters
    ----------
    dataset : Dataset
    new, failed, there, lost : int
        Structures labelled, of these not converged, labelled already, and without a label because a worker
        died.
    """

    dataset: Dataset
    new: int
    failed: int
    there: int
    lost: int

    def _summary(self) -> dict[str, str]:
        return {
            "data set": str(self.dataset.path),
            "new": f"{self.new:,}",
            "not converged": f"{self.failed:,}" if self.failed else "",
            "labelled before": f"{self.there:,}" if self.there else "",
            "lost with their worker": f"{self.lost:,}" if self.lost else "",
            "method": self.dataset.method,
        }


def label_into(
    path: str | Path,
    structures: Sequence[Molecule],
    method: str | ReferenceMethod,
    *,
    executor: Executor | None = None,
    failure_limit: float = FAILURE_LIMIT,
    progress: ProgressHook | None = None,
    **options: Any,
) -> LabelReport:
    """Label structures into a data set, in their order; those that are in it already are left out.

    Killed at any time and called again, it gives the same set.

    Parameters
    ----------
    path : path
        Folder of the data set; made if it is not there.
    structures : sequence of Molecule
    method, executor, failure_limit, progress, options
        As for `mlmm.reference.label`.

    Raises
    ------
    ConfigError
        As `mlmm.reference.label`, or a data set of another level of theory. What was labelled stays.
    """
    made = reference_method(method, **options)
    there = (Path(path) / "set.json").exists()
    known = set(Dataset.create(path, made.title).keys) if there else set()
    wanted: dict[str, Molecule] = {}
    for molecule in structures:
        key = molecule_key(molecule)
        if key not in known:
            wanted.setdefault(key, molecule)
    molecules = list(wanted.values())
    new, failures, lost = 0, 0, 0
    pairs: list[Pair] = []

    def write() -> None:
        # A set is made with its first labels: a method that is refused leaves none behind.
        if pairs:
            Dataset.create(path, made.title).append(pairs)
            pairs.clear()

    written = time.monotonic()
    answers = label(molecules, made, executor=executor, failure_limit=failure_limit, progress=progress)
    try:
        for molecule, answer in zip(molecules, answers, strict=True):
            if LOST in answer.record:
                lost += 1
                continue
            pairs.append((molecule, answer))
            new += 1
            failures += not answer.converged
            if time.monotonic() - written > _EVERY:
                write()
                written = time.monotonic()
    finally:
        # An interruption or a refusal loses nothing that was computed in order.
        write()
    dataset = Dataset.create(path, made.title)
    return LabelReport(dataset, new, failures, len(structures) - len(molecules), lost)
