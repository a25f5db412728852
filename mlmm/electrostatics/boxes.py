"""Periodic boxes: their widths and waves, and a region among its own images."""

from __future__ import annotations

import torch

from mlmm.structures import minimum_image

__all__ = ["box_widths", "half_space", "images_of_region", "is_cube"]


def box_widths(cell: torch.Tensor) -> torch.Tensor:
    """Distances between opposite faces of a box in reduced form, nm (3,)."""
    a, b, c = cell[0], cell[1], cell[2]
    faces = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)])
    return torch.linalg.det(cell) / faces.square().sum(1).sqrt()


def half_space(cell: torch.Tensor, largest: float) -> torch.Tensor:
    """Integers n (K, 3) of the reciprocal vectors 2 pi H⁻¹ n up to a length, one of each pair ±n.

    TorchScript can compile it.

    Parameters
    ----------
    cell : torch.Tensor, shape (3, 3), nm
    largest : float
        1/nm.
    """
    most = (cell.square().sum(1).sqrt() * (largest / 6.283185307179586)).to(torch.int64) + 1
    x, y, z = int(most[0]), int(most[1]), int(most[2])
    first = torch.arange(0, x + 1, dtype=torch.float64, device=cell.device)
    second = torch.arange(-y, y + 1, dtype=torch.float64, device=cell.device)
    third = torch.arange(-z, z + 1, dtype=torch.float64, device=cell.device)
    grid = torch.cartesian_prod(first, second, third)
    square = (6.283185307179586 * grid @ torch.linalg.inv(cell).t()).square().sum(1)
    order = grid[:, 0] * 1e8 + grid[:, 1] * 1e4 + grid[:, 2]
    return grid[(square <= largest * largest) & (order > 0)].contiguous()


def images_of_region(
    positions: torch.Tensor,
    charges: torch.Tensor,
    dipoles: torch.Tensor,
    reference: torch.Tensor,
    cell: torch.Tensor,
) -> torch.Tensor:
    """E_images, of a region with its own images in a cube, in units of K; TorchScript can compile it."""
    r = minimum_image(positions - positions[0], cell)
    d = (charges.unsqueeze(1) * r + dipoles).sum(0)
    d0 = (reference.unsqueeze(1) * r).sum(0)
    theta = ((charges - reference) * r.square().sum(1)).sum() + 2.0 * (dipoles * r).sum()
    factor = 2.0 * 3.141592653589793 / (3.0 * torch.linalg.det(cell))
    return factor * (reference.sum() * theta - (d.square().sum() - d0.square().sum()))


def is_cube(cell: torch.Tensor) -> bool:
    """Whether the image term belongs to a box."""
    lengths = torch.diagonal(cell)
    skewed = float((cell - torch.diag(lengths)).abs().max())
    return skewed < 1e-6 and float(lengths.max() - lengths.min()) < 1e-3 * float(lengths.min())
