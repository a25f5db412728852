"""Energy and forces of a hybrid system's potential alone, evaluated as its bridge evaluates them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import torch

from mlmm.bench.measure import Task
from mlmm.errors import SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.potentials.base import energy_and_forces, scriptable_module

__all__ = ["energy_task", "plugin_task", "potential_task"]


def energy_task(call: Callable[[], Any]) -> Task:
    """Repeated evaluation of an energy as a task; an energy that is not finite ends it.

    Parameters
    ----------
    call : callable
        Returns the energy, a number or a tensor, or a tuple that begins with it.
    """
    last: list[Any] = [0.0]

    def run(n: int) -> None:
        for _ in range(n):
            last[0] = call()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()

    def check() -> None:
        energy = last[0][0] if isinstance(last[0], tuple) else last[0]
        if not np.isfinite(float(energy)):
            raise SimulationError("a finite energy", str(float(energy)), "look at the structure")

    return Task(run, check=check)


def potential_task(hybrid: HybridSystem, positions: np.ndarray, box: np.ndarray | None) -> Task:
    """Energy and forces of what the bridge evaluates, as a task.

    Parameters
    ----------
    hybrid : HybridSystem
    positions : ndarray, shape (N, 3), nm
        Of the whole system.
    box : ndarray, shape (3, 3), nm, or None
    """
    if hybrid.bridge == "native":
        (force,) = (f for f in hybrid.system.getForces() if f.getForceGroup() == hybrid.force_groups["ml"])
        return plugin_task(force, positions, box)
    if hybrid.blend is not None:
        blend = hybrid.blend.eval()
        if hybrid.bridge == "torchforce":
            blend = torch.jit.freeze(torch.jit.script(blend))
        return energy_task(_module(blend, positions, box))
    structure = hybrid.region_structure(positions, box)
    if hybrid.bridge == "torchforce":
        scriptable = scriptable_module(hybrid.potential)
        assert scriptable is not None, "a TorchForce has a TorchScript form"
        model = torch.jit.freeze(torch.jit.script(scriptable(structure.numbers.tolist()).eval()))
        cell = None if structure.cell is None else structure.cell.numpy()
        return energy_task(_module(model, structure.positions.numpy(), cell))
    return energy_task(lambda: energy_and_forces(hybrid.potential, structure))


def plugin_task(force: openmm.Force, positions: np.ndarray, box: np.ndarray | None) -> Task:
    """Energy and forces of a force on the platform CPU with no other beside it, as a task.

    Parameters
    ----------
    force : openmm.Force
        It is copied.
    positions : ndarray, shape (N, 3), nm
        Of the whole system.
    box : ndarray, shape (3, 3), nm, or None
    """
    system = openmm.System()
    for _ in range(len(positions)):
        system.addParticle(0.0)  # it stays where it is
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(copy.deepcopy(force))
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(positions)

    def check() -> None:
        energy = context.getState(energy=True).getPotentialEnergy()._value
        if not np.isfinite(energy):
            raise SimulationError("a finite energy", str(energy), "look at the structure")

    return Task(integrator.step, check=check)


def _module(model: Any, positions: np.ndarray, box: np.ndarray | None) -> Callable[[], Any]:
    """A module of positions and box, differentiated by torch."""
    where = torch.tensor(positions, dtype=torch.float64)
    cell = None if box is None else torch.tensor(box, dtype=torch.float64)

    def call() -> torch.Tensor:
        moved = where.clone().requires_grad_(True)
        energy = model(moved, cell)
        if energy.dim() == 2:
            energy = energy.mean(dim=0)
        energy.sum().backward()
        return energy.detach().sum()

    return call
