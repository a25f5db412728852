"""Whether something stays hot that a thermostat cools: then energy comes from nowhere.

A Langevin thermostat takes the power 2 gamma (K - n kT / 2) from atoms of kinetic energy K. What it takes
beyond all thermal fluctuations is the heat of reactions, and ends with them; heat without an end is the work
of steps that are too long, or of forces that are no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlmm.units import GAS_CONSTANT

__all__ = ["HeatBalance", "HotGroup", "largest_mean_kinetic_energy"]

#: Mean kinetic energies are judged over this many times 1/gamma, and at least as many looks.
_BLOCK = 5
#: Chance of exp(-40) = 4e-18 for each block that a thermal fluctuation goes beyond its bound.
_CHANCE = 40.0


def largest_mean_kinetic_energy(freedom: int, temperature: float, relaxations: float) -> float:
    """Bound on the time average of a kinetic energy under a Langevin thermostat, kJ/mol.

    The average of n squared velocities that relax at the rate gamma exceeds y times its mean with a
    probability of exp(-n gamma t (y - 1)² / (4 y)) in a long time t (Bryc and Dembo, J. Theor. Probab. 10,
    307 (1997), doi 10.1023/A:1022656331883); exp(-40) here.

    Parameters
    ----------
    freedom : int
        Degrees of freedom, n.
    temperature : float
        K.
    relaxations : float
        gamma t.
    """
    spread = 4.0 * _CHANCE / (freedom * relaxations)
    ratio = 1.0 + 0.5 * spread + math.sqrt(spread + 0.25 * spread**2)
    return 0.5 * freedom * GAS_CONSTANT * temperature * ratio


@dataclass(frozen=True)
class HotGroup:
    """Atoms whose kinetic energy is followed.

    Parameters
    ----------
    name : str
    freedom : int
        Degrees of freedom.
    released : float
        All energy that reactions and strain can turn into heat there, kJ/mol.
    """

    name: str
    freedom: int
    released: float


class HeatBalance:
    """Adds up what a thermostat takes from groups of atoms that stay hot.

    Parameters
    ----------
    groups : sequence of HotGroup
    """

    def __init__(self, groups: Sequence[HotGroup]):
        self._groups = list(groups)
        self.begin(0.0, 0.0, 0.0)

    def begin(self, temperature: float, friction: float, time: float) -> None:
        """Start anew at a time, ps, under a thermostat, K and 1/ps; friction 0 for none."""
        self._temperature, self._friction = temperature, friction
        self._last = time
        self._heat = [0.0] * len(self._groups)
        self._since = [time] * len(self._groups)
        self._block(time)

    def _block(self, time: float) -> None:
        self._start, self._looks = time, 0
        self._sums = [0.0] * len(self._groups)

    def look(self, energies: Sequence[float], time: float) -> str | None:
        """Take in kinetic energies of the groups, kJ/mol, at a time, ps; say what is wrong, if anything."""
        if self._friction <= 0 or time <= self._last:
            return None
        for k, energy in enumerate(energies):
            self._sums[k] += energy * (time - self._last)
        self._looks, self._last = self._looks + 1, time
        length = time - self._start
        if self._looks < _BLOCK or length * self._friction < _BLOCK:
            return None
        found = [self._judged(k, length, time) for k in range(len(self._groups))]
        self._block(time)
        return next((said for said in found if said), None)

    def _judged(self, k: int, length: float, time: float) -> str | None:
        group, mean = self._groups[k], self._sums[k] / length
        # As many as a continuous average has that is as precise as one of these looks.
        relaxations = self._looks * math.tanh(length * self._friction / self._looks)
        excess = mean - largest_mean_kinetic_energy(group.freedom, self._temperature, relaxations)
        if excess <= 0:
            self._heat[k], self._since[k] = 0.0, time
            return None
        # In the time between two looks a thermostat takes no more than this part of what it finds.
        taken = -math.expm1(-2.0 * self._friction * length / self._looks)
        self._heat[k] += excess * self._looks * taken
        if self._heat[k] <= group.released:
            return None
        found = 2.0 * mean / (group.freedom * GAS_CONSTANT)
        return (
            f"{group.name} at {found:,.0f} K in the mean of {length:.3g} ps, while the thermostat took "
            f"{self._heat[k]:,.0f} kJ/mol from it in {time - self._since[k]:.3g} ps, more than reactions "
            "release"
        )
