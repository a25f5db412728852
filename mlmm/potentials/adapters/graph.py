"""What adapters share: edges of a graph in the model's own units, and some atoms asked for among all.

A model of another package gets a list of edges with their vectors, so that minimum image and gradients are
the engine's own; its energies come back in kJ/mol, without isolated-atom energies, in float64.
"""

from __future__ import annotations

from typing import Optional

import torch

from mlmm.errors import PotentialError
from mlmm.structures import Structure, near_squares, neighbour_pairs, possible_neighbours
from mlmm.units import ANGSTROM, ELECTRONVOLT, HARTREE, KILOCALORIE

__all__ = ["ENERGY_UNITS", "LENGTH_UNITS", "check_finite", "edges", "within_reach"]

#: kJ/mol and nm per unit that a model may be written in.
ENERGY_UNITS = {"kJ/mol": 1.0, "eV": ELECTRONVOLT, "hartree": HARTREE, "kcal/mol": KILOCALORIE}
LENGTH_UNITS = {"nm": 1.0, "angstrom": ANGSTROM}


def edges(structure: Structure, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ordered pairs closer than a cutoff: centres (P,), neighbours (P,), vectors to them (P, 3), angstrom.

    Parameters
    ----------
    structure : Structure
    cutoff : float
        nm.
    """
    first, second, vectors = neighbour_pairs(structure.positions, structure.cell, cutoff)
    return first, second, vectors / ANGSTROM


def within_reach(
    positions: torch.Tensor, cell: Optional[torch.Tensor], centres: torch.Tensor, reach: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms within reach of some centres, sorted, and where the centres stand among them; TorchScript.

    Parameters
    ----------
    positions : torch.Tensor, shape (N, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    centres : torch.Tensor, shape (C,), int64
    reach : float
        nm.
    """
    where = positions.detach()
    points = where.index_select(0, centres)
    possible = possible_neighbours(where, points, cell, reach)
    squared = near_squares(where.index_select(0, possible), points, cell, possible.shape[0] < where.shape[0])
    near = (squared <= reach * reach).any(dim=0)
    seen = possible.index_select(0, near.nonzero().squeeze(1))
    return seen, torch.searchsorted(seen, centres)


def check_finite(module: torch.nn.Module, name: str) -> None:
    """Make sure that no weight is NaN or infinite (PotentialError)."""
    for label, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PotentialError(
                f"finite weights in {name}",
                f"NaN or infinity in {label}",
                "get the file again, or train anew",
            )
