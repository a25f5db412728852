"""Energies of isolated atoms by least squares, and the constant that each member gets after training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlmm.reference.labels import Molecule

__all__ = ["composition", "fit_offsets"]


def composition(molecules: Sequence[Molecule], elements: Sequence[int]) -> np.ndarray:
    """Number of atoms of each element, (S, elements), float64."""
    numbers = [np.asarray(molecule.numbers) for molecule in molecules]
    return np.array([[float((row == z).sum()) for z in elements] for row in numbers])


def fit_offsets(counts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Energies per element that explain energies of structures best, in float64.

    The smallest solution: elements in a fixed ratio share, since their energies cannot be told apart.

    Parameters
    ----------
    counts : ndarray, shape (S, elements)
    energies : ndarray, shape (S,)

    Returns
    -------
    ndarray, shape (elements,)
    """
    solution, *_ = np.linalg.lstsq(counts, np.asarray(energies, dtype=np.float64), rcond=None)
    return np.asarray(solution, dtype=np.float64)
