"""CUDA graphs: which modules one can hold, and what a module must be so that openmm-torch replays it rightly.

A graph is recorded once, on OpenMM's CUDA platform, and replayed at every step: one launch instead of
hundreds. It repeats what the device was told, so that every shape has to be known beforehand and nothing may
depend on a value that the host has seen. On other platforms nothing is recorded, with the same numbers.
"""

from __future__ import annotations

from typing import Any, Optional

import torch

from mlmm.errors import ConfigError
from mlmm.modules import Module
from mlmm.potentials.base import is_capturable

__all__ = ["CUDA_GRAPHS", "MEASURED", "EnergyAndForces", "SamePlaces", "has_cuda_graphs", "wants_graphs"]

#: Nothing is recorded yet: a run finds out by itself, see `mlmm.dynamics.graph_choice`.
MEASURED = "measured"
#: "on": an error where not all that the bridge evaluates can be recorded.
CUDA_GRAPHS = ("off", "on", MEASURED)


def wants_graphs(cuda_graphs: str, bridge: str, module: torch.nn.Module | None, name: str) -> bool:
    """Whether a module behind a bridge shall be recorded.

    Parameters
    ----------
    cuda_graphs : {"off", "on", "measured"}
    bridge : {"torchforce", "pythonforce", "native"}
    module : torch.nn.Module or None
        What a TorchForce would evaluate.
    name : str
        For messages.

    Raises
    ------
    ConfigError
        Another word, or "on" for what no graph can hold.
    """
    if cuda_graphs not in CUDA_GRAPHS:
        raise ConfigError(
            f"cuda_graphs = {' | '.join(CUDA_GRAPHS)}", repr(cuda_graphs), 'write cuda_graphs = "off"'
        )
    if cuda_graphs != "on":
        return False
    problem = None
    if bridge != "torchforce":
        problem = f"bridge {bridge!r}"
    elif module is None or not is_capturable(module):
        problem = f"{name}, whose tensors change their shapes from step to step"
    if problem is not None:
        raise ConfigError(
            "for CUDA graphs a TorchForce with ANI in a static zone, compiled mm_side, shapes not 'lists'",
            problem,
            'write cuda_graphs = "off"',
        )
    return True


def has_cuda_graphs(force: Any) -> bool:
    """Whether a force, as it was made, is a TorchForce that records its module."""
    properties = getattr(force, "getProperties", None)
    return properties is not None and dict(properties()).get("useCUDAGraphs") == "true"


class EnergyAndForces(Module):
    """Positions of the whole system to an energy, kJ/mol, and the forces of all atoms.

    Parameters
    ----------
    blend : torch.nn.Module
        ``forward(positions, box) -> energy``.
    """

    def __init__(self, blend: torch.nn.Module):
        super().__init__()
        self.blend = blend

    def forward(
        self, positions: torch.Tensor, box: Optional[torch.Tensor] = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For positions (N, 3) and box (3, 3), nm; forces in the precision of the positions."""
        where = positions.detach().to(torch.float64, copy=True)
        where.requires_grad_(True)
        energy = self.blend(where, box)
        gradient = torch.autograd.grad([energy], [where])[0]
        assert gradient is not None
        return energy, -gradient.to(positions.dtype)


class SamePlaces(Module):
    """Energy and forces in the same memory at every call.

    openmm-torch keeps two graphs, with and without forces, but one pair of results, which belongs to the
    graph that was recorded last: once OpenMM has asked for an energy alone, as a barostat does, it would read
    that graph's old results at every later step. Here both graphs write to one place.

    Parameters
    ----------
    module : torch.nn.Module
        ``forward(positions, box) -> (energy, forces)``.
    n_particles : int
        Of the System.
    """

    def __init__(self, module: torch.nn.Module, n_particles: int):
        super().__init__()
        self.module = module
        self.register_buffer("energy", torch.zeros((), dtype=torch.float64))
        # The host reads forces in the precision of its positions.
        self.register_buffer("in_single", torch.zeros(n_particles, 3, dtype=torch.float32))
        self.register_buffer("in_double", torch.zeros(n_particles, 3, dtype=torch.float64))

    def forward(
        self, positions: torch.Tensor, box: Optional[torch.Tensor] = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As the module."""
        energy, forces = self.module(positions, box)
        kept = self.in_double if positions.dtype == torch.float64 else self.in_single
        # Freezing a module drops its detach(); a result with a history would keep that of all steps.
        with torch.no_grad():
            self.energy.copy_(energy)
            kept.copy_(forces)
        return self.energy, kept
