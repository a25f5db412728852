"""Which force-field pairs of a spec stay in OpenMM and are subtracted by the C++ kernel in a force of their own."""

from __future__ import annotations

import logging

from mlmm.errors import EmbeddingError
from mlmm.forcefield.scale_pairs import check_switching_range
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.spec import HybridSpec
from mlmm.kernels.direct_pairs import RegionPairs, ZonePairs, neighbours_with_wells, region_pairs
from mlmm.kernels.torch_pairs import native_pairs_wanted
from mlmm.term_weights import TermWeights

__all__ = ["region_direct_pairs", "zone_direct_pairs"]

logger = logging.getLogger(__name__)


def region_direct_pairs(spec: HybridSpec) -> RegionPairs | None:
    """Pairs of a region under scheme ``additive``; None where exceptions do it all.

    That is so where a CustomNonbondedForce wants the same exceptions, and for whatever makes a pair more than
    `RegionPairs` knows: a mesh for Lennard-Jones, a reaction field, parameter offsets, a second force.
    """
    built, names = spec.built, set()
    for force in built.system.getForces():
        name = force.__class__.__name__
        names.add(name)
        if name == "NonbondedForce" and not {name, force.getName()}.isdisjoint(spec.keep):
            return None
    if not spec.direct_pairs or "CustomNonbondedForce" in names or not native_pairs_wanted():
        return None
    try:
        tables = read_mm_tables(built.system, keep=names - {"NonbondedForce"})
    except EmbeddingError as error:
        logger.info("pairs of the region by exceptions alone: %s", error)
        return None
    return region_pairs(tables, spec.zones.core, built.positions, built.box_vectors)


def zone_direct_pairs(spec: HybridSpec, tables: MMTables, term_weights: TermWeights) -> ZonePairs | None:
    """Pairs within the range of the potential that a zone of constant lambda takes over; None for none."""
    built = spec.built
    if not spec.direct_pairs or term_weights.rules[2] == "none" or not native_pairs_wanted():
        return None
    if not (tables.charge.any() or tables.epsilon.any()):
        return None  # no NonbondedForce, or one that stays whole
    check_switching_range(term_weights, tables)
    near = neighbours_with_wells(tables, term_weights.active, built.positions, built.box_vectors)
    return ZonePairs(tables, term_weights, near[tables.exception_index(near[:, 0], near[:, 1]) < 0])
