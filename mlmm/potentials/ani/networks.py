"""ANI in torch: element networks on symmetry functions, all members of the committee in one pass.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A (equations below are numbered as
there). Geometry in float64, symmetry functions and networks in the chosen precision, energies summed in
float64 without the isolated-atom energies, which are never added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, cast

import numpy as np
import torch

from mlmm.elements import SYMBOLS
from mlmm.modules import Module
from mlmm.potentials.ani.fixed_shape import NEIGHBOUR_DENSITY, FixedSymmetryFunctions, neighbour_room
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.units import ANGSTROM, HARTREE

__all__ = ["SHAPES", "ANINetworks"]

#: Lists of neighbours: "fixed" in length, "lists" as long as they have to be; "auto" is fixed on a GPU.
SHAPES = ("auto", "fixed", "lists")
_CELU_ALPHA = 0.1


class ANINetworks(Module):
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
        networks = [
            _ElementNetworks(
                parameters.weights[parameters.elements[k]],
                parameters.biases[parameters.elements[k]],
                k,
                (central == k).nonzero().squeeze(1),
                dtype,
            )
            for k in present
        ]
        # A ModuleList, which does not tell a type checker what it holds.
        self.networks = cast("Sequence[_ElementNetworks]", torch.nn.ModuleList(networks))
        # Energies come out element by element; this puts them back in the order of the atoms.
        self.order = torch.nn.Buffer(torch.argsort(torch.cat([network.atoms for network in networks])))
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
        if centres is None:
            return self.of_environments(environments)
        species = self.symmetry_functions.species.index_select(0, centres)
        places: list[torch.Tensor] = []
        energies: list[torch.Tensor] = []
        for network in self.networks:
            atoms = (species == network.species).nonzero().squeeze(1)
            places.append(atoms)
            energies.append(network(environments, atoms))
        order = torch.argsort(torch.cat(places))
        return torch.cat(energies, dim=1).index_select(1, order).to(torch.float64) * self.hartree

    def of_environments(self, environments: torch.Tensor) -> torch.Tensor:
        """Energies of the bound centres (members, C), kJ/mol, from their symmetry functions (C, length)."""
        energies: list[torch.Tensor] = []
        for network in self.networks:
            energies.append(network(environments, network.atoms))
        return torch.cat(energies, dim=1).index_select(1, self.order).to(torch.float64) * self.hartree

    def _fixed(self, positions: torch.Tensor) -> bool:
        """On the processor lists are cheaper; on a GPU each of them would wait for the host."""
        return self.shapes == "fixed" or (self.shapes == "auto" and positions.device.type != "cpu")


class _ElementNetworks(Module):
    """The networks of one element, all members batched: (members, atoms of it) in hartree."""

    def __init__(
        self,
        weights: list[np.ndarray],
        biases: list[np.ndarray],
        species: int,
        atoms: torch.Tensor,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.n_members, self.width = weights[0].shape[0], weights[0].shape[1]
        self.celu_alpha, self.steepness = _CELU_ALPHA, 1.0 / _CELU_ALPHA
        self.species = species
        self.atoms = torch.nn.Buffer(atoms)
        # The first layer sees the same input in every member: one matrix product for all of them.
        first = torch.from_numpy(weights[0]).to(dtype)
        self.first_weight = torch.nn.Buffer(first.flatten(0, 1).t().contiguous())
        self.first_bias = torch.nn.Buffer(torch.from_numpy(biases[0]).to(dtype).flatten())
        self.layers = torch.nn.ModuleList(
            _BatchedLinear(weight, bias, dtype) for weight, bias in zip(weights[1:], biases[1:], strict=True)
        )

    def forward(self, environments: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
        x = environments.index_select(0, atoms)
        x = torch.addmm(self.first_bias, x, self.first_weight)
        # Not x.shape[0]: of this product, frozen, torch 2.9 gives another number.
        x = x.reshape(-1, self.n_members, self.width).transpose(0, 1)
        for layer in self.layers:
            # torch.celu, whose derivative takes 1/alpha in single precision: forces were off by 1e-8.
            x = layer(torch.ops.aten.elu(x, self.celu_alpha, 1.0, self.steepness))
        return x.squeeze(2)


class _BatchedLinear(Module):
    """One linear layer for all members: (members, atoms, inputs) to (members, atoms, outputs)."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, dtype: torch.dtype):
        super().__init__()
        self.weight = torch.nn.Buffer(torch.from_numpy(weight).to(dtype).transpose(1, 2).contiguous())
        self.bias = torch.nn.Buffer(torch.from_numpy(bias).to(dtype).unsqueeze(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)
