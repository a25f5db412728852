"""Hybrid systems of chains that integrate quickly."""

from __future__ import annotations

import openmm
from toys import SpringPotential, chains

from mlmm.hybrid.system import hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones


def chain_hybrid(box=1.6):
    built = chains(n_molecules=2, box=box, cutoff=0.7)
    for force in built.system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setEwaldErrorTolerance(1e-3)  # a coarse grid: the Reference platform's is slow
    return hybrid_system(
        built, hard_zones(built, region_from_atoms(built.topology, range(4))), SpringPotential()
    )
