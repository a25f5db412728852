"""What a model's own estimate of its error is worth: as a standard deviation, and how well that holds.

A component of a force is taken to be off by a Gaussian of variance a² s²/3 + b², with the spread s of the
force on the atom (sqrt of the sum over its components) and two constants that held-out labels determine. How
often the error then is within an interval of nominal 68 or 95 per cent is measured on other held-out labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.errors import PotentialError

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Calibration:
    """How the spread of a force becomes a standard deviation of its error, and how well that held.

    Parameters
    ----------
    measure : str
        Such as "force spread of the committee" or "predictive variance of the Gaussian process".
    scale : float
        a: by which spreads are multiplied.
    floor : float
        b of a component: what an error has where all members agree, kJ/mol/nm.
    factor68, factor95 : float
        Standard deviations on either side of the prediction that held 68.3 and 95.4 per cent of the errors: 1
        and 2 for a Gaussian.
    coverage68, coverage95 : float
        Share of the errors inside these intervals on labels that determined none of the constants; NaN where
        there were none.
    labels, tested : int
        Structures that determined the constants, and that tested them.
    raw_coverage68 : float
        Share of the errors within one plain spread per component, for comparison.
    correlation : float
        Rank correlation of spread and error over the atoms tested.
    """

    measure: str
    scale: float
    floor: float
    factor68: float = 1.0
    factor95: float = 2.0
    coverage68: float = float("nan")
    coverage95: float = float("nan")
    labels: int = 0
    tested: int = 0
    raw_coverage68: float = float("nan")
    correlation: float = float("nan")

    def deviation(self, spread: np.ndarray) -> np.ndarray:
        """Standard deviation of the force on an atom, sqrt of the sum over components, from its spread."""
        return np.asarray(np.sqrt(self.scale**2 * np.square(spread) + 3.0 * self.floor**2))

    def sentence(self) -> str:
        """One line for a report."""
        text = f"{self.measure}, scaled by {self.scale:.2f} with a floor of {self.floor:.0f} kJ/mol/nm"
        if self.tested:
            text += (
                f"; nominal 68 and 95 % intervals held {100 * self.coverage68:.0f} and "
                f"{100 * self.coverage95:.0f} % of the errors on {self.tested} held-out structures"
            )
        else:
            text += f", from {self.labels} structures, not tested on others"
        return text

    def as_facts(self) -> dict[str, Any]:
        """Entries for a file; NaN, which JSON does not know, as null."""
        facts = dataclasses.asdict(self)
        return {key: None if value != value else value for key, value in facts.items()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], where: str) -> Calibration:
        """Read entries of `as_facts`.

        Raises
        ------
        PotentialError
            Entries that are missing, unknown or no numbers.
        """
        try:
            values: dict[str, Any] = {
                key: float("nan") if value is None else value for key, value in facts.items()
            }
            found = cls(**values)
            if not (found.scale >= 0.0 and found.floor >= 0.0):
                raise ValueError("a scale or floor below zero")
        except (TypeError, ValueError) as error:
            raise PotentialError(f"a calibration in {where}", str(error), "train the model again") from error
        return found
