"""Functions of distance, angle and dihedral that a force field is made of, for torch and TorchScript."""

from __future__ import annotations

import torch

from mlmm.pair_formulas import inverse_tail, smooth_step

__all__ = [
    "bond_angles",
    "cubic_powers",
    "dihedral_angles",
    "short_range_inverse",
    "short_range_pair",
    "switching_function",
]


def switching_function(r: torch.Tensor, r_on: float, r_off: float) -> torch.Tensor:
    """f = 1 − `smooth_step`(x), x = (r − r_on)/(r_off − r_on): 1 below r_on, 0 above r_off, C2.

    OpenMM's switching function for Lennard-Jones is the same polynomial.

    Parameters
    ----------
    r : torch.Tensor, nm
    r_on, r_off : float
        In nm.
    """
    x = ((r - r_on) / (r_off - r_on)).clamp(0.0, 1.0)
    return 1.0 - smooth_step(x)


def short_range_inverse(r: torch.Tensor, r_off: float) -> torch.Tensor:
    """1/r without its smooth tail, 1/r − `inverse_tail`, for r < r_off; zero beyond, C3 (1/nm).

    The energy is split, not multiplied by a switching function: f(r)/r would leave the force −f'(r)/r,
    several times the Coulomb force, inside the region.

    Parameters
    ----------
    r : torch.Tensor, nm
    r_off : float
        In nm.
    """
    return torch.where(r < r_off, 1.0 / r - inverse_tail(r, r_off), torch.zeros_like(r))


def short_range_pair(
    r: torch.Tensor, wells: torch.Tensor, charge: torch.Tensor, r_on: float, r_off: float, coulomb: float
) -> torch.Tensor:
    """v_sr = f(r) V_LJ + K q q `short_range_inverse`: the part of a pair that a potential replaces, kJ/mol.

    Parameters
    ----------
    r : torch.Tensor, nm
    wells : torch.Tensor, kJ/mol
        V_LJ at r, with the force field's own switching function where it has one.
    charge : torch.Tensor
        Charge products, e².
    r_on, r_off : float
        Range of the switching function, nm.
    coulomb : float
        K, kJ/mol nm/e².
    """
    return wells * switching_function(r, r_on, r_off) + coulomb * charge * short_range_inverse(r, r_off)


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
