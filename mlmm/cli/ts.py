"""``mlmm ts``: the saddle point near a guess, and whether it is one of first order along the reaction."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlmm.cli.search import Search, add_search_options, epilog, run_verb
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.reactions.progress import Progress

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Transition state: the saddle point near a guess, with its modes, and the movie of the imaginary one."
EPILOG = epilog(
    """  mlmm ts my/run.toml --from runs/my-neb       from the highest image of a path
  mlmm ts my/run.toml --from runs/my-scan      from the highest point of a scan
  mlmm ts my/run.toml --set ts.guess=guess.xyz
""",
    "ts",
    """
After the search all second derivatives are computed. A transition state has one imaginary mode, along the
variables that are named in ts.expected. With two, the second one leads down: its displaced structures are
written, to begin from again.
""",
)


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_search_options(verb, "the highest point of a scan or path")


def run(options: argparse.Namespace) -> int:
    """Search and report."""
    return run_verb(options, "ts", _begin)


def _begin(search: Search) -> tuple[dict[str, Any], Any]:
    from mlmm.reactions.results import mode_movie, saddle_result, write_xyz
    from mlmm.reactions.transition_state import find_saddle, judge_saddle

    options, surface = search.options, search.surface
    if options.guess:
        guess = search.structure(options.guess)
    elif search.earlier:
        guess = search.earlier["highest"]
    else:
        raise ConfigError(
            "a guess to begin from", "none", 'write guess = "guess.xyz" in [ts], or add --from RUN'
        )
    expected = search.variables(options.expected, "ts.expected")

    def work(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        found = find_saddle(
            surface,
            guess,
            options,
            expected=expected,
            memory=search.earlier.get("memory"),
            progress=progress,
        )
        verdict = judge_saddle(found.modes, found.overlaps, found.converged)
        facts, arrays = saddle_result(surface, found, verdict)
        facts["variables"] = search.all_values(found.positions)
        write_xyz(search.run.file("ts.xyz"), surface.numbers, [found.positions], ["transition state"])
        write_xyz(search.run.file("path.xyz"), surface.numbers, arrays["movie"], arrays["movie_labels"])
        if len(found.modes.imaginary) > 1:
            swing = mode_movie(found.positions, found.modes.vectors[1])
            for name, frame in (("plus", swing[5]), ("minus", swing[15])):
                path = search.run.file(f"second_mode_{name}.xyz")
                write_xyz(path, surface.numbers, [frame], ["along the second imaginary mode"])
        return facts, arrays

    return {"guess": guess}, work
