"""``mlmm check timestep``: energy drift and temperature of runs without thermostat, for each time step."""

from __future__ import annotations

import argparse

from mlmm.cli.check_energy import add_lengths
from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.config.objects import describe, hybrid_from
from mlmm.errors import ConfigError
from mlmm.units import FEMTOSECOND

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Find the time steps that are stable, by short runs without thermostat; exit status 1 if none is."
EPILOG = """NVE runs from one state: energy drift and temperature for each setting, and how much the zone
would warm under a thermostat of 1/ps by what a setting gains more than the smallest one.
  nonbonded_every    the force field's non-bonded forces act every so many steps
  reciprocal_every   PME's reciprocal sum, in units of nonbonded_every
Only settings that were run are named; where the table says "too short", a longer --nve tells. Tables of three
run files are in tests/benchmarks/TIMESTEPS.md: in flexible water non-bonded forces every 3 fs were unstable.

examples:
  mlmm check timestep my/run.toml                          0.5 to 2 fs, slow forces every 1, 2 or 4 steps
  mlmm check timestep my/run.toml --nve "5 ps"             sharper
  mlmm check timestep my/run.toml --timesteps 1,2 --nonbonded-every 1 --set system.hydrogen_mass="3 amu"
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    add_lengths(verb)
    for name, default, text in (
        ("--timesteps", "0.5,1,1.5,2", "fs"),
        ("--nonbonded-every", "1,2,4", "steps between non-bonded forces of the force field"),
        ("--reciprocal-every", "1", "multiples of them between reciprocal sums"),
    ):
        verb.add_argument(name, default=default, metavar="A,B", help=f"{text} (default {default})")


def _numbers(name: str, text: str, kind: type) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{name} as {what} with commas", repr(text), f"write {name} 1,2") from None


def run(options: argparse.Namespace) -> int:
    """Test the settings; prints the table and lines to paste. 1 if none is stable."""
    config = load_config(options.config, options.set)
    axes = (
        [FEMTOSECOND * value for value in _numbers("--timesteps", options.timesteps, float)],
        _numbers("--nonbonded-every", options.nonbonded_every, int),
        _numbers("--reciprocal-every", options.reciprocal_every, int),
    )
    start(config, options)
    from mlmm.validation.time_steps import scan_time_steps

    hybrid = hybrid_from(config, build_system_of(config))
    print(describe(hybrid))
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
        progress=say,
    )
    print(f"{scan}\n")
    largest, cheapest = scan.largest(), scan.cheapest()
    if largest is None or cheapest is None:
        print(f"no setting is stable in {scan.length:g} ps: make --nve longer, or the steps smaller")
        return 1
    print(f"largest stable step with all forces at each: {largest.timestep / FEMTOSECOND:g} fs")
    print(f"least processor time of the stable ones, {cheapest.cpu_ms_per_fs:.3g} ms per fs, for [run]:")
    print(cheapest.toml())
    return 0
