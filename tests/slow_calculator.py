"""A calculator of ASE for tests of labelling: springs between all atoms, and what its keywords make of it."""

from __future__ import annotations

import os
import time

import numpy as np
from ase.calculators.calculator import Calculator, SCFError, all_changes


class Springs(Calculator):
    """E = sum over pairs of (r - 1 A)^2 / 2 in eV.

    Parameters
    ----------
    seconds : float
        That each calculation takes.
    failing : float
        Distance of the first two atoms in angstrom above which nothing converges.
    deadly : float
        The same for the process itself.
    electrons : float
        Energy in eV that the free energy, whose gradient the forces are, is below the energy by.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(
        self,
        seconds: float = 0.0,
        failing: float = np.inf,
        deadly: float = np.inf,
        electrons: float = 0.0,
    ):
        super().__init__()
        self.seconds, self.failing, self.deadly, self.electrons = seconds, failing, deadly, electrons

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        time.sleep(self.seconds)
        apart = self.atoms.positions[:, None] - self.atoms.positions[None]
        distances = np.linalg.norm(apart, axis=-1)
        if distances[0, 1] > self.deadly:
            os._exit(9)
        if distances[0, 1] > self.failing:
            raise SCFError("springs do not converge")
        stretched = distances - 1.0 + np.eye(len(distances))
        slopes = stretched / (distances + np.eye(len(distances)))
        free_energy = float((stretched**2).sum() / 4)
        self.results = {
            "energy": free_energy + self.electrons,
            "free_energy": free_energy,
            "forces": -(slopes[..., None] * apart).sum(axis=1),
        }
