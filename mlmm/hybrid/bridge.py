"""The host of a potential: which one suits, and an energy as an OpenMM Force.

Three bridges give the same numbers. A TorchForce runs the model as TorchScript without Python in the loop; a
PythonForce runs any model through its `atom_energies`; where the model is ANI networks and nothing is added,
"native" is a force of OpenMM's own kind out of `mlmm.plugin`, see `mlmm.hybrid.native_force`. A TorchForce is
made by calling `make_force` again: one of openmmtorch 1.5 cannot be copied (OpenMM raises an error).
"""

from __future__ import annotations

import contextlib
import functools
import logging
from pathlib import Path

import openmm
import torch
from openmm import unit

from mlmm.errors import ConfigError, MissingPackageError, PotentialError
from mlmm.hybrid.cuda_graphs import EnergyAndForces, SamePlaces, wants_graphs
from mlmm.hybrid.hosts import (
    BlendEnergy,
    PairEnergy,
    PythonHost,
    RegionEnergy,
    RegionModule,
    WholeModule,
)
from mlmm.modules import Module
from mlmm.plugin.library import load_plugin, plugin_problem
from mlmm.potentials.base import PotentialModel, scriptable_module

__all__ = [
    "BRIDGES",
    "choose_bridge",
    "has_gpu",
    "make_force",
    "torchforce_problem",
]

logger = logging.getLogger(__name__)
BRIDGES = ("auto", "torchforce", "pythonforce", "native")


def choose_bridge(bridge: str, model: PotentialModel, *, in_plugin: bool = False) -> str:
    """Resolve ``"auto"``: the plugin where it suffices, else a working TorchForce, else PythonForce.

    Parameters
    ----------
    bridge : {"auto", "torchforce", "pythonforce", "native"}
    model : PotentialModel
    in_plugin : bool
        Whether the plugin has all that is added to the force field: the networks' energy under any scheme and
        in any zone, but no charges that follow the atoms or polarise the region.

    Returns
    -------
    str
        ``"torchforce"``, ``"pythonforce"`` or ``"native"``.

    Raises
    ------
    ConfigError
        Another word, or the plugin where the energy is more than it gives or the model is none of its family.
    PotentialError
        A TorchForce for a model without TorchScript form.
    MissingPackageError
        A TorchForce where openmm-torch is missing or does not work, or the plugin where it was not built or
        is for another OpenMM.
    """
    if bridge not in BRIDGES:
        raise ConfigError(f"bridge = {' | '.join(BRIDGES)}", repr(bridge), 'write bridge = "auto"')
    if bridge == "pythonforce":
        return bridge
    of_family = bool(getattr(model, "in_openmm", False))
    if bridge == "native" and not (of_family and in_plugin):
        raise ConfigError(
            "ANI networks, not in torch, and fixed charges, for bridge 'native'",
            "charges that follow the atoms" if of_family else model.spec.name,
            'write bridge = "auto"',
        )
    if bridge == "native":
        load_plugin()
        return bridge
    if bridge == "auto" and of_family and in_plugin:
        problem = plugin_problem()
        if problem is None:
            return "native"
        logger.warning("%s not by OpenMM's plugin: %s", model.spec.name, problem)
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
    energy: RegionEnergy | BlendEnergy | PairEnergy | torch.nn.Module,
    *,
    bridge: str,
    periodic: bool,
    name: str,
    cuda_graphs: str = "off",
    n_particles: int = 0,
) -> openmm.Force:
    """An energy as an OpenMM Force.

    Parameters
    ----------
    energy : RegionEnergy, BlendEnergy, PairEnergy, or torch.nn.Module
        A module is a blend, see `mlmm.hybrid.hosts.BlendEnergy`.
    bridge : {"torchforce", "pythonforce"}
    periodic : bool
        Whether the energy gets the box (minimum image).
    name : str
        Of the force.
    cuda_graphs : {"off", "on", "measured"}
        Whether a TorchForce on OpenMM's CUDA platform records the energy as one graph and replays it;
        "measured" is "off" here.
    n_particles : int
        Of the System; for `cuda_graphs` only.

    Raises
    ------
    ConfigError
        ``cuda_graphs = "on"`` for what no graph can hold.
    """
    if isinstance(energy, torch.nn.Module):
        energy = BlendEnergy(energy)
    module = None
    if isinstance(energy, RegionEnergy) and bridge == "torchforce":
        module = energy.bound()
    elif isinstance(energy, BlendEnergy):
        module = energy.blend
    graphs = wants_graphs(cuda_graphs, bridge, module, name)
    if bridge == "torchforce":
        assert module is not None
        force = _torch_force(energy, module, n_particles if graphs else None)
    else:
        force = openmm.PythonForce(PythonHost(energy, periodic))
        if energy.atoms is not None:
            force.setParticles(energy.atoms)
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName(name)
    return force


def _torch_force(
    energy: RegionEnergy | BlendEnergy | PairEnergy, module: torch.nn.Module, graphs_of: int | None
) -> openmm.Force:
    """A TorchForce, with CUDA graphs if the number of particles is given."""
    gives_forces = True
    host: torch.nn.Module
    if isinstance(energy, RegionEnergy):
        host = RegionModule(module, torch.tensor(energy.atoms))
    elif graphs_of is not None:
        host = EnergyAndForces(WholeModule(module))
    else:
        host, gives_forces = WholeModule(module), False
    if graphs_of is not None:
        host = SamePlaces(host, graphs_of)
    force = _torch_force_class()(torch.jit.script(host.eval()))
    if graphs_of is not None:
        force.setProperty("useCUDAGraphs", "true")
    if gives_forces:
        force.setOutputsForces(True)
    return force


class _Quadratic(Module):
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


def has_gpu() -> bool:
    """Whether OpenMM runs on a GPU here by default; on OpenCL it does only by its name."""
    names = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    return not names.isdisjoint(("CUDA", "HIP"))
