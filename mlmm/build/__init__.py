"""From a structure file to a parametrised, pure-MM OpenMM system."""

from mlmm.build.assemble import build_system
from mlmm.build.built import BuiltSystem
from mlmm.build.inspection import Inspection, inspect_structure
from mlmm.build.plan import BuildPlan, plan_system

__all__ = ["BuildPlan", "BuiltSystem", "Inspection", "build_system", "inspect_structure", "plan_system"]
