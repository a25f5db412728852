"""``mlmm check schemes``: error of the force on the region under each scheme, all with the same atoms."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from mlmm.cli.check_zones import add_frames, check_frames
from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.config.objects import potential_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Compare the force errors of the blending schemes, all with the same atoms in the potential."
EPILOG = """What counts is the force on your region, not the number of atoms in the potential. Every scheme
gets the same atoms, those of a plateau R around the region, and the force on the region is compared with
that of the potential on all atoms:
  per_atom        R as plateau, half and half, or all of it as a zone: the first is the best use of the same
                  atoms, since a zone has its error where lambda begins to fall
  supermolecular  no error on the region, two passes of the potential over more atoms
  additive        hydrogens on cut bonds; the potential sees no neighbour beyond them, and its error does not
                  go away before its atoms do

examples:
  mlmm check schemes my/run.toml                           the plateau of the run file
  mlmm check schemes my/run.toml --plateaus 0.3,0.4        two of them, in nm
  mlmm check schemes my/run.toml --frames 8                smaller error bars, more time
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    verb.add_argument(
        "--plateaus",
        metavar="0.3,0.4",
        help="plateaus around the region that hold these atoms, nm (default: that of the run file)",
    )
    add_frames(verb)


def _plateaus(options: argparse.Namespace, config: RunConfig) -> list[float]:
    """Plateaus to compare at, nm; a wrong one is found before minutes of work (ConfigError)."""
    check_frames(options)
    if options.plateaus is None:
        found = [parse(config.zones.of_kind("static").plateau, "length", "zones.plateau")]
    else:
        found = [_length(part) for part in options.plateaus.split(",")]
    if min(found) <= 0:
        raise ConfigError("plateaus above 0 nm", ", ".join(f"{x:g}" for x in found), "--plateaus 0.3,0.4")
    return found


def _length(text: str) -> float:
    """A number of nm, or a length with its unit."""
    try:
        return parse(float(text), "length", "--plateaus")
    except ValueError:
        return parse(text, "length", "--plateaus")


def run(options: argparse.Namespace) -> int:
    """Draw frames and compare; prints one table for each plateau."""
    config = load_config(options.config, options.set)
    plateaus = _plateaus(options, config)
    start(config, options)
    from mlmm.dynamics.records import muted
    from mlmm.validation.compare_schemes import compare_schemes
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
    snap = config.zones.of_kind("static").snap
    keep = config.embedding.keep
    # Seven hybrid systems warn of the same things; the table says them once.
    with nullcontext() if options.verbose else muted("mlmm.hybrid.system"):
        tables = [
            str(compare_schemes(built, region, potential, frames, plateau, snap, keep=keep, progress=say))
            for plateau in plateaus
        ]
    print("\n\n".join(tables))
    return 0
