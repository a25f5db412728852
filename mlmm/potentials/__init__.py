"""Machine-learned potentials: the contract, the ANI family, and loading by name."""

from mlmm.potentials.adapters.ase import ASEPotential
from mlmm.potentials.adapters.torchscript import save_torchscript
from mlmm.potentials.alignment import AlignedPotential, align_energies
from mlmm.potentials.ani.potential import ANIPotential
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec, energy_and_forces
from mlmm.potentials.committee import Committee, committee_of, committee_spread
from mlmm.potentials.contract.check import check_potential
from mlmm.potentials.descriptors import TrainingSet
from mlmm.potentials.install import install_model
from mlmm.potentials.registry import find_model, known_potentials, load_potential

__all__ = [
    "ANIPotential",
    "ASEPotential",
    "AlignedPotential",
    "AtomEnergies",
    "Committee",
    "PotentialModel",
    "PotentialSpec",
    "TrainingSet",
    "align_energies",
    "check_potential",
    "committee_of",
    "committee_spread",
    "energy_and_forces",
    "find_model",
    "install_model",
    "known_potentials",
    "load_potential",
    "save_torchscript",
]
