"""Potentials and systems with exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import openmm
import torch
from openmm import app, unit

from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.build import BuiltSystem
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.spec import SWITCHING_START
from mlmm.potentials import AtomEnergies, PotentialSpec
from mlmm.structures import Structure, neighbour_pairs
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import ZonePartition

_CUTOFF = 0.5


def toy_spec(name: str = "springs", **changes: object) -> PotentialSpec:
    """A spec for potentials that know every element."""
    facts = {
        "elements": tuple(range(1, 119)),
        "cutoff": 0.4,
        "receptive_field": 0.4,
        "trained_on": "isolated",
    }
    return PotentialSpec(**({"name": name} | facts | changes))


class Springs(torch.nn.Module):
    """A spring between every two atoms: eps_i = 1/4 k sum_j (r_ij - length)^2, open boundary."""

    def __init__(self, k: float = 1000.0, length: float = 0.15):
        super().__init__()
        self.k, self.length = k, length

    def forward(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        separation = positions.unsqueeze(0) - positions.unsqueeze(1)
        # The diagonal gets a distance of its own, so that the root has a gradient.
        distance = (separation.square().sum(-1) + torch.eye(positions.shape[0], dtype=positions.dtype)).sqrt()
        energy = 0.25 * self.k * (distance - self.length).square()
        energy = energy * (1.0 - torch.eye(positions.shape[0], dtype=positions.dtype))
        return energy.sum(dim=1, keepdim=True).t()


class SpringPotential:
    """`Springs` as a potential with a TorchScript form."""

    def __init__(self, k: float = 1000.0, length: float = 0.15):
        self.spec = toy_spec()
        self.module = Springs(k, length)

    def scriptable(self, numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
        return self.module

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        return AtomEnergies(self.module(structure.positions, structure.cell)[0])


class PlainSprings:
    """The same without a TorchScript form: what a user of their own model brings."""

    def __init__(self, k: float = 1000.0, length: float = 0.15):
        self.spec = toy_spec("plain springs")
        self._springs = Springs(k, length)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        return AtomEnergies(self._springs(structure.positions, structure.cell)[0])


class InPython:
    """A model without its TorchScript form, under another spec if one is given."""

    def __init__(self, model, spec: PotentialSpec | None = None):
        self.model, self.spec = model, spec or model.spec

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        return self.model.atom_energies(structure)


class WrongForces(PlainSprings):
    """Negative control: the energy depends on the positions in a way that the gradient does not see."""

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        energies = super().atom_energies(structure).energies
        return AtomEnergies(energies + 0.1 * energies.detach())


class Swirl(PlainSprings):
    """Negative control: springs plus a force around the z axis, which is no gradient and feeds energy in."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        energies = super().atom_energies(structure).energies
        x, y, _ = structure.positions.t()
        around = self.strength * (y * x.detach() - x * y.detach())
        return AtomEnergies(energies + around - around.detach())


class ForceFieldEnergies(torch.nn.Module):
    """The short-range force field as a model, scaled, with an optional flow between neighbours."""

    def __init__(self, short_range: torch.nn.Module, scale: float, gauge: float):
        super().__init__()
        self.short_range, self.scale, self.gauge = short_range, scale, gauge

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        energies = self.short_range(positions, cell, centres) * self.scale
        # Antisymmetric between one atom and the next: the sum over all atoms does not feel it.
        flow = self.gauge * positions[: energies.shape[0], 0].sin()
        energies = energies + flow - flow.roll(1, 0)
        if centres is not None:
            energies = energies.index_select(0, centres)
        return energies.unsqueeze(0)


class ForceFieldPotential:
    """X1 (scale 1), X2 (another scale) and X3 (with gauge) of the verification list."""

    def __init__(self, built, scale: float = 1.0, gauge: float = 0.0):
        self.spec = toy_spec("force field", cutoff=_CUTOFF, receptive_field=_CUTOFF, trained_on="total")
        self.tables = read_mm_tables(built.system)
        self.scale, self.gauge = scale, gauge

    def scriptable(self, numbers, centres=None):
        centres = list(range(len(numbers))) if centres is None else centres
        visible = np.ones(len(numbers), dtype=bool)
        energies = ShortRangeEnergies(self.tables, centres, visible, SWITCHING_START * _CUTOFF, _CUTOFF)
        return ForceFieldEnergies(energies, self.scale, self.gauge)

    def atom_energies(self, structure):
        module = self.scriptable(structure.numbers.tolist())
        return AtomEnergies(module(structure.positions, structure.cell)[0])


def zones_with(built, weights: dict[int, float]) -> ZonePartition:
    """Any weights on any atoms."""
    core = tuple(sorted(atom for atom, weight in weights.items() if weight == 1))
    transition = tuple(sorted(atom for atom, weight in weights.items() if 0 < weight < 1))
    region = region_from_atoms(built.topology, core or transition, "atoms")
    return ZonePartition(built.n_atoms, region, core, transition, tuple(weights[a] for a in transition))


def random_zones(built, n: int, seed: int = 0) -> ZonePartition:
    """Random weights on random atoms: bonds, angles and torsions are cut in every way."""
    generator = np.random.default_rng(seed)
    atoms = generator.choice(built.n_atoms, n, replace=False)
    weights = np.where(generator.uniform(size=n) < 0.3, 1.0, generator.uniform(0.05, 0.95, n))
    return zones_with(built, dict(zip(atoms.tolist(), weights.tolist(), strict=True)))


def chains(
    n_molecules: int = 2, n_atoms: int = 4, box: float | None = 3.0, seed: int = 1, cutoff: float = 1.0
) -> BuiltSystem:
    """Charged carbon chains with bonds, angles and torsions, PME in a cubic box or without cutoff."""
    generator = np.random.default_rng(seed)
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    nonbonded = openmm.NonbondedForce()
    bonds, angles, torsions = (
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
        openmm.PeriodicTorsionForce(),
    )
    positions, pairs = [], []
    for m in range(n_molecules):
        residue = topology.addResidue(f"CH{m}", chain)
        charges = generator.normal(0, 0.3, n_atoms)
        charges -= charges.mean()
        first = len(positions)
        atoms = []
        for k in range(n_atoms):
            atoms.append(topology.addAtom(f"C{k}", app.element.carbon, residue))
            system.addParticle(12.0)
            nonbonded.addParticle(charges[k], 0.3, 0.4)
            step = generator.normal(0, 0.015, 3) + np.array([0.12, 0.08 * (-1) ** k, 0.03 * k])
            positions.append(np.array([0.3, 0.3 + 0.52 * m, 0.4]) if k == 0 else positions[-1] + step)
        for k in range(n_atoms - 1):
            topology.addBond(atoms[k], atoms[k + 1])
            pairs.append((first + k, first + k + 1))
            bonds.addBond(first + k, first + k + 1, 0.15, 2e4)
        for k in range(n_atoms - 2):
            angles.addAngle(first + k, first + k + 1, first + k + 2, 1.9, 400.0)
        for k in range(n_atoms - 3):
            torsions.addTorsion(*range(first + k, first + k + 4), 3, 0.0, 2.0)
    nonbonded.createExceptionsFromBonds(pairs, 0.8333, 0.5)
    if box is None:
        nonbonded.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    else:
        nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
        nonbonded.setCutoffDistance(cutoff)
        nonbonded.setEwaldErrorTolerance(1e-6)
        vectors = [openmm.Vec3(box, 0, 0), openmm.Vec3(0, box, 0), openmm.Vec3(0, 0, box)]
        system.setDefaultPeriodicBoxVectors(*vectors)
        topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    for force in (bonds, angles, torsions, nonbonded):
        system.addForce(force)
    return BuiltSystem.from_openmm(topology, system, np.array(positions))


def reference_context(system: openmm.System) -> openmm.Context:
    """A context on the Reference platform, for many calls of `evaluate`."""
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform)


def evaluate(context: openmm.Context, positions: np.ndarray, groups: int = -1) -> tuple[float, np.ndarray]:
    """kJ/mol and kJ/mol/nm."""
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True, groups=groups)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), forces


def energy_and_forces(
    system: openmm.System, positions: np.ndarray, groups: int = -1
) -> tuple[float, np.ndarray]:
    """kJ/mol and kJ/mol/nm on the Reference platform."""
    return evaluate(reference_context(system), positions, groups)


def bonded_forces(atoms: list[int]) -> dict[str, openmm.Force]:
    """One force of each class with one term over the given atoms."""
    forces = {}
    forces["HarmonicBondForce"] = openmm.HarmonicBondForce()
    forces["HarmonicBondForce"].addBond(*atoms[:2], 0.1, 1000.0)
    forces["HarmonicAngleForce"] = openmm.HarmonicAngleForce()
    forces["HarmonicAngleForce"].addAngle(*atoms[:3], 1.5, 100.0)
    forces["PeriodicTorsionForce"] = openmm.PeriodicTorsionForce()
    forces["PeriodicTorsionForce"].addTorsion(*atoms[:4], 2, 0.3, 5.0)
    forces["RBTorsionForce"] = openmm.RBTorsionForce()
    forces["RBTorsionForce"].addTorsion(*atoms[:4], 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    cmap = openmm.CMAPTorsionForce()
    cmap.addMap(4, np.random.default_rng(0).normal(size=16).tolist())
    cmap.addTorsion(0, *atoms[:4], *atoms[:4][::-1])
    forces["CMAPTorsionForce"] = cmap
    forces["CustomBondForce"] = openmm.CustomBondForce("strength*(r-r0)^4*scale")
    forces["CustomBondForce"].addPerBondParameter("r0")
    forces["CustomBondForce"].addGlobalParameter("strength", 3000.0)
    forces["CustomBondForce"].addPerBondParameter("scale")
    forces["CustomBondForce"].addEnergyParameterDerivative("strength")
    forces["CustomBondForce"].addBond(*atoms[:2], [0.1, 2.0])
    forces["CustomAngleForce"] = openmm.CustomAngleForce("k*theta^2")
    forces["CustomAngleForce"].addPerAngleParameter("k")
    forces["CustomAngleForce"].addAngle(*atoms[:3], [7.0])
    forces["CustomTorsionForce"] = openmm.CustomTorsionForce("k*cos(theta)")
    forces["CustomTorsionForce"].addPerTorsionParameter("k")
    forces["CustomTorsionForce"].addTorsion(*atoms[:4], [7.0])
    compound = openmm.CustomCompoundBondForce(3, "k*table(distance(p1,p3))")
    compound.addPerBondParameter("k")
    compound.addTabulatedFunction("table", openmm.Continuous1DFunction([1.0, 2.0, 4.0, 3.0], 0.0, 2.0))
    compound.addBond(atoms[:3], [7.0])
    forces["CustomCompoundBondForce"] = compound
    return forces


class ChargedContacts:
    """Contacts within 0.4 nm and charges that flow along them: a model with q(R), without TorchScript form.

    close_ij = (1 − r²/c²)³, eps_i = 5 sum_j close_ij, h_i = sum_j close_ij and q_i = q0_i + flow sum_j (h_i −
    h_j) close_ij: what flows to one atom leaves another, so that all atoms together keep their charge.

    Parameters
    ----------
    own : ndarray
        q0 of the atoms in the order in which the model gets them; it must get them all.
    flow : float
        e; some hundredths give charges some hundredths of e away from q0.
    attached : bool
        False: the charges carry no gradient, a negative control.
    """

    def __init__(self, own: np.ndarray, flow: float = 0.1, attached: bool = True, **changes: object):
        # A reach beyond the box: every call is on all atoms that the model may see.
        facts = {"cutoff": 0.4, "receptive_field": 20.0, "trained_on": "total"}
        self.spec = toy_spec("charged contacts", **(facts | changes))
        self.own, self.flow, self.attached = torch.tensor(np.array(own)), flow, attached

    def charges(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        first, second, close = self._contacts(positions, cell)
        zeros = torch.zeros(len(positions), dtype=torch.float64)
        height = zeros.index_add(0, first, close)
        return self.own + self.flow * zeros.index_add(0, first, (height[first] - height[second]) * close)

    def _contacts(self, positions, cell):
        first, second, vectors = neighbour_pairs(positions, cell, self.spec.cutoff)
        return first, second, (1.0 - vectors.square().sum(-1) / self.spec.cutoff**2).clamp(min=0.0) ** 3

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        first, _, close = self._contacts(structure.positions, structure.cell)
        energies = torch.zeros(len(structure), dtype=torch.float64).index_add(0, first, 5.0 * close)
        charges = self.charges(structure.positions, structure.cell)
        return AtomEnergies(energies, charges=charges if self.attached else charges.detach())


class OnRealAtoms:
    """Short-range repulsion between real atoms: what a model makes of water with four sites."""

    def __init__(self):
        self.spec = toy_spec("real", cutoff=0.4, receptive_field=0.4, trained_on="total", elements=(1, 8))

    def atom_energies(self, structure):
        first, _, vectors = neighbour_pairs(structure.positions, structure.cell, 0.4)
        close = (1.0 - vectors.square().sum(-1) / 0.16).clamp(min=0.0) ** 3
        zeros = torch.zeros(len(structure), dtype=torch.float64)
        return AtomEnergies(zeros.index_add(0, first, 30.0 * close))
