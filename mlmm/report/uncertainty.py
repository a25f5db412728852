"""Uncertainty in the report: spreads and distances against their limits, and the frames beyond them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlmm.report.plots import Plot, draw_column, page_plot, shade_stages
from mlmm.report.style import ACCENT, MM, new_page_figure, page_style
from mlmm.report.text import as_float, as_list, as_mapping, in_digits, in_words

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
    with page_style():
        plots = [_plot(name, energies, as_float(limits.get(name))) for name in shown]
    return {"plots": plots, **_verdict(facts, limits)}


def _plot(name: str, energies: dict, limit: float) -> Plot:
    what, unit = _MEASURES[name]
    values = np.where(np.isfinite(energies[name]), energies[name], np.nan)
    figure, axes = new_page_figure(5.4, 2.5)
    shade_stages(axes, energies)
    draw_column(axes, energies, values, ACCENT)
    caption = f"{what.capitalize()}; mean {in_digits(np.nanmean(values), unit)}"
    caption += f", largest {in_digits(np.nanmax(values), unit)}"
    if math.isfinite(limit):
        axes.axhline(limit, color=MM, linestyle="--", linewidth=1.2)
        caption += f"; dashed: limit {in_digits(limit, unit)}"
    axes.set(xlabel="time / ps", ylabel=name.replace("_", " ") + (f" / ({unit})" if unit else ""))
    axes.set_ylim(bottom=0.0)
    return page_plot(figure, name.replace("_", "-"), what.capitalize(), caption + ".")


def _verdict(facts: dict, limits: dict) -> dict[str, Any]:
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
