"""``mlmm report``: judge runs, write the report of each again, and compare several."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    from mlmm.report.reading import read_run

    directories = options.directory
    if options.out and len(directories) == 1:
        raise ConfigError(
            "two or more runs with --out, where their comparison goes",
            "one; its page is report.html in its directory",
            "leave --out out",
        )
    from mlmm.report.free_energy_page import is_profile, read_profile, write_profile_report

    profiles = [directory for directory in directories if is_profile(directory)]
    for directory in profiles:
        _, _, verdict = read_profile(directory)
        print(f"{directory}: {verdict.headline}")
        for line in verdict.lines:
            print(f"  {line}")
        print(f"report: {write_profile_report(directory)}")
    directories = [directory for directory in directories if directory not in profiles]
    from mlmm.report.metadynamics_page import is_metadynamics, judge_held, write_metadynamics_report

    held = [directory for directory in directories if is_metadynamics(directory)]
    for directory in held:
        verdict = judge_held(read_run(Path(directory) / "result.json"))
        print(f"{directory}: {verdict.headline}")
        for line in verdict.lines:
            print(f"  {line}")
        print(f"report: {write_metadynamics_report(directory)}")
    directories = [directory for directory in directories if directory not in held]
    from mlmm.report.learning_page import is_learning, judge_learning, read_learning, write_learning_report

    loops = [directory for directory in directories if is_learning(directory)]
    for directory in loops:
        verdict = judge_learning(read_learning(directory))
        print(f"{directory}: {verdict.headline}")
        for line in verdict.lines:
            print(f"  {line}")
        others = [other for other in loops if other != directory]
        print(f"report: {write_learning_report(directory, others)}")
    directories = [directory for directory in directories if directory not in loops]
    from mlmm.report.search_page import is_search, judge_search, write_search_report

    searches = [directory for directory in directories if is_search(directory)]
    for directory in searches:
        verdict = judge_search(read_run(Path(directory) / "run.json"))
        print(f"{directory}: {verdict.headline}")
        for line in verdict.lines:
            print(f"  {line}")
        print(f"report: {write_search_report(directory)}")
    directories = [directory for directory in directories if directory not in searches]
    records = [read_record(directory) for directory in directories]
    for directory, record in zip(directories, records, strict=True):
        print(f"{directory}: {record.verdict.headline}")
        for line in record.verdict.lines:
            print(f"  {line}")
        print(f"report: {write_report(record)}")
    if len(records) > 1:
        print(f"comparison: {write_comparison(records, options.out or _PAGE)}")
    return 0
