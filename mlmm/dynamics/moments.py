"""What a step has left in a Context, fetched once for all that is due after it: a row, a frame, a look."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import openmm

from mlmm.dynamics.integrators import kinetic_energy_needs_forces
from mlmm.plugin.energies import take

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
    energies : mapping of str to float
        Potential energies by kind, kJ/mol, as far as they were fetched.
    """

    positions: np.ndarray
    box: np.ndarray | None
    velocities: np.ndarray | None = None
    kinetic: float = math.nan
    energies: Mapping[str, float] = field(default_factory=dict)


def fetch(
    context: openmm.Context,
    periodic: bool,
    *,
    velocities: bool = False,
    kinds: Mapping[str, Collection[int]] | None = None,
) -> Moment:
    """Positions and box, and what else is asked for, by one call.

    Parameters
    ----------
    context : openmm.Context
    periodic : bool
        Whether there is a box.
    velocities : bool
    kinds : mapping of str to collection of int, optional
        Force groups of each kind whose potential energy is wanted, evaluated in this order, and the kinetic
        energy with them.
    """
    if kinds is None:
        found = take(context, velocities=velocities)
    else:
        # After an evaluation of all forces where it needs them.
        needs = kinetic_energy_needs_forces(context.getIntegrator())
        kinetic = "forces" if needs else "velocities"
        found = take(context, list(kinds.values()), kinetic=kinetic, velocities=velocities)
    energies = dict(zip(kinds or (), found.energies, strict=True))
    return Moment(found.positions, found.box if periodic else None, found.velocities, found.kinetic, energies)
