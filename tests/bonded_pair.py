"""Two atoms whose distance moves in a double well: a hybrid system that costs next to nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
import torch
from openmm import app
from toys import toy_spec

import mlmm
from mlmm.build import BuiltSystem
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.potentials import AtomEnergies
from mlmm.structures import Structure
from mlmm.units import GAS_CONSTANT
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

HEIGHT, MIDDLE, HALF = 12.0, 0.3, 0.06


class Well(torch.nn.Module):
    """E(r) = h ((r - m)^2/a^2 - 1)^2."""

    def __init__(self, height: float):
        super().__init__()
        self.height = height

    def forward(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        r = (positions[1] - positions[0]).norm()
        energy = self.height * (((r - 0.3) / 0.06).square() - 1.0).square()
        return (0.5 * energy).expand(1, 2)


class WellPotential:
    """`Well` as a potential."""

    def __init__(self, height: float = HEIGHT):
        self.spec = toy_spec("well")
        self.height = height

    def scriptable(self, numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
        return Well(self.height)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        return AtomEnergies(Well(self.height)(structure.positions, structure.cell)[0])


def pair_hybrid(height: float = HEIGHT) -> HybridSystem:
    """Two carbon atoms in the left well; the force field has a spring, which the region replaces."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("C2", topology.addChain())
    atoms = [topology.addAtom(name, app.element.carbon, residue) for name in ("C1", "C2")]
    topology.addBond(*atoms)
    for _ in atoms:
        system.addParticle(12.0)
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.3, 500.0)
    system.addForce(bonds)
    built = BuiltSystem.from_openmm(topology, system, np.array([[0.0, 0.0, 0.0], [0.24, 0.0, 0.0]]))
    zones = hard_zones(built, region_from_atoms(built.topology, range(2)))
    return hybrid_system(built, zones, WellPotential(height))


def distance() -> mlmm.Variable:
    """The distance of the two atoms."""
    return mlmm.Variable("d", "distance", [[0], [1]])


def exact_profile(edges: np.ndarray, temperature: float = 300.0, height: float = HEIGHT) -> np.ndarray:
    """-kT ln of the mean of r^2 exp(-E(r)/kT) over each bin, kJ/mol."""
    thermal = GAS_CONSTANT * temperature
    r = np.linspace(edges[:-1], edges[1:], 201)
    density = r**2 * np.exp(-height * (((r - MIDDLE) / HALF) ** 2 - 1) ** 2 / thermal)
    return -thermal * np.log(np.trapezoid(density, r, axis=0) / np.diff(edges))
