"""Errors of predictions against labels: means, roots of mean squares, the largest, by part of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlmm.units import ANGSTROM, KILOCALORIE

__all__ = ["Errors", "errors_by_block", "errors_of", "table"]


@dataclass(frozen=True)
class Errors:
    """Errors of energies (kJ/mol) and of components of forces (kJ/mol/nm); NaN where there are no labels.

    Parameters
    ----------
    structures : int
    energy, energy_rmse, energy_largest : float
        Mean absolute, root mean square and largest error of the energy.
    energy_bias : float
        Mean signed error.
    force, force_rmse, force_largest : float
    """

    structures: int
    energy: float
    energy_rmse: float
    energy_largest: float
    energy_bias: float
    force: float
    force_rmse: float
    force_largest: float


def errors_of(
    energies: np.ndarray, forces: np.ndarray, wanted: np.ndarray, wanted_forces: np.ndarray
) -> Errors:
    """Compare energies (S,) and forces (A, 3) with labels; NaN in the forces is left out."""
    error = np.asarray(energies) - np.asarray(wanted)
    off = (np.asarray(forces) - np.asarray(wanted_forces)).ravel()
    off = off[np.isfinite(off)]
    if not off.size:
        off = np.array([np.nan])
    return Errors(
        len(error),
        float(np.abs(error).mean()),
        float(np.sqrt(np.square(error).mean())),
        float(np.abs(error).max()),
        float(error.mean()),
        float(np.abs(off).mean()),
        float(np.sqrt(np.square(off).mean())),
        float(np.abs(off).max()),
    )


def errors_by_block(
    energies: np.ndarray,
    forces: Sequence[np.ndarray],
    wanted: np.ndarray,
    wanted_forces: Sequence[np.ndarray],
    blocks: Sequence[str],
) -> dict[str, Errors]:
    """Errors of each basin, window or run; `forces` by structure."""
    found = {}
    for block in dict.fromkeys(blocks):
        rows = [k for k, name in enumerate(blocks) if name == block]
        found[block] = errors_of(
            energies[rows],
            np.concatenate([forces[k] for k in rows]),
            wanted[rows],
            np.concatenate([wanted_forces[k] for k in rows]),
        )
    return found


def table(errors: Mapping[str, Errors]) -> str:
    """Errors in kcal/mol and kcal/mol/Å, one line for each part of a set."""
    energy, force = KILOCALORIE, KILOCALORIE / ANGSTROM
    width = max(10, *(len(name) for name in errors))
    lines = [f"{'':{width}}  labels   E MAE  E RMSE   E max  F MAE  F RMSE   F max   (kcal/mol, kcal/mol/Å)"]
    for name, e in errors.items():
        values: tuple[float, ...] = (e.energy / energy, e.energy_rmse / energy, e.energy_largest / energy)
        values += (e.force / force, e.force_rmse / force, e.force_largest / force)
        widths = (8, 8, 8, 7, 8, 8)
        numbers = "".join(f"{value:{w}.2f}" for value, w in zip(values, widths, strict=True))
        lines.append(f"{name:{width}}  {e.structures:6d}{numbers}")
    return "\n".join(lines)
