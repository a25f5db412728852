"""Plots of the page as SVG, each drawn twice: for a wide place, and anew for the width of a phone."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from mlmm.report.style import INK, SOFT, new_page_figure, page_style

__all__ = ["Plot", "Sketch", "draw_column", "lay_out", "shade_stages", "stage_spans"]

#: Points drawn per curve and stage; a longer series is drawn as block means with the range of each block.
_POINTS = 400
#: Inches; at 96 to the inch text then has the size of the page's own.
_FULL, _HALF, _NARROW = 11.0, 5.4, 3.7


class Plot(NamedTuple):
    """A figure of the page: title and caption as text, two drawings as SVG markup, whether it takes a row."""

    title: str
    caption: str
    wide: Markup
    narrow: Markup
    full: bool


class Sketch(NamedTuple):
    """A plot that can be drawn at any width.

    Parameters
    ----------
    name : str
        Keeps the ids of its SVG apart from those of other plots.
    title, caption : str
    draw : callable
        Draws into a figure, whose width tells how much room there is.
    height : float or callable
        Inches; a function of the width where it depends on that.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], None]
    height: float | Callable[[float], float] = 2.6

    def at(self, full: bool) -> Plot:
        """Draw it, over the whole width or half of it."""
        label = f"{self.title}. {self.caption}"
        drawings = []
        for width, ids in ((_FULL if full else _HALF, self.name), (_NARROW, f"{self.name}-narrow")):
            height = self.height(width) if callable(self.height) else self.height
            with page_style():
                figure = new_page_figure(width, height)
                self.draw(figure)
                drawings.append(_svg(figure, ids, label))
        return Plot(self.title, self.caption, drawings[0], drawings[1], full)


def lay_out(sketches: Sequence[Sketch | None]) -> list[Plot]:
    """Draw those that there are, two in a row; one that is left over takes the whole row."""
    there = [sketch for sketch in sketches if sketch is not None]
    alone = len(there) % 2
    return [sketch.at(full=bool(alone) and k == len(there) - 1) for k, sketch in enumerate(there)]


def draw_column(
    axes: Any, energies: dict, values: np.ndarray, colour: str, stages: set[str] | None = None
) -> None:
    """Draw one column against time, stage by stage, with a faint range where points were averaged."""
    for name, span in stage_spans(energies):
        if stages is None or name in stages:
            draw_series(axes, energies["time_ps"][span], values[span], colour)


def draw_series(axes: Any, times: np.ndarray, values: np.ndarray, colour: str, **style: Any) -> None:
    """Draw one series, a long one as block means with the range of each block."""
    keep = np.isfinite(values) & np.isfinite(times)
    if not keep.any():
        return
    time, mean, low, high = _block_means(times[keep], values[keep])
    style = {"linewidth": 1.2, "marker": "." if len(mean) < 3 else ""} | style
    axes.plot(time, mean, color=colour, **style)
    if keep.sum() > _POINTS:
        axes.fill_between(time, low, high, color=colour, alpha=0.25, linewidth=0)


def _block_means(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reduce a long series to block means with the smallest and largest value of each block."""
    size = math.ceil(len(values) / _POINTS)
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    reduced = (np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))
    return np.add.reduceat(time, starts) / counts, np.add.reduceat(values, starts) / counts, *reduced


def stage_spans(energies: dict) -> list[tuple[str, slice]]:
    """Name and rows of each stage of an energy table, in order."""
    stage = energies["stage"]
    edges = [0, *(np.flatnonzero(stage[1:] != stage[:-1]) + 1).tolist(), len(stage)]
    return [(str(stage[first]), slice(first, last)) for first, last in itertools.pairwise(edges)]


def shade_stages(axes: Any, energies: dict, production: set[str]) -> None:
    """Shade all but the production, and name the stages that have room for it."""
    times = energies["time_ps"]
    if not np.isfinite(times).any():
        return
    length = float(np.nanmax(times) - np.nanmin(times)) or 1.0
    room = axes.figure.get_figwidth() - 1.0
    for name, span in stage_spans(energies):
        first, last = times[span][0], times[span][-1]
        if name not in production:
            axes.axvspan(first, last, color=SOFT, alpha=0.14, linewidth=0)
        if (last - first) / length * room > 0.085 * len(name):
            kept = {"color": INK, "fontweight": "bold"} if name in production else {"color": SOFT}
            where = axes.get_xaxis_transform()
            axes.text((first + last) / 2, 1.02, name, transform=where, ha="center", fontsize=8.5, **kept)


def _svg(figure: Any, name: str, label: str) -> Markup:
    """Render a figure to SVG that can share a page with others: no prolog, own ids, a text alternative."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(
        r"<metadata>.*?</metadata>", "", stream.getvalue()[stream.getvalue().index("<svg") :], flags=re.DOTALL
    )
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    tag, rest = text.split(">", 1)
    tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    return Markup(f'{tag} role="img" aria-label="{escape(label)}">{rest}')
