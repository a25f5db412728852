"""The part of ``mlmm check`` that looks at the frames of an adaptive run: the mean force of lambda."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mlmm.config.load import load_config
from mlmm.config.objects import hybrid_from
from mlmm.errors import ConfigError

__all__ = ["MEAN_FORCE_EPILOG", "add_mean_force_options", "mean_force_tables"]

MEAN_FORCE_EPILOG = """
what drives molecules across an adaptive zone, from the frames of a run that is there: the mean force of
lambda in bins of lambda with standard errors, which a calibrated compensation brings to zero (at constant
density: to what the pressure balances):
  mlmm check my/run.toml                                      with the frames of runs/my, if there are any
  mlmm check my/run.toml --run elsewhere/my
"""
_MOST = 400  # frames; neighbours in time repeat each other


def add_mean_force_options(verb: argparse.ArgumentParser) -> None:
    """Add --run."""
    verb.add_argument(
        "--run", metavar="DIR", help="run directory with frames of an adaptive zone (default: runs/NAME)"
    )


def mean_force_tables(
    name: str, options: argparse.Namespace, progress: Callable[[str], None]
) -> tuple[str, ...]:
    """A table for each kind of molecule; nothing where no frames of an adaptive zone are.

    The system, zone and compensation are those of the run, not those that its file has now.

    Parameters
    ----------
    name : str
        Of the run, for the default directory.
    options : argparse.Namespace
    progress : callable

    Raises
    ------
    ConfigError
        A directory that was asked for and has no frames of an adaptive zone.
    """
    import mdtraj

    from mlmm.build import BuiltSystem
    from mlmm.compensation.mean_force import mean_force
    from mlmm.dynamics.run_directory import RunDirectory

    folder = RunDirectory(Path(options.run) if options.run else Path("runs") / name)
    files = folder.file("resolved.toml"), folder.file("trajectory.dcd")
    config = load_config(files[0]) if all(file.exists() for file in files) else None
    if config is None or config.zones.kind != "adaptive":
        if options.run is None:
            return ()
        raise ConfigError(
            f"frames of an adaptive zone in {folder.path}",
            "none" if config is None else f"zones of kind {config.zones.kind}",
            "run it with mlmm run, or leave --run out",
        )
    built = BuiltSystem.load(folder.built_folder)
    trajectory = mdtraj.load_dcd(str(files[1]), mdtraj.Topology.from_openmm(built.topology))
    chosen = trajectory[:: -(-len(trajectory) // _MOST)] if len(trajectory) > _MOST else trajectory
    if len(chosen) < 2:
        return (f"drift force by lambda: {len(chosen)} frames in {files[1]}, two at least are needed",)
    progress(f"mean force of lambda in {len(chosen)} frames of {folder.path}")
    hybrid = hybrid_from(config, built, precision="float64")
    tables = [
        mean_force(hybrid, chosen.xyz, chosen.unitcell_vectors, kind=kind)
        for kind in sorted(set(hybrid.zones.kinds))
    ]
    return tuple(f"{table}\nof {files[1]}" for table in tables)
