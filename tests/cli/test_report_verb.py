"""``mlmm report``: verdicts on the terminal, one page for each run, a further one for several."""

from __future__ import annotations

import json

import numpy as np
import pytest
from frames import make_run, make_topology, start_positions

from mlmm.cli import main


@pytest.fixture
def runs(tmp_path):
    frames = np.repeat(start_positions(make_topology())[None], 3, axis=0)
    for name, facts in (
        ("good", {}),
        ("bad", {"state": "failed", "message": "NaN at step 5", "stage": "produce"}),
    ):
        (tmp_path / name).mkdir()
        make_run(tmp_path / name, frames, **facts)
    return tmp_path


def test_the_verdict_is_printed(runs, capsys):
    assert main(["report", str(runs / "good")]) == 0
    printed = capsys.readouterr().out
    assert "Nothing speaks against this run, judged by 2 points." in printed
    assert "ok    bonds" in printed and "none broken of 55 bonds in 3 frames" in printed
    assert "-     energy drift  not measured: no NVE stage" in printed and "→ add nve" in printed
    assert f"report: {runs / 'good' / 'report.html'}" in printed and "comparison" not in printed
    assert main(["report", str(runs / "bad")]) == 0
    printed = capsys.readouterr().out
    assert "Do not use this run before the cause is found." in printed
    assert "bad   run           failed in stage produce" in printed and "NaN at step 5" in printed


def test_several_runs_are_compared(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert main(["report", "good", "bad"]) == 0
    assert "comparison: comparison.html" in capsys.readouterr().out
    assert all((runs / name).exists() for name in ("comparison.html", "good/report.html", "bad/report.html"))
    assert main(["report", "good", "bad", "--out", "other.html"]) == 0
    assert (runs / "other.html").read_text() == (runs / "comparison.html").read_text()


def test_wrong_arguments_are_sentences(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    for arguments, words in (
        (["good", "--out", "x.html"], "two or more runs with --out"),
        (["good", "good"], "two or more different runs"),
        (["good", "nowhere"], "a run directory with a run.json"),
        (["good", "bad", "--out", "bad/run.json"], "a new file for the page"),
    ):
        assert main(["report", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert json.loads((runs / "bad/run.json").read_text())["state"] == "failed"
