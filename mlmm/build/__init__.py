"""From a structure file to a parametrised, pure-MM OpenMM system."""

from mlmm.build.assemble import build_system
from mlmm.build.built import BuiltSystem
from mlmm.build.files.inspection import Inspection, inspect_structure
from mlmm.build.ligands.alone import parametrise_ligand
from mlmm.build.ligands.definition import Ligand
from mlmm.build.plan import BuildPlan, plan_system

__all__ = [
    "BuildPlan",
    "BuiltSystem",
    "Inspection",
    "Ligand",
    "build_system",
    "inspect_structure",
    "parametrise_ligand",
    "plan_system",
]
