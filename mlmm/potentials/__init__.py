"""Machine-learned potentials: the contract, the ANI family, and loading by name.

Names are imported when first used: a run file is checked against `mlmm.potentials.known` before torch starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmm.potentials.adapters.ase import ASEPotential
    from mlmm.potentials.adapters.torchscript import save_torchscript
    from mlmm.potentials.alignment import AlignedPotential, align_energies
    from mlmm.potentials.ani.potential import ANIPotential
    from mlmm.potentials.base import (
        AtomEnergies,
        PotentialModel,
        check_state,
        energy_and_all_forces,
        energy_and_forces,
    )
    from mlmm.potentials.committee import Committee, committee_of, committee_spread
    from mlmm.potentials.contract.check import check_potential
    from mlmm.potentials.descriptors import TrainingSet
    from mlmm.potentials.install import install_model
    from mlmm.potentials.known import find_model, known_potentials
    from mlmm.potentials.registry import load_potential
    from mlmm.potentials.spec import PotentialSpec

_HOME = {
    "ANIPotential": "ani.potential",
    "ASEPotential": "adapters.ase",
    "AlignedPotential": "alignment",
    "AtomEnergies": "base",
    "Committee": "committee",
    "PotentialModel": "base",
    "PotentialSpec": "spec",
    "TrainingSet": "descriptors",
    "align_energies": "alignment",
    "check_potential": "contract.check",
    "check_state": "base",
    "committee_of": "committee",
    "committee_spread": "committee",
    "energy_and_all_forces": "base",
    "energy_and_forces": "base",
    "find_model": "known",
    "install_model": "install",
    "known_potentials": "known",
    "load_potential": "registry",
    "save_torchscript": "adapters.torchscript",
}
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
    "check_state",
    "committee_of",
    "committee_spread",
    "energy_and_all_forces",
    "energy_and_forces",
    "find_model",
    "install_model",
    "known_potentials",
    "load_potential",
    "save_torchscript",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mlmm.potentials' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlmm.potentials.{_HOME[name]}"), name)
    globals()[name] = value
    return value
