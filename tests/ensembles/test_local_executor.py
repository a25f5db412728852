"""Worker processes on this machine: order, deaths, errors, pinning, and who ends whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import executor_tasks
import pytest

from mlmm.ensembles.executors import TaskFailure, open_executor, run_all
from mlmm.ensembles.options import ExecutorOptions
from mlmm.errors import ConfigError


@pytest.fixture(scope="module")
def executor():
    with open_executor(workers=2) as opened:
        yield opened


def test_every_task_is_answered_once_and_progress_counts(executor):
    seen = []
    found = dict(executor.run(executor_tasks.square, range(20), progress=lambda *now: seen.append(now)))
    assert found == {n: n * n for n in range(20)}
    assert seen == [(n, 20) for n in range(1, 21)]


def test_results_come_as_they_complete(executor, tmp_path):
    """The first task waits for a file that is written once the others are done."""
    last = str(tmp_path / "last")
    done = []
    for index, _ in executor.run(_wait_or_go, [last, "", "", ""]):
        done.append(index)
        if len(done) == 3:
            Path(last).touch()
    assert done[-1] == 0


def _wait_or_go(path: str) -> None:
    if path:
        executor_tasks.wait_for(path)


def test_closures_are_sent_by_value(executor):
    offset = 7
    assert run_all(executor, lambda number: number + offset, [1, 2]) == [8, 9]


def test_function_is_sent_once_to_each_worker(executor):
    """What a function keeps stays with the worker: six tasks need two copies of it at most."""
    found = run_all(executor, _Counter(), range(6))
    # Each copy counts from one: with k copies the counts of one value are k at most.
    assert sum(found.count(n) > 2 for n in set(found)) == 0 and max(found) >= 3


class _Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, _: int) -> int:
        self.calls += 1
        return self.calls


def test_dead_worker_loses_one_task_which_is_tried_again(executor, tmp_path):
    tasks = [(str(tmp_path), n, 1 if n == 3 else 0) for n in range(8)]
    assert dict(executor.run(executor_tasks.die, tasks, retries=2)) == {n: n for n in range(8)}
    tried = {n: len(list(tmp_path.glob(f"{n}.*"))) for n in range(8)}
    assert tried == {n: 2 if n == 3 else 1 for n in range(8)}  # no other task ran twice
    # control: without another try it is lost.
    ((_, lost),) = executor.run(executor_tasks.die, [(str(tmp_path), 8, 1)], retries=0)
    assert isinstance(lost, TaskFailure) and lost.died


def test_task_that_always_kills_ends_as_a_failure_and_the_rest_go_on(executor, tmp_path):
    tasks = [(str(tmp_path), n, 99 if n == 2 else 0) for n in range(6)]
    found = dict(executor.run(executor_tasks.die, tasks, retries=1))
    failure = found.pop(2)
    assert found == {n: n for n in (0, 1, 3, 4, 5)}
    assert isinstance(failure, TaskFailure) and failure.died and failure.attempts == 2
    assert "Task 2 was lost" in failure.sentence and "SIGKILL" in failure.sentence
    assert len(list(tmp_path.glob("2.*"))) == 2
    with pytest.raises(ConfigError, match="Task 0 was lost"):
        run_all(executor, executor_tasks.die, [(str(tmp_path), 2, 99)], retries=0)


def test_worker_that_ends_itself_says_its_status(executor):
    ((_, failure),) = executor.run(os._exit, [3], retries=0)
    assert failure.died and "ended with status 3" in failure.sentence


def test_exceptions_are_told_from_deaths_and_not_tried_again(executor):
    found = dict(executor.run(executor_tasks.fail, [0, 1, 2, 3]))
    assert found[0] == 0 and found[3] == 3
    assert not found[1].died and isinstance(found[1].error, ValueError) and found[1].attempts == 1
    assert "line" in found[1].traceback and "executor_tasks" in found[1].traceback
    # An exception that cannot be sent arrives as its text.
    assert isinstance(found[2].error, RuntimeError) and "OddError: cannot be sent" in str(found[2].error)
    with pytest.raises(ValueError, match="one is not allowed"):
        run_all(executor, executor_tasks.fail, [0, 1])
    # An error of ours keeps its parts.
    ((_, failure),) = executor.run(_refuse, [0])
    assert isinstance(failure.error, ConfigError) and failure.error.do == "c"


def _refuse(_: int) -> None:
    raise ConfigError("a", "b", "c")


def test_results_that_cannot_be_sent_are_failures(executor):
    ((_, failure),) = executor.run(lambda _: (n for n in range(3)), [0])
    assert not failure.died and "generator" in failure.sentence


def test_run_that_is_left_early_ends_what_it_started(executor, tmp_path):
    never = str(tmp_path / "never")
    for index, _ in executor.run(_wait_or_go, ["", never, never]):
        assert index == 0
        _wait(lambda: list(tmp_path.glob("never.*")), 1)
        break
    assert not any(_alive(int(mark.suffix[1:])) for mark in tmp_path.glob("never.*"))
    assert run_all(executor, executor_tasks.square, [5]) == [25]


def test_workers_go_on_while_a_result_is_used(tmp_path):
    """One worker: its next task begins before the caller asks for more."""
    never = str(tmp_path / "never")
    with open_executor(workers=1) as executor:
        for index, _ in executor.run(_wait_or_go, ["", never]):
            assert index == 0
            _wait(lambda: list(tmp_path.glob("never.*")), 1)
            break


def test_second_run_at_the_same_time_is_refused(executor):
    first = executor.run(executor_tasks.square, [1, 2])
    next(first)
    with pytest.raises(ConfigError, match="one run of an executor at a time"):
        next(executor.run(executor_tasks.square, [1]))
    assert len(list(first)) == 1


def test_no_tasks(executor):
    assert list(executor.run(executor_tasks.square, [])) == []


def test_threads_are_pinned_and_gpus_dealt_out():
    with open_executor(workers=2, threads=3, gpus=("4", "7")) as executor:
        found = run_all(executor, executor_tasks.surroundings, range(4))
    by_process = {process: (threads, gpu) for threads, gpu, process in found}
    assert sorted(by_process.values()) == [("3", "4"), ("3", "7")]


def test_workers_end_with_the_executor(tmp_path):
    with open_executor(workers=2) as executor:
        processes = {process for *_, process in run_all(executor, executor_tasks.surroundings, range(4))}
    assert len(processes) == 2 and not any(map(_alive, processes))


def test_worker_that_cannot_start_is_said(monkeypatch):
    monkeypatch.setattr("mlmm.ensembles.local_processes._PROGRAM", "raise SystemExit(5)")
    with (
        open_executor(workers=1) as executor,
        pytest.raises(ConfigError, match="3 in a row of which each ended with status 5"),
    ):
        run_all(executor, executor_tasks.square, [1])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_parent_does(tmp_path, end):
    """Killed or interrupted from the keyboard in the middle of tasks that would never end."""
    mark = tmp_path / "never"
    program = (
        # A shell without a terminal starts its children with Ctrl-C ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import executor_tasks\n"
        "from mlmm.ensembles.executors import open_executor\n"
        "with open_executor(workers=2) as executor:\n"
        f"    list(executor.run(executor_tasks.wait_for, [{str(mark)!r}] * 2))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    try:
        processes = _wait(lambda: [int(p.suffix[1:]) for p in tmp_path.glob("never.*")], 2)
        assert all(map(_alive, processes))
        parent.send_signal(end)
        errors = parent.communicate(timeout=60)[1].decode()
        assert parent.returncode == -end or "KeyboardInterrupt" in errors
        _wait(lambda: [p for p in processes if not _alive(p)], 2)
    finally:
        parent.kill()


def _wait(find, count: int):
    """Poll until `find` gives that many; a limit that only a broken program reaches."""
    deadline = time.monotonic() + 60
    while len(found := find()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": -1}, "workers of 0 or more"),
        ({"scheduler": "node1"}, "cluster.toml"),
        ({"scheduler": "dask", "gpus": ("0",)}, "GPU ids without a scheduler"),
        ({"worker": 2}, "Did you mean 'workers'"),
    ],
)
def test_bad_options(changes, said):
    with pytest.raises(ConfigError, match=said), open_executor(**changes):
        pass


def test_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    asked = [ExecutorOptions(threads=3), ExecutorOptions(threads=9), ExecutorOptions(workers=5, threads=3)]
    assert [options.processes for options in asked] == [2, 1, 5]


def test_options_explain_themselves():
    assert "dask-jobqueue" in (ExecutorOptions.__doc__ or "")
