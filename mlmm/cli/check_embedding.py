"""``mlmm check embedding``: interaction of the region with its surroundings, by level of embedding."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.config.objects import potential_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError
from mlmm.units import parse

if TYPE_CHECKING:
    import numpy as np

    from mlmm.build import BuiltSystem

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "What embedding changes: interaction of the region with each residue around it, by level."
EPILOG = """Coulomb energy of the region with every residue around it, in frames of a run or, before there is
one, of a short run of the force field, for three descriptions of the region:
  fixed charges      those of the force field: electrostatics = "mechanical"
  predicted charges  what the potential predicts for the region by itself
  embedded           its charges, dipoles and quadrupoles in the field of all charges (electrostatics =
                     "embedded"); the row "within the region" is what its own energy changes by
It shows which residue holds the region, and for which of them fixed charges are not enough. The potential
has to see charges (amp-bms), and the region is whole molecules. Below the table: whether charges and sums
are what embedding is made for.

examples:
  mlmm check embedding my/run.toml                    three frames of the force field
  mlmm check embedding my/run.toml --frames 10        smaller error bars, more time
  mlmm check embedding runs/my                        frames of that run; its report gets the picture
"""
_OF_FORCE_FIELD, _OF_RUN = 3, 20


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb, "run file in TOML, or the directory of a run")
    verb.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help=f"structures: of a run, spread over its trajectory (default {_OF_RUN}), else of a 0.5 ps run "
        f"(default {_OF_FORCE_FIELD})",
    )
    verb.add_argument(
        "--picture",
        default="embedding.png",
        metavar="FILE",
        help="where to draw it (default ./embedding.png)",
    )


def run(options: argparse.Namespace) -> int:
    """Print the table and the diagnostics, draw the picture."""
    folder = Path(options.config)
    of_run = folder.is_dir()
    config = load_config(_settings(folder) if of_run else options.config, options.set)
    count = options.frames or (_OF_RUN if of_run else _OF_FORCE_FIELD)
    picture = Path(options.picture)
    if options.frames is not None and options.frames < 1:
        raise ConfigError("--frames 1 or more", str(options.frames), "write --frames 3")
    if not picture.resolve().parent.is_dir() or picture.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(
            "--picture with a .png, .svg or .pdf file in a folder that exists",
            str(picture),
            "correct the name",
        )
    start(config, options)
    import json

    from mlmm.report.embedding_plots import LEVELS_FILE, draw_levels
    from mlmm.validation.embedding_diagnostics import embedding_diagnostics
    from mlmm.validation.embedding_levels import embedding_levels
    from mlmm.zones.region import select_region

    built, frames, boxes = _of_run(folder, count) if of_run else _of_force_field(config, count)
    region = select_region(built, config.region.select, config.region.complete)
    potential = potential_from(config, precision="float64")
    width = parse(config.embedding.charge_width, "length", "embedding.charge_width")
    charge = config.region.charge
    levels = embedding_levels(
        built, region, potential, frames, boxes=boxes, charge=charge, charge_width=width, progress=say
    )
    figures = embedding_diagnostics(
        built,
        region,
        potential,
        charge=charge,
        charge_width=width,
        far_field=config.embedding.far_field,
        far_permittivity=config.embedding.far_permittivity,
    )
    print(f"{levels}\n\n{figures}\nin the structure as built\n")
    # Beside the picture without a run: the numbers behind it.
    numbers = levels.save(folder / LEVELS_FILE if of_run else picture.with_suffix(".json"))
    drawn = draw_levels(json.loads(numbers.read_text(encoding="utf-8")), picture)
    print(f"picture: {drawn}\nnumbers: {numbers}")
    if of_run:
        from mlmm.report import write_report

        print(f"report: {write_report(folder)}")
    return 0 if figures.passed else 1


def _settings(folder: Path) -> Path:
    """The settings of a run with frames.

    Raises
    ------
    ConfigError
        No such run.
    """
    path = folder / "resolved.toml"
    if not path.exists() or not (folder / "trajectory.dcd").exists():
        raise ConfigError(
            f"a run with frames in {folder} (resolved.toml and trajectory.dcd)",
            "none",
            "make one with mlmm run, or give a run file",
        )
    return path


def _of_run(folder: Path, count: int) -> tuple[BuiltSystem, list[np.ndarray], list[np.ndarray] | None]:
    """System, frames spread over the trajectory of a run, and their boxes."""
    import mdtraj
    import numpy as np

    from mlmm.build import BuiltSystem
    from mlmm.dynamics.run_directory import RunDirectory

    built = BuiltSystem.load(RunDirectory(folder).built_folder)
    path = folder / "trajectory.dcd"
    trajectory = mdtraj.load_dcd(str(path), mdtraj.Topology.from_openmm(built.topology))
    if not len(trajectory):
        raise ConfigError(f"one frame or more in {path}", "none", "go on with mlmm run --resume")
    places = np.unique(np.linspace(0, len(trajectory) - 1, min(count, len(trajectory))).round().astype(int))
    say(f"{len(places)} of {len(trajectory)} frames of {folder}")
    boxes = trajectory.unitcell_vectors
    frames = [trajectory.xyz[k].astype(np.float64) for k in places]
    return built, frames, None if boxes is None else [boxes[k].astype(np.float64) for k in places]


def _of_force_field(config: RunConfig, count: int) -> tuple[BuiltSystem, list[np.ndarray], None]:
    """System and frames of a short run of the force field."""
    from mlmm.validation.scan_zones import draw_frames

    built = build_system_of(config)
    say(f"{count} frames of a short run of the force field")
    run = config.run
    frames = draw_frames(built, count, temperature=run.temperature, seed=run.seed, platform=run.platform)
    return built, list(frames), None
