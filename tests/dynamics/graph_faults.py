"""A hybrid whose model a graph can hold, and modules that are wrong as a CUDA graph may be wrong."""

from __future__ import annotations

from pathlib import Path

import torch

from mlmm.cache import cache_folder
from mlmm.dynamics.platforms import choose_platform
from mlmm.hybrid.cuda_graphs import SamePlaces
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import load_potential
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

CPU = choose_platform("CPU", 1)
#: ms without and with a graph
FASTER, SLOWER, EVEN = [2.0, 1.0], [1.0, 2.0], [1.0, 0.99]


def make(built, *, scheme="additive", bridge="torchforce", members=(0,), **options):
    """The dipeptide, or some of it, in ANI-1x."""
    potential = load_potential("ani1x", members=members, kernel="torch", **options)
    region = region_from_atoms(built.topology, range(22), "molecule")
    zones = hard_zones(built, region) if scheme == "additive" else static_zones(built, region)
    return hybrid_system(built, zones, potential, scheme=scheme, bridge=bridge)


def files() -> list[Path]:
    """What is remembered."""
    return list(cache_folder("graphs").glob("*"))


class Faulty(SamePlaces):
    """Right in some calls only; calls with forces and for the energy alone take turns."""

    def __init__(self, module: torch.nn.Module, n_particles: int):
        super().__init__(module, n_particles)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(
        self, positions: torch.Tensor, box: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces = self.module(positions, box)
        with torch.no_grad():
            self.calls.add_(1)
        return self.spoilt(energy, forces)


class Sound(Faulty):
    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return energy, forces


class OldForces(Faulty):
    """As a replay whose results belong to another graph."""

    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            if int(self.calls) <= 2:
                self.in_double.copy_(forces)
        return energy, self.in_double.to(forces.dtype)


class OneForce(Faulty):
    """One part in 10,000 of the largest force, and not in the first round."""

    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if int(self.calls) > 2:
            return energy, torch.where(forces.abs() == forces.abs().max(), 1.0001 * forces, forces)
        return energy, forces


class OldEnergy(Faulty):
    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            if int(self.calls) <= 2:
                self.energy.copy_(energy)
        return self.energy, forces


class OldEnergyAlone(Faulty):
    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            if int(self.calls) == 2:
                self.energy.copy_(energy)
        if int(self.calls) % 2 == 0:
            return self.energy, forces
        return energy, forces


class NoNumber(Faulty):
    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return energy, forces * float("nan")


class Raises(Faulty):
    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if int(self.calls) > 0:
            raise RuntimeError("operation not permitted when stream is capturing")
        return energy, forces


class NoMemory(Faulty):
    def spoilt(self, energy: torch.Tensor, forces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if int(self.calls) > 0:
            raise RuntimeError("CUDA out of memory")
        return energy, forces
