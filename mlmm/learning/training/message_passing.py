"""Train message-passing networks of the package graph-pes with the loop of all other networks.

Edges within the cutoff and their vectors do not change while weights are fitted; forces are the gradient of
the energy by these vectors, differentiable in the weights. Different molecules may be in one set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlmm.learning.training.loop import EpochReport, FitResult
from mlmm.learning.training.loss import Predictions, rows_of
from mlmm.learning.training.one_molecule import fit_with_zero
from mlmm.learning.training.options import FitOptions, GraphOptions
from mlmm.learning.training.targets import Sample
from mlmm.modules import Module
from mlmm.potentials.adapters.graph_pes import (
    GraphArchitecture,
    build_network,
    local_energies,
    read_graph_file,
    set_weights,
)
from mlmm.reference.labels import Molecule
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["TrainableGraphs", "TrainedGraphs", "train_message_passing"]

#: Learning rate of the zero of energy, kJ/mol, relative to that of weights.
_ZERO_RATE = 100.0


@dataclass(frozen=True)
class TrainedGraphs:
    """A network and how it was fitted.

    Parameters
    ----------
    architecture : GraphArchitecture
    weights : dict of str to ndarray
        For `GraphPESPotential` and `save_graph_file`.
    elements : list of int
        Atomic numbers.
    references : dict of str to float
        Energies of isolated atoms that the labels imply, by atomic number, kJ/mol.
    fit : FitResult
    """

    architecture: GraphArchitecture
    weights: dict[str, np.ndarray]
    elements: list[int]
    references: dict[str, float]
    fit: FitResult


def train_message_passing(
    train: Sequence[Sample],
    validation: Sequence[Sample],
    graph: GraphOptions | None = None,
    options: FitOptions | None = None,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    progress: Callable[[EpochReport], None] | None = None,
) -> TrainedGraphs:
    """Fit a message-passing network to energies and forces of molecules.

    Parameters
    ----------
    train, validation : sequence of (Molecule, Label)
        What `check_samples` lets through; the validation decides when to stop.
    graph : GraphOptions, optional
        Architecture, or a file to start from.
    options : FitOptions, optional
    checkpoint : Path, optional
        See `mlmm.learning.training.loop.fit`.
    device : str
        A torch device; "auto" is a GPU if there is one.
    progress : callable, optional
        Gets an `EpochReport` after each epoch.

    Raises
    ------
    MissingPackageError
        graph-pes is not installed.
    PotentialError, SimulationError
        A start that cannot be read; a loss that is not finite.
    """
    graph, options = graph or GraphOptions(), options or FitOptions()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    everything = [*train, *validation]
    molecules = [molecule for molecule, _ in everything]
    elements = sorted({int(z) for molecule in molecules for z in molecule.numbers})
    architecture = GraphArchitecture(graph.architecture, graph.channels, graph.layers, float(graph.cutoff))
    weights: Mapping[str, np.ndarray] = {}
    if graph.start != "scratch":
        architecture, weights, _ = read_graph_file(graph.start)
    network = build_network(architecture, options.seed)
    if weights:
        set_weights(network, weights)
    model = TrainableGraphs(network, molecules, architecture.cutoff).to(device)
    result, energies = fit_with_zero(
        model,
        everything,
        len(train),
        elements,
        options,
        settings=graph,
        checkpoint=checkpoint,
        progress=progress,
    )
    found = {name: value.detach().cpu().numpy().copy() for name, value in network.named_parameters()}
    references = {str(z): float(energy) for z, energy in zip(elements, energies, strict=True)}
    return TrainedGraphs(architecture, found, elements, references, result)


class TrainableGraphs(Module):
    """A network of graph-pes bound to labelled structures with open boundaries.

    Parameters
    ----------
    network : torch.nn.Module
    molecules : sequence of Molecule
    cutoff : float
        nm.
    """

    def __init__(self, network: torch.nn.Module, molecules: Sequence[Molecule], cutoff: float):
        super().__init__()
        self.network, self.cutoff = network, cutoff / ANGSTROM
        self.zero = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.members, self.rates = 1, {"zero": _ZERO_RATE}
        self.atoms = torch.tensor([0, *map(len, molecules)]).cumsum(0)
        parts = [_edges(molecule, self.cutoff) for molecule in molecules]
        self.edges = torch.tensor([0, *(len(vectors) for _, vectors in parts)]).cumsum(0)
        self.numbers = torch.nn.Buffer(
            torch.cat([torch.as_tensor(molecule.numbers, dtype=torch.int64) for molecule in molecules])
        )
        self.pairs = torch.nn.Buffer(torch.cat([pairs for pairs, _ in parts], dim=1))
        self.vectors = torch.nn.Buffer(torch.cat([vectors for _, vectors in parts]))

    def forward(self, chosen: torch.Tensor) -> Predictions:
        """Energies (1, B) and forces (1, A, 3) of some structures, kJ/mol and nm."""
        device = self.vectors.device
        rows, owner = rows_of(self.atoms, chosen)
        places, of_edge = rows_of(self.edges, chosen)
        counts = self.atoms[chosen + 1] - self.atoms[chosen]
        begins = (counts.cumsum(0) - counts)[of_edge].to(device)
        rows, owner, places = rows.to(device), owner.to(device), places.to(device)
        first, second = (self.pairs[:, places] + begins).unbind(0)
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            vectors = self.vectors[places].requires_grad_(True)
            local = local_energies(self.network, self.numbers[rows], first, second, vectors, self.cutoff)
            energies = torch.zeros(len(chosen), dtype=torch.float64, device=device)
            energies = energies.index_add(0, owner, local.to(torch.float64))
            (slope,) = torch.autograd.grad(energies.sum(), vectors, create_graph=differentiable)
        if not differentiable:
            energies = energies.detach()
        forces = torch.zeros(len(rows), 3, device=device)
        forces = forces.index_add(0, first, slope).index_add(0, second, -slope)
        energies = energies * ELECTRONVOLT + self.zero
        return Predictions(
            energies.unsqueeze(0).to(torch.float32), (forces * ELECTRONVOLT / ANGSTROM).unsqueeze(0)
        )


def _edges(molecule: Molecule, cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Ordered pairs (2, P), counted within the molecule, and vectors (P, 3), angstrom, float32."""
    x = torch.as_tensor(molecule.positions, dtype=torch.float64) / ANGSTROM
    between = x.unsqueeze(0) - x.unsqueeze(1)
    near = between.square().sum(2) < cutoff**2
    near.fill_diagonal_(False)
    first, second = near.nonzero().unbind(1)
    return torch.stack([first, second]), between[first, second].to(torch.float32)
