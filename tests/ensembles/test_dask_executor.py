"""Dask: a cluster on this machine, one that runs already, and job scripts of a queue."""

from __future__ import annotations

import os

import executor_tasks
import pytest

from mlmm.ensembles.dask_cluster import read_cluster, start_cluster
from mlmm.ensembles.executors import TaskFailure, open_executor, run_all
from mlmm.errors import ConfigError


@pytest.fixture(scope="module")
def executor():
    with open_executor(workers=2, scheduler="dask") as opened:
        yield opened


@pytest.mark.slow
def test_results_errors_and_progress(executor):
    seen = []
    found = dict(executor.run(executor_tasks.fail, range(5), progress=lambda *now: seen.append(now)))
    assert {n: found[n] for n in (0, 3, 4)} == {0: 0, 3: 3, 4: 4}
    assert not found[1].died and isinstance(found[1].error, ValueError) and found[1].attempts == 1
    assert "executor_tasks" in found[1].traceback and not found[2].died
    assert seen == [(n, 5) for n in range(1, 6)]
    assert executor.workers == 2


@pytest.mark.slow
def test_dead_workers_lose_one_task(executor, tmp_path):
    """One task kills its worker once, another always; all others end."""
    deaths = {3: 1, 5: 99}
    tasks = [(str(tmp_path), n, deaths.get(n, 0)) for n in range(8)]
    found = dict(executor.run(executor_tasks.die, tasks, retries=3))
    failure = found.pop(5)
    assert found == {n: n for n in range(8) if n != 5}
    assert isinstance(failure, TaskFailure) and failure.died and failure.attempts == 4
    assert "Task 5 was lost" in failure.sentence


@pytest.mark.slow
@pytest.mark.parametrize("retries", [1, 2])
def test_tasks_beside_one_that_always_kills_are_not_lost(tmp_path, retries):
    """All wait at one worker, which dies again and again: Dask fails those that wait there as well."""
    tasks = [(str(tmp_path), n, 0 if n else 99) for n in range(6)]
    with open_executor(workers=1, scheduler="dask") as executor:
        found = dict(executor.run(executor_tasks.die, tasks, retries=retries))
    failure = found.pop(0)
    assert found == {n: n for n in range(1, 6)} and failure.died and failure.attempts == 1 + retries
    assert len(list(tmp_path.glob("0.*"))) == 1 + retries


@pytest.mark.slow
def test_scheduler_that_runs_is_used(executor):
    """Its workers outlive the executor that used them."""
    address = executor._client.scheduler.address
    for _ in range(2):
        with open_executor(scheduler=address) as other:
            assert run_all(other, executor_tasks.square, [3, 4]) == [9, 16]


def test_workers_of_many_threads_are_fewer(monkeypatch):
    """Under Dask as without it: cores are not handed out twice."""

    def stop(**arguments):
        raise RuntimeError(arguments["n_workers"], arguments["env"]["OMP_NUM_THREADS"])

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("distributed.LocalCluster", stop)
    with pytest.raises(RuntimeError, match="2, '4'"), open_executor(scheduler="dask", threads=4):
        pass


def test_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr("mlmm.ensembles.dask_cluster._ANSWER", "1s")
    with (
        pytest.raises(ConfigError, match=r"a Dask scheduler at tcp://127\.0\.0\.1:9"),
        open_executor(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


_SLURM = """
[slurm]
queue = "normal"
cores = 1
processes = 1
memory = "2 GB"
walltime = "00:10:00"
job_script_prologue = ["export OMP_NUM_THREADS=1"]
[scale]
jobs = 1
"""
_SBATCH = """#!/bin/sh
# A queue that starts each job at once, and says its number as sbatch does. The script is gone once it has
# answered, as for sbatch, which keeps a copy.
cp "$1" "$FAKE_QUEUE/script"
bash "$FAKE_QUEUE/script" >"$FAKE_QUEUE/log" 2>&1 &
echo $! >>"$FAKE_QUEUE/jobs"
echo "Submitted batch job $!"
"""


@pytest.mark.slow
def test_queue_runs_tasks(tmp_path, monkeypatch):
    """SLURM, played by two shell scripts: the job script that dask-jobqueue writes does start workers."""
    for name, text in (("sbatch", _SBATCH), ("scancel", "#!/bin/sh\nkill $1 2>/dev/null || true\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_QUEUE", str(tmp_path))
    (tmp_path / "cluster.toml").write_text(_SLURM)
    with open_executor(scheduler=str(tmp_path / "cluster.toml")) as executor:
        # A lambda goes by value: the workers of a queue know nothing of this folder.
        found = run_all(executor, lambda _: (os.environ["OMP_NUM_THREADS"], os.getpid()), [0])
    assert found[0][0] == "1" and found[0][1] != os.getpid()
    assert len((tmp_path / "jobs").read_text().split()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[slurm", "in TOML"),
        ("[scale]\njobs = 1", "none. Write \\[slurm\\]"),
        ("[slurn]\n[scale]\njobs = 1", "slurn"),
        ("[slurm]\n[pbs]\n[scale]\njobs = 1", "slurm, pbs"),
        ("[slurm]\ncores = 1", "Write \\[scale\\] with jobs"),
        ("[slurm]\n[scale]\njobs = 1\nmaximum_jobs = 2", "under \\[scale\\]"),
        ("[slurm]\n[scale]\njob = 1", "Did you mean 'jobs'"),
    ],
)
def test_bad_cluster_files(tmp_path, text, said):
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_cluster(path)


def test_arguments_that_dask_jobqueue_refuses(tmp_path, monkeypatch):
    def refuse(**arguments: object) -> None:
        raise TypeError(f"unexpected {sorted(arguments)[0]}")

    monkeypatch.setattr("dask_jobqueue.SLURMCluster", refuse)
    path = tmp_path / "cluster.toml"
    path.write_text("[slurm]\nqueues = 1\n[scale]\njobs = 1\n")
    with pytest.raises(ConfigError, match=r"SLURMCluster in .*\[slurm\], but got unexpected queues"):
        start_cluster(path)
