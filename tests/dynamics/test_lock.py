"""One process at a time in a run directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from runs import CrashError, crash_at, results, run_in

from mlmm.dynamics.lock import LOCK, check_unlocked, locked
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError

HOLD = """
import sys, time, pathlib
from mlmm.dynamics.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lock of tmp_path/run, where a run was interrupted."""
    with pytest.raises(CrashError):
        run_in(tmp_path / "run", progress=crash_at("produce", 30))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_second_process_is_refused_by_name(tmp_path, other_process, how):
    run = RunDirectory(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    expected = f"in use by process {other_process.pid} on {socket.gethostname()}"
    with pytest.raises(ConfigError, match=expected):
        run_in(run.path, **how)
    with pytest.raises(ConfigError, match=expected):
        RunDirectory.check_free(run.path, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_the_lock_of_a_killed_process_locks_nothing(tmp_path, other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert (tmp_path / "run" / LOCK).exists()
    resumed = run_in(tmp_path / "run", resume=True)
    assert results(resumed) == results(run_in(tmp_path / "whole"))
    assert not resumed.file(LOCK).exists()


def test_two_runs_of_one_process_are_kept_apart(tmp_path):
    def again(now):
        if now.stage == "produce":
            with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
                run_in(tmp_path / "run", resume=True)

    assert run_in(tmp_path / "run", progress=again).state == "finished"


def test_of_many_processes_one_at_a_time_holds_the_lock(tmp_path):
    """The lock file is removed with every release: nobody may hold a lock on a file that is gone."""
    code = f"""
import os, pathlib, time
from mlmm.dynamics.lock import locked
from mlmm.errors import ConfigError
folder, done, end = pathlib.Path({str(tmp_path)!r}), 0, time.monotonic() + 3
while time.monotonic() < end:
    try:
        with locked(folder):
            os.mkdir(folder / "inside")  # fails if somebody else is there
            time.sleep(0.0002)
            os.rmdir(folder / "inside")
            done += 1
    except ConfigError:
        pass
print(done)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = [process.communicate()[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sum(map(int, printed)) > 50


def test_looking_does_not_lock(tmp_path):
    check_unlocked(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / LOCK).write_text("what a killed run left")
    check_unlocked(tmp_path)
    with locked(tmp_path), pytest.raises(ConfigError, match="in use by process"):
        check_unlocked(tmp_path)
