"""Error on unseen trajectories against the number of labels, for each kind of model that `mlmm train` fits.

    python tests/benchmarks/learning_curves.py train.xyz test.xyz results.jsonl [--labels 50,100] [--seeds 3]

The two files are labels of one level of theory from independent runs. Every finished fit is one line of the
result file; a call that was interrupted goes on where it stopped. ``--table`` prints what is there,
``--table --plot FILE.png`` draws it. ``--outside hot.xyz turned.xyz`` measures on structures unlike the
others, as `outside_frames.py` makes them, and how often the calibrated intervals hold there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from mlmm.learning.dataset.imports import import_labels
from mlmm.learning.dataset.splits import split_by_block
from mlmm.learning.training.config import SECTIONS, DataOptions, TrainConfig
from mlmm.learning.training.metrics import errors_of
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import check_samples, check_split
from mlmm.learning.training.train import Divided, Trained, train_model
from mlmm.learning.uncertainty.calibrate import with_coverage
from mlmm.learning.uncertainty.predict import predict
from mlmm.units import ANGSTROM, KILOCALORIE

FORCE = KILOCALORIE / ANGSTROM
_SCRATCH = {"networks": {"start": "scratch"}, "fit": {"epochs": 300, "learning_rate": 2e-3}}
#: Sections of a training by the name of a row. One setting for all numbers of labels.
MODELS: dict[str, dict[str, dict]] = {
    "ANI-1x fine-tuned x4": {"networks": {"start": "ani1x"}, "fit": {"epochs": 150}},
    "scratch (64, 48) x4": _SCRATCH,
    "sGDML": {"model": {"kind": "gdml"}},
    "GP, symmetry functions": {"model": {"kind": "gp"}, "kernel": {"descriptor": "ani1x"}},
    "GP, SOAP": {"model": {"kind": "gp"}, "kernel": {"descriptor": "soap"}},
    "difference to GFN2, scratch x4": {"model": {"base": "tblite:GFN2-xTB"}, **_SCRATCH},
    "PaiNN (graph-pes), scratch": {
        "model": {"kind": "message-passing"},
        "graph": {"channels": 32, "layers": 3},
        "fit": {"epochs": 150, "batch": 6, "learning_rate": 2e-3},
    },
    "AMP-BMS fine-tuned": {
        "model": {"kind": "amp-bms"},
        "fit": {"epochs": 60, "batch": 6, "learning_rate": 1e-3, "clip": 100.0},
    },
}


def training(name: str, seed: int) -> TrainConfig:
    """The training of a row."""
    sections = MODELS[name]
    made = {
        attribute: schema(**sections.get(section, {}))
        for section, (schema, attribute) in SECTIONS.items()
        if section not in ("data", "fit")
    }
    made["model"] = dataclasses.replace(made["model"], device="cpu")
    return TrainConfig(
        data=DataOptions(labels=("made",)), fit=FitOptions(seed=seed, **sections.get("fit", {})), **made
    )


def one(
    name: str, pool: list, test: list, labels: int, seed: int, outside: dict[str, list] | None = None
) -> dict:
    """Fit one model to some labels of the pool, chosen by the seed, and measure it on the test."""
    order = np.random.default_rng(seed).permutation(len(pool))[:labels]
    some = [pool[k] for k in sorted(order)]
    first, second = split_by_block(some, 0.1, seed)
    train, validation = [some[k] for k in first], [some[k] for k in second]
    check_split({"training": train, "validation": validation, "test": test})
    config = training(name, seed)
    with tempfile.TemporaryDirectory() as folder:
        divided = Divided(train, validation, test)
        trained = train_model(config, divided, Path(folder) / "model.safetensors")
        elsewhere = {where: measured(trained, samples) for where, samples in (outside or {}).items()}
    found = trained.errors["held out"]
    return {
        "model": name,
        "labels": labels,
        "seed": seed,
        "energy": found.energy / KILOCALORIE,
        "energy_bias": found.energy_bias / KILOCALORIE,
        "energy_largest": found.energy_largest / KILOCALORIE,
        "force": found.force / FORCE,
        "seconds": trained.seconds,
        "blocks": {k: (v.energy / KILOCALORIE, v.force / FORCE) for k, v in trained.blocks.items()},
        "calibration": None if trained.calibration is None else dataclasses.asdict(trained.calibration),
        "outside": elsewhere,
    }


def measured(trained: Trained, samples: list) -> dict[str, float | None]:
    """Errors of a model elsewhere, and the coverage of the intervals that its validation labels gave."""
    predicted = predict(trained.model, [molecule for molecule, _ in samples])
    labels = [label for _, label in samples]
    errors = errors_of(
        predicted.energies,
        np.concatenate(predicted.forces),
        np.array([label.energy for label in labels]),
        np.concatenate([np.asarray(label.forces) for label in labels]),
    )
    found = predicted.against(labels, range(len(labels)))
    coverage: list[float | None] = [None, None]
    if found is not None and trained.calibration is not None:
        tested = with_coverage(trained.calibration, found)
        coverage = [tested.coverage68, tested.coverage95]
    return {
        "energy": errors.energy / KILOCALORIE,
        "force": errors.force / FORCE,
        "coverage68": coverage[0],
        "coverage95": coverage[1],
    }


def table(rows: list[dict]) -> str:
    """Mean over seeds, and their range where there are several."""
    numbers = sorted({row["labels"] for row in rows})
    lines = [
        "| E / F MAE | " + " | ".join(map(str, numbers)) + " | cpu s |",
        "|---" * (len(numbers) + 2) + "|",
    ]
    for name in MODELS:
        cells, seconds = [], [row["seconds"] for row in rows if row["model"] == name]
        for count in numbers:
            some = [row for row in rows if row["model"] == name and row["labels"] == count]
            if not some:
                cells.append("")
                continue
            energies, forces = ([row[key] for row in some] for key in ("energy", "force"))
            spread = f" ({min(energies):.2f}–{max(energies):.2f}, n={len(some)})" if len(some) > 1 else ""
            cells.append(f"{np.mean(energies):.2f} / {np.mean(forces):.2f}{spread}")
        if seconds:
            lines.append(f"| {name} | {' | '.join(cells)} | {min(seconds):.0f}–{max(seconds):.0f} |")
    return "\n".join(lines)


def draw(sets: dict[str, list[dict]], path: Path) -> None:
    """Errors against the number of labels, one column for each set of results, forces below energies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(sets), figsize=(4.8 * len(sets), 6.4), sharex=True, sharey="row", squeeze=False
    )
    colours = dict(zip(MODELS, plt.get_cmap("tab10").colors, strict=False))
    named: dict[str, object] = {}
    for column, (title, rows) in enumerate(sets.items()):
        for k, (key, unit) in enumerate((("energy", "kcal/mol"), ("force", "kcal/mol/Å"))):
            axis = axes[k][column]
            for name in MODELS:
                counts = sorted({row["labels"] for row in rows if row["model"] == name})
                found = [
                    [row[key] for row in rows if row["model"] == name and row["labels"] == count]
                    for count in counts
                ]
                if not counts:
                    continue
                means = [float(np.mean(values)) for values in found]
                (named[name],) = axis.plot(counts, means, "o-", color=colours[name], markersize=4)
                for count, values in zip(counts, found, strict=True):
                    axis.vlines(count, min(values), max(values), color=colours[name])
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks([50, 100, 200, 400], ["50", "100", "200", "400"])
            axis.set_xticks([], minor=True)
            ticks = (0.2, 0.5, 1, 2, 5)
            axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_yticks([], minor=True)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(f"MAE of the {key} ({unit})")
        axes[0][column].set_title(title)
        axes[1][column].set_xlabel("labels")
    rows_of_legend = 2 if len(named) <= 4 * len(sets) else 3
    figure.legend(
        list(named.values()),
        list(named),
        loc="lower center",
        ncols=-(-len(named) // rows_of_legend),
        fontsize=8,
    )
    figure.tight_layout(rect=(0, 0.03 + 0.03 * rows_of_legend, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def measuring_parser(about: str) -> argparse.ArgumentParser:
    """Arguments of a script that trains on a pool, measures on a test set, and keeps rows in a file."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("test")
    parser.add_argument("results", type=Path)
    parser.add_argument("--table", action="store_true")
    return parser


def read_rows(path: Path) -> list[dict]:
    """Rows of a file, one in JSON on each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = measuring_parser(__doc__ or "")
    parser.add_argument("--models", nargs="*", default=list(MODELS)[:4], choices=list(MODELS))
    parser.add_argument("--labels", default="50,100,200,400")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--outside", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--plot", type=Path, help="draw a figure; --table --plot draws what is there")
    parser.add_argument("--title", default="", help="of its first column")
    parser.add_argument(
        "--beside", nargs=2, action="append", default=[], metavar=("TITLE", "FILE"), help="another column"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(options.results) if options.results.exists() else []
    if not options.table:
        pool, test = check_samples(import_labels(options.pool)), check_samples(import_labels(options.test))
        outside = {path.stem: check_samples(import_labels(path), least=1) for path in options.outside}
        for seed in range(options.seeds):
            for name in options.models:
                for count in map(int, options.labels.split(",")):
                    if any((r["model"], r["labels"], r["seed"]) == (name, count, seed) for r in rows):
                        continue
                    rows.append(one(name, pool, test, count, seed, outside))
                    with options.results.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    print(
                        {k: v for k, v in rows[-1].items() if k not in ("blocks", "calibration")}, flush=True
                    )
    print(table(rows))
    if options.plot:
        others = {title: read_rows(Path(file)) for title, file in options.beside}
        draw({options.title or options.results.stem: rows, **others}, options.plot)


if __name__ == "__main__":
    main()
