"""Exchange of structures between neighbouring windows, with detailed balance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmm.reactions.windows import Coordinate, Window
from mlmm.units import GAS_CONSTANT

__all__ = ["exchanged"]


def exchanged(
    windows: Sequence[Window],
    values: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    coordinate: Coordinate,
    temperature: float,
    generator: np.random.Generator,
    parity: int,
) -> tuple[list[int], list[dict[str, Any]]]:
    """Try to exchange the structures of every second pair of neighbours.

    Two windows exchange with the probability min(1, exp(-Delta)), kT Delta = w_i(x_j) + w_j(x_i) - w_i(x_i) -
    w_j(x_j) with the biases w (Sugita et al., J. Chem. Phys. 113, 6042 (2000), doi 10.1063/1.1308516). All
    have one temperature, so that velocities go with the structures.

    Parameters
    ----------
    windows : sequence of Window
    values : ndarray, shape (K,)
        Of the variable in each window now.
    pairs : sequence of (int, int)
        Neighbours.
    coordinate : Coordinate
    temperature : float
        K.
    generator : numpy.random.Generator
    parity : int
        Which of the pairs: those of even or odd place, so that none shares a window with another.

    Returns
    -------
    sources : list of int
        For each window, the one whose structure it goes on with.
    attempts : list of dict
        ``pair``, ``accepted``.
    """
    sources = list(range(len(windows)))
    attempts: list[dict[str, Any]] = []
    taken: set[int] = set()
    for first, last in pairs[parity % 2 :: 2]:
        chance = float(generator.random())
        if taken & {first, last}:
            continue
        taken |= {first, last}
        own, other = (
            sum(
                float(windows[k].energies(np.array(values[j]), coordinate))
                for k, j in ((first, a), (last, b))
            )
            for a, b in ((first, last), (last, first))
        )
        delta = (other - own) / (GAS_CONSTANT * temperature)
        accepted = bool(delta <= 0 or chance < np.exp(-delta))
        if accepted:
            sources[first], sources[last] = last, first
        attempts.append({"pair": [windows[first].number, windows[last].number], "accepted": accepted})
    return sources, attempts
