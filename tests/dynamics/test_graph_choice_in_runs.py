"""Runs, and what else steps, with the choice about CUDA graphs: recorded, and kept by a run that goes on."""

from __future__ import annotations

import pytest
from graph_faults import FASTER, SLOWER, files

from mlmm.bench.step_cost import measure_step
from mlmm.dynamics import graph_choice, simulate
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.runner import Runner
from mlmm.dynamics.stages import Equilibrate, Produce
from mlmm.report.zones import _setup
from mlmm.validation import time_steps


@pytest.fixture
def runs(monkeypatch):
    """Whether each run that begins or goes on records graphs."""
    seen = []

    class Seen(Runner):
        def __init__(self, hybrid, *rest):
            seen.append(hybrid.cuda_graphs)
            super().__init__(hybrid, *rest)

    monkeypatch.setattr(simulate, "Runner", Seen)
    return seen


def run(hybrid, folder, length, **options):
    options = {"platform": "CPU", "threads": 1, "seed": 3} | options
    stages = [Equilibrate("2 fs"), Produce(length)]
    return simulate.simulate(hybrid, folder, stages, timestep="0.5 fs", **options)


@pytest.mark.parametrize(("times", "taken"), [(FASTER, True), (SLOWER, False)])
def test_a_run_records_its_choice_and_goes_on_with_it(times, taken, small, measured, takes, runs, tmp_path):
    """Whatever the cache says meanwhile; on another device, or without a choice, it is made anew."""
    takes(times)
    first = run(small, tmp_path / "run", "4 fs")
    facts = first.summary["embedding"]["cuda_graphs"]
    assert facts["taken"] is taken and first.read_checkpoint().summary["embedding"]["cuda_graphs"] == facts
    assert "CUDA graphs" in first.file("run.log").read_text()
    assert ("CUDA graphs", f"{'taken' if taken else 'not taken'}: {facts['reason']}") in _setup(first.summary)
    for path in files():
        path.unlink()
    takes(times[::-1])
    second = run(small, tmp_path / "run", "8 fs", resume=True)
    assert runs == [taken, taken] and len(measured) == 1
    assert second.summary["embedding"]["cuda_graphs"] == facts
    assert "(as the run began)" in second.file("run.log").read_text()
    # Another run has no record to keep to.
    run(small, tmp_path / "other", "4 fs")
    assert runs[2:] == [not taken] and len(measured) == 2


def test_a_run_on_another_device_is_asked_anew(small, measured, takes, runs, monkeypatch, tmp_path):
    takes(FASTER)
    run(small, tmp_path / "run", "4 fs")
    takes(SLOWER)
    monkeypatch.setattr(graph_choice, "device_name", lambda platform: "another card")
    run(small, tmp_path / "run", "8 fs", resume=True)
    assert runs == [True, False] and len(measured) == 2


def test_a_run_of_a_version_without_graphs_goes_on_without(
    small, measured, takes, runs, tmp_path, monkeypatch
):
    takes(FASTER)
    with monkeypatch.context() as patch:
        patch.setattr(simulate, "choose_graphs", lambda hybrid, platform, record=None: (hybrid, None))
        run(small, tmp_path / "run", "4 fs")
    read = RunDirectory.read_checkpoint

    def older(self, **options):
        checkpoint = read(self, **options)
        if "cuda_graphs" in checkpoint.summary["embedding"] and not runs[1:]:
            del checkpoint.summary["embedding"]["cuda_graphs"]
        return checkpoint

    monkeypatch.setattr(RunDirectory, "read_checkpoint", older)
    for length in ("8 fs", "12 fs"):
        again = run(small, tmp_path / "run", length, resume=True)
        assert "a version that had none" in again.summary["embedding"]["cuda_graphs"]["reason"]
    assert runs == [False, False, False] and not measured
    run(small, tmp_path / "other", "4 fs")
    assert runs[3:] == [True]


def test_a_run_begun_elsewhere_is_asked_on_cuda(small, measured, takes, runs, monkeypatch, tmp_path):
    """Where there was nothing to choose, the record says so, and a choice outlives a stay elsewhere."""
    takes(FASTER)
    begun = run(small, tmp_path / "run", "4 fs", platform="Reference")
    assert begun.summary["embedding"]["cuda_graphs"] is None and not measured
    run(small, tmp_path / "run", "6 fs", resume=True)
    run(small, tmp_path / "run", "8 fs", resume=True, platform="Reference")
    takes(SLOWER)
    run(small, tmp_path / "run", "10 fs", resume=True)
    assert runs == [False, True, False, True] and len(measured) == 1


def test_what_is_timed_and_what_judges_time_steps_is_what_runs(small, measured, takes, monkeypatch):
    takes(FASTER)
    options = {"platform": "CPU", "threads": 1}
    cost = measure_step(small, Produce("1 ps"), simulate.RunOptions(**options), rounds=1, minimise=0)
    assert cost.system["cuda_graphs"] and len(measured) == 1
    given = []
    monkeypatch.setattr(
        time_steps, "judge_settings", lambda system_for, *_, **__: given.append(system_for(False))
    )
    time_steps.scan_time_steps(small, **options)
    assert given[0] is not small.system
    takes(SLOWER)
    for path in files():
        path.unlink()
    time_steps.scan_time_steps(small, **options)
    assert given[1] is small.system
