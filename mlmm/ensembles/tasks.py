"""Outcomes of tasks, whatever ran them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlmm.short_repr import ShortRepr

__all__ = ["ProgressHook", "TaskFailure", "outcome_of"]

#: Called with the number of tasks done, failed ones among them, and of all.
ProgressHook = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class TaskFailure(ShortRepr):
    """Outcome of a task that has no result.

    Parameters
    ----------
    index : int
        Place of the task among those of its run.
    sentence : str
        The reason, to be printed.
    died : bool
        Whether the worker process died, every time that the task was tried; False: the function raised.
    error : Exception or None
        The exception that the function raised; a RuntimeError with its text where it cannot be sent.
    traceback : str
        Of that exception, in the worker.
    attempts : int
        How often the task was tried.
    """

    index: int
    sentence: str
    died: bool
    error: Exception | None = None
    traceback: str = ""
    attempts: int = 1

    def _summary(self) -> dict[str, str]:
        return {"task": str(self.index), "reason": self.sentence, "attempts": str(self.attempts)}

    @classmethod
    def of_error(cls, index: int, error: Exception, traceback: str, attempts: int) -> TaskFailure:
        """The outcome of a task whose function raised."""
        sentence = f"Task {index} failed: {type(error).__name__}: {error}"
        return cls(index, sentence, False, error, traceback, attempts)

    @classmethod
    def of_death(cls, index: int, reason: str, attempts: int) -> TaskFailure:
        """The outcome of a task whose worker died each time."""
        each = f", each of the {attempts} times that it was tried" if attempts > 1 else ""
        sentence = (
            f"Task {index} was lost: its worker process {reason}{each}. Look at what the task needs, memory "
            "first; the other tasks went on."
        )
        return cls(index, sentence, True, attempts=attempts)


def outcome_of(index: int, answer: tuple[str, bytes, str], attempts: int) -> Any:
    """The result of a task, or a TaskFailure, from the answer of `mlmm.ensembles.worker.answer_to`."""
    kind, content, traceback = answer
    try:
        value = pickle.loads(content)
    except Exception as error:
        return TaskFailure.of_error(index, error, "", attempts)
    return value if kind == "result" else TaskFailure.of_error(index, value, traceback, attempts)
