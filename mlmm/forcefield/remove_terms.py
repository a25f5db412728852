"""Remove the force-field terms that a machine-learned potential replaces.

Scheme ``additive`` (mechanical embedding): the potential gives every interaction within the region, the force
field everything else, electrostatics of the region with its surroundings included. PME is not touched: a pair
leaves it through an exception, which OpenMM evaluates exactly (reciprocal part included).
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import openmm

from mlmm.errors import EmbeddingError
from mlmm.forcefield.term_catalogue import (
    BONDED,
    CATALOGUE,
    PAIRS,
    STAYS_WHOLE,
    bonded_pairs,
    class_of,
    described,
    empty_copy,
    is_kept,
    refuse_uncopyable,
)

__all__ = [
    "RemovedTerms",
    "free_touching_constraints",
    "refuse_virtual_sites",
    "remove_region_terms",
    "remove_zone_pairs",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemovedTerms:
    """Terms that an embedding scheme removed from the force field.

    Parameters
    ----------
    scheme : str
    counts : dict of str to int
        Terms that the potential took over, by force class; ``"constraints"`` counts those that were freed.
    kept : tuple of str
        Forces that were left alone because they are no part of the force field, or because the user said so.
    """

    scheme: str
    counts: dict[str, int] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def remove_region_terms(
    system: openmm.System,
    atoms: Sequence[int],
    *,
    bonds: Collection[tuple[int, int]] = (),
    capped: bool = False,
    keep: Collection[str] = (),
    label: Callable[[int], str] = str,
    emptied: Collection[tuple[int, int]] | None = None,
) -> tuple[openmm.System, RemovedTerms]:
    """Remove every force-field interaction among the atoms of a region; the input is not changed.

    Parameters
    ----------
    system : openmm.System
        The full force field.
    atoms : sequence of int
        The region.
    bonds : collection of (int, int)
        Bonds known from the topology, in addition to those of the system.
    capped : bool
        The potential gets hydrogens where bonds are cut: a bond may leave the region, and the terms across it
        stay whole.
    keep : collection of str
        Names or class names of forces to leave as they are: biases and restraints that act inside the region.
    label : callable
        Index to a name of the atom, for messages.
    emptied : collection of (int, int), optional
        Pairs inside that leave the NonbondedForce besides its exceptions; all of them by default. The caller
        subtracts the others (`mlmm.kernels.direct_pairs.RegionPairs`).

    Returns
    -------
    system : openmm.System
        A new system without the region's own force field, and without its constraints.
    removed : RemovedTerms

    Raises
    ------
    EmbeddingError
        A region that cuts a bond or holds a virtual site, or a force that is not handled, by name.
    """
    inside = frozenset(atoms)
    refuse_uncopyable(system)
    for force in system.getForces():
        _refuse_unknown(force, keep)
    if not capped:
        _refuse_cut_bonds(system, inside, bonds, label)
    refuse_virtual_sites(system, inside, label)
    embedded = copy.deepcopy(system)
    removed: dict[str, int] = {}
    kept: list[str] = []
    replaced: list[tuple[int, openmm.Force]] = []
    for index, force in enumerate(embedded.getForces()):
        name, count = class_of(force), 0
        if is_kept(force, keep) or name in STAYS_WHOLE:
            kept.append(force.getName())
        elif name in BONDED:
            smaller, count = _without_inside(force, inside)
            if count:
                replaced.append((index, smaller))
        elif name == "NonbondedForce":
            count = _exclude_nonbonded(force, inside, emptied)
        elif name == "CustomNonbondedForce":
            count = _exclude_custom_nonbonded(force, inside)
        if count:
            removed[name] = removed.get(name, 0) + count
    for index, _ in reversed(replaced):
        embedded.removeForce(index)
    for _, force in replaced:
        embedded.addForce(force)
    freed = _free_constraints(embedded, inside)
    if freed:
        removed["constraints"] = freed
    logger.info("additive: %d atoms; removed %s", len(inside), removed)
    return embedded, RemovedTerms("additive", removed, tuple(kept))


def remove_zone_pairs(
    system: openmm.System,
    atoms: Sequence[int],
    *,
    scheme: str = "per_atom",
    label: Callable[[int], str] = str,
) -> tuple[openmm.System, RemovedTerms]:
    """The force field without pairs inside the zone and constraints on it, for subtraction in torch.

    Everything that leaves here is added back elsewhere (`FullPairs`); the rest of the blend is a difference
    on top of the whole force field.

    Parameters
    ----------
    system : openmm.System
        The full force field, the zone's atoms flexible.
    atoms : sequence of int
        The zone, lambda > 0.
    scheme : str
        For the record.
    label : callable
        Index to a name of the atom, for messages.

    Raises
    ------
    EmbeddingError
        A virtual site in the zone, or a constraint on its atoms for which the force field has no bond term.
    """
    inside = frozenset(atoms)
    refuse_uncopyable(system)
    embedded = copy.deepcopy(system)
    removed = {}
    refuse_virtual_sites(system, inside, label)
    for force in embedded.getForces():
        if isinstance(force, openmm.NonbondedForce):
            removed["NonbondedForce"] = _exclude_nonbonded(force, inside)
    freed = free_touching_constraints(embedded, inside, scheme, label)
    if freed:
        removed["constraints"] = freed
    logger.info("%s: %d atoms; removed %s", scheme, len(inside), removed)
    return embedded, RemovedTerms(scheme, removed)


def refuse_virtual_sites(system: openmm.System, inside: frozenset[int], label: Callable[[int], str]) -> None:
    """Refuse a virtual site on the other side of the boundary than the atoms that carry it.

    Raises
    ------
    EmbeddingError
        A site on another side of the boundary than its atoms.
    """
    for i in range(system.getNumParticles()):
        if system.isVirtualSite(i):
            site = system.getVirtualSite(i)
            carriers = {site.getParticle(k) for k in range(site.getNumParticles())}
            whole = inside.issuperset(carriers) if i in inside else inside.isdisjoint(carriers)
            if not whole:
                raise EmbeddingError(
                    "virtual sites on the same side of the boundary as their atoms",
                    f"{label(i)} on another side",
                    'choose whole molecules: region.complete = "molecule"',
                )


def _refuse_unknown(force: openmm.Force, keep: Collection[str]) -> None:
    if class_of(force) not in CATALOGUE and not is_kept(force, keep):
        raise EmbeddingError(
            f"forces that scheme 'additive' can divide ({', '.join([*PAIRS, *BONDED])})",
            described(force),
            f"add it to `hybrid.system` afterwards, or pass keep=[{force.getName()!r}] to leave it whole",
        )


def _refuse_cut_bonds(
    system: openmm.System,
    inside: frozenset[int],
    bonds: Collection[tuple[int, int]],
    label: Callable[[int], str],
) -> None:
    """Every bond has both ends on one side: a spring, a constraint, or one of the topology."""
    joined = {frozenset(pair) for pair in bonds} | bonded_pairs(system)
    joined |= {frozenset(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())}
    crossing = sorted(sorted(pair) for pair in joined if 0 < len(pair & inside) < len(pair))
    if crossing:
        a, b = crossing[0]
        raise EmbeddingError(
            "a region of whole molecules under scheme 'additive'",
            f"the bond {label(a)}–{label(b)} across its boundary",
            'set region.complete = "molecule", or choose a selection that takes whole molecules',
        )


def _without_inside(force: openmm.Force, inside: frozenset[int]) -> tuple[openmm.Force, int]:
    """A copy of a bonded force without the terms whose atoms are all inside, and how many those are."""
    terms = BONDED[class_of(force)]
    every = terms.parameters(force)
    outside = [one for one in every if not inside.issuperset(terms.atoms(one))]
    if len(outside) == len(every):
        return force, 0
    smaller = empty_copy(force)
    for one in outside:
        terms.add(smaller, one)
    return smaller, len(every) - len(outside)


def _exclude_nonbonded(
    force: openmm.NonbondedForce, inside: frozenset[int], emptied: Collection[tuple[int, int]] | None = None
) -> int:
    """Exceptions without charge product and well depth for pairs inside; returns how many those are in all.

    With `emptied`, for these and the exceptions that are there, otherwise for every pair.
    """
    known = {}
    for i in range(force.getNumExceptions()):
        a, b = force.getExceptionParameters(i)[:2]
        known[min(a, b), max(a, b)] = i
    offset_exceptions = {
        force.getExceptionParameterOffset(i)[1] for i in range(force.getNumExceptionParameterOffsets())
    }
    pairs: Iterable[tuple[int, int]] = itertools.combinations(sorted(inside), 2)
    if emptied is not None:
        held = {pair for pair in known if inside.issuperset(pair)}
        pairs = sorted(held.union((min(pair), max(pair)) for pair in emptied))
    for pair in pairs:
        index = known.get(pair)
        if index is None:
            force.addException(*pair, 0.0, 1.0, 0.0)
        elif index in offset_exceptions:
            raise EmbeddingError(
                "fixed 1-4 parameters inside the region",
                f"a parameter offset on the exception {pair}",
                "remove the offset: the potential owns that pair",
            )
        else:
            force.setExceptionParameters(index, *pair, 0.0, 1.0, 0.0)
    # Exceptions now join atoms of different molecules, whose images may lie in different cells.
    periodic = (openmm.NonbondedForce.CutoffPeriodic, openmm.NonbondedForce.Ewald, openmm.NonbondedForce.PME)
    if force.getNonbondedMethod() in (*periodic, openmm.NonbondedForce.LJPME):
        force.setExceptionsUsePeriodicBoundaryConditions(True)
    return len(inside) * (len(inside) - 1) // 2


def _exclude_custom_nonbonded(force: openmm.CustomNonbondedForce, inside: frozenset[int]) -> int:
    """Exclusions for every pair inside; OpenMM wants the same list in every non-bonded force."""
    known = set()
    for i in range(force.getNumExclusions()):
        a, b = force.getExclusionParticles(i)
        known.add((min(a, b), max(a, b)))
    pairs = [pair for pair in itertools.combinations(sorted(inside), 2) if pair not in known]
    for pair in pairs:
        force.addExclusion(*pair)
    return len(pairs)


def free_touching_constraints(
    system: openmm.System, inside: frozenset[int], scheme: str, label: Callable[[int], str]
) -> int:
    """Remove the constraints with an end in the zone, whose bond terms then hold; returns their number.

    Raises
    ------
    EmbeddingError
        A constraint without a bond term.
    """
    springs = bonded_pairs(system)
    touching = []
    for i in range(system.getNumConstraints()):
        pair = system.getConstraintParameters(i)[:2]
        if inside.intersection(pair):
            if frozenset(pair) not in springs:
                raise EmbeddingError(
                    f"flexible molecules in the zone under scheme {scheme!r}",
                    f"the constraint {label(pair[0])}–{label(pair[1])} without a bond term",
                    'build with constraints = "none" and rigid_water = false',
                )
            touching.append(i)
    for i in reversed(touching):
        system.removeConstraint(i)
    return len(touching)


def _free_constraints(system: openmm.System, inside: frozenset[int]) -> int:
    """Remove the constraints inside; the potential keeps the bond lengths."""
    held = [
        i
        for i in range(system.getNumConstraints())
        if inside.issuperset(system.getConstraintParameters(i)[:2])
    ]
    for i in reversed(held):
        system.removeConstraint(i)
    return len(held)
