"""Per-atom energies of the model weighted by lambda, and what the force field gives up for them in torch.

E = E_MM,full + sum_i lambda_i (eps_i^ML − eps_i^MM,sr). The force field keeps everything beyond the range of
the model. Where its part is not compiled into OpenMM, it is subtracted here; pairs inside the zone, which
OpenMM then does not evaluate at all, are added back in float64, so that two large numbers never cancel in
single precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch

from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.replaced_terms import ReplacedTerms
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.modules import Module
from mlmm.potentials.base import PotentialModel, is_capturable, scriptable_module
from mlmm.structures import Structure, minimum_image

__all__ = ["PerAtomBlend", "Subtraction", "WeightedModel", "zone_energies"]


class WeightedModel(Module):
    """sum_i lambda_i eps_i^ML, kJ/mol: all that is left to torch where the force field is compiled.

    TorchScript can compile it if it can compile the model.

    Parameters
    ----------
    model : torch.nn.Module
        ``forward(positions, cell) -> (members, S)``: energies of the zone's atoms from the positions of all
        visible ones; see `zone_energies`.
    visible : sequence of int
        Atoms that the model sees, by their index in the system.
    weights : sequence of float
        lambda of the zone's atoms, S of them.
    """

    def __init__(self, model: torch.nn.Module, visible: Sequence[int], weights: Sequence[float]):
        super().__init__()
        self.model = model
        self.capturable = is_capturable(model)
        self.register_buffer("visible", torch.tensor(list(visible)))
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.contributions(positions, box).mean(dim=0).sum()

    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """lambda times the energies of the zone's atoms by each member, (members, S)."""
        return self.model(positions.index_select(0, self.visible), box) * self.weights


class PerAtomBlend(Module):
    """sum_i lambda_i (eps_i^ML − eps_i^MM,sr) and pairs inside the zone, kJ/mol: the route by subtraction.

    TorchScript can compile it if it can compile the model.

    Parameters
    ----------
    model : torch.nn.Module
        ``forward(positions, cell) -> (members, C)``: energies of the zone's real atoms from the positions of
        all visible ones; see `zone_energies`.
    visible : sequence of int
        Atoms that the model sees, by their index in the system.
    weights : sequence of float
        lambda of the zone's atoms, virtual sites included, S of them.
    places : sequence of int
        Where the real atoms stand among those, C of them.
    short_range : ShortRangeEnergies
        Of the zone's atoms in the order of `weights`.
    full_pairs : FullPairs
        Pairs inside the zone, which left OpenMM.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        visible: Sequence[int],
        weights: Sequence[float],
        places: Sequence[int],
        short_range: ShortRangeEnergies,
        full_pairs: FullPairs,
    ):
        super().__init__()
        self.model = model
        self.short_range = short_range
        self.full_pairs = full_pairs
        self.register_buffer("visible", torch.tensor(list(visible)))
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64))
        self.register_buffer("places", torch.tensor(list(places), dtype=torch.int64))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        blended = (self.weights * self.differences(positions, box)).sum()
        return blended + self.full_pairs(positions, box).sum()

    def differences(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """Delta_i = eps_i^ML − eps_i^MM,sr of the zone's atoms, (S,), mean over the members."""
        energies = self.model(positions.index_select(0, self.visible), box).mean(dim=0)
        return (-self.short_range(positions, box)).index_add(0, self.places, energies)

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """lambda times the energies of the zone's real atoms by each member, (members, C)."""
        energies = self.model(positions.index_select(0, self.visible), box)
        return energies * self.weights.index_select(0, self.places)


class Subtraction(Module):
    """Any energy of the model, less what it takes over from the force field: the route by subtraction.

    Parameters
    ----------
    added : torch.nn.Module
        ``forward(positions, box) -> energy`` with ``contributions``, such as `WeightedModel`.
    full_pairs : FullPairs
        Pairs that left OpenMM.
    replaced_terms : ReplacedTerms
    """

    def __init__(self, added: Module, full_pairs: FullPairs, replaced_terms: ReplacedTerms):
        super().__init__()
        self.added, self.full_pairs, self.replaced_terms = added, full_pairs, replaced_terms

    @property
    def visible(self) -> torch.Tensor:
        """Atoms that the model sees."""
        return self.added.visible

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        taken = self.replaced_terms(positions, box)
        return self.added(positions, box) + self.full_pairs(positions, box).sum() - taken

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """As `WeightedModel.contributions`."""
        return self.added.contributions(positions, box)


class _VisibleEnergies(Module):
    """A model without TorchScript form, asked for the zone's atoms among all within its reach.

    With `keeps_charges`, `charges` holds what it predicted for those atoms at the last call.
    """

    def __init__(self, model: PotentialModel, numbers: Sequence[int], centres: Sequence[int]):
        super().__init__()
        self.potential, self.reach = model, float(model.spec.receptive_field)
        self.keeps_charges = False
        self.charges: torch.Tensor | None = None
        self.register_buffer("numbers", torch.tensor(list(numbers)))
        self.register_buffer("centres", torch.tensor(list(centres)))

    def forward(
        self, positions: torch.Tensor, cell: torch.Tensor | None, centres: torch.Tensor | None = None
    ) -> torch.Tensor:
        where = positions.detach()
        central = self.centres if centres is None else centres
        separation = minimum_image(where.unsqueeze(0) - where[central].unsqueeze(1), cell)
        seen = (separation.square().sum(-1) <= self.reach**2).any(dim=0).nonzero().squeeze(1)
        place = torch.searchsorted(seen, central)
        result = self.potential.atom_energies(Structure(self.numbers[seen], positions[seen], cell))
        if self.keeps_charges:
            self.charges = None if result.charges is None else result.charges[place]
        members = result.energies.unsqueeze(0) if result.members is None else result.members
        return members[:, place]


def zone_energies(
    model: PotentialModel, numbers: Sequence[int], centres: Sequence[int] | None = None
) -> torch.nn.Module:
    """The model as a module ``forward(positions, cell, centres=None) -> (members, centres)``.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int
        Atomic numbers of the visible atoms.
    centres : sequence of int, optional
        Places among them of the atoms whose energies are wanted; without, they are given at every call.
    """
    scriptable = scriptable_module(model)
    if scriptable is not None:
        return scriptable(list(numbers), None if centres is None else list(centres))
    return _VisibleEnergies(model, numbers, range(len(numbers)) if centres is None else centres)
