"""Energies, positions and velocities of a Context by one call, without the copies that a State makes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import openmm

from mlmm.plugin.committees import addresses
from mlmm.plugin.library import call, plugin_problem, pointer

__all__ = ["Held", "potential_energies", "take"]

_KINETIC = ("no", "velocities", "forces")


class Held(NamedTuple):
    """What a Context holds, in arrays of their own.

    Parameters
    ----------
    energies : list of float
        Of sets of force groups, kJ/mol.
    kinetic : float
        kJ/mol, at the time of the positions; NaN where it was not asked for.
    positions, velocities : ndarray, shape (N, 3), nm, nm/ps
        The latter as the integrator keeps them, at half a step before where it is a leapfrog; None where
        they were not asked for.
    box : ndarray, shape (3, 3), nm
        Vectors in rows; OpenMM's default without a box.
    """

    energies: list[float]
    kinetic: float
    positions: np.ndarray
    velocities: np.ndarray | None
    box: np.ndarray


def potential_energies(context: openmm.Context, groups: Sequence[Collection[int]]) -> list[float]:
    """Potential energies of sets of force groups at the positions of a Context, kJ/mol.

    One evaluation for each, of the energy alone. A State with an energy holds the kinetic energy as well,
    which is summed for it, and for which integrators with velocities at half steps evaluate forces. Where the
    plugin is not there the energies come from States: the same numbers.

    Parameters
    ----------
    context : openmm.Context
    groups : sequence of collections of int
        From 0 to 31.

    Raises
    ------
    openmm.OpenMMException
        A Context without positions, or a force that cannot be evaluated.
    """
    if plugin_problem() is not None:
        states = [context.getState(energy=True, groups=set(own)) for own in groups]
        return [float(state.getPotentialEnergy()._value) for state in states]
    bits = _bits(groups)
    energies = np.zeros(len(bits))
    given = pointer(context, openmm.Context), len(bits), *addresses(bits, energies)
    call("mlmm_plugin_moment", *given, 0, *[None] * 4)
    return energies.tolist()


def take(
    context: openmm.Context,
    groups: Sequence[Collection[int]] = (),
    *,
    kinetic: str = "no",
    velocities: bool = False,
) -> Held:
    """Positions and box, and what else is asked for; raises as `potential_energies`.

    Parameters
    ----------
    context : openmm.Context
    groups : sequence of collections of int
        As for `potential_energies`; evaluated in this order.
    kinetic : {"no", "velocities", "forces"}
        Whether the kinetic energy is wanted, and whether it follows from velocities alone or, after an
        evaluation of all forces, from those too.
    velocities : bool
    """
    if plugin_problem() is not None:
        return _by_states(context, groups, kinetic, velocities)
    n = context.getSystem().getNumParticles()
    bits, energies, summed = _bits(groups), np.zeros(len(groups)), np.full(1, math.nan)
    positions, box = np.empty((n, 3)), np.empty((3, 3))
    moving = np.empty((n, 3)) if velocities else None
    call(
        "mlmm_plugin_moment",
        pointer(context, openmm.Context),
        len(bits),
        *addresses(bits, energies),
        _KINETIC.index(kinetic),
        *addresses(summed, positions),
        None if moving is None else moving.ctypes.data,
        *addresses(box),
    )
    return Held(energies.tolist(), float(summed[0]), positions, moving, box)


def _by_states(
    context: openmm.Context, groups: Sequence[Collection[int]], kinetic: str, velocities: bool
) -> Held:
    """The same numbers without the plugin."""
    energies = potential_energies(context, groups)
    asked: dict[str, int] = {"positions": True, "velocities": velocities}
    if kinetic != "no":
        # Of no group the potential energy, or of all, whose forces are evaluated with it.
        asked |= {"energy": True, "groups": -1 if kinetic == "forces" else 0}
    state = context.getState(**asked)
    return Held(
        energies,
        math.nan if kinetic == "no" else float(state.getKineticEnergy()._value),
        state.getPositions(asNumpy=True)._value,
        state.getVelocities(asNumpy=True)._value if velocities else None,
        state.getPeriodicBoxVectors(asNumpy=True)._value,
    )


def _bits(groups: Sequence[Collection[int]]) -> np.ndarray:
    """One bit for each group of a set."""
    return np.array([sum(1 << group for group in set(own)) for own in groups], dtype=np.uint32)
