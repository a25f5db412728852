"""Picture of the solvent's density across an adaptive zone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmm.report.blend_plots import _INK, _SOFT, _STYLE, _new_figure

if TYPE_CHECKING:
    from mlmm.compensation.density import DensityProfile

__all__ = ["draw_density"]

# Okabe and Ito's colours, told apart by every kind of colour vision, and another marker for each.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
_MARKERS = ("o", "s", "D", "^")


def draw_density(
    profiles: Mapping[str, DensityProfile],
    path: str | Path,
    *,
    reference: DensityProfile | None = None,
    reference_label: str = "force field alone",
    caption: str = "",
) -> Path:
    """Density against distance with error bars, the zone shaded; below or beside it, relative to a reference.

    Parameters
    ----------
    profiles : mapping of str to DensityProfile
        By what the legend says; of the same zone, four at most.
    path : str or Path
        A PNG, or any format that matplotlib writes.
    reference : DensityProfile, optional
        Drawn as a curve; the right half then shows each profile divided by it.
    reference_label : str
    caption : str
        Facts below the picture.

    Returns
    -------
    Path
    """
    import matplotlib

    path = Path(path)
    first = next(iter(profiles.values()))
    with matplotlib.rc_context(_STYLE):
        columns = 1 if reference is None else 2
        figure, panels = _new_figure(9.0 if columns == 2 else 6.0, 3.6, columns)
        if reference is not None:
            line = panels[0].plot(reference.middles, reference.density, color=_SOFT, linewidth=1.6, zorder=1)[
                0
            ]
            line.set_label(reference_label)
            panels[0].fill_between(
                reference.middles,
                reference.density - reference.errors,
                reference.density + reference.errors,
                color=_SOFT,
                alpha=0.3,
                linewidth=0,
            )
        shown = [
            profiles,
            {name: p.relative_to(reference) for name, p in profiles.items()} if reference else {},
        ]
        for axes, curves in zip(panels, shown, strict=False):
            _curves(axes, curves)
            _zone(axes, first)
            axes.set(xlabel="distance from the centre / nm", xlim=(first.edges[0], first.edges[-1]))
        panels[0].set_title("Density / bulk density", loc="left", fontsize=10, fontweight="bold")
        if reference is not None:
            panels[1].axhspan(0.95, 1.05, color=_SOFT, alpha=0.18, linewidth=0)
            panels[1].set_title(
                f"Density / that of the {reference_label}", loc="left", fontsize=10, fontweight="bold"
            )
        panels[0].legend(frameon=False, fontsize=8.5)
        if caption:
            figure.supxlabel(caption, fontsize=8.5, color=_SOFT, x=0.01, ha="left")
        figure.savefig(path, dpi=200)
    return path


def _curves(axes: Any, profiles: Mapping[str, DensityProfile]) -> None:
    shift = 0.04 * float(np.diff(next(iter(profiles.values())).edges).min())
    for k, (name, profile) in enumerate(profiles.items()):
        axes.errorbar(
            # Side by side, so that no error bar hides another.
            profile.middles + (k - (len(profiles) - 1) / 2) * 2 * shift,
            profile.density,
            profile.errors,
            color=_COLOURS[k],
            marker=_MARKERS[k],
            markersize=4.5,
            linewidth=1.2,
            elinewidth=1.2,
            capsize=2.5,
            label=name,
        )


def _zone(axes: Any, profile: DensityProfile) -> None:
    """Plateau and zone as two shades, named at the top; the line of the bulk."""
    inner, outer = profile.plateau, profile.plateau + profile.width
    axes.axvspan(profile.edges[0], inner, color="#0072b2", alpha=0.14, linewidth=0, zorder=0)
    axes.axvspan(inner, outer, color="#0072b2", alpha=0.06, linewidth=0, zorder=0)
    axes.axhline(1.0, color=_INK, linewidth=0.8, zorder=0)
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
                color=_SOFT,
            )
