"""Wells in one dimension with exact free energies, and samples of windows in them by Metropolis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlmm.reactions.windows import Coordinate, Window
from mlmm.units import GAS_CONSTANT

TEMPERATURE = 300.0
KT = GAS_CONSTANT * TEMPERATURE
LINE = Coordinate("x", "nm")
Ground = Callable[[np.ndarray], np.ndarray]


def harmonic(x: np.ndarray) -> np.ndarray:
    """800 (x - 0.02)^2."""
    return 800.0 * (x - 0.02) ** 2


def double_well(x: np.ndarray) -> np.ndarray:
    """Minima near -0.1 and 0.1 with a barrier of 20 kJ/mol between them, tilted."""
    return 20.0 * ((x / 0.1) ** 2 - 1.0) ** 2 + 30.0 * x


def exact_bins(ground: Ground, edges: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """-kT ln of the mean of exp(-F/kT) over each bin."""
    thermal = GAS_CONSTANT * temperature
    fine = np.linspace(edges[:-1], edges[1:], 201)
    return -thermal * np.log(np.trapezoid(np.exp(-ground(fine) / thermal), fine, axis=0) / np.diff(edges))


def metropolis(
    ground: Ground,
    windows: Sequence[Window],
    seeds: Sequence[int],
    length: int,
    *,
    step: float = 0.05,
    every: int = 5,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """Correlated samples of ground and bias, (seeds, windows, length); the start is in equilibrium."""
    thermal = GAS_CONSTANT * temperature
    centres = np.array([window.centre for window in windows])
    constants = np.array([window.force_constant for window in windows])
    generators = [np.random.default_rng(seed) for seed in seeds]
    shape = (len(seeds), len(windows))

    def reduced(x: np.ndarray) -> np.ndarray:
        return (ground(x) + 0.5 * constants * (x - centres) ** 2) / thermal

    x = np.broadcast_to(centres, shape).copy()
    energy = reduced(x)
    found = np.empty((*shape, length))
    for k in range(-100, length):
        moves = np.array([generator.normal(0, step, (every, len(windows))) for generator in generators])
        chances = np.array([generator.random((every, len(windows))) for generator in generators])
        for j in range(every):
            tried = x + moves[:, j]
            new = reduced(tried)
            taken = np.log(chances[:, j]) < energy - new
            x, energy = np.where(taken, tried, x), np.where(taken, new, energy)
        if k >= 0:
            found[:, :, k] = x
    return found
