"""From a structure file to a parametrised, pure-MM OpenMM system.

Names are imported when first used: a run file is checked against `mlmm.build.options` before OpenMM starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmm.build.assemble import build_system
    from mlmm.build.built import BuiltSystem
    from mlmm.build.files.inspection import Inspection, inspect_structure
    from mlmm.build.ligands.alone import parametrise_ligand
    from mlmm.build.ligands.definition import Ligand
    from mlmm.build.options import BuildOptions
    from mlmm.build.plan import BuildPlan, plan_system

_HOME = {
    "BuildOptions": "options",
    "BuildPlan": "plan",
    "BuiltSystem": "built",
    "Inspection": "files.inspection",
    "Ligand": "ligands.definition",
    "build_system": "assemble",
    "inspect_structure": "files.inspection",
    "parametrise_ligand": "ligands.alone",
    "plan_system": "plan",
}
__all__ = [
    "BuildOptions",
    "BuildPlan",
    "BuiltSystem",
    "Inspection",
    "Ligand",
    "build_system",
    "inspect_structure",
    "parametrise_ligand",
    "plan_system",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mlmm.build' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlmm.build.{_HOME[name]}"), name)
    globals()[name] = value
    return value
