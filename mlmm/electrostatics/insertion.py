"""Flexible multipoles among fixed charges: what does not depend on how their potential is summed."""

from __future__ import annotations

from typing import Optional

import torch

from mlmm.electrostatics.boxes import images_of_region, is_cube
from mlmm.errors import EmbeddingError
from mlmm.modules import Module
from mlmm.potentials.multipoles import WIDEST_CHARGE, multipole_energies
from mlmm.units import COULOMB

__all__ = ["Insertion"]


class Insertion(Module):
    """Charges of a sum over the surroundings, and the energy of multipoles in their potential.

    A kind of sum has `potentials` and `own_energy`. TorchScript can compile it.

    Parameters
    ----------
    reference_charges : torch.Tensor, shape (n,), e
        q0 of the region's atoms in OpenMM.
    external_charges : torch.Tensor, shape (M,), e
        Of all other particles.
    cell : torch.Tensor, shape (3, 3), nm, optional
        Box when the sum is set up; None for an open system.
    width : float
        Standard deviation of Gaussian charges, nm; 0: points.

    Raises
    ------
    EmbeddingError
        Charges wider than a hydrogen bond allows, or of a width that is none.
    """

    def __init__(
        self,
        reference_charges: torch.Tensor,
        external_charges: torch.Tensor,
        cell: torch.Tensor | None,
        width: float,
    ):
        super().__init__()
        if not 0.0 <= width <= WIDEST_CHARGE:
            raise EmbeddingError(
                f"Gaussian charges between 0 (points) and {WIDEST_CHARGE:g} nm wide",
                f"{width:g} nm",
                'write charge_width = "0.03 nm"',
            )
        self.register_buffer("reference", reference_charges.to(torch.float64).clone())
        self.register_buffer("external", external_charges.to(torch.float64).clone())
        self.images = cell is not None and is_cube(cell)
        self.total, self.width, self.coulomb = float(self.reference.sum()), float(width), COULOMB

    def forward(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        charges: torch.Tensor,
        dipoles: torch.Tensor,
        quadrupoles: torch.Tensor,
        cell: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """Energy of each atom of the region beyond that of q0, kJ/mol (n,).

        Parameters
        ----------
        positions, external_positions : torch.Tensor, shapes (n, 3) and (M, 3), nm
        charges, dipoles, quadrupoles : torch.Tensor, shapes (n,), (n, 3), (n, 3, 3)
            e, e nm, e nm².
        cell : torch.Tensor, shape (3, 3), nm, optional
            Reduced form; None for an open system.
        """
        offset, potential, gradient, curvature = self.potentials(positions, external_positions, cell)
        energies = multipole_energies(charges, dipoles, quadrupoles, potential, gradient, curvature)
        return offset + energies + self.own_energy(positions, charges, dipoles, cell)

    def image_energy(
        self,
        positions: torch.Tensor,
        charges: torch.Tensor,
        dipoles: torch.Tensor,
        cell: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """E_images of the whole region in units of K; zero without a cubic box."""
        if cell is None or not self.images:
            return torch.zeros_like(charges).sum()
        return images_of_region(positions, charges, dipoles, self.reference, cell)
