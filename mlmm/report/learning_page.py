"""The page of a loop of active learning: targets, learning curve, parity, basins, what was chosen."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlmm.errors import ConfigError
from mlmm.learning.active.folder import read_facts
from mlmm.learning.active.measure import Measured, unmet_targets
from mlmm.learning.active.options import StopOptions
from mlmm.learning.uncertainty.calibrate import NOMINAL
from mlmm.options import with_changes
from mlmm.report.learning_plots import learning_sketches
from mlmm.report.page import save_page
from mlmm.report.plots import lay_out
from mlmm.report.reading import read_run
from mlmm.report.template import render
from mlmm.report.text import as_mapping, in_words
from mlmm.report.verdict import Judgement, Verdict
from mlmm.short_repr import counted
from mlmm.units import KILOCALORIE

__all__ = ["LearningRecord", "is_learning", "judge_learning", "read_learning", "write_learning_report"]

_MANY_FAILED = 0.05  # share of labels
_COVERAGE = 0.1  # deviation from the nominal one that is worth a look


@dataclass(frozen=True)
class LearningRecord:
    """A loop as its folder holds it.

    Parameters
    ----------
    path : pathlib.Path
    run, settings, result : dict
    rounds : list of dict
        Facts of the rounds that are done.
    measured : list of Measured
        One for each round.
    chosen : list of list of dict
        Chosen structures of each round: index, why, score, origin.
    """

    path: pathlib.Path
    run: dict[str, Any]
    settings: dict[str, Any]
    result: dict[str, Any]
    rounds: list[dict[str, Any]]
    measured: list[Measured]
    chosen: list[list[dict[str, Any]]]

    @property
    def title(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def criterion(self) -> str:
        """How structures were chosen."""
        return str(as_mapping(self.settings.get("choice")).get("by", "not recorded"))

    @property
    def stop(self) -> StopOptions:
        """Targets of the last start."""
        given = as_mapping(self.result.get("stop"))
        return with_changes(StopOptions, None, given)


def is_learning(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds a loop of active learning."""
    path = pathlib.Path(directory) / "run.json"
    return path.exists() and read_run(path).get("kind") == "learn"


def read_learning(directory: str | os.PathLike[str]) -> LearningRecord:
    """Read the folder of a loop, also of one that is going on (ConfigError where it is none)."""
    path = pathlib.Path(directory)
    run = read_run(path / "run.json")
    if run.get("kind") != "learn":
        raise ConfigError(
            "the folder of a loop of mlmm learn", f"{path}, another run", "give the folder that it wrote"
        )
    result = read_facts(path / "result.json") if (path / "result.json").exists() else {}
    done = sorted(path.glob("round_*/done.json"))
    return LearningRecord(
        path,
        run | {"state": "finished" if result.get("state") == "finished" else "running or interrupted"},
        read_facts(path / "settings.json"),
        result,
        [read_facts(one) for one in done],
        [Measured.from_facts(read_facts(one.with_name("measured.json"))) for one in done],
        [read_facts(one.with_name("chosen.json")) for one in done],
    )


def judge_learning(record: LearningRecord) -> Verdict:
    """Judge a loop: are the targets met in every basin, does the uncertainty hold, did labels fail."""
    if not record.rounds:
        return Verdict((Judgement("loop", "look", "no round is done yet", "go on with the same command"),))
    found: list[Judgement] = []
    last, stop = record.measured[-1], record.stop
    # The coverage has a judgement of its own below.
    missed = unmet_targets(last, replace(stop, coverage=1.0))
    if missed:
        found += [
            Judgement(
                "target",
                "look",
                text[:1].lower() + text[1:].rstrip("."),
                "more rounds, or labels in that basin",
            )
            for text in missed
        ]
    else:
        found.append(Judgement("targets", "ok", "met in every basin on held-out labels"))
    if last.coverage68 == last.coverage68:
        off = abs(last.coverage68 - NOMINAL[0])
        level = "ok" if off <= min(stop.coverage, _COVERAGE) else "look"
        text = (
            f"68 and 95 % intervals of forces hold {100 * last.coverage68:.0f} and "
            f"{100 * last.coverage95:.0f} % of the errors"
        )
        found.append(
            Judgement(
                "uncertainty",
                level,
                text,
                "" if level == "ok" else "do not read spreads as errors; more validation labels help",
            )
        )
    failed, tried = sum(r["failed"] for r in record.rounds), sum(r["new"] for r in record.rounds)
    share = failed / max(tried, 1)
    found.append(
        Judgement(
            "labels",
            "look" if share > _MANY_FAILED else "ok",
            f"{failed} of {counted(tried, 'calculation')} failed",
            "explore milder structures, or look at the failures" if share > _MANY_FAILED else "",
        )
    )
    if len(record.rounds) > 1 and record.rounds[-1]["force"] > 1.1 * record.rounds[0]["force"]:
        found.append(
            Judgement(
                "learning curve",
                "bad",
                "forces have become worse since the first round",
                "look at its labels",
            )
        )
    return Verdict(tuple(found))


def write_learning_report(
    directory: str | os.PathLike[str], others: Sequence[str | os.PathLike[str]] = ()
) -> pathlib.Path:
    """Write ``report.html`` of a loop, a page without external files.

    Parameters
    ----------
    directory : str or path
    others : sequence of str or path
        Loops whose learning curves are drawn as well, such as a passive control.

    Raises
    ------
    ConfigError
        A folder that is no loop's.
    """
    record = read_learning(directory)
    compared = [read_learning(other) for other in others]
    page = render(
        "learning.html",
        record.run,
        title=record.title,
        method=record.settings["method"],
        verdict=judge_learning(record),
        notes=_notes(record, compared),
        cards=_cards(record),
        plots=lay_out(learning_sketches(record, compared)) if record.rounds else [],
        tables=_tables(record),
        settings=[(name, in_words(value)) for name, value in _flat(record.settings).items()],
        software=[(name, in_words(value)) for name, value in as_mapping(record.run.get("versions")).items()],
    )
    return save_page(record.path / "report.html", page)


def _notes(record: LearningRecord, compared: Sequence[LearningRecord]) -> list[str]:
    notes = []
    if record.criterion != "passive" and not any(other.criterion == "passive" for other in compared):
        notes.append(
            "Without a passive control nothing says that the choice was better than chance: run the same "
            "file with --set choice.by=passive into another folder, then mlmm report with both folders."
        )
    if record.rounds and len({name for found in record.measured[-1:] for name in found.basins}) == 1:
        notes.append("All held-out structures are of one basin: nothing is said about others.")
    return notes


def _cards(record: LearningRecord) -> list[tuple[str, str, str, str]]:
    if not record.rounds:
        return [("Labels", "0", "", "no round is done yet")]
    last, found = record.rounds[-1], record.measured[-1]
    coverage = "not known" if found.coverage68 != found.coverage68 else f"{100 * found.coverage68:.0f}"
    return [
        (
            "Labels",
            f"{last['labels']}",
            "",
            f"{counted(len(record.rounds), 'round')}, chosen by {record.criterion}",
        ),
        (
            "Energy",
            f"{found.overall.energy:.2f}",
            "kJ/mol",
            f"mean absolute error; {found.overall.energy / KILOCALORIE:.2f} kcal/mol",
        ),
        (
            "Force",
            f"{found.overall.force:.1f}",
            "kJ/mol/nm",
            f"mean absolute error; {found.overall.force / KILOCALORIE / 10:.2f} kcal/mol/Å",
        ),
        ("Within 68 % intervals", coverage, "%" if coverage != "not known" else "", "of force errors"),
    ]


def _tables(record: LearningRecord) -> list[dict[str, Any]]:
    rounds = [
        (
            f"round {facts['round']}",
            facts["labels"],
            f"{facts['new']} of {facts['candidates']}",
            ", ".join(f"{number} {_why(why)}" for why, number in facts["chosen"].items()),
            facts["failed"],
            f"{found.overall.energy:.2f}",
            f"{found.overall.force:.1f}",
            f"{found.overall.force_largest:.0f}",
            "" if found.coverage68 != found.coverage68 else f"{100 * found.coverage68:.0f} %",
        )
        for facts, found in zip(record.rounds, record.measured, strict=True)
    ]
    tables = [
        {
            "title": "Rounds",
            "header": [
                "",
                "labels",
                "chosen",
                "why",
                "failed",
                "energy / (kJ/mol)",
                "force / (kJ/mol/nm)",
                "largest",
                "in 68 %",
            ],
            "rows": rounds,
            "note": "Mean absolute errors on held-out labels; the largest is that of a force component.",
        }
    ]
    if record.measured:
        last = record.measured[-1]
        tables.append(
            {
                "title": "By basin",
                "header": ["basin", "held out", "energy", "bias", "largest", "force", "largest"],
                "rows": [
                    (
                        name,
                        e.structures,
                        f"{e.energy:.2f}",
                        f"{e.energy_bias:+.2f}",
                        f"{e.energy_largest:.2f}",
                        f"{e.force:.1f}",
                        f"{e.force_largest:.0f}",
                    )
                    for name, e in last.basins.items()
                ],
                "note": "Of the last model; kJ/mol and kJ/mol/nm.",
            }
        )
    if record.chosen:
        rows = [
            (f"{number}.{k}", _why(entry["why"]), _score(entry), _origin(entry))
            for number, entries in enumerate(record.chosen)
            for k, entry in enumerate(entries)
        ]
        tables.append(
            {
                "title": "Structures that were chosen",
                "header": ["round", "why", "score", "from"],
                "rows": rows[-200:],
                "note": "Scores: standard deviation of a force component in kJ/mol/nm (spread), distance of "
                "descriptors, extrapolation grade (determinant). At most the last 200.",
            }
        )
    return tables


def _why(why: str) -> str:
    return "at random" if why == "random" else f"by {why}"


def _score(entry: Mapping[str, Any]) -> str:
    return "" if entry.get("score") is None else f"{float(entry['score']):.3g}"


def _origin(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in as_mapping(entry.get("origin")).items())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
