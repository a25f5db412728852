"""Reaction field instead of Ewald's sum: what flexible multipoles add to fixed charges, pair by pair.

As `mlmm.electrostatics.ewald_insertion`, with the potential of the charges within r_c, p = D/r_c,

    B0 = 1/D + (p²/2 + 3p⁴/8 − p⁶/4 − 13/8)/r_c,
    B1 = 1/D³ − (1 + 3p²/2 − 3p⁴/2)/r_c³,   B2 = 3/D⁵ + (3 − 6p²)/r_c⁵

of a conductor beyond r_c (Thürlemann et al., doi 10.1021/jacs.6c00217), B1 = −B0'/D and B2 = −B1'/D, all zero
at r_c. PME holds the fixed charges whole; what is cut off is the difference q − q0, which is neutral: its far
field in a solvent of permittivity eps is, to leading order,

    E_far = K (1 − 1/eps)/(2 r_c³) [Q Theta − 2 d_D·d],  d = sum(q r + mu), d_D = sum(Dq r + mu),

Theta as for the images: the energy with a solvent that the whole region polarises, as Ewald's sum has it in
the mean, not the free energy of polarising it. No k-sum, so that it is fast without a compiled kernel;
`tests/benchmarks/reaction_field.py` measures its error.
"""

from __future__ import annotations

import math
from typing import Optional

import torch

from mlmm.electrostatics.boxes import box_widths
from mlmm.electrostatics.insertion import Insertion
from mlmm.errors import EmbeddingError
from mlmm.potentials.multipoles import smeared_potentials, traceless
from mlmm.structures import minimum_image

__all__ = ["REACTION_FIELD_CUTOFF", "WATER_PERMITTIVITY", "ReactionFieldInsertion"]

#: nm.
REACTION_FIELD_CUTOFF = 1.2
#: Of water at 298 K; in the far term (1 − 1/eps) it could be any polar solvent.
WATER_PERMITTIVITY = 78.4


class ReactionFieldInsertion(Insertion):
    """Energy of flexible multipoles among fixed charges, beyond that of q0; TorchScript can compile it.

    Parameters
    ----------
    reference_charges : torch.Tensor, shape (n,), e
        q0 of the region's atoms in OpenMM.
    external_charges : torch.Tensor, shape (M,), e
        Of all other particles.
    cell : torch.Tensor, shape (3, 3), nm
        Box when it is set up.
    width : float
        Standard deviation of Gaussian charges, nm; 0: points.
    cutoff : float
        r_c, nm.
    permittivity : float
        eps around the whole region; 1: no far term.

    Raises
    ------
    EmbeddingError
        A cutoff beyond half of the box.
    """

    def __init__(
        self,
        reference_charges: torch.Tensor,
        external_charges: torch.Tensor,
        cell: torch.Tensor,
        width: float = 0.0,
        cutoff: float = REACTION_FIELD_CUTOFF,
        permittivity: float = WATER_PERMITTIVITY,
    ):
        super().__init__(reference_charges, external_charges, cell, width)
        half = 0.5 * float(box_widths(cell.to(torch.float64).cpu()).min())
        if not 0.0 < cutoff <= half:
            raise EmbeddingError(
                f"a box at least {2 * cutoff:.2f} nm wide, twice the range of the reaction field",
                f"{2 * half:.2f} nm",
                'set system.padding = "1.2 nm" or more, or write far_field = "ewald"',
            )
        self.range = float(cutoff)
        self.far = (1.0 - 1.0 / permittivity) / (2.0 * cutoff**3)
        self.reach = 6.0 * math.sqrt(2.0) * self.width

    @torch.jit.export
    def potentials(
        self, positions: torch.Tensor, external_positions: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `EwaldInsertion.potentials`."""
        if cell is not None and not float(box_widths(cell.detach()).min()) >= 2.0 * self.range:
            message = (
                f"Expected a box at least {2.0 * self.range} nm wide, twice the range of the reaction field, "
                'but got a smaller one. Build a larger box, or write far_field = "ewald".'
            )
            raise ValueError(message)
        # Detached, not under no_grad: TorchScript would share its subexpressions with what has a gradient.
        between = external_positions.detach().unsqueeze(0) - positions.detach().unsqueeze(1)
        near = (minimum_image(between, cell).square().sum(2) < self.range**2).nonzero()
        i, m = near[:, 0], near[:, 1]
        vectors = external_positions.index_select(0, m) - positions.index_select(0, i)
        vectors = minimum_image(vectors, cell)
        square = vectors.square().sum(1)
        inverse = square.rsqrt()
        p2 = square / self.range**2
        b0 = inverse + (p2 * (0.5 + p2 * (0.375 - 0.25 * p2)) - 1.625) / self.range
        b1 = inverse / square + (-1.0 + p2 * (1.5 * p2 - 1.5)) / self.range**3
        b2 = 3.0 * inverse / square.square() + (3.0 - 6.0 * p2) / self.range**5
        bare = b0
        if self.width > 0.0:
            f0, f1, f2 = smeared_potentials(math.sqrt(0.5) / self.width, square)
            close = square < self.reach**2
            b0 = torch.where(close, b0 - inverse + f0, b0)
            b1 = torch.where(close, b1 - inverse / square + f1, b1)
            b2 = torch.where(close, b2 - 3.0 * inverse / square.square() + f2, b2)
        strength, n = self.external.index_select(0, m), positions.shape[0]
        nothing = torch.zeros_like(positions)
        slopes = vectors * (strength * b1).unsqueeze(1)
        bends = (vectors * (strength * b2).unsqueeze(1)).unsqueeze(2) * vectors.unsqueeze(1)
        potential = nothing[:, 0].index_add(0, i, strength * b0)
        gradient = nothing.index_add(0, i, slopes)
        curvature = nothing.unsqueeze(2).expand(n, 3, 3).index_add(0, i, bends)
        # The fixed charges meet points in the force field.
        offset = -self.reference * nothing[:, 0].index_add(0, i, strength * bare)
        k = self.coulomb
        return k * offset, k * potential, k * gradient, k * traceless(curvature)

    @torch.jit.export
    def own_energy(
        self,
        positions: torch.Tensor,
        charges: torch.Tensor,
        dipoles: torch.Tensor,
        cell: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """Share of each atom in the energy with the region's images and with the solvent beyond r_c (n,)."""
        r = minimum_image(positions - positions[0], cell)
        excess = charges - self.reference
        d = (charges.unsqueeze(1) * r + dipoles).sum(0)
        change = (excess.unsqueeze(1) * r + dipoles).sum(0)
        theta = (excess * r.square().sum(1)).sum() + 2.0 * (dipoles * r).sum()
        energy = self.far * (self.total * theta - 2.0 * (change * d).sum())
        energy = energy + self.image_energy(positions, charges, dipoles, cell)
        return (self.coulomb * energy / charges.shape[0]).expand(charges.shape[0])
