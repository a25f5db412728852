"""The command line: the parser of every verb, and what is printed where one fails."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence

from mlmm.cli import (
    build,
    calibrate,
    check,
    config,
    correct,
    endstate,
    freq,
    init,
    irc,
    label,
    learn,
    ligand,
    models,
    neb,
    pmf,
    report,
    run,
    scan,
    train,
    ts,
)
from mlmm.cli.bench import BENCH_EPILOG, add_bench_options, bench_alternatives, bench_text
from mlmm.cli.check import VerbParser
from mlmm.cli.progress import say
from mlmm.cli.session import add_config, build_system_of, start
from mlmm.config.load import load_config
from mlmm.errors import MLMMError

__all__ = ["main"]

_EPILOG = """examples:
  mlmm run systems/alanine_dipeptide/run.toml        build, minimise, equilibrate, produce, report
  mlmm init 3PTB --download --out my/run.toml        a commented run file to start from
  mlmm config --explain zones                        every key of [zones], with unit and meaning
  mlmm run my/run.toml --set run.timestep="1 fs"     change one setting
  mlmm build 2CHT --dry-run                          look at a structure before anything is built
  mlmm run my/run.toml --resume                      go on after Ctrl-C, SIGTERM or a crash
  mlmm check my/run.toml                             finite differences, both bridges, energy drift
  mlmm check zones my/run.toml                       which zone for which error, with a picture
  mlmm check schemes my/run.toml                     which scheme leaves the smallest error on the region
  mlmm check timestep my/run.toml                    which time steps are stable
  mlmm calibrate my/run.toml --out water.json        G(lambda) of water, for an adaptive zone; hours
  mlmm check frames runs/my                          whether molecules still drift across that zone
  mlmm train my/train.toml --out runs/model           a potential from labels of your own
  mlmm bench my/run.toml                             what a step costs here, part by part
  mlmm scan my/run.toml                              a relaxed scan along a variable; then neb, ts, irc, freq
  mlmm pmf my/run.toml --workers 4                   free-energy profile along a variable, barrier with error
  mlmm correct runs/my-pmf --to gfn2                 the same with a better method, by reweighting frames
  mlmm label label.toml                              energies and forces by electronic structure
  mlmm report runs/my                                write report.html again

exit status: 0 done, 1 a physics check failed, 2 something to correct in the input or the run,
130 or 143 interrupted
"""
_VERBS = {
    "init": init,
    "config": config,
    "build": build,
    "run": run,
    "check": check,
    "calibrate": calibrate,
    "scan": scan,
    "neb": neb,
    "ts": ts,
    "irc": irc,
    "freq": freq,
    "pmf": pmf,
    "correct": correct,
    "endstate": endstate,
    "report": report,
    "label": label,
    "ligand": ligand,
    "models": models,
    "train": train,
    "learn": learn,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mlmm``; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal has no letter for is written as its number, and does not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = _parser()
    options = parser.parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except MLMMError as error:
        print(f"mlmm: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"mlmm: error: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mlmm: interrupted", file=sys.stderr)
        return 130


def _bench(options: argparse.Namespace) -> int:
    """Time the step of a run file and its parts on this machine."""
    settings = load_config(options.config, options.set)
    alternatives = bench_alternatives(options)
    start(settings, options)
    print(bench_text(settings, alternatives, build_system_of(settings), options, say))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = VerbParser(
        prog="mlmm",
        description="Hybrid machine-learning / molecular-mechanics simulation on OpenMM and PyTorch.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, module in _VERBS.items():
        verb = verbs.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(verb=getattr(module, "run", None))
        module.add_options(verb)
    text = "Time the step of a run file on this machine, divided into its parts."
    verb = verbs.add_parser(
        "bench",
        help=text,
        description=text,
        epilog=BENCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(verb=_bench)
    add_config(verb)
    add_bench_options(verb)
    return parser
