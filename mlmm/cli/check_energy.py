"""``mlmm check energy``: finite differences, bridges, periodic images and energy drift of a run file."""

from __future__ import annotations

import argparse

from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.config.objects import describe, hybrid_from

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Check forces, bridges, periodic images and energy drift; exit status 1 if one fails."
EPILOG = """what is checked, in float64 but for the drift:
  forces       against central differences of the energy
  bridges      the same forces whichever way OpenMM calls the potential
  images       nothing changes when molecules move by whole box vectors
  drift        of the energy in a run without thermostat, and that of the force field alone beside it

zones of scheme "per_atom" show besides (double counting also under "supermolecular"):
  boundary error     forces on the region against those with the potential on all atoms, in all and by depth;
                     on the built structure (mlmm check zones takes frames at 300 K, where forces are larger)
  tail force         of pairs within the potential's range that stay MM, alone and with all that lies beyond
  double counting    pairs and bonded terms by zone; no energy counted twice or lost
  lambda             atoms, and the change of their energy, by weight; of adaptive zones as built

examples:
  mlmm check energy my/run.toml
  mlmm check energy my/run.toml --nve "10 ps" --equilibration "1 ps"      a sharper drift
  mlmm check energy my/run.toml --nve "0 ps"                              no dynamics
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    add_lengths(verb)


def add_lengths(verb: argparse.ArgumentParser) -> None:
    """Add the lengths of runs without thermostat."""
    verb.add_argument(
        "--nve", default="1 ps", metavar="TIME", help='length of each NVE run (default "1 ps"; "0 ps": none)'
    )
    verb.add_argument(
        "--equilibration", default="0.5 ps", metavar="TIME", help='before it (default "0.5 ps")'
    )


def run(options: argparse.Namespace) -> int:
    """Check and print the table; 1 if a check fails."""
    config = load_config(options.config, options.set)
    start(config, options)
    from mlmm.units import parse
    from mlmm.validation.check import CheckReport, check_drift, check_energy

    length = parse(options.nve, "time", "--nve")
    built = build_system_of(config)
    settings = config.run
    # What is exact is checked in float64; how well a run conserves its energy, with the precision of the run.
    exact = hybrid_from(config, built, precision="float64")
    print(describe(exact))
    energy = check_energy(exact, seed=settings.seed, progress=say)
    results = energy.results
    if length:
        results += check_drift(
            hybrid_from(config, built),
            nve_length=options.nve,
            equilibration=options.equilibration,
            timestep=settings.timestep,
            temperature=settings.temperature,
            seed=settings.seed,
            platform=settings.platform,
            progress=say,
        ).results
    report = CheckReport(results, energy.tables)
    print(report)
    return 0 if report.passed else 1
