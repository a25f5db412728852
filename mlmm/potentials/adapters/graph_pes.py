"""Message-passing networks of the package graph-pes, in a file that holds numbers alone.

PaiNN: Schütt, Unke, Gastegger, ICML 2021, doi 10.48550/arXiv.2102.03150. TensorNet: Simeon, De Fabritiis,
NeurIPS 2023, doi 10.48550/arXiv.2306.06482. The package's SchNet (1.0.2) is left out: its filters do not
vanish at the cutoff, so that energies jump when an atom crosses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.adapters.graph import edges
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.safetensors_files import read_safetensors, write_safetensors
from mlmm.potentials.spec import ShortOfSpec
from mlmm.potentials.trained_files import GRAPH_KIND
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = [
    "ARCHITECTURES",
    "GraphArchitecture",
    "GraphPESPotential",
    "build_network",
    "local_energies",
    "read_graph_file",
    "save_graph_file",
    "set_weights",
]

INSTALL = "pip install graph-pes==1.0.2"
#: Class of the package by our name, and sums over neighbours before the first layer.
_CLASSES = {"painn": ("PaiNN", 0), "tensornet": ("TensorNet", 1)}
ARCHITECTURES = tuple(_CLASSES)
_CITATIONS = {
    "painn": "K. T. Schütt et al., ICML 2021, doi 10.48550/arXiv.2102.03150",
    "tensornet": "G. Simeon, G. De Fabritiis, NeurIPS 2023, doi 10.48550/arXiv.2306.06482",
}


@dataclass(frozen=True)
class GraphArchitecture:
    """What defines a network beside its weights.

    Parameters
    ----------
    name : {"painn", "tensornet"}
    channels, layers : int
    cutoff : float
        nm.
    """

    name: str
    channels: int
    layers: int
    cutoff: float

    def as_facts(self) -> dict[str, Any]:
        """For a file in JSON."""
        return {"name": self.name, "channels": self.channels, "layers": self.layers, "cutoff": self.cutoff}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], where: str | Path) -> GraphArchitecture:
        """From `as_facts`; PotentialError for anything else."""
        try:
            found = cls(
                str(facts["name"]), int(facts["channels"]), int(facts["layers"]), float(facts["cutoff"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PotentialError(
                f"an architecture in {where}", f"{type(error).__name__}: {error}", "train it again"
            ) from error
        if found.name not in _CLASSES:
            raise PotentialError(
                f"an architecture of {', '.join(_CLASSES)} in {where}", repr(found.name), "train it again"
            )
        return found

    @property
    def passes(self) -> int:
        """How often neighbours are summed over: an atom sees so many cutoffs."""
        return self.layers + _CLASSES[self.name][1]

    @property
    def receptive_field(self) -> float:
        """Distance beyond which no atom changes an atom's energy, nm."""
        return self.passes * self.cutoff


def build_network(architecture: GraphArchitecture, seed: int = 0) -> torch.nn.Module:
    """A network with random weights, float32.

    Parameters
    ----------
    architecture : GraphArchitecture
    seed : int
        The state of torch's own random numbers stays as it was.

    Raises
    ------
    MissingPackageError
        graph-pes is not installed.
    """
    try:
        from graph_pes import models
    except ImportError as error:
        raise MissingPackageError("the package graph-pes for message passing", str(error), INSTALL) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: torch.nn.Module = getattr(models, _CLASSES[architecture.name][0])(
            cutoff=architecture.cutoff / ANGSTROM,
            channels=architecture.channels,
            layers=architecture.layers,
        )
    # The package's parameters by element keep a record of what was asked for, which copies lack.
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            plain = torch.nn.Parameter(parameter.detach().as_subclass(torch.Tensor).clone())
            module.register_parameter(name, plain)
    return network


def set_weights(network: torch.nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy weights into a network by name; PotentialError for those of another network."""
    parameters = dict(network.named_parameters())
    odd = sorted(
        name
        for name in parameters.keys() | weights.keys()
        if name not in parameters
        or name not in weights
        or np.shape(weights[name]) != tuple(parameters[name].shape)
    )
    if odd:
        raise PotentialError(
            "weights of this architecture, as graph-pes 1.0.2 names them",
            f"{len(odd)} that are missing, too many or of another shape, such as {odd[0]}",
            "train it again with the version that is installed",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.as_tensor(weights[name]))


def local_energies(
    network: torch.nn.Module,
    numbers: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    vectors: torch.Tensor,
    cutoff: float,
) -> torch.Tensor:
    """Energies of atoms (N,), eV, for edges with their vectors (P, 3) in angstrom; cutoff in angstrom.

    Atoms stand in the origin and each edge has its vector as the shift to an image in a cell of length one:
    minimum image and gradients are the engine's own, and no digits are lost far from the origin.
    """
    from graph_pes import AtomicGraph

    graph = AtomicGraph(
        Z=numbers,
        R=vectors.new_zeros(len(numbers), 3),
        cell=torch.eye(3, dtype=vectors.dtype, device=vectors.device),
        neighbour_list=torch.stack([first, second]),
        neighbour_cell_offsets=vectors,
        properties={},
        other={},
        cutoff=cutoff,
        batch=None,
        ptr=None,
    )
    found: torch.Tensor = network(graph)["local_energies"]
    return found.reshape(-1)


class GraphPESPotential(ShortOfSpec):
    """A trained network of graph-pes as a potential.

    Parameters
    ----------
    architecture : GraphArchitecture
    weights : mapping of str to ndarray
        State of the network.
    about : dict
        Facts for the spec: ``name elements trained_on level_of_theory licence trained_charges
        reference_energies``.
    precision : {"float32", "float64"}
    device : str

    Raises
    ------
    MissingPackageError
        graph-pes is not installed.
    PotentialError
        Weights of another network.
    """

    def __init__(
        self,
        architecture: GraphArchitecture,
        weights: Mapping[str, np.ndarray],
        about: dict[str, Any],
        *,
        precision: str = "float32",
        device: str = "cpu",
    ):
        self.architecture, self.about = architecture, dict(about)
        self.device = torch.device(device)
        self._dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
        network = build_network(architecture)
        set_weights(network, weights)
        self._network = network.to(self.device, self._dtype).eval().requires_grad_(False)
        facts = about.get("calibration")
        self.spec = PotentialSpec(
            name=about.get("name", _CLASSES[architecture.name][0]),
            elements=tuple(int(z) for z in about["elements"]),
            cutoff=architecture.cutoff,
            receptive_field=architecture.receptive_field,
            trained_on=about.get("trained_on", "isolated"),
            trained_charges=tuple(int(charge) for charge in about.get("trained_charges", ())),
            reference_energies={int(z): float(e) for z, e in about.get("reference_energies", {}).items()},
            precision=precision,
            native_units=("eV", "angstrom"),
            layers=architecture.passes,
            calibration=Calibration.from_facts(facts, "a message-passing model") if facts else None,
            level_of_theory=about.get("level_of_theory", "not stated"),
            licence=about.get("licence", "not stated"),
            citation=_CITATIONS[architecture.name],
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol."""
        check_state(self.spec, structure)
        moved = structure.to(self.device)
        first, second, vectors = edges(moved, self.spec.cutoff)
        found = local_energies(
            self._network,
            moved.numbers.to(torch.int64),
            first,
            second,
            vectors.to(self._dtype),
            self.spec.cutoff / ANGSTROM,
        )
        if not len(first):  # isolated atoms: constants, of which a gradient is asked all the same
            found = found + 0.0 * moved.positions.sum(dim=1)
        return AtomEnergies(found.to(structure.positions.device, torch.float64) * ELECTRONVOLT)

    @classmethod
    def from_file(
        cls, path: str | Path, *, precision: str = "float32", device: str = "cpu"
    ) -> GraphPESPotential:
        """Read a file of `save_graph_file`; PotentialError for any other."""
        architecture, weights, about = read_graph_file(path)
        return cls(architecture, weights, about, precision=precision, device=device)


def read_graph_file(path: str | Path) -> tuple[GraphArchitecture, dict[str, np.ndarray], dict[str, Any]]:
    """Architecture, weights and facts of a file; PotentialError for one that is none."""
    weights, about = read_safetensors(path, GRAPH_KIND, "a message-passing network")
    architecture = GraphArchitecture.from_facts(about.get("architecture", {}), path)
    elements = about.get("elements")
    if not isinstance(elements, list) or not all(isinstance(z, int) and 0 < z < 119 for z in elements):
        raise PotentialError(f"atomic numbers of the elements in {path}", repr(elements), "train it again")
    return architecture, weights, about


def save_graph_file(
    path: str | Path,
    architecture: GraphArchitecture,
    weights: Mapping[str, np.ndarray | torch.Tensor],
    about: Mapping[str, Any],
) -> None:
    """Write one safetensors file that `load_potential` reads; ``elements`` have to be among the facts."""
    write_safetensors(path, GRAPH_KIND, weights, {**about, "architecture": architecture.as_facts()})
