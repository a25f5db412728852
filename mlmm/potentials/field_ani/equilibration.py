"""Charges by equilibration in an external potential, and the polarisability of atoms: the energy of a field.

    W = min over q, sum q = Q, of [sum (chi_i + phi_i) q_i + ½ sum A_ij q_i q_j] − sum alpha_i |∇phi_i|²/(2k),
    A_ij = k/sqrt(r_ij² + w_i² + w_j²),    A_ii = k/(sqrt(2) w_i) + J_i.

A is the Coulomb energy of smooth charge clouds of widths w and an excess hardness J ≥ 0, so that it is
positive definite at any geometry and the minimum is one. dW/dphi_i = q_i and dW/d∇phi_i = −alpha_i ∇phi_i/k,
the dipole of the atom. After Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991), doi 10.1021/j100161a070, with
electronegativities and hardnesses by networks as in Ko, Finkler, Goedecker, Behler, Nat. Commun. 12, 398
(2021), doi 10.1038/s41467-020-20427-2. Angstrom, kJ/mol, e.
"""

from __future__ import annotations

import torch

__all__ = ["equilibrate", "interaction_matrix"]


def interaction_matrix(
    square: torch.Tensor, widths: torch.Tensor, hardness: torch.Tensor, coulomb: float
) -> torch.Tensor:
    """A of structures (B, N, N), kJ/mol/e²; TorchScript can compile it.

    Parameters
    ----------
    square : torch.Tensor, shape (B, N, N)
        Squares of distances, angstrom²; zero on the diagonal.
    widths : torch.Tensor, shape (N,), angstrom
    hardness : torch.Tensor, shape (B, N), kJ/mol/e²
        J, not negative.
    coulomb : float
        k.
    """
    breadth = widths.square()
    smooth = coulomb * (square + breadth.unsqueeze(0) + breadth.unsqueeze(1)).rsqrt()
    return smooth + torch.diag_embed(hardness)


def equilibrate(matrix: torch.Tensor, slopes: torch.Tensor, total: float) -> torch.Tensor:
    """Charges q (B, N) that minimise slopes·q + ½ q A q with sum q = total; differentiable, also twice.

    Parameters
    ----------
    matrix : torch.Tensor, shape (B, N, N)
        A, positive definite.
    slopes : torch.Tensor, shape (B, N)
        chi + phi.
    total : float
        e.
    """
    # Two right-hand sides in one factorisation: q = u − v (sum u − total)/(sum v).
    sides = torch.stack([-slopes, torch.ones_like(slopes)], dim=2)
    found = torch.cholesky_solve(sides, torch.linalg.cholesky(matrix))
    u, v = found[:, :, 0], found[:, :, 1]
    return u - v * ((u.sum(1, keepdim=True) - total) / v.sum(1, keepdim=True))
