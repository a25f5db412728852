"""AMP-BMS as a model whose weights are fitted: energies, and forces that are differentiable in the weights.

All derivatives of the network are taken in its own inputs, vectors of edges and of pairs with point charges,
which do not change while weights are fitted; see `mlmm.potentials.amp_bms.network` for the equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlmm.learning.training.loss import Predictions
from mlmm.learning.training.surroundings import Surroundings, surroundings_of
from mlmm.potentials.amp_bms.network import MESSAGE_CUTOFF, PARTS, POLARISATION_CUTOFF, AMPNetwork
from mlmm.potentials.amp_bms.pair_energies import PairEnergies
from mlmm.potentials.amp_bms.weights import AMPWeights
from mlmm.reference.labels import Molecule
from mlmm.units import ANGSTROM, COULOMB

__all__ = ["AMPModel"]

#: Learning rate of the zero of energy, kJ/mol, relative to that of weights.
_ZERO_RATE = 30.0
#: Parts that make energies, charges and polarisation out of features.
_LAST = ("second_message", "second_update", "coefficients", "monopoles", "node_energy", "polarisation")


class AMPModel(torch.nn.Module):
    """AMP-BMS bound to labelled structures of one molecule.

    Parameters
    ----------
    weights : AMPWeights
    molecules : sequence of Molecule
        Equal atomic numbers in equal order, and equal charges.
    trained : {"all", "last"}
        All weights, or those after the last multipoles.
    polarisation_scaling : float
        Factor on the response to point charges: 1 for labels of quantum chemistry.
    """

    def __init__(
        self,
        weights: AMPWeights,
        molecules: Sequence[Molecule],
        trained: str = "all",
        polarisation_scaling: float = 1.0,
    ):
        super().__init__()
        self.weights = weights
        self.network = AMPNetwork(weights, torch.float32, polarisation_scaling)
        for name in PARTS if trained == "all" else _LAST:
            getattr(self.network, name).requires_grad_(True)
        self.network.elements.requires_grad_(trained == "all")
        numbers = molecules[0].numbers
        self.pairs = PairEnergies(weights, numbers.tolist())
        self.species = torch.tensor(numbers)
        self.charge = float(molecules[0].charge)
        self.zero = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.members, self.rates = 1, {"zero": _ZERO_RATE}
        self.surroundings = surroundings_of(molecules)
        self.graphs = [_graph(self.surroundings, k) for k in range(len(molecules))]

    def forward(self, chosen: torch.Tensor) -> Predictions:
        """Energies and forces of some of the structures, differentiable in the weights where grad is on."""
        rows, around = chosen, self.surroundings.select(chosen)
        count, n = len(rows), len(self.species)
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            energies, leaves, edges, multipoles = self._energies(rows, around)
            found = torch.autograd.grad(energies.sum(), leaves, create_graph=differentiable)
        if not differentiable:  # the graph of a batch, some 100 MB, goes with its energies
            energies, multipoles = energies.detach(), [part.detach() for part in multipoles]
        by_edge, by_distance, by_source = (gradient.to(torch.float32) for gradient in found)
        sender, receiver, atom, source = edges
        on_atoms = torch.zeros(count * n, 3)
        on_atoms = on_atoms.index_add(0, receiver, -by_edge).index_add(0, sender, by_edge)
        on_atoms = on_atoms.index_add(0, atom, by_source)
        i, j = self.pairs.first, self.pairs.second
        x = around.positions
        apart = torch.nn.functional.normalize(x[:, j] - x[:, i], dim=2).to(torch.float32)
        pull = by_distance.unsqueeze(2) * apart
        forces = on_atoms.reshape(count, n, 3).index_add(1, i, pull).index_add(1, j, -pull)
        explicit = around.forces(*(part.to(torch.float32) for part in multipoles))
        m = around.sources.shape[1]
        external = torch.zeros(count * m, 3).index_add(0, source, -by_source).reshape(count, m, 3)
        return Predictions(
            (energies + self.zero).unsqueeze(0).to(torch.float32),
            ((forces + explicit[0]) / ANGSTROM).reshape(1, -1, 3),
            ((external + explicit[1])[around.present()] / ANGSTROM).unsqueeze(0),
        )

    def _energies(
        self, rows: torch.Tensor, around: Surroundings
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Energies (B,), their leaves, the atoms of these, and multipoles (B, N, ...) in e and angstrom."""
        graphs = [self.graphs[int(row)] for row in rows]
        count, n, m = len(graphs), len(self.species), around.sources.shape[1]
        sender = torch.cat([g.sender + k * n for k, g in enumerate(graphs)])
        receiver = torch.cat([g.receiver + k * n for k, g in enumerate(graphs)])
        atom = torch.cat([g.atom + k * n for k, g in enumerate(graphs)])
        source = torch.cat([g.source + k * m for k, g in enumerate(graphs)])
        vectors = torch.cat([g.vectors for g in graphs]).to(torch.float32).requires_grad_(True)
        outward = torch.cat([g.outward for g in graphs]).to(torch.float32).requires_grad_(True)
        i, j = self.pairs.first, self.pairs.second
        x = around.positions
        r = (x[:, j] - x[:, i]).square().sum(2).sqrt().requires_grad_(True)
        strengths = around.charges.flatten()[source].to(torch.float32)
        node, raw, dipoles, quadrupoles, factors = self.network(
            self.species.repeat(count), sender, receiver, vectors, atom, outward, strengths
        )
        root = math.sqrt(COULOMB / ANGSTROM)
        charges = raw.reshape(count, n) / root
        charges = charges - (charges.sum(1, keepdim=True) - self.charge) / n
        dipoles = dipoles.reshape(count, n, 3) / root
        quadrupoles = quadrupoles.reshape(count, n, 3, 3) / root
        energies = node.reshape(count, n).sum(1) + self.pairs(r, charges, factors.reshape(count, n)).sum(1)
        energies = energies + (charges * around.potential).sum(1)
        energies = energies + (dipoles * around.gradient).flatten(1).sum(1)
        energies = energies + (quadrupoles * around.curvature).flatten(1).sum(1)
        return (
            energies,
            [vectors, r, outward],
            [sender, receiver, atom, source],
            [charges, dipoles, quadrupoles],
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights by their published names, with the tables that are not trained."""
        return {**self.weights.tensors, **self.network.published()}


@dataclass(frozen=True)
class _Graph:
    """Edges between atoms, and pairs of an atom and a point charge, of one structure."""

    sender: torch.Tensor
    receiver: torch.Tensor
    vectors: torch.Tensor
    atom: torch.Tensor
    source: torch.Tensor
    outward: torch.Tensor


def _graph(around: Surroundings, row: int) -> _Graph:
    x, s = around.positions[row], around.sources[row]
    between = x.unsqueeze(0) - x.unsqueeze(1)
    square = between.square().sum(2)
    sender, receiver = ((square < MESSAGE_CUTOFF**2) & (square > 0.01)).nonzero().unbind(1)
    outward = s.unsqueeze(0) - x.unsqueeze(1)
    near = (outward.square().sum(2) < POLARISATION_CUTOFF**2) & (around.charges[row] != 0.0)
    atom, source = near.nonzero().unbind(1)
    return _Graph(sender, receiver, between[sender, receiver], atom, source, outward[atom, source])
