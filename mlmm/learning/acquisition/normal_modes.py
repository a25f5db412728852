"""Normal modes of a molecule at a minimum, and structures displaced along them.

With the Hessian H and masses m the mass-weighted H_ij/√(m_i m_j) has eigenvalues ω² and, apart from
translation and rotation, 3N − 6 modes. At a temperature T the classical harmonic oscillator has Gaussian
displacements of variance kT/ω² along each mode, kT/k along one of force constant k.

Smith, Isayev, Roitberg, Sci. Data 4, 170193 (2017), doi 10.1038/sdata.2017.193 (the recipe of ANI-1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlmm.errors import ConfigError
from mlmm.learning.acquisition.sampling import Method, thermal_energy
from mlmm.learning.acquisition.surfaces import surface_of
from mlmm.options import Quantity
from mlmm.reference.labels import Molecule
from mlmm.short_repr import ShortRepr
from mlmm.units import LIGHT_SPEED

__all__ = ["NormalModes", "normal_modes", "sample_normal_modes"]

#: 1/cm of an angular frequency of 1/ps.
WAVENUMBER = 1.0 / (2.0 * math.pi * LIGHT_SPEED)
_STEP = 1e-3  # nm, of central differences


@dataclass(frozen=True, repr=False)
class NormalModes(ShortRepr):
    """Modes of a molecule at a minimum.

    Parameters
    ----------
    molecule : Molecule
    directions : ndarray, shape (M, N, 3)
        Orthonormal in mass-weighted coordinates.
    squares : ndarray, shape (M,)
        ω², 1/ps², ascending.
    masses : ndarray, shape (N,), amu
    """

    molecule: Molecule
    directions: np.ndarray
    squares: np.ndarray
    masses: np.ndarray

    @property
    def wavenumbers(self) -> np.ndarray:
        """Of each mode, 1/cm; negative for an imaginary one."""
        return np.sign(self.squares) * np.sqrt(np.abs(self.squares)) * WAVENUMBER

    def _summary(self) -> dict[str, str]:
        values = self.wavenumbers
        return {"modes": str(len(values)), "wavenumbers": f"{values.min():.0f} to {values.max():.0f} 1/cm"}


def normal_modes(molecule: Molecule, method: Method, masses: Sequence[float] | None = None) -> NormalModes:
    """Modes from central differences of forces; 6N of them are needed.

    Parameters
    ----------
    molecule : Molecule
        At a minimum; its point charges stay, and then all 3N modes count.
    method : PotentialModel, ReferenceMethod or callable
    masses : sequence of float, optional
        amu; those of the elements by default.

    Raises
    ------
    ConfigError
        No minimum: an imaginary mode.
    """
    from ase.data import atomic_masses

    weights = np.asarray(atomic_masses[molecule.numbers] if masses is None else masses, dtype=float)
    surface = surface_of(method, molecule)
    size = 3 * len(molecule)
    hessian = np.empty((size, size))
    for k in range(size):
        shift = np.zeros(size)
        shift[k] = _STEP
        above = surface(molecule.positions + shift.reshape(-1, 3))[1].reshape(-1)
        below = surface(molecule.positions - shift.reshape(-1, 3))[1].reshape(-1)
        hessian[k] = (below - above) / (2.0 * _STEP)
    roots = np.repeat(np.sqrt(weights), 3)
    weighted = 0.5 * (hessian + hessian.T) / np.outer(roots, roots)
    basis = _internal_basis(molecule, weights)
    squares, vectors = np.linalg.eigh(basis.T @ weighted @ basis)
    lowest = float(np.sqrt(abs(squares[0])) * WAVENUMBER)
    if squares[0] < 0.0 and lowest > 20.0:
        raise ConfigError(
            "a minimum for normal modes",
            f"an imaginary mode of {lowest:.0f}i 1/cm",
            "minimise the structure with the same method first, by `minimised` of acquisition.sampling",
        )
    return NormalModes(molecule, (basis @ vectors).T.reshape(-1, len(molecule), 3), squares, weights)


def sample_normal_modes(
    modes: NormalModes,
    count: int,
    *,
    temperature: Quantity = "300 K",
    distribution: str = "thermal",
    lowest: float = 50.0,
    seed: int = 0,
    run: str = "normal modes",
) -> list[Molecule]:
    """Structures displaced along normal modes.

    Parameters
    ----------
    modes : NormalModes
    count : int
    temperature : str or float
        K.
    distribution : {"thermal", "ani1"}
        Gaussian with the variance of the classical oscillator; or that of ANI-1, displacements of
        ±sqrt(3 c N RT/k) along modes of N atoms, whose random c ≥ 0 add up to 1 at most.
    lowest : float
        Modes below are displaced as if they had this wavenumber, 1/cm: a straight line is no torsion.
    seed : int
    run : str
        Name for the origin.

    Raises
    ------
    ConfigError
        Another word for the distribution.
    """
    if distribution not in ("thermal", "ani1"):
        raise ConfigError(
            "distribution = thermal | ani1", repr(distribution), 'write distribution = "thermal"'
        )
    energy = thermal_energy(temperature)
    squares = np.maximum(modes.squares, max((lowest / WAVENUMBER) ** 2, 1e-12))
    random = np.random.default_rng(seed)
    roots = np.sqrt(modes.masses)[:, None]
    found = []
    for number in range(count):
        if distribution == "thermal":
            amplitudes = random.normal(size=len(squares)) * np.sqrt(energy / squares)
        else:
            shares = _shares(random, len(squares))
            signs = random.choice([-1.0, 1.0], size=len(squares))
            amplitudes = signs * np.sqrt(3.0 * shares * len(modes.masses) * energy / squares)
        displacement = np.einsum("m,mnk->nk", amplitudes, modes.directions) / roots
        origin = {"run": f"{run} {seed}.{number}"}
        found.append(
            replace(
                modes.molecule,
                positions=modes.molecule.positions + displacement,
                origin=dict(modes.molecule.origin) | origin,
            )
        )
    return found


def _shares(random: np.random.Generator, count: int) -> np.ndarray:
    """Uniform random numbers whose sum is itself uniform between 0 and 1."""
    cuts = random.dirichlet(np.ones(count))
    return cuts * random.uniform()


def _internal_basis(molecule: Molecule, masses: np.ndarray) -> np.ndarray:
    """Orthonormal basis (3N, M) of mass-weighted displacements without translation and rotation.

    Among point charges nothing is left out: they hold the molecule in its place.
    """
    size = 3 * len(molecule)
    if molecule.external is not None:
        return np.eye(size)
    roots = np.sqrt(masses)[:, None]
    centred = molecule.positions - masses @ molecule.positions / masses.sum()
    rigid = [np.tile(axis, (len(masses), 1)) * roots for axis in np.eye(3)]
    rigid += [np.cross(axis, centred) * roots for axis in np.eye(3)]
    matrix = np.array([motion.reshape(-1) for motion in rigid]).T
    left, values, _ = np.linalg.svd(matrix, full_matrices=True)
    # A linear molecule has two rotations, an atom none.
    rank = int((values > 1e-8 * values.max()).sum())
    return left[:, rank:]
