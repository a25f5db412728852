"""Multipoles of atoms and their energy among point charges, for potentials that charges around polarise.

Energy of an atom's charge q, dipole mu and traceless quadrupole Q (half of a second moment) in the potential
phi of charges: q phi + mu·∇phi + Q:∇∇phi.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mlmm.units import COULOMB

__all__ = ["Multipoles", "multipoles_among_charges"]


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
