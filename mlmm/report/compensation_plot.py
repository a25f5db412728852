"""Picture of a calibration: mean difference and free-energy compensation by lambda."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmm.compensation.refine_state import Iteration
from mlmm.report.style import ACCENT, INK, MM, SOFT, file_style, new_figure
from mlmm.zones.compensation import Compensation

if TYPE_CHECKING:
    from mlmm.compensation.density import DensityProfile

__all__ = ["draw_compensation", "draw_refinement"]

# Okabe and Ito's colours, told apart by every kind of colour vision, and another marker for each.
_COLOURS = ("#d55e00", "#0072b2")
_MARKERS = ("o", "s")


def draw_compensation(compensation: Compensation, path: str | Path) -> Path:
    """<Delta> and G beyond the alignment, with standard errors and the spline that a simulation uses.

    Parameters
    ----------
    compensation : Compensation
        Of `calibrate`.
    path : str or Path

    Returns
    -------
    Path
    """
    path = Path(path)
    kind = next(iter(compensation.alignment))
    knots = np.asarray(compensation.knots)
    fine = np.linspace(0.0, 1.0, 201)
    # Without the alignment, which would be a steep straight line.
    curve = compensation.at_knots(fine).values[kind]
    samples = compensation.facts.get("samples", [])
    with file_style():
        figure, (left, right) = new_figure(9.0, 3.0, 2)
        left.errorbar(
            [sample["weight"] for sample in samples],
            [sample["difference"] for sample in samples],
            [sample["difference_error"] for sample in samples],
            fmt="o",
            color=ACCENT,
            capsize=3,
            markersize=5,
        )
        left.set(xlabel="λ", ylabel=f"⟨Δ⟩ of one {kind} / (kJ/mol)")
        right.plot(fine, curve, color=MM, linewidth=1.5)
        right.errorbar(
            knots,
            compensation.values[kind],
            compensation.errors[kind],
            fmt="o",
            color=ACCENT,
            capsize=3,
            markersize=5,
        )
        right.axhline(0.0, color=SOFT, linewidth=0.6)
        right.set(xlabel="λ", ylabel=f"G(λ) of one {kind} / (kJ/mol)")
        facts = compensation.facts
        caption = f"{facts.get('potential', '')}; equal {facts.get('mode', '')}; bars: one standard error; "
        caption += f"alignment {compensation.alignment[kind]:.2f} kJ/mol taken out of G"
        figure.supxlabel(caption, fontsize=8.5, color=SOFT, x=0.01, ha="left")
        figure.savefig(path, dpi=200)
    return path


def draw_refinement(
    compensation: Compensation, iterations: Sequence[Iteration], path: str | Path, *, tolerance: float = 0.05
) -> Path:
    """Density by lambda and by distance in the first and the last run, and G under which each ran.

    Parameters
    ----------
    compensation : Compensation
        What was found.
    iterations : sequence of Iteration
        Of `mlmm.compensation.refine.refine`.
    path : str or Path
    tolerance : float
        Half of the grey band.

    Returns
    -------
    Path
    """
    path = Path(path)
    first, last = iterations[0], iterations[-1]
    shown = {f"start ({first.length:g} ps)": first}
    if last is not first:
        shown[f"refined ({last.length:g} ps)"] = last
    fine = np.linspace(0.0, 1.0, 201).tolist()
    with file_style():
        figure, (by_weight, by_distance, curve) = new_figure(12.0, 3.4, 3)
        for k, (name, done) in enumerate(shown.items()):
            profile = done.profile
            style = {"color": _COLOURS[k], "marker": _MARKERS[k], "markersize": 4.5, "linewidth": 1.2}
            bars = {"elinewidth": 1.2, "capsize": 2.5, "label": name}
            by_weight.errorbar(
                profile.weights, profile.weight_density, profile.weight_errors, **style, **bars
            )
            by_distance.errorbar(profile.middles, profile.density, profile.errors, **style, **bars)
            at = compensation if k else done.compensation
            curve.plot(fine, at.at_knots(fine).values[profile.kind], color=_COLOURS[k], linewidth=1.5)
            curve.plot(at.knots, at.values[profile.kind], _MARKERS[k], color=_COLOURS[k], markersize=4.5)
        for axes in (by_weight, by_distance):
            axes.axhspan(1 - tolerance, 1 + tolerance, color=SOFT, alpha=0.18, linewidth=0, zorder=0)
            axes.set_title("Density / bulk density", loc="left", fontsize=10, fontweight="bold")
        by_weight.axhline(1.0, color=INK, linewidth=0.8, zorder=0)
        by_weight.set(xlabel=f"λ of one {first.profile.kind}", xlim=(-0.02, 1.02))
        by_weight.legend(frameon=False, fontsize=8.5)
        _zone(by_distance, first.profile)
        by_distance.set(
            xlabel="distance from the centre / nm", xlim=(first.profile.edges[0], first.profile.edges[-1])
        )
        curve.axhline(0.0, color=SOFT, linewidth=0.6)
        curve.set_title("G(λ) beyond the alignment", loc="left", fontsize=10, fontweight="bold")
        curve.set(xlabel="λ", ylabel="kJ/mol")
        caption = f"{compensation.facts.get('potential', '')}; grey: ±{100 * tolerance:g} %; "
        caption += "bars: one standard error"
        figure.supxlabel(caption, fontsize=8.5, color=SOFT, x=0.01, ha="left")
        figure.savefig(path, dpi=200)
    return path


def _zone(axes: Any, profile: DensityProfile) -> None:
    """Plateau and zone as two shades, named at the top; the line of the bulk."""
    inner, outer = profile.plateau, profile.plateau + profile.width
    axes.axvspan(profile.edges[0], inner, color="#0072b2", alpha=0.14, linewidth=0, zorder=0)
    axes.axvspan(inner, outer, color="#0072b2", alpha=0.06, linewidth=0, zorder=0)
    axes.axhline(1.0, color=INK, linewidth=0.8, zorder=0)
    for left, right, text in (
        (profile.edges[0], inner, "λ = 1"),
        (inner, outer, "0 < λ < 1"),
        (outer, profile.edges[-1], "λ = 0"),
    ):
        if right > left:
            axes.text(
                (left + right) / 2,
                0.985,
                text,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=8.5,
                color=SOFT,
            )
