"""One vector for each structure, from the symmetry functions of its atoms.

The functions of `mlmm.potentials.descriptors` (constants of ANI-1x, for any elements) are averaged over the
atoms of each element. The order of atoms, rotations and translations change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mlmm.potentials.descriptors import TrainingSet
from mlmm.reference.labels import Molecule
from mlmm.structures import Structure

__all__ = ["distances_between", "structure_descriptors", "structure_of"]


def structure_of(molecule: Molecule) -> Structure:
    """The atoms of a molecule as potentials see them, without the charges around."""
    return Structure(
        torch.as_tensor(molecule.numbers),
        torch.as_tensor(molecule.positions),
        None,
        molecule.charge,
        molecule.multiplicity,
    )


def structure_descriptors(molecules: Sequence[Molecule]) -> np.ndarray:
    """Mean symmetry functions by element.

    Parameters
    ----------
    molecules : sequence of Molecule

    Returns
    -------
    ndarray, shape (S, elements × functions), float64
        Zero for an element that a structure lacks.
    """
    elements = tuple(sorted({int(z) for molecule in molecules for z in molecule.numbers}))
    functions = TrainingSet(elements, {}, {})
    rows = []
    for molecule in molecules:
        vectors = functions.vectors(structure_of(molecule), range(len(molecule))).double().numpy()
        means = np.zeros((len(elements), vectors.shape[1]))
        for place, element in enumerate(elements):
            chosen = molecule.numbers == element
            if chosen.any():
                means[place] = vectors[chosen].mean(axis=0)
        rows.append(means.reshape(-1))
    return np.array(rows).reshape(len(molecules), -1)


def distances_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances (A, B) between rows, by differences: no digits are lost between near ones."""
    return np.asarray(
        torch.cdist(
            torch.as_tensor(first), torch.as_tensor(second), compute_mode="donot_use_mm_for_euclid_dist"
        )
    )
