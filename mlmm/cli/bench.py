"""``mlmm bench``: its options, its help, what it writes and prints."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from mlmm.errors import ConfigError

__all__ = ["add_bench_options", "bench_text"]

_EPILOG = """what is timed, in turn in one process, so that whatever else the machine does falls on all alike:
  mm           the force field alone
  mlmm         scheme additive: the region alone in the potential, with the kernel that mlmm chooses
  mlmm-torch   the same with the networks in torch
  mlmm-local   scheme per_atom with the default zone, more atoms in the potential
  mlmm-lists   as mlmm-torch, with lists of neighbours as long as they have to be, also on a GPU
  mlmm-graphs  as mlmm-torch, with lists of fixed length, recorded as a CUDA graph where there is CUDA
  openmm-ml    OpenMM-ML's mechanical embedding with the same weights, if it is installed

The two before the last by default on a GPU only.

in which systems (--systems, all by default; on a GPU whole steps only, of the first two, regions and sizes):
  dipeptide    22 atoms in the potential, 2,269 in all; memory and start-up, each in a process of its own
  water        300 atoms in the potential, in the same box
  kernel       energy and forces without OpenMM
  regions      22 to 2,000 atoms in the potential
  sizes        2,000 to 100,000 atoms in all
  bridge       a potential that costs nothing

  mlmm bench                                             minutes; nothing else should run meanwhile
  mlmm bench --quick                                     a first look
  mlmm bench --json bench.json --plot bench.png --markdown tests/benchmarks/RESULTS.md
  mlmm bench --platform CUDA --json gpu.json             whole steps on a GPU, by the clock
  mlmm bench --systems dipeptide --growth 100000         memory over 10^5 steps; a quarter of an hour
"""


def add_bench_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb and its help."""
    verb.epilog, verb.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    verb.add_argument("--quick", action="store_true", help="few blocks, small systems: half a minute")
    verb.add_argument("--systems", metavar="A,B", help="some of those below, with commas")
    verb.add_argument("--variants", metavar="A,B", help="some of those below, with commas")
    verb.add_argument(
        "--potential", default="ani1x", metavar="NAME", help='"ani1x" (default) or "ani2x", for all variants'
    )
    verb.add_argument(
        "--platform", default="CPU", metavar="NAME", help='of OpenMM: "CPU" (default), "CUDA" …'
    )
    verb.add_argument("--threads", type=int, default=0, metavar="N", help="of OpenMM (default: its own)")
    verb.add_argument(
        "--growth", type=int, default=0, metavar="STEPS", help="growth of memory over so many steps"
    )
    verb.add_argument("--json", metavar="FILE", help="write all figures")
    verb.add_argument("--plot", metavar="FILE", help="draw cost by size, .png, .svg or .pdf")
    verb.add_argument("--markdown", metavar="FILE", help="write the tables as a page")


def bench_text(options: argparse.Namespace, progress: Callable[[str], None]) -> str:
    """Run the benchmark, write its files; returns the table and what was written.

    Raises
    ------
    ConfigError
        Files that cannot be written, unknown systems or variants, negative numbers.
    """
    for name, path in (("--json", options.json), ("--plot", options.plot), ("--markdown", options.markdown)):
        if path and not Path(path).resolve().parent.is_dir():
            raise ConfigError(f"{name} with a file in a folder that exists", path, "correct the name")
    if options.plot and Path(options.plot).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError("--plot with a .png, .svg or .pdf file", options.plot, "correct the name")
    if min(options.threads, options.growth) < 0:
        raise ConfigError("--threads and --growth not negative", "a negative number", "correct it")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    from mlmm.bench import run_bench

    report = run_bench(
        suites=_names(options.systems),
        variants=_names(options.variants),
        potential=options.potential,
        platform=options.platform,
        quick=options.quick,
        threads=options.threads or None,
        growth_steps=options.growth,
        progress=progress,
    )
    written = []
    if options.json:
        written.append(report.write_json(options.json))
    if options.plot:
        written.append(report.plot(options.plot))
    if options.markdown:
        picture = Path(options.plot).name if options.plot else None
        written.append(report.write_markdown(options.markdown, _command(options), picture))
    return "\n".join([str(report), *(f"written: {path}" for path in written)])


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _command(options: argparse.Namespace) -> str:
    """The command line again, from what differs from the defaults."""
    parts = ["mlmm", "bench"]
    for name in ("systems", "variants", "threads", "growth", "json", "plot", "markdown"):
        value = getattr(options, name)
        if value:
            parts += [f"--{name}", str(value)]
    if options.platform != "CPU":
        parts += ["--platform", options.platform]
    if options.potential != "ani1x":
        parts += ["--potential", options.potential]
    return shlex.join([*parts, *(["--quick"] if options.quick else [])])
