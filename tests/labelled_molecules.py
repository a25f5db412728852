"""Small molecules with exact labels: an analytic potential, or a network that is known."""

from __future__ import annotations

import numpy as np
import torch

from mlmm.potentials.ani.potential import ANIPotential
from mlmm.potentials.base import energy_and_forces
from mlmm.reference.labels import Label, Molecule
from mlmm.structures import Structure

#: Methanol, nm.
NUMBERS = np.array([6, 8, 1, 1, 1, 1])
POSITIONS = np.array(
    [
        [-0.0748, -0.0015, 0.0024],
        [0.0558, 0.0420, -0.0278],
        [-0.1293, -0.0202, -0.0901],
        [-0.1263, 0.0754, 0.0600],
        [-0.0699, -0.0934, 0.0609],
        [0.0716, 0.1404, 0.0137],
    ]
)


def shaken(count: int, seed: int, width: float = 0.008, windows: int = 5) -> list[Molecule]:
    """Methanol with random displacements, nm, as frames of some windows."""
    random = np.random.default_rng(seed)
    found = []
    for k in range(count):
        places = POSITIONS + width * random.standard_normal(POSITIONS.shape)
        origin = {"run": f"seed {seed}", "window": str(k * windows // count), "frame": str(k)}
        found.append(Molecule(NUMBERS, places, origin=origin))
    return found


def springs(molecule: Molecule) -> Label:
    """E = Σ D (1 − exp(−a (r − r0)))² over pairs, r0 of the molecule at rest: energy and exact forces."""
    depth, steepness = 300.0, 12.0  # kJ/mol, 1/nm
    rest = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=2)
    apart = molecule.positions[:, None] - molecule.positions[None]
    r = np.linalg.norm(apart, axis=2) + np.eye(len(rest))
    decay = np.exp(-steepness * (r - rest - np.eye(len(rest))))
    weight = np.exp(-rest / 0.12) * (1.0 - np.eye(len(rest)))  # bonds stiffer than contacts
    energy = 0.5 * float((weight * depth * (1.0 - decay) ** 2).sum())
    slope = weight * 2.0 * depth * steepness * (1.0 - decay) * decay
    forces = -((slope / r)[:, :, None] * apart).sum(axis=1)
    return Label(energy - 3e5, forces, method="Morse pairs")


def by_potential(model: ANIPotential, molecule: Molecule) -> Label:
    """Energy of a potential, isolated atoms included, and its forces."""
    structure = Structure(torch.tensor(molecule.numbers), torch.tensor(molecule.positions))
    energy, forces = energy_and_forces(model, structure)
    total = energy + sum(model.spec.reference_energies[int(z)] for z in molecule.numbers)
    return Label(total, forces.numpy(), method=model.spec.name)
