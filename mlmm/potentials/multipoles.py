"""Multipoles of atoms and their energy among point charges, for potentials that charges around polarise.

Energy of an atom's charge q, dipole mu and traceless quadrupole Q (half of a second moment) in the potential
phi of charges: q phi + mu·∇phi + Q:∇∇phi.

A charge may be a Gaussian of a small width instead of a point: erf(b r)/r, b = 1/(sqrt(2) width).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mlmm.units import COULOMB

__all__ = [
    "WIDEST_CHARGE",
    "Multipoles",
    "enclosed_share",
    "multipoles_among_charges",
    "smeared_potentials",
]

#: nm; wider Gaussian charges would blur hydrogen bonds, which are 0.16 nm long.
WIDEST_CHARGE = 0.05


@dataclass(frozen=True)
class Multipoles:
    """Charges, dipoles and quadrupoles of atoms.

    Parameters
    ----------
    charges : torch.Tensor, shape (N,), e
    dipoles : torch.Tensor, shape (N, 3), e nm
    quadrupoles : torch.Tensor, shape (N, 3, 3), e nm²
        Traceless, half of a second moment.
    """

    charges: torch.Tensor
    dipoles: torch.Tensor
    quadrupoles: torch.Tensor


def smeared_potentials(b: float, square: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """F0 = erf(b r)/r, F1 = −F0'/r and F2 = −F1'/r, smooth at r = 0; TorchScript can compile it.

    Parameters
    ----------
    b : float
        nm⁻¹.
    square : torch.Tensor
        r², nm².
    """
    if b == 0.0:
        nothing = torch.zeros_like(square)
        return nothing, nothing, nothing
    t = b * b * square
    small = t.clamp(max=1.5)
    scale = 2.0 * b / 3.141592653589793**0.5
    s0, s1, s2 = torch.zeros_like(t), torch.zeros_like(t), torch.zeros_like(t)
    term = torch.ones_like(t)
    # Up to t = 1.5 the last of 24 terms is 1.5^24/24! < 1e-19.
    for j in range(24):
        s0 = s0 + term / (2 * j + 1)
        s1 = s1 + term / (2 * j + 3)
        s2 = s2 + term / (2 * j + 5)
        term = term * small / (-(j + 1.0))
    # Far from the origin without the series, near it without the quotients: both are finite everywhere.
    far = square + (t < 1.5) * (1.5 / (b * b))
    distance = far.sqrt()
    gaussian = scale * torch.exp(-b * b * far)
    f0 = torch.erf(b * distance) / distance
    f1 = (f0 - gaussian) / far
    f2 = (3.0 * f1 - 2.0 * b * b * gaussian) / far
    inside = t < 1.5
    return (
        torch.where(inside, scale * s0, f0),
        torch.where(inside, 2.0 * b * b * scale * s1, f1),
        torch.where(inside, 4.0 * b**4 * scale * s2, f2),
    )


def enclosed_share(width: float, distance: torch.Tensor) -> torch.Tensor:
    """Share of a Gaussian charge within a distance of its centre; 1 for a point; TorchScript can compile it.

    Parameters
    ----------
    width : float
        Standard deviation, in the units of the distance; 0: a point.
    distance : torch.Tensor
    """
    if width == 0.0:
        return torch.ones_like(distance)
    x = distance * (0.5**0.5 / width)
    return torch.erf(x) - (2.0 / 3.141592653589793**0.5) * x * torch.exp(-x * x)


def multipoles_among_charges(
    charges: torch.Tensor,
    dipoles: torch.Tensor,
    quadrupoles: torch.Tensor,
    vectors: torch.Tensor,
    external_charges: torch.Tensor,
    coulomb: float = COULOMB,
) -> torch.Tensor:
    """Coulomb energy of each atom's multipoles with all point charges, without cutoff, kJ/mol (N,).

    Parameters
    ----------
    charges, dipoles, quadrupoles : torch.Tensor
        As in `Multipoles`.
    vectors : torch.Tensor, shape (N, M, 3), nm
        From the atom to the point charge.
    external_charges : torch.Tensor, shape (M,), e
    coulomb : float
        Coulomb's constant, kJ nm mol⁻¹ e⁻².
    """
    square = vectors.square().sum(2)
    inverse = square.rsqrt()
    along = torch.bmm(vectors, dipoles.unsqueeze(2)).squeeze(2)
    twice = (torch.bmm(vectors, quadrupoles) * vectors).sum(2)
    potential = charges.unsqueeze(1) * inverse + (along + 3.0 * twice / square) * inverse / square
    return coulomb * (potential @ external_charges)
