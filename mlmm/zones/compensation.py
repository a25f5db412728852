"""Free-energy compensation G(lambda) of solvent molecules that change between force field and model.

Without it the mean difference <Delta> between the two descriptions of one molecule drives molecules across
the zone. H-AdResS: Potestio et al., Phys. Rev. Lett. 110, 108301 (2013), doi 10.1103/PhysRevLett.110.108301;
Español et al., J. Chem. Phys. 142, 064115 (2015), doi 10.1063/1.4907006.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from mlmm.errors import ConfigError
from mlmm.modules import Module
from mlmm.short_repr import ShortRepr, shortened
from mlmm.whole_files import write_json

__all__ = ["Compensation", "CompensationEnergy", "natural_spline"]

_FORMAT = 1


@dataclass(frozen=True, repr=False)
class Compensation(ShortRepr):
    """What one molecule of each kind gets besides lambda Delta: −lambda·alignment − G(lambda).

    Parameters
    ----------
    alignment : mapping of str to float
        Constant part of Delta = eps^ML − eps^MM,sr by kind of molecule, kJ/mol: the two descriptions count
        energies from different zeros. One for each element would say no more: all atoms of a molecule have
        one lambda, so that constants of elements act by their sum over the molecule alone.
    knots : ndarray, shape (n,)
        lambda from 0 to 1.
    values : mapping of str to ndarray, shape (n,), kJ/mol
        G at the knots by kind, beyond the alignment; a natural cubic spline runs through them.
    errors : mapping of str to ndarray, shape (n,), kJ/mol
        Their standard errors.
    facts : mapping
        How it was calibrated: model, force field, mode, lengths, densities.
    """

    alignment: Mapping[str, float]
    knots: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0]))
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        knots = np.asarray(self.knots, dtype=np.float64)
        rising = len(knots) >= 2 and knots[0] == 0.0 and knots[-1] == 1.0 and bool((np.diff(knots) > 0).all())
        numbers = [*self.alignment.values(), *(v for row in self.values.values() for v in row)]
        fits = all(len(row) == len(knots) for row in self.values.values())
        if not rising or not fits or not all(math.isfinite(number) for number in numbers):
            raise ConfigError(
                "knots rising from 0 to 1 and as many finite values for every kind",
                f"knots {knots.tolist()}",
                "calibrate again: mlmm calibrate",
            )

    def _summary(self) -> dict[str, str]:
        ends = {kind: float(self.alignment[kind]) for kind in self.alignment}
        return {
            "alignment": shortened(", ".join(f"{kind} {value:.2f} kJ/mol" for kind, value in ends.items())),
            "G(1)": shortened(", ".join(f"{k} {row[-1]:.2f} kJ/mol" for k, row in self.values.items())),
            "knots": str(len(self.knots)),
        }

    def as_dict(self) -> dict[str, Any]:
        """Lists and numbers, for JSON; `from_dict` takes them back."""
        return {
            "format": _FORMAT,
            "alignment": dict(self.alignment),
            "knots": list(map(float, self.knots)),
            "values": {kind: list(map(float, row)) for kind, row in self.values.items()},
            "errors": {kind: list(map(float, row)) for kind, row in self.errors.items()},
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Compensation:
        """From what `as_dict` gives; KeyError, TypeError or ValueError from anything else."""
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}")
        rows = {
            name: {kind: np.array(row) for kind, row in content[name].items()}
            for name in ("values", "errors")
        }
        return cls(content["alignment"], np.array(content["knots"]), **rows, facts=content["facts"])

    def save(self, path: str | Path) -> None:
        """Write a JSON file."""
        write_json(path, self.as_dict(), nan=True)

    def at_knots(self, knots: Sequence[float] | np.ndarray) -> Compensation:
        """The same curve with other knots: its values are exact there, a new spline runs in between.

        Errors are taken straight between those of the old knots.

        Parameters
        ----------
        knots : sequence of float
            lambda, rising from 0 to 1.

        Raises
        ------
        ConfigError
            Knots that do not.
        """
        grid, old = np.array(knots, dtype=np.float64), np.asarray(self.knots, dtype=np.float64)
        values = {
            kind: natural_spline(old, self.values.get(kind, np.zeros(len(old))))(grid)
            for kind in self.alignment
        }
        errors = {kind: np.interp(grid, old, row) for kind, row in self.errors.items()}
        return Compensation(self.alignment, grid, values, errors, self.facts)

    @classmethod
    def load(cls, path: str | Path) -> Compensation:
        """Read a file of `save`.

        Raises
        ------
        ConfigError
            A file that is missing or none of these.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                "a file of `mlmm calibrate`", f"{path} ({type(error).__name__}: {error})", "calibrate again"
            ) from error


def natural_spline(knots: np.ndarray, values: np.ndarray) -> CubicSpline:
    """Return the cubic spline without curvature at its ends; with two knots a straight line.

    Parameters
    ----------
    knots : ndarray, shape (n,)
        lambda.
    values : ndarray, shape (n, ...)
        One column for each curve.
    """
    return CubicSpline(knots, values, bc_type="natural")


class CompensationEnergy(Module):
    """−lambda_m·alignment − G(lambda_m) of every molecule, kJ/mol; twice differentiable in lambda.

    Parameters
    ----------
    compensation : Compensation
    kinds : sequence of str
        Kind of each molecule, M of them.

    Raises
    ------
    ConfigError
        A kind without alignment.
    """

    def __init__(self, compensation: Compensation, kinds: Sequence[str]):
        super().__init__()
        missing = sorted(set(kinds) - set(compensation.alignment))
        if missing:
            raise ConfigError(
                f"a compensation for {', '.join(sorted(set(kinds)))}",
                f"none for {', '.join(missing)}",
                "calibrate for these molecules, or leave them out of the adaptive zone",
            )
        names = sorted(set(kinds))
        knots = np.asarray(compensation.knots, dtype=np.float64)
        zero = np.zeros(len(knots))
        rows = [np.asarray(compensation.values.get(name, zero), dtype=np.float64) for name in names]
        slopes = [natural_spline(knots, row)(knots, 1) for row in rows]
        offsets = np.array([compensation.alignment[name] for name in names])
        index = np.array([names.index(kind) for kind in kinds], dtype=np.int64)
        for name, array in (
            ("knots", knots),
            ("values", np.array(rows).reshape(len(names), len(knots))),
            ("slopes", np.array(slopes).reshape(len(names), len(knots))),
            ("alignment", offsets[index] if len(index) else np.zeros(0)),
            ("kinds", index),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """For lambda of every molecule, (M,)."""
        place = torch.searchsorted(self.knots, weights.detach(), right=True) - 1
        place = place.clamp(min=0, max=self.knots.shape[0] - 2)
        left, right = self.knots.index_select(0, place), self.knots.index_select(0, place + 1)
        h = right - left
        t = (weights - left) / h
        v0, v1 = self.values[self.kinds, place], self.values[self.kinds, place + 1]
        s0, s1 = self.slopes[self.kinds, place] * h, self.slopes[self.kinds, place + 1] * h
        # Cubic Hermite polynomial between two knots.
        value = v0 + t * (s0 + t * (3.0 * (v1 - v0) - 2.0 * s0 - s1 + t * (2.0 * (v0 - v1) + s0 + s1)))
        return -weights * self.alignment - value
