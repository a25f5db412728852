"""``mlmm label``: energies and forces by electronic structure, into a data set."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from mlmm.cli.progress import say

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Label structures by electronic structure: energies, forces, forces on point charges."
EPILOG = """INPUT is a TOML file, or structure files (xyz, extended xyz, pdb), run directories or data sets.

examples:
  mlmm label --methods                              what there is, and what is ready here
  mlmm label --template xtb > label.toml            a commented file to start from
  mlmm label label.toml                             label; killed, the same line goes on
  mlmm label label.toml --set executor.workers=8    or --set executor.scheduler=slurm.toml, with Dask
  mlmm label frames.xyz --method tblite --charge -2 --out labels
  mlmm label runs/my --method aiqm2 --out labels    the region of each frame among its point charges
  mlmm label gfn2 --method pyscf --option functional=wb97x-d3bj --option basis=6-31+g* --out dft
  mlmm label --explain pyscf                        every option of a method
  mlmm label --install aiqm2                        fetch its networks; their licence is shown

The data set is a folder: set.json, structures.xyz (extended xyz; ASE reads it), point_charges.bin. One level
of theory for each set. What did not converge is recorded and never used; more of it than output.failure_limit
stops the labelling. Nothing is labelled twice, after an interruption or with more structures later.
"""
_EVERY = 10.0  # s between two lines of progress


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("input", nargs="*", metavar="INPUT", help="label.toml, or structures")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting; repeatable"
    )
    parser.add_argument("--method", default="", metavar="NAME", help="with structures: the method")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="with structures: of the method"
    )
    parser.add_argument("--charge", type=int, help="with structures: net charge")
    parser.add_argument("--multiplicity", type=int, help="with structures: 2 for a radical")
    parser.add_argument("--out", default="", metavar="FOLDER", help="data set (default labels)")
    parser.add_argument("--workers", type=int, help="processes of one thread each (default one a core)")
    parser.add_argument("--methods", action="store_true", help="list the methods")
    parser.add_argument("--explain", default="", metavar="NAME", help="list the options of a method")
    parser.add_argument("--template", default="", metavar="NAME", help="print a file for a method")
    parser.add_argument("--install", default="", metavar="NAME", help="fetch what a method needs: aiqm2")


def run(options: argparse.Namespace) -> int:
    """Label, or tell about methods."""
    if options.methods:
        print(_table())
    elif options.explain or options.template:
        from mlmm.config.explain import option_page
        from mlmm.config.label_text import label_template
        from mlmm.reference.methods import method_class

        if options.template:
            print(label_template(options.template), end="")
        else:
            print(option_page(method_class(options.explain)))
    elif options.install:
        return _install(options.install)
    else:
        _label(options)
    return 0


def _label(options: argparse.Namespace) -> None:
    from mlmm.config.label_file import read_molecules
    from mlmm.ensembles.executors import open_executor
    from mlmm.learning.dataset.inspection import inspect_pairs
    from mlmm.learning.labelling import label_into

    job = _job(options)
    molecules = read_molecules(job.structures)
    around = sum(molecule.external is not None for molecule in molecules)
    say(f"{len(molecules):,} structures, {around:,} of them among point charges; method {job.method}")
    progress = _Progress()
    with open_executor(job.executor) as executor:
        report = label_into(
            job.output.dataset,
            molecules,
            job.method,
            executor=executor,
            failure_limit=job.output.failure_limit,
            progress=progress,
            **job.options,
        )
    for finding in inspect_pairs(report.dataset.pairs()):
        print(f"  look at this: {finding}", file=sys.stderr)
    print(report)
    print(f"content {report.dataset.content_hash}")
    if report.lost:
        print(f"{report.lost} structures have no label, since a worker died: run it again", file=sys.stderr)


def _job(options: argparse.Namespace) -> Any:
    """The checked file, or the same made of arguments."""
    from mlmm.config.label_file import check_job, load_label_file
    from mlmm.errors import ConfigError

    if not options.input:
        raise ConfigError(
            "a TOML file or structures to label", "nothing", "mlmm label --template xtb, which prints a file"
        )
    changes = list(options.set)
    if options.out:
        changes.append(f"output.dataset={options.out}")
    if options.workers is not None:
        changes.append(f"executor.workers={options.workers}")
    if options.input[0].endswith(".toml"):
        names = ("method", "option", "charge", "multiplicity")
        given = [name for name in names if getattr(options, name) not in ("", [], None)]
        if len(options.input) > 1 or given:
            raise ConfigError(
                "a TOML file alone",
                ", ".join([*options.input[1:], *(f"--{name}" for name in given)]),
                'write them into the file, or --set structures.charge=-1 and --set method.name="xtb"',
            )
        return load_label_file(options.input[0], changes)
    structures: dict[str, Any] = {"files": [], "runs": [], "sets": []}
    for name in options.input:
        kind = "files"
        if Path(name).is_dir():
            kind = "sets" if (Path(name) / "set.json").exists() else "runs"
        structures[kind].append(name)
    for key in ("charge", "multiplicity"):
        if getattr(options, key) is not None:
            structures[key] = getattr(options, key)
    changes += [f"method.{entry}" for entry in options.option]
    return check_job({"structures": structures, "method": {"name": options.method}}, changes)


def _table() -> str:
    from mlmm.check_report import aligned
    from mlmm.reference.methods import METHODS, missing

    rows = [("name", "what it is", "licence", "ready")]
    advice = []
    for name, known in METHODS.items():
        lacking = missing(name)
        rows.append((name, known.about, known.licence, "no" if lacking else "yes"))
        if lacking:
            advice.append((name, lacking))
    text = aligned(rows, left=4)
    if advice:
        text += "\n\nto make them ready:\n" + textwrap.indent(aligned(advice, left=2), "  ")
    return text


def _install(name: str) -> int:
    from mlmm.errors import ConfigError
    from mlmm.reference.aiqm2_files import LICENCE, install_networks
    from mlmm.reference.methods import METHODS

    if name != "aiqm2":
        known = METHODS.get(name)
        raise ConfigError(
            "a method whose files can be fetched: aiqm2", repr(name), known.install if known else "correct it"
        )
    print(textwrap.fill(LICENCE, 100))
    print(f"{name}: {install_networks(say)}")
    return 0


class _Progress:
    """A line every ten seconds: how many, and the time left."""

    def __init__(self) -> None:
        self._start = self._printed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._printed < _EVERY and done < total:
            return
        self._printed = now
        left = (now - self._start) / done * (total - done)
        minutes, seconds = divmod(round(left), 60)
        print(f"  labelled     {done:,}/{total:,}  {minutes}:{seconds:02d} left", file=sys.stderr, flush=True)
