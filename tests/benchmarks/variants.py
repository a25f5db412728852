"""The ways to evaluate one system that are timed side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openmm
import torch

from benchmarks.peers import openmm_ml_system, torchani_model
from benchmarks.systems import rigid_outside
from mlmm.bench.measure import Task, step_task
from mlmm.bench.potential_call import energy_task, plugin_task
from mlmm.build import BuiltSystem
from mlmm.dynamics.platforms import choose_platform
from mlmm.errors import ConfigError
from mlmm.hybrid.bridge import make_force
from mlmm.hybrid.hosts import RegionEnergy
from mlmm.hybrid.spec import atomic_numbers
from mlmm.hybrid.system import hybrid_system
from mlmm.plugin import ANIForce, plugin_problem
from mlmm.potentials import load_potential
from mlmm.potentials.ani.potential import ANIPotential
from mlmm.potentials.base import AtomEnergies, PotentialSpec
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, FEMTOSECOND
from mlmm.zones.region import Region
from mlmm.zones.static import hard_zones, static_zones

__all__ = ["ON_A_GPU", "VARIANTS", "Timed", "bare_call", "load", "make", "stepper", "trivial_system"]

#: name -> what it is
VARIANTS = {
    "mm": "the force field alone",
    "mlmm": "scheme additive, the kernel that mlmm chooses",
    "mlmm-torch": "scheme additive, networks and symmetry functions in torch",
    "mlmm-per-atom": "scheme per_atom, default zone (plateau 0.3 nm, width 0.2 nm)",
    "mlmm-lists": "as mlmm-torch, with lists of neighbours as long as they have to be, also on a GPU",
    "mlmm-graphs": "as mlmm-torch, with lists of fixed length, recorded as a CUDA graph where there is CUDA",
    "openmm-ml": "OpenMM-ML's mechanical embedding with torchani and the same weights",
}
#: Variants that differ from `mlmm` and `mlmm-torch` on a GPU only.
ON_A_GPU = ("mlmm-lists", "mlmm-graphs")
_SHAPES = {"mlmm-lists": "lists", "mlmm-graphs": "fixed"}
ML_GROUP = 5
_TEMPERATURE = 300.0


@dataclass(frozen=True, eq=False)
class Timed:
    """A System that is ready to be timed.

    Parameters
    ----------
    variant : str
    system : openmm.System
    ml_atoms, members : int
        Atoms whose energies the potential gives, networks in its committee; 0 without one.
    ml_group : int or None
        Force group of the potential.
    """

    variant: str
    system: openmm.System
    ml_atoms: int = 0
    members: int = 0
    ml_group: int | None = None


def load(variant: str, name: str) -> ANIPotential:
    """The potential as a variant evaluates it."""
    in_torch = variant in ("mlmm-torch", "openmm-ml", *ON_A_GPU)
    return load_potential(name, kernel="torch" if in_torch else "auto", shapes=_SHAPES.get(variant, "auto"))


def make(
    variant: str,
    built: BuiltSystem,
    region: Region,
    potential: ANIPotential,
    flexible: BuiltSystem | None = None,
) -> Timed:
    """The System of one variant.

    Parameters
    ----------
    variant : str
        A key of `VARIANTS`.
    built : BuiltSystem
    region : Region
        Whole molecules.
    potential : ANIPotential
        From `load`, for this variant.
    flexible : BuiltSystem, optional
        The same atoms without constraints, which scheme ``per_atom`` needs in its zone.

    Raises
    ------
    ConfigError
        An unknown variant, or ``mlmm-per-atom`` without `flexible`.
    MissingPackageError
        A peer that is not installed.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"variants {', '.join(VARIANTS)}", repr(variant), "correct --variants")
    if variant == "mm":
        return Timed("mm", built.system)
    members = potential.spec.members
    if variant == "openmm-ml":
        system = openmm_ml_system(built, region.atoms, potential, potential.spec.name[-2:], ML_GROUP)
        return Timed(variant, system, len(region), members, ML_GROUP)
    if variant == "mlmm-per-atom":
        if flexible is None:
            raise ConfigError("flexible molecules for mlmm-per-atom", "none", "pass flexible")
        zones = static_zones(built, region)
        mixed = rigid_outside(flexible, built, zones.active)
        hybrid = hybrid_system(mixed, zones, potential, scheme="per_atom")
        return Timed(variant, hybrid.system, len(hybrid.zones.active), members, hybrid.force_groups["ml"])
    graphs = "on" if variant == "mlmm-graphs" else "off"
    hybrid = hybrid_system(built, hard_zones(built, region), potential, scheme="additive")
    hybrid = hybrid.reassembled(cuda_graphs=graphs)
    return Timed(variant, hybrid.system, len(region), members, hybrid.force_groups["ml"])


def stepper(
    timed: Timed,
    positions: np.ndarray,
    *,
    threads: int = 0,
    thermostat: bool = True,
    platform: str = "CPU",
) -> Task:
    """Dynamics of a variant at 1 fs as a task for `interleaved`.

    Parameters
    ----------
    timed : Timed
    positions : ndarray, shape (N, 3), nm
    threads : int
        Of OpenMM's CPU platform; 0 for its own choice.
    thermostat : bool
        Langevin at 300 K, otherwise plain Verlet.
    platform : str
        OpenMM's; a GPU in mixed precision.
    """
    if thermostat:
        integrator: openmm.Integrator = openmm.LangevinMiddleIntegrator(_TEMPERATURE, 5.0, FEMTOSECOND)
        integrator.setRandomNumberSeed(1)
    else:
        integrator = openmm.VerletIntegrator(FEMTOSECOND)
    context = openmm.Context(timed.system, integrator, *choose_platform(platform, threads))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(_TEMPERATURE, 1)
    return step_task(context)


class _Nothing(torch.nn.Module):
    """A potential that costs nothing: zero, but differentiable."""

    def forward(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        return (0.0 * positions).sum(dim=1).unsqueeze(0)

    @torch.jit.unused
    def weighted(self, weights: list[float]) -> Callable[..., tuple[float, np.ndarray]]:
        return _nothing


def _nothing(positions: np.ndarray, cell: np.ndarray | None) -> tuple[float, np.ndarray]:
    return 0.0, np.zeros_like(positions)


class _NoPotential:
    """`_Nothing` as a potential with a TorchScript form."""

    def __init__(self) -> None:
        elements = tuple(range(1, 19))
        self.spec = PotentialSpec("nothing", elements, 0.5, 0.5, "isolated")

    def scriptable(self, numbers, centres=None) -> torch.nn.Module:
        return _Nothing()

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        return AtomEnergies(_Nothing()(structure.positions, structure.cell)[0])


def trivial_system(built: BuiltSystem, region: Region, *, bridge: str | None) -> Timed:
    """Particles without a force field, with a potential that costs nothing behind a bridge or without it.

    The difference of a step is what the bridge itself costs.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
    bridge : {"torchforce", "pythonforce", "native"} or None
    """
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*built.system.getDefaultPeriodicBoxVectors())
    for i in range(built.n_atoms):
        system.addParticle(built.system.getParticleMass(i))
    if bridge is None:
        return Timed("no force", system)
    numbers = atomic_numbers(built, region.atoms)
    if bridge == "native":
        # Particles of weight 0 are seen by nobody.
        force = ANIForce("ani1x", numbers, region.atoms, [0.0] * len(region), periodic=True)
    else:
        energy = RegionEnergy(_NoPotential(), numbers, region.atoms)
        force = make_force(energy, bridge=bridge, periodic=True, name="no potential")
    force.setForceGroup(ML_GROUP)
    system.addForce(force)
    return Timed(bridge, system, len(region), 1, ML_GROUP)


def bare_call(variant: str, built: BuiltSystem, region: Region, potential: ANIPotential) -> Task:
    """Energy and forces of a region without OpenMM, as a task for `interleaved`.

    Parameters
    ----------
    variant : str
        ``mlmm``, ``mlmm-torch`` or ``openmm-ml``.
    built : BuiltSystem
    region : Region
    potential : ANIPotential
    """
    atoms = list(region.atoms)
    numbers = atomic_numbers(built, atoms)
    positions = torch.tensor(built.positions[atoms])
    cell = torch.tensor(built.box_vectors)
    if variant == "openmm-ml":
        model = torchani_model(potential, potential.spec.name[-2:], torch.float32)
        species = torch.tensor([numbers])
        angstrom = (positions / ANGSTROM).to(torch.float32).unsqueeze(0)
        box = (cell / ANGSTROM).to(torch.float32)
        periodic = torch.tensor([True, True, True])

        def peer() -> torch.Tensor:
            moved = angstrom.clone().requires_grad_(True)
            _, energy = model((species, moved), cell=box, pbc=periodic)
            energy.backward()
            return energy.detach().sum()

        return energy_task(peer)
    if variant == "mlmm" and potential.in_openmm and plugin_problem() is None:
        force = ANIForce(potential.parameters, numbers, periodic=True, precision=potential.spec.precision)
        return plugin_task(force, positions.numpy(), cell.numpy())
    # As a TorchForce does it: compiled and frozen.
    module = torch.jit.freeze(torch.jit.script(potential.scriptable(numbers).eval()))

    def ours() -> torch.Tensor:
        moved = positions.clone().requires_grad_(True)
        energy = module(moved, cell).mean(dim=0).sum()
        energy.backward()
        return energy.detach()

    return energy_task(ours)
