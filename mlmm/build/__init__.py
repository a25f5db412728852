"""From a structure file to a parametrised, pure-MM OpenMM system."""

from mlmm.build.assemble import build_system
from mlmm.build.built import BuiltSystem
from mlmm.build.ligand_alone import parametrise_ligand
from mlmm.build.ligands import Ligand

__all__ = ["BuiltSystem", "Ligand", "build_system", "parametrise_ligand"]
