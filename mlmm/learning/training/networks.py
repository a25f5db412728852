"""Element networks on stored symmetry functions: energies and forces of all members, and where they start.

E = Σ_i N_Z(G_i) and F = −(dE/dG)(dG/dx); dN/dG is written out, layer by layer, so that one backward pass
gives the gradient of a loss of forces. CELU with alpha 0.1 as in the published networks: max(z, 0) +
alpha (e − 1) with derivative e = exp(min(z, 0)/alpha).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError, PotentialError
from mlmm.learning.training.environments import Environments
from mlmm.learning.training.loss import Predictions, rows_of
from mlmm.learning.training.options import NetworkOptions
from mlmm.modules import Module
from mlmm.potentials.ani.files import find_parameters
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.units import HARTREE

__all__ = ["TrainableANI", "select_elements", "start_parameters"]

_ALPHA = 0.1
# Hartree per unit of an output from scratch: bonds differ by some hundredths of a hartree.
_OUTPUT = 0.02


def select_elements(parameters: ANIParameters, numbers: Sequence[int]) -> ANIParameters:
    """Networks of some elements alone: the inputs that belong to the others are left out.

    A structure without those elements has the same energies.

    Parameters
    ----------
    parameters : ANIParameters
    numbers : sequence of int
        Atomic numbers to keep.

    Raises
    ------
    PotentialError
        An element that the networks do not know.
    """
    wanted = {SYMBOLS[int(z)] for z in numbers}
    lacking = sorted(wanted - set(parameters.elements))
    if lacking:
        raise PotentialError(
            f"elements of these networks ({' '.join(parameters.elements)})",
            ", ".join(lacking),
            'choose start = "ani2x" (H C N O S F Cl) or start = "scratch"',
        )
    kept = [k for k, symbol in enumerate(parameters.elements) if symbol in wanted]
    n = len(parameters.elements)
    constants = parameters.constants
    radial = constants["EtaR"].size * constants["ShfR"].size
    angular = (
        constants["EtaA"].size * constants["Zeta"].size * constants["ShfA"].size * constants["ShfZ"].size
    )
    columns = [k * radial + c for k in kept for c in range(radial)]
    pairs = [(a, b) for a in range(n) for b in range(a, n)]
    for place, (a, b) in enumerate(pairs):
        if a in kept and b in kept:
            columns += [n * radial + place * angular + c for c in range(angular)]
    elements = tuple(parameters.elements[k] for k in kept)
    weights = {e: list(parameters.weights[e]) for e in elements if parameters.weights}
    for layers in weights.values():
        layers[0] = np.ascontiguousarray(layers[0][:, :, columns])
    biases = {e: list(parameters.biases[e]) for e in elements if parameters.biases}
    return ANIParameters(elements, constants, parameters.self_energies[kept], weights, biases)


def start_parameters(options: NetworkOptions, numbers: Sequence[int], seed: int) -> ANIParameters:
    """Networks at the start of a training: some members of a published committee, or random ones.

    Parameters
    ----------
    options : NetworkOptions
    numbers : sequence of int
        Atomic numbers in the training set.
    seed : int
        Of random weights.

    Raises
    ------
    ConfigError
        More members than the start has.
    PotentialError
        An element that it does not know, or a file that holds no networks.
    """
    if options.start == "scratch":
        return _random_parameters(options, numbers, seed)
    parameters = select_elements(find_parameters(options.start), numbers)
    if options.members > parameters.members:
        raise ConfigError(
            f"members of {parameters.members} at most, which {options.start} has",
            str(options.members),
            f"write members = {parameters.members}",
        )
    chosen = slice(0, options.members)
    return ANIParameters(
        parameters.elements,
        parameters.constants,
        parameters.self_energies,
        {e: [layer[chosen] for layer in layers] for e, layers in parameters.weights.items()},
        {e: [layer[chosen] for layer in layers] for e, layers in parameters.biases.items()},
    )


def _random_parameters(options: NetworkOptions, numbers: Sequence[int], seed: int) -> ANIParameters:
    """Weights of variance 1/inputs, no biases; the last layer gives hundredths of a hartree."""
    constants = find_parameters(options.descriptor).constants
    elements = tuple(SYMBOLS[z] for z in sorted({int(z) for z in numbers}))
    n = len(elements)
    inputs = n * constants["EtaR"].size * constants["ShfR"].size + n * (n + 1) // 2 * (
        constants["EtaA"].size * constants["Zeta"].size * constants["ShfA"].size * constants["ShfZ"].size
    )
    random = np.random.default_rng(seed)
    widths = [inputs, *options.hidden, 1]
    weights, biases = {}, {}
    for element in elements:
        shapes = [(options.members, out, into) for into, out in itertools.pairwise(widths)]
        weights[element] = [
            (random.standard_normal(shape) / np.sqrt(shape[2])).astype(np.float32) for shape in shapes
        ]
        weights[element][-1] *= np.float32(_OUTPUT)
        biases[element] = [np.zeros(shape[:2], dtype=np.float32) for shape in shapes]
    return ANIParameters(elements, constants, np.zeros(n), weights, biases)


class TrainableANI(Module):
    """A committee of element networks on the stored symmetry functions of a set.

    Parameters
    ----------
    parameters : ANIParameters
        At the start; its elements are those of the environments.
    environments : Environments
    options : NetworkOptions
        Which weights change.
    standardise : sequence of int, optional
        Structures whose symmetry functions get mean 0 and variance 1, for networks from scratch; the
        published ones were trained on plain inputs.

    Raises
    ------
    ConfigError
        As many frozen layers as there are layers, or more.
    """

    def __init__(
        self,
        parameters: ANIParameters,
        environments: Environments,
        options: NetworkOptions,
        *,
        standardise: Sequence[int] | None = None,
    ):
        super().__init__()
        self.start, self.members = parameters, parameters.members
        self.rates: dict[str, float] = {}
        self.environments = environments
        self.depth = len(parameters.weights[parameters.elements[0]])
        if options.freeze >= self.depth:
            raise ConfigError(
                f"freeze of {self.depth - 1} at most, of {self.depth} layers",
                str(options.freeze),
                f"write freeze = {self.depth - 1} to train the last layer alone",
            )
        length = environments.values.shape[1]
        self.centre = torch.nn.Buffer(torch.zeros(length))
        self.width = torch.nn.Buffer(torch.ones(length))
        scratch = standardise is not None
        if standardise is not None:
            rows, _ = rows_of(environments.atoms.cpu(), torch.tensor(list(standardise)))
            values = environments.values[rows].cpu()
            self.centre.copy_(values.mean(dim=0))
            # A column that hardly varies carries rounding, or atoms that only some structures have.
            self.width.copy_(values.std(dim=0).clamp(min=float(values.std()) * 0.05 + 1e-6))
        self.output = _OUTPUT if scratch else 1.0
        # Any: a ModuleDict does not tell a type checker what it holds.
        self.weights: Any = torch.nn.ModuleDict()
        self.biases: Any = torch.nn.ModuleDict()
        random = torch.Generator().manual_seed(options.rank)
        for element in parameters.elements:
            layers = [torch.tensor(w, dtype=torch.float32) for w in parameters.weights[element]]
            offsets = [torch.tensor(b, dtype=torch.float32) for b in parameters.biases[element]]
            layers[-1], offsets[-1] = layers[-1] / self.output, offsets[-1] / self.output
            self.weights[element] = torch.nn.ModuleList(
                _Matrix(w, options, random, free=k >= options.freeze) for k, w in enumerate(layers)
            )
            self.biases[element] = torch.nn.ParameterList(
                torch.nn.Parameter(b, requires_grad=k >= options.freeze) for k, b in enumerate(offsets)
            )
        self.to(environments.values.device)

    def forward(self, chosen: torch.Tensor) -> Predictions:
        """Energies (K, B) and forces (K, A, 3) of some structures, kJ/mol and nm."""
        stored = self.environments
        device = stored.values.device
        rows, owner = rows_of(stored.atoms, chosen)
        rows, owner = rows.to(device), owner.to(device)
        values, species = stored.values[rows], stored.species[rows]
        energies = torch.zeros(self.members, len(chosen), device=device)
        slopes, places = [], []
        for k, element in enumerate(self.start.elements):
            atoms = (species == k).nonzero().squeeze(1)
            if not len(atoms):
                continue
            per_atom, slope = self._network(element, values[atoms])
            energies = energies.index_add(1, owner[atoms], per_atom)
            slopes.append(slope)
            places.append(atoms)
        order = torch.argsort(torch.cat(places))
        # (A, K, L) times (A, L, 3 M): the force that each atom's energy exerts on its neighbours.
        slope = torch.cat(slopes, dim=1).index_select(1, order).transpose(0, 1)
        near = stored.neighbours[rows]
        pull = torch.bmm(slope, stored.jacobians[rows]).reshape(len(rows), self.members, near.shape[1], 3)
        counts = torch.bincount(owner, minlength=len(chosen))
        target = near + (counts.cumsum(0) - counts)[owner].unsqueeze(1)
        forces = torch.zeros(len(rows), self.members, 3, device=device)
        forces = forces.index_add(0, target.flatten(), -pull.transpose(1, 2).flatten(0, 1))
        return Predictions(energies * HARTREE, forces.transpose(0, 1) * HARTREE)

    def _network(self, element: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies (K, n) of atoms and their derivatives (K, n, L) by the inputs, hartree."""
        matrices = [matrix() for matrix in self.weights[element]]
        biases = list(self.biases[element])
        matrices[0] = matrices[0] / self.width
        biases[0] = biases[0] - matrices[0] @ self.centre
        x = x.unsqueeze(0).expand(self.members, -1, -1)
        bends = []
        for k, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
            x = torch.baddbmm(bias.unsqueeze(1), x, matrix.transpose(1, 2))
            if k + 1 < self.depth:
                bend = torch.exp(x.clamp(max=0.0) / _ALPHA)
                x = x.clamp(min=0.0) + _ALPHA * (bend - 1.0)
                bends.append(bend)
        slope = matrices[-1].expand(-1, x.shape[1], -1)
        for matrix, bend in zip(reversed(matrices[:-1]), reversed(bends), strict=True):
            slope = torch.bmm(slope * bend, matrix)
        return self.output * x.squeeze(2), self.output * slope

    def exported(self) -> ANIParameters:
        """The networks in the published form: plain inputs, outputs in hartree."""
        weights: dict[str, list[np.ndarray]] = {}
        biases: dict[str, list[np.ndarray]] = {}
        with torch.no_grad():
            for element in self.start.elements:
                layers = [matrix().cpu().double() for matrix in self.weights[element]]
                offsets = [bias.detach().cpu().double() for bias in self.biases[element]]
                layers[0] = layers[0] / self.width.cpu().double()
                offsets[0] = offsets[0] - layers[0] @ self.centre.cpu().double()
                layers[-1], offsets[-1] = layers[-1] * self.output, offsets[-1] * self.output
                weights[element] = [w.float().numpy() for w in layers]
                biases[element] = [b.float().numpy() for b in offsets]
        start = self.start
        return ANIParameters(start.elements, start.constants, start.self_energies, weights, biases)


class _Matrix(Module):
    """Weights of one layer (members, outputs, inputs): free, frozen, or W + A B of low rank."""

    def __init__(self, weight: torch.Tensor, options: NetworkOptions, random: torch.Generator, *, free: bool):
        super().__init__()
        members, out, into = weight.shape
        rank = options.rank
        self.low_rank = free and options.update == "low-rank" and rank < min(out, into)
        if self.low_rank:
            self.fixed: torch.Tensor = torch.nn.Buffer(weight)
            self.left = torch.nn.Parameter(torch.zeros(members, out, rank))
            self.right = torch.nn.Parameter(torch.randn(members, rank, into, generator=random) / into**0.5)
        else:
            self.fixed = torch.nn.Parameter(weight, requires_grad=free)

    def forward(self) -> torch.Tensor:
        return self.fixed + torch.bmm(self.left, self.right) if self.low_rank else self.fixed
