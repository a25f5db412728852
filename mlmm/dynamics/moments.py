"""What a step has left in a Context, fetched once for all that is due after it: a row, a frame, a look."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import openmm

__all__ = ["Moment", "fetch"]


@dataclass(frozen=True, eq=False)
class Moment:
    """Arrays of their own, which later steps leave alone.

    Parameters
    ----------
    positions : ndarray, shape (N, 3), nm
    box : ndarray, shape (3, 3), nm, or None
    velocities : ndarray, shape (N, 3), nm/ps, optional
        As the integrator keeps them, at half a step before where it is a leapfrog.
    kinetic : float
        Kinetic energy at the time of the positions, kJ/mol; NaN where it was not fetched.
    potential : float
        Potential energy of the force groups that it was fetched for, kJ/mol.
    energies : mapping of str to float
        Potential energies by kind, kJ/mol, as far as they were evaluated.
    """

    positions: np.ndarray
    box: np.ndarray | None
    velocities: np.ndarray | None = None
    kinetic: float = math.nan
    potential: float = math.nan
    energies: Mapping[str, float] = field(default_factory=dict)


def fetch(
    context: openmm.Context,
    periodic: bool,
    *,
    velocities: bool = False,
    groups: Collection[int] | None = None,
) -> Moment:
    """Positions and box, and what else is asked for, by one State.

    Parameters
    ----------
    context : openmm.Context
    periodic : bool
        Whether there is a box.
    velocities : bool
    groups : collection of int, optional
        Force groups whose potential energy is wanted, and the kinetic energy with it. Where that one does
        not follow from velocities alone it is right for all groups only.
    """
    energy = {} if groups is None else {"energy": True, "groups": set(groups)}
    state = context.getState(positions=True, velocities=velocities, **energy)
    return Moment(
        _array(state, openmm.State.Positions),
        state.getPeriodicBoxVectors(asNumpy=True)._value if periodic else None,
        _array(state, openmm.State.Velocities) if velocities else None,
        state.getKineticEnergy()._value if energy else math.nan,
        state.getPotentialEnergy()._value if energy else math.nan,
    )


def _array(state: openmm.State, kind: int) -> np.ndarray:
    """Vectors of all particles (N, 3) in OpenMM's units, without the copies that a Quantity makes of them."""
    found = np.empty((state._getNumParticles(), 3))
    state._getVectorAsNumpy(kind, found)
    return found
