"""One zero of energy for several models: a constant for each element, fitted in float64, kept with the model.

Two models whose isolated-atom energies are removed still differ by what their training calls an isolated
atom. Forces do not see it; a spread over models, and a molecule that changes its description, do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.base import AtomEnergies, PotentialModel, is_capturable, scriptable_module
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure

__all__ = ["AlignedPotential", "align_energies"]


class _Shifted(Module):
    """A bound model with a constant on each atom; TorchScript can compile it if it can compile the model."""

    def __init__(self, model: torch.nn.Module, shifts: torch.Tensor, bound: Sequence[int] | None):
        super().__init__()
        self.model = model
        self.capturable = is_capturable(model)
        self.shifts = torch.nn.Buffer(shifts)
        self.bound = torch.nn.Buffer(torch.tensor(range(len(shifts)) if bound is None else list(bound)))

    def forward(
        self, positions: torch.Tensor, cell: torch.Tensor | None, centres: torch.Tensor | None = None
    ) -> torch.Tensor:
        central = self.bound if centres is None else centres
        return self.model(positions, cell, centres) + self.shifts.index_select(0, central)


class AlignedPotential(ShortOfSpec):
    """A potential with a constant for each element added to its per-atom energies.

    Parameters
    ----------
    model : PotentialModel
    alignment : mapping of int to float
        By atomic number, kJ/mol; on top of an alignment that the model has.
    """

    def __init__(self, model: PotentialModel, alignment: Mapping[int, float]):
        missing = [SYMBOLS[z] for z in model.spec.elements if z not in alignment]
        if missing:
            raise PotentialError(
                f"an alignment for every element of {model.spec.name}",
                f"none for {' '.join(missing)}",
                "write 0.0 where none is known",
            )
        before = model.spec.alignment
        total = {z: float(alignment[z]) + before.get(z, 0.0) for z in model.spec.elements}
        self.model, self.alignment = model, {z: float(alignment[z]) for z in model.spec.elements}
        self.spec = dataclasses.replace(model.spec, alignment=total)
        self.device = getattr(model, "device", torch.device("cpu"))

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """As the model's, each atom with the constant of its element."""
        found = self.model.atom_energies(structure)
        shifts = self._shifts(structure.numbers.tolist()).to(found.energies.device)
        members = None if found.members is None else found.members + shifts
        return dataclasses.replace(found, energies=found.energies + shifts, members=members)

    @property
    def scriptable(self) -> Callable[..., torch.nn.Module] | None:
        """As the model's, or None."""
        factory = scriptable_module(self.model)
        if factory is None:
            return None

        def bind(numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
            return _Shifted(factory(numbers, centres), self._shifts(numbers), centres).to(self.device)

        return bind

    def _shifts(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor([self.alignment[int(z)] for z in numbers], dtype=torch.float64)


def align_energies(
    model: PotentialModel, reference: PotentialModel, structures: Sequence[Structure]
) -> AlignedPotential:
    """Shift a model's zero to that of another: least squares over structures of different composition.

    Parameters
    ----------
    model, reference : PotentialModel
    structures : sequence of Structure
        As many compositions as there are elements, or more; elements that do not occur keep their zero.

    Returns
    -------
    AlignedPotential

    Raises
    ------
    PotentialError
        No structures.
    """
    if not structures:
        raise PotentialError(
            "structures to align energies on", "none", "give molecules with all the elements"
        )
    elements = list(model.spec.elements)
    counts = torch.tensor(
        [[int((s.numbers == z).sum()) for z in elements] for s in structures], dtype=torch.float64
    )
    with torch.no_grad():
        differences = torch.stack(
            [
                reference.atom_energies(s).energies.sum() - model.atom_energies(s).energies.sum()
                for s in structures
            ]
        ).cpu()
    # The smallest solution: an element that does not occur gets none, those in a fixed ratio share.
    solution = torch.linalg.lstsq(counts, differences.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    return AlignedPotential(model, dict(zip(elements, solution.tolist(), strict=True)))
