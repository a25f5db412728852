"""Free energy from the work of switching both ways: Crooks' theorem by Bennett's acceptance ratio.

Runs from equilibrium at one end, whatever their speed, obey (Crooks, Phys. Rev. E 60, 2721 (1999), doi
10.1103/PhysRevE.60.2721)

    P_forward(W) / P_backward(-W) = exp((W - dF)/kT),

so that the ratio of both is known but for dF, whose best estimate is Bennett's acceptance ratio (Shirts et
al., Phys. Rev. Lett. 91, 140601 (2003), doi 10.1103/PhysRevLett.91.140601). Each direction alone bounds dF by
its mean work, and gives it by Jarzynski's equality (Phys. Rev. Lett. 78, 2690 (1997), doi
10.1103/PhysRevLett.78.2690), which few runs dominate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.reactions.end_state_analysis import EndStateResult, analyse_states
from mlmm.units import GAS_CONSTANT

__all__ = ["SwitchingResult", "analyse_switching", "bennett_error", "crooks_slope", "works_of"]

_ITERATIONS, _TOLERANCE = 100, 1e-10


@dataclass(frozen=True, eq=False)
class SwitchingResult(EndStateResult):
    """Free energy of the hybrid less that of the force field by switching runs.

    The two states of `EndStateResult` are both ends: its slopes are the mean work forward and the negative
    mean work backward, between which the answer lies; `one_sided` is Jarzynski's equality of each.

    Parameters
    ----------
    work_forward, work_backward : ndarray, shape (n,)
        Work of each run, kJ/mol.
    dissipated : tuple of (float, float)
        Mean of both directions and its standard error, kJ/mol.
    crooks : tuple of (float, float)
        kT d/dW of ln P_forward(W)/P_backward(-W) and its standard error: 1 by Crooks' theorem; NaN where the
        distributions do not overlap.
    paths : ndarray, shape (2, K)
        Mean of D at each change of the weight, from 0 to 1, in both directions, kJ/mol.
    """

    work_forward: np.ndarray
    work_backward: np.ndarray
    dissipated: tuple[float, float]
    crooks: tuple[float, float]
    paths: np.ndarray

    def facts(self) -> dict[str, Any]:
        """As a record holds it."""
        pairs = {"dissipated": list(self.dissipated), "crooks": list(self.crooks)}
        return super().facts() | pairs | {"method": "switching"}


def works_of(differences: np.ndarray) -> np.ndarray:
    """Work of runs in which the weight goes from 0 to 1 in equal steps, kJ/mol (n,).

    Parameters
    ----------
    differences : ndarray, shape (n, K)
        D at each change of the weight, kJ/mol.
    """
    return np.asarray(differences).mean(axis=1)


def analyse_switching(
    forward: np.ndarray,
    backward: np.ndarray,
    temperature: float,
    *,
    bootstraps: int = 200,
    seed: int = 0,
) -> SwitchingResult:
    """Bennett's acceptance ratio of the work of both directions; the larger of two errors counts.

    Parameters
    ----------
    forward, backward : ndarray, shapes (n, K) and (m, K)
        D = U_hybrid - U_MM at each change of the weight, from 0 to 1 in both, of the runs in the order of the
        frames where they began, kJ/mol.
    temperature : float
        K.
    bootstraps, seed : int

    Raises
    ------
    ConfigError
        Fewer than ten runs in a direction, some that are not finite, or works that do not overlap.
    """
    up, down = works_of(forward), -works_of(backward)
    # One state is the other one changed by the work: the two equations of MBAR are Bennett's.
    states = analyse_states([0.0, 1.0], [up, -down], temperature, bootstraps=bootstraps, seed=seed)
    independent = (float(states.independent[0]), float(states.independent[1]))
    expected = bennett_error(up, down, float(states.free_energies[-1]), temperature, independent)
    # Where few runs of a direction lie among those of the other, resampling them does not show it.
    errors = np.array([0.0, max(float(states.errors[-1]), expected)])
    return SwitchingResult(
        **states.__dict__ | {"errors": errors},
        work_forward=up,
        work_backward=down,
        dissipated=(
            0.5 * float(states.slopes[0] - states.slopes[1]),
            0.5 * float(np.hypot(*states.slope_errors)),
        ),
        crooks=crooks_slope(up, down, temperature, independent),
        paths=np.array([np.mean(forward, axis=0), np.mean(backward, axis=0)]),
    )


def bennett_error(
    forward: np.ndarray,
    backward: np.ndarray,
    value: float,
    temperature: float,
    independent: tuple[float, float] | None = None,
) -> float:
    """Standard error of Bennett's acceptance ratio for many runs, kJ/mol; infinite without overlap.

    With the chance p of each work to be one forward, (kT)^2 (1/sum p (1-p) - 1/n - 1/m) is the variance.
    Arguments as for `crooks_slope`, and the free energy (kJ/mol).
    """
    thermal = GAS_CONSTANT * temperature
    counts = independent or (float(len(forward)), float(len(backward)))
    log_odds = (np.concatenate([forward, -backward]) - value) / thermal + np.log(counts[0] / counts[1])
    chance = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -500, 500)))
    shares = np.repeat([counts[0] / len(forward), counts[1] / len(backward)], [len(forward), len(backward)])
    known = float((shares * chance * (1.0 - chance)).sum())
    if known <= 0.0:
        return float("inf")
    return float(thermal * np.sqrt(max(0.0, 1.0 / known - 1.0 / counts[0] - 1.0 / counts[1])))


def crooks_slope(
    forward: np.ndarray,
    backward: np.ndarray,
    temperature: float,
    independent: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Slope of ln P_forward(W)/P_backward(-W) along W in units of 1/kT, by logistic regression: 1 is exact.

    It tells whether work and distributions belong together: ends that are not in equilibrium, a work with
    parts left out, or time steps too long change it.

    Parameters
    ----------
    forward, backward : ndarray
        Works of both directions, kJ/mol.
    temperature : float
        K.
    independent : tuple of float, optional
        Works of each direction that are independent; all by default.

    Returns
    -------
    slope, error : float
        NaN where the distributions do not overlap.
    """
    thermal = GAS_CONSTANT * temperature
    counts = independent or (float(len(forward)), float(len(backward)))
    works = np.concatenate([forward, -backward]) / thermal
    middle = float(np.median(works))
    design = np.stack([works - middle, np.ones(len(works))], axis=1)
    is_forward = np.repeat([1.0, 0.0], [len(forward), len(backward)])
    shares = np.repeat([counts[0] / len(forward), counts[1] / len(backward)], [len(forward), len(backward)])
    found = np.array([1.0, 0.0])
    for _ in range(_ITERATIONS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ found, -500, 500)))
        spread = shares * chance * (1.0 - chance)
        curvature = design.T @ (spread[:, None] * design)
        if np.linalg.cond(curvature) > 1e12:
            return float("nan"), float("nan")
        step = np.linalg.solve(curvature, design.T @ (shares * (is_forward - chance)))
        found = found + step * min(1.0, 1.0 / float(np.abs(step).max()))
        if np.abs(step).max() < _TOLERANCE:
            return float(found[0]), float(np.sqrt(np.linalg.inv(curvature)[0, 0]))
    return float("nan"), float("nan")
