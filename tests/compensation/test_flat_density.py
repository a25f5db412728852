"""Density across an adaptive zone of water: flat with a calibrated or refined compensation (V16)."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app
from toys import ForceFieldPotential

from mlmm.build.surroundings.bulk import around_a_point, build_bulk_water, scaled_to
from mlmm.compensation.calibrate import calibrate
from mlmm.compensation.mean_force import mean_force
from mlmm.compensation.refine import refine
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms

SCALE = 1.2
NOTHING = Compensation({"HOH": 0.0})
BINS = (0.0, 0.3, 0.8, 1.0)
ZONE = {"plateau": "0.3 nm", "width": "0.25 nm", "walls": None, "weight_edges": BINS, "platform": "CPU"}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")


@pytest.fixture(scope="module")
def bulk():
    return build_bulk_water("1.5 nm", nonbonded_cutoff="0.7 nm", hydrogen_mass="3 amu")


def sampled(bulk, compensation, density, length, seed):
    """Profile under a compensation that stays as it is."""
    potential = ForceFieldPotential(bulk, SCALE)
    _, (only,) = refine(
        bulk, compensation, potential, density=density, iterations=0, check_length=length, seed=seed, **ZONE
    )
    return only.profile


@pytest.fixture(scope="module")
def calibrated(bulk):
    """The compensation of water whose model is the force field times 1.2, and its density."""
    compensation, samples = calibrate(
        bulk,
        ForceFieldPotential(bulk, SCALE),
        knots=(0.0, 1.0),
        equilibration="0.4 ps",
        length="20 ps",
        density_length="20 ps",
        timestep="2 fs",
        sample_interval=25,
        platform="CPU",
        seed=3,
    )
    return compensation, samples[0].density


@pytest.mark.slow
def test_density_is_flat_after_a_calibration_and_not_without(bulk, calibrated):
    """Lambda by lambda within errors and 5 % of the bulk."""
    compensation, density = calibrated
    before = sampled(bulk, NOTHING, density, "4 ps", 7)
    after = sampled(bulk, compensation, density, "20 ps", 8)
    assert np.abs((before.weight_density - 1) / before.weight_errors).max() > 4
    assert (np.abs(after.weight_density - 1) < 0.05 + 3 * after.weight_errors).all()
    assert after.weight_errors.max() < 0.12


def driven(bulk, compensation, density, length, seed):
    """Mean force of lambda in frames every 0.05 ps, after a tenth of the length."""
    built = around_a_point(scaled_to(bulk, density), app.element.helium)
    point = region_from_atoms(built.topology, [built.n_atoms - 1], "molecule")
    zones = adaptive_zones(built, point, ZONE["plateau"], ZONE["width"], walls=None)
    potential = ForceFieldPotential(built, SCALE)
    hybrid = hybrid_system(built, zones, potential, scheme="per_atom", compensation=compensation)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
    context.setVelocitiesToTemperature(300.0, seed)
    integrator.step(round(0.1 * length / 0.002))
    frames = []
    for _ in range(round(length / 0.05)):
        integrator.step(25)
        frames.append(np.array(context.getState(positions=True).getPositions(asNumpy=True)._value))
    return mean_force(hybrid, np.array(frames), weight_edges=BINS)


@pytest.mark.slow
def test_mean_force_of_lambda_is_balanced_after_a_calibration_and_not_without(bulk, calibrated):
    """It is what the pressure of the calibration balances, within errors and 5 % of what it is without.

    <Delta> in a zone of 0.25 nm is not quite that of the bulk.
    """
    compensation, density = calibrated
    before = driven(bulk, NOTHING, density, 4.0, 7)
    after = driven(bulk, compensation, density, 10.0, 8)
    errors = np.hypot(after.slope_error, after.expected_error)
    assert (np.abs(after.slope - after.expected) < 3 * errors + 0.05 * np.abs(before.slope)).all()
    assert np.abs(before.sigmas).min() > 20 and errors.max() < 0.05 * np.abs(before.slope).min()


@pytest.mark.slow
def test_refinement_finds_the_compensation_that_is_right(bulk):
    """A model that is the force field itself needs no G: 3 kJ/mol of it are found out and taken back.

    The zone and its plateau as a whole answer to G ten times less than a single shell does, and G is nearly
    constant there: steps of kT ln rho, right for a gas, would leave most of it.
    """
    wrong = Compensation({"HOH": 0.0}, np.array([0.0, 0.5, 1.0]), {"HOH": np.array([0.0, 3.0, 3.0])})
    found, iterations = refine(
        bulk,
        wrong,
        ForceFieldPotential(bulk, 1.0),
        density=32.5,
        iterations=3,
        length="4 ps",
        check_length="8 ps",
        equilibration="0.5 ps",
        knots=(0.0, 0.1, 0.55, 0.97, 1.0),
        seed=1,
        **ZONE,
    )
    first, last = iterations[0].profile, iterations[-1].profile
    assert np.abs((first.weight_density - 1) / first.weight_errors).max() > 3
    assert (np.abs(last.weight_density - 1) < 0.05 + 3 * last.weight_errors).all()
    places = found.knots[1:]
    before, after = (c.at_knots(found.knots).values["HOH"][1:] for c in (wrong, found))
    assert (np.abs(after) < 4 * found.errors["HOH"][1:]).all(), (places, after, found.errors)
    assert np.abs(after).mean() < 0.4 * np.abs(before).mean()
