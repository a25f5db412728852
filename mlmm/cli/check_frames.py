"""``mlmm check frames``: the mean force of lambda in the frames of an adaptive run."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlmm.cli.progress import say
from mlmm.cli.session import add_verbose, start
from mlmm.config.load import load_config
from mlmm.config.objects import hybrid_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "What drives molecules across an adaptive zone: the mean force of lambda in the frames of a run."
EPILOG = """The mean force of lambda, in bins of lambda with standard errors, is what still drives
molecules across the zone; a calibrated compensation brings it to zero (at constant density: to
what the pressure balances). System, zone and compensation are those of the run, not those that
its run file has now.

examples:
  mlmm run my/run.toml                 frames of an adaptive zone in runs/my
  mlmm check frames runs/my
"""
_MOST = 400  # frames; neighbours in time repeat each other


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("directory", help="run directory with frames of an adaptive zone")
    add_verbose(verb)


def run(options: argparse.Namespace) -> int:
    """Print a table for each kind of molecule."""
    folder = Path(options.directory)
    config = _config(folder)
    start(config, options)
    print("\n\n".join(mean_force_tables(folder, config)))
    return 0


def _config(folder: Path) -> RunConfig:
    """The settings of a run that has frames of an adaptive zone.

    Raises
    ------
    ConfigError
        No such run.
    """
    files = folder / "resolved.toml", folder / "trajectory.dcd"
    config = load_config(files[0]) if all(file.exists() for file in files) else None
    if config is None or config.zones.kind != "adaptive":
        raise ConfigError(
            f"frames of an adaptive zone in {folder}",
            "none" if config is None else f"zones of kind {config.zones.kind}",
            'make some with mlmm run, from a run file with [zones] kind = "adaptive"',
        )
    return config


def mean_force_tables(folder: Path, config: RunConfig) -> list[str]:
    """A table of the mean force for each kind of molecule that passes through the zone.

    Parameters
    ----------
    folder : Path
        Run directory.
    config : RunConfig
        Its settings.

    Raises
    ------
    ConfigError
        Fewer than two frames.
    """
    import numpy as np

    from mlmm.build import BuiltSystem
    from mlmm.compensation.mean_force import mean_force
    from mlmm.dynamics.dcd_frames import DCDFrames
    from mlmm.dynamics.run_directory import RunDirectory

    built = BuiltSystem.load(RunDirectory(folder).built_folder)
    path = folder / "trajectory.dcd"
    try:
        trajectory = DCDFrames(path, built.n_atoms)
    except (OSError, ValueError) as error:
        raise ConfigError(f"frames of the run in {path}", str(error), "give the folder of a run") from error
    if len(trajectory) < 2:
        raise ConfigError(
            f"two frames or more in {path}",
            str(len(trajectory)),
            "go on with mlmm run --resume, or run longer",
        )
    chosen = range(0, len(trajectory), -(-len(trajectory) // _MOST))
    positions, boxes = zip(*(trajectory[k] for k in chosen), strict=True)
    cells = np.array(boxes) if trajectory.periodic else None
    say(f"mean force of lambda in {len(chosen)} frames of {folder}")
    hybrid = hybrid_from(config, built, precision="float64")
    tables = [
        mean_force(hybrid, np.array(positions), cells, kind=kind)
        for kind in sorted(set(getattr(hybrid.zones, "kinds", ())))
    ]
    return [f"{table}\nof {path}" for table in tables]
