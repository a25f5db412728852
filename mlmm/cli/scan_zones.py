"""The scan of ``mlmm check --scan``: its options, its help, and the text that it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.config.load import RunConfig
from mlmm.config.objects import potential_from
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem

__all__ = ["SCAN_EPILOG", "add_scan_options", "scan_axes", "scan_text"]

SCAN_EPILOG = """static zones of scheme "per_atom" show besides (double counting also under "supermolecular"):
  boundary error   forces on the region against those with the potential on all atoms, in all and by depth;
                   on the built structure (a scan takes frames at 300 K, where forces are larger)
  tail force       of the pairs within the potential's range that stay MM, alone and with all that lies beyond
  double counting  pairs and bonded terms by zone; no energy counted twice or lost
  lambda           atoms, and the change of their energy, by weight; of adaptive zones as built

how to choose a zone: the plateau keeps the boundary away from the atoms that matter, the width softens it.
A scan tells what error each pair of them leaves and how many atoms it costs, before any run:
  mlmm check my/run.toml --scan plateau,width                the whole map, 5 % as the target
  mlmm check my/run.toml --scan plateau --target 1           the width of the run file, 1 %
  mlmm check my/run.toml --scan plateau,width --frames 8     smaller error bars, more time
Paste the two lines that it prints into [zones] of the run file.
"""


def add_scan_options(verb: argparse.ArgumentParser) -> None:
    """Add --scan and what belongs to it."""
    scan = verb.add_argument_group("scan of the zones, instead of the checks")
    scan.add_argument(
        "--scan",
        metavar="plateau,width",
        help="boundary error on the region by plateau, width or both; the other one as in the run file",
    )
    scan.add_argument(
        "--target",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="error of the zone to recommend, %% of the rms force on the region (default 5)",
    )
    scan.add_argument(
        "--frames", type=int, default=3, metavar="N", help="structures of a 0.5 ps run (default 3)"
    )
    scan.add_argument(
        "--picture",
        default="zone_scan.png",
        metavar="FILE",
        help="where to draw it (default ./zone_scan.png)",
    )


def scan_axes(config: RunConfig, options: argparse.Namespace) -> tuple[str, ...]:
    """What --scan asks for, nothing without it; whatever can be wrong is found before minutes of work.

    Raises
    ------
    ConfigError
        Another word, zones that a scan does not make, or a picture that cannot be written.
    """
    if options.scan is None:
        return ()
    axes = tuple(part.strip() for part in options.scan.split(","))
    if not set(axes) <= {"plateau", "width"}:
        raise ConfigError("--scan plateau,width", repr(options.scan), "scan plateau, width or both")
    zones = config.zones
    if zones.kind in ("residues", "adaptive") or zones.shape not in ("", "skin"):
        raise ConfigError(
            "zones of kind static (or none yet) with shape skin, which a scan is made of",
            f"kind {zones.kind!r}" + (f", shape {zones.shape!r}" if zones.shape else ""),
            "scan with a run file without [zones]",
        )
    path = Path(options.picture)
    if not path.resolve().parent.is_dir() or path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(
            "--picture with a .png, .svg or .pdf file in a folder that exists", str(path), "correct the name"
        )
    if options.frames < 1:
        raise ConfigError("--frames 1 or more", str(options.frames), "write --frames 3")
    return axes


def scan_text(
    config: RunConfig,
    built: BuiltSystem,
    options: argparse.Namespace,
    axes: tuple[str, ...],
    progress: Callable[[str], None],
) -> str:
    """Scan, draw the picture; returns the table and the lines to paste."""
    from mlmm.report.zone_plots import draw_scan
    from mlmm.validation.options import PLATEAUS, WIDTHS
    from mlmm.validation.scan_zones import draw_frames, scan_zones
    from mlmm.zones.region import select_region

    zones = config.zones.of_kind("static")
    region = select_region(built, config.region.select, config.region.complete)
    potential = potential_from(config, precision="float64")
    progress(f"{options.frames} frames of a short run of the force field")
    frames = draw_frames(
        built,
        options.frames,
        temperature=config.run.temperature,
        seed=config.run.seed,
        platform=config.run.platform,
    )
    scan = scan_zones(
        built,
        region,
        potential,
        frames,
        plateaus=PLATEAUS if "plateau" in axes else [zones.plateau],
        widths=WIDTHS if "width" in axes else [zones.width],
        snap=zones.snap,
        keep=config.embedding.keep,
        progress=progress,
    )
    choice = scan.recommend(options.target)
    if choice is None:
        choice = scan.best()
        advice = f"no zone of this scan has an error below {options.target:g} %; the best one"
    else:
        advice = f"fewest atoms with an error below {options.target:g} %"
    advice += f", {choice.percent:.2g} % with {choice.active} atoms, for [zones]:"
    picture = draw_scan(scan, options.picture, options.target)
    return f"{scan}\n\n{advice}\n{choice.toml()}\n\npicture: {picture}"
