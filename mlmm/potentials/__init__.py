"""Machine-learned potentials: the contract, the ANI family, and loading by name."""

from mlmm.potentials.ani import ANIPotential
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec, energy_and_forces
from mlmm.potentials.contract import check_potential
from mlmm.potentials.registry import known_potentials, load_potential

__all__ = [
    "ANIPotential",
    "AtomEnergies",
    "PotentialModel",
    "PotentialSpec",
    "check_potential",
    "energy_and_forces",
    "known_potentials",
    "load_potential",
]
