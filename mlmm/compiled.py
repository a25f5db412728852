"""The force field's side of the blend compiled into OpenMM parameters, for weights that never change.

E = E_MM − sum_t W_t f_t V_t, with nothing of it left to torch: bonded terms keep (1 − W_t) of their energy in
their own force constants, and two custom forces take over the pairs. PME is not touched. The same energy is
reached by subtraction in torch (`handed_over`, `core_pairs`); the two share no arithmetic and must agree.
"""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Callable, Collection

import numpy as np
import openmm

from mlmm.build.built import refuse_uncopyable
from mlmm.embedding import (
    BONDED,
    NEUTRAL,
    Embedding,
    empty_copy,
    free_touching_constraints,
    refuse_virtual_sites,
)
from mlmm.errors import EmbeddingError
from mlmm.mm_tables import MMTables, read_mm_tables
from mlmm.ownership import Ownership, cmap_shares
from mlmm.units import COULOMB

__all__ = ["INSIDE", "SURROUNDINGS", "embed_compiled"]

logger = logging.getLogger(__name__)
#: Names of the forces that take over the pairs.
INSIDE = "pairs inside the zone"
SURROUNDINGS = "pairs of the zone with its surroundings"
# class -> arrays of `MMTables`: prefix; parameters in the order of addX; how many at the end are energies
_TABULATED = {
    "HarmonicBondForce": ("bond", ("length", "k"), 1),
    "HarmonicAngleForce": ("angle", ("value", "k"), 1),
    "PeriodicTorsionForce": ("torsion", ("n", "phase", "k"), 1),
    "RBTorsionForce": ("rb", ("coefficients",), 6),
}
_FORMULAS = ("CustomBondForce", "CustomAngleForce", "CustomTorsionForce", "CustomCompoundBondForce")


def embed_compiled(
    system: openmm.System,
    ownership: Ownership,
    *,
    keep: Collection[str] = (),
    label: Callable[[int], str] = str,
) -> tuple[openmm.System, Embedding]:
    """The force field less what a potential takes over, E_MM − sum_t W_t f_t V_t; the input is not changed.

    Bonded terms: k (all coefficients, the CMAP map, the formula of a custom force) times 1 − W_t; a term of
    which nothing is left is dropped. Pairs (schemes ``local``, ``difference``, ``intra``): those inside the
    zone, lambda > 0, leave the NonbondedForce by exceptions, reciprocal part included, and what remains of
    them comes back in one CustomBondForce (`INSIDE`), where large numbers do not cancel; pairs of the zone
    with visible atoms around it are corrected by −W v_sr in one CustomNonbondedForce (`SURROUNDINGS`).
    Scheme ``bonded`` scales the parameters of the 1-4 exceptions instead and touches no other pair; ``delta``
    changes nothing. ``intra`` without a handover is the business of `embed_intra`.

    Parameters
    ----------
    system : openmm.System
        The full force field, the zone's atoms flexible.
    ownership : Ownership
    keep : collection of str
        Names or class names of forces that stay whole: biases and restraints.
    label : callable
        Index to a name of the atom, for messages.

    Returns
    -------
    system : openmm.System
    embedding : Embedding
        `removed` counts the terms that were scaled or removed, and for the NonbondedForce the pairs that
        left.

    Raises
    ------
    EmbeddingError
        A force that cannot be divided, by name; a virtual site in the zone of a scheme that touches pairs; a
        constraint on its atoms without a bond term; a missing handover, or one beyond the force field's
        cutoff.
    """
    refuse_uncopyable(system)
    n_atoms = system.getNumParticles()
    if ownership.weights.shape != (n_atoms,) or ownership.visible.shape != (n_atoms,):
        raise EmbeddingError(
            f"weights and visibility of {n_atoms} atoms",
            f"shapes {ownership.weights.shape} and {ownership.visible.shape}",
            "pass one value per particle of the system",
        )
    inside = frozenset(ownership.active.tolist())
    if not inside or set(ownership.rules) == {"none"}:
        kept = tuple(force.getName() for force in system.getForces())
        return copy.deepcopy(system), Embedding(ownership.scheme, {}, kept)
    takes_pairs = ownership.rules[2] != "none"
    whole = {force.getName() for force in system.getForces() if _stays(force, keep, takes_pairs)}
    tables = read_mm_tables(system, keep=(*whole, *_FORMULAS))
    if takes_pairs:
        _check_handover(ownership, tables)
        refuse_virtual_sites(system, inside, label)
    embedded = copy.deepcopy(system)
    removed: dict[str, int] = {}
    # While the bond terms that the freed pairs need are all there.
    freed = free_touching_constraints(embedded, inside, ownership.scheme, label)
    if freed:
        removed["constraints"] = freed
    replaced: list[tuple[int, openmm.Force]] = []
    first = dict.fromkeys(_TABULATED, 0)
    for index, force in enumerate(embedded.getForces()):
        name, count, smaller = force.__class__.__name__, 0, force
        if force.getName() in whole:
            continue
        if name in _TABULATED:
            smaller, count, first[name] = _scaled_terms(force, ownership, tables, first[name])
        elif name == "CMAPTorsionForce":
            smaller, count = _scaled_maps(force, ownership)
        elif name in _FORMULAS:
            smaller, count = _scaled_formula(force, ownership)
        elif name == "NonbondedForce" and not takes_pairs:
            count = _scale_exceptions(force, ownership, tables)
        elif name == "NonbondedForce":
            count = _take_pairs(embedded, force, ownership, tables)
        if smaller is not force:
            replaced.append((index, smaller))
        if count:
            removed[name] = removed.get(name, 0) + count
    for index, _ in reversed(replaced):
        embedded.removeForce(index)
    for _, force in replaced:
        embedded.addForce(force)
    logger.info("%s, compiled: %d atoms; removed %s", ownership.scheme, len(inside), removed)
    kept = tuple(force.getName() for force in system.getForces() if force.getName() in whole)
    return embedded, Embedding(ownership.scheme, removed, kept)


def _stays(force: openmm.Force, keep: Collection[str], takes_pairs: bool) -> bool:
    """A force that is left whole: no part of the force field, kept, or without bonded terms."""
    name = force.__class__.__name__
    if name in NEUTRAL or name in keep or force.getName() in keep:
        return True
    return not takes_pairs and name not in BONDED and name != "NonbondedForce"


def _check_handover(ownership: Ownership, tables: MMTables) -> None:
    if ownership.handover is None:
        raise EmbeddingError(
            f"a handover (r_on, r_off) for the pairs of scheme {ownership.scheme!r}",
            "none",
            "pass distances, or use embed_intra for whole molecules and pairs at every distance",
        )
    start, end = ownership.handover
    if not (0.0 <= start < end <= tables.cutoff and math.isfinite(end)):
        raise EmbeddingError(
            f"0 <= r_on < r_off within the force field's cutoff of {tables.cutoff:g} nm",
            f"r_on = {start:g} nm, r_off = {end:g} nm",
            "change the range, or build the system with a longer cutoff",
        )


def _scaled_terms(
    force: openmm.Force, ownership: Ownership, tables: MMTables, first: int
) -> tuple[openmm.Force, int, int]:
    """Force constants times 1 − W; terms `first` and following of their class in the tables are its own."""
    prefix, fields, energies = _TABULATED[force.__class__.__name__]
    term = "Torsion" if prefix in ("torsion", "rb") else prefix.capitalize()
    last = first + getattr(force, f"getNum{term}s")()
    atoms = getattr(tables, f"{prefix}_atoms")[first:last]
    fractions = ownership.bonded(atoms)
    count = np.count_nonzero(fractions)
    if not count:
        return force, 0, last
    numbers = np.column_stack([getattr(tables, f"{prefix}_{name}")[first:last] for name in fields])
    numbers[:, -energies:] *= (1.0 - fractions)[:, None]
    left = (fractions == 0) | numbers[:, -energies:].any(axis=1)
    scaled = empty_copy(force)
    add = getattr(scaled, f"add{term}")
    for members, parameters in zip(atoms[left].tolist(), numbers[left].tolist(), strict=True):
        if prefix == "torsion":
            parameters[0] = int(parameters[0])
        add(*members, *parameters)
    return scaled, int(count), last


def _scaled_maps(force: openmm.CMAPTorsionForce, ownership: Ownership) -> tuple[openmm.Force, int]:
    """One more map, times 1 − W, for every map and W that occur together."""
    terms = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    atoms = np.array([term[1:] for term in terms], dtype=np.int64).reshape(-1, 8)
    # Sums of fifths in another order are the same W.
    fractions = np.round(ownership.bonded(atoms, cmap_shares(atoms)), 14)
    if not fractions.any():
        return force, 0
    scaled = empty_copy(force)
    maps: dict[tuple[int, float], int] = {}
    for (index, *members), fraction in zip(terms, fractions.tolist(), strict=True):
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


def _scaled_formula(force: openmm.Force, ownership: Ownership) -> tuple[openmm.Force, int]:
    """E; definitions -> s*(E); definitions, with s = 1 − W a parameter of each term."""
    kind = BONDED[force.__class__.__name__]
    terms = [
        getattr(force, f"get{kind.term}Parameters")(i) for i in range(getattr(force, f"getNum{kind.term}s")())
    ]
    atoms = np.array([kind.atoms(term) for term in terms], dtype=np.int64)
    fractions = ownership.bonded(atoms) if terms else np.zeros(0)
    if not fractions.any():
        return force, 0
    scaled = empty_copy(force)
    per_term = kind.per_term
    taken = [scaled.getGlobalParameterName(i) for i in range(scaled.getNumGlobalParameters())]
    count = getattr(scaled, f"getNumPer{per_term}Parameters")()
    taken += [getattr(scaled, f"getPer{per_term}ParameterName")(i) for i in range(count)]
    energy, semicolon, definitions = force.getEnergyFunction().partition(";")
    words = {*taken, *re.findall(r"\w+", energy + semicolon + definitions)}
    share = "kept_share"
    while share in words:
        share += "_"
    scaled.setEnergyFunction(f"{share}*({energy}){semicolon}{definitions}")
    getattr(scaled, f"addPer{per_term}Parameter")(share)
    add = getattr(scaled, f"add{kind.term}")
    for (*members, parameters), fraction in zip(terms, fractions.tolist(), strict=True):
        if fraction < 1.0:
            add(*members, [*parameters, 1.0 - fraction])
    return scaled, int(np.count_nonzero(fractions))


def _scale_exceptions(force: openmm.NonbondedForce, ownership: Ownership, tables: MMTables) -> int:
    """1-4 pairs at every distance: charge product and well depth times 1 − W."""
    atoms = tables.exception_atoms
    fractions = ownership.one_four(atoms)
    alive = (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
    touched = np.flatnonzero(alive & (fractions > 0))
    left = 1.0 - fractions[touched]
    numbers = (
        tables.exception_charge[touched] * left,
        tables.exception_sigma[touched],
        tables.exception_epsilon[touched] * left,
    )
    columns = (touched, *atoms[touched].T, *numbers)
    for term in zip(*(column.tolist() for column in columns), strict=True):
        force.setExceptionParameters(*term)
    return len(touched)


def _take_pairs(
    system: openmm.System, force: openmm.NonbondedForce, ownership: Ownership, tables: MMTables
) -> int:
    """Pairs inside the zone and 1-4 pairs with one end in it leave; the two custom forces enter."""
    first, second = np.triu_indices(len(ownership.active), k=1)
    pairs = np.column_stack([ownership.active[first], ownership.active[second]])
    pairs = pairs[tables.exception_index(pairs[:, 0], pairs[:, 1]) < 0]
    in_zone = (ownership.weights > 0)[tables.exception_atoms]
    own_fractions = ownership.one_four(tables.exception_atoms)
    alive = (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
    # A 1-4 pair that reaches out of the zone leaves too: it is an exception already, so nothing else changes.
    own = np.flatnonzero(alive & (in_zone.all(axis=1) | (own_fractions > 0)))
    for index, (a, b) in zip(own.tolist(), tables.exception_atoms[own].tolist(), strict=True):
        force.setExceptionParameters(index, a, b, 0.0, 1.0, 0.0)
    for a, b in pairs.tolist():
        force.addException(a, b, 0.0, 1.0, 0.0)
    if tables.periodic:
        # Exceptions now join atoms of different molecules, whose images may lie in different cells.
        force.setExceptionsUsePeriodicBoundaryConditions(True)
    first, second = pairs.T
    columns = (
        np.concatenate([tables.exception_charge[own], tables.charge[first] * tables.charge[second]]),
        np.concatenate([tables.exception_sigma[own], 0.5 * (tables.sigma[first] + tables.sigma[second])]),
        np.concatenate(
            [tables.exception_epsilon[own], np.sqrt(tables.epsilon[first] * tables.epsilon[second])]
        ),
        np.concatenate([own_fractions[own], ownership.pairs(pairs)]),
    )
    inside = _pairs_inside(
        np.concatenate([tables.exception_atoms[own], pairs]),
        np.column_stack(columns),
        len(own),
        ownership,
        tables,
    )
    around = _pairs_around(force, np.concatenate([tables.exception_atoms, pairs]), ownership, tables)
    for custom in (inside, around):
        if custom is not None:
            custom.setForceGroup(force.getForceGroup())
            system.addForce(custom)
    return len(own) + len(pairs)


def _definitions(ownership: Ownership) -> str:
    """f(r) and the smooth tail of 1/r, as Lepton reads them."""
    start, end = map(float, ownership.handover)
    return (
        "f = 1-x^3*(10-x*(15-6*x)); "
        f"x = min(1, max(0, (r-{start!r})*{1 / (end - start)!r})); "
        f"tail = (35-p*(35-p*(21-5*p)))*{1 / (16 * end)!r}; p = (r*{1 / end!r})^2"
    )


def _pairs_inside(
    atoms: np.ndarray, parameters: np.ndarray, n_own: int, ownership: Ownership, tables: MMTables
) -> openmm.CustomBondForce | None:
    """v − W v_sr of pairs that left the NonbondedForce.

    v is what an exception takes away: Lennard-Jones with cutoff and switch, K q q/r, and beyond the cutoff of
    PME K q q erf(alpha r)/r, since such a pair has no direct part; of a 1-4 pair its own energy without
    cutoff. (1 − W)/r + W tail instead of 1/r − W (1/r − tail): nothing cancels in single precision.

    Parameters
    ----------
    atoms : ndarray, shape (P, 2)
    parameters : ndarray, shape (P, 4)
        Charge product, sigma, epsilon, W; the first `n_own` are 1-4 pairs.
    n_own : int
    ownership : Ownership
    tables : MMTables
    """
    end = float(ownership.handover[1])
    wells, screen, definitions = "", "", ""
    if math.isfinite(tables.cutoff):
        wells = "*near"
        definitions += f"; near = max(own, step({tables.cutoff!r}-r))"
        if tables.switch is not None:
            wells += "*(1-y^3*(10-y*(15-6*y)))"
            width = 1 / (tables.cutoff - tables.switch)
            definitions += f"; y = (1-own)*min(1, max(0, (r-{tables.switch!r})*{width!r}))"
        if tables.alpha:
            screen = f"*select(near, 1, erf({tables.alpha!r}*r))"
    energy = (
        f"well*(s-1)*s*(1-w*f){wells} + product*((1-w)/r + w*far){screen}; s = (sigma/r)^6; "
        f"far = select(step({end!r}-r), tail, 1/r); {_definitions(ownership)}{definitions}"
    )
    alive = (parameters[:, 0] != 0) | (parameters[:, 2] != 0)
    if not alive.any():
        return None
    force = openmm.CustomBondForce(energy)
    force.setName(INSIDE)
    force.setUsesPeriodicBoundaryConditions(tables.periodic)
    columns = [COULOMB * parameters[:, 0], parameters[:, 1], 4.0 * parameters[:, 2], parameters[:, 3]]
    names = ["product", "sigma", "well", "w"]
    if math.isfinite(tables.cutoff):
        names.append("own")
        columns.append((np.arange(len(atoms)) < n_own).astype(np.float64))
    for name in names:
        force.addPerBondParameter(name)
    for pair, numbers in zip(atoms[alive].tolist(), np.column_stack(columns)[alive].tolist(), strict=True):
        force.addBond(*pair, numbers)
    return force


def _pairs_around(
    nonbonded: openmm.NonbondedForce, excluded: np.ndarray, ownership: Ownership, tables: MMTables
) -> openmm.CustomNonbondedForce | None:
    """−W v_sr of pairs of the zone with the visible atoms around it; cutoff and exclusions of all pairs."""
    active, outside = ownership.active, np.flatnonzero(ownership.visible & (ownership.weights == 0))
    if not len(outside):
        return None
    # W of such a pair is the zone atom's alone: lambda = 0 belongs to no level either.
    fractions = ownership.pairs(np.column_stack([active, np.full(len(active), outside[0])]))
    zone = active[fractions > 0]
    if not len(zone):
        return None
    # W stands in the zone atom's charge and root of epsilon: fewer numbers to gather for every pair.
    factor = np.ones(tables.n_atoms)
    factor[zone] = fractions[fractions > 0]
    end = float(ownership.handover[1])
    switch = ""
    definitions = _definitions(ownership)
    if tables.switch is not None and tables.switch < end:
        switch = "*(1-y^3*(10-y*(15-6*y)))"
        width = 1 / (tables.cutoff - tables.switch)
        definitions += f"; y = min(1, max(0, (r-{tables.switch!r})*{width!r}))"
    force = openmm.CustomNonbondedForce(
        f"-step({end!r}-r)*(4*root1*root2*(s-1)*s*f{switch} + {COULOMB!r}*q1*q2*(1/r-tail)); "
        f"s = ((half1+half2)/r)^6; {definitions}"
    )
    force.setName(SURROUNDINGS)
    for name in ("q", "half", "root"):
        force.addPerParticleParameter(name)
    columns = np.column_stack([factor * tables.charge, 0.5 * tables.sigma, factor * np.sqrt(tables.epsilon)])
    for numbers in columns.tolist():
        force.addParticle(numbers)
    for a, b in excluded.tolist():
        force.addExclusion(a, b)
    force.addInteractionGroup(zone.tolist(), outside.tolist())
    if tables.periodic:
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    elif math.isfinite(tables.cutoff):
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    if math.isfinite(tables.cutoff):
        force.setCutoffDistance(nonbonded.getCutoffDistance())
    force.setUseLongRangeCorrection(False)
    return force
