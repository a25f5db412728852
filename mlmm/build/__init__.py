"""From a structure file to a parametrised, pure-MM OpenMM system."""

from mlmm.build.assemble import build_system
from mlmm.build.built import BuiltSystem

__all__ = ["BuiltSystem", "build_system"]
