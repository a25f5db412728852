"""Electrostatic embedding: a region's potential in the field of all charges of the force field around it.

The model sees the point charges within its own range of polarisation, and its multipoles meet the potential
of all of them: under PME by Ewald insertion, in an open system by the plain sum. Lennard-Jones between the
region and its surroundings, and everything among the surroundings, stay with the force field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch

from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.errors import EmbeddingError
from mlmm.modules import Module
from mlmm.potentials.multipoles import multipoles_among_charges
from mlmm.structures import minimum_image

__all__ = ["EmbeddedRegion"]


class EmbeddedRegion(Module):
    """Energy of a region in the field of its surroundings, beyond that of its fixed charges, kJ/mol.

    TorchScript can compile it if it can compile the model.

    Parameters
    ----------
    model : torch.nn.Module
        ``in_field(positions, cell, external_positions, external_charges)`` -> energies (n,) without Coulomb's
        law between region and charges, charges (n,), dipoles (n, 3) and quadrupoles (n, 3, 3) in nm and e.
    atoms : sequence of int
        The region.
    charges : ndarray, shape (N,), e
        Of all particles of the system in the force field: q0 of the region, and the charges around it.
    polarisation_range : float
        nm; charges beyond it do not enter the model.
    charge : int
        Of the region, e.
    cell : torch.Tensor, shape (3, 3), nm, optional
        Box when it is set up; None for an open system.
    tolerance : float
        Of the Ewald sum.

    Raises
    ------
    EmbeddingError
        Fixed charges of the region that do not add up to its charge.
    """

    def __init__(
        self,
        model: Module,
        atoms: Sequence[int],
        charges: np.ndarray,
        polarisation_range: float,
        charge: int,
        cell: torch.Tensor | None = None,
        *,
        tolerance: float = 1e-4,
    ):
        super().__init__()
        every = torch.tensor(np.asarray(charges, dtype=np.float64))
        reference = every[list(atoms)]
        if abs(float(reference.sum()) - charge) > 1e-4:
            raise EmbeddingError(
                f"fixed charges of the region that add up to its charge, {charge:+d} e",
                f"{float(reference.sum()):+.4f} e",
                "select whole molecules without charged virtual sites, or correct the charge of the region",
            )
        # Charges of a force field are rounded to some digits; the sum of q − q0 has to vanish exactly.
        reference = reference - (reference.sum() - charge) / len(reference)
        every[list(atoms)] = 0.0
        outside = every.nonzero().squeeze(1)
        self.model = model
        self.register_buffer("atoms", torch.tensor([int(atom) for atom in atoms]))
        self.register_buffer("outside", outside)
        self.register_buffer("charges", every[outside])
        self.register_buffer("reference", reference)
        self.range = float(polarisation_range)
        self.periodic = cell is not None
        box = torch.eye(3, dtype=torch.float64) if cell is None else cell
        sources = self.charges if cell is not None else self.charges[:0]
        # An open system has no Ewald sum; the module is there for TorchScript and never called.
        self.insertion = EwaldInsertion(
            reference, sources, box if cell is not None else 10.0 * box, tolerance
        )

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.members(positions, box).sum()

    def members(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """Energy of each atom of the region, (1, n)."""
        where = positions.to(self.charges.device, torch.float64)
        cell: Optional[torch.Tensor] = None
        if box is not None and self.periodic:
            cell = box.to(self.charges.device, torch.float64)
        region, sources = where.index_select(0, self.atoms), where.index_select(0, self.outside)
        with torch.no_grad():
            between = minimum_image(sources.unsqueeze(0) - region.unsqueeze(1), cell)
            near = (between.square().sum(2).amin(0) < self.range**2).nonzero().squeeze(1)
        energies, charges, dipoles, quadrupoles = self.model.in_field(
            region, cell, sources.index_select(0, near), self.charges.index_select(0, near)
        )
        if cell is not None:
            outer = self.insertion(region, sources, charges, dipoles, quadrupoles, cell)
        else:
            # In the force field the region's fixed charges meet those around: their part is taken out here.
            vectors = sources.unsqueeze(0) - region.unsqueeze(1)
            excess = charges - self.reference
            outer = multipoles_among_charges(excess, dipoles, quadrupoles, vectors, self.charges)
        return (energies + outer).unsqueeze(0)

    @property
    def visible(self) -> torch.Tensor:
        """Atoms whose energies the model gives."""
        return self.atoms

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """As `members`."""
        return self.members(positions, box)
