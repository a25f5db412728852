"""What a potential takes over from the force field, by subtraction: sum_t W_t f_t V_t in torch, float64."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch

from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.errors import EmbeddingError
from mlmm.term_weights import cmap_shares

if TYPE_CHECKING:
    from mlmm.forcefield.tables import MMTables
    from mlmm.term_weights import Ownership

__all__ = ["HandedOver"]

# nm; a handover beyond every distance: f = 1, and of Coulomb's tail less than 1e-12 kJ/mol is left.
_EVERYWHERE = (1e15, 2e15)


class HandedOver(torch.nn.Module):
    """Energy that leaves the force field for any static ownership, kJ/mol.

    With the pairs inside the zone emptied in OpenMM (`embed_local`) and restored by `CorePairs`,
    E = E_MM + E(CorePairs) − E(HandedOver) holds for every scheme: the route by subtraction to the energy
    that `embed_compiled` writes into OpenMM parameters.

    Parameters
    ----------
    tables : MMTables
    ownership : Ownership
        Scheme, weights and visible atoms; virtual sites among these count.
    wrap : bool
        See `ShortRangeEnergies`.

    Raises
    ------
    EmbeddingError
        A scheme with pairs and without a handover, or what `ShortRangeEnergies` refuses.
    """

    def __init__(self, tables: MMTables, ownership: Ownership, *, wrap: bool = False):
        super().__init__()
        self.rule = ownership.rules[2]
        handover = ownership.handover
        if self.rule == "none":
            # Only terms with fixed atoms: the cutoff of other pairs does not limit the range of 1-4 pairs.
            handover, tables = _EVERYWHERE, dataclasses.replace(tables, cutoff=math.inf)
        if handover is None:
            raise EmbeddingError(
                f"a handover (r_on, r_off) for the pairs of scheme {ownership.scheme!r}",
                "none",
                "pass distances, or use embed_intra for whole molecules and pairs at every distance",
            )
        visible = ownership.visible
        self.short_range = ShortRangeEnergies(tables, ownership.active, visible, *handover, wrap=wrap)
        touched = visible & False
        touched[ownership.active] = True

        def chosen(atoms: np.ndarray) -> np.ndarray:
            return atoms[visible[atoms].all(axis=1) & touched[atoms].any(axis=1)]

        alive = (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
        bonded = (tables.bond_atoms, tables.angle_atoms, tables.torsion_atoms, tables.rb_atoms)
        fractions = [ownership.bonded(chosen(atoms)) for atoms in bonded]
        cmaps = chosen(tables.cmap_atoms)
        fractions.append(ownership.bonded(cmaps, cmap_shares(cmaps)))
        fractions.append(ownership.one_four(chosen(tables.exception_atoms[alive])))
        members = np.zeros((len(ownership.levels), tables.n_atoms), dtype=bool)
        for row, level in zip(members, ownership.levels, strict=True):
            row[list(level.atoms)] = True
        self.nested = len(ownership.levels) > 0
        self.register_buffer("fractions", torch.from_numpy(np.concatenate(fractions)))
        self.register_buffer("weights", torch.from_numpy(np.array(ownership.weights, dtype=np.float64)))
        self.register_buffer("members", torch.from_numpy(members))
        steps = torch.tensor([level.weight for level in ownership.levels], dtype=torch.float64)
        self.register_buffer("level_weights", steps)

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """sum_t W_t f_t V_t; arguments as in `ShortRangeEnergies.forward`, the result a scalar."""
        positions = positions.to(torch.float64)
        total = (self.fractions * self.short_range.fixed_energies(positions, cell)).sum()
        if self.rule == "none":
            return total
        first, second, half = self.short_range.pair_energies(positions, cell)
        return total + 2.0 * (self.pair_fractions(first, second) * half).sum()

    def pair_fractions(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """W of pairs of visible atoms, (P,): the rule of the scheme once more, for pairs found on the way."""
        if self.rule == "any" and self.nested:
            touched = self.members.index_select(1, first) | self.members.index_select(1, second)
            return (self.level_weights.unsqueeze(1) * touched).sum(dim=0)
        one, other = self.weights.index_select(0, first), self.weights.index_select(0, second)
        if self.rule == "share":
            return 0.5 * (one + other)
        if self.rule == "all":
            return torch.minimum(one, other)
        return torch.maximum(one, other)
