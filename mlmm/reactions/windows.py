"""Windows of umbrella sampling: where they stand, how stiff they are, and which are missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.units import GAS_CONSTANT

__all__ = ["Coordinate", "Sampled", "Window", "neighbours", "plan_windows", "windows_between"]

#: A window is as stiff as a quarter of what its spacing asks for, however the ground curves.
_SOFTEST = 0.25
_SPACING = 1.5  # of neighbours, in widths of a window


@dataclass(frozen=True)
class Coordinate:
    """The variable along which windows stand.

    Parameters
    ----------
    name, unit : str
    period : float
        2 pi for a torsion, 0 for what is not periodic.
    """

    name: str
    unit: str = ""
    period: float = 0.0

    def apart(self, values: Any, centre: Any) -> np.ndarray:
        """Differences from a centre, on the shorter way around."""
        off = np.asarray(values, dtype=float) - centre
        return off - self.period * np.round(off / self.period) if self.period else off

    def shown(self, value: float) -> str:
        """A value with its unit, an angle in degrees."""
        if self.unit == "rad":
            return f"{math.degrees(value):.4g} degree"
        return f"{value:.4g} {self.unit}".rstrip()

    def shown_constant(self, constant: float) -> str:
        """A force constant with its unit, as a run file takes it."""
        return (
            f"{constant:.4g} kJ/mol"
            + (f"/{self.unit.replace('^2', '')}" if self.unit else "")
            + ({"": "", "nm^2": "^4"}.get(self.unit, "^2"))
        )


@dataclass(frozen=True)
class Window:
    """One bias k/2 (x - x_0)^2.

    Parameters
    ----------
    centre, force_constant : float
        x_0 and k, kJ/mol per squared unit of the variable.
    number : int
        Of its folder; windows that are added later have higher ones.
    added : int
        Round in which it was added; 0 for those of the plan.
    """

    centre: float
    force_constant: float
    number: int = 0
    added: int = 0

    def energies(self, values: np.ndarray, coordinate: Coordinate) -> np.ndarray:
        """Bias of each value, kJ/mol."""
        return 0.5 * self.force_constant * coordinate.apart(values, self.centre) ** 2

    def facts(self) -> dict[str, Any]:
        """As a record holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Sampled:
    """A window and what its samples are like.

    Parameters
    ----------
    window : Window
    mean, width : float
        Mean and standard deviation of the variable.
    """

    window: Window
    mean: float
    width: float


def plan_windows(
    centres: Sequence[float],
    force_constant: float | None,
    temperature: float,
    *,
    spacing: float = _SPACING,
    curvatures: np.ndarray | None = None,
) -> list[Window]:
    """Windows at given centres, with a force constant for a width that fits their distance.

    On ground of curvature F'' a window has the width sigma = sqrt(kT/(k + F'')). Neighbours at a distance of
    `spacing` widths overlap well, so that k = kT (spacing/d)^2 - F'' with d the distance of neighbours.

    Parameters
    ----------
    centres : sequence of float
    force_constant : float, optional
        Of all windows; chosen for each by default.
    temperature : float
        K.
    spacing : float
        Distance of neighbours in widths.
    curvatures : ndarray, shape (n,), optional
        F'' at the centres, kJ/mol per squared unit; 0 by default.

    Raises
    ------
    ConfigError
        Fewer than two centres, or two in one place.
    """
    order = np.sort(np.asarray(centres, dtype=float))
    if len(order) < 2:
        raise ConfigError("two windows or more", f"{len(order)}", "give more centres, or windows = 10")
    gaps = np.diff(order)
    if gaps.min() <= 1e-9 * max(1.0, float(np.abs(order).max())):
        where = order[int(np.argmin(gaps))]
        raise ConfigError("windows in places of their own", f"two at {where:g}", "leave one of them out")
    thermal = GAS_CONSTANT * temperature
    curved = np.zeros(len(order)) if curvatures is None else np.asarray(curvatures, dtype=float)
    found = []
    for k, centre in enumerate(order):
        # The wider of both gaps has to be bridged.
        near = [gaps[j] for j in (k - 1, k) if 0 <= j < len(gaps)]
        wanted = thermal * (spacing / max(near)) ** 2
        chosen = max(wanted - curved[k], _SOFTEST * wanted) if force_constant is None else force_constant
        found.append(Window(float(centre), float(chosen), k))
    return found


def neighbours(windows: Sequence[Window], coordinate: Coordinate) -> list[tuple[int, int]]:
    """Places in the list of windows that stand side by side, around a circle if they go around it."""
    order = sorted(range(len(windows)), key=lambda k: windows[k].centre)
    pairs = list(itertools.pairwise(order))
    if coordinate.period and len(order) > 2:
        gaps = [windows[b].centre - windows[a].centre for a, b in pairs]
        around = coordinate.period - sum(gaps)
        if around <= 2 * max(gaps):
            pairs.append((order[-1], order[0]))
    return pairs


def windows_between(
    left: Sampled, right: Sampled, coordinate: Coordinate, temperature: float, number: int
) -> list[Window]:
    """Windows whose samples will fill the gap between those of two others.

    A window with the mean x feels F'(x) = -k (x - x_0) of the ground, so that the ground's slope and
    curvature between both are known from their means. Where the ground curves down, a window is twice as
    stiff as that, or it would slide to one side.

    Parameters
    ----------
    left, right : Sampled
    coordinate : Coordinate
    temperature : float
        K.
    number : int
        Of the first one; see `Window`.
    """
    apart = float(coordinate.apart(right.mean, left.mean))
    slopes = [
        -side.window.force_constant * float(coordinate.apart(side.mean, side.window.centre))
        for side in (left, right)
    ]
    count = max(1, math.ceil(abs(apart) / (_SPACING * max(left.width + right.width, 1e-12))) - 1)
    distance = apart / (count + 1)
    wanted = GAS_CONSTANT * temperature * (_SPACING / max(abs(distance), 1e-12)) ** 2
    curvature = (slopes[1] - slopes[0]) / apart if apart else 0.0
    least = -2.0 * curvature if curvature < 0 else _SOFTEST * wanted
    constant = max(wanted - curvature, least, left.window.force_constant, right.window.force_constant)
    added = 1 + max(left.window.added, right.window.added)
    found = []
    for k in range(1, count + 1):
        share = k / (count + 1)
        centre = left.mean + share * apart + ((1 - share) * slopes[0] + share * slopes[1]) / constant
        if coordinate.period:
            half = 0.5 * coordinate.period
            centre = (centre + half) % coordinate.period - half
        found.append(Window(centre, constant, number + k - 1, added))
    return found
