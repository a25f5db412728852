"""ANI symmetry functions in tensors of fixed shape: nothing on the device waits for the host.

The lists of neighbours have as many places as a dense liquid or solid can fill; what is empty contributes
exactly zero, and so does its derivative. A CUDA graph can hold all of it. The equations are those of
`symmetry_functions`.
"""

from __future__ import annotations

import math
from typing import Optional

import torch

from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.structures import minimum_image, near_squares

__all__ = ["NEIGHBOUR_DENSITY", "FixedSymmetryFunctions", "neighbour_room"]

#: Atoms per nm³ for which there is room, around every single atom; diamond has 176, water 100.
NEIGHBOUR_DENSITY = 200.0
# Distances of so many pairs at once: bounds the memory of a large system.
_PAIRS_AT_ONCE = 4_000_000


def neighbour_room(cutoff: float, density: float) -> int:
    """Neighbours of one atom within a cutoff at some density of atoms.

    Parameters
    ----------
    cutoff : float
        nm.
    density : float
        Atoms per nm³.
    """
    return math.ceil(density * 4.0 / 3.0 * math.pi * cutoff**3)


class FixedSymmetryFunctions(torch.nn.Module):
    """Atomic environment vectors of the same atoms at every call, by lists of fixed length.

    An atom with more neighbours than there is room for, or a position that is not finite, makes its whole
    environment NaN: no neighbour is ever left out in silence.

    Parameters
    ----------
    functions : SymmetryFunctions
        The same with lists that are as long as they have to be.
    radial_room, angular_room : int
        Neighbours of one atom within either cutoff, at most.
    """

    def __init__(self, functions: SymmetryFunctions, radial_room: int, angular_room: int):
        super().__init__()
        species, dtype = functions.species, functions.dtype
        self.n_atoms, self.n_centres = len(species), len(functions.centres)
        # Nobody has more neighbours than there are other atoms; two places make one pair at least.
        self.radial_room = max(2, min(radial_room, self.n_atoms - 1))
        self.angular_room = max(2, min(angular_room, self.radial_room))
        self.radial_cutoff, self.angular_cutoff = functions.radial_cutoff, functions.angular_cutoff
        self.n_species, self.n_species_pairs = functions.n_species, functions.n_species_pairs
        self.n_radial, self.n_angular = functions.n_radial, functions.n_angular
        self.dtype = dtype
        self.centres_at_once = max(1, _PAIRS_AT_ONCE // max(1, self.n_atoms))
        self.eta_radial = torch.nn.Buffer(functions.eta_radial.clone())
        self.shift_radial = torch.nn.Buffer(functions.shift_radial.clone())
        self.eta_angular = torch.nn.Buffer(functions.eta_angular.clone())
        self.shift_angular = torch.nn.Buffer(functions.shift_angular.clone())
        self.zeta = torch.nn.Buffer(functions.zeta.clone())
        self.cos_angle = torch.nn.Buffer(functions.cos_angle.clone())
        self.sin_angle = torch.nn.Buffer(functions.sin_angle.clone())
        self.centres = torch.nn.Buffer(functions.centres.clone())
        # An empty place holds atom N, of an element of its own that counts for nothing.
        self.kind = torch.nn.Buffer(torch.cat([species, torch.tensor([self.n_species])]))
        one_of = torch.eye(self.n_species + 1, self.n_species, dtype=dtype)
        self.is_species = torch.nn.Buffer(one_of.index_select(0, self.kind))
        pairs = torch.zeros(self.n_species + 1, self.n_species + 1, self.n_species_pairs, dtype=dtype)
        pairs[:-1, :-1] = torch.eye(self.n_species_pairs, dtype=dtype)[functions.pair_index]
        self.is_pair = torch.nn.Buffer(pairs.flatten(0, 1))
        first, second = torch.triu_indices(self.angular_room, self.angular_room, offset=1).unbind(0)
        self.first = torch.nn.Buffer(first.contiguous())
        self.second = torch.nn.Buffer(second.contiguous())
        self.atoms = torch.nn.Buffer(torch.arange(self.n_atoms))
        self.places = torch.nn.Buffer(torch.arange(self.radial_room))
        # An empty place stands beyond both cutoffs: its vector has this number three times.
        self.away = self.radial_cutoff

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor]) -> torch.Tensor:
        """Environment vectors (C, length) for positions (N, 3) and cell (3, 3) in angstrom, float64."""
        central = positions.index_select(0, self.centres)
        neighbour, full = self._neighbours(positions.detach(), cell)
        empty = neighbour == self.n_atoms
        where = neighbour.masked_fill(empty, 0).flatten()
        vectors = positions.index_select(0, where).view(-1, self.radial_room, 3)
        vectors = minimum_image(vectors - central.unsqueeze(1), cell)
        vectors = vectors.masked_fill(empty.unsqueeze(2), self.away)
        distances = vectors.square().sum(-1).sqrt()
        near, crowded = _listed(distances.detach() < self.angular_cutoff, self.places, self.angular_room)
        radial = self._radial(neighbour, distances)
        angular = self._angular(neighbour, vectors, distances, near)
        # Zero, unless a list is full or a position is broken.
        broken = 0.0 * positions.detach().sum()
        wrong = broken.expand(full.shape).masked_fill(full | crowded, math.nan).unsqueeze(1)
        return torch.cat([radial, angular], dim=1) + wrong.to(self.dtype)

    def _neighbours(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Neighbours of each centre (C, room), N in empty places; whether there are more (C,)."""
        found: list[torch.Tensor] = []
        full: list[torch.Tensor] = []
        for start in range(0, max(1, self.n_centres), self.centres_at_once):
            own = self.centres[start : start + self.centres_at_once]
            squared = near_squares(positions, positions.index_select(0, own), cell, False)
            other = self.atoms.unsqueeze(0) != own.unsqueeze(1)
            near = other & (squared < self.radial_cutoff * self.radial_cutoff)
            block, more = _listed(near, self.atoms, self.radial_room)
            found.append(block)
            full.append(more)
        return torch.cat(found), torch.cat(full)

    def _radial(self, neighbour: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """Eq. 3 with the factor 1/4 of the published networks, summed over neighbours by element."""
        r = distances.to(self.dtype).unsqueeze(2)
        switch = 0.5 * torch.cos(r * (math.pi / self.radial_cutoff)) + 0.5
        terms = 0.25 * torch.exp(-self.eta_radial * (r - self.shift_radial).square()) * switch
        is_species = self.is_species.index_select(0, neighbour.flatten())
        is_species = is_species.view(-1, self.radial_room, self.n_species)
        return torch.bmm(is_species.transpose(1, 2), terms).flatten(1)

    def _angular(
        self, neighbour: torch.Tensor, vectors: torch.Tensor, distances: torch.Tensor, near: torch.Tensor
    ) -> torch.Tensor:
        """Eq. 4, summed over pairs of neighbours by pair of elements; 0.95 cos(theta) as published."""
        empty = near == self.radial_room
        place = near.masked_fill(empty, 0)
        kind = self.kind.index_select(0, neighbour.gather(1, place).flatten()).view_as(near)
        kind = kind.masked_fill(empty, self.n_species)
        r = distances.gather(1, place).masked_fill(empty, math.sqrt(3.0) * self.away)
        vectors = vectors.gather(1, place.unsqueeze(2).expand(-1, -1, 3))
        unit = vectors.masked_fill(empty.unsqueeze(2), self.away) / r.unsqueeze(2)
        cosines = torch.bmm(unit, unit.transpose(1, 2)).flatten(1)
        cosine = 0.95 * cosines.index_select(1, self.first * self.angular_room + self.second)
        # cos(theta - angle) without arccos: |cosine| <= 0.95 keeps the root smooth.
        sine = (1.0 - cosine.square()).sqrt().to(self.dtype).unsqueeze(2)
        cosine = cosine.to(self.dtype).unsqueeze(2)
        r = r.to(self.dtype)
        switch = 0.5 * torch.cos(r * (math.pi / self.angular_cutoff)) + 0.5
        both_switched = 2.0 * switch.index_select(1, self.first) * switch.index_select(1, self.second)
        by_angle = (0.5 + 0.5 * (cosine * self.cos_angle + sine * self.sin_angle)).pow(self.zeta)
        mean = (0.5 * (r.index_select(1, self.first) + r.index_select(1, self.second))).unsqueeze(2)
        by_distance = torch.exp(-self.eta_angular * (mean - self.shift_angular).square())
        by_distance = by_distance * both_switched.unsqueeze(2)
        terms = (by_distance.unsqueeze(3) * by_angle.unsqueeze(2)).flatten(2)
        pair = kind.index_select(1, self.first) * (self.n_species + 1) + kind.index_select(1, self.second)
        is_pair = self.is_pair.index_select(0, pair.flatten()).view(-1, len(self.first), self.n_species_pairs)
        return torch.bmm(is_pair.transpose(1, 2), terms).flatten(1)


def _listed(chosen: torch.Tensor, columns: torch.Tensor, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Chosen columns of each row, in order, in so many places; whether there are more.

    Parameters
    ----------
    chosen : torch.Tensor, shape (R, M), bool
    columns : torch.Tensor, shape (M,), int64
        0 to M − 1.
    room : int

    Returns
    -------
    places : torch.Tensor, shape (R, room), int64
        M where a place is empty.
    full : torch.Tensor, shape (R,), bool
    """
    rank = torch.cumsum(chosen, dim=1, dtype=torch.int32)
    # One place more takes all that is not wanted; who comes last there does not matter.
    place = (rank - 1).clamp(max=room).masked_fill(~chosen, room).to(torch.int64)
    listed = torch.full([chosen.shape[0], room + 1], chosen.shape[1], dtype=torch.int64, device=chosen.device)
    listed = listed.scatter(1, place, columns.unsqueeze(0).expand_as(place))
    return listed[:, :room], rank[:, -1] > room
