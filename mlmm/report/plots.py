"""The plots of the report: temperature, conservation, committee spread and energies against time, as SVG."""

from __future__ import annotations

import io
import itertools
import math
import re
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from mlmm.report.style import ACCENT, MM, SOFT, new_page_figure, page_style
from mlmm.report.text import as_float, in_digits, look_up, stage_temperatures
from mlmm.units import NANOSECOND

#: Points drawn per curve and stage; a longer series is drawn as block means with the range of each block.
_POINTS = 400


class Plot(NamedTuple):
    """A figure of the page: title and caption as text, the drawing as SVG markup."""

    title: str
    caption: str
    svg: Markup


def _block_means(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reduce a long series to block means with the smallest and largest value of each block."""
    size = math.ceil(len(values) / _POINTS)
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    reduced = (np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))
    return np.add.reduceat(time, starts) / counts, np.add.reduceat(values, starts) / counts, *reduced


def draw_column(
    axes: Any, energies: dict, values: np.ndarray, colour: str, stages: list[str] | None = None
) -> None:
    """Draw one column against time, stage by stage, with a faint range where points were averaged."""
    for name, span in _spans(energies):
        if stages is None or name in stages:
            keep = np.isfinite(values[span]) & np.isfinite(energies["time_ps"][span])
            if keep.any():
                time, mean, low, high = _block_means(energies["time_ps"][span][keep], values[span][keep])
                axes.plot(time, mean, color=colour, linewidth=1.2, marker="." if len(mean) < 3 else "")
                if keep.sum() > _POINTS:
                    axes.fill_between(time, low, high, color=colour, alpha=0.25, linewidth=0)


def _spans(energies: dict) -> list[tuple[str, slice]]:
    stage = energies["stage"]
    edges = [0, *(np.flatnonzero(stage[1:] != stage[:-1]) + 1).tolist(), len(stage)]
    return [(str(stage[first]), slice(first, last)) for first, last in itertools.pairwise(edges)]


def shade_stages(axes: Any, energies: dict, named: bool = False) -> None:
    """Shade every other stage and, where there is room, name them."""
    for number, (name, span) in enumerate(_spans(energies)):
        first, last = energies["time_ps"][span][0], energies["time_ps"][span][-1]
        if number % 2:
            axes.axvspan(first, last, color=SOFT, alpha=0.12, linewidth=0)
        if named and last > first:
            axes.text(
                (first + last) / 2, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", color=SOFT
            )


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


def draw_plots(run: dict, energies: dict[str, np.ndarray]) -> dict[str, Any]:
    """Plot temperature, conservation, committee spread and energy groups against time."""
    if not energies:
        return {}
    with page_style():
        halves = [_conservation(run, energies), _spread(energies), _occupancy(energies)]
        return {
            "temperature": _temperature(run, energies),
            "halves": [plot for plot in halves if plot is not None],
            "groups": _groups(energies),
        }


def page_plot(figure: Any, name: str, title: str, caption: str) -> Plot:
    """Render a figure for the page; `name` keeps the ids of its SVG apart from those of other plots."""
    return Plot(title, caption, _svg(figure, name, f"{title}. {caption}"))


def _column(energies: dict, name: str) -> np.ndarray | None:
    values = energies.get(name)
    return None if values is None or not np.isfinite(values).any() else values


def _temperature(run: dict, energies: dict) -> Plot | None:
    values = _column(energies, "temperature")
    if values is None:
        return None
    figure, axes = new_page_figure(11.0, 2.5)
    shade_stages(axes, energies, named=True)
    draw_column(axes, energies, values, MM)
    targets = stage_temperatures(run)
    for name, span in _spans(energies):
        if math.isfinite(targets.get(name, math.nan)) and name != "nve":
            times = energies["time_ps"][span]
            axes.plot([times[0], times[-1]], [targets[name]] * 2, color=ACCENT, linewidth=1.2, linestyle="--")
    axes.set(xlabel="time / ps", ylabel="temperature / K")
    caption = "Kinetic temperature; dashed: the target of the stage."
    return page_plot(figure, "temperature", "Temperature", caption)


def _conservation(run: dict, energies: dict) -> Plot | None:
    values = _column(energies, "total")
    chosen = energies["stage"] == "nve"
    if values is not None:
        chosen &= np.isfinite(values) & np.isfinite(energies["time_ps"])
    if values is None or chosen.sum() < 3:
        return None
    time = energies["time_ps"][chosen]
    slope, offset = np.polyfit(time - time[0], values[chosen] - values[chosen][0], 1)
    figure, axes = new_page_figure(5.4, 2.7)
    draw_column(axes, energies, values - values[chosen][0], MM, ["nve"])
    axes.plot(
        time[[0, -1]],
        offset + slope * (time[[0, -1]] - time[0]),
        color=ACCENT,
        linewidth=1.2,
        linestyle="--",
    )
    axes.set(xlabel="time / ps", ylabel="total energy - first / (kJ/mol)")
    freedom = as_float(look_up(run, "system", "degrees_of_freedom"))
    caption = f"Total energy at constant energy; dashed: fitted line, {in_digits(slope)} kJ/mol/ps"
    if freedom > 0:
        caption += f" ({in_digits(slope * NANOSECOND / freedom)} kJ/mol/ns per degree of freedom)"
    return page_plot(figure, "conservation", "Energy conservation in NVE", caption + ".")


def _spread(energies: dict) -> Plot | None:
    values = _column(energies, "committee_spread")
    if values is None:
        return None
    figure, axes = new_page_figure(5.4, 2.7)
    shade_stages(axes, energies, named=True)
    draw_column(axes, energies, values, ACCENT)
    axes.set(xlabel="time / ps", ylabel="spread / (kJ/mol)")
    axes.set_ylim(bottom=0.0)
    caption = "Standard deviation of the region's energy over the committee members; "
    caption += f"mean {in_digits(np.nanmean(values))} kJ/mol, largest {in_digits(np.nanmax(values))} kJ/mol."
    return page_plot(figure, "spread", "Committee spread", caption)


def _occupancy(energies: dict) -> Plot | None:
    """Molecules in a zone that moves: a number that runs away calls for a compensation."""
    counts, sums = _column(energies, "zone_molecules"), _column(energies, "zone_lambda")
    if counts is None or sums is None:
        return None
    figure, axes = new_page_figure(5.4, 2.7)
    shade_stages(axes, energies)
    draw_column(axes, energies, counts, MM)
    draw_column(axes, energies, sums, ACCENT)
    axes.set(xlabel="time / ps", ylabel="molecules")
    axes.set_ylim(bottom=0.0)
    caption = f"Blue: molecules with λ > 0, mean {in_digits(np.nanmean(counts))}; "
    caption += f"orange: sum of their λ, mean {in_digits(np.nanmean(sums))}."
    return page_plot(figure, "occupancy", "Molecules in the adaptive zone", caption)


def _groups(energies: dict) -> Plot | None:
    """One small panel per force group, so that each keeps its own scale."""
    names = [name for name in energies if name.startswith("E_") and _column(energies, name) is not None]
    names += ["potential"] if _column(energies, "potential") is not None else []
    if not names:
        return None
    columns = min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure, grid = new_page_figure(
        11.0, 1.9 * rows + 0.3, nrows=rows, ncols=columns, squeeze=False, sharex=True
    )
    for axes, name in zip(grid.flat, names, strict=False):
        values = energies[name]
        shade_stages(axes, energies)
        colour = ACCENT if name == "E_ml" else SOFT if name == "potential" else MM
        draw_column(axes, energies, values - values[np.isfinite(values)][0], colour)
        axes.set_title(
            name.removeprefix("E_").replace("_", " "), loc="left", fontsize=9, color=colour, fontweight="bold"
        )
    for axes in list(grid.flat)[len(names) :]:
        axes.remove()
    for axes in list(grid.flat)[max(0, len(names) - columns) : len(names)]:
        axes.tick_params(labelbottom=True)  # the panel below it may be one that was removed
    figure.supxlabel("time / ps", fontsize=9)
    figure.supylabel("energy - first / (kJ/mol)", fontsize=9)
    caption = "Potential energy of each force group relative to its first value; shaded: every other stage."
    return page_plot(figure, "groups", "Energy by force group", caption)
