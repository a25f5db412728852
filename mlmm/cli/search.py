"""What the verbs of searches on an energy surface have in common: arguments, run directory, report."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.cli.progress import Stages
from mlmm.cli.session import add_config, run_name
from mlmm.cli.session import start as set_up
from mlmm.config.explain import key_lines
from mlmm.config.load import load_config
from mlmm.config.reactions import (
    from_run,
    options_from,
    search_settings,
    surface_from,
    variables_from,
    workers_of,
)
from mlmm.config.schema import RunConfig
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import PotentialError

if TYPE_CHECKING:
    import numpy as np

    from mlmm.reactions.progress import Progress
    from mlmm.reactions.surface import ReactionSurface

__all__ = ["Search", "add_search_options", "epilog", "run_verb"]

_EVERY = 2.0  # s between two lines of progress
_FILES = """
a run directory (default runs/NAME-VERB) holds report.html, the page to look at; path.xyz, structures;
result.npz, all numbers; run.json, facts and state; state.npz, from which --resume goes on; and run.log
"""


@dataclass
class Search:
    """What a search begins with.

    Parameters
    ----------
    config : RunConfig
    options : object
        Of its section.
    surface : ReactionSurface
    run : RunDirectory
    earlier : dict of str to ndarray
        Result of the run that ``--from`` names; empty without.
    """

    config: RunConfig
    options: Any
    surface: ReactionSurface
    run: RunDirectory
    earlier: dict[str, np.ndarray]

    def variables(self, names: Any, where: str) -> Any:
        """Variables by name; None for none."""
        from mlmm.reactions.variables import SurfaceVariables

        made = variables_from(self.config, names, where)
        return SurfaceVariables(self.surface, made) if made else None

    def all_values(self, positions: np.ndarray) -> dict[str, dict[str, Any]]:
        """Values of all variables of the run file at a structure, with units."""
        known = self.variables(list(self.config.variable), "the run file")
        if known is None:
            return {}
        values = known.values(positions)
        return {v.name: {"value": float(x), "unit": v.unit} for v, x in zip(known.bound, values, strict=True)}

    def structure(self, path: str) -> np.ndarray:
        """Positions of the moving atoms from a structure file."""
        from mlmm.reactions.molecules import read_positions

        numbers, positions = read_positions(path)
        self.surface.check_structure(numbers, path)
        return positions


def epilog(examples: str, section: str, more: str = "") -> str:
    """Help of a verb: examples, files, keys."""
    keys = key_lines(section, "surface", "variable")
    return (
        f"examples:\n{examples}{more}{_FILES}\nkeys of the run file, each as --set takes it (the hybrid: "
        f"[system], [region], [potential] as in mlmm run --help):\n\n{keys}\n"
    )


def add_search_options(verb: argparse.ArgumentParser, earlier: str = "") -> None:
    """Add the arguments of a search; `earlier` says what ``--from`` takes over."""
    add_config(verb, "run file in TOML with [surface], or [system] and [region]")
    verb.add_argument("--out", metavar="DIR", help="run directory (default: runs/NAME-VERB)")
    how = verb.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with an interrupted search")
    how.add_argument("--overwrite", action="store_true", help="replace the run that is there")
    if earlier:
        verb.add_argument("--from", dest="start", metavar="RUN", help=f"begin with {earlier}")


def run_verb(
    options: argparse.Namespace,
    kind: str,
    begin: Callable[[Search], tuple[dict[str, Any], Callable[[Progress], tuple[dict, dict]]]],
) -> int:
    """Carry out a search.

    Parameters
    ----------
    options : argparse.Namespace
    kind : str
        Verb and section.
    begin : callable
        From a `Search` to where it begins, for the record, and the work to do.
    """
    out = Path(options.out) if options.out else Path("runs") / f"{run_name(options.config)}-{kind}"
    directory = RunDirectory(out)
    if options.resume:
        directory.check_resumable()
    else:
        RunDirectory.check_free(out, options.overwrite)
    config = load_config(options.config, options.set, needs=())
    set_up(config, options, build=bool(options_from(config, "surface").molecule))
    from mlmm.reactions.run import run_search

    with Stages() as stages:
        earlier = Path(options.start) if getattr(options, "start", None) else None
        own = out if options.resume and directory.begun else earlier
        surface = surface_from(config, stages.show, own)
    warnings = _check_forces(config, surface)
    found = from_run(surface, earlier, "a path or structure") if earlier else {}
    run = RunDirectory(out, config.as_dict())
    search = Search(config, options_from(config, kind), surface, run, found)
    where, work = begin(search)
    print(f"{surface.facts['surface']}, {len(surface)} atoms move; into {out}/")
    with workers_of(config, surface, out):
        summary = run_search(
            run,
            kind,
            surface,
            search_settings(config, kind, surface, **where),
            work,
            resume=options.resume,
            overwrite=options.overwrite,
            title=config.run.title or f"{run_name(options.config)}: {kind}",
            facts={"warnings": warnings, "from": str(earlier) if earlier else None},
            progress=_Lines().show,
        )
    from mlmm.report.search_page import judge_search, write_search_report

    verdict = judge_search(summary)
    print(f"{verdict.headline}")
    for line in verdict.lines:
        print(f"  {line}")
    cost = summary["cost"]
    print(f"{cost['calls']} energies, {cost['cpu']:.0f} s of processor time")
    if summary["state"] == "interrupted":
        print(f"interrupted; go on with: mlmm {kind} {options.config} --out {out} --resume")
        return 143 if "SIGTERM" in str(summary["message"]) else 130
    print(f"report: {write_search_report(out)}")
    return 0


def _check_forces(config: RunConfig, surface: ReactionSurface) -> list[str]:
    """Refuse, or warn of, forces that are not the gradient of the energy."""
    from mlmm.reactions.conservation import check_forces

    found = check_forces(surface, config.run.seed)
    if found.conservative:
        return []
    error = PotentialError(
        "forces that are the gradient of the energy, without which there is no path of lowest energy",
        found.finding,
        'choose a potential whose forces are derivatives, or write nonconservative = "warn" in [surface]',
    )
    if options_from(config, "surface").nonconservative == "stop":
        raise error
    print(f"warning: {error}", file=sys.stderr)
    return [str(error)]


class _Lines:
    """Progress as lines on standard error, not too many."""

    def __init__(self) -> None:
        self._printed = 0.0

    def show(self, text: str) -> None:
        """Print a line, unless another was just printed."""
        now = time.monotonic()
        if now - self._printed >= _EVERY:
            print(f"  {text}", file=sys.stderr, flush=True)
            self._printed = now
