"""A machine-learned potential as an OpenMM Force: the only place on the force path that knows both libraries.

Three hosts give the same numbers. A TorchForce runs the model as TorchScript without Python in the loop; a
PythonForce runs any model through its `atom_energies`; where the energy is that of the compiled kernel with
constant weights, "native" is a PythonForce that hands numpy arrays to it, without torch and without the
arrays of all atoms that a TorchForce copies. A force is made by calling `make_force` again, never
by copying: copying a TorchForce ends the process with openmmtorch 1.5.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import openmm
import torch
from openmm import unit

from mlmm.errors import ConfigError, MissingPackageError, PotentialError
from mlmm.hybrid.cuda_graphs import EnergyAndForces, SamePlaces, wants_graphs
from mlmm.potentials.base import (
    PotentialModel,
    check_elements,
    energy_and_forces,
    scriptable_module,
)
from mlmm.structures import Structure

__all__ = [
    "BRIDGES",
    "choose_bridge",
    "make_blend_force",
    "make_force",
    "make_pair_force",
    "torchforce_problem",
]

logger = logging.getLogger(__name__)
BRIDGES = ("auto", "torchforce", "pythonforce", "native")


def choose_bridge(
    bridge: str, model: PotentialModel, *, constant_weights: bool = False, on_gpu: bool = False
) -> str:
    """Resolve ``"auto"``: the kernel itself where it suffices, else a working TorchForce, else PythonForce.

    Parameters
    ----------
    bridge : {"auto", "torchforce", "pythonforce", "native"}
    model : PotentialModel
    constant_weights : bool
        Whether all that the model adds is sum_i lambda_i eps_i with constant lambda_i.
    on_gpu : bool
        Whether a TorchForce may run on a GPU: then "auto" leaves the model to it.

    Returns
    -------
    str
        ``"torchforce"``, ``"pythonforce"`` or ``"native"``.

    Raises
    ------
    ConfigError
        Another word, or the kernel where the energy is more than it gives or the model is not compiled.
    PotentialError
        A TorchForce for a model without TorchScript form.
    MissingPackageError
        A TorchForce where openmm-torch is missing or does not work.
    """
    if bridge not in BRIDGES:
        raise ConfigError(f"bridge = {' | '.join(BRIDGES)}", repr(bridge), 'write bridge = "auto"')
    if bridge == "pythonforce":
        return bridge
    compiled = getattr(model, "kernel", None) == "native"
    if bridge == "native" and not (compiled and constant_weights):
        raise ConfigError(
            "a potential by the compiled kernel, with constant lambda and nothing added, for bridge 'native'",
            "an energy with more to it" if compiled else f"{model.spec.name}, which is not compiled here",
            'write bridge = "auto"',
        )
    if compiled and constant_weights and (bridge == "native" or (bridge == "auto" and not on_gpu)):
        return "native"
    if scriptable_module(model) is None:
        if bridge == "torchforce":
            raise PotentialError(
                "a potential with a TorchScript form for bridge 'torchforce'",
                f"{model.spec.name}, which has none",
                'set bridge = "pythonforce" or "auto"',
            )
        return "pythonforce"
    problem = torchforce_problem()
    if problem is None:
        return "torchforce"
    if bridge == "torchforce":
        raise MissingPackageError(
            "a working TorchForce",
            problem,
            "pip install torch==2.9.1 openmmtorch==1.5, or set bridge to pythonforce",
        )
    logger.warning("TorchForce does not work here (%s): using PythonForce", problem)
    return "pythonforce"


@functools.cache
def torchforce_problem() -> str | None:
    """Evaluate a tiny TorchForce once; returns None if its energy and force are right, else what is wrong."""
    try:
        system = openmm.System()
        system.addParticle(1.0)
        system.addForce(_torch_force_class()(torch.jit.script(_Quadratic())))
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions([openmm.Vec3(1.0, 2.0, 3.0)])
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        force = state.getForces()[0].value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        right = abs(energy - 14.0) < 1e-9 and abs(force[2] + 6.0) < 1e-9
        return None if right else f"energy {energy} instead of 14"
    except Exception as error:  # an ABI mismatch shows as ImportError, RuntimeError or OpenMMException
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0] or 'no message'}"


def make_force(
    model: PotentialModel,
    numbers: Sequence[int],
    atoms: Sequence[int],
    *,
    bridge: str,
    periodic: bool,
    charge: int = 0,
    spin: int = 1,
    cuda_graphs: str = "off",
    n_particles: int = 0,
) -> openmm.Force:
    """The energy of a region as an OpenMM Force.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int
        Atomic numbers of the region.
    atoms : sequence of int
        Their indices in the System.
    bridge : {"torchforce", "pythonforce", "native"}
        As `choose_bridge` returns it.
    periodic : bool
        Whether the model gets the box (minimum image inside the region).
    charge, spin : int
        Net charge (e) and multiplicity of the region.
    cuda_graphs : {"off", "auto", "on"}
        Whether a TorchForce on OpenMM's CUDA platform records the model as one graph and replays it.
    n_particles : int
        Of the System; for `cuda_graphs` only.

    Raises
    ------
    ConfigError
        ``cuda_graphs = "on"`` for what no graph can hold.
    PotentialError
        An element that the model does not know.
    """
    check_elements(model.spec, numbers)
    bound = scriptable_module(model)(list(numbers)) if bridge == "torchforce" else None
    graphs = wants_graphs(cuda_graphs, bridge, bound, model.spec.name)
    if bound is not None:
        module = _RegionModule(bound, torch.tensor(list(atoms)))
        force = _torch_force(module, n_particles if graphs else None)
        force.setOutputsForces(True)
    elif bridge == "native":
        kernel = scriptable_module(model)(list(numbers)).weighted([1.0] * len(numbers))
        force = _kernel_force(kernel, atoms, periodic)
    else:
        force = openmm.PythonForce(_RegionFunction(model, numbers, periodic, charge, spin))
        force.setParticles(list(atoms))
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName(f"{model.spec.name} region")
    return force


def make_blend_force(
    blend: torch.nn.Module,
    *,
    bridge: str,
    periodic: bool,
    name: str,
    cuda_graphs: str = "off",
    n_particles: int = 0,
) -> openmm.Force:
    """A module of the positions of the whole system, (N, 3), and the box as an OpenMM Force.

    Parameters
    ----------
    blend : torch.nn.Module
        ``forward(positions, box) -> energy`` in kJ/mol.
    bridge : {"torchforce", "pythonforce", "native"}
        The last for a module whose `weighted_kernel` and `visible` are all that it is, a `WeightedModel`.
    periodic : bool
    name : str
    cuda_graphs, n_particles
        See `make_force`.
    """
    if wants_graphs(cuda_graphs, bridge, blend, name):
        force = _torch_force(EnergyAndForces(blend), n_particles)
        force.setOutputsForces(True)
    elif bridge == "torchforce":
        force = _torch_force(blend, None)
    elif bridge == "native":
        force = _kernel_force(blend.weighted_kernel(), blend.visible.tolist(), periodic)
    else:
        force = openmm.PythonForce(_BlendFunction(blend, periodic))
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName(name)
    return force


def make_pair_force(pairs: Any, atoms: Sequence[int], *, periodic: bool, name: str) -> openmm.Force:
    """Pairs that the host without torch subtracts as an OpenMM Force.

    Parameters
    ----------
    pairs : callable
        ``pairs(positions, cell) -> energy, gradient``, such as `mlmm.kernels.direct_pairs.RegionPairs`.
    atoms : sequence of int
        Whose positions it gets.
    periodic : bool
    name : str
    """
    force = _kernel_force(pairs, atoms, periodic)
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName(name)
    return force


def _torch_force(module: torch.nn.Module, graphs_of: int | None) -> openmm.Force:
    """A TorchForce, with CUDA graphs if the number of particles is given."""
    if graphs_of is None:
        return _torch_force_class()(torch.jit.script(module.eval()))
    force = _torch_force_class()(torch.jit.script(SamePlaces(module, graphs_of).eval()))
    force.setProperty("useCUDAGraphs", "true")
    return force


def _kernel_force(kernel: Any, atoms: Sequence[int], periodic: bool) -> openmm.Force:
    """The host without torch."""
    force = openmm.PythonForce(_KernelFunction(kernel, periodic))
    force.setParticles(list(atoms))
    return force


class _KernelFunction:
    """What a PythonForce calls: a State with the positions of the visible atoms to energy and forces."""

    def __init__(self, kernel: Any, periodic: bool):
        self.kernel, self.periodic = kernel, periodic

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        # A State is in nm; value_in_unit would cost as much as all the rest here.
        positions = state.getPositions(asNumpy=True)._value
        cell = state.getPeriodicBoxVectors(asNumpy=True)._value if self.periodic else None
        energy, gradient = self.kernel(positions, cell)
        return energy, -gradient


class _BlendFunction:
    """What a PythonForce calls for a whole-system module."""

    def __init__(self, blend: torch.nn.Module, periodic: bool):
        self.blend, self.periodic = blend, periodic

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = torch.tensor(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        positions = positions.to(torch.float64).requires_grad_(True)
        box = None
        if self.periodic:
            box = torch.tensor(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
        energy = self.blend(positions, box)
        (gradient,) = torch.autograd.grad(energy, positions)
        return float(energy.detach()), -gradient.cpu().numpy()


class _RegionModule(torch.nn.Module):
    """What a TorchForce evaluates: positions of the whole system to energy (kJ/mol) and forces of the region.

    The gradient is taken in the region's own coordinates: by TorchForce itself it would be in all of them.
    """

    def __init__(self, model: torch.nn.Module, atoms: torch.Tensor):
        super().__init__()
        self.model = model
        self.register_buffer("atoms", atoms)

    def forward(
        self, positions: torch.Tensor, box: Optional[torch.Tensor] = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Outside of the CUDA platform the host's tensors stay in main memory wherever the module is.
        where = positions.to(self.atoms.device)
        if box is not None:
            box = box.to(self.atoms.device)
        inside = where.index_select(0, self.atoms).to(torch.float64)
        inside.requires_grad_(True)
        energy = self.model(inside, box).mean(dim=0).sum()
        gradient = torch.autograd.grad([energy], [inside])[0]
        assert gradient is not None
        forces = torch.zeros_like(where)
        forces.index_copy_(0, self.atoms, -gradient.to(positions.dtype))
        return energy, forces.to(positions.device)


class _RegionFunction:
    """What a PythonForce calls: a State with the region's positions to its energy and forces."""

    def __init__(self, model: PotentialModel, numbers: Sequence[int], periodic: bool, charge: int, spin: int):
        self.model = model
        self.numbers = torch.tensor(list(numbers), dtype=torch.int64)
        self.periodic = periodic
        self.charge, self.spin = charge, spin

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = torch.from_numpy(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        cell = None
        if self.periodic:
            cell = torch.from_numpy(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
        structure = Structure(self.numbers, positions.to(torch.float64), cell, self.charge, self.spin)
        energy, forces = energy_and_forces(self.model, structure)
        return energy, forces.detach().cpu().numpy()


class _Quadratic(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.square().sum()


def _torch_force_class() -> type:
    """The TorchForce class; torch is imported already, as openmmtorch needs."""
    # openmmtorch imports OpenMM under its old name, which logs a warning that no user can act on.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from openmmtorch import TorchForce
    finally:
        logging.disable(disabled)
    _load_plugins()
    return TorchForce


def _load_plugins() -> None:
    """Load openmm-torch's kernels where OpenMM was imported before torch, whose libraries they need."""
    if openmm.Platform.getPlatformByName("Reference").supportsKernels(["CalcTorchForce"]):
        return
    for library in sorted(Path(openmm.version.openmm_library_path, "plugins").glob("*OpenMMTorch*")):
        # A kernel for hardware that is not here fails to load; the test that follows finds what is missing.
        with contextlib.suppress(openmm.OpenMMException):
            openmm.Platform.loadPluginLibrary(str(library))
