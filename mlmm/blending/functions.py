"""Functions of distance, angle and dihedral that a force field is made of, for torch and TorchScript."""

from __future__ import annotations

import torch

__all__ = [
    "bond_angles",
    "cubic_powers",
    "dihedral_angles",
    "lennard_jones",
    "short_range_inverse",
    "switching_function",
]


def switching_function(r: torch.Tensor, r_on: float, r_off: float) -> torch.Tensor:
    """f = 1 − x³(10 − 15x + 6x²), x = (r − r_on)/(r_off − r_on): 1 below r_on, 0 above r_off, C2.

    OpenMM's switching function for Lennard-Jones is the same polynomial.

    Parameters
    ----------
    r : torch.Tensor, nm
    r_on, r_off : float
        In nm.
    """
    x = ((r - r_on) / (r_off - r_on)).clamp(0.0, 1.0)
    return 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))


def short_range_inverse(r: torch.Tensor, r_off: float) -> torch.Tensor:
    """1/r without its smooth tail: 1/r − g(r/a)/a for r < a = r_off, zero beyond, C3 (1/nm).

    g = (35 − 35p² + 21p⁴ − 5p⁶)/16 continues 1/p into the origin. The energy is split, not multiplied by a
    switch: f(r)/r would leave the force −f'(r)/r, several times the Coulomb force, inside the region.

    Parameters
    ----------
    r : torch.Tensor, nm
    r_off : float
        In nm.
    """
    square = (r / r_off).square()
    tail = (35.0 - square * (35.0 - square * (21.0 - 5.0 * square))) / (16.0 * r_off)
    return torch.where(r < r_off, 1.0 / r - tail, torch.zeros_like(r))


def lennard_jones(r: torch.Tensor, sigma: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """4 eps [(sigma/r)¹² − (sigma/r)⁶], kJ/mol for r and sigma in nm."""
    sixth = (sigma / r).square()
    sixth = sixth * sixth * sixth
    return 4.0 * epsilon * (sixth * sixth - sixth)


# `line` of the next two (nm⁴): the smallest square of a cross product that still spans a plane. TorchScript
# reads no constants of a module, hence arguments.
def bond_angles(arms: torch.Tensor, line: float = 1e-24) -> torch.Tensor:
    """Angle between two vectors, shape (A, 2, 3) -> (A,); the gradient stays finite on a line."""
    first, second = arms[:, 0], arms[:, 1]
    sine = torch.linalg.cross(first, second).square().sum(-1).clamp(min=line).sqrt()
    return torch.atan2(sine, (first * second).sum(-1))


def dihedral_angles(steps: torch.Tensor, line: float = 1e-24) -> torch.Tensor:
    """Dihedral of three consecutive bonds, shape (D, 3, 3) -> (D,) in (−pi, pi], IUPAC sign.

    On a line, where the angle is not defined, it is zero and its gradient stays finite.
    """
    left = torch.linalg.cross(steps[:, 0], steps[:, 1])
    right = torch.linalg.cross(steps[:, 1], steps[:, 2])
    # |b2| b1·(b2 × b3) is the sine and (b1 × b2)·(b2 × b3) the cosine, up to one common factor.
    sine = (steps[:, 0] * right).sum(-1) * steps[:, 1].square().sum(-1).clamp(min=line).sqrt()
    cosine = (left * right).sum(-1)
    flat = (left.square().sum(-1) < line) | (right.square().sum(-1) < line)
    return torch.atan2(sine, torch.where(flat, torch.ones_like(cosine), cosine))


def cubic_powers(x: torch.Tensor) -> torch.Tensor:
    """1, x, x², x³ along a new last axis."""
    return torch.stack([torch.ones_like(x), x, x * x, x * x * x], dim=-1)
