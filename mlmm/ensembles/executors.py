"""Independent calculations on several processes: results as they complete, a death costs one of them.

`open_executor` gives one interface to processes on this machine (`mlmm.ensembles.local_processes`) and to
Dask (`mlmm.ensembles.dask_cluster`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from mlmm.ensembles.options import ExecutorOptions
from mlmm.ensembles.tasks import ProgressHook, TaskFailure
from mlmm.errors import ConfigError
from mlmm.options import with_changes
from mlmm.short_repr import counted

__all__ = ["Executor", "TaskFailure", "open_executor", "run_all"]


class Executor(Protocol):
    """Runs a function on many tasks."""

    @property
    def workers(self) -> int:
        """Worker processes at present."""
        ...

    def run(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        *,
        retries: int | None = None,
        progress: ProgressHook | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result or TaskFailure) in the order of completion.

        Parameters
        ----------
        function : callable
            Of one argument. Closures and lambdas are sent by value (cloudpickle), once for each worker: what
            it keeps between calls stays there.
        tasks : sequence
            Arguments, one for each call.
        retries : int, optional
            How often a task is tried again whose worker died; by default that of the options. A task whose
            function raises is not tried again.
        progress : callable, optional
            Called with (done, total) after each task.
        """
        ...

    def close(self, *, at_once: bool = False) -> None:
        """End the workers; `at_once` without waiting for what they are doing."""
        ...


@contextmanager
def open_executor(options: ExecutorOptions | None = None, **changes: Any) -> Iterator[Executor]:
    """Start workers, and end them when this is left: at once after an exception, Ctrl-C among them.

    Parameters
    ----------
    options : ExecutorOptions, optional
    **changes
        Fields of `ExecutorOptions`, such as ``workers=2`` or ``scheduler="tcp://node1:8786"``.

    Raises
    ------
    ConfigError
        Options that cannot be used, a cluster file that cannot be read, or a scheduler that does not answer.
    MissingPackageError
        A scheduler without Dask.

    Examples
    --------
    >>> with open_executor(workers=2) as executor:
    ...     for index, outcome in executor.run(energy_of, structures):
    ...         print(index, outcome)
    """
    chosen = with_changes(ExecutorOptions, options, changes)
    executor: Executor
    if chosen.scheduler:
        from mlmm.ensembles.dask_cluster import DaskExecutor

        executor = DaskExecutor(chosen)
    else:
        from mlmm.ensembles.local_processes import LocalExecutor

        executor = LocalExecutor(chosen)
    try:
        yield executor
    except BaseException:
        executor.close(at_once=True)
        raise
    executor.close()


def run_all(
    executor: Executor,
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    retries: int | None = None,
    progress: ProgressHook | None = None,
) -> list[Any]:
    """Results of all tasks in their order; for work that is of no use with a task missing.

    Raises
    ------
    Exception
        That of the first task to fail.
    ConfigError
        A task whose worker died each time.
    """
    results: list[Any] = [None] * len(tasks)
    for index, outcome in executor.run(function, tasks, retries=retries, progress=progress):
        if isinstance(outcome, TaskFailure):
            if outcome.error is not None:
                raise outcome.error
            raise ConfigError(
                f"all of {counted(len(tasks), 'task')} to end", outcome.sentence, "run it again"
            )
        results[index] = outcome
    return results
