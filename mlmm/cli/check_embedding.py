"""``mlmm check embedding``: interaction of the region with its surroundings, by level of embedding."""

from __future__ import annotations

import argparse

from mlmm.cli.check_zones import add_frames, check_frames
from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.config.objects import potential_from
from mlmm.units import parse

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "What embedding changes: interaction of the region with each residue around it, by level."
EPILOG = """Coulomb energy of the region with every residue around it, in frames of a short run of the force
field, for three descriptions of the region:
  fixed charges      those of the force field: electrostatics = "mechanical"
  predicted charges  what the potential predicts for the region by itself
  embedded           its charges, dipoles and quadrupoles in the field of all charges (electrostatics =
                     "embedded"); the row "within the region" is what its own energy changes by
It shows which residue holds the region, and for which of them fixed charges are not enough. The potential
has to see charges (amp-bms), and the region is whole molecules.

examples:
  mlmm check embedding my/run.toml                    three frames
  mlmm check embedding my/run.toml --frames 10        smaller error bars, more time
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    add_frames(verb)


def run(options: argparse.Namespace) -> int:
    """Draw frames and print the table."""
    config = load_config(options.config, options.set)
    check_frames(options)
    start(config, options)
    from mlmm.validation.embedding_levels import embedding_levels
    from mlmm.validation.scan_zones import draw_frames
    from mlmm.zones.region import select_region

    built = build_system_of(config)
    region = select_region(built, config.region.select, config.region.complete)
    potential = potential_from(config, precision="float64")
    say(f"{options.frames} frames of a short run of the force field")
    frames = draw_frames(
        built,
        options.frames,
        temperature=config.run.temperature,
        seed=config.run.seed,
        platform=config.run.platform,
    )
    width = parse(config.embedding.charge_width, "length", "embedding.charge_width")
    levels = embedding_levels(
        built, region, potential, frames, charge=config.region.charge, charge_width=width, progress=say
    )
    print(levels)
    return 0
