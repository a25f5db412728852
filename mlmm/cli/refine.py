"""``mlmm calibrate --refine``: its options, its help, what it writes and prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.config.objects import potential_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError
from mlmm.units import parse

if TYPE_CHECKING:
    from mlmm.zones.compensation import Compensation

__all__ = ["REFINE_DEFAULTS", "REFINE_EPILOG", "add_refine_options", "refine_file"]

#: Of options that have other defaults without --refine.
REFINE_DEFAULTS = {"length": "60 ps", "equilibration": "3 ps", "timestep": "2 fs", "edge": "auto"}
REFINE_EPILOG = """
refining (--refine START.json):
  Pressures in the bulk are known to 100 bar after an hour, which leaves the density in the zone off by tens
  of per cent. So the density itself is measured: pure water around a point without interactions, where
  nothing but the zone could make it uneven. Where it is too high G falls. Simulate, correct, and again, until
  every bin of lambda and every shell of the zone is within --tolerance; a last, longer run checks and does
  not correct. Its profile goes into the file: FILE says how flat it is, FILE.png shows it.

  needed for   a zone of another plateau or width than the file was refined for, another potential, water
               model, temperature or time step; not for another solute
  correction   what the density answers to G(lambda) is seen in its fluctuations, as in inverse Monte Carlo:
               a liquid resists a push on the whole zone ten times as much as one on a single shell
  --gain       share of the first two corrections that is taken, 2/n of it after iteration n: noise averages
               out, whatever its size
  --compressibility   the least answer that is believed, as a share of an ideal gas's

how long: ANI-1x with the compiled kernel on one core, 386 waters, plateau and width 0.5 nm: 20 to 30 ms per
step of 2 fs, so that 60 ps take 10 to 15 minutes, and six iterations with their check two hours. ANI-1x
water diffuses slowly: errors of 0.03 to 0.1 by lambda are what 45 ps give; those of short runs are lower
bounds. All is kept in NAME.partial.npz every 5 ps; after an interruption the same command goes on from there,
with other --iterations, --length, --check-length, --gain or --tolerance if you like.

  mlmm calibrate my/run.toml --refine my/water.json --out my/refined.json
  mlmm calibrate my/run.toml --refine my/refined.json --out my/check.json --iterations 0     how flat is it?
"""
#: Water between the zone and half of the box, nm, on either side; the largest cutoff for a box of this edge.
_MARGIN, _CUTOFF_OF_EDGE = 0.15, 0.44


def add_refine_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that only a refinement has."""
    group = verb.add_argument_group("with --refine")
    group.add_argument("--refine", default="", metavar="START.json", help="compensation to begin with")
    for name, kind, default, metavar, text in (
        ("--iterations", int, 6, "N", "corrections at most; 0: only the check"),
        ("--check-length", str, "", "TIME", 'run after the last one (default 3 × length; "0 ps": none)'),
        ("--gain", float, 0.7, "SHARE", "of a correction that is taken; see below"),
        ("--compressibility", float, 0.09, "CHI", "rho kT kappa of the solvent"),
        ("--tolerance", float, 0.05, "SHARE", "deviation from the bulk that counts as flat"),
        ("--plateau", str, "", "LENGTH", "of the zone (default: the run file's)"),
        ("--width", str, "", "LENGTH", "of the zone (default: the run file's)"),
        ("--density", float, None, "PER_NM3", "molecules per nm³ (default: that of START; else measured)"),
    ):  # fmt: skip
        shown = f" (default {default})" if kind is not str and default is not None else ""
        group.add_argument(name, type=kind, default=default, metavar=metavar, help=text + shown)


def refine_file(config: RunConfig, options: argparse.Namespace, progress: Callable[[str], None]) -> str:
    """Refine, write the file and its picture; returns what was found and the lines to paste.

    Raises
    ------
    ConfigError
        A run file without adaptive zone, a start that is missing or of another model or solvent, numbers out
        of range.
    """
    if config.zones.kind != "adaptive":
        raise ConfigError(
            'a run file with [zones] kind = "adaptive"',
            f"{config.zones.kind!r}",
            "only such a zone has a G(lambda)",
        )
    plateau = parse(options.plateau or config.zones.plateau, "length", "plateau")
    width = parse(options.width or config.zones.width, "length", "width")
    if plateau <= 0 or width <= 0:
        raise ConfigError("--plateau and --width above 0", f"{plateau:g} and {width:g} nm", 'write "0.5 nm"')
    if not options.tolerance > 0:
        raise ConfigError("--tolerance above 0", f"{options.tolerance:g}", "write 0.05")
    if options.iterations < 0:
        raise ConfigError("--iterations 0 or more", str(options.iterations), "write 6")
    length = parse(options.length, "time", "--length")
    check_length = (
        parse(options.check_length, "time", "--check-length") if options.check_length else 3 * length
    )
    edge = (
        parse(options.edge, "length", "--edge") if options.edge != "auto" else 2 * (plateau + width + _MARGIN)
    )
    cutoff = min(parse(config.system.nonbonded_cutoff, "length"), _CUTOFF_OF_EDGE * edge)

    from mlmm.build.surroundings.bulk import build_bulk_water
    from mlmm.compensation.refine import refine
    from mlmm.compensation.refine_state import flatness
    from mlmm.report.compensation_plot import draw_refinement
    from mlmm.zones.compensation import Compensation

    path = Path(options.out)
    start = Compensation.load(options.refine)
    bulk = build_bulk_water(
        edge,
        water=config.system.water,
        forcefield=config.system.forcefield,
        nonbonded_cutoff=cutoff,
        hydrogen_mass=options.hydrogen_mass or None,
    )
    potential = potential_from(config)
    _same_model(start, options.refine, potential.spec.name, str(bulk.provenance["source"]))
    density = options.density
    if density is None and start.facts.get("samples"):
        density = float(start.facts["samples"][0]["density"])
    partial = path.with_suffix(".partial.npz")
    progress(
        f"{bulk.n_atoms // 3} waters around a point, plateau {plateau:g} nm, width {width:g} nm, "
        f"{potential.spec.name}, PME cutoff {cutoff:.2f} nm; kept in {partial}"
    )
    found, iterations = refine(
        bulk,
        start,
        potential,
        plateau=plateau,
        width=width,
        walls=None if config.zones.walls == "none" else config.zones.walls,
        density=density or 0.0,
        iterations=options.iterations,
        length=length,
        check_length=check_length,
        equilibration=options.equilibration,
        gain=options.gain,
        compressibility=options.compressibility,
        tolerance=options.tolerance,
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
    found.save(path)
    picture = draw_refinement(found, iterations, path.with_suffix(".png"), tolerance=options.tolerance)
    partial.unlink()
    last = iterations[-1]
    verdict = flatness(last.profile, options.tolerance)
    advice = {
        "flat": "",
        "not flat": "; go on: --refine this file, with another --out",
        "too noisy": "; to know better: --iterations 0 with a longer --check-length",
    }[verdict]
    what = "check" if last.check else "last iteration (no check was run)"
    folder = Path(options.config).resolve().parent
    name = path.name if path.resolve().parent == folder else str(path.resolve())
    return "\n".join(
        [
            f"{what}: {verdict} to {options.tolerance:g} in {last.length:g} ps{advice}",
            f"written: {path}, {picture}",
            "for [zones] of the run file:",
            f'compensation = "{name}"',
        ]
    )


def _same_model(start: Compensation, name: str, potential: str, solvent: str) -> None:
    """A compensation of another model or solvent is no start, where its file says what it is of."""
    facts = start.facts
    then = str(facts.get("potential", potential)).split(",")[0]
    source = facts.get("solvent", solvent)
    source = str(source.get("source", solvent) if isinstance(source, dict) else source)
    for what, had, has in (("potential", then, potential), ("solvent", source, solvent)):
        if had != has:
            raise ConfigError(
                f"a start of the {what} {has}",
                f"{name}, of {had}",
                "calibrate first, or correct the run file",
            )
