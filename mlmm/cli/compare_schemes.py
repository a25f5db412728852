"""The comparison of ``mlmm check --compare``: its options, its help, and the text that it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mlmm.config.load import RunConfig
from mlmm.errors import ConfigError
from mlmm.units import parse

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem

__all__ = ["COMPARE_EPILOG", "add_compare_options", "compare_text", "compared_plateaus"]

COMPARE_EPILOG = """
how to choose a scheme: what counts is the force on your region, not the number of atoms in the potential.
The comparison gives every scheme the same atoms, those of a plateau R around the region, and measures the
force on the region against that of the potential on all atoms:
  mlmm check my/run.toml --compare                           the plateau of the run file
  mlmm check my/run.toml --compare --plateaus 0.3,0.4        two of them, in nm
  mlmm check my/run.toml --compare --frames 8                smaller error bars, more time
  local        R as plateau, half and half, or all of it as a zone: the first is the best use of the same
               atoms, since a zone has its error where lambda begins to fall
  difference   no error on the region, two passes of the potential over more atoms
  additive        hydrogens on cut bonds; the potential sees no neighbour beyond them, and its error does not
  go
               away before its atoms do
"""


def add_compare_options(verb: argparse.ArgumentParser) -> None:
    """Add --compare and what belongs to it."""
    compare = verb.add_argument_group("comparison of the schemes, instead of the checks")
    compare.add_argument(
        "--compare",
        action="store_true",
        help="force error on the region under each scheme, all with the same atoms; --frames as for a scan",
    )
    compare.add_argument(
        "--plateaus",
        metavar="0.3,0.4",
        help="plateaus around the region that hold these atoms, nm (default: that of the run file)",
    )


def compared_plateaus(options: argparse.Namespace, config: RunConfig) -> list[float]:
    """Plateaus to compare at, nm; nothing without --compare. Found wrong before minutes of work.

    Raises
    ------
    ConfigError
        No length, none above zero, or no frame.
    """
    if not options.compare:
        if options.plateaus is not None:
            raise ConfigError("--plateaus with --compare", "--plateaus alone", "add --compare")
        return []
    if options.scan is not None:
        raise ConfigError("--compare or --scan", "both", "run one after the other")
    if options.frames < 1:
        raise ConfigError("--frames 1 or more", str(options.frames), "write --frames 3")
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


def compare_text(
    config: RunConfig,
    built: BuiltSystem,
    options: argparse.Namespace,
    plateaus: list[float],
    progress: Callable[[str], None],
) -> str:
    """Draw frames and compare; returns one table for each plateau."""
    from mlmm.dynamics.records import muted
    from mlmm.potentials import load_potential
    from mlmm.validation.compare_schemes import compare_schemes
    from mlmm.validation.scan_zones import draw_frames
    from mlmm.zones.region import select_region

    settings = config.potential
    region = select_region(built, config.region.select, config.region.complete)
    potential = load_potential(
        settings.name, members=settings.members or None, precision="float64", device=settings.device
    )
    progress(f"{options.frames} frames of a short run of the force field")
    frames = draw_frames(
        built,
        options.frames,
        temperature=config.run.temperature,
        seed=config.run.seed,
        platform=config.run.platform,
    )
    # Seven hybrid systems warn of the same things; the table says them once.
    with nullcontext() if options.verbose else muted("mlmm.hybrid.system"):
        tables = [
            str(
                compare_schemes(
                    built,
                    region,
                    potential,
                    frames,
                    plateau,
                    config.zones.of_kind("static").snap,
                    keep=config.embedding.keep,
                    progress=progress,
                )
            )
            for plateau in plateaus
        ]
    return "\n\n".join(tables)
