"""Errors of a model on held-out labels, basin by basin, and whether they are small enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from mlmm.learning.active.options import StopOptions
from mlmm.reference.labels import Label, Molecule

__all__ = ["Answers", "BasinErrors", "Measured", "Model", "measure", "unmet_targets"]


@dataclass(frozen=True)
class Answers:
    """A model's predictions.

    Parameters
    ----------
    energies : ndarray, shape (S,), kJ/mol
    forces : list of ndarray, (N, 3), kJ/mol/nm
    deviations : list of ndarray, (N,), kJ/mol/nm, optional
        Calibrated standard deviation of a force component on each atom; None for a model without.
    """

    energies: np.ndarray
    forces: Sequence[np.ndarray]
    deviations: Sequence[np.ndarray] | None = None

    @property
    def largest_deviations(self) -> np.ndarray | None:
        """Of each structure, (S,)."""
        return None if self.deviations is None else np.array([float(d.max()) for d in self.deviations])


class Model(Protocol):
    """A trained model, as a loop of active learning uses it."""

    def predict(self, molecules: Sequence[Molecule]) -> Answers: ...


@dataclass(frozen=True)
class BasinErrors:
    """Errors in one basin: of energies in kJ/mol, of force components in kJ/mol/nm."""

    structures: int
    energy: float
    energy_bias: float
    energy_largest: float
    force: float
    force_largest: float


@dataclass(frozen=True)
class Measured:
    """A model on held-out labels.

    Parameters
    ----------
    overall : BasinErrors
    basins : mapping of str to BasinErrors
    coverage68, coverage95 : float
        Share of force components within one and two standard deviations; NaN without.
    energies, predicted : list of float
        Labels and predictions of each structure, kJ/mol, for a parity plot.
    names : list of str
        Basin of each.
    """

    overall: BasinErrors
    basins: Mapping[str, BasinErrors]
    coverage68: float
    coverage95: float
    energies: list[float]
    predicted: list[float]
    names: list[str]

    def as_facts(self) -> dict[str, Any]:
        """For a file in JSON, which knows no NaN."""
        facts = asdict(self)
        for key in ("coverage68", "coverage95"):
            facts[key] = facts[key] if math.isfinite(facts[key]) else None
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Measured:
        """From `as_facts`."""
        values = dict(facts)
        for key in ("coverage68", "coverage95"):
            values[key] = math.nan if values[key] is None else values[key]
        values["overall"] = BasinErrors(**values["overall"])
        values["basins"] = {name: BasinErrors(**entry) for name, entry in values["basins"].items()}
        return cls(**values)


def measure(model: Model, pairs: Sequence[tuple[Molecule, Label]], basin: str = "window") -> Measured:
    """Compare a model with labels that it was not trained on.

    Parameters
    ----------
    model : Model
    pairs : sequence of (Molecule, Label)
        Converged ones.
    basin : str
        Entry of the origin that names the basin.
    """
    answers = model.predict([molecule for molecule, _ in pairs])
    names = [molecule.origin.get(basin, "all") for molecule, _ in pairs]
    energies = np.array([label.energy for _, label in pairs])
    off = answers.energies - energies
    force_errors = [
        np.abs(forces - np.asarray(label.forces)) if label.forces is not None else np.full((1, 3), np.nan)
        for forces, (_, label) in zip(answers.forces, pairs, strict=True)
    ]
    basins = {
        name: _errors(off, force_errors, [k for k, other in enumerate(names) if other == name])
        for name in sorted(set(names))
    }
    coverage = [math.nan, math.nan]
    if answers.deviations is not None:
        ratios = [
            error / np.maximum(deviation, 1e-12)[:, None]
            for error, deviation in zip(force_errors, answers.deviations, strict=True)
            if np.isfinite(error).all()
        ]
        if ratios:
            scaled = np.concatenate(ratios)
            coverage = [float((scaled <= width).mean()) for width in (1.0, 2.0)]
    return Measured(
        _errors(off, force_errors, range(len(pairs))),
        basins,
        coverage[0],
        coverage[1],
        energies.tolist(),
        answers.energies.tolist(),
        names,
    )


def unmet_targets(found: Measured, stop: StopOptions) -> list[str]:
    """Targets that a model misses, in sentences; empty where it meets all."""
    missed = []
    for quantity, unit, limit in (("energy", "kJ/mol", stop.energy), ("force", "kJ/mol/nm", stop.force)):
        worst = max(found.basins, key=lambda name: _finite(getattr(found.basins[name], quantity)))
        value = getattr(found.basins[worst], quantity)
        if not value <= limit:
            missed.append(f"The {quantity} is off by {value:.3g} {unit} in basin {worst}, above {limit:g}.")
    if stop.coverage < 1.0 and math.isfinite(found.coverage68):
        off = abs(found.coverage68 - 0.6827)
        if off > stop.coverage:
            missed.append(
                f"Intervals of 68 % hold {100 * found.coverage68:.0f} % of the force errors, "
                f"{100 * off:.0f} off, above {100 * stop.coverage:.0f}."
            )
    return missed


def _errors(off: np.ndarray, force_errors: Sequence[np.ndarray], rows: Sequence[int]) -> BasinErrors:
    energies = off[list(rows)]
    forces = np.concatenate([force_errors[k].reshape(-1) for k in rows])
    forces = forces[np.isfinite(forces)]
    return BasinErrors(
        len(energies),
        float(np.abs(energies).mean()),
        float(energies.mean()),
        float(np.abs(energies).max()),
        float(forces.mean()) if len(forces) else 0.0,
        float(forces.max()) if len(forces) else 0.0,
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
