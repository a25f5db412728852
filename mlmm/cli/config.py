"""``mlmm config``: every key of a run file, or the settings that a run file comes down to."""

from __future__ import annotations

import argparse

from mlmm.config.checks import outlook
from mlmm.config.explain import explain
from mlmm.config.load import load_config
from mlmm.config.schema import SECTIONS, TABLES
from mlmm.config.search_sections import REACTIONS
from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Explain the keys of a run file, or print the settings of one with all defaults."
EPILOG = f"""sections: {", ".join([*SECTIONS, *TABLES, *REACTIONS])}

examples:
  mlmm config --explain                       every key: default, unit, choices, meaning
  mlmm config --explain zones                 those of [zones]
  mlmm config my/run.toml                     check a run file; its settings with all defaults filled in, and
                                              the scheme that it comes down to
  mlmm config my/run.toml --set run.produce="1 ns"
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("config", nargs="?", help="run file in TOML")
    verb.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting"
    )
    verb.add_argument(
        "--explain", nargs="?", const="", metavar="SECTION", help="print the keys of a section, or all"
    )


def run(options: argparse.Namespace) -> int:
    """Print what was asked for."""
    if options.explain is not None:
        print(explain(options.explain))
        return 0
    if options.config is None:
        raise ConfigError(
            "a run file, or --explain", "neither", "try mlmm config --explain, or mlmm config my/run.toml"
        )
    import tomli_w

    config = load_config(options.config, options.set)
    print(f"# {outlook(config)}")
    print(tomli_w.dumps(config.as_dict()), end="")
    return 0
