"""What a potential takes over from the force field, by subtraction: sum_t W_t f_t V_t in torch, float64."""

from __future__ import annotations

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
        No switching function, or what `ShortRangeEnergies` refuses.
    """

    def __init__(self, tables: MMTables, term_weights: TermWeights, *, wrap: bool = False):
        super().__init__()
        self.rule = term_weights.rules.pairs
        switching = term_weights.switching
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
        self.register_buffer("fractions", torch.from_numpy(np.concatenate(fractions)))
        self.register_buffer("weights", torch.from_numpy(np.array(term_weights.weights, dtype=np.float64)))

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """sum_t W_t f_t V_t; arguments as in `ShortRangeEnergies.forward`, the result a scalar."""
        total = (self.fractions * self.short_range.fixed_energies(positions, cell)).sum()
        if self.rule == "none":
            return total
        first, second, half = self.short_range.pair_energies(positions, cell)
        return total + 2.0 * (self.pair_fractions(first, second) * half).sum()

    def pair_fractions(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """W of pairs of visible atoms, (P,): the rule of the scheme once more, for pairs found on the way."""
        one, other = self.weights.index_select(0, first), self.weights.index_select(0, second)
        if self.rule == "share":
            return 0.5 * (one + other)
        if self.rule == "all":
            return torch.minimum(one, other)
        return torch.maximum(one, other)
