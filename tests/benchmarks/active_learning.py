"""Does choosing structures beat drawing them at random? Loops over a pool whose labels are there already.

    python tests/benchmarks/active_learning.py pool.xyz test.xyz results.jsonl [--by spread passive]

The two files are labels of one level of theory from independent runs. Each loop is one line of the result
file: errors on the test after each round, overall and by basin; ``--table`` prints means over seeds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning_curves import FORCE, measuring_parser, read_rows, training
from mlmm.learning.active.backends import TrainedModel
from mlmm.learning.active.loop import Steps, learn
from mlmm.learning.active.measure import measure
from mlmm.learning.active.options import CRITERIA, ChoiceOptions, LoopOptions, StopOptions
from mlmm.learning.dataset.imports import import_labels
from mlmm.learning.dataset.splits import split_by_block
from mlmm.learning.training.metrics import Errors
from mlmm.learning.training.targets import check_samples
from mlmm.learning.training.train import Divided, train_model
from mlmm.reference.labels import Label, Molecule
from mlmm.units import KILOCALORIE

_MODEL = "ANI-1x fine-tuned x4"
_NEVER = StopOptions(energy="1e-6 kJ/mol", force="1e-6 kJ/mol/nm", coverage=1.0)


def loop(
    by: str, pool: list, test: list, seed: int, *, start: int = 40, batch: int = 40, rounds: int = 3,
    model: str = _MODEL,
) -> dict[str, Any]:  # fmt: skip
    """One loop, measured on the test after each round."""
    known = {_place(molecule): label for molecule, label in pool}
    config = training(model, seed)

    def label(molecules: Sequence[Molecule]) -> Iterator[tuple[int, Label]]:
        for k, molecule in enumerate(molecules):
            yield k, known[_place(molecule)]

    def train(pairs: Sequence[tuple[Molecule, Label]], own: int, folder: Path) -> None:
        samples = check_samples(pairs)
        first, second = split_by_block(samples, 0.1, own)
        divided = Divided([samples[k] for k in first], [samples[k] for k in second], [])
        fitted = replace(config, fit=replace(config.fit, seed=own % 2**31))
        train_model(fitted, divided, folder / "model.safetensors")

    steps = Steps(pool[0][1].method, lambda *_: [m for m, _ in pool], label, train, TrainedModel)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        learn(
            Path(folder) / "loop",
            steps,
            LoopOptions(seed=seed, held_out=20, block=5),
            ChoiceOptions(by=by, start=start, batch=batch),
            replace(_NEVER, rounds=rounds),
        )
        for number in range(rounds):
            place = Path(folder) / f"loop/round_{number:03d}"
            measured = measure(TrainedModel(place / "model"), test, "window")
            found.append(
                {
                    "labels": json.loads((place / "done.json").read_text())["labels"],
                    "overall": _facts(measured.overall),
                    "basins": {name: _facts(errors) for name, errors in measured.basins.items()},
                    "coverage": [measured.coverage68, measured.coverage95],
                }
            )
    return {"by": by, "seed": seed, "model": model, "rounds": found}


def _place(molecule: Molecule) -> bytes:
    """The positions to 1e-7 nm, which writing and reading does not change."""
    return np.rint(1e7 * np.asarray(molecule.positions)).astype(np.int64).tobytes()


def _facts(errors: Errors) -> dict[str, float]:
    return {
        "energy": errors.energy / KILOCALORIE,
        "energy_largest": errors.energy_largest / KILOCALORIE,
        "force": errors.force / FORCE,
        "force_largest": errors.force_largest / FORCE,
    }


def table(rows: list[dict]) -> str:
    """Mean over seeds and their standard deviation."""
    keys = ("energy", "force", "energy_largest", "force_largest")
    lines = ["| by | labels | " + " | ".join(keys) + " |", "|---" * (len(keys) + 2) + "|"]
    for by in dict.fromkeys(row["by"] for row in rows):
        some = [row["rounds"] for row in rows if row["by"] == by]
        for number, first in enumerate(some[0]):
            cells = []
            for key in keys:
                values = [rounds[number]["overall"][key] for rounds in some]
                spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.2f}{spread}")
            lines.append(f"| {by} | {first['labels']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = measuring_parser(__doc__ or "")
    parser.add_argument("--by", nargs="*", default=["spread", "passive"], choices=CRITERIA)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(options.results) if options.results.exists() else []
    if not options.table:
        pool, test = check_samples(import_labels(options.pool)), check_samples(import_labels(options.test))
        for seed in range(options.seeds):
            for by in options.by:
                if any((row["by"], row["seed"]) == (by, seed) for row in rows):
                    continue
                rows.append(loop(by, pool, test, seed))
                with options.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
