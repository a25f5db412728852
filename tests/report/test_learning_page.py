"""The page of a loop of active learning: it says what the files say, also half way through."""

from __future__ import annotations

import json
import re

import pytest
from learning_loop import METHOD, steps

from mlmm.cli import main
from mlmm.learning.active.loop import learn
from mlmm.learning.active.options import ChoiceOptions, LoopOptions, StopOptions
from mlmm.report.learning_page import is_learning, judge_learning, read_learning, write_learning_report

STOP = StopOptions(rounds=2, energy="0.001 kJ/mol", force="1000 kJ/mol/nm", coverage=1.0)


@pytest.fixture(scope="module")
def loops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, by in (("active", "spread"), ("passive", "passive")):
        learn(folder / name, steps(), LoopOptions(held_out=10), ChoiceOptions(start=8, batch=5, by=by), STOP)
    return folder


def test_page_holds_the_numbers_of_the_files(loops):
    page = write_learning_report(loops / "active").read_text()
    record = read_learning(loops / "active")
    assert METHOD in page and "http://" not in page.replace("http://www.w3.org", "")
    for found in record.measured:
        assert f"{found.overall.force:.1f}" in page and f"{found.overall.energy:.2f}" in page
    for name in ("mild", "wild"):
        assert f'<th scope="row">{name}</th>' in page
    rows = re.findall(r'<th scope="row">[01]\.\d+</th>', page)
    assert len(rows) == 13 and page.count("<svg") == 8
    assert "at random" in page and "by spread" in page
    assert "--set choice.by=passive" in page  # nothing was compared with chance


def test_both_curves_in_one_picture(loops):
    page = write_learning_report(loops / "active", [loops / "passive"]).read_text()
    assert "Without a passive control" not in page and ">passive</text>" in page


def test_verdict_names_the_target_that_is_missed(loops):
    verdict = judge_learning(read_learning(loops / "active"))
    (missed,) = [j for j in verdict.judgements if j.name == "target"]
    assert "the energy is off by" in missed.finding and "above 0.001" in missed.finding
    assert [j.level for j in verdict.judgements if j.name == "labels"] == ["ok"]


def test_loop_that_is_not_at_its_end(loops, tmp_path):
    class StopError(Exception):
        pass

    def say(text):
        if text.startswith("round 1: exploring"):
            raise StopError

    with pytest.raises(StopError):
        learn(
            tmp_path / "cut",
            steps(),
            LoopOptions(held_out=10),
            ChoiceOptions(start=8, batch=5),
            STOP,
            say=say,
        )
    record = read_learning(tmp_path / "cut")
    assert len(record.rounds) == 1 and record.run["state"] == "running or interrupted"
    assert "running or interrupted" in write_learning_report(tmp_path / "cut").read_text()


def test_no_round_yet(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"kind": "learn", "created": "", "versions": {}}))
    (tmp_path / "settings.json").write_text(json.dumps({"method": "x"}))
    assert is_learning(tmp_path)
    assert "no round is done yet" in write_learning_report(tmp_path).read_text()


def test_verb(loops, capsys):
    assert main(["report", str(loops / "active"), str(loops / "passive")]) == 0
    said = capsys.readouterr().out
    assert said.count("report: ") == 2 and "held-out" not in said.splitlines()[0]


def test_worse_forces_are_bad(loops):
    import dataclasses

    record = read_learning(loops / "active")
    worse = [record.rounds[0], record.rounds[1] | {"force": 3 * record.rounds[0]["force"]}]
    assert judge_learning(dataclasses.replace(record, rounds=worse)).level == "bad"
