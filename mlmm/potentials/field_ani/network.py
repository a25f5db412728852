"""Field-aware ANI in torch: energies by ANI networks, and charges that equilibrate in a potential.

E = sum_i N(G_i) + W, with the energy W of `equilibration` whose electronegativities, hardnesses and
polarisabilities are networks of the symmetry functions G, see `parameters`. The potential may be that of all
charges of a periodic system; the model has no cutoff of its own for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch

from mlmm.elements import SYMBOLS
from mlmm.modules import Module
from mlmm.potentials.ani.networks import ANINetworks
from mlmm.potentials.field_ani.equilibration import equilibrate, interaction_matrix
from mlmm.potentials.field_ani.native import load_field_weights
from mlmm.potentials.field_ani.parameters import UNIT, FieldANIParameters
from mlmm.structures import minimum_image
from mlmm.units import ANGSTROM, COULOMB

__all__ = ["FieldANIModule"]


class FieldANIModule(Module):
    """Per-atom energies of a whole region in a potential, kJ/mol; TorchScript can compile it.

    Parameters
    ----------
    parameters : FieldANIParameters
    numbers : sequence of int
        Atomic numbers of the region.
    dtype : torch.dtype
        Arithmetic of symmetry functions and networks; geometry and charges are float64.
    charge : int
        Total charge of the region, e.
    centres : sequence of int, optional
        Atoms whose energies are wanted; all by default. Each costs the whole region.
    compiled : bool
        Evaluate it by the compiled kernel where the positions lie on the processor.
    """

    def __init__(
        self,
        parameters: FieldANIParameters,
        numbers: Sequence[int],
        dtype: torch.dtype,
        charge: int = 0,
        centres: Sequence[int] | None = None,
        compiled: bool = False,
    ):
        super().__init__()
        ani = parameters.ani
        symbols = [SYMBOLS[int(number)] for number in numbers]
        species = torch.tensor([ani.elements.index(symbol) for symbol in symbols], dtype=torch.int64)
        # Its symmetry functions are those of the networks of the field as well.
        self.energy = ANINetworks(ani, numbers, dtype, shapes="lists")
        present = [int(k) for k in species.unique()]
        places = [(species == k).nonzero().squeeze(1) for k in present]
        self.field = torch.nn.ModuleList(
            _FieldNetwork(parameters, ani.elements[k], atoms, dtype)
            for k, atoms in zip(present, places, strict=True)
        )
        constants = torch.stack([torch.tensor(parameters.constants[symbol]) for symbol in symbols])
        self.register_buffer("constants", constants.to(torch.float64))
        wanted = range(len(symbols)) if centres is None else centres
        self.register_buffer("centres", torch.tensor([int(c) for c in wanted], dtype=torch.int64))
        self.register_buffer("order", torch.argsort(torch.cat(places)))
        self.total, self.unit = float(charge), UNIT
        self.angstrom, self.coulomb = ANGSTROM, COULOMB / ANGSTROM
        self.register_buffer("species", species)
        self.compiled, self.model = compiled, 0
        if compiled:
            self.model = load_field_weights(parameters, dtype == torch.float64, present)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Energies (1, C), kJ/mol, for positions (N, 3) and cell (3, 3) in nm, without charges around."""
        nothing = torch.zeros_like(positions, dtype=torch.float64)
        bend = nothing.unsqueeze(2).expand(-1, 3, 3)
        energies, _, _, _ = self.in_potential(positions, cell, nothing[:, 0], nothing, bend)
        return energies.index_select(1, self.centres if centres is None else centres)

    @torch.jit.export
    def in_potential(
        self,
        positions: torch.Tensor,
        cell: Optional[torch.Tensor],
        potential: torch.Tensor,
        gradient: torch.Tensor,
        curvature: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energies of a region in a potential, the energy in it included, and its multipoles.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), nm
        cell : torch.Tensor, shape (3, 3), nm, optional
            For the shortest images of all displacements; the region has to be smaller than half of it.
        potential, gradient, curvature : torch.Tensor, shapes (N,), (N, 3), (N, 3, 3)
            Of the charges around at the atoms: kJ/mol/e, and nm. The model does not use the curvature.

        Returns
        -------
        energies : torch.Tensor, shape (1, N), kJ/mol
        charges, dipoles, quadrupoles : torch.Tensor, shapes (N,), (N, 3), (N, 3, 3)
            e, e nm, e nm²: derivatives of the energy in what was given; no quadrupoles.
        """
        none = torch.zeros_like(positions, dtype=torch.float64).unsqueeze(2).expand(-1, 3, 3)
        if self.compiled and positions.device.type == "cpu":
            out = torch.ops.mlmm.field_ani(
                positions, potential, gradient, cell, self.species, self.total, self.model
            )
            return out[:, 0].unsqueeze(0), out[:, 1], out[:, 2:], none
        x = positions.to(torch.float64) / self.angstrom
        box: Optional[torch.Tensor] = None
        if cell is not None:
            box = cell.to(torch.float64) / self.angstrom
        environments = self.energy.symmetry_functions(x, box)
        outputs: list[torch.Tensor] = []
        for part in self.field:
            outputs.append(part(environments))
        h = torch.cat(outputs).index_select(0, self.order).to(torch.float64)
        chi = self.unit * (h[:, 0] + self.constants[:, 0])
        alpha = torch.nn.functional.softplus(h[:, 1] + self.constants[:, 1])
        hardness = self.unit * torch.nn.functional.softplus(h[:, 2] + self.constants[:, 2])
        widths = torch.nn.functional.softplus(self.constants[:, 3])
        square = minimum_image(x.unsqueeze(0) - x.unsqueeze(1), box).square().sum(2)
        matrix = interaction_matrix(square.unsqueeze(0), widths, hardness.unsqueeze(0), self.coulomb)
        slopes = chi + potential.to(torch.float64)
        charges = equilibrate(matrix, slopes.unsqueeze(0), self.total)[0]
        field = gradient.to(torch.float64) * self.angstrom
        dipoles = -field * (alpha / self.coulomb).unsqueeze(1)
        energies = self.energy.of_environments(environments)
        energies = energies + charges * (slopes + 0.5 * (matrix[0] @ charges))
        energies = energies + 0.5 * (dipoles * field).sum(1)
        return energies, charges, dipoles * self.angstrom, none


class _FieldNetwork(Module):
    """The network of the field of one element: outputs (n, 3) of its atoms."""

    def __init__(self, parameters: FieldANIParameters, element: str, atoms: torch.Tensor, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("atoms", atoms)
        layers: list[torch.nn.Module] = []
        pairs = zip(parameters.weights[element], parameters.biases[element], strict=True)
        for weight, bias in pairs:
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
            layer.weight = torch.nn.Parameter(torch.tensor(weight).to(dtype), requires_grad=False)
            layer.bias = torch.nn.Parameter(torch.tensor(bias).to(dtype), requires_grad=False)
            layers += [layer, torch.nn.SiLU()]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, environments: torch.Tensor) -> torch.Tensor:
        return self.layers(environments.index_select(0, self.atoms))
