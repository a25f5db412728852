"""Pairs inside a zone: what leaves OpenMM through exceptions and is added back in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch

from mlmm.blending.functions import switching_function
from mlmm.blending.short_range import checked_atoms
from mlmm.pair_formulas import lennard_jones
from mlmm.structures import minimum_image
from mlmm.units import COULOMB

if TYPE_CHECKING:
    from mlmm.forcefield.tables import MMTables

__all__ = ["FullPairs"]


class FullPairs(torch.nn.Module):
    """Full pair energies inside a set of atoms: what leaves OpenMM when exceptions empty all those pairs.

    An exception takes away K q q / r of the nearest image, reciprocal part included, and Lennard-Jones with
    the cutoff and the switch of the force field; beyond the cutoff of PME K q q erf(alpha r) / r, since such
    a pair has no direct part; from a 1-4 pair its own charge product and well, without cutoff; from an
    excluded pair nothing. Each atom of a pair gets one half.

    Parameters
    ----------
    tables : MMTables
    atoms : sequence of int
        The set, in the order of the result.
    wrap : bool
        See `ShortRangeEnergies`; it concerns the 1-4 pairs.
    """

    if TYPE_CHECKING:  # TorchScript reads no annotations of buffers

        def __getattr__(self, name: str) -> torch.Tensor: ...

    def __init__(self, tables: MMTables, atoms: Sequence[int] | np.ndarray, *, wrap: bool = False):
        super().__init__()
        wanted = checked_atoms(tables, atoms)
        self.n_wanted, self.coulomb, self.cutoff = len(wanted), COULOMB, float(tables.cutoff)
        self.alpha = float(tables.alpha)
        self.switched = tables.switch is not None
        self.switch = 0.0 if tables.switch is None else float(tables.switch)
        first, second = np.triu_indices(self.n_wanted, k=1)
        i, j = wanted[first], wanted[second]
        charge, sigma, epsilon, special = tables.pair_parameters(i, j)
        alive = (charge != 0) | (epsilon != 0)
        arrays = {"heads": i[alive], "tails": j[alive], "first": first[alive], "second": second[alive]}
        arrays |= {"charge": charge[alive], "sigma": sigma[alive], "epsilon": epsilon[alive]}
        arrays |= {"special": special[alive]}
        wraps = tables.periodic & (~special[alive] | tables.exceptions_periodic | wrap)
        arrays |= {"wraps": wraps[:, None]}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Half of each pair energy on either atom; arguments as in `ShortRangeEnergies.forward`."""
        positions = positions.to(torch.float64)
        vectors = positions.index_select(0, self.heads) - positions.index_select(0, self.tails)
        if cell is not None:
            vectors = torch.where(self.wraps, minimum_image(vectors, cell), vectors)
        r = vectors.square().sum(-1).sqrt()
        near = self.special | (r < self.cutoff)
        factor = near.to(torch.float64)
        screen = torch.where(near, torch.ones_like(r), torch.erf(self.alpha * r))
        if self.switched:
            factor = torch.where(self.special, factor, switching_function(r, self.switch, self.cutoff))
        wells = lennard_jones(r, self.sigma, self.epsilon) * factor
        half = 0.5 * (wells + self.coulomb * self.charge * screen / r)
        total = torch.zeros(self.n_wanted, dtype=torch.float64, device=positions.device)
        return total.index_add(0, self.first, half).index_add(0, self.second, half)
