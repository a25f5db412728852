"""Random gases of the elements of ANI, and energies with their gradient."""

from __future__ import annotations

import numpy as np
import torch

from mlmm.structures import Structure

CUBE = torch.diag(torch.tensor([1.3, 1.3, 1.3], dtype=torch.float64))
# Reduced forms: a rhombic dodecahedron, and a box that leans to all sides and barely holds the cutoff.
DODECAHEDRON = 1.55 * torch.tensor([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]], dtype=torch.float64)
LEANING = torch.tensor([[1.35, 0, 0], [0.5, 1.2, 0], [-0.45, 0.4, 1.08]], dtype=torch.float64)
BOXES = {"open": None, "cube": CUBE, "dodecahedron": DODECAHEDRON, "leaning": LEANING}


def gas(n: int, side: float, numbers, *, cell=None, closest=0.09, seed=0) -> Structure:
    """Atoms at random, none closer than some distance to another, also across the box."""
    generator = np.random.default_rng(seed)
    reduced = None if cell is None else cell.numpy()
    points = np.zeros((0, 3))
    while len(points) < n:
        point = generator.uniform(0, side, 3)
        d = points - point
        if reduced is not None:
            for k in (2, 1, 0):
                d = d - np.round(d[:, k : k + 1] / reduced[k, k]) * reduced[k]
        if np.all((d**2).sum(axis=1) > closest**2):
            points = np.vstack([points, point])
    return Structure(torch.tensor(generator.choice(numbers, n)), torch.tensor(points), cell)


def elements(name: str) -> list[int]:
    return [1, 6, 7, 8] if name == "ani1x" else [1, 6, 7, 8, 9, 16, 17]


def members_and_gradient(module, positions, cell, by_energy, centres=None):
    """Energies (members, C) and the gradient of their sum with some factors."""
    x = positions.clone().requires_grad_(True)
    energies = module(x, cell, centres)
    (gradient,) = torch.autograd.grad((energies * by_energy).sum(), x)
    return energies.detach(), gradient
