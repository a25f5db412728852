"""The blend for zones that move: one model call on whatever has lambda > 0 now, forces of lambda included.

E = E_MM + sum_core Delta_i + sum_m [lambda_m (Delta_m − a) − G(lambda_m)], Delta = eps^ML − eps^MM,sr summed
over the atoms of a molecule, a its alignment. Automatic differentiation of this one scalar also gives the
force −(Delta_m − a − G') d lambda_m/dr, without which nothing is conserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch

from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.zones.compensation import CompensationEnergy

__all__ = ["AdaptiveBlend"]


class AdaptiveBlend(torch.nn.Module):
    """What is added to OpenMM's energy, kJ/mol; TorchScript can compile it if it can compile the model.

    Parameters
    ----------
    model : torch.nn.Module
        ``forward(positions, cell, centres) -> (members, C)`` on the visible atoms; see `zone_energies`.
    visible : sequence of int
        Atoms that the model sees, by their index in the system.
    core : sequence of int
        Atoms with lambda = 1 for good.
    molecules : sequence of sequence of int
    weights : torch.nn.Module
        ``forward(positions, cell) -> (M,)``: `AdaptiveWeights`, or `UniformWeights` in a calibration.
    short_range : ShortRangeEnergies
        Of core and molecules, in the order core first, then the molecules one after the other.
    full_pairs : FullPairs
        Pairs inside the core, which left OpenMM.
    compensation : CompensationEnergy
    """

    def __init__(
        self,
        model: torch.nn.Module,
        visible: Sequence[int],
        core: Sequence[int],
        molecules: Sequence[Sequence[int]],
        weights: torch.nn.Module,
        short_range: ShortRangeEnergies,
        full_pairs: FullPairs,
        compensation: CompensationEnergy,
    ):
        super().__init__()
        self.model, self.zone_weights, self.short_range = model, weights, short_range
        self.full_pairs, self.compensation = full_pairs, compensation
        # False leaves the force of lambda out: what an energy that is not conserved looks like, for checks.
        self.weight_forces = True
        flat = [*core, *(atom for molecule in molecules for atom in molecule)]
        owner = np.array(
            [-1] * len(core) + [m for m, atoms in enumerate(molecules) for _ in atoms], dtype=np.int64
        )
        place = np.zeros(max([*visible, *flat], default=-1) + 1, dtype=np.int64)
        place[list(visible)] = np.arange(len(visible))
        self.n_molecules = len(molecules)
        for name, array in (
            ("visible", np.array(visible, dtype=np.int64)),
            ("atoms", np.array(flat, dtype=np.int64)),
            ("owner", owner),
            ("place", place[flat]),
            ("seen", np.isin(flat, visible)),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        weights = self.zone_weights(positions, box)
        if not self.weight_forces:
            weights = weights.detach()
        lam = self._of_atoms(weights)
        slots, members = self.active_members(positions, box, weights)
        energy = (lam.index_select(0, slots) * members.mean(dim=0)).sum()
        slots, short = self.active_short(positions, box, weights)
        energy = energy - (lam.index_select(0, slots) * short).sum()
        energy = energy + self.compensation(weights).sum()
        return energy + self.full_pairs(positions, box).sum()

    def molecule_differences(
        self, positions: torch.Tensor, box: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """lambda_m and Delta_m (alignment included) of the molecules, (M,) each; Delta_m = 0 outside."""
        weights = self.zone_weights(positions, box)
        slots, members = self.active_members(positions, box, weights)
        # Slot 0 collects the core.
        sums = torch.zeros(self.n_molecules + 1, dtype=torch.float64, device=positions.device)
        sums = sums.index_add(0, self.owner.index_select(0, slots) + 1, members.mean(dim=0))
        slots, short = self.active_short(positions, box, weights)
        sums = sums.index_add(0, self.owner.index_select(0, slots) + 1, -short)
        return weights, sums[1:]

    def active_members(
        self, positions: torch.Tensor, box: Optional[torch.Tensor], weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slots of the atoms with lambda > 0, (A,), and their energies by each member, (members, A)."""
        slots = ((self._of_atoms(weights.detach()) > 0) & self.seen).nonzero().squeeze(1)
        members = self.model(positions.index_select(0, self.visible), box, self.place.index_select(0, slots))
        return slots, members

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """lambda times the energies of the atoms inside by each member, (members, A)."""
        weights = self.zone_weights(positions, box)
        slots, members = self.active_members(positions, box, weights)
        return members * self._of_atoms(weights).index_select(0, slots)

    @torch.jit.unused
    def real_zone(
        self, positions: torch.Tensor, box: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Visible atoms with lambda > 0 as `active_members` takes them, and their lambda, (A,) each."""
        weights = self.zone_weights(positions, box)
        if not self.weight_forces:
            weights = weights.detach()
        lam = self._of_atoms(weights)
        slots = ((lam.detach() > 0) & self.seen).nonzero().squeeze(1)
        return self.atoms.index_select(0, slots), lam.index_select(0, slots)

    def _of_atoms(self, weights: torch.Tensor) -> torch.Tensor:
        """lambda of every slot: the core's is 1, in front, where the owner −1 points to."""
        one = torch.ones(1, dtype=torch.float64, device=weights.device)
        return torch.cat([one, weights]).index_select(0, self.owner + 1)

    def active_short(
        self, positions: torch.Tensor, box: Optional[torch.Tensor], weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for eps^MM,sr, virtual sites included: slots and energies, (A,) each."""
        slots = (self._of_atoms(weights.detach()) > 0).nonzero().squeeze(1)
        active = self.atoms.index_select(0, slots)
        return slots, self.short_range(positions, box, active).index_select(0, slots)
