"""A free-energy profile along a variable, and what is read off it: barrier, reaction free energy, rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

from mlmm.short_repr import ShortRepr
from mlmm.units import GAS_CONSTANT

__all__ = ["Landmarks", "Profile", "bin_edges", "find_landmarks", "free_energies", "smoothed"]

#: Bins over which a parabola is laid where minima and maxima are read off.
_SMOOTH = 5
_LEAST_BARRIER = 1.0  # kT


@dataclass(frozen=True)
class Landmarks:
    """Places on a profile: bins of reactant, transition state and product, in this order along the variable.

    Parameters
    ----------
    reactant, product : int
    transition_state : int, optional
        None where the profile has no barrier; then the others are its two ends.
    """

    reactant: int
    product: int
    transition_state: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Profile(ShortRepr):
    """F(x) = -kT ln p(x) in bins, relative to the reactant, with standard errors.

    Parameters
    ----------
    edges : ndarray, shape (B + 1,)
        Of the bins, in the unit of the variable.
    values, errors : ndarray, shape (B,)
        kJ/mol; NaN where there are no samples. Errors are those of the difference from the reactant.
    temperature : float
        K.
    landmarks : Landmarks
    replicates : ndarray, shape (R, B)
        Profiles of resampled data, from which every error is taken.
    """

    edges: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    temperature: float
    landmarks: Landmarks
    replicates: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def barrier(self) -> tuple[float, float] | None:
        """Height of the transition state above the reactant and its standard error, kJ/mol."""
        top = self.landmarks.transition_state
        return None if top is None else self.difference(self.landmarks.reactant, top)

    @property
    def reaction(self) -> tuple[float, float]:
        """Product less reactant and its standard error, kJ/mol."""
        return self.difference(self.landmarks.reactant, self.landmarks.product)

    def difference(self, first: int, last: int) -> tuple[float, float]:
        """Free energy of one bin less that of another, both on parabolas, and its standard error."""
        spread = np.array([_step(replicate, first, last) for replicate in self.replicates])
        spread = spread[np.isfinite(spread)]
        error = float(spread.std(ddof=1)) if len(spread) > 1 else math.nan
        return _step(self.values, first, last), error

    def step(self, values: np.ndarray) -> float:
        """Barrier, or reaction free energy where there is none, of other values in the same bins."""
        top = self.landmarks.transition_state
        return _step(values, self.landmarks.reactant, self.landmarks.product if top is None else top)

    def _summary(self) -> dict[str, str]:
        found = {"bins": str(len(self.values)), "temperature": f"{self.temperature:g} K"}
        if self.barrier is not None:
            found["barrier"] = "{:.1f} ± {:.1f} kJ/mol".format(*self.barrier)
        return found | {"reaction": "{:.1f} ± {:.1f} kJ/mol".format(*self.reaction)}


def bin_edges(low: float, high: float, count: int) -> np.ndarray:
    """Edges of equal bins."""
    return np.linspace(low, high, count + 1)


def free_energies(
    values: np.ndarray, log_weights: np.ndarray, edges: np.ndarray, temperature: float
) -> np.ndarray:
    """-kT ln of the weight in each bin over its width, kJ/mol; NaN in empty bins; the mean is 0.

    Parameters
    ----------
    values, log_weights : ndarray, shape (N,)
    edges : ndarray, shape (B + 1,)
    temperature : float
        K.
    """
    count = len(edges) - 1
    places = np.searchsorted(edges, values, side="right") - 1
    places[values == edges[-1]] = count - 1
    inside = (places >= 0) & (places < count) & np.isfinite(log_weights)
    places, logs = places[inside], log_weights[inside]
    # Each bin by itself: sums of all weights would lose bins more than 36 kT above the lowest valley.
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, places, logs)
    mass = np.bincount(places, weights=np.exp(logs - highest[places]), minlength=count)
    filled = mass > 0
    found = np.full(count, np.nan)
    found[filled] = (
        -GAS_CONSTANT * temperature * (highest[filled] + np.log(mass[filled] / np.diff(edges)[filled]))
    )
    return found - np.nanmean(found) if np.isfinite(found).any() else found


def smoothed(values: np.ndarray) -> np.ndarray:
    """Values on parabolas over five bins, where there are five in a row without gaps."""
    finite = np.isfinite(values)
    if len(values) < _SMOOTH:
        return values.copy()
    if finite.all():
        return savgol_filter(values, _SMOOTH, 2, mode="interp")
    found = values.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(int)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if last - first >= _SMOOTH:
            found[first:last] = savgol_filter(values[first:last], _SMOOTH, 2, mode="interp")
    return found


def find_landmarks(values: np.ndarray, temperature: float, within: slice = slice(None)) -> Landmarks:
    """The highest point that has lower ground on both sides, and the lowest point of either side.

    Parameters
    ----------
    values : ndarray, shape (B,)
        Profile; NaN in empty bins.
    temperature : float
        K: a bump below 1 kT is no barrier.
    within : slice
        Bins that are looked at.
    """
    smooth = smoothed(values)
    places = np.arange(len(values))[within]
    places = places[np.isfinite(smooth[places])]
    ground = smooth[places]
    # Depth of the lowest ground on either side, seen from each place.
    left = ground - np.minimum.accumulate(ground)
    right = ground - np.minimum.accumulate(ground[::-1])[::-1]
    prominence = np.minimum(left, right)
    top = int(np.argmax(prominence))
    if prominence[top] < _LEAST_BARRIER * GAS_CONSTANT * temperature:
        return Landmarks(int(places[0]), int(places[-1]))
    reactant = int(np.argmin(ground[: top + 1]))
    product = top + int(np.argmin(ground[top:]))
    return Landmarks(int(places[reactant]), int(places[product]), int(places[top]))


def _step(values: np.ndarray, first: int, last: int) -> float:
    smooth = smoothed(values)
    return float(smooth[last] - smooth[first])
