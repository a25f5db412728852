"""What a step has left in a Context, fetched once for all that is due after it: a row, a frame, a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm

from mlmm.dynamics.integrators import kinetic_energy_needs_forces

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
    kinetic : float, optional
        Kinetic energy at the time of the positions, kJ/mol, where it does not follow from `velocities`.
    """

    positions: np.ndarray
    box: np.ndarray | None
    velocities: np.ndarray | None = None
    kinetic: float | None = None

    def kinetic_energy(self, masses: np.ndarray) -> float:
        """Kinetic energy, kJ/mol, from masses (N,), amu.

        Raises
        ------
        ValueError
            It was not fetched.
        """
        if self.kinetic is not None:
            return self.kinetic
        if self.velocities is None:
            raise ValueError("neither velocities nor a kinetic energy were fetched")
        return 0.5 * float(masses @ np.einsum("ij,ij->i", self.velocities, self.velocities))


def fetch(
    context: openmm.Context, periodic: bool, *, velocities: bool = False, kinetic: bool = False
) -> Moment:
    """Positions and box, and what else is asked for, by one State.

    Parameters
    ----------
    context : openmm.Context
    periodic : bool
        Whether there is a box.
    velocities : bool
    kinetic : bool
        Whether `Moment.kinetic_energy` will be wanted. An evaluation of all forces where it needs them;
        otherwise it is left to the moment, so that nothing waits for a sum over all atoms.
    """
    evaluated = kinetic and kinetic_energy_needs_forces(context.getIntegrator())
    state = context.getState(positions=True, velocities=velocities or kinetic, energy=evaluated)
    return Moment(
        _array(state, openmm.State.Positions),
        state.getPeriodicBoxVectors(asNumpy=True)._value if periodic else None,
        _array(state, openmm.State.Velocities) if velocities or kinetic else None,
        state.getKineticEnergy()._value if evaluated else None,
    )


def _array(state: openmm.State, kind: int) -> np.ndarray:
    """Vectors of all particles (N, 3) in OpenMM's units, without the copies that a Quantity makes of them."""
    found = np.empty((state._getNumParticles(), 3))
    state._getVectorAsNumpy(kind, found)
    return found
