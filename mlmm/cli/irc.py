"""``mlmm irc``: from a saddle point down to both minima."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mlmm.cli.search import Search, add_search_options, epilog, run_verb
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.reactions.progress import Progress

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Intrinsic reaction coordinate: from a transition state down to the minima that it joins."
EPILOG = epilog(
    """  mlmm irc my/run.toml --from runs/my-ts       both ways, with the movie of the reaction
  mlmm irc my/run.toml --set irc.start=ts.xyz --set irc.directions=forward
""",
    "irc",
    """
Steepest descent in mass-weighted coordinates; the energy has to fall all the way. minimum_reverse.xyz and
minimum_forward.xyz are the minima beyond both ends, such as for freq.structure. Forward is where the first
variable of irc.expected (or ts.expected) grows.
""",
)


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_search_options(verb, "the transition state of mlmm ts")


def run(options: argparse.Namespace) -> int:
    """Follow the path and report."""
    return run_verb(options, "irc", _begin)


def _begin(search: Search) -> tuple[dict[str, Any], Any]:
    from mlmm.config.reactions import options_from
    from mlmm.reactions.irc import follow_reaction_coordinate
    from mlmm.reactions.results import irc_result, write_xyz

    options, surface, earlier = search.options, search.surface, search.earlier
    if options.start:
        saddle, second = search.structure(options.start), None
    elif "hessian" in earlier:
        saddle, second = earlier["positions"], earlier["hessian"]
    else:
        raise ConfigError(
            "a transition state to begin from",
            "a run without one" if earlier else "none",
            'add --from RUN, a run of mlmm ts, or write start = "ts.xyz" in [irc]',
        )

    # Which side is which belongs to the reaction, not to the sign that a mode happens to have.
    asked = options.expected or options_from(search.config, "ts").expected
    expected = search.variables(asked, "irc.expected")

    def work(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        found = follow_reaction_coordinate(
            surface,
            saddle,
            options,
            expected=expected,
            second_derivatives=second,
            memory=earlier.get("memory"),
            progress=progress,
        )
        facts, arrays = irc_result(surface, found)
        write_xyz(search.run.file("path.xyz"), surface.numbers, found.positions, arrays["movie_labels"])
        for name, place, end in zip(("reverse", "forward"), (0, -1), found.ends, strict=True):
            where = found.positions[place] if end is None else end[0]
            facts[f"variables_{name}"] = search.all_values(where)
            path = search.run.file(f"minimum_{name}.xyz")
            write_xyz(path, surface.numbers, [where], [f"{name} end of the reaction coordinate"])
        facts["variables_saddle"] = search.all_values(saddle)
        return facts, arrays

    return {"saddle": saddle}, work
