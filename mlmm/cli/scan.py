"""``mlmm scan``: the relaxed energy along one collective variable, or over two."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlmm.cli.search import Search, add_search_options, epilog, run_verb
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.reactions.progress import Progress

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Relaxed scan along one or two variables, forth and back: a first profile, and a guess of the barrier."
EPILOG = epilog(
    """  mlmm scan my/run.toml                        into runs/my-scan, with a report
  mlmm scan my/run.toml --resume               after Ctrl-C, SIGTERM or a crash: from the last point on
  mlmm scan my/run.toml --set scan.points=[30] --out runs/finer
""",
    "scan",
    """
At each point the variables are held and everything else is minimised. The way back begins where the way
forth ended: where both differ, the variables alone do not describe the reaction (hysteresis). The highest
point is a guess for mlmm ts, both ends and all points are a path for mlmm neb.
""",
)
#: Force constants of a restraint by dimension of the variable, kJ/mol per squared unit.
_STIFF = {"length": 1e6, "angle": 1e4, "number": 1e4, "area": 1e6}


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_search_options(verb)


def run(options: argparse.Namespace) -> int:
    """Scan and report."""
    return run_verb(options, "scan", _begin)


def _begin(search: Search) -> tuple[dict[str, Any], Any]:
    import numpy as np

    from mlmm.collective_variables.rules import force_dimension, to_number
    from mlmm.reactions.results import scan_result, write_xyz
    from mlmm.reactions.scan import scan

    options = search.options
    if not 1 <= len(_listed(options.variables)) <= 2:
        raise ConfigError(
            "one or two variables in [scan]",
            f"{len(_listed(options.variables))}",
            'write variables = ["d"] with a table [variable.d], start, end and points',
        )
    variables = search.variables(options.variables, "scan.variables")
    axes, constants = [], []
    count = len(variables.bound)
    for key in ("start", "end", "points"):
        given = _listed(getattr(options, key))
        if len(given) != count:
            raise ConfigError(
                f"{count} in {key} of [scan], one for each variable",
                f"{len(given)}",
                f"correct scan.{key}",
            )
    for k, variable in enumerate(variables.bound):
        first, last = (
            to_number(_listed(getattr(options, key))[k], variable.dimension, f"scan.{key}")
            for key in ("start", "end")
        )
        if options.points[k] < 2 or first == last:
            raise ConfigError(
                f"two different values or more of {variable.name} in [scan]",
                f"{options.points[k]} from {first:g} to {last:g}",
                "correct start, end and points",
            )
        axes.append(np.linspace(first, last, options.points[k]))
        written = options.force_constant
        constants.append(
            to_number(written, force_dimension(variable.dimension), "scan.force_constant")
            if written
            else _STIFF[variable.dimension]
        )

    def work(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        found = scan(
            search.surface,
            variables,
            axes,
            options,
            force_constants=np.array(constants),
            progress=progress,
        )
        facts, arrays = scan_result(search.surface, variables, axes, found)
        write_xyz(search.run.file("path.xyz"), search.surface.numbers, found.path, arrays["movie_labels"])
        write_xyz(
            search.run.file("highest.xyz"), search.surface.numbers, [arrays["highest"]], ["highest point"]
        )
        return facts, arrays

    return {"positions": search.surface.positions}, work


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)
