"""``mlmm run``: build the system of a run file, simulate it, write the report."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.cli.progress import ProgressLine
from mlmm.cli.session import add_config, build_shown, checked_potential, run_name
from mlmm.cli.session import start as set_up
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
from mlmm.config.schema import RunConfig
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.start import VELOCITIES, Start, check_start
from mlmm.errors import ConfigError, SimulationError

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem

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
  mlmm run my/run.toml --from runs/my --out runs/second --set run.seed=2 --set run.minimise=0
                                                     branch: another run from the end of one

No time step is safe by itself: mlmm check timestep my/run.toml tests some on your system. Steps longer than
those in tests/benchmarks/TIMESTEPS.md give a warning.

keys of a run file with their defaults, each as --set takes it; those of [system] are in mlmm build --help.
mlmm config --explain prints all of them with units and choices:

{_KEYS}
"""
_TREE = """  report.html      the page to look at
  energies.csv     energies by force group, temperature, committee spread, bias and collective variables
  trajectory.dcd   frames around the region; topology.pdb first, final.pdb last (B-factor: lambda;
                   .cif beside them where ids do not fit a PDB file)
  lambda.npy       lambda of every atom in every frame, for adaptive zones only
  to_label.xyz     frames beyond a limit of [uncertainty], with the reason, if there are any
  build_log.txt    every decision of the build that was taken for you; build_log.json the same as data
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
    verb.add_argument(
        "--from",
        dest="start",
        metavar="RUN",
        help="start where another run is, at its last checkpoint, with the system that it built",
    )
    verb.add_argument(
        "--frame",
        type=int,
        metavar="N",
        help="with --from: start from this frame, from 1, or from -1 backwards",
    )
    verb.add_argument(
        "--velocities",
        choices=VELOCITIES,
        help="with --from: drawn anew (default), or those of the checkpoint",
    )


def run(options: argparse.Namespace) -> int:
    """Build, simulate and report."""
    out = Path(options.out) if options.out else Path("runs") / run_name(options.config)
    directory = RunDirectory(out)
    start = _start(options)
    check_start(start, directory, options.resume)
    if options.resume:
        directory.check_resumable()
    else:
        RunDirectory.check_free(out, options.overwrite)
    # A run that was killed before it began has no settings of its own yet.
    going_on = options.resume and directory.begun
    if options.resume and not going_on:
        start = Start.recorded(directory) or start
    # Without its own settings the run file does: other settings than those of the checkpoint are refused.
    own = out / "resolved.toml"
    config = load_config(own if going_on and own.exists() else options.config, options.set)
    set_up(config, options)
    stages = stages_from(config)
    potential = potential_from(config) if going_on else checked_potential(config)
    from mlmm.dynamics.simulate import simulate
    from mlmm.report import read_record, write_report

    print(f"{out}/\n{_TREE}", end="")
    built = _built(config, directory if going_on else None, start)
    hybrid = hybrid_from(config, built, potential=potential)
    print(describe(hybrid))
    config = resolved(config, hybrid)
    try:
        with ProgressLine() as line:
            simulate(
                hybrid,
                RunDirectory(out, config.as_dict()),
                stages,
                run_options(config),
                resume=options.resume,
                overwrite=options.overwrite,
                monitor=monitor_from(config, hybrid),
                progress=line.show,
                start=None if options.resume and directory.recorded else start,
                title=config.run.title or run_name(options.config),
            )
    except SimulationError:
        record = read_record(out)
        print(record.verdict.line)
        print(f"report of the failed run: {write_report(record)}")
        raise
    except (KeyboardInterrupt, SystemExit):
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


def _start(options: argparse.Namespace) -> Start | None:
    """Where the run begins, if the options name another run."""
    if options.start is not None:
        return Start(options.start, options.frame, options.velocities or "new")
    for name in ("frame", "velocities"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--from RUN with --{name}", "none", f"add --from, or leave --{name} out")
    return None


def _built(config: RunConfig, resumed: RunDirectory | None, start: Start | None) -> BuiltSystem:
    """The system of a run that goes on, or of the one from which it starts, or a new one."""
    source = resumed if start is None else RunDirectory(Path(start.run))
    if source is None:
        return build_shown(config)
    from mlmm.build import BuiltSystem

    if source.file("resolved.toml").exists():
        theirs = load_config(source.file("resolved.toml")).system
        pairs = ((f.name, getattr(theirs, f.name), getattr(config.system, f.name)) for f in fields(theirs))
        other = [f"{name} = {now!r} (there: {then!r})" for name, then, now in pairs if then != now]
        if other:
            raise ConfigError(
                f"[system] as in {source.path}, whose system is taken over",
                "; ".join(other),
                "leave it as it is there, or choose another --out"
                + (" and leave --from out" if start else ""),
            )
    built = BuiltSystem.load(source.built_folder)
    print(f"{built.n_atoms} atoms as {source.path} has them")
    return built
