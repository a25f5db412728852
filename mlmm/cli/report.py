"""``mlmm report``: write the report of a run directory again."""

from __future__ import annotations

import argparse

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Write report.html of a run directory again."
EPILOG = """examples:
  mlmm report runs/my            also of a run that is still going on, or was interrupted
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("directory", help="run directory")


def run(options: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from mlmm.report import write_report

    print(f"report: {write_report(options.directory)}")
    return 0
