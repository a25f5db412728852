"""Second derivatives of the atoms that move, by central differences of forces, and their normal modes.

H_ij = −(F_j(R + h e_i) − F_j(R − h e_i)) / 2h with all other atoms where they are (a partial Hessian, Li and
Jensen, Theor. Chem. Acc. 107, 211 (2002), doi 10.1007/s00214-001-0317-7), made symmetric; what was not, is a
measure of its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import ReactionSurface
from mlmm.units import LIGHT_SPEED

__all__ = ["Hessian", "Modes", "hessian", "normal_modes", "rigid_motions"]

#: Singular value, relative to the largest, below which a rotation is none: a linear molecule.
_LINEAR = 1e-4


@dataclass(frozen=True)
class Hessian:
    """Second derivatives at a structure.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), nm
    matrix : ndarray, shape (3n, 3n), kJ/mol/nm²
    asymmetry : float
        |H − Hᵀ| over |H| (Frobenius) before it was made symmetric.
    energy : float
        At the structure, kJ/mol.
    forces : ndarray, shape (n, 3), kJ/mol/nm
    antisymmetric : ndarray, shape (3n, 3n), kJ/mol/nm²
        (H − Hᵀ)/2 before: the error of each element.
    """

    positions: np.ndarray
    matrix: np.ndarray
    asymmetry: float
    energy: float
    forces: np.ndarray
    antisymmetric: np.ndarray


@dataclass(frozen=True)
class Modes:
    """Normal modes, the lowest first.

    Parameters
    ----------
    wavenumbers : ndarray, shape (k,), 1/cm
        Negative for imaginary ones.
    vectors : ndarray, shape (k, n, 3)
        Displacements in Cartesian coordinates, of length 1.
    mass_weighted : ndarray, shape (k, n, 3)
        The same times the root of the masses, of length 1 and orthogonal.
    reduced_masses : ndarray, shape (k,), amu
    removed : int
        Translations and rotations that were projected out.
    """

    wavenumbers: np.ndarray
    vectors: np.ndarray
    mass_weighted: np.ndarray
    reduced_masses: np.ndarray
    removed: int

    def turned(self) -> Modes:
        """The same with the lowest mode in the other direction."""
        signs = np.ones((len(self.wavenumbers), 1, 1))
        signs[0] = -1.0
        return replace(self, vectors=signs * self.vectors, mass_weighted=signs * self.mass_weighted)

    @property
    def imaginary(self) -> np.ndarray:
        """Wavenumbers of imaginary modes, negative."""
        return self.wavenumbers[self.wavenumbers < 0]


def hessian(
    surface: ReactionSurface,
    positions: np.ndarray,
    displacement: float = 0.0005,
    *,
    memory: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Hessian:
    """Second derivatives by central differences, 6n evaluations, `surface.workers` at a time.

    Parameters
    ----------
    surface : ReactionSurface
    positions : ndarray, shape (n, 3), nm
    displacement : float
        h, nm.
    memory : ndarray, optional
        Environment at rest, see `mlmm.reactions.surface.Evaluation`.
    progress : Progress, optional
        Kept after each batch of displacements; goes on after the last one.
    """
    progress = progress or Progress()
    n = len(surface)
    columns = [(atom, axis) for atom in range(n) for axis in range(surface.dimensions)]
    kept = progress.get("forces")
    forces = np.full((len(columns), 2, n, 3), np.nan) if kept is None else kept.copy()
    here = progress.get("here")
    if here is None:
        found = surface.evaluate(positions, memory)
        memory = found.memory
        here = np.append(found.forces.reshape(-1), found.energy)
    open_ones = [k for k in range(len(columns)) if not np.isfinite(forces[k]).all()]
    batch = max(1, 3 * surface.workers)
    for first in range(0, len(open_ones), batch):
        places = open_ones[first : first + batch]
        moved = []
        for k in places:
            for sign in (1.0, -1.0):
                where = np.array(positions, dtype=np.float64)
                where[columns[k]] += sign * displacement
                moved.append(where)
        results = surface.evaluate_many(moved, [memory] * len(moved))
        for k, place in enumerate(places):
            forces[place] = [results[2 * k].forces, results[2 * k + 1].forces]
        done = first + len(places) + len(columns) - len(open_ones)
        progress.keep(f"second derivatives: {done} of {len(columns)} coordinates", forces=forces, here=here)
    rows = -(forces[:, 0] - forces[:, 1]) / (2.0 * displacement)
    matrix = np.zeros((3 * n, 3 * n))
    places_of = [3 * atom + axis for atom, axis in columns]
    matrix[places_of] = rows.reshape(len(columns), -1)
    size = float(np.linalg.norm(matrix))
    asymmetry = float(np.linalg.norm(matrix - matrix.T)) / size if size else 0.0
    return Hessian(
        positions=np.array(positions),
        matrix=0.5 * (matrix + matrix.T),
        asymmetry=asymmetry,
        energy=float(here[-1]),
        forces=here[:-1].reshape(n, 3),
        antisymmetric=0.5 * (matrix - matrix.T),
    )


def rigid_motions(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Translations and rotations of a molecule, mass-weighted and orthonormal (6 or 5, 3n).

    Parameters
    ----------
    positions : ndarray, shape (n, 3)
    masses : ndarray, shape (n,), amu
    """
    roots = np.sqrt(masses)[:, None]
    centred = positions - np.average(positions, axis=0, weights=masses)
    found = [np.tile(axis, (len(masses), 1)) * roots for axis in np.eye(3)]
    found += [np.cross(axis, centred) * roots for axis in np.eye(3)]
    rows = np.array(found).reshape(6, -1)
    lengths = np.linalg.norm(rows, axis=1)
    rows = rows[lengths > _LINEAR * lengths.max()]
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return right[sizes > _LINEAR * sizes[0]]


def normal_modes(
    matrix: np.ndarray, masses: np.ndarray, positions: np.ndarray, *, free: bool, dimensions: int = 3
) -> Modes:
    """Normal modes of a Hessian; translations and rotations are projected out of a free molecule only.

    A mode has two directions, of which the one is given whose largest displacement is positive.

    Parameters
    ----------
    matrix : ndarray, shape (3n, 3n), kJ/mol/nm²
    masses : ndarray, shape (n,), amu
    positions : ndarray, shape (n, 3), nm
    free : bool
    dimensions : {2, 3}
        Of space.
    """
    n = len(masses)
    weights = np.repeat(1.0 / np.sqrt(masses), 3)
    weighted = matrix * np.outer(weights, weights)
    basis = np.eye(3 * n)[[3 * atom + axis for atom in range(n) for axis in range(dimensions)]].T
    removed = 0
    if free and dimensions == 3:
        rigid = rigid_motions(positions, masses)
        removed = len(rigid)
        basis = np.linalg.svd(rigid, full_matrices=True)[2][removed:].T
    squares, inside = np.linalg.eigh(basis.T @ weighted @ basis)
    full = (basis @ inside).T
    largest = np.take_along_axis(full, np.abs(full).argmax(axis=1)[:, None], axis=1)
    full = np.where(largest < 0, -full, full)
    wavenumbers = np.sign(squares) * np.sqrt(np.abs(squares)) / (2.0 * math.pi * LIGHT_SPEED)
    cartesian = full * weights
    sizes = np.linalg.norm(cartesian, axis=1)
    return Modes(
        wavenumbers=wavenumbers,
        vectors=(cartesian / sizes[:, None]).reshape(-1, n, 3),
        mass_weighted=full.reshape(-1, n, 3),
        reduced_masses=1.0 / sizes**2,
        removed=removed,
    )
