"""Density across an adaptive zone of water: flat with a calibrated compensation, not without it (V16)."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import torch
from openmm import app
from toys import ForceFieldPotential

import mlmm
from mlmm.adaptive import adaptive_zones
from mlmm.build.bulk import build_bulk_water
from mlmm.calibration import calibrate
from mlmm.density import density_profile
from mlmm.hybrid import hybrid_system
from mlmm.regions import region_from_atoms

SCALE = 1.1
BINS = (0.0, 0.25, 0.75, 1.0)
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


def equilibrated(bulk, density, seed=1):
    """Positions and box of the force field, with so many molecules per nm³."""
    box = np.eye(3) * (bulk.n_atoms / 3 / density) ** (1 / 3)
    scale = box[0, 0] / bulk.box_vectors[0, 0]
    waters = bulk.positions.reshape(-1, 3, 3)
    positions = (waters + (scale - 1) * waters.mean(axis=1, keepdims=True)).reshape(-1, 3)
    return positions, box


def sample(hybrid, length, seed):
    """Frames every 0.05 ps, and for each lambda and Delta of the molecules, after a tenth of the length."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(hybrid.built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
    context.setVelocitiesToTemperature(300.0, seed)
    integrator.step(round(0.1 * length / 0.002))
    frames, differences = [], []
    cell = torch.tensor(hybrid.built.box_vectors)
    for _ in range(round(length / 0.05)):
        integrator.step(25)
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value
        frames.append(np.array(positions))
        with torch.no_grad():
            differences.append(
                torch.stack(hybrid.blend.molecule_differences(torch.tensor(frames[-1]), cell)).numpy()
            )
    return np.array(frames), np.array(differences)


def mean_differences(differences):
    """Mean Delta by bin of lambda over all frames, and its standard error from ten blocks."""
    blocks = []
    for block in np.array_split(differences, 10):
        weights, values = block[:, 0].ravel(), block[:, 1].ravel()
        place = np.where(weights > 0, np.digitize(weights, BINS[:-1], right=True) - 1, -1)
        blocks.append([[weights[place == k].mean(), values[place == k].mean()] for k in range(3)])
    blocks = np.array(blocks)
    return *blocks.mean(axis=0).T, blocks[:, :, 1].std(axis=0, ddof=1) / np.sqrt(10)


def calibrated_water(lengths):
    bulk = build_bulk_water("1.5 nm", nonbonded_cutoff="0.7 nm", hydrogen_mass="3 amu")
    compensation, samples = calibrate(
        bulk,
        ForceFieldPotential(bulk, SCALE),
        knots=(0.0, 0.5, 1.0),
        equilibration="0.4 ps",
        length=lengths[0],
        density_length=lengths[1],
        timestep="2 fs",
        sample_interval=10,
        platform="CPU",
        seed=3,
    )
    positions, box = equilibrated(bulk, samples[0].density)
    built = around_a_point(bulk, positions, box)
    region = region_from_atoms(built.topology, [built.n_atoms - 1], "molecule")
    return compensation, samples, built, adaptive_zones(built, region, "0.3 nm", "0.25 nm")


def sampled_profile(built, zones, compensation, length, seed):
    potential = ForceFieldPotential(built, SCALE)
    hybrid = hybrid_system(built, zones, potential, scheme="local", compensation=compensation)
    frames, differences = sample(hybrid, length, seed)
    profile = density_profile(zones, frames, built.box_vectors, EDGES, weight_edges=BINS)
    return profile, mean_differences(differences)
