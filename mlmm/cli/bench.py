"""``mlmm bench``: its options, its help, what it writes and prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.config.load import load_config
from mlmm.config.objects import hybrid_from, monitor_from, run_options, stages_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem
    from mlmm.hybrid.system import HybridSystem

__all__ = ["BENCH_EPILOG", "add_bench_options", "bench_alternatives", "bench_text"]

BENCH_EPILOG = """The step of a run file is timed on this machine and divided into the force field that stays,
the pairs that the potential replaces, the potential, and the bridge. Beside it stand the force field
alone, and what the energy table, frames and checkpoints cost per step. All rows take turns in blocks of
about 0.15 s, so that whatever else the machine does falls on all of them alike.

  cpu ms        processor time of all threads per step, median over the blocks
  wall ms       elapsed time per step, median; ns/day follows from it
  fastest wall  elapsed time in the fastest block: a wide gap means a busy machine

  mlmm bench systems/alanine_dipeptide/run.toml                              half a minute, and the build
  mlmm bench my/run.toml --quick                                             three blocks of each row
  mlmm bench my/run.toml --against potential.bridge=pythonforce --against potential.kernel=torch
  mlmm bench my/run.toml --set run.platform=CUDA --json gpu.json             whole steps wait for the GPU

A setting of --against that cannot run here loses its row, with the reason.
"""
# What another setting may change without another structure.
_SAME_STRUCTURE = ("potential", "embedding", "zones")
_ROUNDS, _QUICK_ROUNDS = 12, 3
_ITERATIONS, _QUICK_ITERATIONS = 100, 30


def add_bench_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("--quick", action="store_true", help="three blocks of each row instead of twelve")
    verb.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="time the step with another setting in the same turns; may be given several times",
    )
    verb.add_argument("--json", metavar="FILE", help="write all figures")


def bench_alternatives(options: argparse.Namespace) -> dict[str, RunConfig]:
    """The settings of ``--against``, each by its own text, after a look at the options.

    Raises
    ------
    ConfigError
        A setting that would need another structure, or a file that cannot be written.
    """
    if options.json and not Path(options.json).resolve().parent.is_dir():
        raise ConfigError("--json with a file in a folder that exists", options.json, "correct the name")
    for text in options.against:
        if text.partition(".")[0] not in _SAME_STRUCTURE:
            raise ConfigError(
                f"--against with a key of {', '.join(f'[{name}]' for name in _SAME_STRUCTURE)}",
                text,
                "time another system or run with --set, in a run of its own",
            )
    return {text: load_config(options.config, [*options.set, text]) for text in options.against}


def bench_text(
    config: RunConfig,
    alternatives: Mapping[str, RunConfig],
    built: BuiltSystem,
    options: argparse.Namespace,
    progress: Callable[[str], None],
) -> str:
    """Time the step of a run file, write the figures; returns the table.

    Parameters
    ----------
    config : RunConfig
    alternatives : mapping of str to RunConfig
        From `bench_alternatives`.
    built : BuiltSystem
    options : argparse.Namespace
    progress : callable

    Raises
    ------
    ConfigError
        A run file without dynamics, or an unknown platform.
    """
    from mlmm.bench import measure_step
    from mlmm.dynamics.stages import Dynamics

    dynamics = [stage for stage in stages_from(config) if isinstance(stage, Dynamics)]
    if not dynamics:
        raise ConfigError("a stage of dynamics to time", "none", 'set run.produce = "1 ps"')
    # Production if there is any: an equilibration may have another friction.
    stage = next((s for s in dynamics if s.trajectory and s.name == "produce"), dynamics[-1])
    progress("hybrid system")
    hybrid = hybrid_from(config, built)
    cost = measure_step(
        hybrid,
        stage,
        run_options(config),
        rounds=_QUICK_ROUNDS if options.quick else _ROUNDS,
        minimise=_QUICK_ITERATIONS if options.quick else _ITERATIONS,
        monitor=monitor_from(config, hybrid),
        against={text: _maker(other, built) for text, other in alternatives.items()},
        progress=progress,
    )
    written = [f"written: {cost.write_json(options.json)}"] if options.json else []
    return "\n".join([str(cost), *written])


def _maker(config: RunConfig, built: BuiltSystem) -> Callable[[], HybridSystem]:
    return lambda: hybrid_from(config, built)
