"""Hybrid systems with ANI in adaptive zones and under ``supermolecular``, and what their forces add."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import openmm
from adaptive_water import around_one
from ani_contexts import context_of
from mm_systems import random_force

import mlmm
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.hybrid.assemble import assemble, join
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.potentials import load_potential
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

#: A curve whose pieces differ, and an alignment.
CURVE = Compensation({"HOH": -3.3}, np.array([0.0, 0.2, 0.6, 1.0]), {"HOH": np.array([0.5, 1.0, -2.0, 4.0])})


def networks(precision="float64", kernel="native", members=(0, 1)):
    return load_potential("ani1x", members=members, precision=precision, kernel=kernel)


def crowded(built):
    """More terms of every class among the first molecules, core and zone alike; Lennard-Jones switched."""
    system, generator = copy.deepcopy(built.system), np.random.default_rng(11)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.setUseSwitchingFunction(True)
    nonbonded.setSwitchingDistance(0.4)
    nonbonded.setExceptionsUsePeriodicBoundaryConditions(True)
    for kind in ("bond", "angle", "torsion", "improper", "RB", "CMAP"):
        force = random_force(kind, generator)
        force.setUsesPeriodicBoundaryConditions(kind != "angle")
        system.addForce(force)
    for a, b in ((0, 3), (1, 6), (4, 7), (2, 5)):
        nonbonded.addException(a, b, generator.normal(0, 0.2), 0.25, 0.6)
    for index in range(nonbonded.getNumExceptions()):
        a, b, charge, _, epsilon = nonbonded.getExceptionParameters(index)
        if a < 6 and b < 6 and charge._value == 0 and epsilon._value == 0:
            # Pairs inside molecules of which something is left.
            nonbonded.setExceptionParameters(index, a, b, 0.05, 0.2, 0.3)
    return mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)


def by_mass(zones):
    """Centres of mass, one of them far from the first atom, in place of the oxygens; two centres."""
    shares = [(0.6, 0.3, 0.1) for _ in zones.molecules]
    return dataclasses.replace(zones, anchors=tuple(shares), centres=(0, 4))


def adaptive(built, bridge, potential, zones=None, compensation=CURVE) -> HybridSystem:
    zones = around_one(built, "0.2 nm", "0.3 nm", molecules=2) if zones is None else zones
    return hybrid_system(built, zones, potential, scheme="per_atom", compensation=compensation, bridge=bridge)


def supermolecular(built, bridge, potential, atoms=range(6)) -> HybridSystem:
    region = region_from_atoms(built.topology, atoms, "atoms")
    return hybrid_system(built, hard_zones(built, region), potential, scheme="supermolecular", bridge=bridge)


def model(hybrid, positions, platform=None):
    """Energy and forces of what is added to OpenMM, where the platform has the atoms, and those positions."""
    groups = 1 << hybrid.force_groups["ml"]
    context = context_of(hybrid.system, platform or ("Reference", {}))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True, positions=True, groups=groups)
    where = state.getPositions(asNumpy=True)._value
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value, where


def cases(water):
    """Built systems and makers of hybrids that differ in all that the forces hold."""
    many = crowded(water)
    return {
        "adaptive": (water, adaptive),
        "every term": (many, adaptive),
        "by mass": (
            many,
            lambda built, *rest: adaptive(built, *rest, by_mass(around_one(built, "0.2 nm", "0.3 nm", 2))),
        ),
        "supermolecular": (water, supermolecular),
    }


def without_force_of_weights(hybrid):
    """Negative control: the same energy in torch, its forces without d lambda / dr."""
    spec = dataclasses.replace(hybrid.spec, bridge="pythonforce")
    blend = assemble(spec).blend
    blend.weight_forces = False
    system, removed = remove_zone_pairs(hybrid.built.system, hybrid.zones.core)
    return join(spec, system, removed, blend).system
