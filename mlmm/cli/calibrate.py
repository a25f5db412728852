"""``mlmm calibrate``: its options, its help, what it writes and prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mlmm.cli.progress import Stages
from mlmm.cli.refine import REFINE_DEFAULTS, REFINE_EPILOG, add_refine_options, refine_file
from mlmm.cli.session import add_config, start
from mlmm.config.load import load_config
from mlmm.config.objects import potential_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Free-energy compensation G(lambda) of water for an adaptive zone."
_EPILOG = """what it is for:
  A water that walks from the force field into the model changes its energy by lambda Delta. Without a
  compensation that difference pulls waters across the adaptive zone, and its density is wrong. A box of pure
  water is simulated at each lambda, with the run file's water model, force field, potential, temperature and
  pressure; G(lambda) is what one water gains there.

  --mode density    equal density on both sides: constant volume, with the pressure term (default)
  --mode pressure   equal pressure: each lambda at its own density

how long: the whole box is in the model at every step, so that 5 lambdas of 5 ps take hours on a processor.
Each finished lambda is kept in NAME.partial.json; after an interruption the same command goes on from there,
with another --length or --equilibration if you like.
Error bars that are larger than 1 kJ/mol at lambda = 1 call for a greater --length.

  mlmm calibrate my/run.toml --out my/water.json
  mlmm calibrate my/run.toml --out my/water.json --set potential.members=[0]     one network: a quick look
"""
EPILOG = _EPILOG + REFINE_EPILOG
#: The largest cutoff of PME's direct sum that a box of this edge takes while its volume fluctuates.
_CUTOFF_OF_EDGE = 0.44


_OPTIONS = {
    "--knots": ("0,0.25,0.5,0.75,1", "lambda of the simulations"),
    "--length": ("4 ps", "sampled at each lambda"),
    "--equilibration": ("1 ps", "before it"),
    "--density-length": ("50 ps", "run of the force field alone that finds its density"),
    "--edge": ("1.6 nm", "of the cube of water"),
    "--timestep": ("1 fs", "of all runs"),
    "--hydrogen-mass": ("3 amu", "moved from the oxygens: same averages, longer steps"),
}


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    verb.add_argument(
        "--out",
        default="compensation.json",
        metavar="FILE",
        help='compensation to write (default "compensation.json")',
    )
    verb.add_argument("--overwrite", action="store_true", help="replace FILE")
    verb.add_argument("--mode", choices=("density", "pressure"), default="density", help="see below")
    for name, (default, text) in _OPTIONS.items():
        what = name.removeprefix("--").replace("-", "_").upper()
        other = REFINE_DEFAULTS.get(what.lower())
        shown = f'default "{default}"' + (f"; with --refine {other}" if other else "")
        verb.add_argument(name, default=None, metavar=what, help=f"{text} ({shown})")
    verb.add_argument(
        "--sample-interval", type=int, default=20, metavar="STEPS", help="steps between samples (default 20)"
    )
    add_refine_options(verb)


def run(options: argparse.Namespace) -> int:
    """Calibrate, or refine, the compensation of an adaptive zone."""
    config = load_config(options.config, options.set)
    start(config, options)
    with Stages(timed=False) as steps:
        text = _calibrate(config, options, steps.show)
    print(text)
    return 0


def _calibrate(config: RunConfig, options: argparse.Namespace, progress: Callable[[str], None]) -> str:
    """Calibrate, write the file and its picture; returns the table and the lines to paste.

    Raises
    ------
    ConfigError
        A file that is there already or cannot be written, knots that are no numbers.
    """
    path = Path(options.out)
    for name, (default, _) in _OPTIONS.items():
        what = name.removeprefix("--").replace("-", "_")
        if getattr(options, what) is None:
            setattr(options, what, REFINE_DEFAULTS.get(what, default) if options.refine else default)
    knots = _numbers(options.knots)
    if path.suffix != ".json" or not path.resolve().parent.is_dir():
        raise ConfigError("--out FILE.json in a folder that exists", str(path), "correct the name")
    if path.exists() and not options.overwrite:
        raise ConfigError(f"no file {path} yet", "one", "add --overwrite, or choose another --out")
    if options.sample_interval < 1:
        raise ConfigError("--sample-interval 1 or more", str(options.sample_interval), "write 20")
    if options.refine:
        return refine_file(config, options, progress)
    edge = parse(options.edge, "length", "--edge")
    cutoff = min(parse(config.system.nonbonded_cutoff, "length"), _CUTOFF_OF_EDGE * edge)

    from mlmm.build.surroundings.bulk import build_bulk_water
    from mlmm.compensation.calibrate import calibrate
    from mlmm.report.compensation_plot import draw_compensation

    bulk = build_bulk_water(
        edge,
        water=config.system.water,
        forcefield=config.system.forcefield,
        nonbonded_cutoff=cutoff,
        hydrogen_mass=options.hydrogen_mass or None,
    )
    potential = potential_from(config)
    partial = path.with_suffix(".partial.json")
    progress(
        f"{bulk.n_atoms // 3} waters in {potential.spec.name}, PME cutoff {cutoff:.2f} nm, {len(knots)} "
        f"lambdas; each is kept in {partial} when it is done"
    )
    compensation, samples = calibrate(
        bulk,
        potential,
        mode=options.mode,
        knots=knots,
        equilibration=options.equilibration,
        length=options.length,
        density_length=options.density_length,
        timestep=options.timestep,
        temperature=config.run.temperature,
        pressure=config.run.pressure,
        sample_interval=options.sample_interval,
        bridge=config.potential.bridge,
        platform=config.run.platform,
        seed=config.run.seed,
        partial=partial,
        progress=progress,
    )
    compensation.save(path)
    picture = draw_compensation(compensation, path.with_suffix(".png"))
    partial.unlink()
    kind, alignment = next(iter(compensation.alignment.items()))
    rows = [f"{'lambda':>6}  {'<Delta> / (kJ/mol)':>20}  {'G / (kJ/mol)':>18}"]
    for k, sample in enumerate(samples):
        difference = f"{sample.difference:.2f} ± {sample.difference_error:.2f}"
        curve = f"{compensation.values[kind][k]:.2f} ± {compensation.errors[kind][k]:.2f}"
        rows.append(f"{sample.weight:6.3g}  {difference:>20}  {curve:>18}")
    folder = Path(options.config).resolve().parent
    name = path.name if path.resolve().parent == folder else str(path.resolve())
    lines = [f"a {kind} gets -lambda ({alignment:.2f} kJ/mol) - G(lambda) besides lambda Delta", ""]
    lines += [f"written: {path}, {picture}", "for [zones] of the run file:", f'compensation = "{name}"']
    return "\n".join([*rows, *lines])


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            "--knots as numbers with commas", repr(text), "write --knots 0,0.25,0.5,0.75,1"
        ) from None
