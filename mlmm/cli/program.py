"""The command line: one function per verb, each a straight list of library calls."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.cli.bench import BENCH_EPILOG, add_bench_options, bench_alternatives, bench_text
from mlmm.cli.build import BUILD_EPILOG, add_build_options, build_file, config_of, plan_text
from mlmm.cli.calibrate import add_calibrate_options, calibrate_file
from mlmm.cli.compare_schemes import COMPARE_EPILOG, add_compare_options, compare_text, compared_plateaus
from mlmm.cli.ligand import add_ligand_options, ligand_file
from mlmm.cli.mean_force import MEAN_FORCE_EPILOG, add_mean_force_options, mean_force_tables
from mlmm.cli.models import MODELS_EPILOG, add_models_options, models_text
from mlmm.cli.progress import LogHandler, ProgressLine, Stages, say
from mlmm.cli.run import RUN_EPILOG
from mlmm.cli.scan_zones import SCAN_EPILOG, add_scan_options, scan_axes, scan_text
from mlmm.cli.time_steps import TIMESTEP_EPILOG, add_timestep_options, timestep_axes, timestep_text
from mlmm.config.load import RunConfig, load_config
from mlmm.config.objects import build_from, describe, hybrid_from, monitor_from, resolved, stages_from
from mlmm.errors import MLMMError, SimulationError

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem

__all__ = ["main"]

_EPILOG = """examples:
  mlmm run systems/alanine_dipeptide/run.toml        build, minimise, equilibrate, produce, report
  mlmm run my/run.toml --set run.timestep="1 fs"     change one setting
  mlmm build 2CHT --dry-run                          look at a structure before anything is built
  mlmm run my/run.toml --resume                      go on after Ctrl-C, SIGTERM or a crash
  mlmm check my/run.toml                             finite differences, both bridges, energy drift
  mlmm check my/run.toml --scan plateau,width        which zone for which error, with a picture
  mlmm calibrate my/run.toml --out water.json        G(lambda) of water, for an adaptive zone; hours
  mlmm check my/run.toml --compare                   which scheme does least harm to the region
  mlmm check my/run.toml --timestep                  which time steps are stable
  mlmm bench my/run.toml                             what a step costs here, part by part
  mlmm report runs/my                                write report.html again

exit status: 0 done, 1 a physics check failed, 2 something to correct in the input or the run,
130 or 143 interrupted
"""

_TREE = """  report.html      the page to look at
  energies.csv     energies by force group, temperature, committee spread
  trajectory.dcd   frames around the region; topology.pdb first, final.pdb last (B-factor: lambda)
  lambda.npy       lambda of every atom in every frame, for adaptive zones only
  to_label.xyz     frames beyond a limit of [uncertainty], with the reason, if there are any
  run.json         facts and state; resolved.toml, run.log, built/ and checkpoint.zip: to repeat or resume
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mlmm``; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.verb(options)
    except MLMMError as error:
        print(f"mlmm: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mlmm: interrupted", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    """Build, simulate and report."""
    out = Path(options.out) if options.out else Path("runs") / _name(options.config)
    config = load_config(out / "resolved.toml" if options.resume else options.config, options.set)
    _start(config, options)
    print(f"{out}/\n{_TREE}", end="")
    from mlmm.dynamics.run_directory import RunDirectory
    from mlmm.dynamics.simulate import simulate
    from mlmm.report import write_report

    if options.resume:
        from mlmm.build import BuiltSystem

        built = BuiltSystem.load(RunDirectory(out).built_folder)
    else:
        RunDirectory.check_free(out, options.overwrite)
        built = _build(config)
    hybrid = hybrid_from(config, built)
    print(describe(hybrid))
    config = resolved(config, hybrid)
    settings, report = config.run, config.report
    try:
        with ProgressLine() as line:
            directory = simulate(
                hybrid,
                RunDirectory(out, config.as_dict()),
                stages_from(config),
                seed=settings.seed,
                platform=settings.platform,
                threads=settings.threads,
                report_interval=report.interval,
                trajectory_interval=report.trajectory_interval,
                checkpoint_interval=report.checkpoint_interval,
                resume=options.resume,
                overwrite=options.overwrite,
                progress=line.show,
                title=_name(options.config),
                monitor=monitor_from(config, hybrid),
            )
    except SimulationError:
        print(f"report of the failed run: {write_report(out)}")
        raise
    page = write_report(directory.path)
    summary = directory.summary
    if directory.state == "interrupted":
        print(f"interrupted; go on with: mlmm run {options.config} --out {out} --resume")
        return 143 if "SIGTERM" in str(summary["message"]) else 130
    timing = summary.get("timing")
    if timing:
        print(
            f"{timing['ms_per_step']:.1f} ms per step (force evaluation: ML {timing['ml_ms']:.1f} ms, "
            f"MM {timing['mm_ms']:.1f} ms), {timing['ns_per_day']:.3g} ns/day"
        )
    print(f"report: {page}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Check the hybrid system of a run file, or scan its zones, or compare the schemes."""
    config = load_config(options.config, options.set)
    axes, plateaus = scan_axes(config, options), compared_plateaus(options, config)
    steps = timestep_axes(options)
    _start(config, options)
    if axes:
        print(scan_text(config, _build(config), options, axes, say))
        return 0
    if plateaus:
        print(compare_text(config, _build(config), options, plateaus, say))
        return 0
    if steps:
        hybrid = hybrid_from(config, _build(config))
        print(describe(hybrid))
        text, any_stable = timestep_text(config, hybrid, options, steps, say)
        print(text)
        return 0 if any_stable else 1
    from mlmm.units import parse
    from mlmm.validation.check import CheckReport, check_drift, check_energy

    built = _build(config)
    settings = config.run
    # What is exact is checked in float64; how well a run conserves its energy, with the precision of the run.
    exact = hybrid_from(config, built, precision="float64")
    print(describe(exact))
    energy = check_energy(exact, seed=settings.seed, progress=say)
    results = energy.results
    if parse(options.nve, "time", "--nve"):
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
    report = CheckReport(results, energy.tables + mean_force_tables(_name(options.config), options, say))
    print(report)
    return 0 if report.passed else 1


def build(options: argparse.Namespace) -> int:
    """Build a system and save it, or show what would be done."""
    config = config_of(options)
    _start(config, options)
    if options.dry_run:
        text, possible = plan_text(config)
        print(text)
        return 0 if possible else 2
    with Stages() as stages:
        text = build_file(config, options, stages.show)
    print(text)
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """Calibrate the compensation of an adaptive zone."""
    config = load_config(options.config, options.set)
    _start(config, options)
    with Stages(timed=False) as steps:
        text = calibrate_file(config, options, steps.show)
    print(text)
    return 0


def bench(options: argparse.Namespace) -> int:
    """Time the step of a run file and its parts on this machine."""
    config = load_config(options.config, options.set)
    alternatives = bench_alternatives(options)
    _start(config, options)
    print(bench_text(config, alternatives, _build(config), options, say))
    return 0


def ligand(options: argparse.Namespace) -> int:
    """Write force-field parameters of one molecule."""
    print(ligand_file(options, say))
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the report of a run directory."""
    from mlmm.report import write_report

    print(f"report: {write_report(options.directory)}")
    return 0


def models(options: argparse.Namespace) -> int:
    """List potentials, show one, install it, check its contract."""
    text, passed = models_text(options, say)
    print(text)
    return 0 if passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlmm",
        description="Hybrid machine-learning / molecular-mechanics simulation on OpenMM and PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(verb=function)
        return verb

    def takes_config(
        verb: argparse.ArgumentParser, what: str = "run file in TOML (see systems/*/run.toml)"
    ) -> None:
        verb.add_argument("config", help=what)
        verb.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="SECTION.KEY=VALUE",
            help='change one setting, for instance run.timestep="1 fs"; may be given several times',
        )
        verb.add_argument("-v", "--verbose", action="store_true", help="show the log on the terminal")

    verb = add("run", run, "Build the system of a run file, simulate it, write the report.")
    verb.epilog, verb.formatter_class = RUN_EPILOG, argparse.RawDescriptionHelpFormatter
    takes_config(verb)
    verb.add_argument("--out", metavar="DIR", help="run directory (default: runs/NAME)")
    how = verb.add_mutually_exclusive_group()
    how.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run, with its own settings"
    )
    how.add_argument("--overwrite", action="store_true", help="replace the run that is there")
    verb = add(
        "check", check, "Check forces, bridges, periodic images and energy drift; exit status 1 if one fails."
    )
    verb.epilog, verb.formatter_class = (
        SCAN_EPILOG + COMPARE_EPILOG + TIMESTEP_EPILOG + MEAN_FORCE_EPILOG,
        argparse.RawDescriptionHelpFormatter,
    )
    takes_config(verb)
    verb.add_argument(
        "--nve", default="1 ps", metavar="TIME", help='length of each NVE run (default "1 ps"; "0 ps": none)'
    )
    verb.add_argument(
        "--equilibration", default="0.5 ps", metavar="TIME", help='before it (default "0.5 ps")'
    )
    for add_options in (add_scan_options, add_compare_options, add_timestep_options, add_mean_force_options):
        add_options(verb)
    verb = add("build", build, "Build the system of a run file, or of a structure, and save it with its log.")
    verb.epilog, verb.formatter_class = BUILD_EPILOG, argparse.RawDescriptionHelpFormatter
    takes_config(verb, "run file in TOML, structure file, or PDB id")
    add_build_options(verb)
    verb = add("calibrate", calibrate, "Free-energy compensation G(lambda) of water for an adaptive zone.")
    takes_config(verb)
    add_calibrate_options(verb)
    verb = add("bench", bench, "Time the step of a run file on this machine, divided into its parts.")
    verb.epilog, verb.formatter_class = BENCH_EPILOG, argparse.RawDescriptionHelpFormatter
    takes_config(verb)
    add_bench_options(verb)
    add_ligand_options(add("ligand", ligand, "Force-field parameters of a small molecule, from its SMILES."))
    verb = add("report", report, "Write report.html of a run directory again.")
    verb.add_argument("directory", help="run directory")
    verb = add("models", models, "List the potentials; show, install or check one.")
    verb.epilog, verb.formatter_class = MODELS_EPILOG, argparse.RawDescriptionHelpFormatter
    add_models_options(verb)
    return parser


def _start(config: RunConfig, options: argparse.Namespace) -> None:
    """Threads, before the numerical libraries start; then the log."""
    os.environ["OMP_NUM_THREADS"] = str(config.run.ml_threads or 1)
    if config.run.threads:
        os.environ["OPENMM_CPU_THREADS"] = str(config.run.threads)
    import torch

    torch.set_num_threads(config.run.ml_threads or 1)
    terminal = LogHandler()
    terminal.setLevel(logging.INFO if options.verbose else logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("mlmm").handlers = [terminal]
    logging.getLogger("mlmm").setLevel(logging.INFO)


def _build(config: RunConfig) -> BuiltSystem:
    started = time.monotonic()
    with Stages() as stages:
        built = build_from(config, stages.show)
    print(f"built {built.n_atoms} atoms in {time.monotonic() - started:.1f} s")
    return built


def _name(config: str) -> str:
    """A run is named after its file, or after the folder of a file called run.toml."""
    path = Path(config)
    return path.resolve().parent.name if path.stem == "run" else path.stem
