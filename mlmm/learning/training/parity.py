"""Pictures of a training: predicted against labelled energies and forces, reliability of the spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlmm.learning.training.train import Trained
from mlmm.learning.uncertainty.calibrate import reliability
from mlmm.units import ANGSTROM, KILOCALORIE

__all__ = ["draw_parity"]


def draw_parity(trained: Trained, path: Path, block: str = "window") -> Path:
    """Draw held-out predictions (or validation ones where nothing was held out) against labels.

    Parameters
    ----------
    trained : Trained
    path : Path
        Of the PNG file.
    block : str
        Entry of the origin by which the bias of the energy is shown.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    divided = trained.divided
    samples = [*divided.train, *divided.validation, *divided.held_out]
    n, m = len(divided.train), len(divided.train) + len(divided.validation)
    rows = range(m, len(samples)) if divided.held_out else range(n, m)
    labels = [label for _, label in samples]
    if trained.model.spec.trained_on == "correction":
        labels = labels[:0]  # labels of the correction are not kept
    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 3)
    if labels:
        wanted = np.array([labels[k].energy for k in rows])
        zero = wanted.min()
        found = trained.predicted.energies[list(rows)]
        _parity(axes[0], (wanted - zero) / KILOCALORIE, (found - zero) / KILOCALORIE, "energy / (kcal/mol)")
        force = KILOCALORIE / ANGSTROM
        with_forces = [k for k in rows if labels[k].forces is not None]
        if with_forces:
            true = np.concatenate([np.ravel(np.asarray(labels[k].forces)) for k in with_forces]) / force
            model = np.concatenate([trained.predicted.forces[k].ravel() for k in with_forces]) / force
            _parity(axes[1], true, model, "force / (kcal/mol/Å)")
    spreads = trained.predicted.against(labels, list(rows)) if labels else None
    if trained.calibration is not None and spreads is not None:
        nominal, measured = reliability(trained.calibration, spreads)
        axes[2].plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axes[2].plot(nominal, measured, marker="o", markersize=3)
        axes[2].set(xlabel="nominal coverage", ylabel="measured coverage", title="forces, calibrated spread")
    else:
        _by_block(axes[2], trained, samples, rows, block)
    figure.savefig(path, dpi=110)
    return path


def _parity(axes, wanted: np.ndarray, found: np.ndarray, what: str) -> None:  # type: ignore[no-untyped-def]
    ends = [float(min(wanted.min(), found.min())), float(max(wanted.max(), found.max()))]
    axes.plot(ends, ends, color="0.6", linewidth=1)
    axes.plot(wanted, found, ".", markersize=3)
    axes.set(xlabel=f"label: {what}", ylabel=f"model: {what}")
    axes.set_title(f"mean absolute error {np.abs(wanted - found).mean():.2f}")


def _by_block(axes, trained: Trained, samples: Sequence, rows: Sequence[int], block: str) -> None:  # type: ignore[no-untyped-def]
    """Error of the energy against the block that a structure comes from."""
    names = list(dict.fromkeys(samples[k][0].origin.get(block, "") for k in rows))
    if trained.model.spec.trained_on == "correction" or not names:
        axes.set_axis_off()
        return
    places = [names.index(samples[k][0].origin.get(block, "")) for k in rows]
    errors = [(trained.predicted.energies[k] - samples[k][1].energy) / KILOCALORIE for k in rows]
    axes.axhline(0.0, color="0.6", linewidth=1)
    axes.plot(places, errors, ".", markersize=4)
    axes.set(xlabel=block, ylabel="error of the energy / (kcal/mol)")
