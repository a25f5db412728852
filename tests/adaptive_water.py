"""Water in an adaptive zone around one molecule."""

from __future__ import annotations

import openmm

import mlmm
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms

NOTHING = Compensation({"HOH": 0.0})


def relaxed_water():
    """Some 130 flexible water molecules, minimised; on the platform whose sums are the same every time."""
    built = build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")
    context = openmm.Context(
        built.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    return mlmm.BuiltSystem.from_openmm(built.topology, built.system, positions)


def around_one(built, plateau="0.25 nm", width="0.3 nm", molecules=1):
    """A zone around the first molecules, which belong to the model."""
    region = region_from_atoms(built.topology, range(3 * molecules), "molecule")
    return adaptive_zones(built, region, plateau, width)


def hybrid_of(built, zones, potential, compensation=NOTHING, bridge="torchforce"):
    return hybrid_system(built, zones, potential, scheme="per_atom", compensation=compensation, bridge=bridge)
