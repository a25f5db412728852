"""What is due after a step of a run on a GPU: one State for all, frames beside the run, looks where due."""

from __future__ import annotations

import errno
import signal
import threading

import openmm
import pytest
from runs import chain_hybrid, columns, results, run_in

from mlmm.dynamics import moments
from mlmm.dynamics.dcd_frames import DCDWriter
from mlmm.dynamics.imaging import RegionImages
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.stability_watch import StabilityWatch
from mlmm.dynamics.trajectory import TrajectoryWriter
from mlmm.errors import ConfigError, SimulationError
from mlmm.plugin.energies import take


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """Steps at which a run was looked at."""
    steps: list[int] = []
    plain = StabilityWatch.look

    def look(watch, stage, step, *rest):
        steps.append(step)
        plain(watch, stage, step, *rest)

    monkeypatch.setattr(StabilityWatch, "look", look)
    return steps


def test_all_that_is_due_shares_one_moment(tmp_path, monkeypatch):
    """A row, a frame and a look after a step by one call; without a GPU the row has one of its own."""
    taken: list[tuple[int, bool]] = []

    def counted(context, *groups, **what):
        taken.append((context.getStepCount(), bool(groups)))
        return take(context, *groups, **what)

    monkeypatch.setattr(moments, "take", counted)
    intervals = dict.fromkeys(("report_interval", "trajectory_interval"), 10) | {"checkpoint_interval": 1000}
    for gpu, states in ((True, 1), (False, 2)):
        taken.clear()
        monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform, own=gpu: own)
        run = run_in(tmp_path / str(gpu), length="50 fs", **intervals)
        assert run.read_checkpoint().frames == 10
        events = [step for step, _ in taken if step and step % 10 == 0]
        assert [events.count(step) for step in range(30, 100, 10)] == [states] * 7


def test_looks_are_taken_where_they_are_due(tmp_path, monkeypatch, seen):
    """On a GPU each 100 steps, for a frame, before a checkpoint and at the end; elsewhere at each event."""
    intervals = {"report_interval": 10, "trajectory_interval": 75, "checkpoint_interval": 120}
    for gpu in (True, False):
        seen.clear()
        monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform, own=gpu: own)
        run_in(tmp_path / str(gpu), length="130 fs", **intervals)
        produced = seen[seen.index(20) + 1 :] if gpu else seen
        if gpu:
            assert produced == [75, 100, 120, 150, 200, 225, 240, 260]
        else:
            assert set(range(10, 270, 10)) < set(produced)


def test_an_interrupted_run_is_looked_at_before_its_checkpoint(tmp_path, monkeypatch, seen):
    """Wherever it stops."""
    monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform: True)

    def stop(now):
        if now.stage == "produce" and now.done >= 36:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        run_in(tmp_path / "run", progress=stop, trajectory_interval=1000, checkpoint_interval=1000)
    run = RunDirectory(tmp_path / "run")
    assert run.state == "interrupted" and seen[-1] == run.read_checkpoint().step < 80


@pytest.mark.parametrize("gpu", [True, False])
def test_an_energy_that_is_not_finite_ends_the_run_with_the_same_words(tmp_path, monkeypatch, gpu):
    """Before the next checkpoint, and without the row."""
    monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform: gpu)
    plain = EnergyTable._with_sums

    def broken(table, head, row, kinetic):
        infinite = head[:2] == ("produce", "32")
        return plain(table, head, row | ({"E_torsions": float("inf")} if infinite else {}), kinetic)

    monkeypatch.setattr(EnergyTable, "_with_sums", broken)
    with pytest.raises(
        SimulationError, match="finite energies, but got inf kJ/mol at step 32 of stage produce"
    ):
        run_in(tmp_path / "run", checkpoint_interval=50)
    run = RunDirectory(tmp_path / "run")
    assert run.state == "failed" and (run.read_checkpoint().stage, run.read_checkpoint().step) == (2, 0)
    assert columns(run)["step"][-1] == "28"


def test_frames_are_written_while_steps_go_on(tmp_path, monkeypatch):
    """In order, with the bytes of a writer that each frame waits for."""
    gate, hybrid = threading.Event(), chain_hybrid(box=2.1)
    context = openmm.Context(
        hybrid.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    plain = RegionImages.gather
    monkeypatch.setattr(RegionImages, "gather", lambda own, *frame: gate.wait(60.0) and plain(own, *frame))
    written = []
    for beside in (True, False):
        (tmp_path / str(beside)).mkdir()
        path = tmp_path / str(beside) / "trajectory.dcd"
        writer = TrajectoryWriter(path, hybrid, 0.001, 10, beside=beside)
        for k in range(3):
            context.setPositions(hybrid.built.positions + 0.01 * k)
            writer.write(context)
        assert gate.is_set() != beside
        gate.set()
        assert writer.sizes == {"trajectory.dcd": path.stat().st_size} and writer.frames == 3
        writer.close()
        written.append(path.read_bytes()[276:])
    assert written[0] == written[1] and len(written[0]) > 3 * 12 * hybrid.built.n_atoms


def test_a_full_disk_is_told_to_the_run(tmp_path, monkeypatch):
    """As the error that says how to go on; the run is resumed from the checkpoint before it."""
    monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform: True)
    whole = run_in(tmp_path / "whole")
    count, plain = iter(range(100)), DCDWriter.write

    def full(writer, *frame):
        if next(count) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(writer, *frame)

    with monkeypatch.context() as patch:
        patch.setattr(DCDWriter, "write", full)
        with pytest.raises(ConfigError, match=r"No space left on device.*--resume"):
            run_in(tmp_path / "run")
    assert RunDirectory(tmp_path / "run").state == "failed"
    assert results(run_in(tmp_path / "run", resume=True)) == results(whole)
