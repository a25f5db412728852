"""Pairs of a zone in OpenMM: what leaves the NonbondedForce, and the two custom forces that take its place.

v is the whole energy of a pair in the force field, v_sr the part within the range of the potential:
Lennard-Jones times the switching function f, and K q q/r less its smooth tail. PME is never touched.
"""

from __future__ import annotations

import math

import numpy as np
import openmm

from mlmm.errors import EmbeddingError
from mlmm.forcefield.tables import MMTables
from mlmm.pair_formulas import lepton_smooth_step, lepton_tail
from mlmm.term_weights import TermWeights
from mlmm.units import COULOMB

__all__ = ["INSIDE", "SURROUNDINGS", "check_switching_range", "take_pairs"]

#: Names of the forces that take over the pairs.
INSIDE = "pairs inside the zone"
SURROUNDINGS = "pairs of the zone with its surroundings"


def _switching(term_weights: TermWeights) -> tuple[float, float]:
    """r_on and r_off, nm; refuses weights without them."""
    if term_weights.switching is None:
        raise EmbeddingError(
            f"a switching range (r_on, r_off) for the pairs of scheme {term_weights.scheme!r}",
            "none",
            "pass distances, or use remove_region_terms for whole molecules and pairs at every distance",
        )
    return term_weights.switching


def check_switching_range(term_weights: TermWeights, tables: MMTables) -> None:
    """Refuse a switching function that is missing or reaches beyond the force field's cutoff."""
    start, end = _switching(term_weights)
    if not (0.0 <= start < end <= tables.cutoff and math.isfinite(end)):
        raise EmbeddingError(
            f"0 <= r_on < r_off within the force field's cutoff of {tables.cutoff:g} nm",
            f"r_on = {start:g} nm, r_off = {end:g} nm",
            "change the range, or build the system with a longer cutoff",
        )


def take_pairs(
    system: openmm.System,
    force: openmm.NonbondedForce,
    term_weights: TermWeights,
    tables: MMTables,
    near: np.ndarray | None = None,
) -> int:
    """Pairs inside the zone and 1-4 pairs with one end in it leave; the two custom forces enter.

    With `near`, pairs (P, 2), only these and the 1-4 pairs leave: the caller subtracts the others by a force
    of its own, also those with the surroundings (`mlmm.kernels.direct_pairs.ZonePairs`). The count is that
    of all.
    """
    active = term_weights.active
    if near is None:
        first, second = np.triu_indices(len(active), k=1)
        pairs = np.column_stack([active[first], active[second]])
    else:
        pairs = near
    pairs = pairs[tables.exception_index(pairs[:, 0], pairs[:, 1]) < 0]
    in_zone = (term_weights.weights > 0)[tables.exception_atoms]
    own_fractions = term_weights.one_four(tables.exception_atoms)
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
    left = np.concatenate([tables.exception_atoms[own], pairs])
    fractions = np.concatenate([own_fractions[own], term_weights.pairs(pairs)])
    inside = _pairs_inside(
        left,
        np.column_stack([*tables.pair_parameters(*left.T)[:3], fractions]),
        len(own),
        term_weights,
        tables,
    )
    around = None
    if near is None:
        around = _pairs_around(force, np.concatenate([tables.exception_atoms, pairs]), term_weights, tables)
    for custom in (inside, around):
        if custom is not None:
            custom.setForceGroup(force.getForceGroup())
            system.addForce(custom)
    known = np.isin(tables.exception_atoms, active).all(axis=1)
    return len(own) + len(active) * (len(active) - 1) // 2 - int(np.count_nonzero(known))


def _definitions(switching: tuple[float, float]) -> str:
    """f(r), g = 1 − f, and the smooth tail of 1/r, as Lepton reads them."""
    start, end = map(float, switching)
    return (
        f"f = 1-g; g = {lepton_smooth_step('x')}; "
        f"x = min(1, max(0, (r-{start!r})*{1 / (end - start)!r})); "
        f"tail = {lepton_tail('p', end)}; p = (r*{1 / end!r})^2"
    )


def _own_switch(tables: MMTables) -> str:
    """x of the force field's own switching function for Lennard-Jones, before it is clamped."""
    assert tables.switch is not None
    return f"(r-{tables.switch!r})*{1 / (tables.cutoff - tables.switch)!r}"


def _pairs_inside(
    atoms: np.ndarray, parameters: np.ndarray, n_own: int, term_weights: TermWeights, tables: MMTables
) -> openmm.CustomBondForce | None:
    """v − W v_sr of pairs that left the NonbondedForce.

    v is what an exception takes away: Lennard-Jones with cutoff and switch, K q q/r, and beyond the cutoff of
    PME K q q erf(alpha r)/r, since such a pair has no direct part; of a 1-4 pair its own energy without
    cutoff. With 1 − W as the parameter, (1 − W)/r + W tail instead of 1/r − W (1/r − tail), and 1 − W + W g
    with g = 1 − f: nothing cancels in single precision.

    Parameters
    ----------
    atoms : ndarray, shape (P, 2)
    parameters : ndarray, shape (P, 4)
        Charge product, sigma, epsilon, W; the first `n_own` are 1-4 pairs.
    n_own : int
    term_weights : TermWeights
    tables : MMTables
    """
    switching = _switching(term_weights)
    end = float(switching[1])
    wells, screen, definitions = "", "", ""
    if math.isfinite(tables.cutoff):
        wells = "*near"
        definitions += f"; near = max(own, step({tables.cutoff!r}-r))"
        if tables.switch is not None:
            wells += f"*(1-{lepton_smooth_step('y')})"
            definitions += f"; y = (1-own)*min(1, max(0, {_own_switch(tables)}))"
        if tables.alpha:
            screen = f"*select(near, 1, erf({tables.alpha!r}*r))"
    energy = (
        f"well*(s-1)*s*(left+w*g){wells} + product*(left/r+w*far){screen}; w = 1-left; s = (sigma/r)^6; "
        f"far = select(step({end!r}-r), tail, 1/r); {_definitions(switching)}{definitions}"
    )
    alive = (parameters[:, 0] != 0) | (parameters[:, 2] != 0)
    if not alive.any():
        return None
    force = openmm.CustomBondForce(energy)
    force.setName(INSIDE)
    force.setUsesPeriodicBoundaryConditions(tables.periodic)
    columns = [COULOMB * parameters[:, 0], parameters[:, 1], 4.0 * parameters[:, 2]]
    columns.append(1.0 - parameters[:, 3])
    names = ["product", "sigma", "well", "left"]
    if math.isfinite(tables.cutoff):
        names.append("own")
        columns.append((np.arange(len(atoms)) < n_own).astype(np.float64))
    for name in names:
        force.addPerBondParameter(name)
    for pair, numbers in zip(atoms[alive].tolist(), np.column_stack(columns)[alive].tolist(), strict=True):
        force.addBond(*pair, numbers)
    return force


def _pairs_around(
    nonbonded: openmm.NonbondedForce, excluded: np.ndarray, term_weights: TermWeights, tables: MMTables
) -> openmm.CustomNonbondedForce | None:
    """−W v_sr of pairs of the zone with the visible atoms around it; cutoff and exclusions of all pairs.

    An interaction group visits |S| N pairs. On the CPU platform that is faster than a neighbour list of all
    pairs, most of which have no W, at least up to 1,000 atoms in the zone; on a GPU it has a list of its own.
    """
    active, outside = term_weights.active, np.flatnonzero(term_weights.visible & (term_weights.weights == 0))
    if not len(outside):
        return None
    # W of such a pair is the zone atom's alone.
    fractions = term_weights.pairs(np.column_stack([active, np.full(len(active), outside[0])]))
    zone = active[fractions > 0]
    if not len(zone):
        return None
    # W stands in the zone atom's charge and root of epsilon: fewer numbers to gather for every pair.
    factor = np.ones(tables.n_atoms)
    factor[zone] = fractions[fractions > 0]
    switching = _switching(term_weights)
    end, switch, definitions = float(switching[1]), "", _definitions(switching)
    if tables.switch is not None and tables.switch < end:
        switch = f"*(1-{lepton_smooth_step('y')})"
        definitions += f"; y = min(1, max(0, {_own_switch(tables)}))"
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
