"""Electrostatic embedding: a region's potential in the field of all charges of the force field around it.

Either the model sees the charges within its own range of polarisation, and its multipoles meet the potential
of all of them; or it takes this potential and its derivatives and finds its own charges in it. The potential
is that of Ewald insertion under PME, the plain sum in an open system. Lennard-Jones between the region
and its surroundings, and everything among the surroundings, stay with the force field. The charges are
Gaussians of a small width, so that one without a repulsive wall cannot fall onto an atom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Optional

import numpy as np
import torch

from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.electrostatics.insertion import Insertion
from mlmm.electrostatics.reaction_field import WATER_PERMITTIVITY, ReactionFieldInsertion
from mlmm.errors import EmbeddingError
from mlmm.modules import Module
from mlmm.structures import minimum_image

__all__ = ["CHARGE_WIDTH", "EmbeddedRegion"]

#: nm; at 0.16 nm, a hydrogen bond, the potential is that of a point to 1e-7.
CHARGE_WIDTH = 0.03


class EmbeddedRegion(Module):
    """Energy of a region in the field of its surroundings, beyond that of its fixed charges, kJ/mol.

    TorchScript can compile it if it can compile the model.

    Parameters
    ----------
    model : torch.nn.Module
        With ``in_field`` or, where `polarisation_range` is 0, with ``in_potential``; see
        `mlmm.potentials.base.PotentialModel`.
    atoms : sequence of int
        The region.
    charges : ndarray, shape (N,), e
        Of all particles of the system in the force field: q0 of the region, and the charges around it.
    polarisation_range : float
        nm; charges beyond it do not enter the model. 0 for one that takes the potential.
    charge : int
        Of the region, e.
    cell : torch.Tensor, shape (3, 3), nm, optional
        Box when it is set up; None for an open system.
    tolerance : float
        Of the Ewald sum.
    charge_width : float
        Standard deviation of the Gaussian charges around the region, nm; 0: points.
    far_field : {"ewald", "reaction_field"}
        How charges beyond some distance are taken in a box.
    far_permittivity : float
        Of the medium beyond a reaction field.

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
        charge_width: float = CHARGE_WIDTH,
        far_field: str = "ewald",
        far_permittivity: float = WATER_PERMITTIVITY,
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
        self.register_buffer("atoms", torch.tensor([int(atom) for atom in atoms]))
        self.register_buffer("outside", outside)
        self.register_buffer("charges", every[outside])
        self.register_buffer("reference", reference)
        self.periodic = cell is not None
        insertion: Insertion
        if far_field == "reaction_field" and cell is not None:
            insertion = ReactionFieldInsertion(
                reference, self.charges, cell, charge_width, permittivity=far_permittivity
            )
        else:
            insertion = EwaldInsertion(reference, self.charges, cell, tolerance, width=charge_width)
        if polarisation_range > 0.0:
            self.field: Module = _AmongCharges(model, insertion, polarisation_range, charge_width)
        else:
            self.field = _InPotential(model, insertion)

    __jit_unused_properties__: ClassVar[list[str]] = ["insertion"]

    @property
    def insertion(self) -> Insertion:
        """The sum over all charges."""
        insertion: Insertion = self.field.insertion
        return insertion

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.members(positions, box).mean(0).sum()

    def members(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """Energy of each atom of the region by each member, (K, n)."""
        where = positions.to(self.charges.device, torch.float64)
        cell: Optional[torch.Tensor] = None
        if box is not None and self.periodic:
            cell = box.to(self.charges.device, torch.float64)
        return self.field(where.index_select(0, self.atoms), where.index_select(0, self.outside), cell)

    @torch.jit.unused
    def multipoles(
        self, positions: torch.Tensor, box: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Charges (n,), dipoles (n, 3) and quadrupoles (n, 3, 3) of the region in the field, e and nm."""
        cell = box if self.periodic else None
        region, sources = positions.index_select(0, self.atoms), positions.index_select(0, self.outside)
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self.field.in_surroundings(
            region, sources, cell
        )[1:]
        return found

    @property
    def visible(self) -> torch.Tensor:
        """Atoms whose energies the model gives."""
        return self.atoms

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """As `members`."""
        return self.members(positions, box)


class _AmongCharges(Module):
    """A model that sees charges: energies (K, n) of a region among them."""

    def __init__(self, model: Module, insertion: Insertion, reach: float, charge_width: float):
        super().__init__()
        self.model, self.insertion = model, insertion
        self.range, self.charge_width = float(reach), float(charge_width)

    def forward(
        self, region: torch.Tensor, sources: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> torch.Tensor:
        energies, charges, dipoles, quadrupoles = self.in_surroundings(region, sources, cell)
        return energies + self.insertion(region, sources, charges, dipoles, quadrupoles, cell)

    @torch.jit.export
    def in_surroundings(
        self, region: torch.Tensor, sources: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energies without Coulomb's law with the charges, and multipoles."""
        near = self._near(region.detach(), sources.detach(), cell)
        energies, charges, dipoles, quadrupoles = self.model.in_field(
            region,
            cell,
            sources.index_select(0, near),
            self.insertion.external.index_select(0, near),
            self.charge_width,
        )
        return energies, charges, dipoles, quadrupoles

    def _near(
        self, region: torch.Tensor, sources: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """Sources that the model may see: those within its range of some atom, and some more."""
        extent = float(minimum_image(region - region[0], cell).square().sum(1).max().sqrt())
        if cell is not None:
            smallest = float(torch.diagonal(cell).min())
            if not smallest >= 2.0 * self.range:
                message = (
                    f"Expected a box at least {2.0 * self.range} nm wide, twice the range of polarisation, "
                    f"but got {smallest} nm. Build a larger box, or run without a barostat."
                )
                raise ValueError(message)
            if not 2.0 * (self.range + extent) < smallest:
                # An image is the shortest only up to half of the box.
                return torch.arange(sources.shape[0], device=sources.device)
        square = minimum_image(sources - region[0], cell).square().sum(1)
        return (square < (self.range + extent) ** 2).nonzero().squeeze(1)


class _InPotential(Module):
    """A model that takes the potential of the charges: energies (K, n) of a region in it."""

    def __init__(self, model: Module, insertion: Insertion):
        super().__init__()
        self.model, self.insertion = model, insertion

    def forward(
        self, region: torch.Tensor, sources: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> torch.Tensor:
        energies, charges, dipoles, _ = self.in_surroundings(region, sources, cell)
        return energies + self.insertion.own_energy(region, charges, dipoles, cell)

    @torch.jit.export
    def in_surroundings(
        self, region: torch.Tensor, sources: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energies beyond those of the fixed charges, but for images of the region, and multipoles."""
        offset, potential, gradient, curvature = self.insertion.potentials(region, sources, cell)
        energies, charges, dipoles, quadrupoles = self.model.in_potential(
            region, cell, potential, gradient, curvature
        )
        return energies + offset, charges, dipoles, quadrupoles
