"""An energy surface learned from few energies and forces: Gaussian process regression.

k(x, x') = σ² κ(|φ(x) − φ(x')|/ℓ), with φ the inverse distances of a molecule in units of bonds, which do not
change when it is turned (Koistinen, Ásgeirsson, Vehtari, Jónsson, J. Chem. Theory Comput. 15, 6738 (2019),
doi 10.1021/acs.jctc.9b00692), or Cartesian coordinates of atoms in an environment. κ is a Gaussian or that of
Matérn of order 5/2, which expects a rougher surface and suits molecules better (Denzel and Kästner, J. Chem.
Phys. 148, 094114 (2018), doi 10.1063/1.5017103). Forces enter as derivatives of the kernel; κ and ℓ are those
of the largest likelihood, σ² follows in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from ase.data import covalent_radii
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from mlmm.errors import SimulationError
from mlmm.units import ANGSTROM

__all__ = ["KERNELS", "GaussianProcess", "bond_radii", "cartesian_features", "inverse_distances"]

#: Relative variance of noise: of energies, and of derivatives in units of those of the prior.
_NOISE = 1e-10
#: Length scales that are tried, in units of the root mean square distance of the data.
_SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def _gaussian(half: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """κ, −dκ/dq and d²κ/dq² with q = |φ − φ'|²/2."""
    value = np.exp(-half / length**2)
    return value, value / length**2, value / length**4


def _matern(half: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matérn's of order 5/2; see `_gaussian`."""
    z = np.sqrt(10.0 * half) / length
    fall = np.exp(-z)
    return (1 + z + z**2 / 3) * fall, 5 / (3 * length**2) * (1 + z) * fall, 25 / (3 * length**4) * fall


#: Half the squared distance and the length to κ and its derivatives.
KERNELS = {"gaussian": _gaussian, "matern": _matern}


def bond_radii(numbers: Sequence[int]) -> np.ndarray:
    """Length of a single bond of each pair of atoms (p,), nm: the sum of their covalent radii."""
    radii = covalent_radii[np.asarray(numbers, dtype=int)] * ANGSTROM
    first, second = np.triu_indices(len(radii), 1)
    return np.asarray(radii[first] + radii[second])


def inverse_distances(positions: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """b/r of all pairs (p,) and their derivatives (p, 3n) in 1/nm; positions (n, 3) and b (p,), nm."""
    first, second = np.triu_indices(len(positions), 1)
    vectors = positions[first] - positions[second]
    inverse = 1.0 / np.linalg.norm(vectors, axis=1)
    slopes = np.zeros((len(inverse), len(positions), 3))
    rows = np.arange(len(inverse))
    along = -vectors * (bonds * inverse**3)[:, None]
    slopes[rows, first], slopes[rows, second] = along, -along
    return bonds * inverse, slopes.reshape(len(inverse), -1)


def cartesian_features(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates themselves (3n,), and their derivatives, the unit matrix."""
    return positions.reshape(-1).copy(), np.eye(positions.size)


class GaussianProcess:
    """Energies and forces between some structures at which they are known.

    Parameters
    ----------
    numbers : sequence of int, optional
        Elements of a free molecule: inverse distances are its features; else Cartesian coordinates.
    """

    def __init__(self, numbers: Sequence[int] | None = None):
        self._features: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = cartesian_features
        if numbers is not None:
            self._features = partial(inverse_distances, bonds=bond_radii(numbers))
        self.length: float | None = None
        self.kernel = "gaussian"
        self._places: list[np.ndarray] = []
        self._slopes: list[np.ndarray] = []
        self._energies: list[float] = []
        self._gradients: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._energies)

    def add(self, positions: np.ndarray, energy: float, forces: np.ndarray) -> None:
        """Add a structure (n, 3) in nm, its energy in kJ/mol and its forces."""
        place, slopes = self._features(positions)
        self._places.append(place)
        self._slopes.append(slopes)
        self._energies.append(energy)
        self._gradients.append(-forces.reshape(-1))

    def fit(self, *, search: bool = True) -> None:
        """Condition on all data; `search` for kernel and length scale anew.

        Raises
        ------
        SimulationError
            Structures that cannot be told apart.
        """
        places = np.array(self._places)
        spread = np.sqrt(2.0 * places.var(axis=0).sum())
        self._mean = float(np.max(self._energies))
        data = np.concatenate([np.array(self._energies) - self._mean, *self._gradients])
        tried = [(name, scale * spread) for name in KERNELS for scale in _SCALES]
        if self.length and not search:
            tried = [(self.kernel, self.length)]
        best = np.inf
        for name, length in tried:
            try:
                factor = cho_factor(self._covariance(name, length), lower=True)
            except np.linalg.LinAlgError:
                continue
            weights = cho_solve(factor, data)
            variance = float(data @ weights) / len(data)
            # −2/N of the logarithm of the likelihood, with the best σ² put in.
            unlikely = np.log(max(variance, 1e-300)) + 2.0 * np.log(np.diag(factor[0])).mean()
            if unlikely < best:
                best, self.kernel, self.length, self._variance = unlikely, name, length, variance
                self._factor, self._weights = factor, weights
        if not np.isfinite(best):
            raise SimulationError(
                "structures of a path that differ from each other",
                "covariances without an inverse",
                'write optimiser = "bfgs" in [neb]',
            )
        count = len(self)
        gradients = self._weights[count:].reshape(count, -1)
        self._along = np.array([s @ w for s, w in zip(self._slopes, gradients, strict=True)])

    def predict(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (n, 3) in kJ/mol/nm."""
        place, slopes = self._features(positions)
        off, kernel, first, second = self._near(place)
        weights, along = self._weights[: len(self)], (off * self._along).sum(axis=1)
        energy = self._mean + float(kernel @ weights + first @ along)
        gradient = first @ self._along - (first * weights + second * along) @ off
        return energy, -(slopes.T @ gradient).reshape(positions.shape)

    def _near(self, place: np.ndarray) -> tuple[np.ndarray, ...]:
        """Differences to all data, κ and its derivatives."""
        assert self.length is not None
        off = place - np.array(self._places)
        return off, *KERNELS[self.kernel](0.5 * (off**2).sum(axis=1), self.length)

    def uncertainty(self, positions: np.ndarray) -> float:
        """Standard deviation of the energy, kJ/mol."""
        off, kernel, first, _ = self._near(self._features(positions)[0])
        rows = [k * (o @ s) for k, o, s in zip(first, off, self._slopes, strict=True)]
        known = solve_triangular(self._factor[0], np.concatenate([kernel, *rows]), lower=True)
        return float(np.sqrt(self._variance * max(0.0, 1.0 - known @ known)))

    def _covariance(self, name: str, length: float) -> np.ndarray:
        """Of all energies, then all gradients, over σ²."""
        count, size = len(self), self._slopes[0].shape[1]
        places = np.array(self._places)
        off = places[:, None] - places[None]
        kernel, first, second = KERNELS[name](0.5 * (off**2).sum(axis=2), length)
        matrix = np.empty((count * (1 + size),) * 2)
        matrix[:count, :count] = kernel
        for b in range(count):
            columns = slice(count + b * size, count + (b + 1) * size)
            slopes = self._slopes[b]
            along = off[:, b] @ slopes  # (count, size): ∂|φ_a − φ_b|²/2 along x_b, less its sign
            matrix[:count, columns] = first[:, b, None] * along
            for a in range(b + 1):
                rows = slice(count + a * size, count + (a + 1) * size)
                left = self._slopes[a].T @ off[a, b]
                matrix[rows, columns] = first[a, b] * (self._slopes[a].T @ slopes)
                matrix[rows, columns] -= second[a, b] * np.outer(left, along[a])
                matrix[columns, rows] = matrix[rows, columns].T
        matrix[count:, :count] = matrix[:count, count:].T
        scales = np.sqrt(np.diag(matrix))
        matrix[np.diag_indices_from(matrix)] += _NOISE * np.maximum(scales**2, 1e-12)
        return matrix
