"""Bonds that OpenMM's table of standard residues does not know: inside and between residues.

Records of the file (CONECT, LINK, SSBOND, struct_conn) and distances are read together: a covalent inhibitor
is one molecule with its enzyme even if no record says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import gemmi
import numpy as np
from openmm import app

from mlmm.build.files.atoms import CHAIN_LINKS, LONGEST_LINK, METALS, ResidueKey
from mlmm.build.gaps import describe_residue
from mlmm.build.glycans import is_sugar, place_of, places_of
from mlmm.build.questions import OpenQuestionError, removal_key, without
from mlmm.neighbours import pairs_within

__all__ = [
    "Joint",
    "Sources",
    "bond_backbone",
    "bond_by_distance",
    "bond_inside",
    "joints",
    "name_of",
    "told",
]

_SLACK = 0.025  # nm above the sum of covalent radii; most bonds of small molecules lie within 0.01
_LONGEST = 0.3  # nm; above every sum of two covalent radii of non-metals
_HYDROGEN_BOND = 0.15  # nm between a hydrogen and its atom; S-H has 0.134
_DISTANCE = "distance"

#: Ends of a bond (residue and atom in words) -> names of the records that give it.
Sources = dict[frozenset[str], list[str]]


class Joint(NamedTuple):
    """A bond between two residues beside the bonds of the chain."""

    one: app.topology.Atom
    other: app.topology.Atom


def name_of(atom: app.topology.Atom, replaced: Mapping[ResidueKey, str] = MappingProxyType({})) -> str:
    """``"NZ of LYS 2 of chain A"``, with the name that a replaced residue has in the file."""
    residue = atom.residue
    who, before = describe_residue(residue), replaced.get(place_of(residue))
    return f"{atom.name} of {who if before is None else before + who[len(residue.name) :]}"


def joints(topology: app.Topology) -> list[Joint]:
    """Bonds between residues that are no link of a chain and no disulfide."""
    return [
        Joint(one, other)
        for one, other in topology.bonds()
        if one.residue is not other.residue
        and not _is_link(one, other)
        and {one.name, other.name, one.residue.name, other.residue.name} != {"SG", "CYS"}
    ]


def _is_link(one: app.topology.Atom, other: app.topology.Atom) -> bool:
    """Neighbours in one chain, by the atoms that join them there."""
    first, second = sorted((one, other), key=lambda atom: atom.residue.index)
    return (
        first.residue.chain is second.residue.chain
        and second.residue.index == first.residue.index + 1
        and (first.name, second.name) in CHAIN_LINKS
    )


def bond_backbone(topology: app.Topology, positions: np.ndarray) -> None:
    """Join neighbours of a chain whose names OpenMM's table does not know, where they are near enough."""
    bonded = _pairs(topology)
    for chain in topology.chains():
        for before, after in pairwise(chain.residues()):
            first = {atom.name: atom for atom in before.atoms()}
            second = {atom.name: atom for atom in after.atoms()}
            for left, right in CHAIN_LINKS:
                if left in first and right in second:
                    one, other = first[left], second[right]
                    distance = np.linalg.norm(positions[one.index] - positions[other.index])
                    if distance < LONGEST_LINK and frozenset((one.index, other.index)) not in bonded:
                        topology.addBond(one, other)


def bond_inside(topology: app.Topology, positions: np.ndarray) -> None:
    """Bonds within links of a chain and sugars outside OpenMM's table, by distance where not recorded."""
    bonded = _pairs(topology)
    neighbours: dict[int, set[int]] = {}
    for pair in bonded:
        for index in pair:
            neighbours.setdefault(index, set()).update(pair - {index})
    for residue in topology.residues():
        atoms = list(residue.atoms())
        names = {atom.name for atom in atoms}
        in_chain = {"N", "CA", "C"} <= names or is_sugar(places_of(residue, positions))
        if residue.name in app.Topology._standardBonds or not in_chain:
            continue
        heavy = [a for a in atoms if a.element not in (None, app.element.hydrogen)]
        if not _connected([a.index for a in heavy], neighbours):
            for one, other in _near(heavy, positions):
                if frozenset((one.index, other.index)) not in bonded:
                    topology.addBond(one, other)
        for light in (a for a in atoms if a.element == app.element.hydrogen):
            distances = np.linalg.norm(positions[[a.index for a in heavy]] - positions[light.index], axis=1)
            closest = int(distances.argmin())
            if not neighbours.get(light.index) and distances[closest] < _HYDROGEN_BOND:
                topology.addBond(light, heavy[closest])


def bond_by_distance(topology: app.Topology, positions: np.ndarray, name: str) -> Sources:
    """Bonds between residues whose atoms are as near to each other as bonded ones; the topology is changed.

    Returns
    -------
    dict
        Ends of each new bond in words, to ``["distance"]``.

    Raises
    ------
    StructureError
        A water or ion within a bond's length of another atom.
    """
    bonded = _pairs(topology)
    heavy = [
        atom
        for atom in topology.atoms()
        if atom.element not in (None, app.element.hydrogen) and atom.element.symbol.upper() not in METALS
    ]
    sources: Sources = {}
    intruders: dict[app.topology.Residue, str] = {}
    for one, other in _near(heavy, positions, between=True):
        if frozenset((one.index, other.index)) in bonded or _is_link(one, other):
            continue
        alone = next((a for a in (one, other) if _is_alone(a.residue)), None)
        if alone is not None:
            partner = other if alone is one else one
            distance = np.linalg.norm(positions[one.index] - positions[other.index])
            intruders[alone.residue] = f"{distance:.3f} nm from {name_of(partner)}"
        else:
            topology.addBond(one, other)
            sources[frozenset((name_of(one), name_of(other)))] = [_DISTANCE]
    if intruders:
        shown = [f"{describe_residue(residue)} {where}" for residue, where in intruders.items()]
        keys = [removal_key(r.name, r.chain.id, r.id, r.insertionCode) for r in intruders]
        raise OpenQuestionError(
            "waters and ions beside the other molecules",
            f"{', '.join(shown[:6])}{' …' if len(shown) > 6 else ''} in {name}",
            f"leave them out: {without(keys)}",
            {"remove": keys},
            f"without {', '.join(describe_residue(residue) for residue in intruders)}",
        )
    return sources


def told(
    joint: Joint,
    positions: np.ndarray,
    sources: Mapping[frozenset[str], list[str]],
    replaced: Mapping[ResidueKey, str],
) -> str:
    """``"NZ of LYS 2 of chain A - CG of ASP 6 of chain A (0.133 nm; LINK, CONECT)"``."""
    distance = float(np.linalg.norm(positions[joint.one.index] - positions[joint.other.index]))
    ends = name_of(joint.one, replaced), name_of(joint.other, replaced)
    records = sources.get(frozenset(ends), [])
    by = "; by their distance" if records == [_DISTANCE] else f"; {', '.join(records)}" if records else ""
    return f"{ends[0]} - {ends[1]} ({distance:.3f} nm{by})"


def _pairs(topology: app.Topology) -> set[frozenset[int]]:
    return {frozenset((one.index, other.index)) for one, other in topology.bonds()}


def _is_alone(residue: app.topology.Residue) -> bool:
    return residue.name == "HOH" or len(list(residue.atoms())) == 1


def _near(
    atoms: list[app.topology.Atom], positions: np.ndarray, between: bool = False
) -> Iterable[tuple[app.topology.Atom, app.topology.Atom]]:
    """Pairs of heavy atoms within the sum of their covalent radii and some slack."""
    points = positions[[atom.index for atom in atoms]]
    radii = np.array([gemmi.Element(atom.element.symbol).covalent_r / 10 for atom in atoms])
    for i, j in pairs_within(points, points, _LONGEST):
        if i < j and not (between and atoms[i].residue is atoms[j].residue):
            distance = np.linalg.norm(points[i] - points[j])
            if distance < radii[i] + radii[j] + _SLACK:
                yield atoms[i], atoms[j]


def _connected(indices: list[int], neighbours: Mapping[int, set[int]]) -> bool:
    members, waiting, seen = set(indices), indices[:1], set(indices[:1])
    while waiting:
        for other in neighbours.get(waiting.pop(), set()) & members - seen:
            seen.add(other)
            waiting.append(other)
    return seen == members
