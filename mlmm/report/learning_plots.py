"""Plots of a loop of active learning: learning curves, parity of energies, forces by basin, coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmm.report.plots import Sketch
from mlmm.report.style import ACCENT, INK, MM, SERIES, SOFT

if TYPE_CHECKING:
    from mlmm.report.learning_page import LearningRecord

__all__ = ["learning_sketches"]


def learning_sketches(record: LearningRecord, others: Sequence[LearningRecord]) -> list[Sketch | None]:
    """What there is to draw of a loop, and of others beside it."""
    everyone = [record, *others]
    return [
        _curve(everyone, "force", "force error / (kJ/mol/nm)", "Force against labels"),
        _curve(everyone, "energy", "energy error / (kJ/mol)", "Energy against labels"),
        _parity(record),
        _basins(record),
    ]


def _curve(records: Sequence[LearningRecord], name: str, axis: str, title: str) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for one, (colour, line) in zip(records, SERIES, strict=False):
            labels = [facts["labels"] for facts in one.rounds]
            label = one.criterion if len({r.criterion for r in records}) == len(records) else one.title
            axes.plot(
                labels,
                [getattr(found.overall, name) for found in one.measured],
                line,
                marker="o",
                markersize=3.5,
                color=colour,
                label=label,
            )
            worst = [max(getattr(b, name) for b in found.basins.values()) for found in one.measured]
            axes.plot(labels, worst, ":", color=colour, linewidth=1.0)
        limit = getattr(records[0].stop, name)
        axes.axhline(limit, color=SOFT, linewidth=0.8)
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("labels")
        axes.set_ylabel(axis)
        if len(records) > 1:
            axes.legend(frameon=False)

    caption = "Mean absolute error on held-out labels; dotted: the worst basin; grey line: the target."
    return Sketch(f"curve-{name}", title, caption, draw, 2.8)


def _parity(record: LearningRecord) -> Sketch:
    last = record.measured[-1]
    labels, predicted = np.array(last.energies), np.array(last.predicted)
    zero = labels.min()

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = sorted(set(last.names))
        for k, name in enumerate(names):
            rows = [j for j, other in enumerate(last.names) if other == name]
            colour = SERIES[k % len(SERIES)][0] if len(names) <= len(SERIES) else MM
            axes.plot(labels[rows] - zero, (predicted - labels)[rows], ".", color=colour, label=name)
        # The error and not the model's energy: several molecules lie thousands of kJ/mol apart.
        axes.axhline(0.0, color=INK, linewidth=0.8)
        axes.set_xlabel("label, above the lowest / (kJ/mol)")
        axes.set_ylabel("model less label / (kJ/mol)")
        if 1 < len(names) <= len(SERIES):
            axes.legend(frameon=False)

    text = "Errors of the last model on held-out structures; colour: basin."
    return Sketch("parity", "Errors of energies", text, draw, 2.8)


def _basins(record: LearningRecord) -> Sketch | None:
    basins = record.measured[-1].basins
    if len(basins) < 2:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = sorted(basins, key=_by_number)
        places = np.arange(len(names))
        first = record.measured[0].basins
        axes.bar(places - 0.2, [first[n].force if n in first else 0.0 for n in names], 0.4, color=SOFT)
        axes.bar(places + 0.2, [basins[n].force for n in names], 0.4, color=ACCENT)
        axes.axhline(record.stop.force, color=SOFT, linewidth=0.8)
        axes.set_xticks(places, names, rotation=45 if max(map(len, names)) > 4 else 0, ha="center")
        axes.set_ylabel("force error / (kJ/mol/nm)")

    text = "Mean absolute error of a force component in each basin: first model (grey) and last (orange)."
    return Sketch("basins", "Forces by basin", text, draw, 2.8)


def _by_number(name: str) -> tuple[int, float, str]:
    """Windows of a reaction coordinate in the order of their numbers."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
