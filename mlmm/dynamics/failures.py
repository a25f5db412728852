"""Simulations that break down: signs of it, and an error that says where it happened and what to try."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from mlmm.dynamics.reporters import degrees_of_freedom
from mlmm.dynamics.stability import ADVICE
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.units import GAS_CONSTANT

__all__ = [
    "broken_positions",
    "cause_of",
    "check_temperature",
    "crowded",
    "disk_errors",
    "nan_becomes_an_error",
    "retold",
]

logger = logging.getLogger(__name__)
_BLOWN_UP = 10.0  # nm between two looks, at most a second apart: diffusion stays a thousand times below
#: A temperature this many times that of the thermostat is no fluctuation of more than a handful of atoms.
_HOT = 10.0


def broken_positions(positions: np.ndarray, before: np.ndarray, label: Callable[[int], str]) -> str | None:
    """Describe what is wrong with positions: NaN, or an atom that flew away; None if nothing is.

    Parameters
    ----------
    positions, before : ndarray, shape (N, 3), nm
        Now and a moment ago.
    label : callable
        Name of an atom.
    """
    if np.abs(positions - before).max() < _BLOWN_UP:  # false for NaN as well
        return None
    moved = np.abs(positions - before).max(axis=1)
    farthest = int(moved.argmax())  # the first NaN, if there is any
    what = "NaN" if np.isnan(moved[farthest]) else f"an atom that moved {moved[farthest]:.3g} nm"
    return f"{what} ({label(farthest)})"


def cause_of(error: Exception, waits: Iterable[Callable[[], None]]) -> Exception:
    """The error, or what was wrong before OpenMM saw it and is still to be told by what goes on beside a run.

    Parameters
    ----------
    error : Exception
    waits : iterable of callable
        Each waits for its part of that, and raises a SimulationError.
    """
    if isinstance(error, openmm.OpenMMException):
        for wait in waits:
            try:
                wait()
            except SimulationError as earlier:
                return earlier
    return error


def check_temperature(context: openmm.Context, target: float, where: str) -> None:
    """Raise SimulationError if atoms are much faster than a thermostat allows.

    An explosion need not reach NaN: atoms that fall into a hole of the energy fly apart at finite speeds, and
    a thermostat cools them again. Averages over such a run are finite, and wrong.

    Parameters
    ----------
    context : openmm.Context
    target : float
        Temperature of the thermostat, K.
    where : str
        For the message.
    """
    system = context.getSystem()
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    # Without the energy, which would be one more evaluation of the potential.
    kinetic = 0.5 * float((masses[:, None] * velocities**2).sum())
    found = 2.0 * kinetic / (max(1, degrees_of_freedom(system)) * GAS_CONSTANT)
    if not found <= _HOT * target:  # true for NaN as well
        raise SimulationError(
            f"a temperature near {target:g} K",
            f"{found:.3g} K {where}",
            "try a smaller time step; if that does not help, the potential has no stable liquid there",
        )


@contextmanager
def nan_becomes_an_error(where: str) -> Iterator[None]:
    """Turn OpenMM's exception about NaN into a SimulationError that says where."""
    try:
        yield
    except openmm.OpenMMException as error:
        if "nan" not in str(error).lower():
            raise
        raise SimulationError(
            "finite positions", f"NaN {where}", "try a smaller time step, or another seed"
        ) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into a ConfigError that says where, and how to go on."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise ConfigError(
            f"a run directory {folder} that can be read and written",
            f"{error.strerror or error}{where}",
            "make room or set the permissions, then go on with --resume",
        ) from error


def retold(error: Exception, where: str, hybrid: HybridSystem, platform: str, frame: Path) -> SimulationError:
    """Turn what ended a run into an error with advice.

    Parameters
    ----------
    error : SimulationError or openmm.OpenMMException
    where : str
        Stage and step.
    hybrid : HybridSystem
    platform : str
        Name of the OpenMM platform.
    frame : Path
        The last finite frame, beside the log of the run.
    """
    if isinstance(error, SimulationError):
        advice = f"{error.do}{crowded(hybrid, platform)}" if "NaN" in error.got else error.do
        return SimulationError(error.expected, error.got, f"{advice}; last finite frame: {frame}")
    if "nan" in str(error).lower():
        return SimulationError(
            "finite positions",
            f"NaN in {where}",
            f"{ADVICE}{crowded(hybrid, platform)}; last finite frame: {frame}",
        )
    logger.error("%s", error)
    return SimulationError(
        "OpenMM to run this system",
        str(error).strip().splitlines()[0],
        f"see {frame.with_name('run.log')} and the last finite frame {frame}",
    )


def crowded(hybrid: HybridSystem, platform: str) -> str:
    """Say what else makes an energy NaN where neighbours are in lists of fixed length; empty elsewhere."""
    potential: Any = hybrid.potential
    used = ("fixed",) if platform in ("CPU", "Reference") else ("auto", "fixed")
    for model in getattr(potential, "models", (potential,)):
        if getattr(model, "shapes", "lists") in used:
            return (
                "; energies are NaN too where atoms are denser than "
                f"{model.neighbour_density:g} per nm³ (load_potential(neighbour_density=…) in Python)"
            )
    return ""
