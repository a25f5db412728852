"""Minimisation in pieces, which shows how far it is, can be interrupted, and does not end in a hole.

A learned potential has energies far below any of nature where atoms are nearer than in its training data. The
minimiser's line search may step over the wall in front of such a hole and take it for a minimum. A piece that
ends there is undone, and gone again by short steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from openmm import unit

from mlmm.dynamics.interruption import StopRequest
from mlmm.dynamics.progress import Progress
from mlmm.dynamics.stages import Minimise
from mlmm.errors import SimulationError
from mlmm.neighbours import pairs_within

__all__ = ["minimise"]

logger = logging.getLogger(__name__)

_PIECE = 50
_HOLE = -1e4  # kJ/mol for each particle: no matter is bound so strongly
_CLOSEST = 0.05  # nm; a bond of hydrogen stretches between 0.07 and 0.1
_FIRST, _LONGEST = 1e-3, 5e-3  # nm; what an atom may move in a short step


def minimise(
    context: openmm.Context, stage: Minimise, stop: StopRequest, progress: Callable[[Progress], None]
) -> tuple[openmm.State, dict[str, Any]]:
    """Go downhill from the positions of a context, until the force is small or a stop is asked for.

    Parameters
    ----------
    context : openmm.Context
    stage : Minimise
    stop : StopRequest
    progress : callable

    Returns
    -------
    openmm.State
        With positions, without velocities.
    dict
        Energies before and after, kJ/mol, iterations, seconds.

    Raises
    ------
    SimulationError
        An energy that is not finite.
    """
    before = context.getState(energy=True).getPotentialEnergy()._value
    started = time.monotonic()
    tolerance = stage.tolerance * unit.kilojoule_per_mole / unit.nanometer
    # In pieces, not with OpenMM's MinimizationReporter: with one, OpenMM holds Python's lock and torch
    # refuses to differentiate. A piece that gains nothing has met the tolerance.
    energy, done = before, 0
    while not stop and (done < stage.max_iterations or stage.max_iterations == 0):
        piece = _PIECE
        if stage.max_iterations:
            piece = min(piece, stage.max_iterations - done)
        previous, energy = energy, _piece(context, tolerance, piece)
        done += piece
        progress(Progress(stage.name, done, stage.max_iterations, energy=energy))
        if previous - energy < 1e-7 * abs(energy):
            break
    if not np.isfinite(energy):
        raise SimulationError(
            "a finite energy after minimisation",
            f"{energy} kJ/mol",
            "look for overlapping atoms in the input",
        )
    facts = {"energy_before": before, "energy_after": energy, "iterations": done}
    state = context.getState(positions=True, parameters=True)
    return state, facts | {"seconds": time.monotonic() - started}


def _piece(context: openmm.Context, tolerance: unit.Quantity, iterations: int) -> float:
    """Go downhill for some iterations, by short steps where the line search leaves what is physical."""
    before = context.getState(positions=True)
    try:
        openmm.LocalEnergyMinimizer.minimize(context, tolerance, iterations)
        energy: float = context.getState(energy=True).getPotentialEnergy()._value
    except openmm.OpenMMException as error:
        if "NaN" not in str(error):
            raise
        energy = float("nan")
    if energy > _HOLE * context.getSystem().getNumParticles():
        after = context.getState(positions=True)
        if _contacts(context.getSystem(), after) <= _contacts(context.getSystem(), before):
            return energy
    logger.info("the minimiser left what is physical (%g kJ/mol); once more by short steps", energy)
    context.setPositions(before.getPositions())
    return _short_steps(context, iterations)


def _contacts(system: openmm.System, state: openmm.State) -> int:
    """How many pairs of atoms are nearer than any bond is short: a small hole in a large system shows so."""
    atoms = [k for k in range(system.getNumParticles()) if not system.isVirtualSite(k)]
    places = state.getPositions(asNumpy=True)._value[atoms]
    box = state.getPeriodicBoxVectors(asNumpy=True)._value
    periodic = system.usesPeriodicBoundaryConditions()
    pairs = pairs_within(places, places, _CLOSEST, box if periodic else None)
    return int((pairs[:, 0] < pairs[:, 1]).sum())


def _short_steps(context: openmm.Context, iterations: int) -> float:
    """Steepest descent with steps of bounded length; returns the energy, kJ/mol."""
    step = _FIRST

    def look() -> tuple[float, np.ndarray, np.ndarray]:
        state = context.getState(energy=True, forces=True, positions=True)
        forces = state.getForces(asNumpy=True)._value
        return state.getPotentialEnergy()._value, state.getPositions(asNumpy=True)._value, forces

    context.applyConstraints(1e-6)
    energy, positions, forces = look()
    massive = np.array(
        [context.getSystem().getParticleMass(k)._value > 0.0 for k in range(len(positions))], dtype=bool
    )
    for _ in range(iterations):
        forces[~massive] = 0.0
        largest = float(np.linalg.norm(forces, axis=1).max())
        if not np.isfinite(largest) or largest == 0.0:
            break
        context.setPositions(positions + step / largest * forces)
        context.applyConstraints(1e-6)
        context.computeVirtualSites()
        found = look()
        if found[0] < energy:
            energy, positions, forces = found
            step = min(1.2 * step, _LONGEST)
        else:
            step *= 0.5
    context.setPositions(positions)
    return energy
