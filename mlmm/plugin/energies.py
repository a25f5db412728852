"""Potential energies of force groups, without what else a State of OpenMM takes from the device."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import openmm

from mlmm.plugin.committees import addresses
from mlmm.plugin.library import call, plugin_problem, pointer

__all__ = ["potential_energies"]


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
    bits = np.array([sum(1 << group for group in set(own)) for own in groups], dtype=np.uint32)
    energies = np.zeros(len(bits))
    call(
        "mlmm_plugin_group_energies", pointer(context, openmm.Context), len(bits), *addresses(bits, energies)
    )
    return [float(energy) for energy in energies]
