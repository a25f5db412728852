"""Picture of a calibration: mean difference and free-energy compensation by lambda."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mlmm.compensation import Compensation, CompensationEnergy
from mlmm.report.blend_plots import _MARK, _SOFT, _STYLE, _new_figure

__all__ = ["draw_compensation"]


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
