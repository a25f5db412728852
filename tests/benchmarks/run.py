"""Time variants and peers side by side, write RESULTS.md and cost.png; see ``--help``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.suites import SUITES, run_suites
from benchmarks.variants import VARIANTS
from mlmm.errors import ConfigError, MLMMError

__all__ = ["main"]

_EXAMPLES = """examples:
  python tests/benchmarks/run.py                          minutes; nothing else should run meanwhile
  python tests/benchmarks/run.py --quick                  a first look
  python tests/benchmarks/run.py --write                  RESULTS.md and cost.png of this folder anew
  python tests/benchmarks/run.py --platform CUDA --json gpu.json        whole steps on a GPU, by the clock
  python tests/benchmarks/run.py --systems dipeptide --growth 100000    memory over 10^5 steps, 15 minutes

A peer that is missing or fails loses its rows, with the reason. Exit status: 0 done, 1 a variant of the
project itself lost a row, 2 something to correct in the options.
"""
_FOLDER = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites, write the files that were asked for; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MLMMError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    described = [f"  {name:<14}{what}" for table in (VARIANTS, SUITES) for name, what in table.items()]
    described.insert(len(VARIANTS), "\nsystems (--systems), all by default; on a GPU those of whole steps:")
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/run.py",
        description="Time variants and peers in turn in one process, so that whatever else the machine does "
        "falls on all alike.",
        epilog="\n".join(["variants (--variants):", *described, "", _EXAMPLES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few blocks, small systems: half a minute")
    parser.add_argument("--systems", metavar="A,B", help="some of those below, with commas")
    parser.add_argument("--variants", metavar="A,B", help="some of those below, with commas")
    parser.add_argument("--potential", default="ani1x", metavar="NAME", help='"ani1x" (default) or "ani2x"')
    parser.add_argument(
        "--platform", default="CPU", metavar="NAME", help='of OpenMM: "CPU" (default), "CUDA" …'
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of OpenMM (default: its own)")
    parser.add_argument("--growth", type=int, default=0, metavar="STEPS", help="memory over so many steps")
    parser.add_argument("--write", action="store_true", help="replace RESULTS.md and cost.png of this folder")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--plot", metavar="FILE", help="draw cost by size, .png, .svg or .pdf")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as a page")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.write:
        options.plot = options.plot or str(_FOLDER / "cost.png")
        options.markdown = options.markdown or str(_FOLDER / "RESULTS.md")
    for name, path in (("--json", options.json), ("--plot", options.plot), ("--markdown", options.markdown)):
        if path and not Path(path).resolve().parent.is_dir():
            raise ConfigError(f"{name} with a file in a folder that exists", path, "correct the name")
    if options.plot and Path(options.plot).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError("--plot with a .png, .svg or .pdf file", options.plot, "correct the name")
    if min(options.threads, options.growth) < 0:
        raise ConfigError("--threads and --growth not negative", "a negative number", "correct it")
    torch.set_num_threads(1)
    report = run_suites(
        suites=_names(options.systems),
        variants=_names(options.variants),
        potential=options.potential,
        platform=options.platform,
        quick=options.quick,
        threads=options.threads,
        growth_steps=options.growth,
        progress=lambda text: print(f"  {text} …", file=sys.stderr, flush=True),
    )
    print(report)
    if options.json:
        print(f"written: {report.write_json(options.json)}")
    if options.plot:
        print(f"written: {report.plot(options.plot)}")
    if options.markdown:
        picture = Path(options.plot).name if options.plot else None
        print(f"written: {report.write_markdown(options.markdown, _command(options), picture)}")
    return 1 if report.own_failures else 0


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _command(options: argparse.Namespace) -> str:
    """The command line again, from what differs from the defaults."""
    parts = ["python", "tests/benchmarks/run.py"]
    files = () if options.write else ("json", "plot", "markdown")
    for name in ("systems", "variants", "threads", "growth", *files):
        value = getattr(options, name)
        if value:
            parts += [f"--{name}", str(value)]
    if options.platform != "CPU":
        parts += ["--platform", options.platform]
    if options.potential != "ani1x":
        parts += ["--potential", options.potential]
    flags = [flag for flag in ("write", "quick") if getattr(options, flag)]
    return shlex.join([*parts, *(f"--{flag}" for flag in flags)])


if __name__ == "__main__":
    sys.exit(main())
