"""Loss of energies, forces and forces on point charges, for each member of a committee and each structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch

from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Targets
from mlmm.units import ANGSTROM, KILOCALORIE

__all__ = ["Predictions", "losses", "rows_of"]

_FORCE_UNIT = KILOCALORIE / ANGSTROM  # kcal/mol/Å in kJ/mol/nm: gradients of order one


class Predictions(NamedTuple):
    """Predictions of K members for some structures.

    Parameters
    ----------
    energies : torch.Tensor, shape (K, B), kJ/mol
    forces : torch.Tensor, shape (K, A, 3), kJ/mol/nm
        On the atoms of these structures, one structure after the other.
    external_forces : torch.Tensor, shape (K, M, 3), kJ/mol/nm, optional
        On the point charges around them.
    """

    energies: torch.Tensor
    forces: torch.Tensor
    external_forces: Optional[torch.Tensor] = None

    @staticmethod
    def joined(parts: Sequence[Predictions]) -> Predictions:
        """Put predictions of several batches one after the other."""
        outside = [part.external_forces for part in parts if part.external_forces is not None]
        return Predictions(
            torch.cat([part.energies for part in parts], dim=1),
            torch.cat([part.forces for part in parts], dim=1),
            torch.cat(outside, dim=1) if outside else None,
        )


def rows_of(begins: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of some structures in arrays of all, and to which of them each row belongs.

    Parameters
    ----------
    begins : torch.Tensor, shape (S + 1,), int64
        Where the rows of each structure begin.
    chosen : torch.Tensor, shape (B,), int64

    Returns
    -------
    rows, owner : torch.Tensor, int64
    """
    counts = begins[chosen + 1] - begins[chosen]
    owner = torch.repeat_interleave(torch.arange(len(chosen)), counts)
    inside = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    return begins[chosen][owner] + inside, owner


def losses(
    predictions: Predictions,
    targets: Targets,
    chosen: torch.Tensor,
    options: FitOptions,
    *,
    centred: bool = False,
) -> torch.Tensor:
    """w_E dE² + mean dF² + w_x mean dF_x² of each member and structure, (K, B), (kcal/mol/Å)².

    Parameters
    ----------
    predictions : Predictions
    targets : Targets
    chosen : torch.Tensor, shape (B,), int64
        Structures that were predicted.
    options : FitOptions
    centred : bool
        Remove the mean error of the energy of each member first.
    """
    device, dtype = predictions.energies.device, predictions.energies.dtype
    error = predictions.energies - targets.energies[chosen].to(device, dtype)
    if centred:
        error = error - error.mean(dim=1, keepdim=True)
    # Inverse areas are per nm² inside.
    found = options.energy_weight * (error / _FORCE_UNIT).square()
    found = found + _mean_square(predictions.forces, targets.forces, targets.atoms, chosen)
    if predictions.external_forces is not None and targets.external_forces is not None:
        assert targets.charges is not None
        outside = _mean_square(predictions.external_forces, targets.external_forces, targets.charges, chosen)
        found = found + options.external_weight * outside
    return found


def _mean_square(
    forces: torch.Tensor, wanted: torch.Tensor, begins: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Mean square error over the components of each structure, (K, B); zero where there is no label."""
    rows, owner = rows_of(begins, chosen)
    reference = wanted[rows].to(forces.device, forces.dtype)
    known = ~torch.isnan(reference)
    error = torch.where(known, forces - torch.nan_to_num(reference), torch.zeros_like(forces)) / _FORCE_UNIT
    owner = owner.to(forces.device)
    sums = torch.zeros(len(forces), len(chosen), dtype=forces.dtype, device=forces.device)
    sums = sums.index_add(1, owner, error.square().sum(dim=2))
    counts = torch.zeros(len(chosen), dtype=forces.dtype, device=forces.device)
    counts = counts.index_add(0, owner, known.sum(dim=1).to(forces.dtype))
    return sums / counts.clamp(min=1.0)
