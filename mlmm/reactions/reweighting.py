"""Free energy of another description from frames that were sampled: exponential averages and BAR.

With DeltaU = U_other - U_sampled in each frame (Zwanzig, J. Chem. Phys. 22, 1420 (1954), doi
10.1063/1.1740409),

    DeltaF = -kT ln <exp(-DeltaU/kT)>,

and with frames of both descriptions Bennett's acceptance ratio (J. Comput. Phys. 22, 245 (1976), doi
10.1016/0021-9991(76)90078-4), which for work of fast changes is Crooks' theorem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.mbar import overlap_matrix
from mlmm.reactions.samples import load_pymbar
from mlmm.statistics import statistical_inefficiency
from mlmm.units import GAS_CONSTANT

__all__ = [
    "Correction",
    "effective_samples",
    "exponential_average",
    "two_sided",
]

_FEWEST = 5


@dataclass(frozen=True)
class Correction:
    """Free energy of another description relative to that which was sampled.

    Parameters
    ----------
    value, error : float
        DeltaF and its standard error, kJ/mol.
    effective : float
        Number of independent samples that have weight in the other description.
    samples, independent : float
        Frames, and how many of them are independent.
    mean, spread : float
        Of DeltaU, kJ/mol.
    gaussian : float
        mean - spread^2/2kT: DeltaF if DeltaU were Gaussian. Where it is far from `value`, neither is to be
        trusted.
    """

    value: float
    error: float
    effective: float
    samples: int
    independent: float
    mean: float
    spread: float
    gaussian: float


def effective_samples(log_weights: np.ndarray, inefficiency: float | np.ndarray = 1.0) -> float:
    """Kish's (sum w)^2 / sum g w^2, with the number g of samples that count as one, of all or of each."""
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (inefficiency * weights**2).sum())


def exponential_average(
    differences: np.ndarray, temperature: float, *, bootstraps: int = 200, seed: int = 0
) -> Correction:
    """DeltaF by exponential averaging, with the error of drawing as many frames as are independent.

    Parameters
    ----------
    differences : ndarray, shape (n,)
        DeltaU of the frames in the order of time, kJ/mol.
    temperature : float
        K, at which they were sampled.
    bootstraps, seed : int

    Raises
    ------
    ConfigError
        Fewer than five frames, or differences that are not finite.
    """
    found = _checked(differences)
    thermal = GAS_CONSTANT * temperature
    # Weights are averaged; their memory looks shorter than that of the difference, and the longer one counts.
    logs = -found / thermal
    weights = np.exp(logs - logs.max())
    inefficiency = max(statistical_inefficiency(found), statistical_inefficiency(weights))
    generator = np.random.default_rng(seed)
    count = max(2, round(len(found) / inefficiency))
    drawn = generator.integers(len(found), size=(bootstraps, count))
    averages = np.array([_log_mean(logs[places]) for places in drawn])
    mean, spread = float(found.mean()), float(found.std(ddof=1))
    return Correction(
        -thermal * _log_mean(logs),
        thermal * float(averages.std(ddof=1)),
        effective_samples(logs, inefficiency),
        len(found),
        len(found) / inefficiency,
        mean,
        spread,
        mean - 0.5 * spread**2 / thermal,
    )


def two_sided(forward: np.ndarray, backward: np.ndarray, temperature: float) -> tuple[float, float, float]:
    """DeltaF from differences (or work) in both directions by Bennett's acceptance ratio.

    Parameters
    ----------
    forward : ndarray, shape (n,)
        U_1 - U_0 in frames of description 0, or work of changes from 0 to 1, kJ/mol.
    backward : ndarray, shape (m,)
        U_0 - U_1 in frames of description 1, or work of changes from 1 to 0.
    temperature : float
        K.

    Returns
    -------
    value, error, overlap : float
        kJ/mol, and the overlap of both distributions from 0 to 1.

    Raises
    ------
    ConfigError
        Fewer than five values on a side, some that are not finite, or distributions that do not overlap.
    """
    thermal = GAS_CONSTANT * temperature
    sides = [_checked(side) / thermal for side in (forward, backward)]
    kept = [side[_independent(side)] for side in sides]
    try:
        found = load_pymbar().other_estimators.bar(kept[0], kept[1], compute_uncertainty=True)
    except Exception as error:  # pymbar has errors of its own for what cannot be bracketed
        raise _no_overlap(str(error)) from error
    value, spread = float(found["Delta_f"]), float(found["dDelta_f"])
    if not (math.isfinite(value) and math.isfinite(spread)):
        raise _no_overlap("no finite error")
    reduced = np.zeros((2, len(kept[0]) + len(kept[1])))
    reduced[1] = np.concatenate([kept[0], -kept[1]])
    counts = np.array([len(side) for side in kept])
    shared = overlap_matrix(reduced, counts, np.array([0.0, value]))
    return thermal * value, thermal * spread, float(shared[0, 1] + shared[1, 0])


def _checked(differences: np.ndarray) -> np.ndarray:
    found = np.asarray(differences, dtype=float)
    if len(found) < _FEWEST:
        raise ConfigError(
            f"differences of energies in {_FEWEST} frames or more", str(len(found)), "sample longer"
        )
    if not np.isfinite(found).all():
        raise ConfigError(
            "finite differences of energies",
            f"{int((~np.isfinite(found)).sum())} that are not",
            "look at the frames for which the other method fails",
        )
    return found


def _independent(values: np.ndarray) -> np.ndarray:
    inefficiency = statistical_inefficiency(values)
    count = max(_FEWEST, round(len(values) / inefficiency))
    return np.unique(np.floor(np.arange(count) * len(values) / count).astype(int))


def _log_mean(logs: np.ndarray) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


def _no_overlap(what: str) -> ConfigError:
    return ConfigError(
        "two descriptions that overlap: differences of energies that both sample",
        what,
        "sample states in between, or train the one on the other",
    )
