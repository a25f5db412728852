"""``mlmm check --timestep``: its options, its help, and the text that it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlmm.config.load import RunConfig
from mlmm.errors import ConfigError
from mlmm.units import FEMTOSECOND

if TYPE_CHECKING:
    from mlmm.hybrid.system import HybridSystem

__all__ = ["TIMESTEP_EPILOG", "add_timestep_options", "timestep_axes", "timestep_text"]

TIMESTEP_EPILOG = """
how long a time step may be: NVE runs from one state, energy drift and temperature for each setting, and how
much the zone would warm under a thermostat of 1/ps by what a setting gains more than the smallest one:
  mlmm check my/run.toml --timestep                           0.5 to 2 fs, slow forces every 1, 2 or 4 steps
  mlmm check my/run.toml --timestep --nve "5 ps"              sharper
  mlmm check my/run.toml --timestep --timesteps 1,2 --nonbonded-every 1 --set system.hydrogen_mass="3 amu"
nonbonded_every: the force field's non-bonded forces act every so many steps; reciprocal_every: PME's
reciprocal sum, in units of nonbonded_every. Only settings that were run are named; "too short": --nve longer
tells. Tables of three run files are in tests/benchmarks/TIMESTEPS.md: in flexible water non-bonded forces
every 3 fs were unstable.
"""


def add_timestep_options(verb: argparse.ArgumentParser) -> None:
    """Add --timestep and what belongs to it."""
    group = verb.add_argument_group("test of time steps, instead of the checks")
    group.add_argument("--timestep", action="store_true", help="which time steps are stable; --nve for each")
    for name, default, text in (
        ("--timesteps", "0.5,1,1.5,2", "fs"),
        ("--nonbonded-every", "1,2,4", "steps between non-bonded forces of the force field"),
        ("--reciprocal-every", "1", "multiples of them between reciprocal sums"),
    ):
        group.add_argument(name, default=default, metavar="A,B", help=f"{text} (default {default})")


def timestep_axes(options: argparse.Namespace) -> tuple[list[float], list[int], list[int]] | None:
    """Time steps (ps), nonbonded_every, reciprocal_every; None without --timestep. Wrong ones stop at once.

    Raises
    ------
    ConfigError
        No numbers, or --timestep together with --scan or --compare.
    """
    if not options.timestep:
        return None
    if options.scan is not None or options.compare:
        raise ConfigError("--timestep, --scan or --compare", "two of them", "run one after the other")
    steps = [FEMTOSECOND * value for value in _numbers("--timesteps", options.timesteps, float)]
    return (
        steps,
        _numbers("--nonbonded-every", options.nonbonded_every, int),
        _numbers("--reciprocal-every", options.reciprocal_every, int),
    )


def _numbers(name: str, text: str, kind: type) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{name} as {what} with commas", repr(text), f"write {name} 1,2") from None


def timestep_text(
    config: RunConfig,
    hybrid: HybridSystem,
    options: argparse.Namespace,
    axes: tuple[list[float], list[int], list[int]],
    progress: Callable[[str], None],
) -> tuple[str, bool]:
    """Test the settings; returns the table with lines to paste, and whether any is stable."""
    from mlmm.validation.time_steps import scan_time_steps

    settings = config.run
    scan = scan_time_steps(
        hybrid,
        timesteps=axes[0],
        nonbonded_every_values=axes[1],
        reciprocal_every_values=axes[2],
        length=options.nve,
        equilibration=options.equilibration,
        temperature=settings.temperature,
        seed=settings.seed,
        platform=settings.platform,
        progress=progress,
    )
    text = [str(scan), ""]
    largest, cheapest = scan.largest(), scan.cheapest()
    if largest is None or cheapest is None:
        text.append(f"no setting is stable in {scan.length:g} ps: make --nve longer, or the steps smaller")
        return "\n".join(text), False
    text.append(f"largest stable step with all forces at each: {largest.timestep / FEMTOSECOND:g} fs")
    text += [f"least processor time of the stable ones, {cheapest.cpu_ms_per_fs:.3g} ms per fs, for [run]:"]
    return "\n".join([*text, cheapest.toml()]), True
