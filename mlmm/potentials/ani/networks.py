"""ANI in torch: symmetry functions and element networks, all members of the committee in one pass.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A (equations below are numbered as
there). Geometry in float64, symmetry functions and networks in the chosen precision, energies summed in
float64 without the isolated-atom energies, which are never added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch

from mlmm.errors import PotentialError
from mlmm.potentials.ani.fixed_shape import NEIGHBOUR_DENSITY, FixedSymmetryFunctions, neighbour_room
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.base import SYMBOLS
from mlmm.structures import neighbour_pairs
from mlmm.units import ANGSTROM, HARTREE

__all__ = ["SHAPES", "ANINetworks", "SymmetryFunctions", "grid"]

#: Lists of neighbours: "fixed" in length, "lists" as long as they have to be; "auto" is fixed on a GPU.
SHAPES = ("auto", "fixed", "lists")
_CELU_ALPHA = 0.1


class SymmetryFunctions(torch.nn.Module):
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
        self.register_buffer("eta_radial", eta_radial.to(dtype))
        self.register_buffer("shift_radial", shift_radial.to(dtype))
        self.register_buffer("eta_angular", eta_angular.to(dtype))
        self.register_buffer("shift_angular", shift_angular.to(dtype))
        self.register_buffer("zeta", zeta.to(dtype))
        self.register_buffer("cos_angle", torch.cos(angle).to(dtype))
        self.register_buffer("sin_angle", torch.sin(angle).to(dtype))
        # Index of the unordered pair of elements: 00 01 02 … 11 12 …
        first, second = torch.triu_indices(n_species, n_species).unbind(0)
        pair_index = torch.zeros(n_species, n_species, dtype=torch.int64)
        pair_index[first, second] = torch.arange(self.n_species_pairs)
        pair_index[second, first] = torch.arange(self.n_species_pairs)
        self.register_buffer("pair_index", pair_index)
        self.register_buffer("species", species)
        self.register_buffer("centres", centres)

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
        first, second = self._pairs_of_neighbours(centre, n_centres)
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

    def _pairs_of_neighbours(self, centre: torch.Tensor, n_centres: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Every unordered pair of neighbours of one centre: two index lists into the neighbour list."""
        counts = torch.bincount(centre, minlength=n_centres)
        ends = counts.cumsum(0)
        # Neighbour k of the list is paired with each later neighbour of its centre.
        later = ends.index_select(0, centre) - torch.arange(1, len(centre) + 1, device=centre.device)
        first = torch.repeat_interleave(torch.arange(len(centre), device=centre.device), later)
        begins = later.cumsum(0) - later
        second = first + 1 + torch.arange(len(first), device=centre.device) - begins.index_select(0, first)
        return first, second


class ANINetworks(torch.nn.Module):
    """Per-atom ANI energies for all members at once; TorchScript can compile it.

    Parameters
    ----------
    parameters : ANIParameters
    numbers : sequence of int
        Atomic numbers of all atoms that are seen.
    dtype : torch.dtype
        Arithmetic of symmetry functions and networks.
    centres : sequence of int, optional
        Atoms whose energies are wanted, all by default. Only they cost a network pass: ANI is strictly local,
        and the others act as neighbours alone.
    shapes : {"auto", "fixed", "lists"}
        See `SHAPES`; lists of fixed length for these centres only, and in torch only.
    neighbour_density : float
        Atoms per nm³ for which lists of fixed length have room.
    """

    def __init__(
        self,
        parameters: ANIParameters,
        numbers: Sequence[int],
        dtype: torch.dtype,
        centres: Sequence[int] | None = None,
        *,
        shapes: str = "auto",
        neighbour_density: float = NEIGHBOUR_DENSITY,
    ):
        super().__init__()
        symbols = [SYMBOLS[int(number)] for number in numbers]
        species = torch.tensor([parameters.elements.index(symbol) for symbol in symbols], dtype=torch.int64)
        wanted = list(range(len(symbols))) if centres is None else [int(centre) for centre in centres]
        self.symmetry_functions = SymmetryFunctions(parameters, species, torch.tensor(wanted), dtype)
        functions = self.symmetry_functions
        rooms = [
            neighbour_room(cutoff * ANGSTROM, neighbour_density)
            for cutoff in (functions.radial_cutoff, functions.angular_cutoff)
        ]
        self.fixed_functions = FixedSymmetryFunctions(functions, *rooms)
        self.shapes = shapes
        # With lists of fixed length and the same centres at every call.
        self.capturable = shapes != "lists"
        central = species[wanted]
        present = species.unique().tolist() if centres is None else central.unique().tolist()
        self.networks = torch.nn.ModuleList(
            _ElementNetworks(
                parameters.weights[parameters.elements[k]],
                parameters.biases[parameters.elements[k]],
                k,
                dtype,
            )
            for k in present
        )
        for network in self.networks:
            network.register_buffer("atoms", (central == network.species).nonzero().squeeze(1))
        # Energies come out element by element; this puts them back in the order of the atoms.
        self.register_buffer("order", torch.argsort(torch.cat([network.atoms for network in self.networks])))
        self.to_angstrom = 1.0 / ANGSTROM
        self.hartree = HARTREE

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Energies of the centres (members, C), kJ/mol, for positions (N, 3) and cell (3, 3) in nm.

        Centres that change from call to call are given here, among atoms bound without `centres`.
        """
        positions = positions.to(torch.float64) * self.to_angstrom
        if cell is not None:
            cell = cell.to(torch.float64) * self.to_angstrom
        if centres is None and self._fixed(positions):
            environments = self.fixed_functions(positions, cell)
        else:
            environments = self.symmetry_functions(positions, cell, centres)
        energies: list[torch.Tensor] = []
        if centres is None:
            for network in self.networks:
                energies.append(network(environments, network.atoms))
            order = self.order
        else:
            species = self.symmetry_functions.species.index_select(0, centres)
            places: list[torch.Tensor] = []
            for network in self.networks:
                atoms = (species == network.species).nonzero().squeeze(1)
                places.append(atoms)
                energies.append(network(environments, atoms))
            order = torch.argsort(torch.cat(places))
        return torch.cat(energies, dim=1).index_select(1, order).to(torch.float64) * self.hartree

    def _fixed(self, positions: torch.Tensor) -> bool:
        """On the processor lists are cheaper; on a GPU each of them would wait for the host."""
        return self.shapes == "fixed" or (self.shapes == "auto" and positions.device.type != "cpu")


class _ElementNetworks(torch.nn.Module):
    """The networks of one element, all members batched: (members, atoms of it) in hartree."""

    def __init__(self, weights: list[np.ndarray], biases: list[np.ndarray], species: int, dtype: torch.dtype):
        super().__init__()
        self.n_members, self.width = weights[0].shape[0], weights[0].shape[1]
        self.celu_alpha = _CELU_ALPHA
        self.species = species
        # The first layer sees the same input in every member: one matrix product for all of them.
        first = torch.from_numpy(weights[0]).to(dtype)
        self.register_buffer("first_weight", first.flatten(0, 1).t().contiguous())
        self.register_buffer("first_bias", torch.from_numpy(biases[0]).to(dtype).flatten())
        self.layers = torch.nn.ModuleList(
            _BatchedLinear(weight, bias, dtype) for weight, bias in zip(weights[1:], biases[1:], strict=True)
        )

    def forward(self, environments: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
        x = environments.index_select(0, atoms)
        x = torch.addmm(self.first_bias, x, self.first_weight)
        # Not x.shape[0]: of this product, frozen, torch 2.9 gives another number.
        x = x.reshape(-1, self.n_members, self.width).transpose(0, 1)
        for layer in self.layers:
            x = layer(torch.celu(x, self.celu_alpha))
        return x.squeeze(2)


class _BatchedLinear(torch.nn.Module):
    """One linear layer for all members: (members, atoms, inputs) to (members, atoms, outputs)."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight).to(dtype).transpose(1, 2).contiguous())
        self.register_buffer("bias", torch.from_numpy(bias).to(dtype).unsqueeze(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def grid(rows: np.ndarray, columns: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Two flat float64 lists that together run over all (row, column), the column fastest."""
    first, second = np.meshgrid(rows, columns, indexing="ij")
    return torch.from_numpy(first.ravel()), torch.from_numpy(second.ravel())
