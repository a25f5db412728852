"""Hybrid machine-learning / molecular-mechanics simulation on OpenMM and PyTorch.

Names are imported when first used, so that ``import mlmm`` is quick and the thread settings below come first.
"""

from __future__ import annotations

import importlib
import os

# Idle OpenMP threads that spin starve OpenMM's own threads; the policy is read once, when torch loads its
# runtime.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_HOME = {
    "AtomEnergies": "potentials",
    "BuildPlan": "build",
    "BuiltSystem": "build",
    "CheckReport": "diagnostics",
    "Compensation": "compensation",
    "Equilibrate": "stages",
    "HybridSystem": "hybrid",
    "Inspection": "build",
    "Ligand": "build",
    "Minimise": "stages",
    "NVECheck": "stages",
    "PotentialModel": "potentials",
    "PotentialSpec": "potentials",
    "Produce": "stages",
    "Region": "regions",
    "RunDirectory": "run_directory",
    "Structure": "structures",
    "ZonePartition": "zones",
    "audit_pairs": "audit",
    "adaptive_zones": "adaptive",
    "build_bulk_water": "build.bulk",
    "build_system": "build",
    "calibrate": "calibration",
    "check": "diagnostics",
    "check_potential": "potentials",
    "compare_schemes": "comparison",
    "draw_frames": "scan",
    "energy_and_forces": "potentials",
    "hard_zones": "zones",
    "hybrid_system": "hybrid",
    "inspect_structure": "build",
    "load_amber": "build.amber",
    "load_openmm": "build.amber",
    "load_potential": "potentials",
    "parametrise_ligand": "build",
    "plan_system": "build",
    "residue_zones": "zones",
    "scan_zones": "scan",
    "select_region": "regions",
    "simulate": "simulation",
    "static_zones": "zones",
    "write_report": "report",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mlmm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlmm.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
