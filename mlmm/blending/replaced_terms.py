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
    from mlmm.term_weights import TermWeights

__all__ = ["ReplacedTerms"]

# nm; a switching function beyond every distance: f = 1, and of Coulomb's tail less than 1e-12 kJ/mol is left.
_EVERYWHERE = (1e15, 2e15)


class ReplacedTerms(torch.nn.Module):
    """Energy that leaves the force field for any static ownership, kJ/mol.

    With the pairs inside the zone emptied in OpenMM (`remove_zone_pairs`) and restored by `FullPairs`,
    E = E_MM + E(FullPairs) − E(ReplacedTerms) holds for every scheme: the route by subtraction to the energy
    that `scale_terms` writes into OpenMM parameters.

    Parameters
    ----------
    tables : MMTables
    term_weights : TermWeights
        Scheme, weights and visible atoms; virtual sites among these count.
    wrap : bool
        See `ShortRangeEnergies`.

    Raises
    ------
    EmbeddingError
        A scheme with pairs and without a switching function, or what `ShortRangeEnergies` refuses.
    """

    def __init__(self, tables: MMTables, term_weights: TermWeights, *, wrap: bool = False):
        super().__init__()
        self.rule = term_weights.rules[2]
        switching = term_weights.switching
        if self.rule == "none":
            # Only terms with fixed atoms: the cutoff of other pairs does not limit the range of 1-4 pairs.
            switching, tables = _EVERYWHERE, dataclasses.replace(tables, cutoff=math.inf)
        if switching is None:
            raise EmbeddingError(
                f"a switching range (r_on, r_off) for the pairs of scheme {term_weights.scheme!r}",
                "none",
                "pass distances, or use remove_region_terms for whole molecules and pairs at every distance",
            )
        visible = term_weights.visible
        self.short_range = ShortRangeEnergies(tables, term_weights.active, visible, *switching, wrap=wrap)
        touched = visible & False
        touched[term_weights.active] = True

        def chosen(atoms: np.ndarray) -> np.ndarray:
            return atoms[visible[atoms].all(axis=1) & touched[atoms].any(axis=1)]

        alive = (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
        bonded = (tables.bond_atoms, tables.angle_atoms, tables.torsion_atoms, tables.rb_atoms)
        fractions = [term_weights.bonded(chosen(atoms)) for atoms in bonded]
        cmaps = chosen(tables.cmap_atoms)
        fractions.append(term_weights.bonded(cmaps, cmap_shares(cmaps)))
        fractions.append(term_weights.one_four(chosen(tables.exception_atoms[alive])))
        members = np.zeros((len(term_weights.levels), tables.n_atoms), dtype=bool)
        for row, level in zip(members, term_weights.levels, strict=True):
            row[list(level.atoms)] = True
        self.nested = len(term_weights.levels) > 0
        self.register_buffer("fractions", torch.from_numpy(np.concatenate(fractions)))
        self.register_buffer("weights", torch.from_numpy(np.array(term_weights.weights, dtype=np.float64)))
        self.register_buffer("members", torch.from_numpy(members))
        steps = torch.tensor([level.weight for level in term_weights.levels], dtype=torch.float64)
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
