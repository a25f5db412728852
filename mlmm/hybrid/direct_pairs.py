"""Which force-field pairs of a spec stay in OpenMM and are subtracted by the C++ kernel."""

from __future__ import annotations

import logging

from mlmm.errors import EmbeddingError
from mlmm.forcefield.scale_pairs import check_switching_range
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.spec import HybridSpec, hybrid_term_weights
from mlmm.kernels.direct_pairs import RegionPairs, ZonePairs, neighbours_with_wells, region_pairs
from mlmm.kernels.torch_pairs import native_pairs_wanted

__all__ = ["pair_correction", "region_direct_pairs", "zone_direct_pairs"]

logger = logging.getLogger(__name__)


def pair_correction(spec: HybridSpec) -> RegionPairs | ZonePairs | None:
    """Pairs that the C++ kernel subtracts; None where OpenMM or torch does it all."""
    if not spec.direct_pairs or spec.zones.moves or spec.subtracts_in_torch:
        return None
    if spec.rules.isolated and not spec.mm_tail:
        return region_direct_pairs(spec) if native_pairs_wanted() else None
    return zone_direct_pairs(spec) if spec.rules.takes_pairs else None


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
    if "CustomNonbondedForce" in names:
        return None
    try:
        tables = read_mm_tables(built.system, keep=names - {"NonbondedForce"})
    except EmbeddingError as error:
        logger.info("pairs of the region by exceptions alone: %s", error)
        return None
    return region_pairs(tables, spec.zones.core, built.positions, built.box_vectors)


def zone_direct_pairs(spec: HybridSpec) -> ZonePairs | None:
    """Pairs within the range of the potential that a static zone takes over; None without such pairs."""
    built, term_weights = spec.built, hybrid_term_weights(spec)
    # What cannot be shared out among atoms is refused with and without the kernel.
    tables = read_mm_tables(built.system, keep=spec.keep)
    if not native_pairs_wanted() or not (tables.charge.any() or tables.epsilon.any()):
        return None  # or no NonbondedForce, or one that stays whole
    check_switching_range(term_weights, tables)
    near = neighbours_with_wells(tables, term_weights.active, built.positions, built.box_vectors)
    return ZonePairs(tables, term_weights, near[tables.exception_index(near[:, 0], near[:, 1]) < 0])
