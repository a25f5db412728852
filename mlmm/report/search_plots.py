"""Plots of a search: the profile of a scan or path, a map over two variables, the spectrum of modes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmm.report.plots import Sketch
from mlmm.report.style import ACCENT, INK, MM, SOFT
from mlmm.report.text import as_list
from mlmm.units import KILOCALORIE

__all__ = ["search_sketches"]


def search_sketches(kind: str, result: dict, arrays: dict[str, np.ndarray]) -> list[Sketch | None]:
    """What there is to draw of a search."""
    if kind == "scan":
        one = len(np.atleast_1d(arrays["counts"])) == 1
        return [_scan(result, arrays), _slopes(result, arrays)] if one else [_map(result, arrays)]
    if kind in ("neb", "irc"):
        return [_profile(kind, arrays)]
    return [_spectrum(arrays)]


def _axis(name: str, unit: str) -> str:
    return f"{name} / {'degree' if unit == 'rad' else unit}" if unit else name


def _in_unit(values: np.ndarray, unit: str) -> np.ndarray:
    return np.degrees(values) if unit == "rad" else values


def _second(axes: Any) -> None:
    """A second axis in kcal/mol."""
    other = axes.secondary_yaxis("right", functions=(lambda e: e / KILOCALORIE, lambda e: e * KILOCALORIE))
    other.set_ylabel("kcal/mol")


def _scan(result: dict, arrays: dict[str, np.ndarray]) -> Sketch:
    name, unit = as_list(result["variables"])[0], as_list(result["units"])[0]
    grid = _in_unit(arrays["grid"][:, 0], unit)
    energies = arrays["energies"] - arrays["profile"][0]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for row, (label, colour, mark) in enumerate((("forth", MM, "o-"), ("back", ACCENT, "s--"))):
            if row < len(energies):
                axes.plot(grid, energies[row], mark, color=colour, markersize=3.5, linewidth=1.2, label=label)
        axes.set_xlabel(_axis(name, unit))
        axes.set_ylabel("relaxed energy / (kJ/mol)")
        axes.legend(frameon=False)
        _second(axes)

    text = f"Energy along {name}, everything else minimised, relative to the first point of the lower way."
    if len(energies) > 1:
        text += f" Forth and back differ by {result['hysteresis']:.2f} kJ/mol at most."
    return Sketch("profile", "Relaxed scan", text, draw, 3.2)


def _slopes(result: dict, arrays: dict[str, np.ndarray]) -> Sketch | None:
    name, unit = as_list(result["variables"])[0], as_list(result["units"])[0]
    grid = arrays["grid"][:, 0]
    lower = np.argmin(arrays["energies"], axis=0)
    slopes = arrays["slopes"][lower, np.arange(len(grid)), 0]
    if len(grid) < 3 or not np.isfinite(slopes).all():
        return None
    summed = np.concatenate([[0.0], np.cumsum(np.diff(grid) * (slopes[1:] + slopes[:-1]) / 2)])

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(_in_unit(grid, unit), arrays["profile"] - arrays["profile"][0], color=MM, label="energy")
        axes.plot(_in_unit(grid, unit), summed, "--", color=ACCENT, label="integral of the slope")
        axes.set_xlabel(_axis(name, unit))
        axes.set_ylabel("kJ/mol")
        axes.legend(frameon=False)

    text = (
        "The energy of the lower way beside the integral of its slope, which is known from what holds the "
        "variable: both agree where the others follow without a jump and the points are dense enough."
    )
    return Sketch("slope", "Energy and slope", text, draw, 3.2)


def _map(result: dict, arrays: dict[str, np.ndarray]) -> Sketch:
    names, units = as_list(result["variables"]), as_list(result["units"])
    counts = [int(n) for n in np.atleast_1d(arrays["counts"])]
    energies = (arrays["profile"] - arrays["profile"].min()).reshape(counts)
    first, second = (_in_unit(arrays["grid"].reshape(*counts, 2)[..., k], units[k]) for k in (0, 1))
    top = [_in_unit(np.array(x), unit) for x, unit in zip(as_list(result["highest"]), units, strict=True)]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        drawn = axes.contourf(first, second, energies, levels=16, cmap="viridis")
        axes.contour(first, second, energies, levels=16, colors=INK, linewidths=0.3)
        axes.plot(*top, "x", color=ACCENT, markersize=9, markeredgewidth=2)
        axes.set_xlabel(_axis(names[0], units[0]))
        axes.set_ylabel(_axis(names[1], units[1]))
        figure.colorbar(drawn, ax=axes, label="kJ/mol")

    text = (
        "Relaxed energy above its lowest point. The cross is the highest point on the lowest way from the "
        "first corner to the last."
    )
    return Sketch("map", "Relaxed scan over two variables", text, draw, 4.2)


def _profile(kind: str, arrays: dict[str, np.ndarray]) -> Sketch:
    energies, along = arrays["energies"], arrays["coordinate"]
    zero = energies[0]
    axis = (
        "arc length of the path / nm"
        if kind == "neb"
        else "arc length in mass-weighted coordinates / (nm √amu)"
    )
    top = int(np.argmax(energies))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(
            along, energies - zero, "o-" if kind == "neb" else "-", color=MM, markersize=4, linewidth=1.2
        )
        axes.plot(along[top], energies[top] - zero, "o", color=ACCENT, markersize=7)
        axes.axhline(0.0, color=SOFT, linewidth=0.8)
        axes.set_xlabel(axis)
        axes.set_ylabel("energy / (kJ/mol)")
        _second(axes)

    words = (
        "Energy of the images of the path"
        if kind == "neb"
        else "Energy along the intrinsic reaction coordinate"
    )
    return Sketch(
        "profile", "Profile", f"{words}, relative to its first point; the highest one is marked.", draw, 3.4
    )


def _spectrum(arrays: dict[str, np.ndarray]) -> Sketch:
    wavenumbers = arrays["wavenumbers"]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        real, imaginary = wavenumbers[wavenumbers >= 0], wavenumbers[wavenumbers < 0]
        axes.vlines(real, 0, 1, color=MM, linewidth=1.2)
        axes.vlines(imaginary, 0, 1, color=ACCENT, linewidth=2)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.set_yticks([])
        axes.set_xlabel("wavenumber / (1/cm); imaginary ones below 0")

    text = f"Wavenumbers of all {len(wavenumbers)} modes; imaginary ones are drawn below 0."
    return Sketch("spectrum", "Modes", text, draw, 1.8)
