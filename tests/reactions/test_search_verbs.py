"""The verbs of searches: HCN to HNC from a scan to a free energy, interruptions, reports, and bad input."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from hydrogen_cyanide import CYANIDE, SCAN

import mlmm.reactions.irc
from mlmm.cli import main
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError
from mlmm.reactions.run import load_arrays, run_search
from mlmm.reactions.surface import Evaluation, ReactionSurface

RUN_FILE = f"""{SCAN}
[neb]
images = 5
interpolation = "given"

[ts]
expected = ["turn"]

[irc]
step = "0.02 nm"

[freq]
temperatures = ["300 K", "500 K"]
isotopes = {{"element H" = 2.014}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "hcn.xyz").write_text(CYANIDE)
    (tmp_path / "my.toml").write_text(RUN_FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts(path) -> dict:
    return json.loads((path / "run.json").read_text())


def test_from_a_scan_to_a_free_energy_of_activation(folder, capsys, monkeypatch):
    """Each verb takes over where the one before ended; the TS is that of a bent H between C and N."""
    chain = [
        ["scan", "my.toml", "--out", "scan"],
        ["neb", "my.toml", "--from", "scan", "--out", "neb"],
        ["ts", "my.toml", "--from", "neb", "--out", "ts"],
        ["irc", "my.toml", "--from", "ts", "--out", "irc"],
        ["freq", "my.toml", "--set", "freq.structure=irc/minimum_reverse.xyz", "--out", "r"],
        ["freq", "my.toml", "--from", "ts", "--set", "freq.reference=r", "--out", "barrier"],
    ]
    for words in chain:
        assert main(words) == 0, words
    results = {words[-1]: facts(folder / words[-1])["result"] for words in chain}
    top = results["ts"]
    assert top["converged"] and len(top["imaginary"]) == 1 and abs(top["overlaps"]["turn"]) > 0.5
    assert top["judgement"]["level"] == "ok"
    assert results["neb"]["converged"] and results["irc"]["monotone"]
    depths = sorted(end["depth"] for end in results["irc"]["ends"])
    # Reverse is where the variable is smaller, as scan and path begin, whatever sign the mode has.
    sides = [results["irc"][f"variables_{side}"]["turn"]["value"] for side in ("reverse", "forward")]
    assert sides[0] < top["variables"]["turn"]["value"] < sides[1] and top["overlaps"]["turn"] > 0
    modes = mlmm.reactions.irc.normal_modes
    monkeypatch.setattr(mlmm.reactions.irc, "normal_modes", lambda *a, **k: modes(*a, **k).turned())
    assert main(["irc", "my.toml", "--from", "ts", "--out", "turned"]) == 0
    again = facts(folder / "turned")["result"]
    assert again["variables_reverse"]["turn"]["value"] == pytest.approx(sides[0], abs=1e-6)
    found = results["barrier"]["barriers"]
    assert [row["temperature"] for row in found] == [300.0, 500.0]
    assert min(abs(found[0]["energy"] - depth) for depth in depths) < 0.05
    assert results["neb"]["barrier"] == pytest.approx(found[0]["energy"], abs=2.0)
    assert found[0]["rate"] < found[1]["rate"] and found[0]["isotopes"] > 1.1
    assert found[0]["zero_point"] < found[0]["energy"]
    # A method of two halves of a second derivative that agree, and no committee.
    assert 0.0 < found[0]["error"] < 1.0 and "potential" not in found[0]["error_parts"]
    # Bonds of the TS: H lies between C and N, nearer to C.
    turn = top["variables"]["turn"]["value"]
    assert -0.05 < turn < 0.05
    for words in chain:
        page = (folder / words[-1] / "report.html").read_text()
        assert "3Dmol" in page and "Expected" not in page.split("<script")[0]
    capsys.readouterr()
    assert main(["report", "ts", "barrier"]) == 0
    said = capsys.readouterr().out
    assert "one imaginary mode" in said and f"ΔG‡ at 300 K {found[0]['quasi_gibbs']:.1f} ± " in said


def test_settings_and_kinds_of_a_run_that_goes_on_are_its_own(folder, capsys):
    short = [
        "scan",
        "my.toml",
        "--out",
        "a",
        "--set",
        "scan.points=[2]",
        "--set",
        'scan.directions="forward"',
    ]
    assert main(short) == 0
    assert main(short) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*short, "--resume", "--set", "scan.force_tolerance=1 kJ/mol/nm"]) == 2
    assert "scan.force_tolerance = 1" in capsys.readouterr().err
    assert main(["ts", "my.toml", "--out", "a", "--resume", "--from", "a"]) == 2
    assert "a run of mlmm ts" in capsys.readouterr().err
    before = facts(folder / "a")["cost"]["calls"]
    assert main([*short, "--resume"]) == 0
    assert facts(folder / "a")["cost"]["calls"] == before


@pytest.mark.parametrize(
    "words, said",
    [
        (["scan", "--set", "scan.variables=none"], "'none'"),
        (["scan", "--set", "scan.points=[1]"], "two different values"),
        (["scan", "--set", 'scan.start=["-0.08"]'], "without a unit"),
        (["scan", "--set", "surface.molecule=no.xyz"], "no file no.xyz"),
        (
            ["scan", "--set", 'variable.turn.groups=["element H", "name XX", "element H", "element N"]'],
            "matches none",
        ),
        (["scan", "--set", "surface.multiplicity=2"], "multiplicity"),
        (["neb"], "two ends"),
        (["ts"], "a guess to begin from"),
        (["irc"], "a transition state to begin from"),
        (["freq", "--set", "freq.temperatures=300"], 'temperatures = ["300 K"]'),
        (["freq", "--set", 'freq.isotopes={"name ZZ" = 2.0}'], "matches none"),
        (["ts", "--from", "nowhere"], "run.json"),
    ],
)
def test_bad_input_is_answered_with_a_sentence_and_nothing_is_left(folder, capsys, words, said):
    assert main([words[0], "my.toml", "--out", "bad", *words[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mlmm: error: Expected") and said in error, error
    assert not (folder / "bad" / "run.json").exists()


def quiet_surface(calls_before_signal: int = -1) -> ReactionSurface:
    count = {"calls": 0}

    def evaluate(where, memory):
        count["calls"] += 1
        if count["calls"] == calls_before_signal:
            os.kill(os.getpid(), signal.SIGINT)
        return Evaluation(float((where**2).sum()), -2 * where)

    return ReactionSurface(
        numbers=np.array([1]), positions=np.ones((1, 3)), masses=np.ones(1), make=lambda: evaluate
    )


def steps(surface):
    def work(progress):
        kept = progress.get("done")
        done = [] if kept is None else kept.tolist()
        while len(done) < 6:
            done.append(surface.evaluate(surface.positions * len(done)).energy)
            progress.keep(f"part {len(done)}", done=done)
        return {"sum": sum(done)}, {"done": done, "numbers": surface.numbers}

    return work


def test_a_signal_ends_a_search_after_the_part_and_it_goes_on_from_there(tmp_path):
    run = RunDirectory(tmp_path / "run")
    first = quiet_surface(calls_before_signal=3)
    with pytest.raises(KeyboardInterrupt):
        run_search(run, "scan", first, {"a": 1.0}, steps(first))
    assert run.state == "interrupted" and run.summary["cost"]["calls"] == 3
    again = quiet_surface()
    summary = run_search(run, "scan", again, {"a": 1.0}, steps(again), resume=True)
    assert summary["state"] == "finished" and again.calls == 3 and summary["cost"]["calls"] == 6
    whole = RunDirectory(tmp_path / "whole")
    other = quiet_surface()
    expected = run_search(whole, "scan", other, {"a": 1.0}, steps(other))
    assert summary["result"] == expected["result"]
    with pytest.raises(ConfigError, match=r"a = 2"):
        run_search(run, "scan", again, {"a": 2.0}, steps(again), resume=True)


def test_a_damaged_state_is_named(tmp_path):
    run = RunDirectory(tmp_path / "run")
    surface = quiet_surface(calls_before_signal=2)
    with pytest.raises(KeyboardInterrupt):
        run_search(run, "scan", surface, {}, steps(surface))
    path = run.file("state.npz")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match=r"state\.npz"):
        load_arrays(path)
    with pytest.raises(ConfigError, match=r"state\.npz"):
        run_search(run, "scan", surface, {}, steps(surface), resume=True)
    assert run.state == "interrupted"
