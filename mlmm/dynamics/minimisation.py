"""Minimisation in pieces, which shows how far it is and can be interrupted."""

from __future__ import annotations

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

__all__ = ["minimise"]

_PIECE = 50


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
        openmm.LocalEnergyMinimizer.minimize(context, tolerance, piece)
        previous, energy = energy, context.getState(energy=True).getPotentialEnergy()._value
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
