"""Density across an adaptive zone of water: flat with a calibrated compensation, not without it (V16)."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import app
from toys import ForceFieldPotential

import mlmm
from mlmm.adaptive import adaptive_zones
from mlmm.build.bulk import build_bulk_water
from mlmm.calibration import calibrate
from mlmm.compensation import Compensation
from mlmm.density import density_profile
from mlmm.drift import drift_force
from mlmm.hybrid import hybrid_system
from mlmm.regions import region_from_atoms

SCALE = 1.2
BINS = (0.0, 0.3, 0.8, 1.0)
EDGES = np.array([0.0, 0.3, 0.4, 0.5, 0.6, 0.7])


def around_a_point(bulk, positions=None, box=None):
    """The box with an atom without mass and interactions as centre: around it, flat is what is right."""
    model = app.Modeller(copy.deepcopy(bulk.topology), bulk.positions)
    chain = model.topology.addChain()
    model.topology.addAtom("He", app.element.helium, model.topology.addResidue("PNT", chain))
    system = openmm.XmlSerializer.clone(bulk.system)
    system.addParticle(0.0)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.addParticle(0.0, 0.1, 0.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    positions = bulk.positions if positions is None else positions
    return mlmm.BuiltSystem.from_openmm(
        model.topology, system, np.vstack([positions, bulk.positions.mean(axis=0)])
    )


def scaled_to(bulk, density):
    """Positions and box with so many molecules per nm³."""
    box = np.eye(3) * (bulk.n_atoms / 3 / density) ** (1 / 3)
    scale = box[0, 0] / bulk.box_vectors[0, 0]
    waters = bulk.positions.reshape(-1, 3, 3)
    positions = (waters + (scale - 1) * waters.mean(axis=1, keepdims=True)).reshape(-1, 3)
    return positions, box


def sample(hybrid, length, seed):
    """Frames every 0.05 ps, after a tenth of the length."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(hybrid.built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
    context.setVelocitiesToTemperature(300.0, seed)
    integrator.step(round(0.1 * length / 0.002))
    frames = []
    for _ in range(round(length / 0.05)):
        integrator.step(25)
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value
        frames.append(np.array(positions))
    return np.array(frames)


def calibrated_water():
    bulk = build_bulk_water("1.5 nm", nonbonded_cutoff="0.7 nm", hydrogen_mass="3 amu")
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
    positions, box = scaled_to(bulk, samples[0].density)
    built = around_a_point(bulk, positions, box)
    region = region_from_atoms(built.topology, [built.n_atoms - 1], "molecule")
    return compensation, built, adaptive_zones(built, region, "0.3 nm", "0.25 nm")


def sampled(built, zones, compensation, length, seed):
    """Density and mean force of lambda by lambda."""
    potential = ForceFieldPotential(built, SCALE)
    hybrid = hybrid_system(built, zones, potential, scheme="local", compensation=compensation)
    frames = sample(hybrid, length, seed)
    profile = density_profile(zones, frames, built.box_vectors, EDGES, weight_edges=BINS)
    return profile, drift_force(hybrid, frames, weight_edges=BINS)


@pytest.mark.slow
def test_density_is_flat_after_a_calibration_and_not_without():
    """Water whose model is the force field times 1.2: lambda by lambda within errors and 5 % of the bulk.

    The mean force of lambda is that which the pressure of the calibration balances, within errors and 5 % of
    what it is without compensation: <Delta> in a zone of 0.25 nm is not quite that of the bulk.
    """
    compensation, built, zones = calibrated_water()
    before, driven = sampled(built, zones, Compensation({"HOH": 0.0}), 4.0, 7)
    after, calm = sampled(built, zones, compensation, 10.0, 8)
    assert np.abs((before.weight_density - 1) / before.weight_errors).max() > 4
    assert (np.abs(after.weight_density - 1) < 0.05 + 3 * after.weight_errors).all()
    assert after.weight_errors.max() < 0.12
    errors = np.hypot(calm.slope_error, calm.expected_error)
    assert (np.abs(calm.slope - calm.expected) < 3 * errors + 0.05 * np.abs(driven.slope)).all()
    assert np.abs(driven.sigmas).min() > 20 and errors.max() < 0.05 * np.abs(driven.slope).min()
