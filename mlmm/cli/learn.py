"""``mlmm learn``: active learning from one file, in rounds that a kill does not change."""

from __future__ import annotations

import argparse
import os
import textwrap
from pathlib import Path
from typing import Any

from mlmm.cli.progress import say
from mlmm.errors import ConfigError, MLMMError
from mlmm.learning.active.config import SECTIONS, LearnConfig, load_learning
from mlmm.options import default_of, fields_of, options_of, toml
from mlmm.whole_files import write_whole

__all__ = ["EPILOG", "HELP", "TEMPLATE", "add_options", "run"]

HELP = "Active learning: explore, choose, label, train, until the errors on held-out labels are small."
TEMPLATE = """[explore]
kind = "dynamics"              # or "pool", "modes", "distortion", "run": mlmm run with the model
structures = "molecule.xyz"    # xyz files, data sets, run directories
first = "method"               # dynamics of the first round: the reference method, or a potential: "ani1x"
count = 200                    # structures in each round
temperature = "400 K"

[method]
name = "xtb"                   # reference method, see mlmm label --methods; its options follow here

[choice]
by = "spread"                  # or "distance", "determinant", "cur"; "passive" is the control
start = 40                     # labels before the first training
batch = 20                     # labels in each round

[stop]
rounds = 5
energy = "3 kJ/mol"            # mean absolute error in the worst basin
force = "60 kJ/mol/nm"

[loop]
held_out = 30                  # labels that are never trained on

[networks]
start = "ani1x"                # what is trained: [model], [networks], [kernel], [fit] as in mlmm train
members = 4

[fit]
epochs = 150
"""
EPILOG = f"""a file of a loop, as `mlmm learn --template` prints it:

{TEMPLATE}
what happens:
  Some explored structures are held out, block by block, labelled and never trained on. Then, in rounds:
  structures are explored with the model of the round before, some are chosen (uncertain ones, unlike each
  other, some at random), labelled on several processes, and a potential is trained on all labels so far. It
  ends when energies, forces and their uncertainty meet the targets in every basin, or after so many rounds.
  Whether the choice beats chance only a control tells: the same file with choice.by=passive.

examples:
  mlmm learn my/learn.toml                                       in runs/NAME; killed, the same line goes on
  mlmm learn my/learn.toml --set choice.by=passive --out runs/passive       the control
  mlmm report runs/active runs/passive                           both learning curves in one picture
  mlmm learn my/learn.toml --set stop.rounds=8                   go on with more rounds
  mlmm learn my/learn.toml --set executor.scheduler=slurm.toml   labels on a cluster, by Dask
  mlmm learn --explain choice                                    every key of [choice]

the folder: round_000, round_001 …: candidates, chosen.json, labels, model, measured.json; data, held_out:
data sets of extended XYZ; model.safetensors: the last model, for mlmm run; report.html
"""
_WIDTH = 100
_MODEL = "model.safetensors"


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("file", nargs="?", help="file of a loop, in TOML")
    verb.add_argument("--out", default="", metavar="FOLDER", help="by default runs/NAME")
    verb.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a key")
    verb.add_argument("--template", action="store_true", help="print a file to start from")
    verb.add_argument("--explain", metavar="SECTION", help="print the keys of a section")


def run(options: argparse.Namespace) -> int:
    """Run the loop, or go on with it, and write its page."""
    if options.template:
        print(TEMPLATE, end="")
        return 0
    if options.explain is not None:
        if options.explain not in SECTIONS:
            known = ", ".join(SECTIONS)
            raise ConfigError(
                f"a section of {known}",
                repr(options.explain),
                "mlmm label --explain xtb, for the keys of [method]",
            )
        print(_explained(options.explain))
        return 0
    if not options.file:
        raise ConfigError("the file of a loop", "none", "mlmm learn --template > learn.toml")
    config = load_learning(options.file, options.set)
    out = Path(options.out) if options.out else Path("runs") / Path(options.file).stem
    # One thread, so that a resumed loop has the same bits; labels run on processes of their own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        rounds = _learn(config, out)
    finally:
        page = _page(out)
    print("\n".join(page))
    return 0 if rounds else 1


def _learn(config: LearnConfig, out: Path) -> list[dict[str, Any]]:
    from mlmm.ensembles.executors import open_executor
    from mlmm.learning.active.backends import learning_steps
    from mlmm.learning.active.loop import learn
    from mlmm.reference.methods import reference_method

    method = reference_method(config.method, **config.method_options)
    explore = None
    if config.explore.kind == "run":
        from mlmm.config.learning import run_explorer

        explore = run_explorer(config.explore, out)
    with open_executor(config.executor) as executor:
        steps = learning_steps(config, method, executor, explore)
        rounds = learn(
            out, steps, config.loop, config.choice, config.stop, settings=config.settings(), say=say
        )
    last = out / f"round_{len(rounds) - 1:03d}" / "model" / _MODEL
    write_whole(out / _MODEL, last.read_bytes())
    return rounds


def _explained(section: str) -> str:
    schema = SECTIONS[section]
    names, lines = fields_of(schema), [f"[{section}]"]
    for key, entry in options_of(schema).items():
        lines.append(f"{key} = {toml(default_of(schema, names[key]))}")
        text = f"{entry.help} ({entry.values})"
        lines.append(textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


def _page(out: Path) -> list[str]:
    """Write the page of what there is; verdict and path in lines."""
    from mlmm.report.learning_page import is_learning, judge_learning, read_learning, write_learning_report

    if not (out / "settings.json").exists() or not is_learning(out):
        return []
    try:
        verdict = judge_learning(read_learning(out))
        lines = [verdict.headline, *(f"  {line}" for line in verdict.lines)]
        return [*lines, f"report: {write_learning_report(out)}"]
    except MLMMError as error:
        return [f"no report: {error}"]
