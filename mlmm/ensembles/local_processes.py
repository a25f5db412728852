"""Worker processes on this machine, one task at a time each.

`concurrent.futures.ProcessPoolExecutor` gives up all tasks when one process dies. Here each worker has a
socket of its own, so that it is known which task a dead one had.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import cloudpickle

from mlmm.ensembles.options import ExecutorOptions
from mlmm.ensembles.tasks import ProgressHook, TaskFailure, outcome_of
from mlmm.errors import ConfigError

__all__ = ["LocalExecutor"]

#: Libraries read these when they are loaded, so that they are set before a worker starts.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENMM_CPU_THREADS",
)
#: No __main__ is imported again, so that a script needs no guard.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from mlmm.ensembles.worker import main; main(int(sys.argv[1]))"
)
_PATIENCE = 5.0  # seconds that an idle worker has to end
_STARTS = 3  # workers in a row that may die before they are ready


class LocalExecutor:
    """Workers started as they are needed and kept until `close`.

    Parameters
    ----------
    options : ExecutorOptions

    Raises
    ------
    ConfigError
        On Windows, where a socket cannot be handed to a process in this way.
    """

    def __init__(self, options: ExecutorOptions):
        if sys.platform == "win32":
            raise ConfigError("Linux or macOS for worker processes", "Windows", 'write scheduler = "dask"')
        self._options = options
        self._most = options.processes
        self._workers: list[_Worker | None] = [None] * self._most
        self._running = False

    @property
    def workers(self) -> int:
        return self._most

    def run(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        *,
        retries: int | None = None,
        progress: ProgressHook | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """See `mlmm.ensembles.executors.Executor.run`."""
        if self._running:
            raise ConfigError(
                "one run of an executor at a time", "a second one", "end the first, or open another executor"
            )
        self._running = True
        tries = 1 + (self._options.retries if retries is None else retries)
        code = cloudpickle.dumps(function)
        token = object()
        waiting = deque(range(len(tasks)))
        attempts = [0] * len(tasks)
        done, failed_starts = 0, 0
        try:
            while done < len(tasks):
                self._hand_out(waiting, tasks, attempts, code, token)
                for worker in self._answering():
                    index, answer = worker.task, worker.answer()
                    if answer == "ready":
                        failed_starts = 0
                        continue
                    if answer is None:
                        self._forget([worker])
                        reason = worker.reason()
                        if index is None:
                            failed_starts += not worker.ready
                            if failed_starts >= _STARTS:
                                raise _no_start(reason)
                            continue
                        if attempts[index] < tries:
                            waiting.append(index)
                            continue
                        outcome: Any = TaskFailure.of_death(index, reason, attempts[index])
                    else:
                        assert index is not None
                        outcome = outcome_of(index, answer, attempts[index])
                    done += 1
                    if progress is not None:
                        progress(done, len(tasks))
                    # Nobody waits while the caller uses what it gets.
                    self._hand_out(waiting, tasks, attempts, code, token)
                    yield index, outcome
        finally:
            # Left early: what they are doing is of no use any more.
            self._end([worker for worker in self._alive() if worker.task is not None], at_once=True)
            self._running = False

    def close(self, *, at_once: bool = False) -> None:
        self._end(self._alive(), at_once)

    def _end(self, workers: Sequence[_Worker], at_once: bool) -> None:
        self._forget(workers)
        for worker in workers:
            worker.end(at_once)
        deadline = time.monotonic() + _PATIENCE
        for worker in workers:
            worker.wait_until(deadline)

    def _hand_out(
        self, waiting: deque[int], tasks: Sequence[Any], attempts: list[int], code: bytes, token: object
    ) -> None:
        """Give a task to each idle worker, and start workers for the others."""
        idle = [worker for worker in self._alive() if worker.task is None]
        to_start = len(waiting) - len(idle)
        for place, worker in enumerate(self._workers):
            if to_start <= 0:
                break
            if worker is None:
                gpus = self._options.gpus
                gpu = gpus[place % len(gpus)] if gpus else None
                self._workers[place] = _Worker(self._options.threads, gpu)
                to_start -= 1
        for worker in idle:
            if waiting and worker.ready:
                index = waiting[0]
                # A worker found dead stays idle here; its socket tells the rest.
                if worker.send(index, None if worker.token is token else code, tasks[index]):
                    worker.token = token
                    attempts[index] += 1
                    waiting.popleft()

    def _answering(self) -> list[_Worker]:
        """Workers that have something to say, their death included; waits for one."""
        by_socket: dict[Any, _Worker] = {worker.socket: worker for worker in self._alive()}
        return [by_socket[socket] for socket in wait(list(by_socket))]

    def _alive(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker is not None]

    def _forget(self, workers: Sequence[_Worker]) -> None:
        """Leave the places of some workers to new ones."""
        self._workers = [None if worker in workers else worker for worker in self._workers]


class _Worker:
    """One process with its socket and the task that it has."""

    def __init__(self, threads: int, gpu: str | None):
        ours, theirs = Pipe()
        environment = os.environ | {name: str(threads) for name in _THREADS}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path)]
        # Its standard input closes with this process, however that ends.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, env=environment, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self.socket: Connection = ours
        self.task: int | None = None
        self.token: object = None
        self.ready = False

    def send(self, index: int, code: bytes | None, task: Any) -> bool:
        """Hand over a task; False where the process is no more."""
        content = cloudpickle.dumps(task)
        try:
            self.socket.send((code, content))
        except OSError:
            return False
        self.task = index
        return True

    def answer(self) -> Any:
        """An answer that is there; None where the process died."""
        try:
            answer = self.socket.recv()
        except (EOFError, OSError):
            return None
        if answer == "ready":
            self.ready = True
        else:
            self.task = None
        return answer

    def reason(self) -> str:
        """How a process ended that closed its socket."""
        self.end(at_once=False)
        status = self.wait_until(time.monotonic() + _PATIENCE)
        if status < 0:
            name = signal.Signals(-status).name
            return f"was killed by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
        return f"ended with status {status}"

    def end(self, at_once: bool) -> None:
        self.socket.close()
        if at_once:
            self.process.kill()

    def wait_until(self, deadline: float) -> int:
        """Wait for the end of the process, which is killed at the deadline; returns its status."""
        try:
            status = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        return status


def _no_start(reason: str) -> ConfigError:
    return ConfigError(
        "worker processes that start",
        f"{_STARTS} in a row of which each {reason} before it was ready",
        f"try `{sys.executable} -c 'import mlmm.ensembles.worker'`, and look at the lines above",
    )
