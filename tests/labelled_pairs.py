"""Labelled structures for tests of data sets: water among point charges, with an exact harmonic energy."""

from __future__ import annotations

import numpy as np

from mlmm.reference.labels import Label, Molecule, PointCharges

METHOD = "harmonic springs, exact"
#: Water, nm.
WATER = np.array([[0.0, 0.0, 0.0], [0.0957, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
#: kJ/mol/nm² of each pair of atoms.
_STIFFNESS = 2.0e5


def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy, kJ/mol, and forces of springs between all pairs of atoms of a molecule like WATER."""
    energy, forces = -2.0e5, np.zeros_like(positions)
    for i in range(len(positions)):
        for j in range(i):
            apart = positions[i] - positions[j]
            rest = np.linalg.norm(WATER[i % 3] - WATER[j % 3])
            length = np.linalg.norm(apart)
            energy += 0.5 * _STIFFNESS * (length - rest) ** 2
            pull = -_STIFFNESS * (length - rest) * apart / length
            forces[i] += pull
            forces[j] -= pull
    return energy, forces


def labelled_pairs(
    count: int, seed: int = 0, charges: int = 5, windows: int = 1, method: str = METHOD
) -> list[tuple[Molecule, Label]]:
    """Distorted water molecules with labels of every kind."""
    random = np.random.default_rng(seed)
    pairs = []
    for k in range(count):
        positions = WATER + random.normal(0.0, 0.004, WATER.shape)
        external = None
        on_charges = None
        if charges:
            around = random.normal(0.0, 1.0, (charges, 3))
            external = PointCharges(around, random.normal(0.0, 0.5, charges))
            on_charges = random.normal(0.0, 100.0, (charges, 3))
        energy, forces = springs(positions)
        origin = {"run": "runs/a", "window": str(k % windows), "frame": str(k)}
        label = Label(
            energy,
            forces,
            on_charges,
            random.normal(0.0, 0.3, 3),
            random.normal(0.0, 0.1, 3),
            method=method,
            record={"program": 'a "springs" program', "seconds": f"{random.random():.3f}"},
        )
        pairs.append((Molecule(np.array([8, 1, 1]), positions, external=external, origin=origin), label))
    return pairs
