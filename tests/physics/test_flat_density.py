"""Density across an adaptive zone of water: flat with a calibrated or refined compensation (V16)."""

from __future__ import annotations

import numpy as np
import pytest
from toys import ForceFieldPotential

from mlmm.build.bulk import build_bulk_water
from mlmm.calibration import calibrate
from mlmm.compensation import Compensation
from mlmm.refinement import refine

SCALE = 1.2
NOTHING = Compensation({"HOH": 0.0})
BINS = (0.0, 0.3, 0.8, 1.0)
ZONE = {"plateau": "0.3 nm", "width": "0.25 nm", "walls": None, "weight_edges": BINS, "platform": "CPU"}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")


@pytest.fixture(scope="module")
def bulk():
    return build_bulk_water("1.5 nm", nonbonded_cutoff="0.65 nm", hydrogen_mass="3 amu")


def sampled(bulk, compensation, density, length, seed):
    """Profile under a compensation that stays as it is."""
    potential = ForceFieldPotential(bulk, SCALE)
    _, (only,) = refine(
        bulk, compensation, potential, density=density, iterations=0, check_length=length, seed=seed, **ZONE
    )
    return only.profile


@pytest.mark.slow
def test_density_is_flat_after_a_calibration_and_not_without(bulk):
    """Water whose model is the force field times 1.2: lambda by lambda within errors and 5 % of the bulk."""
    compensation, samples = calibrate(
        bulk,
        ForceFieldPotential(bulk, SCALE),
        knots=(0.0, 1.0),
        equilibration="0.4 ps",
        length="5 ps",
        density_length="20 ps",
        timestep="2 fs",
        sample_interval=25,
        platform="CPU",
        seed=3,
    )
    before = sampled(bulk, NOTHING, samples[0].density, "4 ps", 7)
    after = sampled(bulk, compensation, samples[0].density, "10 ps", 8)
    assert np.abs((before.weight_density - 1) / before.weight_errors).max() > 4
    assert (np.abs(after.weight_density - 1) < 0.05 + 3 * after.weight_errors).all()
    assert after.weight_errors.max() < 0.12
