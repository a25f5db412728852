"""Distances that lambda falls with: shapes, the switch, room in the box."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from mlmm.errors import ConfigError
from mlmm.pair_formulas import smooth_step
from mlmm.structures import minimum_image

__all__ = ["SHAPES", "check_shape", "room_around", "shape_distances", "switch"]

SHAPES = ("skin", "sphere")


def check_shape(shape: str) -> None:
    """Refuse a `shape` that does not exist (ConfigError)."""
    if shape not in SHAPES:
        raise ConfigError(f"shape = {' | '.join(SHAPES)}", repr(shape), 'write shape = "skin"')


def switch(distances: np.ndarray, reach: float, zone: float) -> np.ndarray:
    """lambda = 1 − x³(10 − 15x + 6x²), x = (d − reach)/zone clamped to [0, 1]: C² at both ends.

    Parameters
    ----------
    distances : ndarray, shape (N,)
    reach, zone : float
        In the same unit; zone = 0 is a step, 1 up to and including `reach`.
    """
    x = np.clip((distances - reach) / zone, 0, 1) if zone > 0 else (distances > reach).astype(np.float64)
    return np.clip(1.0 - smooth_step(x), 0, 1)


def shape_distances(
    positions: torch.Tensor,
    cell: torch.Tensor | None,
    atoms: Sequence[int],
    shape: str,
    total: float,
) -> np.ndarray:
    """Distance of each atom from the region in the shape's measure, by minimum image.

    Parameters
    ----------
    positions : torch.Tensor, shape (N, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    atoms : sequence of int
        The region.
    shape : {"skin", "sphere"}
        From the nearest atom of the region, or from its mean position.
    total : float
        Plateau and width, nm.

    Returns
    -------
    ndarray, shape (N,), nm

    Raises
    ------
    ConfigError
        A zone that meets its own periodic image.
    """
    points = _gathered(positions[list(atoms)], cell)
    centre = points.mean(dim=0)
    if cell is not None:
        _check_room(total, _apart(points if shape == "skin" else centre.unsqueeze(0), cell))
    if shape == "sphere":
        return minimum_image(positions - centre, cell).norm(dim=1).numpy()
    nearest = torch.full((len(positions),), float("inf"), dtype=torch.float64)
    for point in points:
        nearest = torch.minimum(nearest, minimum_image(positions - point, cell).square().sum(dim=1))
    return nearest.sqrt().numpy()


def room_around(positions: torch.Tensor, cell: torch.Tensor | None, atoms: Sequence[int]) -> float:
    """Largest plateau + width of a skin that does not meet its own periodic image, nm; inf without a box.

    Parameters
    ----------
    positions : torch.Tensor, shape (N, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    atoms : sequence of int
        The region.
    """
    return float("inf") if cell is None else _apart(_gathered(positions[list(atoms)], cell), cell) / 2


def _apart(points: torch.Tensor, cell: torch.Tensor) -> float:
    """Distance of the images, no more than the smallest width: up to half of that, minimum image is right."""
    return min(_image_distance(points, cell), float(cell.diagonal().min()))


def _check_room(total: float, apart: float) -> None:
    """A zone must not meet its own image: it would be infinite, and not what its width says."""
    if 2 * total > apart:
        raise ConfigError(
            f"plateau + width of at most {apart / 2:.3g} nm, where the zone meets its own periodic image",
            f"{total:.3g} nm",
            "make the zone smaller, or the box larger (system.padding)",
        )


def _images(cell: torch.Tensor) -> torch.Tensor:
    """Lattice vectors, (45, 3), that lead from the minimum image to all images within the smallest width."""
    steps = list(itertools.product((-2, -1, 0, 1, 2), (-1, 0, 1), (-1, 0, 1)))
    return torch.tensor(steps, dtype=cell.dtype) @ cell


def _gathered(points: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    """One image of each point, next to the nearest point that was placed before it (minimal spanning tree).

    Points that can be reached from one another in short steps stay together, however long the chain.
    """
    if cell is None:
        return points
    rectangular = bool((cell == torch.diag(cell.diagonal())).all())
    # In a slanted box the minimum image is the shortest one only at short distances.
    images = torch.zeros(1, 3, dtype=cell.dtype) if rectangular else _images(cell)
    gathered = points.clone()
    nearest = torch.full((len(points),), float("inf"), dtype=points.dtype)
    waiting = torch.ones(len(points), dtype=torch.bool)
    last = 0
    for _ in range(len(points) - 1):
        waiting[last] = False
        candidates = minimum_image(points - gathered[last], cell) + images.unsqueeze(1)
        squared, image = candidates.square().sum(dim=-1).min(dim=0)
        closer = waiting & (squared < nearest)
        nearest[closer] = squared[closer]
        gathered[closer] = gathered[last] + candidates[image[closer], closer]
        last = int(nearest.masked_fill(~waiting, float("inf")).argmin())
    return gathered


def _image_distance(points: torch.Tensor, cell: torch.Tensor) -> float:
    """Shortest distance between a point and a periodic image of another or of itself, nm.

    A skin of radius r around the points meets its own image if, and only if, this is below 2 r: points closer
    than 2 r stand in one image by `_gathered`.
    """
    images, shortest = _images(cell), float("inf")
    for point in points:
        direct = points - point
        others = minimum_image(direct, cell) + images.unsqueeze(1)
        squared = others.square().sum(dim=-1)
        squared[(others - direct).abs().amax(dim=-1) < 1e-6] = float("inf")
        shortest = min(shortest, float(squared.min()))
    return shortest**0.5
