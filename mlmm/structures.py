"""A structure as a potential sees it: elements, positions, cell, charges around. Images and neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

import torch

from mlmm.elements import element_names
from mlmm.errors import PotentialError
from mlmm.short_repr import ShortRepr

__all__ = [
    "ExternalCharges",
    "Structure",
    "minimum_image",
    "near_squares",
    "neighbour_pairs",
    "possible_neighbours",
]


@dataclass(frozen=True, repr=False)
class ExternalCharges(ShortRepr):
    """Point charges of the surroundings, or Gaussian ones, in whose field a structure is.

    Parameters
    ----------
    positions : torch.Tensor, shape (M, 3), float64, nm
        May require gradients: the forces on the charges.
    charges : torch.Tensor, shape (M,), float64, e
    width : float
        Standard deviation of Gaussian charges, nm; 0: points.

    Raises
    ------
    PotentialError
        Shapes that do not belong together, or a negative width.
    """

    positions: torch.Tensor
    charges: torch.Tensor
    width: float = 0.0

    def __post_init__(self) -> None:
        if self.charges.ndim != 1 or self.positions.shape != (len(self.charges), 3):
            raise PotentialError(
                "external charges of shape (M,) and their positions of shape (M, 3)",
                f"{tuple(self.charges.shape)} and {tuple(self.positions.shape)}",
                "pass one charge for each position",
            )
        if not 0.0 <= self.width < float("inf"):
            raise PotentialError("a width of 0 nm (points) or more", f"{self.width} nm", "pass width=0.0")

    def __len__(self) -> int:
        return len(self.charges)

    def _summary(self) -> dict[str, str]:
        return {
            "charges": f"{len(self):,}",
            "sum": f"{float(self.charges.detach().sum()):+.3f} e",
            "width": f"{self.width:g} nm" if self.width else "points",
        }

    def to(self, device: torch.device | str) -> ExternalCharges:
        """The same on a device; gradients flow back."""
        return ExternalCharges(self.positions.to(device), self.charges.to(device), self.width)


@dataclass(frozen=True, repr=False)
class Structure(ShortRepr):
    """Atoms in space: the only thing that a potential sees.

    Parameters
    ----------
    numbers : torch.Tensor, shape (N,), int64
        Atomic numbers.
    positions : torch.Tensor, shape (N, 3), float64, nm
        May require gradients.
    cell : torch.Tensor, shape (3, 3), float64, nm, optional
        Box vectors in rows, in OpenMM's reduced (lower triangular) form; None for an open boundary.
    charge : int
        Net charge in units of e.
    spin : int
        Multiplicity, 1 for a closed shell.
    external : ExternalCharges, optional
        Charges around, whose Coulomb energy with the atoms is part of the energy; that of the charges among
        themselves is not. In a cell by their shortest images. A potential that cannot take them refuses them.

    Raises
    ------
    PotentialError
        Shapes that do not belong together, or a cell that is not lower triangular.
    """

    numbers: torch.Tensor
    positions: torch.Tensor
    cell: torch.Tensor | None = None
    charge: int = 0
    spin: int = 1
    external: ExternalCharges | None = None

    def _summary(self) -> dict[str, str]:
        kinds, counts = (x.tolist() for x in torch.unique(self.numbers, return_counts=True))
        return {
            "atoms": f"{len(self.numbers):,}",
            "elements": " ".join(
                f"{element_names([kind])}{count}" for kind, count in zip(kinds, counts, strict=True)
            ),
            "cell": "open" if self.cell is None else "periodic",
            "charge": f"{self.charge:+d} e" if self.charge else "0 e",
            "multiplicity": str(self.spin),
            "charges around": "" if self.external is None else f"{len(self.external):,}",
        }

    def __post_init__(self) -> None:
        n = len(self.numbers)
        if self.numbers.ndim != 1 or self.positions.shape != (n, 3):
            raise PotentialError(
                "numbers of shape (N,) and positions of shape (N, 3)",
                f"{tuple(self.numbers.shape)} and {tuple(self.positions.shape)}",
                "pass one atomic number and one position per atom",
            )
        if self.cell is not None:
            if self.cell.shape != (3, 3):
                raise PotentialError(
                    "a cell of shape (3, 3)",
                    str(tuple(self.cell.shape)),
                    "pass the three box vectors in rows",
                )
            if self.cell[0, 1] != 0 or self.cell[0, 2] != 0 or self.cell[1, 2] != 0:
                raise PotentialError(
                    "box vectors in reduced form, a = (ax, 0, 0), b = (bx, by, 0)",
                    str(self.cell.tolist()),
                    "rotate the structure, or reduce the vectors with openmm.app.internal.unitcell",
                )

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, device: torch.device | str) -> Structure:
        """The same on a device: gradients flow back, charge and spin stay; itself if it is there already."""
        outside = () if self.external is None else (self.external.positions, self.external.charges)
        tensors = (self.numbers, self.positions, self.cell, *outside)
        if all(t is None or t.device == torch.device(device) for t in tensors):
            return self
        return replace(
            self,
            numbers=self.numbers.to(device),
            positions=self.positions.to(device),
            cell=None if self.cell is None else self.cell.to(device),
            external=None if self.external is None else self.external.to(device),
        )


# The annotations of the functions below are what TorchScript can read.
def minimum_image(displacements: torch.Tensor, cell: Optional[torch.Tensor]) -> torch.Tensor:
    """Shortest periodic image of each displacement.

    Exact for every displacement whose shortest image is below half of the smallest box width (ax, by, cz):
    inside that radius the image is unique and the three reductions find it, also for a triclinic box.

    Parameters
    ----------
    displacements : torch.Tensor, shape (..., 3)
        In nm, as the cell.
    cell : torch.Tensor, shape (3, 3), optional
        Reduced box vectors in rows; None leaves the displacements as they are.
    """
    if cell is None:
        return displacements
    displacements = displacements - torch.round(displacements[..., 2:3] / cell[2, 2]) * cell[2]
    displacements = displacements - torch.round(displacements[..., 1:2] / cell[1, 1]) * cell[1]
    return displacements - torch.round(displacements[..., 0:1] / cell[0, 0]) * cell[0]


def neighbour_pairs(
    positions: torch.Tensor,
    cell: Optional[torch.Tensor],
    cutoff: float,
    centres: Optional[torch.Tensor] = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ordered pairs of different atoms closer than a cutoff, by minimum image.

    Parameters
    ----------
    positions : torch.Tensor, shape (N, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    cutoff : float
        In nm; below half of the smallest box width.
    centres : torch.Tensor, shape (C,), int64, optional
        Atoms whose neighbours are wanted, each once; every atom by default.

    Returns
    -------
    first : torch.Tensor, shape (P,), int64
        Places in `centres`; without `centres`, atoms. Sorted.
    second : torch.Tensor, shape (P,), int64
        Atoms; sorted for each centre. A pair of two centres stands twice, once from either side.
    displacements : torch.Tensor, shape (P, 3), nm
        From first to second, differentiable in the positions.
    """
    where = positions.detach()
    if centres is None:
        central = positions
        squared = _image_squares(where, where, cell)
        squared.fill_diagonal_(float("inf"))
        pairs = (squared < cutoff * cutoff).nonzero()
        first, second = pairs[:, 0], pairs[:, 1]
    else:
        central = positions.index_select(0, centres)
        points = central.detach()
        possible = possible_neighbours(where, points, cell, cutoff)
        squared = near_squares(
            where.index_select(0, possible), points, cell, possible.shape[0] < where.shape[0]
        )
        squared.scatter_(1, torch.searchsorted(possible, centres).unsqueeze(1), float("inf"))
        pairs = (squared < cutoff * cutoff).nonzero()
        first, second = pairs[:, 0], possible.index_select(0, pairs[:, 1])
    displacements = minimum_image(positions.index_select(0, second) - central.index_select(0, first), cell)
    return first, second, displacements


def near_squares(
    positions: torch.Tensor, centres: torch.Tensor, cell: Optional[torch.Tensor], in_block: bool
) -> torch.Tensor:
    """Squared distances of points (C, 3) to atoms (M, 3), (C, M), nm²; exact where they are neighbours.

    Parameters
    ----------
    positions, centres : torch.Tensor
        In nm, as the cell.
    cell : torch.Tensor, shape (3, 3), optional
    in_block : bool
        All atoms stand in the block of `possible_neighbours`: then each has one image there and every
        neighbour of a point is in it, so that no pair has to look for its own image.
    """
    if not in_block or centres.shape[0] == 0:
        return _image_squares(positions, centres, cell)
    middle = _middle(centres, cell)
    here, there = minimum_image(centres - middle, cell), minimum_image(positions - middle, cell)
    return torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist").square()


def _image_squares(
    positions: torch.Tensor, centres: torch.Tensor, cell: Optional[torch.Tensor]
) -> torch.Tensor:
    """The same by the nearest image of every pair."""
    # Coordinates as planes in memory: several times faster than triples for this largest array of all.
    separation = positions.t().contiguous().unsqueeze(1) - centres.t().contiguous().unsqueeze(2)
    return minimum_image(separation.permute(1, 2, 0), cell).square().sum(-1)


def _middle(centres: torch.Tensor, cell: Optional[torch.Tensor]) -> torch.Tensor:
    """Middle of the rectangular block around some points, (3,)."""
    offsets = minimum_image(centres - centres[0], cell)
    return centres[0] + 0.5 * (offsets.amin(dim=0) + offsets.amax(dim=0))


def possible_neighbours(
    positions: torch.Tensor, centres: torch.Tensor, cell: Optional[torch.Tensor], cutoff: float
) -> torch.Tensor:
    """Atoms in the rectangular block around some points that holds everything within a cutoff of them.

    Parameters
    ----------
    positions : torch.Tensor, shape (N, 3), nm
    centres : torch.Tensor, shape (C, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    cutoff : float
        nm.

    Returns
    -------
    torch.Tensor, shape (M,), int64
        Indices of atoms, sorted; of all atoms where the block is not smaller than the box.
    """
    if centres.shape[0] == 0:
        return torch.zeros(0, dtype=torch.int64, device=positions.device)
    offsets = minimum_image(centres - centres[0], cell)
    # Half a block, a little wider so that rounding loses nobody on its face.
    size = 0.5 * (offsets.amax(dim=0) - offsets.amin(dim=0)) + cutoff * (1.0 + 1e-9)
    # Not a number is not below anything: broken positions reach the model, which says so.
    below = torch.isfinite(size) if cell is None else size < 0.5 * torch.diagonal(cell)
    if not bool(below.all()):
        return torch.arange(positions.shape[0], device=positions.device)
    # An image inside half of the box on every axis is the one that `minimum_image` gives, in any cell.
    inside = minimum_image(positions - _middle(centres, cell), cell).abs() <= size
    return inside.all(dim=1).nonzero().squeeze(1)
