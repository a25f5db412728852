"""ANI symmetry functions in torch: atomic environment vectors, with as many neighbours as there are.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A (equations below are numbered as
there). Geometry in float64, the functions themselves in the chosen precision.
"""

from __future__ import annotations

import math
from typing import Optional

import numpy as np
import torch

from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.structures import neighbour_pairs

__all__ = ["SymmetryFunctions", "grid"]


class SymmetryFunctions(Module):
    """Atomic environment vectors of some atoms among all that they may see.

    Parameters
    ----------
    parameters : ANIParameters
        Constants of the symmetry functions, in angstrom.
    species : torch.Tensor, shape (N,), int64
        Index of each atom's element.
    centres : torch.Tensor, shape (C,), int64
        Atoms whose environments are wanted; the others are only seen.
    dtype : torch.dtype
        Arithmetic of the functions; distances and angles come from float64 geometry.
    """

    def __init__(
        self, parameters: ANIParameters, species: torch.Tensor, centres: torch.Tensor, dtype: torch.dtype
    ):
        super().__init__()
        constants = parameters.constants
        n_species = len(parameters.elements)
        self.radial_cutoff = float(constants["Rcr"])
        self.angular_cutoff = float(constants["Rca"])
        self.n_species = n_species
        self.n_species_pairs = n_species * (n_species + 1) // 2
        self.n_radial = constants["EtaR"].size * constants["ShfR"].size
        self.n_angular = math.prod(constants[name].size for name in ("EtaA", "Zeta", "ShfA", "ShfZ"))
        self.length = n_species * self.n_radial + self.n_species_pairs * self.n_angular
        self.dtype = dtype
        # Every width meets every shift, in the published order; one flat list each keeps the kernels simple.
        eta_radial, shift_radial = grid(constants["EtaR"], constants["ShfR"])
        eta_angular, shift_angular = grid(constants["EtaA"], constants["ShfA"])
        zeta, angle = grid(constants["Zeta"], constants["ShfZ"])
        if constants["EtaA"].size > 1 and constants["Zeta"].size > 1:
            raise PotentialError(
                "one EtaA or one Zeta", "several of both", "use a published ANI parameter file"
            )
        self.eta_radial = torch.nn.Buffer(eta_radial.to(dtype))
        self.shift_radial = torch.nn.Buffer(shift_radial.to(dtype))
        self.eta_angular = torch.nn.Buffer(eta_angular.to(dtype))
        self.shift_angular = torch.nn.Buffer(shift_angular.to(dtype))
        self.zeta = torch.nn.Buffer(zeta.to(dtype))
        self.cos_angle = torch.nn.Buffer(torch.cos(angle).to(dtype))
        self.sin_angle = torch.nn.Buffer(torch.sin(angle).to(dtype))
        # Index of the unordered pair of elements: 00 01 02 … 11 12 …
        first, second = torch.triu_indices(n_species, n_species).unbind(0)
        pair_index = torch.zeros(n_species, n_species, dtype=torch.int64)
        pair_index[first, second] = torch.arange(self.n_species_pairs)
        pair_index[second, first] = torch.arange(self.n_species_pairs)
        self.pair_index = torch.nn.Buffer(pair_index)
        self.species = torch.nn.Buffer(species)
        self.centres = torch.nn.Buffer(centres)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Environment vectors (C, length) for positions (N, 3) and cell (3, 3) in angstrom, float64."""
        central = self.centres if centres is None else centres
        centre, neighbour, vectors = neighbour_pairs(positions, cell, self.radial_cutoff, central)
        distances = vectors.square().sum(-1).sqrt()
        radial = self._radial(centre, neighbour, distances, central.shape[0])
        angular = self._angular(centre, neighbour, vectors, distances, central.shape[0])
        return torch.cat([radial, angular], dim=1)

    def _radial(
        self, centre: torch.Tensor, neighbour: torch.Tensor, distances: torch.Tensor, n_centres: int
    ) -> torch.Tensor:
        """Eq. 3 with the factor 1/4 of the published networks, summed over neighbours by element."""
        r = distances.to(self.dtype).unsqueeze(1)
        switch = 0.5 * torch.cos(r * (math.pi / self.radial_cutoff)) + 0.5
        terms = 0.25 * torch.exp(-self.eta_radial * (r - self.shift_radial).square()) * switch
        sums = torch.zeros(n_centres * self.n_species, self.n_radial, dtype=self.dtype, device=r.device)
        sums = sums.index_add(0, centre * self.n_species + self.species[neighbour], terms)
        return sums.reshape(n_centres, self.n_species * self.n_radial)

    def _angular(
        self,
        centre: torch.Tensor,
        neighbour: torch.Tensor,
        vectors: torch.Tensor,
        distances: torch.Tensor,
        n_centres: int,
    ) -> torch.Tensor:
        """Eq. 4, summed over pairs of neighbours by pair of elements; 0.95 cos(theta) as published."""
        near = (distances.detach() < self.angular_cutoff).nonzero().squeeze(1)
        centre = centre[near]
        neighbour_species = self.species[neighbour[near]]
        r = distances.index_select(0, near)
        unit = vectors.index_select(0, near) / r.unsqueeze(1)
        first, second = self.pairs_of_neighbours(centre, n_centres)
        cosine = 0.95 * (unit.index_select(0, first) * unit.index_select(0, second)).sum(-1)
        # cos(theta - angle) without arccos: |cosine| <= 0.95 keeps the root smooth.
        sine = (1.0 - cosine.square()).sqrt().to(self.dtype).unsqueeze(1)
        cosine = cosine.to(self.dtype).unsqueeze(1)
        r = r.to(self.dtype)
        switch = 0.5 * torch.cos(r * (math.pi / self.angular_cutoff)) + 0.5
        r_first, r_second = r.index_select(0, first), r.index_select(0, second)
        both_switched = (2.0 * switch.index_select(0, first) * switch.index_select(0, second)).unsqueeze(1)
        by_angle = (0.5 + 0.5 * (cosine * self.cos_angle + sine * self.sin_angle)).pow(self.zeta)
        mean = (0.5 * (r_first + r_second)).unsqueeze(1)
        by_distance = torch.exp(-self.eta_angular * (mean - self.shift_angular).square()) * both_switched
        terms = (by_distance.unsqueeze(2) * by_angle.unsqueeze(1)).reshape(-1, self.n_angular)
        pair = self.pair_index[neighbour_species[first], neighbour_species[second]]
        sums = torch.zeros(
            n_centres * self.n_species_pairs, self.n_angular, dtype=self.dtype, device=r.device
        )
        sums = sums.index_add(0, centre[first] * self.n_species_pairs + pair, terms)
        return sums.reshape(n_centres, self.n_species_pairs * self.n_angular)

    def pairs_of_neighbours(self, centre: torch.Tensor, n_centres: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Every unordered pair of neighbours of one centre: two index lists into the neighbour list."""
        counts = torch.bincount(centre, minlength=n_centres)
        ends = counts.cumsum(0)
        # Neighbour k of the list is paired with each later neighbour of its centre.
        later = ends.index_select(0, centre) - torch.arange(1, len(centre) + 1, device=centre.device)
        first = torch.repeat_interleave(torch.arange(len(centre), device=centre.device), later)
        begins = later.cumsum(0) - later
        second = first + 1 + torch.arange(len(first), device=centre.device) - begins.index_select(0, first)
        return first, second


def grid(rows: np.ndarray, columns: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Two flat float64 lists that together run over all (row, column), the column fastest."""
    first, second = np.meshgrid(rows, columns, indexing="ij")
    return torch.from_numpy(first.ravel()), torch.from_numpy(second.ravel())
