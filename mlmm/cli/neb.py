"""``mlmm neb``: the path of lowest energy between two minima."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlmm.cli.search import Search, add_search_options, epilog, run_verb
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from mlmm.reactions.progress import Progress

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Nudged elastic band: the path of lowest energy between two minima, its highest image at the barrier."
EPILOG = epilog(
    """  mlmm neb my/run.toml --from runs/my-scan     between the ends of a scan, along its points
  mlmm neb my/run.toml --set neb.start=r.xyz --set neb.end=p.xyz
  mlmm neb my/run.toml --resume                from the last images on
""",
    "neb",
    """
Images are evaluated together, surface.workers at a time. A path that turns back on itself, or on which atoms
run into each other, is reported. The highest image is a guess for mlmm ts.
""",
)


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_search_options(verb, "the path of a scan or of another path")


def run(options: argparse.Namespace) -> int:
    """Relax the path and report."""
    return run_verb(options, "neb", _begin)


def _begin(search: Search) -> tuple[dict[str, Any], Any]:
    from mlmm.reactions.path import along_scan, nudged_elastic_band
    from mlmm.reactions.results import path_result, write_xyz

    options, path = search.options, None
    if search.earlier:
        points = search.earlier.get("path")
        if points is None or len(search.earlier.get("counts", [1])) > 1:
            raise ConfigError(
                "a path to begin from with --from: a scan along one variable, a path or an IRC",
                "a run without one",
                "give another run, or write start and end in [neb]",
            )
        if "directions" in search.earlier:
            scanned = search.earlier["directions"], search.earlier["energies"]
            points = along_scan(search.surface, *scanned, options.spring)
        first, last = points[0], points[-1]
        if options.interpolation == "given":
            path = _spread(points, options.images + 2)
    elif not (options.start and options.end):
        raise ConfigError(
            "two ends: start and end in [neb], or --from RUN",
            "none" if not (options.start or options.end) else "one",
            'write start = "r.xyz" and end = "p.xyz"',
        )
    else:
        first, last = search.structure(options.start), search.structure(options.end)

    def work(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        found = nudged_elastic_band(search.surface, first, last, options, path=path, progress=progress)
        facts, arrays = path_result(search.surface, found)
        write_xyz(
            search.run.file("path.xyz"), search.surface.numbers, found.positions, arrays["movie_labels"]
        )
        write_xyz(
            search.run.file("highest.xyz"), search.surface.numbers, [arrays["highest"]], ["highest image"]
        )
        return facts, arrays

    return {"first": first, "last": last}, work


def _spread(path: np.ndarray, count: int) -> np.ndarray:
    """A path of `count` structures at even distances along another."""
    import numpy as np

    flat = path.reshape(len(path), -1)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(flat, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count)
    columns = [np.interp(at, length, column) for column in flat.T]
    return np.array(columns).T.reshape(count, *path.shape[1:])
