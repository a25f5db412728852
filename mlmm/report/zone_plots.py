"""Figures of zones: the scan over plateau and width, atoms by lambda."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmm.report.style import ACCENT, INK, MM, SOFT, file_style, new_figure

if TYPE_CHECKING:
    from mlmm.validation.scan_zones import ZoneScan

__all__ = ["draw_histogram", "draw_scan"]


def _cell(mean: float, error: float) -> str:
    """Two digits of a mean, no more than one reads off, and its error to the same decimal place below."""
    if np.isnan(mean):
        return ""
    if mean < 0.005:
        return "< 0.01"
    places = 0 if mean >= 9.95 else 1 if mean >= 0.95 else 2
    visible = error >= 0.5 * 10.0**-places  # NaN, of a single frame, is not
    return f"{mean:.{places}f}" + (f"\n± {error:.{places}f}" if visible else "")


def _heat_map(
    axes: Any, scan: ZoneScan, hue: str, colours: np.ndarray, texts: list[list[str]], title: str
) -> None:
    """A grid of coloured cells with numbers: plateau to the right, width upwards; colours in [0, 1].

    One hue from light to dark reads the same for every kind of colour vision.
    """
    from matplotlib import colormaps

    image = colormaps[hue](0.05 + 0.85 * np.nan_to_num(colours.T))[..., :3]
    image[~scan.possible.T] = 1.0
    axes.imshow(image, origin="lower", aspect="auto", interpolation="nearest")
    for edge in range(1, len(scan.plateaus)):
        axes.axvline(edge - 0.5, color="white", linewidth=1.5)
    for edge in range(1, len(scan.widths)):
        axes.axhline(edge - 0.5, color="white", linewidth=1.5)
    for (w, p), text in np.ndenumerate(np.array(texts, dtype=object).T):
        luminance = image[w, p] @ np.array([0.2126, 0.7152, 0.0722])
        colour = "white" if luminance < 0.5 else INK
        first, _, second = text.partition("\n")
        axes.text(p, w + (0.13 if second else 0), first, ha="center", va="center", color=colour, fontsize=11)
        if second:
            axes.text(p, w - 0.22, second, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(scan.plateaus)), [f"{x:g}" for x in scan.plateaus])
    axes.set_yticks(range(len(scan.widths)), [f"{x:g}" for x in scan.widths])
    axes.set(xlabel="plateau $R_c$ / nm", ylabel="width $w$ / nm")
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _frame(axes: Any, p: int, w: int, size: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    box = Rectangle((p - size / 2, w - size / 2), size, size, fill=False, clip_on=False, **style)
    axes.add_patch(box)


def draw_scan(scan: ZoneScan, path: str | Path, target_percent: float = 5.0) -> Path:
    """Boundary error and number of atoms as heat maps with numbers, side by side, the choice marked.

    Parameters
    ----------
    scan : ZoneScan
    path : str or Path
        A PNG, or any format that matplotlib writes.
    target_percent : float
        Of the rms force on the region.

    Returns
    -------
    Path
    """
    path = Path(path)
    mean, error = scan.mean, scan.standard_error
    choice = scan.recommend(target_percent)
    logarithm = np.log10(np.clip(mean, 0.05, None))
    low, high = np.log10(0.05), max(np.log10(50.0), np.nanmax(logarithm))
    texts = [[_cell(m, e) for m, e in zip(*row, strict=True)] for row in zip(mean, error, strict=True)]
    counts = [[f"{n:,}" if n else "" for n in row] for row in scan.active]
    fewest = scan.active[scan.possible].min()
    spread = np.log10(np.maximum(scan.active, 1) / fewest) / max(np.log10(scan.active.max() / fewest), 1e-9)
    with file_style():
        height = 1.45 + 0.46 * len(scan.widths)
        figure, (left, right) = new_figure(9.0, height, 2, width_ratios=[1, 1])
        _heat_map(
            left,
            scan,
            "Blues",
            (logarithm - low) / (high - low),
            texts,
            "Force error on the region, % of rms force",
        )
        _heat_map(right, scan, "Greys", 0.5 * spread, counts, "Atoms with λ > 0: what it costs")
        for p, w in np.argwhere(mean < target_percent):
            for (dp, dw), line in {
                (-1, 0): ([p - 0.5, p - 0.5], [w - 0.5, w + 0.5]),
                (1, 0): ([p + 0.5, p + 0.5], [w - 0.5, w + 0.5]),
                (0, -1): ([p - 0.5, p + 0.5], [w - 0.5, w - 0.5]),
                (0, 1): ([p - 0.5, p + 0.5], [w + 0.5, w + 0.5]),
            }.items():
                inside = 0 <= p + dp < mean.shape[0] and 0 <= w + dw < mean.shape[1]
                if inside and not mean[p + dp, w + dw] < target_percent:
                    left.plot(*line, color=INK, linewidth=2, solid_capstyle="projecting")
        frames = f"{len(scan.percent)} frame" + ("s" if len(scan.percent) > 1 else "")
        caption = f"{scan.label}: {scan.region} atoms, λ by {scan.snap}, {frames}. "
        if choice is None:
            caption += f"No zone reaches {target_percent:g} %."
        else:
            p = int(np.argmin(abs(scan.plateaus - choice.plateau)))
            w = int(np.argmin(abs(scan.widths - choice.width)))
            for axes in (left, right):
                _frame(axes, p, w, 0.9, edgecolor=ACCENT, linewidth=3)
            limit = f"{target_percent:g}\u00a0%"
            caption += f"Frame: fewest atoms below {limit}; line: {limit}."
        if not scan.possible.all():
            caption += " Blank: the zone meets its own periodic image."
        lines = "\n".join(textwrap.wrap(caption, 135))
        figure.supxlabel(lines, fontsize=8.5, color=SOFT, x=0.01, ha="left")
        figure.savefig(path, dpi=150)
    return path


def draw_histogram(
    figure: Any, edges: np.ndarray, atoms: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> None:
    """Draw the number of atoms and Delta per residue by lambda, without Delta where all of it is NaN.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        With room for both side by side, or a narrow one.
    edges : ndarray, shape (B + 1,)
    atoms, mean, deviation : ndarray, shape (B + 1,)
        See `LambdaHistogram`.
    """
    names = [f"{a:.2g}–{b:.2g}" for a, b in itertools.pairwise(edges)] + ["1"]
    x = np.arange(len(names))
    count = 2 if np.isfinite(mean).any() else 1
    narrow = figure.get_figwidth() < 4.5
    shape = (count, 1) if narrow else (1, count)
    panels = figure.subplots(*shape, squeeze=False).flat
    panels[0].bar(x, atoms, color=MM, width=0.8)
    for place, number in zip(x, atoms, strict=True):
        panels[0].text(place, number, f"{number:.0f}", ha="center", va="bottom", fontsize=8.5)
    panels[0].set(ylabel="atoms")
    if count == 2:
        panels[1].errorbar(x, mean, deviation, fmt="o", color=ACCENT, capsize=3, markersize=5, linewidth=1.2)
        panels[1].set(ylabel="Δ per residue / (kJ/mol)")
    for axes in panels:
        axes.set_xticks(x, names, rotation=45 if narrow and len(names) > 5 else 0)
        axes.set(xlabel="λ", xlim=(-0.6, len(names) - 0.4))
