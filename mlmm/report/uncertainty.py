"""Uncertainty in the report: spreads and distances against their limits, and the frames beyond them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlmm.report.plots import Sketch, draw_column, lay_out, shade_stages
from mlmm.report.reading import production_rows
from mlmm.report.style import ACCENT, MM
from mlmm.report.text import as_float, as_list, as_mapping, in_digits, in_words, production_stages

_MEASURES = {
    "committee_spread": ("spread of the energy", "kJ/mol"),
    "atom_spread": ("largest spread of an atom's energy", "kJ/mol"),
    "force_spread": ("largest spread of a force", "kJ/mol/nm"),
    "training_distance": ("largest distance to the training set", ""),
}


def uncertainty_section(run: dict, energies: dict[str, np.ndarray]) -> dict[str, Any]:
    """Plot the columns on uncertainty, limits dashed, and list flagged frames; empty without columns."""
    facts = as_mapping(run.get("uncertainty"))
    limits = as_mapping(facts.get("limits"))
    shown = [
        name
        for name in _MEASURES
        if name in energies
        and np.isfinite(energies[name]).any()
        and (name != "committee_spread" or name in limits)
    ]
    if not shown:
        return {}
    sketches = [_sketch(name, run, energies, as_float(limits.get(name))) for name in shown]
    calibration = in_words(facts.get("calibration")) if facts.get("calibration") else ""
    return {"plots": lay_out(sketches), "calibration": calibration, **_limits(facts, limits)}


def _sketch(name: str, run: dict, energies: dict, limit: float) -> Sketch:
    what, unit = _MEASURES[name]
    values = production_rows(run, energies, name)
    caption = f"{what.capitalize()}; no production yet"
    if values.size:
        caption = f"{what.capitalize()}; production mean {in_digits(values.mean(), unit)}"
        caption += f", largest {in_digits(values.max(), unit)}"
    if math.isfinite(limit):
        caption += f"; dashed: limit {in_digits(limit, unit)}"

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shade_stages(axes, energies, production_stages(run))
        draw_column(axes, energies, energies[name], ACCENT)
        if math.isfinite(limit):
            axes.axhline(limit, color=MM, linestyle="--", linewidth=1.2)
        axes.set(xlabel="time / ps", ylabel=name.replace("_", " ") + (f" / ({unit})" if unit else ""))
        axes.set_ylim(bottom=0.0)

    return Sketch(name.replace("_", "-"), what.capitalize(), caption + ".", draw)


def _limits(facts: dict, limits: dict) -> dict[str, Any]:
    """How many frames were beyond the limits, and the first of those that were saved."""
    saved = [as_mapping(entry) for entry in as_list(facts.get("saved"))]
    return {
        "limits": ", ".join(
            f"{name.replace('_', ' ')} ≤ {in_digits(value, _MEASURES.get(name, ('', ''))[1])}"
            for name, value in limits.items()
        ),
        "action": in_words(facts.get("action")),
        "flagged": in_words(facts.get("flagged")),
        "saved": [(in_words(entry.get("frame")), in_words(entry.get("reason"))) for entry in saved[:20]],
        "count": len(saved),
    }
