"""Energies and forces of an OpenMM System on the Reference platform, in double precision."""

from __future__ import annotations

import logging

import numpy as np
import openmm
from openmm import unit

__all__ = ["box_with_missed_pairs", "forces_of", "potential_of", "reference_context"]

logger = logging.getLogger(__name__)
#: Cutoffs in the width of a box that leans: dodecahedra and octahedra lose pairs up to 2.95, none from 3.05.
_NARROW = 3.0


def reference_context(system: openmm.System, box_vectors: np.ndarray | None = None) -> openmm.Context:
    """A Context on the Reference platform.

    Parameters
    ----------
    system : openmm.System
    box_vectors : ndarray, shape (3, 3), nm, optional
        The system's own by default.
    """
    narrow = box_with_missed_pairs(system, box_vectors)
    if narrow:
        logger.warning(
            "%s: OpenMM's Reference platform misses pairs of atoms there, and figures that are computed on "
            "it are wrong; CPU and GPUs are right. Take a larger box, a cube or a shorter cutoff for checks",
            narrow,
        )
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    if box_vectors is not None:
        context.setPeriodicBoxVectors(*np.asarray(box_vectors).tolist())
    return context


def box_with_missed_pairs(system: openmm.System, box_vectors: np.ndarray | None = None) -> str:
    """Describe a box in which OpenMM's Reference platform (8.6) misses pairs; empty where it does not.

    Its neighbour list loses pairs within the cutoff where a box leans and is narrower than three cutoffs,
    wherever its molecules lie.

    Parameters
    ----------
    system : openmm.System
    box_vectors : ndarray, shape (3, 3), nm, optional
        Reduced; the system's own by default.
    """
    if not system.usesPeriodicBoundaryConditions():
        return ""
    own = [row.value_in_unit(unit.nanometer) for row in system.getDefaultPeriodicBoxVectors()]
    box = np.array(own if box_vectors is None else box_vectors, dtype=np.float64)
    width, leans = float(np.diag(box).min()), bool(np.abs(box - np.diag(np.diag(box))).max() > 0)
    cutoffs = [
        force.getCutoffDistance().value_in_unit(unit.nanometer)
        for force in system.getForces()
        if hasattr(force, "getCutoffDistance") and force.usesPeriodicBoundaryConditions()
    ]
    longest = max(cutoffs, default=0.0)
    if not leans or width >= _NARROW * longest:
        return ""
    return f"a box that leans and is {width:.3g} nm wide, less than three cutoffs of {longest:.3g} nm"


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
