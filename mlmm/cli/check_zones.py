"""``mlmm check zones``: error of the force on the region by plateau and width of a smooth zone."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.config.objects import potential_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Error of the forces on the region by plateau and width of a smooth zone, with a picture."
EPILOG = """The plateau keeps the boundary away from the atoms that matter, the width softens it. The scan
tells what error each pair of them leaves and how many atoms it costs, before any run:
  mlmm check zones my/run.toml                                  the whole map, 5 % as the target
  mlmm check zones my/run.toml --vary plateau --target 1        the width of the run file, 1 %
  mlmm check zones my/run.toml --frames 8                       smaller error bars, more time
Paste the two lines that it prints into [zones] of the run file.
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    verb.add_argument(
        "--vary",
        default="plateau,width",
        metavar="plateau,width",
        help="vary plateau, width or both (default); the other one is that of the run file",
    )
    verb.add_argument(
        "--target",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="error of the zone to recommend, %% of the rms force on the region (default 5)",
    )
    add_frames(verb)
    verb.add_argument(
        "--picture",
        default="zone_scan.png",
        metavar="FILE",
        help="where to draw it (default ./zone_scan.png)",
    )


def add_frames(verb: argparse.ArgumentParser) -> None:
    """Add the number of structures that forces are compared in."""
    verb.add_argument(
        "--frames", type=int, default=3, metavar="N", help="structures of a 0.5 ps run (default 3)"
    )


def check_frames(options: argparse.Namespace) -> None:
    """Refuse no frames at all (ConfigError)."""
    if options.frames < 1:
        raise ConfigError("--frames 1 or more", str(options.frames), "write --frames 3")


def _axes(config: RunConfig, options: argparse.Namespace) -> tuple[str, ...]:
    """What is varied; whatever can be wrong is found before minutes of work (ConfigError)."""
    axes = tuple(part.strip() for part in options.vary.split(","))
    if not set(axes) <= {"plateau", "width"}:
        raise ConfigError(
            "--vary plateau,width", repr(options.vary), "write --vary plateau, --vary width, or neither"
        )
    zones = config.zones
    if zones.kind in ("residues", "adaptive") or zones.shape not in ("", "skin"):
        raise ConfigError(
            "zones around the region, of kind static and shape skin, for a scan",
            f"kind {zones.kind!r}" + (f", shape {zones.shape!r}" if zones.shape else ""),
            "scan with a run file without [zones]",
        )
    path = Path(options.picture)
    if not path.resolve().parent.is_dir() or path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(
            "--picture with a .png, .svg or .pdf file in a folder that exists", str(path), "correct the name"
        )
    check_frames(options)
    return axes


def run(options: argparse.Namespace) -> int:
    """Scan, draw the picture; prints the table and the lines to paste."""
    config = load_config(options.config, options.set)
    axes = _axes(config, options)
    start(config, options)
    from mlmm.report.zone_plots import draw_scan
    from mlmm.validation.options import PLATEAUS, WIDTHS
    from mlmm.validation.scan_zones import draw_frames, scan_zones
    from mlmm.zones.region import select_region

    built = build_system_of(config)
    zones = config.zones.of_kind("static")
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
    scan = scan_zones(
        built,
        region,
        potential,
        frames,
        plateaus=PLATEAUS if "plateau" in axes else [zones.plateau],
        widths=WIDTHS if "width" in axes else [zones.width],
        snap=zones.snap,
        keep=config.embedding.keep,
        progress=say,
    )
    choice = scan.recommend(options.target)
    if choice is None:
        choice = scan.best()
        advice = f"no zone of this scan has an error below {options.target:g} %; the best one"
    else:
        advice = f"fewest atoms with an error below {options.target:g} %"
    advice += f", {choice.percent:.2g} % with {choice.active} atoms, for [zones]:"
    picture = draw_scan(scan, options.picture, options.target)
    print(f"{scan}\n\n{advice}\n{choice.toml()}\n\npicture: {picture}")
    return 0
