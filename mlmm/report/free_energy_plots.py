"""Plots of a free-energy profile: the profile with its error, overlap, convergence, what windows sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlmm.report.plots import Sketch
from mlmm.report.style import ACCENT, INK, MM, SERIES, SOFT
from mlmm.report.text import as_float, as_list

__all__ = ["axis_of", "overlap_sketch", "profile_sketch", "profile_sketches"]


def profile_sketches(result: Mapping[str, Any], profile: Mapping[str, np.ndarray]) -> list[Sketch]:
    """The plots of a profile of umbrella windows.

    Parameters
    ----------
    result : mapping
        Of ``result.json``.
    profile : mapping of str to ndarray
        Columns ``place``, ``value``, ``error`` of ``profile.csv``.
    """
    return [
        profile_sketch(result, profile),
        _convergence(result),
        overlap_sketch(result),
        _windows(result),
    ]


def axis_of(result: Mapping[str, Any]) -> tuple[str, float]:
    """Label of the axis of the variable, and the factor to its unit there."""
    unit = str(result.get("unit", ""))
    shown = "degree" if unit == "rad" else unit
    return f"{result.get('variable')}" + (f" / {shown}" if shown else ""), (
        math.degrees(1.0) if unit == "rad" else 1.0
    )


def profile_sketch(result: Mapping[str, Any], profile: Mapping[str, np.ndarray]) -> Sketch:
    """The profile with its error; arguments as for `profile_sketches`."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        label, factor = axis_of(result)
        x = factor * profile["place"]
        low, high = (profile["value"] + sign * 2 * profile["error"] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=MM, alpha=0.25, linewidth=0)
        axes.plot(x, profile["value"], color=MM, linewidth=1.6)
        for name, sign in (("reactant", "o"), ("transition_state", "^"), ("product", "s")):
            place = result.get(name)
            if place is not None:
                k = int(np.argmin(np.abs(profile["place"] - as_float(place))))
                axes.plot(x[k], profile["value"][k], sign, color=ACCENT, label=name.replace("_", " "))
        axes.set(xlabel=label, ylabel="F / (kJ/mol)")
        axes.legend(frameon=False, fontsize=8)

    caption = "Free energy of the hybrid along the variable, in bins; the band is two standard errors."
    return Sketch("profile", "Free-energy profile", caption, draw, 3.4)


def _convergence(result: Mapping[str, Any]) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        fractions = np.array(as_list(result.get("fractions")), dtype=float)
        final = as_float((as_list(result.get("barrier")) or as_list(result.get("reaction")))[0])
        error = as_float(result.get("error"))
        axes.axhspan(final - error, final + error, color=SOFT, alpha=0.2, linewidth=0)
        for name, (colour, line) in zip(("forward", "backward"), SERIES, strict=False):
            values = np.array(as_list(result.get(name)), dtype=float)
            axes.plot(100 * fractions, values, line, color=colour, marker="o", markersize=4, label=name)
        blocks = np.array(as_list(result.get("blocks")), dtype=float)
        places = 100 * (np.arange(len(blocks)) + 0.5) / len(blocks)
        axes.plot(places, blocks, "x", color=INK, label="five parts")
        axes.set(xlabel="part of the data / %", ylabel="barrier / (kJ/mol)")
        axes.legend(frameon=False, fontsize=8)

    caption = (
        "Barrier (or reaction free energy) from the first and from the last part of every window, and from "
        "five successive parts; the grey band is the result with its standard error."
    )
    return Sketch("convergence", "Convergence", caption, draw, 3.0)


def overlap_sketch(result: Mapping[str, Any], noun: str = "window") -> Sketch:
    """The matrix of overlaps, of windows or of other states."""
    matrix = np.array(as_list(result.get("overlap")), dtype=float)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=max(0.5, float(matrix.max())))
        axes.grid(False)
        axes.set(xlabel=noun, ylabel=noun)
        figure.colorbar(image, ax=axes, label="overlap")

    caption = (
        f"Probability that a sample of one {noun} belongs to another, in their order. Beside the diagonal "
        "0.03 is the least, 0.1 comfortable."
    )
    return Sketch("overlap", f"Overlap of the {noun}s", caption, draw, 3.4)


def _windows(result: Mapping[str, Any]) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        label, factor = axis_of(result)
        windows = as_list(result.get("windows"))
        for k, window in enumerate(windows):
            mean, spread = factor * window["mean"], factor * window["deviation"]
            colour = ACCENT if window["added"] else MM
            axes.errorbar(mean, k, xerr=2 * spread, fmt="o", color=colour, markersize=4, capsize=2)
            axes.plot(factor * window["centre"], k, "|", color=INK, markersize=9)
        axes.set(xlabel=label, ylabel="window")

    caption = "Mean and two standard deviations of every window; the stroke is its centre. Orange: added."
    return Sketch("windows", "What the windows sampled", caption, draw, 3.4)
