"""The force field's side of the blend as OpenMM parameters, for weights lambda that never change.

E = E_MM − sum_t W_t f_t V_t with nothing left to torch: bonded terms keep (1 − W_t) of their energy in their
own force constants, and two custom forces take over the pairs. PME is not touched. The same energy follows by
subtraction in torch (`mlmm.blending.replaced_terms`, `mlmm.blending.full_pairs`); the two share tables and
rules but no arithmetic, and must agree.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Collection

import numpy as np
import openmm

from mlmm.errors import EmbeddingError
from mlmm.forcefield.remove_terms import RemovedTerms, free_touching_constraints, refuse_virtual_sites
from mlmm.forcefield.scale_pairs import check_switching_range, take_pairs
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.forcefield.term_catalogue import (
    BONDED,
    FORMULAS,
    STAYS_WHOLE,
    TABULATED,
    class_of,
    empty_copy,
    is_kept,
    refuse_uncopyable,
)
from mlmm.term_weights import TermWeights, cmap_shares

__all__ = ["scale_terms"]

logger = logging.getLogger(__name__)


def scale_terms(
    system: openmm.System,
    term_weights: TermWeights,
    *,
    keep: Collection[str] = (),
    label: Callable[[int], str] = str,
    near: np.ndarray | None = None,
) -> tuple[openmm.System, RemovedTerms]:
    """The force field less what a potential takes over, E_MM − sum_t W_t f_t V_t; the input is not changed.

    Bonded terms: k (all coefficients, the CMAP map, the formula of a custom force) times 1 − W_t; a term of
    which nothing is left is dropped. Pairs inside the zone, lambda > 0, leave the NonbondedForce by
    exceptions, reciprocal part included, and what remains of them comes back in one CustomBondForce
    (`INSIDE`), where large numbers do not cancel; pairs of the zone with visible atoms around it are
    corrected by −W v_sr in one CustomNonbondedForce (`SURROUNDINGS`). Scheme ``delta`` changes nothing.
    ``additive`` without a switching function is the business of `remove_region_terms`.

    Parameters
    ----------
    system : openmm.System
        The full force field, the zone's atoms flexible.
    term_weights : TermWeights
    keep : collection of str
        Names or class names of forces that stay whole: biases and restraints.
    label : callable
        Index to a name of the atom, for messages.
    near : ndarray, shape (P, 2), optional
        Pairs inside the zone that leave the NonbondedForce besides 1-4 pairs; all of them by default. The
        caller then subtracts the others (`mlmm.kernels.direct_pairs.ZonePairs`), and `SURROUNDINGS` is left
        out.

    Returns
    -------
    system : openmm.System
    removed : RemovedTerms
        `removed` counts the terms that were scaled or removed, and for the NonbondedForce the pairs that
        left.

    Raises
    ------
    EmbeddingError
        A force that cannot be divided, by name; a virtual site in the zone of a scheme that touches pairs; a
        constraint on its atoms without a bond term; a missing switching range, or one beyond the force
        field's cutoff.
    """
    refuse_uncopyable(system)
    n_atoms = system.getNumParticles()
    if term_weights.weights.shape != (n_atoms,) or term_weights.visible.shape != (n_atoms,):
        raise EmbeddingError(
            f"weights and visibility of {n_atoms} atoms",
            f"shapes {term_weights.weights.shape} and {term_weights.visible.shape}",
            "pass one value per particle of the system",
        )
    inside = frozenset(term_weights.active.tolist())
    if not inside or not term_weights.rules.takes_terms:
        kept = tuple(force.getName() for force in system.getForces())
        return copy.deepcopy(system), RemovedTerms(term_weights.scheme, {}, kept)
    whole = [class_of(force) in STAYS_WHOLE or is_kept(force, keep) for force in system.getForces()]
    tables = read_mm_tables(system, keep=(*keep, *FORMULAS))
    check_switching_range(term_weights, tables)
    refuse_virtual_sites(system, inside, label)
    embedded = copy.deepcopy(system)
    removed: dict[str, int] = {}
    # While the bond terms that the freed pairs need are all there.
    freed = free_touching_constraints(embedded, inside, term_weights.scheme, label)
    if freed:
        removed["constraints"] = freed
    replaced: list[tuple[int, openmm.Force]] = []
    first = dict.fromkeys(TABULATED, 0)
    for index, force in enumerate(embedded.getForces()):
        name, count, smaller = class_of(force), 0, force
        if whole[index]:
            continue
        if name == "CMAPTorsionForce":
            smaller, count = _scaled_maps(force, term_weights)
        elif name in TABULATED:
            smaller, count, first[name] = _scaled_terms(force, term_weights, tables, first[name])
        elif name in FORMULAS:
            smaller, count = _scaled_formula(force, term_weights)
        elif name == "NonbondedForce":
            count = take_pairs(embedded, force, term_weights, tables, near)
        if smaller is not force:
            replaced.append((index, smaller))
        if count:
            removed[name] = removed.get(name, 0) + count
    for index, _ in reversed(replaced):
        embedded.removeForce(index)
    for _, force in replaced:
        embedded.addForce(force)
    logger.info("%s in OpenMM: %d atoms; removed %s", term_weights.scheme, len(inside), removed)
    kept = tuple(force.getName() for force, stays in zip(system.getForces(), whole, strict=True) if stays)
    return embedded, RemovedTerms(term_weights.scheme, removed, kept)


def _scaled_terms(
    force: openmm.Force, term_weights: TermWeights, tables: MMTables, first: int
) -> tuple[openmm.Force, int, int]:
    """Force constants times 1 − W; terms `first` and following of their class in the tables are its own."""
    terms, columns = BONDED[class_of(force)], TABULATED[class_of(force)]
    last = first + terms.count(force)
    atoms = tables.terms(columns, "atoms")[first:last]
    fractions = term_weights.bonded(atoms)
    count = np.count_nonzero(fractions)
    if not count:
        return force, 0, last
    numbers = np.column_stack([tables.terms(columns, name)[first:last] for name, _ in columns.names])
    numbers[:, -columns.energies :] *= (1.0 - fractions)[:, None]
    left = (fractions == 0) | numbers[:, -columns.energies :].any(axis=1)
    scaled = empty_copy(force)
    for members, parameters in zip(atoms[left].tolist(), numbers[left].tolist(), strict=True):
        if columns.prefix == "torsion":
            parameters[0] = int(parameters[0])
        terms.add(scaled, [*members, *parameters])
    return scaled, int(count), last


def _scaled_maps(force: openmm.CMAPTorsionForce, term_weights: TermWeights) -> tuple[openmm.Force, int]:
    """One more map, times 1 − W, for every map and W that occur together."""
    maps_and_atoms = BONDED[class_of(force)].parameters(force)
    atoms = np.array([one[1:] for one in maps_and_atoms], dtype=np.int64).reshape(-1, 8)
    # Sums of fifths in another order are the same W.
    fractions = np.round(term_weights.bonded(atoms, cmap_shares(atoms)), 14)
    if not fractions.any():
        return force, 0
    scaled = empty_copy(force)
    maps: dict[tuple[int, float], int] = {}
    for (index, *members), fraction in zip(maps_and_atoms, fractions.tolist(), strict=True):
        if fraction == 1.0:
            continue
        if fraction:
            if (index, fraction) not in maps:
                size, energies = force.getMapParameters(index)
                smaller = (1.0 - fraction) * np.array([energy._value for energy in energies])
                maps[index, fraction] = scaled.addMap(size, smaller.tolist())
            index = maps[index, fraction]
        scaled.addTorsion(index, *members)
    return scaled, int(np.count_nonzero(fractions))


def _scaled_formula(force: openmm.Force, term_weights: TermWeights) -> tuple[openmm.Force, int]:
    """E; definitions -> s*(E); definitions, with s = 1 − W a parameter of each term."""
    terms = BONDED[class_of(force)]
    every = terms.parameters(force)
    atoms = np.array([terms.atoms(one) for one in every], dtype=np.int64)
    fractions = term_weights.bonded(atoms) if every else np.zeros(0)
    if not fractions.any():
        return force, 0
    scaled = empty_copy(force)
    taken = [scaled.getGlobalParameterName(i) for i in range(scaled.getNumGlobalParameters())]
    taken += terms.formula_parameters(scaled)
    energy, semicolon, definitions = force.getEnergyFunction().partition(";")
    words = {*taken, *re.findall(r"\w+", energy + semicolon + definitions)}
    share = "kept_share"
    while share in words:
        share += "_"
    scaled.setEnergyFunction(f"{share}*({energy}){semicolon}{definitions}")
    terms.add_formula_parameter(scaled, share)
    for (*members, parameters), fraction in zip(every, fractions.tolist(), strict=True):
        if fraction < 1.0:
            terms.add(scaled, [*members, [*parameters, 1.0 - fraction]])
    return scaled, int(np.count_nonzero(fractions))
