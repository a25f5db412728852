"""The page of an end state whose ends are joined by switching runs: work, its distributions, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlmm.report.plots import Sketch
from mlmm.report.style import ACCENT, INK, MM
from mlmm.report.text import as_float, as_list, duration, with_error
from mlmm.report.verdict import Judgement
from mlmm.units import GAS_CONSTANT, KILOCALORIE

__all__ = ["judge_work", "switching_cards", "switching_notes", "switching_sketches", "switching_table"]

_OVERLAP_GOOD, _OVERLAP_LEAST = 0.1, 0.03
_FEW, _ENOUGH = 10, 25
_SIGNIFICANT = 3.0


def judge_work(result: Mapping[str, Any]) -> list[Judgement]:
    """Judge overlap and number of works, and whether they obey Crooks' theorem."""
    found = []
    shared = as_float(result.get("least_overlap"))
    finding = f"{shared:.2f} between the work forward and backward"
    if shared >= _OVERLAP_GOOD:
        found.append(Judgement("overlap", "ok", finding))
    else:
        level = "look" if shared >= _OVERLAP_LEAST else "bad"
        advice = (
            "make switch_length in [endstate] longer, in a new folder: twice as long dissipates about half "
            'as much; or take method = "states"'
        )
        found.append(Judgement("overlap", level, finding, advice))
    fewest = min(as_float(number) for number in as_list(result.get("independent")))
    finding = f"{fewest:.0f} independent works in the direction with fewest"
    if fewest >= _ENOUGH:
        found.append(Judgement("samples", "ok", finding))
    else:
        level = "look" if fewest >= _FEW else "bad"
        advice = "more switches in [endstate] and a longer produce in [run], and --resume"
        found.append(Judgement("samples", level, finding, advice))
    slope, error = (as_float(number) for number in as_list(result.get("crooks")))
    if not math.isfinite(slope) or not math.isfinite(error):
        found.append(Judgement("Crooks' theorem", "unknown", "no work in common to hold it against"))
        return found
    finding = f"slope {with_error(slope, error)} where it says 1"
    if abs(slope - 1.0) <= _SIGNIFICANT * error:
        found.append(Judgement("Crooks' theorem", "ok", finding))
    else:
        advice = "equilibrate longer: an end is not in equilibrium; or shorten the time step"
        found.append(Judgement("Crooks' theorem", "bad", finding, advice))
    return found


def switching_cards(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Free energy, bounds, dissipated work and cost."""
    value, error = as_float(result.get("value")), as_float(result.get("error"))
    calories = f"{with_error(value / KILOCALORIE, error / KILOCALORIE)} kcal/mol"
    upper, lower = (as_float(number) for number in as_list(result.get("slopes")))
    first, last = (as_float(number) for number in as_list(result.get("one_sided")))
    thermal = GAS_CONSTANT * as_float(result.get("temperature"))
    dissipated, its_error = (as_float(number) for number in as_list(result.get("dissipated")))
    return [
        ("Free energy", with_error(value, error), "kJ/mol", calories),
        ("Between", f"{lower:.1f} and {upper:.1f}", "kJ/mol", "mean work backward and forward: bounds"),
        (
            "From one direction alone",
            f"{first:.1f} and {last:.1f}",
            "kJ/mol",
            "Jarzynski's equality forward and backward: few runs dominate",
        ),
        (
            "Dissipated work",
            with_error(dissipated, its_error),
            "kJ/mol",
            f"{dissipated / thermal:.1f} kT on average in {as_float(result.get('switch_length')):g} ps",
        ),
        ("Cost", duration(result.get("cost")), "", "wall time of both ends and all switching runs"),
    ]


def _works(result: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Work forward, and the negative work backward."""
    forward, backward = (
        np.array(as_list(result.get(f"work_{name}")), dtype=float) for name in ("forward", "backward")
    )
    return forward, -backward


def switching_sketches(result: Mapping[str, Any]) -> list[Sketch]:
    """Distributions of the work, and its derivative along the weight."""

    def distributions(figure: Any) -> None:
        axes = figure.add_subplot()
        forward, backward = _works(result)
        both = np.concatenate([forward, backward])
        edges = np.linspace(both.min(), both.max(), max(8, round(math.sqrt(2 * len(both)))))
        axes.hist(forward, edges, color=MM, alpha=0.55, label="W forward")
        axes.hist(backward, edges, color=ACCENT, alpha=0.55, hatch="//", label="−W backward")
        axes.axvline(as_float(result.get("value")), color=INK, linewidth=1.2, label="free energy")
        axes.set(xlabel="work / (kJ/mol)", ylabel="runs")
        axes.legend(frameon=False, fontsize=8)

    def paths(figure: Any) -> None:
        axes = figure.add_subplot()
        forward, backward = (np.array(one, dtype=float) for one in as_list(result.get("paths")))
        weights = (np.arange(len(forward)) + 0.5) / len(forward)
        axes.plot(weights, forward, "-", color=MM, label="forward")
        axes.plot(weights, backward, "--", color=ACCENT, label="backward")
        axes.set(xlabel="weight of the model", ylabel="mean difference / (kJ/mol)")
        axes.legend(frameon=False, fontsize=8)

    return [
        Sketch(
            "work",
            "Work of both directions",
            "By Crooks' theorem both distributions cross at the free energy.",
            distributions,
            3.0,
        ),
        Sketch(
            "paths",
            "What the work is made of",
            "Mean of U(hybrid) − U(MM) while the weight changes. The area between both curves is twice the "
            "dissipated work; slower switching brings them together.",
            paths,
            3.0,
        ),
    ]


def switching_table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Works of both directions in numbers."""
    rows = []
    for name, works, independent, error in zip(
        ("forward", "backward, negative"),
        _works(result),
        as_list(result.get("independent")),
        as_list(result.get("slope_errors")),
        strict=True,
    ):
        mean = with_error(float(works.mean()), as_float(error))
        spread = f"{works.std(ddof=1):.1f}"
        rows.append([name, str(len(works)), f"{as_float(independent):.0f}", mean, spread])
    return ["Direction", "Runs", "Independent", "Mean work / (kJ/mol)", "Standard deviation"], rows


def switching_notes() -> list[str]:
    """How to read it."""
    return [
        "Work of fast changes is more than the free energy forward and less backward, on average; Bennett's "
        "acceptance ratio of both is exact at any speed as long as each run begins in equilibrium.",
        "The error is the larger of that of drawing as many works as are independent and that of Bennett's "
        "ratio for many runs.",
    ]
