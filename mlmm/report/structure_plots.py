"""Plots of the structure over time: RMSD and the distances that a run was asked to follow."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmm.report.plots import Sketch, draw_series
from mlmm.report.structure_series import StructureSeries
from mlmm.report.style import ACCENT, MM, SERIES
from mlmm.report.text import in_digits

__all__ = ["structure_sketches"]


def structure_sketches(series: StructureSeries | None) -> list[Sketch]:
    """RMSD of polymer and region, and the distances; nothing without frames."""
    if series is None or len(series.times) < 1:
        return []
    found = [_rmsd(series), _distances(series)]
    return [sketch for sketch in found if sketch is not None]


def _label(series: StructureSeries) -> str:
    return "time / ps" if series.timed else "frame"


def _looked(series: StructureSeries) -> str:
    shown = len(series.times)
    return f"{shown} of {series.frames:,} frames" if shown < series.frames else f"{shown} frames"


def _rmsd(series: StructureSeries) -> Sketch | None:
    curves = []
    if np.isfinite(series.polymer).any():
        curves.append(("backbone", series.polymer, MM, "-"))
    if np.isfinite(series.region).any():
        curves.append(("region, heavy atoms", series.region, ACCENT, "--" if curves else "-"))
    if not curves:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, values, colour, line in curves:
            draw_series(axes, series.times, values, colour, linestyle=line, label=name)
        axes.set(xlabel=_label(series), ylabel="RMSD / nm")
        axes.set_ylim(bottom=0.0)
        axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))

    last = ", ".join(f"{name} {in_digits(values[-1], 'nm')} at the end" for name, values, *_ in curves)
    fitted = "the backbone" if series.has_polymer else "the region itself"
    caption = f"From the starting structure, after superposition of {fitted}: {last}. Production, "
    return Sketch("rmsd", "Change of the structure (RMSD)", f"{caption}{_looked(series)}.", draw)


def _distances(series: StructureSeries) -> Sketch | None:
    if not series.distances:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for k, (name, values) in enumerate(series.distances.items()):
            colour, line = SERIES[k % len(SERIES)]
            draw_series(axes, series.times, values, colour, linestyle=line, label=name)
        axes.set(xlabel=_label(series), ylabel="distance / nm")
        axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))

    words = "; ".join(
        f"{name}: {in_digits(np.nanmean(values), 'nm')} on average, {in_digits(np.nanmin(values))} to "
        f"{in_digits(np.nanmax(values))}"
        for name, values in series.distances.items()
    )
    caption = f"Between centres of selections, nearest image. {words}. Production, {_looked(series)}."
    return Sketch("distances", "Distances", caption, draw)
