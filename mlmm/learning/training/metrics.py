"""Errors of predictions against labels: means, roots of mean squares, the largest, by part of a set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.units import ANGSTROM, KILOCALORIE

__all__ = ["Errors", "errors_of", "table"]


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
    external_force : float
        Mean absolute error of forces on point charges; NaN where there are none.
    """

    structures: int
    energy: float
    energy_rmse: float
    energy_largest: float
    energy_bias: float
    force: float
    force_rmse: float
    force_largest: float
    external_force: float = float("nan")

    def as_facts(self) -> dict[str, Any]:
        """For a file in JSON, which knows no NaN."""
        return {key: None if value != value else value for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Errors:
        """From `as_facts`."""
        values: dict[str, Any] = {k: float("nan") if value is None else value for k, value in facts.items()}
        return cls(**values)


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


def table(errors: Mapping[str, Errors]) -> str:
    """Errors in kcal/mol and kcal/mol/Å, one line for each part of a set."""
    energy, force = KILOCALORIE, KILOCALORIE / ANGSTROM
    width = max(10, *(len(name) for name in errors))
    among = any(np.isfinite(e.external_force) for e in errors.values())
    title = "labels   E MAE  E RMSE   E max  F MAE  F RMSE   F max" + ("  F on charges" if among else "")
    lines = [f"{'':{width}}  {title}   (kcal/mol, kcal/mol/Å)"]
    for name, e in errors.items():
        values: tuple[float, ...] = (e.energy / energy, e.energy_rmse / energy, e.energy_largest / energy)
        values += (e.force / force, e.force_rmse / force, e.force_largest / force)
        widths = (8, 8, 8, 7, 8, 8)
        numbers = "".join(f"{value:{w}.2f}" for value, w in zip(values, widths, strict=True))
        if among:
            numbers += f"{e.external_force / force:14.4f}"
        lines.append(f"{name:{width}}  {e.structures:6d}{numbers}")
    return "\n".join(lines)
