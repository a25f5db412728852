"""``mlmm report``: judge runs, write the report of each again, and compare several."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Say whether a run went well, write its report.html again, or compare several runs."
EPILOG = """examples:
  mlmm report runs/my            also of a run that is still going on, or was interrupted
  mlmm report runs/active runs/passive   learning curves of two loops of mlmm learn in one picture
  mlmm report runs/*             the report of each, and comparison.html with all runs of dynamics

ok: nothing speaks against it; look: decide yourself; bad: find the cause first; -: not measured, or too short
"""
_PAGE = "comparison.html"


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("directory", nargs="+", help="run directory; several are compared")
    verb.add_argument("--out", metavar="FILE", help=f"page of the comparison (default: {_PAGE})")


def run(options: argparse.Namespace) -> int:
    """Print the verdicts, write the pages and say where they are."""
    from mlmm.report import read_record, write_comparison, write_report

    directories = options.directory
    if options.out and len(directories) == 1:
        raise ConfigError(
            "two or more runs with --out, where their comparison goes",
            "one; its page is report.html in its directory",
            "leave --out out",
        )
    for is_kind, verdict_of, write in _other_kinds(directories):
        for directory in filter(is_kind, directories):
            _say(directory, verdict_of(directory), write(directory))
        directories = [directory for directory in directories if not is_kind(directory)]
    records = [read_record(directory) for directory in directories]
    for directory, record in zip(directories, records, strict=True):
        _say(directory, record.verdict, write_report(record))
    if len(records) > 1:
        print(f"comparison: {write_comparison(records, options.out or _PAGE)}")
    return 0


def _other_kinds(directories: Sequence[str]) -> Iterator[tuple[Callable[[str], Any], ...]]:
    """What is no plain run of dynamics: how it is known, its verdict, its page."""
    from mlmm.report.correction_page import is_correction, judge_correction, read_correction
    from mlmm.report.correction_page import write_correction_report as correction_page
    from mlmm.report.end_state_page import is_end_states, read_end_states, write_end_state_report
    from mlmm.report.free_energy_page import is_profile, read_profile, write_profile_report
    from mlmm.report.learning_page import is_learning, judge_learning, read_learning, write_learning_report
    from mlmm.report.metadynamics_page import is_metadynamics, judge_held, write_metadynamics_report
    from mlmm.report.reading import read_run
    from mlmm.report.search_page import is_search, judge_search, write_search_report

    def learning_page(directory: str) -> Any:
        others = [other for other in directories if is_learning(other) and other != directory]
        return write_learning_report(directory, others)

    def held_verdict(directory: str) -> Any:
        return judge_held(read_run(Path(directory) / "result.json"))

    def search_verdict(directory: str) -> Any:
        return judge_search(read_run(Path(directory) / "run.json"))

    yield is_profile, lambda directory: read_profile(directory)[2], write_profile_report
    yield is_metadynamics, held_verdict, write_metadynamics_report
    yield is_learning, lambda directory: judge_learning(read_learning(directory)), learning_page
    yield is_correction, lambda directory: judge_correction(read_correction(directory)), correction_page
    yield is_end_states, lambda directory: read_end_states(directory)[2], write_end_state_report
    yield is_search, search_verdict, write_search_report


def _say(directory: str, verdict: Any, page: Path) -> None:
    print(f"{directory}: {verdict.headline}")
    for line in verdict.lines:
        print(f"  {line}")
    print(f"report: {page}")
