"""For tests of CUDA graphs, which ask about the CPU platform as if it were CUDA."""

from __future__ import annotations

import pytest
from graph_faults import make

from mlmm.dynamics import graph_choice


@pytest.fixture
def small(dipeptide_vacuum):
    return make(dipeptide_vacuum)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Ask about the CPU platform, with a cache of its own; returns what was measured."""
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(graph_choice, "GRAPH_PLATFORM", "CPU")
    calls, measure = [], graph_choice.measure_graphs

    def counted(hybrid, platform):
        calls.append(hybrid)
        return measure(hybrid, platform)

    monkeypatch.setattr(graph_choice, "measure_graphs", counted)
    return calls


@pytest.fixture
def takes(monkeypatch):
    """Set how long an evaluation takes, without and with a graph, ms."""

    def put(times):
        monkeypatch.setattr(graph_choice, "evaluation_times", lambda sides: times)

    return put
