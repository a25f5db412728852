"""``mlmm train``: from labels to a potential in a file, with its errors on labels that it did not see."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.cli.progress import say
from mlmm.cli.train_templates import TEMPLATES
from mlmm.errors import ConfigError
from mlmm.learning.training.config import SECTIONS, load_training
from mlmm.whole_files import write_json

if TYPE_CHECKING:
    from mlmm.learning.training.loop import EpochReport
    from mlmm.learning.training.train import Divided, Trained

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Train a potential on labels: networks, Gaussian process, sGDML, models that see charges around."
EPILOG = f"""a file of a training, as `mlmm train --template` prints it:

{TEMPLATES["networks"]}
what happens:
  Labels are checked (one level of theory, finite, units by magnitude, no structure on both sides) and divided
  by block of trajectory: neighbouring frames never stand on both sides. Energies of isolated atoms are fitted
  and removed. After each epoch the state is kept; after Ctrl-C or a crash the same command goes on from
  there, to the same bits on one thread. The folder holds model.safetensors, report.json and parity.png.

examples:
  mlmm train my/train.toml --out runs/first          train
  mlmm train my/train.toml --out runs/first --set fit.epochs=50 --overwrite
  mlmm train --explain fit                           every key of [fit], with default and meaning
  mlmm models show runs/first/model.safetensors      what it is, how well it does, how it came about
  name = "runs/first/model.safetensors"              in [potential] of a run file: use it
A copy of the file in the folder of MLMM_MODELS has its name as a name, and `mlmm models` lists it.
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("file", nargs="?", help="file of a training, in TOML")
    verb.add_argument("--out", default="", metavar="FOLDER", help="by default named as the file")
    verb.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a key")
    verb.add_argument("--overwrite", action="store_true", help="replace a finished training")
    verb.add_argument(
        "--template",
        nargs="?",
        const="networks",
        choices=list(TEMPLATES),
        help="print a file of a training to start from, by kind of model",
    )
    verb.add_argument(
        "--explain", nargs="?", const="", metavar="SECTION", help="print the keys of a section, or all"
    )


def run(options: argparse.Namespace) -> int:
    """Train and print the errors."""
    if options.template:
        print(TEMPLATES[options.template], end="")
        return 0
    if options.explain is not None:
        print(_explained(options.explain))
        return 0
    if not options.file:
        raise ConfigError("the file of a training", "none", "mlmm train --template > train.toml")
    config = load_training(options.file, options.set)
    folder = Path(options.out) if options.out else Path(options.file).with_suffix("")
    model = folder / "model.safetensors"
    if (folder / "report.json").exists() and not options.overwrite:
        raise ConfigError(
            f"no finished training in {folder} yet", "one", "add --overwrite, or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "fit.safetensors"
    if options.overwrite:
        for name in ("report.json", "fit.safetensors"):
            (folder / name).unlink(missing_ok=True)

    from mlmm.learning.training.train import divide, train_model

    divided = divide(config)
    say(
        f"{len(divided.train)} labels to train on, {len(divided.validation)} to validate, "
        f"{len(divided.held_out)} held out: {divided.train[0][1].method}"
    )
    findings = _inspected(config.data.inspect, divided)
    if state.exists():
        say(f"going on from {state}")
    trained = train_model(config, divided, model, checkpoint=state, progress=_Epochs().show, say=say)

    from mlmm.learning.training.parity import draw_parity

    picture = draw_parity(trained, folder / "parity.png", config.data.block)
    _report(trained, findings, folder / "report.json")
    state.unlink(missing_ok=True)
    print(_summary(trained, picture))
    return 0


def _summary(trained: Trained, picture: Path) -> str:
    from mlmm.learning.training.metrics import table

    lines = [table(trained.errors)]
    if trained.blocks:
        lines += ["", "held-out labels by block:", table(trained.blocks)]
    lines.append("")
    if trained.calibration is not None:
        lines.append(f"uncertainty: {trained.calibration.sentence()}")
    elif trained.model.spec.members > 1:
        lines.append("uncertainty: not calibrated, which takes five validation labels with forces or more")
    lines.append(f"{trained.seconds:.0f} s of processor time")
    lines.append(f"written: {trained.path}, {picture}")
    return "\n".join(lines)


def _inspected(how: str, divided: Divided) -> list[str]:
    """Print what is odd about the labels; ConfigError for what would be wrong to train on."""
    if how == "off":
        return []
    from mlmm.learning.dataset.inspection import inspect_pairs, refuse_serious

    findings = inspect_pairs([*divided.train, *divided.validation, *divided.held_out])
    if how == "stop":
        refuse_serious(findings)
    for finding in findings:
        print(f"  look at this: {finding}", file=sys.stderr)
    return [str(finding) for finding in findings]


def _report(trained: Trained, findings: Sequence[str], path: Path) -> None:
    """What was measured, as JSON."""
    facts: dict[str, Any] = {
        "errors": {name: found.as_facts() for name, found in trained.errors.items()},
        "blocks": {name: found.as_facts() for name, found in trained.blocks.items()},
        "calibration": None if trained.calibration is None else trained.calibration.as_facts(),
        "seconds": trained.seconds,
        "findings": list(findings),
    }
    write_json(path, facts)


def _explained(section: str) -> str:
    from mlmm.options import default_of, fields_of, options_of, toml

    if section and section not in SECTIONS:
        raise ConfigError(f"a section {', '.join(SECTIONS)}", repr(section), "mlmm train --explain")
    lines = []
    for name, (schema, _) in SECTIONS.items():
        if section in ("", name):
            lines.append(f"[{name}]")
            fields = fields_of(schema)
            for key, entry in options_of(schema).items():
                lines.append(f"  {key} = {toml(default_of(schema, fields[key]))}")
                lines.append(f"      {entry.help} ({entry.values})")
    return "\n".join(lines)


class _Epochs:
    """A line on standard error every few seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def show(self, report: EpochReport) -> None:
        """Print how far the fit is."""
        now = time.monotonic()
        if now - self._last < 3.0 and report.epoch != report.epochs:
            return
        self._last = now
        best = " ".join(f"{value:.2f}" for value in report.best)
        text = f"  epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  best validation {best}"
        print(text, file=sys.stderr, flush=True)
