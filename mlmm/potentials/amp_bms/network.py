"""AMP-BMS in torch: equivariant message passing over an ML region, polarised by point charges around it.

Thürlemann, Pultar, Gordiy, Ruijsenaars, Riniker, J. Am. Chem. Soc. 148, 28133 (2026), doi
10.1021/jacs.6c00217; the architecture is that of doi 10.1021/jacs.4c17015. Lengths in angstrom, energies in
kJ/mol and charges in e, as published. Geometry in float64, networks in the chosen precision.

The first layer of each network acts on (node of the sender, node of the receiver, edge): its node parts are
multiplied once for each atom and gathered afterwards, which is the same number at a fraction of the cost.
"""

from __future__ import annotations

import torch

from mlmm.modules import Module
from mlmm.potentials.amp_bms.weights import AMPWeights
from mlmm.potentials.multipoles import enclosed_share

__all__ = ["CHANNELS", "MESSAGE_CUTOFF", "PARTS", "POLARISATION_CUTOFF", "AMPNetwork"]

#: Reach of a message and of the polarisation by point charges, angstrom.
MESSAGE_CUTOFF = 4.0
POLARISATION_CUTOFF = 8.0
#: Dipole and quadrupole channels of the messages.
CHANNELS = 8
#: Parts of the network, by their attributes here, and their names in the published file.
PARTS = {
    "edge_embedding": "edge_embedding",
    "first_multipoles": "eq_message_layers.0",
    "second_multipoles": "eq_message_layers.1",
    "first_message": "in_message_layers.0",
    "second_message": "in_message_layers.1",
    "first_update": "in_update_layers.0",
    "second_update": "in_update_layers.1",
    "polarisation": "B_coefficients",
    "coefficients": "QM_coeffs",
    "monopoles": "QM_monos",
    "node_energy": "V.potential",
}
_ELEMENTS = "node_embedding.embedding.weight"


def envelope(x: torch.Tensor) -> torch.Tensor:
    """w(x) = 1/x − 28 x⁵ + 48 x⁶ − 21 x⁷: 1/x at the origin, zero with two derivatives at x = 1."""
    fifth = x.square().square() * x
    return 1.0 / x - fifth * (28.0 - x * (48.0 - 21.0 * x))


class _Perceptron(Module):
    """Layers of affine maps with SiLU between them; the last one is bare and without bias where asked."""

    def __init__(self, weights: AMPWeights, prefix: str, dtype: torch.dtype, head: bool):
        super().__init__()
        layers: list[torch.nn.Module] = []
        for number in weights.layers(prefix):
            weight, bias = weights.linear(f"{prefix}.{number}", dtype)
            layers += [_linear(weight, bias), torch.nn.SiLU()]
        self.layers = torch.nn.Sequential(*(layers[:-1] if head else layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    @torch.jit.unused
    def published(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Matrix and bias of each layer."""
        return [(layer.weight, layer.bias) for layer in self.layers if isinstance(layer, torch.nn.Linear)]


class _EdgePerceptron(Module):
    """A perceptron of (sender, receiver, edge): its first layer in three parts, the rest on edges."""

    def __init__(
        self,
        weights: AMPWeights,
        prefix: str,
        dtype: torch.dtype,
        head: bool,
        nodes_first: bool = True,
    ):
        super().__init__()
        numbers = weights.layers(prefix)
        weight, bias = weights.linear(f"{prefix}.{numbers[0]}", dtype)
        size = weights.node_size
        edge = weight.shape[1] - 2 * size
        begin = 0 if nodes_first else edge
        self.nodes_first = nodes_first
        self.of_sender = _fixed(weight[:, begin : begin + size].t())
        self.of_receiver = _fixed(weight[:, begin + size : begin + 2 * size].t())
        self.of_edge = _fixed((weight[:, 2 * size :] if nodes_first else weight[:, :edge]).t())
        assert bias is not None
        self.bias = _fixed(bias)
        layers: list[torch.nn.Module] = [torch.nn.SiLU()]
        for number in numbers[1:]:
            layers += [_linear(*weights.linear(f"{prefix}.{number}", dtype)), torch.nn.SiLU()]
        self.layers = torch.nn.Sequential(*(layers[:-1] if head else layers))

    def forward(
        self, nodes: torch.Tensor, edges: torch.Tensor, sender: torch.Tensor, receiver: torch.Tensor
    ) -> torch.Tensor:
        of_nodes = (nodes @ self.of_sender).index_select(0, sender)
        of_nodes = of_nodes + (torch.addmm(self.bias, nodes, self.of_receiver)).index_select(0, receiver)
        return self.layers(torch.addmm(of_nodes, edges, self.of_edge))

    @torch.jit.unused
    def published(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Matrix and bias of each layer, the first one put together again."""
        nodes: list[torch.Tensor] = [self.of_sender, self.of_receiver]
        parts = [*nodes, self.of_edge] if self.nodes_first else [self.of_edge, *nodes]
        first: tuple[torch.Tensor, torch.Tensor | None] = (torch.cat(parts).t().contiguous(), self.bias)
        linear = [layer for layer in self.layers if isinstance(layer, torch.nn.Linear)]
        return [first, *((layer.weight, layer.bias) for layer in linear)]


def _fixed(value: torch.Tensor) -> torch.nn.Parameter:
    """A weight that only training, if it asks for it, changes."""
    return torch.nn.Parameter(value.contiguous(), requires_grad=False)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    """A layer with these weights."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype)
    layer.weight = _fixed(weight)
    if bias is not None:
        layer.bias = _fixed(bias)
    return layer


class AMPNetwork(Module):
    """Node energies, charges, dipoles and quadrupoles of the atoms of a region.

    Parameters
    ----------
    weights : AMPWeights
    dtype : torch.dtype
        Arithmetic of the networks.
    polarisation_scaling : float
        Factor on the response to point charges: 0.35 as shipped (fitted to free energies of hydration), 1.0
        the fit to quantum chemistry.
    """

    def __init__(self, weights: AMPWeights, dtype: torch.dtype, polarisation_scaling: float = 0.35):
        super().__init__()
        self.dtype = dtype
        self.cutoff, self.external_cutoff, self.channels = MESSAGE_CUTOFF, POLARISATION_CUTOFF, CHANNELS
        self.scaling = float(polarisation_scaling)
        self.elements = _fixed(weights.tensor(_ELEMENTS, dtype))
        self.register_buffer(
            "frequencies", weights.tensor("radial_embedding.frequencies", torch.float64).flatten()
        )
        self.register_buffer(
            "external_frequencies",
            weights.tensor("radial_embedding_qmmm.frequencies", torch.float64).flatten(),
        )
        self.edge_embedding = _EdgePerceptron(weights, "edge_embedding", dtype, True, nodes_first=False)
        self.first_multipoles = _EdgePerceptron(weights, "eq_message_layers.0", dtype, True)
        self.second_multipoles = _EdgePerceptron(weights, "eq_message_layers.1", dtype, True)
        self.first_message = _EdgePerceptron(weights, "in_message_layers.0", dtype, False)
        self.second_message = _EdgePerceptron(weights, "in_message_layers.1", dtype, False)
        self.first_update = _Perceptron(weights, "in_update_layers.0", dtype, False)
        self.second_update = _Perceptron(weights, "in_update_layers.1", dtype, False)
        self.polarisation = _Perceptron(weights, "B_coefficients", dtype, True)
        self.coefficients = _Perceptron(weights, "QM_coeffs", dtype, True)
        self.monopoles = _Perceptron(weights, "QM_monos", dtype, True)
        self.node_energy = _Perceptron(weights, "V.potential", dtype, True)

    def forward(
        self,
        species: torch.Tensor,
        sender: torch.Tensor,
        receiver: torch.Tensor,
        vectors: torch.Tensor,
        external_atom: torch.Tensor,
        external_vectors: torch.Tensor,
        external_charges: torch.Tensor,
        charge_width: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Evaluate the network.

        Parameters
        ----------
        species : torch.Tensor, shape (N,), int64
            Atomic numbers.
        sender, receiver : torch.Tensor, shape (E,), int64
            Directed edges between atoms closer than `MESSAGE_CUTOFF`, both directions.
        vectors : torch.Tensor, shape (E, 3), float64, angstrom
            From sender to receiver.
        external_atom : torch.Tensor, shape (P,), int64
            Atom of each pair of an atom and a point charge closer than `POLARISATION_CUTOFF`.
        external_vectors : torch.Tensor, shape (P, 3), float64, angstrom
            From the atom to the charge.
        external_charges : torch.Tensor, shape (P,), float64, e
        charge_width : float
            Standard deviation of Gaussian charges, angstrom; 0: points.

        Returns
        -------
        energies : torch.Tensor, shape (N,), float64, kJ/mol
            Node energies.
        charges : torch.Tensor, shape (N,), float64
            Before the total charge is imposed, times sqrt(k) of Coulomb's law.
        dipoles, quadrupoles : torch.Tensor, shapes (N, 3) and (N, 3, 3), float64
            Times sqrt(k); the quadrupole is traceless and half of a second moment.
        dispersion : torch.Tensor, shape (N,), float64
            Factor of each atom's C6.
        """
        n = species.shape[0]
        x = vectors.square().sum(1).sqrt() / self.cutoff
        u = (vectors / (x * self.cutoff).unsqueeze(1)).to(self.dtype)
        w64 = envelope(x)
        basis = (w64.unsqueeze(1) * torch.sin(x.unsqueeze(1) * self.frequencies.to(x.dtype))).to(self.dtype)
        w = w64.to(self.dtype).unsqueeze(1)
        h = self.elements.index_select(0, species)
        e = self.edge_embedding(h, basis, sender, receiver)

        parts = self.first_multipoles(h, e, sender, receiver) * w
        mu, q = self._multipoles(parts, u, receiver, n)
        a = self._invariants(mu, q, u, sender, receiver)
        message = self.first_message(h, torch.cat([a, e], 1), sender, receiver) * w
        received = torch.zeros(n, message.shape[1], dtype=self.dtype, device=message.device)
        h = h + self.first_update(torch.cat([h, received.index_add(0, receiver, message)], 1))

        coefficients = torch.nn.functional.softplus(self.coefficients(h))
        dipole, quadrupole = self._response(
            coefficients, external_atom, external_vectors, external_charges, charge_width, n
        )
        parts = self.second_multipoles(h, torch.cat([a, e], 1), sender, receiver) * w
        mu, q = self._multipoles(parts, u, receiver, n)
        a = self._invariants(
            torch.cat([mu, dipole.unsqueeze(1)], 1),
            torch.cat([q, quadrupole.unsqueeze(1)], 1),
            u,
            sender,
            receiver,
        )
        message = self.second_message(h, torch.cat([a, e], 1), sender, receiver) * w
        received = torch.zeros(n, message.shape[1], dtype=self.dtype, device=message.device)
        h = h + self.second_update(torch.cat([h, received.index_add(0, receiver, message)], 1))
        return (
            self.node_energy(h).squeeze(1).to(torch.float64),
            self.monopoles(h).squeeze(1).to(torch.float64),
            (mu[:, 0] + dipole).to(torch.float64),
            (q[:, 0] + quadrupole).to(torch.float64),
            coefficients[:, 0].to(torch.float64),
        )

    @torch.jit.unused
    def published(self) -> dict[str, torch.Tensor]:
        """All weights by their published names, detached, float32."""
        found = {_ELEMENTS: self.elements}
        for attribute, prefix in PARTS.items():
            for number, (matrix, bias) in enumerate(getattr(self, attribute).published()):
                # Lin at .0, .2, .4: activations take the numbers between.
                found[f"{prefix}.{2 * number}.weight"] = matrix
                if bias is not None:
                    found[f"{prefix}.{2 * number}.bias"] = bias
        return {name: value.detach().to(torch.float32).contiguous().clone() for name, value in found.items()}

    def _multipoles(
        self, parts: torch.Tensor, u: torch.Tensor, receiver: torch.Tensor, n: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Dipoles (N, C, 3) and traceless quadrupoles (N, C, 3, 3): sums over the edges into an atom."""
        zeros = torch.zeros(n, self.channels, 12, dtype=self.dtype, device=parts.device)
        outer = (u.unsqueeze(2) * u.unsqueeze(1)).flatten(1)
        traceless = outer - torch.eye(3, dtype=self.dtype, device=u.device).flatten() / 3.0
        terms = torch.cat(
            [
                parts[:, : self.channels].unsqueeze(2) * u.unsqueeze(1),
                parts[:, self.channels :].unsqueeze(2) * traceless.unsqueeze(1),
            ],
            2,
        )
        sums = zeros.index_add(0, receiver, terms)
        return sums[:, :, :3], sums[:, :, 3:].unflatten(2, (3, 3))

    def _invariants(
        self,
        mu: torch.Tensor,
        q: torch.Tensor,
        u: torch.Tensor,
        sender: torch.Tensor,
        receiver: torch.Tensor,
    ) -> torch.Tensor:
        """Nine products of the multipoles of both ends and the direction, channel by channel: (E, 9 C)."""
        mu_s, mu_t = mu.index_select(0, sender), mu.index_select(0, receiver)
        q_s, q_t = q.index_select(0, sender), q.index_select(0, receiver)
        along = u.unsqueeze(1)
        qu_s = (q_s * along.unsqueeze(2)).sum(3)
        qu_t = (q_t * along.unsqueeze(2)).sum(3)
        products = torch.stack(
            [
                (mu_s * along).sum(2),
                (mu_t * along).sum(2),
                (mu_s * mu_t).sum(2),
                (qu_s * along).sum(2),
                (qu_t * along).sum(2),
                (qu_s * mu_t).sum(2),
                (qu_t * mu_s).sum(2),
                (q_s * q_t).flatten(2).sum(2),
                (qu_s * qu_t).sum(2),
            ],
            2,
        )
        return products.flatten(1)

    def _response(
        self,
        coefficients: torch.Tensor,
        atom: torch.Tensor,
        vectors: torch.Tensor,
        charges: torch.Tensor,
        charge_width: float,
        n: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Dipole (N, 3) and quadrupole (N, 3, 3) that point charges within `POLARISATION_CUTOFF` induce."""
        distance = vectors.square().sum(1).sqrt()
        x = distance / self.external_cutoff
        w = envelope(x)
        basis = w.unsqueeze(1) * torch.sin(x.unsqueeze(1) * self.external_frequencies.to(x.dtype))
        seen = charges * enclosed_share(charge_width, distance).square()
        strength = (w * self.scaling * seen / distance.square()).to(self.dtype).unsqueeze(1)
        b = self.polarisation(basis.to(self.dtype)) * strength
        v = (vectors / distance.unsqueeze(1)).to(self.dtype)
        outer = (v.unsqueeze(2) * v.unsqueeze(1)).flatten(1)
        traceless = outer - torch.eye(3, dtype=self.dtype, device=v.device).flatten() / 3.0
        zeros = torch.zeros(n, 12, dtype=self.dtype, device=v.device)
        sums = zeros.index_add(0, atom, torch.cat([b[:, :1] * v, b[:, 1:] * traceless], 1))
        dipole = coefficients[:, 1:2] * sums[:, :3]
        quadrupole = (coefficients[:, 2:3] * sums[:, 3:]).unflatten(1, (3, 3))
        return dipole, quadrupole
