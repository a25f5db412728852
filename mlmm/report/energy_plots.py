"""Plots of the energy table: temperature, conservation, volume, spreads, energies and columns of the user."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlmm.report.plots import Sketch, draw_column, shade_stages, stage_spans
from mlmm.report.reading import production_rows
from mlmm.report.style import ACCENT, MM, SOFT
from mlmm.report.text import (
    as_float,
    as_list,
    as_mapping,
    in_digits,
    in_words,
    look_up,
    production_stages,
    stage_temperatures,
    with_error,
)
from mlmm.statistics import block_standard_error
from mlmm.units import AMU_PER_NM3, NANOSECOND

__all__ = ["energy_sketches", "followed_sketches", "group_sketch"]

_DOTS = 1500  # points of an angle that turns, at most
_KNOWN = {
    *("stage", "step", "time_ps", "potential", "kinetic", "total", "temperature", "volume"),
    *("committee_spread", "atom_spread", "force_spread", "training_distance"),
    *("zone_molecules", "zone_lambda"),
}


def energy_sketches(run: dict, energies: dict[str, np.ndarray]) -> list[Sketch]:
    """Temperature, volume with density, conservation, committee spread, molecules of an adaptive zone."""
    if not energies:
        return []
    found = [
        _temperature(run, energies),
        _volume(run, energies),
        _conservation(run, energies),
        _spread(run, energies),
        _occupancy(run, energies),
    ]
    return [sketch for sketch in found if sketch is not None]


def followed_sketches(run: dict, energies: dict[str, np.ndarray]) -> list[Sketch]:
    """Columns that are not the engine's own: the variables that a run follows or restrains."""
    names = [name for name in energies if name not in _KNOWN and not name.startswith("E_")]
    return [_followed(name, k, run, energies) for k, name in enumerate(names) if _filled(energies, name)]


def _filled(energies: dict, name: str) -> bool:
    return name in energies and bool(np.isfinite(energies[name]).any())


def _over_time(
    run: dict, energies: dict, curves: list[tuple[np.ndarray, str]], label: str, **limits: Any
) -> Any:
    """Return a function that draws columns over time, the production apart from the rest."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shade_stages(axes, energies, production_stages(run))
        for values, colour in curves:
            draw_column(axes, energies, values, colour)
        axes.set(xlabel="time / ps", ylabel=label)
        if limits:
            axes.set_ylim(**limits)

    return draw


def _average(run: dict, energies: dict, name: str, unit: str = "") -> str:
    """Mean of a column over the production, with its error, in words."""
    values = production_rows(run, energies, name)
    if not values.size:
        return "no production yet"
    mean = f"{with_error(float(values.mean()), block_standard_error(values))} {unit}".strip()
    return f"production {mean} on average, {in_digits(values.min())} to {in_digits(values.max())}"


def _temperature(run: dict, energies: dict) -> Sketch | None:
    if not _filled(energies, "temperature"):
        return None
    targets, stages = stage_temperatures(run), production_stages(run)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shade_stages(axes, energies, stages)
        draw_column(axes, energies, energies["temperature"], MM)
        for name, span in stage_spans(energies):
            if math.isfinite(targets.get(name, math.nan)) and name != "nve":
                times = energies["time_ps"][span]
                axes.plot(
                    [times[0], times[-1]], [targets[name]] * 2, color=ACCENT, linewidth=1.2, linestyle="--"
                )
        axes.set(xlabel="time / ps", ylabel="temperature / K")

    caption = f"Kinetic temperature; {_average(run, energies, 'temperature', 'K')}. Dashed: the target. "
    return Sketch("temperature", "Temperature", caption + "Shaded: not counted in averages.", draw)


def _volume(run: dict, energies: dict) -> Sketch | None:
    """Volume, or density where the mass is known, unless the volume is constant."""
    if not _filled(energies, "volume") or np.nanmax(energies["volume"]) == np.nanmin(energies["volume"]):
        return None
    mass = as_float(look_up(run, "system", "mass_amu"))
    name, label, title = "volume", "volume / nm³", "Volume"
    table = energies
    if mass > 0:
        name, label, title = "density", "density / (g/cm³)", "Density"
        table = energies | {"density": mass * AMU_PER_NM3 / energies["volume"]}
    caption = (
        f"{title} under constant pressure; {_average(run, table, name, label.split(' / ')[1].strip('()'))}"
    )
    if mass > 0:
        caption += f"; volume {_average(run, energies, 'volume', 'nm³').removeprefix('production ')}"
    return Sketch("volume", title, caption + ".", _over_time(run, energies, [(table[name], MM)], label))


def _conservation(run: dict, energies: dict) -> Sketch | None:
    if not _filled(energies, "total"):
        return None
    values = energies["total"]
    chosen = (energies["stage"] == "nve") & np.isfinite(values) & np.isfinite(energies["time_ps"])
    if chosen.sum() < 3:
        return None
    time, first = energies["time_ps"][chosen], values[chosen][0]
    slope, offset = np.polyfit(time - time[0], values[chosen] - first, 1)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        draw_column(axes, energies, values - first, MM, {"nve"})
        fitted = offset + slope * (time[[0, -1]] - time[0])
        axes.plot(time[[0, -1]], fitted, color=ACCENT, linewidth=1.2, linestyle="--")
        axes.set(xlabel="time / ps", ylabel="total energy - first / (kJ/mol)")

    freedom = as_float(look_up(run, "system", "degrees_of_freedom"))
    caption = f"Total energy at constant energy; dashed: fitted line, {in_digits(slope)} kJ/mol/ps"
    if freedom > 0:
        caption += f" ({in_digits(slope * NANOSECOND / freedom)} kJ/mol/ns per degree of freedom)"
    return Sketch("conservation", "Energy conservation in NVE", caption + ".", draw)


def _spread(run: dict, energies: dict) -> Sketch | None:
    if not _filled(energies, "committee_spread"):
        return None
    caption = "Standard deviation of the region's energy over the committee members; "
    caption += f"{_average(run, energies, 'committee_spread', 'kJ/mol')}."
    curves = [(energies["committee_spread"], ACCENT)]
    draw = _over_time(run, energies, curves, "spread / (kJ/mol)", bottom=0.0)
    return Sketch("spread", "Committee spread", caption, draw)


def _occupancy(run: dict, energies: dict) -> Sketch | None:
    """Molecules in a zone that moves: a number that runs away calls for a compensation."""
    if not (_filled(energies, "zone_molecules") and _filled(energies, "zone_lambda")):
        return None
    counts, sums = energies["zone_molecules"], energies["zone_lambda"]
    caption = f"Blue: molecules with λ > 0, mean {in_digits(np.nanmean(counts))}; "
    caption += f"orange: sum of their λ, mean {in_digits(np.nanmean(sums))}."
    draw = _over_time(run, energies, [(counts, MM), (sums, ACCENT)], "molecules", bottom=0.0)
    return Sketch("occupancy", "Molecules in the adaptive zone", caption, draw)


def _followed(name: str, number: int, run: dict, energies: dict) -> Sketch:
    """A variable under the name of its column, with the restraints on it; angles in degrees."""
    facts = next((v for v in map(as_mapping, as_list(run.get("variables"))) if v.get("name") == name), {})
    unit, kind = str(facts.get("unit") or ""), str(facts.get("kind") or "")
    factor = 1.0
    if unit == "rad":
        unit, factor = "°", math.degrees(1.0)
    table = energies | {name: factor * energies[name]}
    restraints = [r for r in map(as_mapping, as_list(run.get("restraints"))) if r.get("variable") == name]
    places = [factor * as_float(restraint.get("at")) for restraint in restraints]
    turns = kind == "torsion"

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        shade_stages(axes, energies, production_stages(run))
        if turns:  # a line would cross the plot wherever the angle passes 180°
            every = max(1, len(table[name]) // _DOTS)
            axes.plot(energies["time_ps"][::every], table[name][::every], ".", color=MM, markersize=3)
            axes.set_ylim(-180, 180)
            axes.set_yticks([-180, -90, 0, 90, 180])
        else:
            draw_column(axes, energies, table[name], MM)
        for place in places:
            if math.isfinite(place):
                axes.axhline(place, color=ACCENT, linewidth=1.2, linestyle="--")
        axes.set(xlabel="time / ps", ylabel=f"{name} / {unit}" if unit else name)

    caption = f"Column {name} of energies.csv" + (f", a {kind}" if kind else "")
    if not turns:
        caption += f"; {_average(run, table, name, unit)}"
    for restraint, place in zip(restraints, places, strict=True):
        caption += f". Restrained, {in_words(restraint.get('shape')).replace('_', ' ')}"
        caption += f" at {in_digits(place, unit)} (dashed)" if math.isfinite(place) else ""
        constant = in_digits(restraint.get("force_constant"), in_words(restraint.get("force_constant_unit")))
        caption += f", {constant}"
    return Sketch(f"followed-{number}", name, f"{caption}.", draw)


def group_sketch(run: dict, energies: dict[str, np.ndarray]) -> Sketch | None:
    """One small panel per force group, so that each keeps its own scale."""
    groups = [name for name in energies if name.startswith("E_") and _filled(energies, name)]
    names = [name for name in groups if np.nanmax(energies[name]) > np.nanmin(energies[name])]
    names += ["potential"] if _filled(energies, "potential") else []
    if not names:
        return None

    def columns(width: float) -> int:
        return min(len(names), max(1, int(width // 3.0)))

    def draw(figure: Any) -> None:
        ncols = columns(figure.get_figwidth())
        grid = figure.subplots(math.ceil(len(names) / ncols), ncols, squeeze=False, sharex=True)
        for axes, name in zip(grid.flat, names, strict=False):
            values = energies[name]
            shade_stages(axes, energies, production_stages(run))
            for text in axes.texts:
                text.set_visible(False)  # too many panels to name the stages in each
            colour = ACCENT if name == "E_ml" else SOFT if name == "potential" else MM
            draw_column(axes, energies, values - values[np.isfinite(values)][0], colour)
            title = name.removeprefix("E_").replace("_", " ")
            axes.set_title(title, loc="left", fontsize=9, color=colour, fontweight="bold")
        for axes in list(grid.flat)[len(names) :]:
            axes.remove()
        for axes in list(grid.flat)[max(0, len(names) - ncols) : len(names)]:
            axes.tick_params(labelbottom=True)  # the panel below it may be one that was removed
        figure.supxlabel("time / ps", fontsize=9)
        figure.supylabel("energy - first / (kJ/mol)", fontsize=9)

    def height(width: float) -> float:
        return 1.7 * math.ceil(len(names) / columns(width)) + 0.4

    caption = "Potential energy of each force group relative to its first value; shaded: not production."
    still = [name.removeprefix("E_") for name in groups if name not in names]
    caption += f" Constant: {', '.join(still)}." if still else ""
    return Sketch("groups", "Energy by force group", caption, draw, height)
