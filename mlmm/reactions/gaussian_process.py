"""An energy surface learned from few energies and forces: Gaussian process regression.

k(x, x') = σ² exp(−|φ(x) − φ(x')|²/2ℓ²), with φ the inverse distances of a molecule, which do not change when
it is turned (Koistinen, Ásgeirsson, Vehtari, Jónsson, J. Chem. Theory Comput. 15, 6738 (2019), doi
10.1021/acs.jctc.9b00692), or Cartesian coordinates of atoms in an environment (Denzel and Kästner, J. Chem.
Phys. 148, 094114 (2018), doi 10.1063/1.5017103). Forces enter as derivatives of the kernel; ℓ is that of the
largest likelihood, σ² follows from it in closed form.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from mlmm.errors import SimulationError

__all__ = ["GaussianProcess", "cartesian_features", "inverse_distances"]

#: Relative variance of noise: of energies, and of derivatives in units of those of the prior.
_NOISE = 1e-10
#: Length scales that are tried, in units of the root mean square distance of the data.
_SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def inverse_distances(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1/r of all pairs (p,) in 1/nm and their derivatives (p, 3n); positions (n, 3), nm."""
    first, second = np.triu_indices(len(positions), 1)
    vectors = positions[first] - positions[second]
    inverse = 1.0 / np.linalg.norm(vectors, axis=1)
    slopes = np.zeros((len(inverse), len(positions), 3))
    rows = np.arange(len(inverse))
    along = -vectors * inverse[:, None] ** 3
    slopes[rows, first], slopes[rows, second] = along, -along
    return inverse, slopes.reshape(len(inverse), -1)


def cartesian_features(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates themselves (3n,), and their derivatives, the unit matrix."""
    return positions.reshape(-1).copy(), np.eye(positions.size)


class GaussianProcess:
    """Energies and forces between some structures at which they are known.

    Parameters
    ----------
    invariant : bool
        Inverse distances as features, else Cartesian coordinates.
    """

    def __init__(self, invariant: bool):
        self._features = inverse_distances if invariant else cartesian_features
        self.length: float | None = None
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
        """Condition on all data; `search` for the length scale anew.

        Raises
        ------
        SimulationError
            Structures that cannot be told apart.
        """
        places = np.array(self._places)
        spread = np.sqrt(2.0 * places.var(axis=0).sum())
        self._mean = float(np.max(self._energies))
        data = np.concatenate([np.array(self._energies) - self._mean, *self._gradients])
        tried = [self.length] if self.length and not search else [scale * spread for scale in _SCALES]
        best = np.inf
        for length in tried:
            try:
                factor = cho_factor(self._covariance(length), lower=True)
            except np.linalg.LinAlgError:
                continue
            weights = cho_solve(factor, data)
            variance = float(data @ weights) / len(data)
            # −2/N of the logarithm of the likelihood, with the best σ² put in.
            unlikely = np.log(max(variance, 1e-300)) + 2.0 * np.log(np.diag(factor[0])).mean()
            if unlikely < best:
                best, self.length, self._variance = unlikely, length, variance
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
        assert self.length is not None
        place, slopes = self._features(positions)
        off = place - np.array(self._places)
        square = self.length**2
        kernel = np.exp(-0.5 * (off**2).sum(axis=1) / square)
        inner = self._weights[: len(self)] + (off * self._along).sum(axis=1) / square
        energy = self._mean + float(kernel @ inner)
        gradient = (kernel @ self._along - (kernel * inner) @ off) / square
        return energy, -(slopes.T @ gradient).reshape(positions.shape)

    def uncertainty(self, positions: np.ndarray) -> float:
        """Standard deviation of the energy, kJ/mol."""
        assert self.length is not None
        place, _ = self._features(positions)
        off = place - np.array(self._places)
        square = self.length**2
        kernel = np.exp(-0.5 * (off**2).sum(axis=1) / square)
        rows = [k * (o @ s) / square for k, o, s in zip(kernel, off, self._slopes, strict=True)]
        known = solve_triangular(self._factor[0], np.concatenate([kernel, *rows]), lower=True)
        return float(np.sqrt(self._variance * max(0.0, 1.0 - known @ known)))

    def _covariance(self, length: float) -> np.ndarray:
        """Of all energies, then all gradients, over σ²."""
        count, size, square = len(self), self._slopes[0].shape[1], length**2
        places = np.array(self._places)
        off = places[:, None] - places[None]
        kernel = np.exp(-0.5 * (off**2).sum(axis=2) / square)
        matrix = np.empty((count * (1 + size),) * 2)
        matrix[:count, :count] = kernel
        for b in range(count):
            columns = slice(count + b * size, count + (b + 1) * size)
            slopes = self._slopes[b]
            along = off[:, b] @ slopes  # (count, size): ∂|φ_a − φ_b|²/2 along x_b, less its sign
            matrix[:count, columns] = kernel[:, b, None] * along / square
            for a in range(b + 1):
                rows = slice(count + a * size, count + (a + 1) * size)
                left = self._slopes[a].T @ off[a, b]
                block = self._slopes[a].T @ slopes - np.outer(left, along[a]) / square
                matrix[rows, columns] = kernel[a, b] * block / square
                matrix[columns, rows] = matrix[rows, columns].T
        matrix[count:, :count] = matrix[:count, count:].T
        scales = np.sqrt(np.diag(matrix))
        matrix[np.diag_indices_from(matrix)] += _NOISE * np.maximum(scales**2, 1e-12)
        return matrix
