"""Potential of charges at atoms, and the energy of the atoms' multipoles in it.

Energy of an atom's charge q, dipole mu and traceless quadrupole Q (half of a second moment) in the potential
phi of charges: q phi + mu·∇phi + Q:∇∇phi. Of ∇∇phi only the traceless part counts.

A charge may be a Gaussian of a small width instead of a point: erf(b r)/r, b = 1/(sqrt(2) width).
"""

from __future__ import annotations

import torch

from mlmm.units import COULOMB

__all__ = [
    "WIDEST_CHARGE",
    "enclosed_share",
    "multipole_energies",
    "potential_of_charges",
    "smeared_potentials",
    "traceless",
]

#: nm; wider Gaussian charges would blur hydrogen bonds, which are 0.16 nm long.
WIDEST_CHARGE = 0.05


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


def traceless(tensors: torch.Tensor) -> torch.Tensor:
    """Traceless part of tensors (N, 3, 3); TorchScript can compile it."""
    third = tensors.diagonal(dim1=1, dim2=2).sum(1) / 3.0
    return tensors - torch.diag_embed(third.unsqueeze(1).expand(-1, 3))


def potential_of_charges(
    vectors: torch.Tensor, charges: torch.Tensor, width: float = 0.0, coulomb: float = COULOMB
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Potential of charges at atoms, its gradient and the traceless part of its second derivatives.

    The plain sum over all pairs, without cutoff; TorchScript can compile it.

    Parameters
    ----------
    vectors : torch.Tensor, shape (N, M, 3), nm
        From the atom to the charge.
    charges : torch.Tensor, shape (M,), e
    width : float
        Standard deviation of Gaussian charges, nm; 0: points.
    coulomb : float
        Coulomb's constant, kJ nm mol⁻¹ e⁻².

    Returns
    -------
    potential, gradient, curvature : torch.Tensor, shapes (N,), (N, 3) and (N, 3, 3)
        kJ/mol/e and nm.
    """
    square = vectors.square().sum(2)
    if width > 0.0:
        f0, f1, f2 = smeared_potentials(0.5**0.5 / width, square)
    else:
        f0 = square.rsqrt()
        f1 = f0 / square
        f2 = 3.0 * f1 / square
    weighted = vectors * (f2 * charges).unsqueeze(2)
    curvature = torch.bmm(weighted.transpose(1, 2), vectors)
    gradient = (vectors * (f1 * charges).unsqueeze(2)).sum(1)
    return coulomb * (f0 @ charges), coulomb * gradient, coulomb * traceless(curvature)


def multipole_energies(
    charges: torch.Tensor,
    dipoles: torch.Tensor,
    quadrupoles: torch.Tensor,
    potential: torch.Tensor,
    gradient: torch.Tensor,
    curvature: torch.Tensor,
) -> torch.Tensor:
    """q phi + mu·∇phi + Q:∇∇phi of each atom, kJ/mol (N,); TorchScript can compile it."""
    energies = charges * potential + (dipoles * gradient).sum(1)
    return energies + (quadrupoles * curvature).flatten(1).sum(1)
