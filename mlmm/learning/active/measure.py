"""Errors of a model on held-out labels, basin by basin, and whether they are small enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mlmm.learning.active.options import StopOptions
from mlmm.learning.training.metrics import Errors, errors_of
from mlmm.learning.uncertainty.calibrate import NOMINAL
from mlmm.reference.labels import Label, Molecule

__all__ = ["Answers", "Measured", "Model", "measure", "unmet_targets"]


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
class Measured:
    """A model on held-out labels.

    Parameters
    ----------
    overall : Errors
    basins : mapping of str to Errors
    coverage68, coverage95 : float
        Share of force components within one and two standard deviations; NaN without.
    energies, predicted : list of float
        Labels and predictions of each structure, kJ/mol, for a parity plot.
    names : list of str
        Basin of each.
    """

    overall: Errors
    basins: Mapping[str, Errors]
    coverage68: float
    coverage95: float
    energies: list[float]
    predicted: list[float]
    names: list[str]

    def as_facts(self) -> dict[str, Any]:
        """For a file in JSON, which knows no NaN."""
        facts = vars(self) | {
            "overall": self.overall.as_facts(),
            "basins": {name: found.as_facts() for name, found in self.basins.items()},
        }
        for key in ("coverage68", "coverage95"):
            facts[key] = facts[key] if math.isfinite(facts[key]) else None
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Measured:
        """From `as_facts`."""
        values = dict(facts)
        for key in ("coverage68", "coverage95"):
            values[key] = math.nan if values[key] is None else values[key]
        values["overall"] = Errors.from_facts(values["overall"])
        values["basins"] = {name: Errors.from_facts(entry) for name, entry in values["basins"].items()}
        return cls(**values)


def measure(model: Model, pairs: Sequence[tuple[Molecule, Label]], basin: str = "window") -> Measured:
    """Compare a model with labels that it was not trained on.

    Parameters
    ----------
    model : Model
    pairs : sequence of (Molecule, Label)
        Converged ones, with forces.
    basin : str
        Entry of the origin that names the basin.
    """
    answers = model.predict([molecule for molecule, _ in pairs])
    names = [molecule.origin.get(basin, "all") for molecule, _ in pairs]
    energies = np.array([label.energy for _, label in pairs])
    forces = [np.asarray(label.forces) for _, label in pairs]

    def errors(rows: Sequence[int]) -> Errors:
        found, wanted = (np.concatenate([each[k] for k in rows]) for each in (answers.forces, forces))
        return errors_of(answers.energies[rows], found, energies[rows], wanted)

    basins = {
        name: errors([k for k, other in enumerate(names) if other == name]) for name in sorted(set(names))
    }
    coverage = [math.nan, math.nan]
    if answers.deviations is not None:
        error = np.abs(np.concatenate(list(answers.forces)) - np.concatenate(forces))
        scaled = error / np.maximum(np.concatenate(list(answers.deviations)), 1e-12)[:, None]
        coverage = [float((scaled <= width).mean()) for width in (1.0, 2.0)]
    return Measured(
        errors(list(range(len(pairs)))),
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
        values = {name: getattr(errors, quantity) for name, errors in found.basins.items()}
        # NaN of a model that went wrong is worse than any number.
        worst = max(values, key=lambda name: math.inf if math.isnan(values[name]) else values[name])
        value = values[worst]
        if not value <= limit:
            missed.append(f"The {quantity} is off by {value:.3g} {unit} in basin {worst}, above {limit:g}.")
    if stop.coverage < 1.0 and math.isfinite(found.coverage68):
        off = abs(found.coverage68 - NOMINAL[0])
        if off > stop.coverage:
            missed.append(
                f"Intervals of 68 % hold {100 * found.coverage68:.0f} % of the force errors, "
                f"{100 * off:.0f} off, above {100 * stop.coverage:.0f}."
            )
    return missed
