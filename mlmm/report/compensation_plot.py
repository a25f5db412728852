"""Picture of a calibration: mean difference and free-energy compensation by lambda."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mlmm.compensation.refine_state import Iteration
from mlmm.report.blend_plots import _INK, _MARK, _SOFT, _STYLE, _new_figure
from mlmm.report.density_plots import _COLOURS, _MARKERS, _zone
from mlmm.zones.compensation import Compensation, CompensationEnergy

__all__ = ["draw_compensation", "draw_refinement"]


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
    import matplotlib

    path = Path(path)
    kind = next(iter(compensation.alignment))
    knots = np.asarray(compensation.knots)
    fine = np.linspace(0.0, 1.0, 201)
    # Alone, without the alignment, which would be a steep straight line.
    bare = Compensation({kind: 0.0}, knots, compensation.values)
    curve = -CompensationEnergy(bare, [kind] * len(fine))(torch.tensor(fine)).numpy()
    samples = compensation.facts.get("samples", [])
    with matplotlib.rc_context(_STYLE):
        figure, (left, right) = _new_figure(9.0, 3.0, 2)
        left.errorbar(
            [sample["weight"] for sample in samples],
            [sample["difference"] for sample in samples],
            [sample["difference_error"] for sample in samples],
            fmt="o",
            color=_MARK,
            capsize=3,
            markersize=5,
        )
        left.set(xlabel="λ", ylabel=f"⟨Δ⟩ of one {kind} / (kJ/mol)")
        right.plot(fine, curve, color="#3d6a94", linewidth=1.5)
        right.errorbar(
            knots,
            compensation.values[kind],
            compensation.errors[kind],
            fmt="o",
            color=_MARK,
            capsize=3,
            markersize=5,
        )
        right.axhline(0.0, color=_SOFT, linewidth=0.6)
        right.set(xlabel="λ", ylabel=f"G(λ) of one {kind} / (kJ/mol)")
        facts = compensation.facts
        caption = f"{facts.get('potential', '')}; equal {facts.get('mode', '')}; bars: one standard error; "
        caption += f"alignment {compensation.alignment[kind]:.2f} kJ/mol taken out of G"
        figure.supxlabel(caption, fontsize=8.5, color=_SOFT, x=0.01, ha="left")
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
    import matplotlib

    path = Path(path)
    first, last = iterations[0], iterations[-1]
    shown = {f"start ({first.length:g} ps)": first}
    if last is not first:
        shown[f"refined ({last.length:g} ps)"] = last
    fine = np.linspace(0.0, 1.0, 201)
    with matplotlib.rc_context(_STYLE):
        figure, (by_weight, by_distance, curve) = _new_figure(12.0, 3.4, 3)
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
            axes.axhspan(1 - tolerance, 1 + tolerance, color=_SOFT, alpha=0.18, linewidth=0, zorder=0)
            axes.set_title("Density / bulk density", loc="left", fontsize=10, fontweight="bold")
        by_weight.axhline(1.0, color=_INK, linewidth=0.8, zorder=0)
        by_weight.set(xlabel=f"λ of one {first.profile.kind}", xlim=(-0.02, 1.02))
        by_weight.legend(frameon=False, fontsize=8.5)
        _zone(by_distance, first.profile)
        by_distance.set(
            xlabel="distance from the centre / nm", xlim=(first.profile.edges[0], first.profile.edges[-1])
        )
        curve.axhline(0.0, color=_SOFT, linewidth=0.6)
        curve.set_title("G(λ) beyond the alignment", loc="left", fontsize=10, fontweight="bold")
        curve.set(xlabel="λ", ylabel="kJ/mol")
        caption = f"{compensation.facts.get('potential', '')}; grey: ±{100 * tolerance:g} %; "
        caption += "bars: one standard error"
        figure.supxlabel(caption, fontsize=8.5, color=_SOFT, x=0.01, ha="left")
        figure.savefig(path, dpi=200)
    return path
