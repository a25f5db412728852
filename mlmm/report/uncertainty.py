"""Uncertainty in the report: spreads and distances against their limits, and the frames beyond them."""

from __future__ import annotations

import math

import numpy as np

from mlmm.report.plots import _ACCENT, _MM, _draw, _new_figure, _shade, figure_html, page_style
from mlmm.report.text import as_float, as_list, as_mapping, escape, html_table, in_digits, in_words

_MEASURES = {
    "committee_spread": ("spread of the energy", "kJ/mol"),
    "atom_spread": ("largest spread of an atom's energy", "kJ/mol"),
    "force_spread": ("largest spread of a force", "kJ/mol/nm"),
    "training_distance": ("largest distance to the training set", ""),
}


def uncertainty_section(run: dict, energies: dict[str, np.ndarray]) -> str:
    """Plots of what the table holds with the limits dashed, and a table of flagged frames; or nothing."""
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
        return ""
    with page_style():
        plots = "".join(_plot(name, energies, as_float(limits.get(name))) for name in shown)
    parts = [f'<div class="halves">{plots}</div>']
    if limits:
        parts.append(f'<div class="card">{_verdict(facts, limits)}</div>')
    return f"<h2>Uncertainty</h2>\n<section>{''.join(parts)}</section>"


def _plot(name: str, energies: dict, limit: float) -> str:
    what, unit = _MEASURES[name]
    values = np.where(np.isfinite(energies[name]), energies[name], np.nan)
    figure, axes = _new_figure(5.4, 2.5)
    _shade(axes, energies)
    _draw(axes, energies, values, _ACCENT)
    caption = f"{what.capitalize()}; mean {in_digits(np.nanmean(values), unit)}"
    caption += f", largest {in_digits(np.nanmax(values), unit)}"
    if math.isfinite(limit):
        axes.axhline(limit, color=_MM, linestyle="--", linewidth=1.2)
        caption += f"; dashed: limit {in_digits(limit, unit)}"
    axes.set(xlabel="time / ps", ylabel=name.replace("_", " ") + (f" / ({unit})" if unit else ""))
    axes.set_ylim(bottom=0.0)
    return figure_html(figure, name.replace("_", "-"), what.capitalize(), caption + ".")


def _verdict(facts: dict, limits: dict) -> str:
    """How many frames were beyond the limits, and the first of those that were saved."""
    flagged, saved = facts.get("flagged"), [as_mapping(entry) for entry in as_list(facts.get("saved"))]
    text = ", ".join(
        f"{name.replace('_', ' ')} ≤ {in_digits(value, _MEASURES.get(name, ('', ''))[1])}"
        for name, value in limits.items()
    )
    body = f"<p>Limits: {escape(text)}; action: {escape(in_words(facts.get('action')))}. "
    body += f"Looks beyond them: {escape(in_words(flagged))}.</p>"
    if not saved:
        return body
    rows = [[escape(in_words(e.get("frame"))), escape(in_words(e.get("reason")))] for e in saved[:20]]
    more = f"<p>{len(saved)} frames are in <code>to_label.xyz</code>.</p>"
    return body + html_table(["Frame", "Reason"], rows, "facts") + more
