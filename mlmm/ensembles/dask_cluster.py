"""Workers of Dask: on this machine, of a scheduler that runs, or of a cluster that dask-jobqueue starts.

Dask fails all tasks that a dead worker held, those that only waited there among them. They are submitted
again; the last try of each comes at the end and alone, so that none is lost for another's fault.
"""

from __future__ import annotations

import logging
import pickle
import tomllib
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import cloudpickle

from mlmm.ensembles.options import ExecutorOptions
from mlmm.ensembles.tasks import ProgressHook, TaskFailure, outcome_of
from mlmm.ensembles.worker import answer_to
from mlmm.errors import ConfigError, MissingPackageError
from mlmm.options import check_names

__all__ = ["DaskExecutor", "read_cluster"]

logger = logging.getLogger(__name__)
#: Table of a cluster file -> class of dask_jobqueue.
_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
}
_SCALE = ("jobs", "minimum_jobs", "maximum_jobs")
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {}
_ANSWER = "30s"  # that a scheduler has to answer in


class DaskExecutor:
    """Tasks by ``distributed.Client.submit``.

    Parameters
    ----------
    options : ExecutorOptions
        With a scheduler.

    Raises
    ------
    MissingPackageError
        No Dask.
    ConfigError
        A scheduler that does not answer, or a cluster file that is wrong.
    """

    def __init__(self, options: ExecutorOptions):
        try:
            import dask
            import distributed
        except ImportError as error:
            raise MissingPackageError("Dask", str(error), "pip install 'mlmm[cluster]'") from error
        self._options = options
        self._cluster: Any = None
        scheduler = options.scheduler
        if scheduler == "dask":
            environment = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "OPENMM_CPU_THREADS")}
            with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
                self._cluster = distributed.LocalCluster(
                    n_workers=options.processes,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=":0",  # any free port: 8787 may be another cluster's
                    env=environment,
                )
        elif scheduler.endswith(".toml"):
            self._cluster = start_cluster(scheduler)
        try:
            self._client = distributed.Client(
                self._cluster or scheduler, timeout=_ANSWER, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            if self._cluster is not None:
                self._cluster.close()
            raise ConfigError(
                f"a Dask scheduler at {scheduler}",
                str(error) or type(error).__name__,
                "start one there with `dask scheduler`, and workers with `dask worker tcp://host:8786 "
                "--nthreads 1`",
            ) from error

    @property
    def workers(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def run(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        *,
        retries: int | None = None,
        progress: ProgressHook | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """See `mlmm.ensembles.executors.Executor.run`."""
        import distributed

        tries = 1 + (self._options.retries if retries is None else retries)
        attempts = [0] * len(tasks)
        held: dict[Any, tuple[int, Any]] = {}
        # A task of its own, not data sent ahead: it is made again where the worker that held it dies.
        content = cloudpickle.dumps(function)
        code = self._client.submit(bytes, content, pure=False)
        token = uuid.uuid4().hex
        if not self.workers:
            logger.info("no Dask worker yet: waiting for the first")

        def submit(index: int) -> Any:
            nonlocal code
            if code.status not in ("pending", "finished"):  # it was at a worker that died
                code = self._client.submit(bytes, content, pure=False)
            attempts[index] += 1
            future = self._client.submit(_call, token, code, tasks[index], pure=False)
            held[future.key] = (index, future)
            return future

        completed = distributed.as_completed(loop=self._client.loop)
        for index in range(len(tasks)):
            completed.add(submit(index))
        done = 0
        alone: deque[int] = deque()
        try:
            for future in completed:
                index, _ = held.pop(future.key)
                outcome = _outcome(index, future, attempts[index])
                future.release()  # or it would be made again where a worker dies that keeps it
                if isinstance(outcome, TaskFailure) and outcome.died and attempts[index] < tries:
                    if attempts[index] + 1 < tries:
                        completed.add(submit(index))
                    else:
                        alone.append(index)
                else:
                    done += 1
                    if progress is not None:
                        progress(done, len(tasks))
                    yield index, outcome
                if alone and not held:
                    completed.add(submit(alone.popleft()))
        finally:
            if held:
                self._client.cancel([future for _, future in held.values()], force=True)

    def close(self, *, at_once: bool = False) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def start_cluster(path: str | Path) -> Any:
    """Start the cluster of a file; see `read_cluster`."""
    try:
        import dask_jobqueue
    except ImportError as error:
        raise MissingPackageError("dask-jobqueue", str(error), "pip install 'mlmm[cluster]'") from error
    system, arguments, scale = read_cluster(path)
    # Any free port for its web page: 8787 may be another user's.
    arguments.setdefault("scheduler_options", {}).setdefault("dashboard_address", ":0")
    try:
        cluster = getattr(dask_jobqueue, _SYSTEMS[system])(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"arguments of dask_jobqueue.{_SYSTEMS[system]} in {path} [{system}]",
            str(error),
            "look them up in the documentation of dask-jobqueue",
        ) from error
    if "maximum_jobs" in scale:
        cluster.adapt(**scale)
    else:
        cluster.scale(**scale)
    return cluster


def read_cluster(path: str | Path) -> tuple[str, dict[str, Any], dict[str, int]]:
    """Read a cluster file: one table for dask-jobqueue, and ``[scale]``.

    Returns
    -------
    system : str
        "slurm", "pbs", "sge", "lsf", "oar" or "htcondor".
    arguments : dict
        Of the class of dask_jobqueue.
    scale : dict
        ``jobs``, or ``minimum_jobs`` and ``maximum_jobs``.

    Raises
    ------
    ConfigError
        A file that is missing, no TOML, or without a system or a number of jobs.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"a cluster in {path}, in TOML", str(error), "correct the file") from error
    found = [name for name in content if name in _SYSTEMS]
    check_names([n for n in content if n not in _SYSTEMS], ["scale"], f"known tables in {path}")
    if len(found) != 1 or not isinstance(content[found[0]], dict):
        raise ConfigError(
            f"one table for dask-jobqueue in {path}: {', '.join(f'[{name}]' for name in _SYSTEMS)}",
            ", ".join(found) or "none",
            'write [slurm] with queue = "…", cores = 1, processes = 1, memory = "2 GB"',
        )
    scale = content.get("scale", {})
    check_names(scale, _SCALE, f"keys of [scale] in {path}")
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in scale.values())
    if not whole or ("jobs" in scale) == ("maximum_jobs" in scale):
        raise ConfigError(
            f"jobs = …, or minimum_jobs and maximum_jobs, under [scale] in {path}",
            repr(scale),
            "write [scale] with jobs = 10",
        )
    return found[0], content[found[0]], scale


def _call(token: str, code: bytes, task: Any) -> tuple[str, bytes, str]:
    """In a worker: the function is made once for a run, and what it keeps stays."""
    if token not in _FUNCTIONS:
        _FUNCTIONS.clear()
        try:
            _FUNCTIONS[token] = pickle.loads(code)
        except Exception as error:
            return "error", cloudpickle.dumps(RuntimeError(f"{type(error).__name__}: {error}")), ""
    return answer_to(_FUNCTIONS[token], task)


def _outcome(index: int, future: Any, attempts: int) -> Any:
    """The result of a future that is done, or the reason that there is none."""
    import distributed

    try:
        # Waits where the result was lost with the worker that kept it, and is made again.
        answer = future.result()
    except distributed.KilledWorker as error:
        return TaskFailure.of_death(index, f"at {error.last_worker.address} died", attempts)
    except (CancelledError, distributed.client.FutureCancelledError):
        return TaskFailure.of_death(index, "was lost with the connection to the scheduler", attempts)
    except Exception as error:
        return TaskFailure.of_error(index, error, "", attempts)
    return outcome_of(index, answer, attempts)
