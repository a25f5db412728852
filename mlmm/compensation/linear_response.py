"""What the density across a zone answers to G(lambda), from its fluctuations; the correction that follows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from mlmm.compensation.density import DensityProfile
from mlmm.errors import ConfigError
from mlmm.units import GAS_CONSTANT, parse
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones
from mlmm.zones.compensation import Compensation

__all__ = ["DensityResponse", "corrected", "density_response"]

#: How wrong G is expected to be in a bin before anything is measured, in kT: the prior of the correction.
_EXPECTED = 0.5


@dataclass(frozen=True, eq=False)
class DensityResponse:
    """Linear response of ln rho in the bins of lambda to G in the bins, both relative to the bulk.

    Parameters
    ----------
    matrix : ndarray, shape (m, m)
        d ln rho_a / d(G_b / kT).
    correlations : ndarray, shape (m, m)
        Of the relative densities of two bins with each other: errors of neighbours are not independent.
    """

    matrix: np.ndarray
    correlations: np.ndarray


def density_response(
    zones: AdaptiveZones,
    distances: np.ndarray,
    profile: DensityProfile,
    box: np.ndarray,
    compressibility: float = 0.09,
) -> DensityResponse:
    """d ln rho_a / d(G_b/kT) = <dM_a dN_b> / <N_a>, M_a = N_a − (V_a/V_out) N_out: fluctuation and response.

    N_b molecules in bin b get −G_b each; the derivative of any average with respect to G_b/kT is its
    covariance with N_b. The reference outside the zone answers as well, hence M. This is what inverse Monte
    Carlo uses for potentials (Lyubartsev and Laaksonen, Phys. Rev. E 52, 3730 (1995), doi
    10.1103/PhysRevE.52.3730). In a gas the matrix is 1; in water it is about 1 for ups and downs over the
    size of a molecule and below 0.1 for the zone as a whole.

    Parameters
    ----------
    zones : AdaptiveZones
        Around one centre.
    distances : ndarray, shape (F, M)
        Of all molecules' anchors from the centre, nm.
    profile : DensityProfile
        Of these distances.
    box : ndarray, shape (3, 3)
        nm.
    compressibility : float
        rho kT kappa of the solvent: no combination of bins answers less. Keeps the noise of the smallest
        answers out of the correction.

    Raises
    ------
    ConfigError
        A bin of lambda that was always empty, or a compressibility not above 0.
    """
    if not compressibility > 0:
        raise ConfigError("a compressibility above 0", str(compressibility), "write 0.09 for water")
    far = zones.plateau + zones.width
    flat = torch.tensor(distances, dtype=torch.float64).reshape(-1, 1)
    weights = AdaptiveWeights(zones).at(flat).numpy().reshape(distances.shape)
    edges = profile.weight_edges
    inside = np.array([((weights > a) & (weights <= b)).sum(axis=1) for a, b in pairwise(edges)], float)
    outside = (distances > far).sum(axis=1).astype(float)
    numbers = inside.mean(axis=1)
    if (numbers <= 0).any():
        raise ConfigError(
            "molecules in every bin of lambda",
            f"mean numbers {np.round(numbers, 3).tolist()}",
            "sample longer, or give wider weight_edges",
        )
    room = abs(np.linalg.det(box)) - 4 / 3 * np.pi * far**3
    volumes = numbers / (profile.weight_density * profile.bulk)
    relative = inside - np.outer(volumes / room, outside)
    moved, moving = relative - relative.mean(axis=1, keepdims=True), inside - numbers[:, None]
    scale = np.sqrt(numbers)
    symmetric = moved @ moving.T / distances.shape[0] / np.outer(scale, scale)
    answers, modes = np.linalg.eigh(0.5 * (symmetric + symmetric.T))
    floored = (modes * np.maximum(answers, compressibility)) @ modes.T
    spread = moved.std(axis=1)
    together = np.outer(spread, spread)
    correlations = np.divide(
        moved @ moved.T / distances.shape[0], together, out=np.eye(len(spread)), where=together > 0
    )
    return DensityResponse(floored * np.outer(1 / scale, scale), correlations)


def corrected(
    compensation: Compensation,
    profile: DensityProfile,
    response: DensityResponse,
    *,
    temperature: Any = "300 K",
    gain: float = 1.0,
) -> Compensation:
    """G_new = G − gain·kT P R' (R P R' + S)^−1 ln rho: the likeliest error of G behind a measured density.

    R is the response, S the covariance of the errors of ln rho, and P = (kT/2)² the expected square of an
    error of G: where the density is known well this is the Newton step −kT R^−1 ln rho, and noise that would
    ask for more than P is left alone. Without interactions, R = 1: the thermodynamic force of AdResS in the
    form of an energy, −kT ln rho (Fritsch et al., Phys. Rev. Lett. 108, 170602 (2012), doi
    10.1103/PhysRevLett.108.170602).

    Parameters
    ----------
    compensation : Compensation
        Under which the profile was sampled.
    profile : DensityProfile
    response : DensityResponse
    temperature : str or float
        K.
    gain : float
        Share of the correction that is taken.

    Raises
    ------
    ConfigError
        A kind without compensation, or a bin of lambda without molecules.
    """
    if profile.kind not in compensation.alignment:
        raise ConfigError(
            f"a compensation for {profile.kind}",
            f"one for {', '.join(compensation.alignment)}",
            "choose another",
        )
    density, errors = profile.weight_density, profile.weight_errors
    if not (np.isfinite(density).all() and np.isfinite(errors).all() and (density > 0).all()):
        raise ConfigError(
            "molecules in every bin of lambda",
            f"relative densities {np.round(density, 2).tolist()}",
            "sample longer, or give wider weight_edges",
        )
    thermal = GAS_CONSTANT * parse(temperature, "temperature", "temperature")
    noise = np.outer(errors / density, errors / density) * response.correlations
    matrix = response.matrix
    known = _EXPECTED**2 * matrix @ matrix.T + noise
    step = -(_EXPECTED**2) * matrix.T @ np.linalg.solve(known, np.log(density))
    # What is left unknown of G after the measurement.
    left = _EXPECTED**2 * np.eye(len(step)) - _EXPECTED**4 * matrix.T @ np.linalg.solve(known, matrix)
    spread = np.sqrt(np.maximum(np.diag(left), 0.0))
    knots, places = np.asarray(compensation.knots, dtype=float), np.array([0.0, *profile.weights])
    old = np.asarray(compensation.values.get(profile.kind, np.zeros(len(knots))), dtype=float)
    new = old + gain * thermal * np.interp(knots, places, [0.0, *step])
    steps = int(compensation.facts.get("refinements", 0)) + 1
    return dataclasses.replace(
        compensation,
        values={**compensation.values, profile.kind: new},
        errors={**compensation.errors, profile.kind: thermal * np.interp(knots, places, [0.0, *spread])},
        facts={**compensation.facts, "refinements": steps},
    )
