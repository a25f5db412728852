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
    "BuildOptions": "build",
    "BuildPlan": "build",
    "BuiltSystem": "build",
    "CheckReport": "validation.check",
    "Compensation": "zones.compensation",
    "Equilibrate": "dynamics.stages",
    "ExternalCharges": "structures",
    "HybridSystem": "hybrid.system",
    "Inspection": "build",
    "Ligand": "build",
    "Minimise": "dynamics.stages",
    "NVECheck": "dynamics.stages",
    "PotentialModel": "potentials",
    "PotentialSpec": "potentials",
    "Produce": "dynamics.stages",
    "Region": "zones.region",
    "Restraint": "collective_variables.options",
    "RunDirectory": "dynamics.run_directory",
    "RunOptions": "dynamics.options",
    "Start": "dynamics.start",
    "Structure": "structures",
    "Variable": "collective_variables.options",
    "ZonePartition": "zones.static",
    "double_counting": "validation.double_counting",
    "adaptive_zones": "zones.adaptive",
    "as_ase": "interfaces.ase",
    "build_bulk_water": "build.surroundings.bulk",
    "build_system": "build",
    "calibrate": "compensation.calibrate",
    "check": "validation.check",
    "check_potential": "potentials",
    "compare_schemes": "validation.compare_schemes",
    "draw_frames": "validation.scan_zones",
    "energy_and_all_forces": "potentials",
    "energy_and_forces": "potentials",
    "hard_zones": "zones.static",
    "hybrid_system": "hybrid.system",
    "inspect_structure": "build",
    "load_amber": "build.parametrised.amber",
    "load_charmm": "build.parametrised.charmm",
    "load_gromacs": "build.parametrised.gromacs",
    "load_openmm": "build.parametrised.serialised",
    "load_potential": "potentials",
    "parametrise_ligand": "build",
    "plan_system": "build",
    "residue_zones": "zones.static",
    "scan_zones": "validation.scan_zones",
    "select_region": "zones.region",
    "simulate": "dynamics.simulate",
    "standard_stages": "dynamics.stages",
    "static_zones": "zones.static",
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
