"""What can be known about the error of a barrier of free energy: four parts, and what none of them contains.

- *Second derivatives*: M_ij and M_ji, by displacements of different atoms, are two measurements of one
  number. Half of their difference is the standard error of their mean; it is propagated to the free energy to
  first order. Another size of the displacements, along the lowest modes, tells of what is not quadratic.
- *Stationary points*: a force g that is left is worth g·H⁻¹·g/2.
- *Low modes*: harmonic oscillators or rotors, which both are models.
- *Potential*: the members of a committee disagree about the barrier; what all of them get wrong is not seen.

The error of a reference method itself, of the harmonic approximation elsewhere and of tunnelling is in none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlmm.reactions.hessian import Hessian, Modes
from mlmm.reactions.surface import ReactionSurface
from mlmm.reactions.thermochemistry import thermochemistry
from mlmm.units import LIGHT_SPEED

__all__ = ["PointError", "committee_error", "doubled_step", "joined", "point_error"]

#: Real modes, the lowest first, whose curvature is computed again with twice the displacement.
_LOWEST = 6
_SLOPE = 1e-3  # relative change of a wavenumber, for the slope of the free energy
_TWO = 2  # members that can disagree


@dataclass(frozen=True)
class PointError:
    """Error of the free energy of one stationary point, kJ/mol.

    Parameters
    ----------
    derivatives : float
        Of the second derivatives, by their asymmetry.
    step : float
        Of the same, by twice the displacement along the lowest modes.
    stationary : float
        Of a structure that still feels a force.
    """

    derivatives: float
    step: float
    stationary: float


def doubled_step(
    surface: ReactionSurface,
    positions: np.ndarray,
    modes: Modes,
    displacement: float,
    memory: np.ndarray | None = None,
) -> np.ndarray:
    """Wavenumbers of the lowest real modes with twice the displacement; NaN for all others (k,), 1/cm.

    Parameters
    ----------
    surface : ReactionSurface
    positions : ndarray, shape (n, 3), nm
    modes : Modes
    displacement : float
        Of the second derivatives, nm; here the atom that moves most moves by twice as much.
    memory : ndarray, optional
        Environment at rest.
    """
    found = np.full(len(modes.wavenumbers), np.nan)
    places = np.flatnonzero(modes.wavenumbers > 0)[:_LOWEST]
    vectors = modes.vectors[places]
    sizes = 2.0 * displacement / np.linalg.norm(vectors, axis=2).max(axis=1)
    moved = [positions + sign * s * v for s, v in zip(sizes, vectors, strict=True) for sign in (1.0, -1.0)]
    results = surface.evaluate_many(moved, [memory] * len(moved))
    for k, place in enumerate(places):
        change = ((results[2 * k].forces - results[2 * k + 1].forces) * vectors[k]).sum()
        square = -change / (2.0 * sizes[k] * modes.reduced_masses[place])
        found[place] = math.copysign(math.sqrt(abs(square)), square) / (2.0 * math.pi * LIGHT_SPEED)
    return found


def point_error(
    second: Hessian,
    modes: Modes,
    doubled: np.ndarray,
    masses: np.ndarray,
    temperature: float,
    *,
    scale: float = 1.0,
    cutoff: float = 100.0,
) -> PointError:
    """Error of the free energy (quasi-RRHO) of a stationary point.

    Parameters
    ----------
    second : Hessian
    modes : Modes
    doubled : ndarray, shape (k,), 1/cm
        See `doubled_step`.
    masses : ndarray, shape (n,), amu
    temperature : float
        K.
    scale, cutoff
        Of frequencies; see `mlmm.reactions.thermochemistry.thermochemistry`.
    """
    real = modes.wavenumbers > 0
    wavenumbers = modes.wavenumbers[real]
    slopes = np.array([_slope(w * scale, temperature, cutoff) * scale for w in wavenumbers])
    squares = (2.0 * math.pi * LIGHT_SPEED * wavenumbers) ** 2
    vectors = modes.mass_weighted[real].reshape(len(wavenumbers), -1)
    weights = np.repeat(1.0 / np.sqrt(masses), 3)
    # dG/dH_ij, with dω/dλ = ω/2λ of each mode.
    slope = (vectors.T * (slopes * wavenumbers / (2.0 * squares))) @ vectors * np.outer(weights, weights)
    half = second.antisymmetric
    variance = 2.0 * float(np.square(slope * half).sum())
    # Elements of the diagonal are measured once: their error is that of M_ij, not of the mean of two.
    variance += 2.0 * float((np.square(np.diag(slope)) * np.square(half).mean(axis=1)).sum())
    changes = np.where(np.isfinite(doubled[real]), doubled[real] - wavenumbers, 0.0)
    # A mode of either sign has an energy that is left: the force along it over its curvature.
    along = modes.mass_weighted.reshape(len(modes.wavenumbers), -1) @ (second.forces.reshape(-1) * weights)
    curvatures = (2.0 * math.pi * LIGHT_SPEED * modes.wavenumbers) ** 2
    return PointError(
        derivatives=math.sqrt(variance),
        step=float(np.linalg.norm(slopes * changes)),
        stationary=float(0.5 * np.sum(along**2 / np.maximum(curvatures, 1e-9))),
    )


def committee_error(saddle: np.ndarray, reactant: np.ndarray, scale: float = 1.0) -> float | None:
    """Standard deviation of E(saddle) − E(reactant) over members (K,) kJ/mol; None for fewer than two.

    Each member is asked at the stationary points of their mean: where its own are matters to second order.

    Parameters
    ----------
    saddle, reactant : ndarray, shape (K,), kJ/mol
    scale : float
        Of a calibration: error over spread.
    """
    if len(saddle) < _TWO or len(saddle) != len(reactant):
        return None
    return scale * float(np.std(saddle - reactant, ddof=1))


def joined(
    points: tuple[PointError, PointError], low_modes: float, potential: float | None
) -> tuple[float, Mapping[str, float]]:
    """Error of a barrier, kJ/mol: its parts added in squares, and the parts by name.

    Parameters
    ----------
    points : pair of PointError
        Of saddle point and reactant.
    low_modes : float
        ΔG‡ with harmonic modes less ΔG‡ with low modes as rotors.
    potential : float, optional
        See `committee_error`.
    """
    parts = {
        "derivatives": math.hypot(*(x for point in points for x in (point.derivatives, point.step))),
        "stationary": math.hypot(*(point.stationary for point in points)),
        "low_modes": abs(low_modes),
    }
    if potential is not None:
        parts["potential"] = potential
    return math.hypot(*parts.values()), parts


def _slope(wavenumber: float, temperature: float, cutoff: float) -> float:
    """dG/dω of a mode, kJ/mol cm."""
    step = _SLOPE * wavenumber
    high, low = (
        thermochemistry(np.array([w]), temperature, cutoff=cutoff).quasi_gibbs
        for w in (wavenumber + step, wavenumber - step)
    )
    return (high - low) / (2.0 * step)
