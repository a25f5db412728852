"""Which force-field pairs of a recipe stay in OpenMM and are subtracted by the kernel's own host."""

from __future__ import annotations

import logging

from mlmm.errors import EmbeddingError
from mlmm.forcefield.scale_pairs import check_handover
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.spec import Recipe
from mlmm.kernels.direct_pairs import RegionPairs, SharedPairs, neighbours_with_wells, region_pairs
from mlmm.kernels.torch_pairs import compiled_pairs_wanted
from mlmm.potentials.base import PotentialModel
from mlmm.term_weights import Ownership

__all__ = ["hosted_region", "hosted_zone", "may_host"]

logger = logging.getLogger(__name__)


def hosted_region(recipe: Recipe) -> RegionPairs | None:
    """Pairs of a region under scheme ``intra``; None where exceptions do it all.

    That is so for another host, where a CustomNonbondedForce wants the same exceptions, and for whatever
    makes a pair more than `RegionPairs` knows: a mesh for Lennard-Jones, a reaction field, parameter offsets,
    a second force.
    """
    built, names = recipe.built, set()
    for force in built.system.getForces():
        name = force.__class__.__name__
        names.add(name)
        if name == "NonbondedForce" and not {name, force.getName()}.isdisjoint(recipe.keep):
            return None
    if recipe.bridge != "kernel" or "CustomNonbondedForce" in names or not compiled_pairs_wanted():
        return None
    try:
        tables = read_mm_tables(built.system, keep=names - {"NonbondedForce"})
    except EmbeddingError as error:
        logger.info("pairs of the region by exceptions alone: %s", error)
        return None
    return region_pairs(tables, recipe.zones.core, built.positions, built.box_vectors)


def hosted_zone(recipe: Recipe, tables: MMTables, ownership: Ownership) -> SharedPairs | None:
    """Pairs that a zone of constant lambda hands over under scheme ``local``; None for another host."""
    built = recipe.built
    if recipe.bridge != "kernel" or recipe.scheme != "local" or not compiled_pairs_wanted():
        return None
    if not (tables.charge.any() or tables.epsilon.any()):
        return None  # no NonbondedForce, or one that stays whole
    check_handover(ownership, tables)
    near = neighbours_with_wells(tables, ownership.active, built.positions, built.box_vectors)
    return SharedPairs(tables, ownership, near[tables.exception_index(near[:, 0], near[:, 1]) < 0])


def may_host(potential: PotentialModel, bridge: str) -> bool:
    """Whether a zone of constant lambda and fixed charges has a host that subtracts pairs."""
    compiled = getattr(potential, "kernel", None) == "compiled" and compiled_pairs_wanted()
    return compiled and bridge in ("auto", "kernel")
