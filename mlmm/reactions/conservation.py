"""Are forces the gradient of one energy? Some models predict forces directly; for these no path exists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlmm.reactions.surface import ReactionSurface

__all__ = ["ForceCheck", "check_forces"]

#: Parts of the typical change of a force beyond which the difference is no rounding.
_LIMIT = 0.02
_STEP = 1e-4  # nm, of the whole displacement on each atom


@dataclass(frozen=True)
class ForceCheck:
    """Deviation of forces from a gradient, along two directions.

    Parameters
    ----------
    slope : float
        |E(+) − E(−) + ∫F·dR| over |∫F·dR| or, at rest, the change of it: forces that do not fit the energy.
    curl : float
        |u·∂F/∂v − v·∂F/∂u| over the size of both: forces that are the gradient of no energy at all.
    """

    slope: float
    curl: float

    @property
    def conservative(self) -> bool:
        """Whether forces are the gradient of the energy."""
        return max(self.slope, self.curl) < _LIMIT

    @property
    def finding(self) -> str:
        """What is wrong, in words."""
        return (
            f"forces that differ from the slope of the energy by {100 * self.slope:.1f} %, with a curl of "
            f"{100 * self.curl:.1f} % of their change"
        )


def check_forces(surface: ReactionSurface, seed: int = 0, memory: np.ndarray | None = None) -> ForceCheck:
    """Compare forces with differences of the energy, and their derivatives with each other; four evaluations.

    Along random directions u and v of unit length per atom, by central differences with R ± h u. The energy
    difference is held against the mean of both forces, whose error is of third order.

    Parameters
    ----------
    surface : ReactionSurface
    seed : int
    memory : ndarray, optional
        Environment at rest.
    """
    random = np.random.default_rng(seed)
    n = len(surface)
    directions = random.standard_normal((2, n, 3))
    if surface.dimensions == 2:
        directions[:, :, 2] = 0.0
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    moved = [surface.positions + sign * _STEP * d for d in directions for sign in (1.0, -1.0)]
    found = surface.evaluate_many(moved, [memory] * 4)
    slopes, works, changes = [], [], []
    for k, direction in enumerate(directions):
        plus, minus = found[2 * k], found[2 * k + 1]
        work = float(((plus.forces + minus.forces) * direction).sum()) * _STEP
        slopes.append(plus.energy - minus.energy + work)
        works.append(work)
        changes.append((plus.forces - minus.forces) / (2.0 * _STEP))
    # At rest the work vanishes: then the size of the forces a step away is what it is held against.
    rest = max(float(np.linalg.norm(c)) for c in changes) * _STEP**2 * np.sqrt(n)
    slope = max(abs(s) for s in slopes) / max(*map(abs, works), 0.1 * rest, 1e-12)
    cross = [float((changes[1] * directions[0]).sum()), float((changes[0] * directions[1]).sum())]
    size = float(np.linalg.norm(changes[0]) + np.linalg.norm(changes[1])) * np.sqrt(n) / 2.0
    return ForceCheck(float(slope), abs(cross[0] - cross[1]) / max(size, 1e-12))
