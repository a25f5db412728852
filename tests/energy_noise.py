"""Fluctuation of the total energy along a short run."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit


def energy_noise(system, positions, timestep: float, length: float) -> float:
    """Standard deviation of the total energy in NVE on the Reference platform, kJ/mol."""
    integrator = openmm.VerletIntegrator(timestep)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0, 200)
    context.setVelocitiesToTemperature(200, 3)
    energies = []
    for _ in range(round(length / timestep / 4)):
        integrator.step(4)
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole))
    return float(np.std(energies))
