"""Volumes of shells around centres and of bins of lambda, and what is in them."""

from __future__ import annotations

import numpy as np
import torch

from mlmm.structures import minimum_image
from mlmm.zones.adaptive import AdaptiveWeights

__all__ = ["binned", "shell_volumes", "volume_points"]

#: Random points per frame that measure volumes around several centres; around one, which needs them once.
_POINTS, _POINTS_ONCE = 20_000, 1_000_000
_RADIAL_POINTS = 20_000


def volume_points(
    centres: torch.Tensor, cell: torch.Tensor, shells: np.ndarray, far: float, generator: np.random.Generator
) -> tuple[torch.Tensor, np.ndarray]:
    """Distances of points from the centres, (P, centres), and the volume that each one stands for."""
    total = abs(float(torch.linalg.det(cell)))
    inside = 0.5 * float(torch.diagonal(cell).min())
    if len(centres) == 1 and max(float(shells[-1]), far) <= inside:
        radii = np.linspace(0.0, inside, _RADIAL_POINTS + 1)
        middles = 0.5 * (radii[:-1] + radii[1:])
        volumes = 4 / 3 * np.pi * np.diff(radii**3)
        # The corners of the box, beyond all spheres, in one point.
        return (
            torch.tensor(np.append(middles, 2 * inside)).unsqueeze(1),
            np.append(volumes, total - volumes.sum()),
        )
    number = _POINTS if len(centres) > 1 else _POINTS_ONCE
    places = torch.tensor(generator.uniform(size=(number, 3))) @ cell
    vectors = minimum_image(places.unsqueeze(1) - centres.unsqueeze(0), cell)
    return vectors.square().sum(-1).sqrt(), np.full(number, total / number)


def shell_volumes(measured: np.ndarray, shells: np.ndarray, cell: torch.Tensor) -> np.ndarray:
    """By the formula where the shell is whole."""
    exact = 4 / 3 * np.pi * np.diff(shells**3)
    return np.where(shells[1:] <= 0.5 * float(torch.diagonal(cell).min()), exact, measured)


def binned(
    weights_of: AdaptiveWeights,
    distances: torch.Tensor,
    amounts: np.ndarray | None,
    shells: np.ndarray,
    bins: np.ndarray,
    far: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Amounts in shells, bins of lambda and beyond `far`, one after the other; the same times lambda."""
    nearest = distances.min(dim=1).values.numpy()
    weights = weights_of.at(distances).numpy()
    amounts = np.ones(len(nearest)) if amounts is None else amounts

    def sums(amounts: np.ndarray) -> np.ndarray:
        by_shell, _ = np.histogram(nearest, shells, weights=amounts)
        # Bins of lambda are closed above: turned round, lambda = 1 belongs to the last and 0 to none.
        inside = weights > 0
        by_weight, _ = np.histogram(-weights[inside], -bins[::-1], weights=amounts[inside])
        return np.concatenate([by_shell, by_weight[::-1], [amounts[nearest > far].sum()]])

    return sums(amounts), sums(amounts * weights)
