"""Energies and forces of an OpenMM System on the Reference platform, in double precision."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

__all__ = ["forces_of", "potential_of", "reference_context"]


def reference_context(system: openmm.System, box_vectors: np.ndarray | None = None) -> openmm.Context:
    """A Context on the Reference platform.

    Parameters
    ----------
    system : openmm.System
    box_vectors : ndarray, shape (3, 3), nm, optional
        The system's own by default.
    """
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    if box_vectors is not None:
        context.setPeriodicBoxVectors(*np.asarray(box_vectors).tolist())
    return context


def potential_of(context: openmm.Context, positions: np.ndarray, groups: int = -1) -> float:
    """Potential energy, kJ/mol, for positions (N, 3) in nm; `groups` is a bit mask of force groups."""
    context.setPositions(positions)
    energy = context.getState(energy=True, groups=groups).getPotentialEnergy()
    return energy.value_in_unit(unit.kilojoule_per_mole)


def forces_of(context: openmm.Context, positions: np.ndarray, groups: int = -1) -> np.ndarray:
    """Forces (N, 3), kJ/mol/nm; arguments as for `potential_of`."""
    context.setPositions(positions)
    forces = context.getState(forces=True, groups=groups).getForces(asNumpy=True)
    return forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
