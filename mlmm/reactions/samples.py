"""Samples of umbrella windows: the beginning left out, and how many of them are independent."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.windows import Coordinate, Window, neighbours
from mlmm.statistics import statistical_inefficiency

__all__ = ["WindowSamples", "load_pymbar", "sampled_neighbours", "window_samples"]

#: Places at which the equilibration is tried to end.
_STARTS = 40
_FEWEST = 10


@dataclass(frozen=True, eq=False)
class WindowSamples:
    """What a window has sampled.

    Parameters
    ----------
    window : Window
    values : ndarray, shape (n,)
        Of the variable, in the order of time, the beginning left out.
    dropped : int
        Samples before them.
    inefficiency : float
        Number of samples that count as one.
    """

    window: Window
    values: np.ndarray
    dropped: int
    inefficiency: float

    @property
    def independent(self) -> float:
        """Number of independent samples that they are worth."""
        return len(self.values) / self.inefficiency

    @property
    def spaced(self) -> np.ndarray:
        """Values at a fifth of the distance at which they are independent, or all."""
        return self.values[:: max(1, int(self.inefficiency / 5))]

    def counted(self, inefficiency: float) -> WindowSamples:
        """The same samples under another number of them that counts as one."""
        return WindowSamples(self.window, self.values, self.dropped, inefficiency)


def window_samples(
    window: Window, values: np.ndarray, coordinate: Coordinate, *, equilibrated: bool = False
) -> WindowSamples:
    """Find where a window is in equilibrium, and how far apart its samples are independent.

    The beginning is left out so that most independent samples remain (Chodera, J. Chem. Theory Comput. 12,
    1799 (2016), doi 10.1021/acs.jctc.5b00784).

    Parameters
    ----------
    window : Window
    values : ndarray, shape (n,)
    coordinate : Coordinate
    equilibrated : bool
        Whether nothing is to be left out.

    Raises
    ------
    ConfigError
        Fewer than ten samples, or some that are not finite.
    """
    values = np.asarray(values, dtype=float)
    where = f"the window at {coordinate.shown(window.centre)}"
    if len(values) < _FEWEST:
        raise ConfigError(
            f"at least {_FEWEST} samples of {coordinate.name} in {where}",
            str(len(values)),
            "make produce in [run] longer, or interval in [report] shorter",
        )
    if not np.isfinite(values).all():
        raise ConfigError(f"finite values of {coordinate.name} in {where}", "NaN", "look at its energies.csv")
    off = coordinate.apart(values, window.centre)
    start, count = 0, 0.0
    for candidate in range(0, 1 if equilibrated else len(off) // 2, max(1, len(off) // _STARTS)):
        rest = off[candidate:]
        independent = len(rest) / statistical_inefficiency(rest)
        # A later start has to be worth it: estimates of the inefficiency are noisy.
        if independent > 1.05 * count:
            start, count = candidate, independent
    kept = off[start:]
    return WindowSamples(window, window.centre + kept, start, statistical_inefficiency(kept))


def sampled_neighbours(samples: Sequence[WindowSamples], coordinate: Coordinate) -> list[tuple[int, int]]:
    """Places in the list of windows whose samples lie side by side; around a circle, windows side by side.

    On steep ground a soft window slides past a stiff one, and one that closes the gap behind it has a centre
    beyond that of the first: it is where samples are that counts. Windows whose samples lie at one place,
    within half of their spreads, keep the order of their centres.
    """
    if coordinate.period:
        return neighbours([entry.window for entry in samples], coordinate)
    order = sorted(range(len(samples)), key=lambda k: samples[k].window.centre)
    means = [float(entry.values.mean()) for entry in samples]
    spreads = [float(entry.values.std()) for entry in samples]
    for _ in order:
        for k in range(len(order) - 1):
            a, b = order[k], order[k + 1]
            if means[a] - means[b] > 0.5 * (spreads[a] + spreads[b]):
                order[k], order[k + 1] = b, a
    return list(itertools.pairwise(order))


def load_pymbar() -> ModuleType:
    """Import pymbar with numpy instead of JAX, which compiles every new number of samples for seconds."""
    if "pymbar" not in sys.modules:
        logging.getLogger("pymbar").setLevel(logging.ERROR)
        with _without("jax"):
            importlib.import_module("pymbar")
    return sys.modules["pymbar"]


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Make the import of a module fail while this lasts."""
    hidden = {name: found for name, found in sys.modules.items() if name.split(".")[0] == module}
    for name in hidden:
        del sys.modules[name]
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(hidden)
