"""What verbs with a run file have in common: its arguments, threads and log, the system that is built."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.cli.progress import LogHandler, Stages
from mlmm.config.checks import check_keys, check_structure
from mlmm.config.objects import build_from, potential_from
from mlmm.config.schema import RunConfig

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem
    from mlmm.potentials import PotentialModel

__all__ = ["add_config", "build_shown", "build_system_of", "checked_potential", "run_name", "start"]


def add_config(
    verb: argparse.ArgumentParser, what: str = "run file in TOML (see systems/*/run.toml)"
) -> None:
    """Add the run file, ``--set`` and ``--verbose`` to a verb."""
    verb.add_argument("config", help=what)
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help='change one setting, for instance run.timestep="1 fs"; may be given several times',
    )
    add_verbose(verb)


def add_verbose(verb: argparse.ArgumentParser) -> None:
    """Add ``--verbose``."""
    verb.add_argument("-v", "--verbose", action="store_true", help="show the log on the terminal")


def start(config: RunConfig, options: argparse.Namespace, *, build: bool = False) -> None:
    """Check the keys and set the threads, before the numerical libraries start; then the log.

    Parameters
    ----------
    config : RunConfig
    options : argparse.Namespace
    build : bool
        Only [system] matters, and no potential is evaluated.
    """
    if not build:
        check_keys(config)
    os.environ["OMP_NUM_THREADS"] = str(config.run.ml_threads or 1)
    if config.run.threads:
        os.environ["OPENMM_CPU_THREADS"] = str(config.run.threads)
    if "torch" in sys.modules:  # else it reads the environment when it starts
        import torch

        torch.set_num_threads(config.run.ml_threads or 1)
    terminal = LogHandler()
    terminal.setLevel(logging.INFO if options.verbose else logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("mlmm").handlers = [terminal]
    logging.getLogger("mlmm").setLevel(logging.INFO)


def build_system_of(config: RunConfig) -> BuiltSystem:
    """Build the system of a run file, unless its region cannot be described."""
    check_structure(config)
    return build_shown(config)


def checked_potential(config: RunConfig) -> PotentialModel:
    """The potential of a run file, whose region was checked; torch starts after that, where a name tells."""
    from mlmm.potentials.known import facts_by_name

    if facts_by_name(config.potential.name) is None:
        potential = potential_from(config)
        check_structure(config, potential.spec)
        return potential
    check_structure(config)
    return potential_from(config)


def build_shown(config: RunConfig) -> BuiltSystem:
    """Build the system of a run file, its stages on the terminal."""
    started = time.monotonic()
    with Stages() as stages:
        built = build_from(config, stages.show)
    print(f"built {built.n_atoms} atoms in {time.monotonic() - started:.1f} s")
    return built


def run_name(config: str) -> str:
    """A run is named after its file, or after the folder of a file called run.toml."""
    path = Path(config)
    return path.resolve().parent.name if path.stem == "run" else path.stem
