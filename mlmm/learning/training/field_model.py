"""Field-aware ANI as a model whose weights are fitted: energies, forces, and forces on the charges around.

Symmetry functions G and their Jacobians, distances and the potential of the surroundings are computed once.
At the equilibrated charges the energy is stationary, so that forces on atoms are those at fixed charges:
through G, through the smooth Coulomb energy of the charges among themselves, and those of charges and dipoles
among the surroundings.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from mlmm.learning.training.environments import Environments, environments_of
from mlmm.learning.training.loss import Predictions
from mlmm.learning.training.surroundings import surroundings_of
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.field_ani.equilibration import equilibrate, interaction_matrix
from mlmm.potentials.field_ani.parameters import OUTPUTS, UNIT, FieldANIParameters, start_constants
from mlmm.reference.labels import Molecule
from mlmm.units import ANGSTROM, COULOMB, HARTREE

__all__ = ["TrainableFieldANI", "start_field_parameters"]

_COULOMB = COULOMB / ANGSTROM
_ALPHA = 0.1  # of CELU in the published networks
#: Learning rates relative to that of the networks of the energy.
_RATES = {"zero": 600.0, "field": 6.0, "constants": 6.0}


def start_field_parameters(ani: ANIParameters, hidden: Sequence[int], seed: int) -> FieldANIParameters:
    """Networks of the field at the start: random, the last layer zero, so that constants alone count.

    Parameters
    ----------
    ani : ANIParameters
        One member.
    hidden : sequence of int
        Widths of the hidden layers.
    seed : int
    """
    random = torch.Generator().manual_seed(seed + 104_729)
    inputs = ani.weights[ani.elements[0]][0].shape[2]
    widths = [inputs, *hidden, OUTPUTS]
    weights, biases = {}, {}
    for element in ani.elements:
        layers = [
            (torch.randn(out, into, generator=random) / into**0.5).numpy()
            for into, out in itertools.pairwise(widths)
        ]
        layers[-1][:] = 0.0
        weights[element] = layers
        biases[element] = [torch.zeros(out).numpy() for out in widths[1:]]
    constants = {element: start_constants(element) for element in ani.elements}
    return FieldANIParameters(ani, weights, biases, constants)


class TrainableFieldANI(torch.nn.Module):
    """Field-aware ANI bound to labelled structures of one molecule.

    Parameters
    ----------
    parameters : FieldANIParameters
        At the start.
    molecules : sequence of Molecule
        Equal atomic numbers in equal order, and equal charges.
    """

    def __init__(self, parameters: FieldANIParameters, molecules: Sequence[Molecule]):
        super().__init__()
        self.start, self.members, self.rates = parameters, 1, dict(_RATES)
        ani = parameters.ani
        self.environments: Environments = environments_of(molecules, ani)
        self.surroundings = surroundings_of(molecules)
        self.charge, self.count = float(molecules[0].charge), len(molecules[0])
        self.species = self.environments.species[: self.count]
        self.present = [ani.elements[int(k)] for k in self.species.unique()]
        places = [(self.species == ani.elements.index(e)).nonzero().squeeze(1) for e in self.present]
        self.places = dict(zip(self.present, places, strict=True))
        self.order = torch.argsort(torch.cat(places))
        self.energy, self.field = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for element in self.present:
            layers = [
                (weight[0], bias[0])
                for weight, bias in zip(ani.weights[element], ani.biases[element], strict=True)
            ]
            self.energy[element] = _layers(layers, torch.nn.CELU(_ALPHA))
            layers = list(zip(parameters.weights[element], parameters.biases[element], strict=True))
            self.field[element] = _layers(layers, torch.nn.SiLU())
        self.constants = torch.nn.ParameterDict(
            {e: torch.nn.Parameter(torch.tensor(parameters.constants[e])) for e in self.present}
        )
        self.zero = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, chosen: torch.Tensor) -> Predictions:
        """Energies and forces of some of the structures, differentiable in the weights where grad is on."""
        stored, n, count = self.environments, self.count, len(chosen)
        rows = (chosen.unsqueeze(1) * n + torch.arange(n)).flatten()
        around = self.surroundings.select(chosen)
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            values = stored.values[rows].reshape(count, n, -1).requires_grad_(True)
            x = around.positions
            square = (x.unsqueeze(1) - x.unsqueeze(2)).square().sum(3).requires_grad_(True)
            energies, charges, dipoles = self._energies(values, square, around.potential, around.gradient)
            slope, by_square = torch.autograd.grad(
                energies.sum(), [values, square], create_graph=differentiable
            )
        if not differentiable:
            energies, charges, dipoles = energies.detach(), charges.detach(), dipoles.detach()
        near = stored.neighbours[rows]
        pull = torch.bmm(slope.reshape(count * n, 1, -1), stored.jacobians[rows])
        target = near + (torch.arange(count).repeat_interleave(n) * n).unsqueeze(1)
        forces = torch.zeros(count * n, 3).index_add(0, target.flatten(), -pull.reshape(-1, 3))
        # Each pair stands twice in the matrix of squares.
        apart = (x.unsqueeze(1) - x.unsqueeze(2)).to(torch.float32)
        both = (by_square + by_square.transpose(1, 2)).to(torch.float32)
        among = 2.0 * (both.unsqueeze(3) * apart).sum(2)
        on_atoms, on_sources = around.forces(charges.to(torch.float32), dipoles.to(torch.float32))
        forces = forces.reshape(count, n, 3) + (among + on_atoms) / ANGSTROM
        return Predictions(
            (energies + self.zero).unsqueeze(0).to(torch.float32),
            forces.reshape(1, -1, 3),
            (on_sources[around.present()] / ANGSTROM).unsqueeze(0),
        )

    def _energies(
        self, values: torch.Tensor, square: torch.Tensor, potential: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energies (B,), charges (B, N) and dipoles (B, N, 3) in e and angstrom."""
        own, outputs, constants = [], [], []
        for element in self.present:
            inputs = values[:, self.places[element]]
            own.append(self.energy[element](inputs)[:, :, 0])
            outputs.append(self.field[element](inputs))
            constants.append(self.constants[element].expand(inputs.shape[1], -1))
        h = torch.cat(outputs, dim=1)[:, self.order].to(torch.float64)
        c = torch.cat(constants)[self.order]
        soft = torch.nn.functional.softplus
        slopes = UNIT * (h[:, :, 0] + c[:, 0]) + potential
        alpha = soft(h[:, :, 1] + c[:, 1])
        matrix = interaction_matrix(square, soft(c[:, 3]), UNIT * soft(h[:, :, 2] + c[:, 2]), _COULOMB)
        charges = equilibrate(matrix, slopes, self.charge)
        dipoles = -gradient * (alpha / _COULOMB).unsqueeze(2)
        answer = torch.bmm(matrix, charges.unsqueeze(2)).squeeze(2)
        field = charges * (slopes + 0.5 * answer) + 0.5 * (dipoles * gradient).sum(2)
        energies = HARTREE * torch.cat(own, dim=1).to(torch.float64).sum(1) + field.sum(1)
        return energies, charges, dipoles

    def exported(self) -> FieldANIParameters:
        """The networks in the form of a file, those of elements that no structure has as they were."""
        start, ani = self.start, self.start.ani
        energy_weights, energy_biases = dict(ani.weights), dict(ani.biases)
        weights, biases = dict(start.weights), dict(start.biases)
        constants = dict(start.constants)
        for element in self.present:
            energy, field = _arrays(self.energy[element]), _arrays(self.field[element])
            energy_weights[element] = [weight[None] for weight, _ in energy]
            energy_biases[element] = [bias[None] for _, bias in energy]
            weights[element], biases[element] = [w for w, _ in field], [b for _, b in field]
            constants[element] = self.constants[element].detach().numpy().copy()
        networks = ANIParameters(
            ani.elements, ani.constants, ani.self_energies, energy_weights, energy_biases
        )
        return FieldANIParameters(networks, weights, biases, constants)


def _layers(arrays: Sequence[tuple], activation: torch.nn.Module) -> torch.nn.Sequential:
    """A perceptron of these weights."""
    layers: list[torch.nn.Module] = []
    for weight, bias in arrays:
        layers += [_Layer(weight, bias), activation]
    return torch.nn.Sequential(*layers[:-1])


def _arrays(network: torch.nn.Module) -> list[tuple]:
    """Weights and biases of its layers."""
    return [
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in network.modules()
        if isinstance(layer, _Layer)
    ]


class _Layer(torch.nn.Module):
    """An affine map fitted as a difference to its start, to which the decay of weights leads back."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        super().__init__()
        self.start = torch.nn.Buffer(torch.tensor(weight, dtype=torch.float32))
        self.change = torch.nn.Parameter(torch.zeros_like(self.start))
        self.bias = torch.nn.Parameter(torch.tensor(bias, dtype=torch.float32))

    @property
    def weight(self) -> torch.Tensor:
        """The matrix as it is now."""
        return self.start + self.change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)
