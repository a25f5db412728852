"""``mlmm run``: build the system of a run file, simulate it, write the report."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlmm.cli.progress import ProgressLine
from mlmm.cli.session import add_config, build_shown, checked_potential, run_name, start
from mlmm.config.explain import key_lines
from mlmm.config.load import load_config
from mlmm.config.objects import (
    describe,
    hybrid_from,
    monitor_from,
    potential_from,
    resolved,
    run_options,
    stages_from,
)
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError, SimulationError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Build the system of a run file, simulate it, write the report."
_SECTIONS = ("region", "zones", "potential", "embedding", "run", "report", "uncertainty")
_KEYS = key_lines(*_SECTIONS, "variable", "restraint")
EPILOG = f"""examples:
  mlmm run my/run.toml                               into runs/my, with a report
  mlmm run my/run.toml --set zones.kind=static --set zones.plateau="0.4 nm"
  mlmm run my/run.toml --set restraint.d.at="0.3 nm" --out runs/0.30   a window of umbrella sampling
  mlmm run my/run.toml --resume                      after Ctrl-C, SIGTERM or a crash
  mlmm run my/run.toml --resume --set run.produce="1 ns"    make a run longer, a finished one too

No time step is safe by itself: mlmm check timestep my/run.toml tests some on your system. Steps longer than
those in tests/benchmarks/TIMESTEPS.md give a warning.

keys of a run file with their defaults, each as --set takes it; those of [system] are in mlmm build --help.
mlmm config --explain prints all of them with units and choices:

{_KEYS}
"""
_TREE = """  report.html      the page to look at
  energies.csv     energies by force group, temperature, committee spread, bias and collective variables
  trajectory.dcd   frames around the region; topology.pdb first, final.pdb last (B-factor: lambda)
  lambda.npy       lambda of every atom in every frame, for adaptive zones only
  to_label.xyz     frames beyond a limit of [uncertainty], with the reason, if there are any
  run.json         facts and state; resolved.toml, run.log, built/ and checkpoint.zip: to repeat or resume
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb)
    verb.add_argument("--out", metavar="DIR", help="run directory (default: runs/NAME)")
    how = verb.add_mutually_exclusive_group()
    how.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run, with its own settings"
    )
    how.add_argument("--overwrite", action="store_true", help="replace the run that is there")


def run(options: argparse.Namespace) -> int:
    """Build, simulate and report."""
    out = Path(options.out) if options.out else Path("runs") / run_name(options.config)
    if options.resume:
        RunDirectory(out).check_resumable()
    else:
        RunDirectory.check_free(out, options.overwrite)
    # A run that was killed before it began has no settings of its own yet.
    going_on = options.resume and RunDirectory(out).begun
    config = load_config(out / "resolved.toml" if going_on else options.config, options.set)
    start(config, options)
    stages = stages_from(config)
    potential = potential_from(config) if going_on else checked_potential(config)
    from mlmm.dynamics.simulate import simulate
    from mlmm.report import read_record, write_report

    print(f"{out}/\n{_TREE}", end="")
    if going_on:
        from mlmm.build import BuiltSystem

        if config.system != load_config(out / "resolved.toml").system:
            raise ConfigError(
                f"[system] as in {out}", "another one in --set", "leave it out, or choose another --out"
            )
        built = BuiltSystem.load(RunDirectory(out).built_folder)
    else:
        built = build_shown(config)
    hybrid = hybrid_from(config, built, potential=potential)
    print(describe(hybrid))
    config = resolved(config, hybrid)
    try:
        with ProgressLine() as line:
            directory = simulate(
                hybrid,
                RunDirectory(out, config.as_dict()),
                stages,
                run_options(config),
                resume=options.resume,
                overwrite=options.overwrite,
                monitor=monitor_from(config, hybrid),
                progress=line.show,
                title=config.run.title or run_name(options.config),
            )
    except SimulationError:
        record = read_record(out)
        print(record.verdict.line)
        print(f"report of the failed run: {write_report(record)}")
        raise
    except (KeyboardInterrupt, SystemExit):
        directory = RunDirectory(out)
        if directory.state != "interrupted":
            raise
    record = read_record(directory.path)
    page = write_report(record)
    summary = directory.summary
    if directory.state == "interrupted":
        print(record.verdict.line)
        print(f"interrupted; go on with: mlmm run {options.config} --out {out} --resume")
        return 143 if "SIGTERM" in str(summary["message"]) else 130
    timing = summary.get("timing")
    if timing:
        print(
            f"{timing['ms_per_step']:.1f} ms per step (force evaluation: ML {timing['ml_ms']:.1f} ms, "
            f"MM {timing['mm_ms']:.1f} ms), {timing['ns_per_day']:.3g} ns/day"
        )
    print(record.verdict.line)
    print(f"report: {page}")
    return 0
