"""Systems and potentials that many tests share; built once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One thread a process, whatever the machine: the tests run one process a core. OpenMM and OpenMP read
# these as they load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENMM_CPU_THREADS", "1")
# What names no platform: of itself OpenMM takes any OpenCL driver, also one for the device code alone.
os.environ.setdefault("OPENMM_DEFAULT_PLATFORM", "CPU")

import torch

from mlmm.build import BuiltSystem, build_system
from mlmm.potentials import load_potential
from mlmm.potentials.ani.potential import ANIPotential

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def dipeptide_vacuum() -> BuiltSystem:
    """Alanine dipeptide, 22 atoms, no box, no constraints."""
    pdb = ROOT / "systems/alanine_dipeptide/input.pdb"
    return build_system(pdb, solvate=False, constraints="none", rigid_water=False)


@pytest.fixture(scope="session")
def dipeptide_water() -> BuiltSystem:
    """The same in a small box of flexible water under PME: quick on the Reference platform."""
    pdb = ROOT / "systems/alanine_dipeptide/input.pdb"
    return build_system(
        pdb, padding="0.5 nm", nonbonded_cutoff="0.9 nm", constraints="none", rigid_water=False, seed=3
    )


@pytest.fixture(scope="session")
def ani1x() -> ANIPotential:
    """ANI-1x, float64."""
    return load_potential("ani1x", precision="float64")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of MLMM_MODELS with ANI-2x; skips without it."""
    for folder in os.environ.get("MLMM_MODELS", "").split(os.pathsep):
        if folder and (Path(folder) / "ani-2x_8x").is_dir():
            return Path(folder)
    pytest.skip("set MLMM_MODELS to a folder that holds ani-2x_8x (NeuroChem format, ANI model zoo)")


@pytest.fixture(scope="module")
def kernels_by_default():
    """For tests of the compiled kernels: they are taken where they are built, whatever MLMM_KERNEL says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLMM_KERNEL", raising=False)
        yield
