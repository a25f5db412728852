"""Constant pressure: trial changes of the box between two steps, with a state that a checkpoint can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openmm

from mlmm.collective_variables.openmm_forces import follow_box
from mlmm.dynamics.integrators import forget_forces
from mlmm.plugin import potential_energies
from mlmm.units import BAR_NM3, GAS_CONSTANT

__all__ = ["INTERVAL", "Barostat", "own_barostats"]

#: Steps of the integrator between two trial moves.
INTERVAL = 25
_LARGEST = 0.3  # of the volume
_ENOUGH = 10  # moves before the acceptance is judged
_LOW, _HIGH, _FACTOR = 0.25, 0.75, 1.1


class Barostat:
    """Monte Carlo barostat: boxes of all sizes with the probability that they have under a pressure.

    A trial move changes the volume V by up to `scale` and carries whole molecules along with their centres.
    It is accepted with the probability min(1, exp(-w / k_B T)), w = dE + p dV - n k_B T ln(V'/V) for n
    molecules (Chow and Ferguson, Comput. Phys. Commun. 91, 283 (1995), doi 10.1016/0010-4655(95)00059-O;
    Åqvist et al., Chem. Phys. Lett. 384, 288 (2004), doi 10.1016/j.cplett.2003.12.039). `scale` grows or
    shrinks by a tenth where more than three quarters or less than a quarter are accepted.

    OpenMM's MonteCarloBarostat does the same, but keeps the number of steps to its next move, the size of
    moves and their acceptance in the Context and not in its checkpoints: a resumed run leaves the path of an
    uninterrupted one at the next move. Here a move is due at multiples of `INTERVAL`, its random numbers
    follow from seed and step, and the rest is in `facts`.

    Parameters
    ----------
    context : openmm.Context
        With periodic boxes, positions set.
    integrator : openmm.Integrator
        Of the context.
    pressure : float
        bar.
    temperature : float
        K.
    seed : int
    facts : mapping, optional
        Of the barostat that this one continues.
    molecules : sequence of sequence of int, optional
        What moves as a whole; by default the molecules of the context, among which OpenMM counts all atoms of
        a restraint as one.
    """

    def __init__(
        self,
        context: openmm.Context,
        integrator: openmm.Integrator,
        pressure: float,
        temperature: float,
        seed: int,
        facts: Mapping[str, Any] | None = None,
        molecules: Sequence[Sequence[int]] | None = None,
    ):
        self._context, self._integrator, self._seed = context, integrator, seed
        self._pressure, self._kt = BAR_NM3 * pressure, GAS_CONSTANT * temperature
        molecules = context.getMolecules() if molecules is None else molecules
        self._count = len(molecules)
        self._molecule = np.empty(context.getSystem().getNumParticles(), dtype=np.int64)
        for index, atoms in enumerate(molecules):
            self._molecule[list(atoms)] = index
        self._sizes = np.bincount(self._molecule)[:, None]
        start = {
            "scale": 0.01 * _volume(self._box()),
            "attempted": 0,
            "accepted": 0,
            "moves": 0,
            "changes": 0,
        }
        self.facts: dict[str, Any] = dict(facts) if facts is not None else start

    @staticmethod
    def next_move(step: int) -> int:
        """The first step after this one that ends with a move."""
        return step - step % INTERVAL + INTERVAL

    def move(self, step: int) -> bool:
        """Try another volume if the step is one for it; returns whether the box has changed."""
        if step % INTERVAL:
            return False
        first, second = np.random.default_rng([self._seed, step]).random(2)
        box = self._box()
        volume = _volume(box)
        larger = volume + self.facts["scale"] * (2 * float(first) - 1)
        accepted = larger > 0 and self._changed(box, volume, larger, float(second))
        self._count_move(accepted, volume)
        return accepted

    def _changed(self, box: np.ndarray, volume: float, larger: float, chance: float) -> bool:
        """Go over to another volume, or return to this one."""
        positions, before = self._positions(), self._energy()
        length = (larger / volume) ** (1 / 3)
        self._set(length * box, positions + (length - 1) * self._centres(positions)[self._molecule])
        work = self._energy() - before + self._pressure * (larger - volume)
        work -= self._count * self._kt * math.log(larger / volume)
        # Never true for NaN, the energy of atoms upon each other.
        accepted = work <= 0 or chance < math.exp(-work / self._kt)
        if accepted:
            forget_forces(self._integrator)
        else:
            self._set(box, positions)
        return accepted

    def _count_move(self, accepted: bool, volume: float) -> None:
        facts = self.facts
        facts["moves"] += 1
        facts["changes"] += int(accepted)
        facts["attempted"] += 1
        facts["accepted"] += int(accepted)
        if facts["attempted"] < _ENOUGH:
            return
        share = facts["accepted"] / facts["attempted"]
        if share < _LOW:
            facts["scale"] /= _FACTOR
        elif share > _HIGH:
            facts["scale"] = min(facts["scale"] * _FACTOR, _LARGEST * volume)
        else:
            return
        facts["attempted"] = facts["accepted"] = 0

    def _centres(self, positions: np.ndarray) -> np.ndarray:
        sums = [np.bincount(self._molecule, weights=positions[:, k]) for k in range(3)]
        return np.stack(sums, axis=1) / self._sizes

    def _box(self) -> np.ndarray:
        return self._context.getState().getPeriodicBoxVectors(asNumpy=True)._value

    def _positions(self) -> np.ndarray:
        return self._context.getState(positions=True).getPositions(asNumpy=True)._value

    def _energy(self) -> float:
        return potential_energies(self._context, [range(32)])[0]

    def _set(self, box: np.ndarray, positions: np.ndarray) -> None:
        self._context.setPeriodicBoxVectors(*box)
        follow_box(self._context)
        self._context.setPositions(positions)


def own_barostats(system: openmm.System) -> list[str]:
    """Class names of the barostats that a System holds itself."""
    return [
        force.__class__.__name__ for force in system.getForces() if "Barostat" in force.__class__.__name__
    ]


def _volume(box: np.ndarray) -> float:
    return float(box[0, 0] * box[1, 1] * box[2, 2])
