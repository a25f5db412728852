"""Contexts with an ANIForce on every platform that is here: CUDA, HIP, OpenCL where there is a driver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
import pytest
import torch

from mlmm.plugin import ANIForce
from mlmm.potentials import load_potential

_NAMES = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
_OPENCL = pytest.mark.skipif(
    "OpenCL" not in _NAMES, reason="no OpenCL driver: tests/README.md says how to have one without a GPU"
)
PLATFORMS = [
    pytest.param(("Reference", {}), id="Reference"),
    pytest.param(("CPU", {"Threads": "1"}), id="CPU"),
    *(
        pytest.param((name, {"Precision": precision}), id=f"{name}-{precision}", marks=marks)
        for name, marks in (("CUDA", ()), ("HIP", ()), ("OpenCL", _OPENCL))
        for precision in ("single", "mixed", "double")
        if marks or name in _NAMES
    ),
]
#: Of max|F| or of sum|eps|: networks in float64 on the processor, and the arithmetic of GPU platforms. In
#: single precision the positions are rounded as well; in double OpenMM sums forces in units of 2^-32.
TOLERANCE = {"": 2e-8, "single": 2e-5, "mixed": 5e-6, "double": 5e-8}
#: Two members make every difference between members visible and are quick.
MEMBERS = (0, 1)


def picked(*kinds: str) -> list:
    """Platforms by name, or by "GPU" and a precision: "GPU-mixed" is each of CUDA, HIP and OpenCL."""
    return [p for p in PLATFORMS if p.id in kinds or f"GPU-{p.id.partition('-')[2]}" in kinds]


def tolerance(platform: tuple[str, dict[str, str]]) -> float:
    """What the arithmetic of a platform allows, relative."""
    return TOLERANCE[platform[1].get("Precision", "")]


def parameters():
    """Two members of ANI-1x."""
    return load_potential("ani1x", members=MEMBERS).parameters


def system_of(n: int, *forces: openmm.Force, cell: np.ndarray | None = None) -> openmm.System:
    """Carbon masses and nothing else but these forces."""
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    if cell is not None:
        system.setDefaultPeriodicBoxVectors(*np.asarray(cell))
    for force in forces:
        system.addForce(force)
    return system


def context_of(
    system: openmm.System, platform: tuple[str, dict[str, str]], integrator: openmm.Integrator | None = None
) -> openmm.Context:
    """On a platform with its properties."""
    integrator = openmm.VerletIntegrator(0.0005) if integrator is None else integrator
    name, properties = platform
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(name), properties)


def evaluated(context: openmm.Context, positions: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """Energy and forces, at other positions if they are given."""
    if positions is not None:
        context.setPositions(np.asarray(positions))
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def in_torch(
    numbers: Sequence[int], positions: np.ndarray, weights: np.ndarray, cell: np.ndarray | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Weighted energy, forces, and energies (members, atoms) by the networks in torch, float64."""
    potential = load_potential("ani1x", members=MEMBERS, precision="float64", kernel="torch")
    where = torch.tensor(positions, requires_grad=True)
    box = None if cell is None else torch.tensor(cell)
    members = potential.scriptable(list(numbers))(where, box)
    energy = (members.mean(dim=0) * torch.tensor(weights)).sum()
    (gradient,) = torch.autograd.grad(energy, where)
    return energy.item(), -gradient.numpy(), members.detach().numpy()


def force_of(numbers: Sequence[int], weights: np.ndarray | None = None, **options) -> ANIForce:
    """Of the particles 0, 1, 2, …, networks in float64 on the processor."""
    options = {"precision": "float64"} | options
    return ANIForce(parameters(), numbers, None, weights, **options)
