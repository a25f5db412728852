"""Ewald insertion: what a region's flexible multipoles add to fixed charges under PME, with all forces.

OpenMM's PME carries fixed charges q0 on the atoms of the region. Their flexible charges q, dipoles mu and
quadrupoles Q (traceless, half of a second moment) add

    E = K sum_i [(q_i − q0_i) Phi_i + mu_i·∇Phi_i + Q_i:∇∇Phi_i] + E_images,

Phi the potential of all other charges c of the periodic system, by Ewald's sum with a splitting of its own:

    E_direct = K sum_(i,m) c_m [Dq_i B0 + (mu_i·D) B1 + (D·Q_i·D) B2],    D = x_m − r_i, |D| < r_c,
    E_reciprocal = K (8 pi/V) sum_(half of k) exp(−k²/4a²)/k² Re[S_L* S_M],
    S_L = sum_i (Dq_i + i k·mu_i − k·Q_i·k) exp(i k·r_i),    S_M = sum_m c_m exp(i k·x_m).

There is no self term, since the two sets are disjoint, and no background, since the charges Dq add up to
zero. q0 drops out of the energy up to E_images, the region's interaction with its own images beyond that of
q0, to leading order in a cube: K (2 pi/3V) [Q Theta − (|d|² − |d0|²)], d = sum(q r + mu), d0 = sum q0 r,
Theta = sum(Dq r² + 2 mu·r). The energy is one function of the positions: charges that answer to the field are
differentiated with everything else, which is where truncated sums go wrong.
"""

from __future__ import annotations

import math

import torch
from scipy.special import erfcinv

from mlmm.errors import EmbeddingError
from mlmm.modules import Module
from mlmm.structures import minimum_image
from mlmm.units import COULOMB

__all__ = ["EwaldInsertion", "box_widths"]

#: Where the end of the direct sum is made smooth, as a share of its cutoff.
_TAPER = 0.9
_NARROWEST, _WIDEST = 1.2, 2.4  # nm; cutoff of the direct sum, if nothing else is said


def box_widths(cell: torch.Tensor) -> torch.Tensor:
    """Distances between opposite faces of a box in reduced form, nm (3,)."""
    volume = torch.linalg.det(cell)
    faces = torch.stack([torch.linalg.cross(cell[(k + 1) % 3], cell[(k + 2) % 3]) for k in range(3)])
    return volume / faces.norm(dim=1)


class EwaldInsertion(Module):
    """Energy of flexible multipoles among fixed charges of a periodic system, beyond that of q0.

    Parameters
    ----------
    reference_charges : torch.Tensor, shape (n,), e
        q0 of the region's atoms in OpenMM's PME.
    external_charges : torch.Tensor, shape (M,), e
        Of all other particles.
    cell : torch.Tensor, shape (3, 3), nm
        Box when the sum is set up; the same k-vectors go with a box that changes.
    tolerance : float
        erfc(a r_c), the relative error of the potential.
    cutoff : float, optional
        r_c, nm; between 1.2 and 2.4 nm by the width of the box, which balances both sums.

    Raises
    ------
    EmbeddingError
        A cutoff beyond half of the box, or a tolerance that is none.
    """

    def __init__(
        self,
        reference_charges: torch.Tensor,
        external_charges: torch.Tensor,
        cell: torch.Tensor,
        tolerance: float = 1e-4,
        cutoff: float | None = None,
    ):
        super().__init__()
        cell = cell.to(torch.float64).cpu()
        width = float(box_widths(cell).min())
        if cutoff is None:
            cutoff = min(max(0.4 * width, _NARROWEST), _WIDEST, 0.5 * width)
        if not 0.0 < cutoff <= 0.5 * width:
            raise EmbeddingError(
                f"a cutoff of the direct sum up to half of the box, {0.5 * width:.3g} nm",
                f"{cutoff:g} nm",
                "leave it out, or use a larger box",
            )
        if not 1e-12 < tolerance < 0.1:
            raise EmbeddingError(
                "a tolerance of the Ewald sum between 1e-12 and 0.1", f"{tolerance:g}", "write 1e-4"
            )
        s = float(erfcinv(tolerance))
        self.cutoff, self.alpha, self.tolerance = float(cutoff), s / cutoff, float(tolerance)
        self.register_buffer("reference", reference_charges.to(torch.float64).clone())
        self.register_buffer("external", external_charges.to(torch.float64).clone())
        self.register_buffer("triples", _half_space(cell, 2.0 * s * self.alpha))
        self.total = float(self.reference.sum())
        self.coulomb, self.taper, self.pi = COULOMB, _TAPER, math.pi
        lengths = torch.diagonal(cell)
        skewed = float((cell - torch.diag(lengths)).abs().max())
        self.images = skewed < 1e-6 and float(lengths.max() - lengths.min()) < 1e-3 * width

    def forward(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        charges: torch.Tensor,
        dipoles: torch.Tensor,
        quadrupoles: torch.Tensor,
        cell: torch.Tensor,
    ) -> torch.Tensor:
        """Energy of each atom of the region, kJ/mol (n,).

        Parameters
        ----------
        positions, external_positions : torch.Tensor, shapes (n, 3) and (M, 3), nm
        charges, dipoles, quadrupoles : torch.Tensor, shapes (n,), (n, 3), (n, 3, 3)
            e, e nm, e nm².
        cell : torch.Tensor, shape (3, 3), nm
            Reduced form.
        """
        excess = charges - self.reference
        direct = self._direct(positions, external_positions, excess, dipoles, quadrupoles, cell)
        reciprocal = self._reciprocal(positions, external_positions, excess, dipoles, quadrupoles, cell)
        energies = self.coulomb * (direct + reciprocal)
        if self.images:
            own = self._images(positions, charges, excess, dipoles, cell)
            energies = energies + self.coulomb * own / charges.shape[0]
        return energies

    def _direct(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        excess: torch.Tensor,
        dipoles: torch.Tensor,
        quadrupoles: torch.Tensor,
        cell: torch.Tensor,
    ) -> torch.Tensor:
        """Screened part, pair by pair within the cutoff, in units of K."""
        with torch.no_grad():
            between = external_positions.unsqueeze(0) - positions.unsqueeze(1)
            near = (minimum_image(between, cell).square().sum(2) < self.cutoff**2).nonzero()
        i, m = near[:, 0], near[:, 1]
        vectors = external_positions.index_select(0, m) - positions.index_select(0, i)
        vectors = minimum_image(vectors, cell)
        square = vectors.square().sum(1)
        distance = square.sqrt()
        a = self.alpha
        gaussian = (2.0 * a / math.sqrt(self.pi)) * torch.exp(-(a * a) * square)
        b0 = torch.erfc(a * distance) / distance
        b1 = (b0 + gaussian) / square
        b2 = (3.0 * b1 + 2.0 * a * a * gaussian) / square
        along = (dipoles.index_select(0, i) * vectors).sum(1)
        twice = torch.bmm(quadrupoles.index_select(0, i), vectors.unsqueeze(2)).squeeze(2)
        twice = (twice * vectors).sum(1)
        pair = excess.index_select(0, i) * b0 + along * b1 + twice * b2
        # What is left at the cutoff is of the size of the tolerance; it ends smoothly all the same.
        t = ((distance / self.cutoff - self.taper) / (1.0 - self.taper)).clamp(0.0, 1.0)
        pair = pair * (1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t)))
        pair = pair * self.external.index_select(0, m)
        return torch.zeros_like(excess).index_add(0, i, pair)

    def _reciprocal(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        excess: torch.Tensor,
        dipoles: torch.Tensor,
        quadrupoles: torch.Tensor,
        cell: torch.Tensor,
    ) -> torch.Tensor:
        """Smooth part, in units of K."""
        vectors = 2.0 * self.pi * self.triples @ torch.linalg.inv(cell).t()
        square = vectors.square().sum(1)
        strength = torch.exp(-square / (4.0 * self.alpha**2)) / square
        strength = strength * (8.0 * self.pi / torch.linalg.det(cell))
        phases = external_positions @ vectors.t()
        real = self.external @ torch.cos(phases)
        imaginary = self.external @ torch.sin(phases)
        own = positions @ vectors.t()
        cosine, sine = torch.cos(own), torch.sin(own)
        even = excess.unsqueeze(1) - ((quadrupoles @ vectors.t()) * vectors.t()).sum(1)
        odd = dipoles @ vectors.t()
        of_real = even * cosine - odd * sine
        of_imaginary = even * sine + odd * cosine
        return of_real @ (strength * real) + of_imaginary @ (strength * imaginary)

    def _images(
        self,
        positions: torch.Tensor,
        charges: torch.Tensor,
        excess: torch.Tensor,
        dipoles: torch.Tensor,
        cell: torch.Tensor,
    ) -> torch.Tensor:
        """The region with its own images, beyond that of the reference charges; in units of K."""
        r = minimum_image(positions - positions[0], cell)
        d = (charges.unsqueeze(1) * r + dipoles).sum(0)
        d0 = (self.reference.unsqueeze(1) * r).sum(0)
        theta = (excess * r.square().sum(1)).sum() + 2.0 * (dipoles * r).sum()
        factor = 2.0 * self.pi / (3.0 * torch.linalg.det(cell))
        return factor * (self.total * theta - (d.square().sum() - d0.square().sum()))


def _half_space(cell: torch.Tensor, largest: float) -> torch.Tensor:
    """Integers n (K, 3) of the reciprocal vectors 2 pi H⁻¹ n up to a length, one of each pair ±n."""
    counts = [int(largest / (2.0 * math.pi) * float(length)) + 1 for length in cell.norm(dim=1)]
    axes = [torch.arange(-count, count + 1, dtype=torch.float64) for count in counts]
    grid = torch.cartesian_prod(*axes)
    lengths = (2.0 * math.pi * grid @ torch.linalg.inv(cell).t()).norm(dim=1)
    first = grid[:, 0] * 1e8 + grid[:, 1] * 1e4 + grid[:, 2]
    return grid[(lengths <= largest) & (first > 0)].contiguous()
