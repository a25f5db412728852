"""Who holds the region: its Coulomb energy with the residues around it, by level of embedding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.report.plots import Sketch
from mlmm.report.style import SERIES, file_style, new_figure

__all__ = ["LEVELS_FILE", "draw_levels", "embedding_sketch"]

#: In a run directory, as `mlmm check embedding` writes it.
LEVELS_FILE = "embedding.json"
_ROWS = 10


def embedding_sketch(directory: Path, notes: list[str]) -> Sketch | None:
    """The plot of a run whose embedding was checked; None where it was not.

    Parameters
    ----------
    directory : Path
        Run directory.
    notes : list of str
        Gets a sentence where the file cannot be read.
    """
    path = directory / LEVELS_FILE
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        rows = _rows(facts)
        label, frames, levels = str(facts["label"]), int(facts["frames"]), [str(x) for x in facts["levels"]]
        within = float(facts["within the region"]["mean"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        notes.append(
            f"{LEVELS_FILE} could not be read ({type(error).__name__}): run mlmm check embedding again."
        )
        return None
    caption = (
        f"{label}: Coulomb energy with its surroundings, mean of {frames} frame{'s' if frames > 1 else ''}"
        f"{' with standard errors' if frames > 1 else ''}; negative holds it. In the field its own energy "
        f"rises by {within:.1f} kJ/mol, which is part of the last row of the embedded level."
    )
    height = 0.9 + 0.42 * len(rows)
    return Sketch("embedding", "Who holds the region", caption, lambda f: _draw(f, rows, levels), height)


def draw_levels(facts: Mapping[str, Any], path: str | Path) -> Path:
    """Draw the same into a file of its own, a PNG or any format that matplotlib writes."""
    path, rows = Path(path), _rows(facts)
    with file_style():
        figure, (axes,) = new_figure(7.5, 1.0 + 0.42 * len(rows), 1)
        _bars(axes, rows, list(facts["levels"]))
        axes.set_title(f"{facts['label']}: Coulomb energy with its surroundings", loc="left", fontsize=10)
        figure.savefig(path, dpi=150)
    return path


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, means and errors of the strongest residues, of all others together, and of all."""
    residues = list(facts["residues"])
    shown = [(str(r["name"]), np.array(r["mean"], dtype=float), _errors(r)) for r in residues[:_ROWS]]
    rest = [np.array(r["mean"], dtype=float) for r in residues[_ROWS:]]
    if rest:
        # Errors of rows are not independent of each other: none is shown for their sum.
        shown.append((f"{len(rest)} others", np.sum(rest, axis=0), np.zeros(len(rest[0]))))
    whole = facts["all"]
    return [*shown, ("all", np.array(whole["mean"], dtype=float), _errors(whole))]


def _errors(row: Mapping[str, Any]) -> np.ndarray:
    """Standard errors, zero for a single frame."""
    found = row["error"]
    return np.zeros(len(row["mean"])) if found is None else np.array(found, dtype=float)


def _draw(figure: Any, rows: list[tuple[str, np.ndarray, np.ndarray]], levels: list[str]) -> None:
    _bars(figure.subplots(), rows, levels)


def _bars(axes: Any, rows: list[tuple[str, np.ndarray, np.ndarray]], levels: list[str]) -> None:
    """A group of bars for each row, one bar for each level, from top to bottom."""
    places, thickness = np.arange(len(rows)), 0.8 / len(levels)
    hatches = ("", "///", "")
    for k, level in enumerate(levels):
        means = np.array([mean[k] for _, mean, _ in rows])
        errors = np.array([error[k] for _, _, error in rows])
        axes.barh(
            places + (k - 0.5 * (len(levels) - 1)) * thickness,
            means,
            thickness,
            xerr=errors if errors.any() else None,
            color=SERIES[k][0],
            alpha=0.9 if not hatches[k % 3] else 0.55,
            hatch=hatches[k % 3],
            edgecolor="white",
            linewidth=0.5,
            error_kw={"elinewidth": 1.0, "capsize": 2},
            label=level,
        )
    axes.set_yticks(places, [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.axvline(0.0, color="#6b7785", linewidth=0.8)
    axes.set(xlabel="energy / (kJ/mol)")
    axes.legend(frameon=False, loc="best", fontsize=8.5)
