"""Contacts between the polymer chains of a structure file, and bonds of its small molecules."""

from __future__ import annotations

from collections import Counter

import gemmi
import numpy as np

from mlmm.build.files.atoms import METALS, AtomRecord, coordinates, is_hydrogen, is_polymer, residues
from mlmm.neighbours import pairs_within

CONTACT = 0.45  # nm between heavy atoms of residues that touch
_SLACK = 0.025  # nm above the sum of covalent radii
_LONGEST = 0.26  # nm


def chain_contacts(atoms: list[AtomRecord]) -> dict[tuple[str, str], int]:
    """Pairs of residues of two polymer chains with heavy atoms within 0.45 nm, counted, most first."""
    solid = [
        (number, atom)
        for number, group in enumerate(residues(atoms))
        if is_polymer(group)
        for atom in group
        if not is_hydrogen(atom)
    ]
    points = coordinates(atom for _, atom in solid)
    names = sorted({atom.chain for _, atom in solid})
    chain = np.array([names.index(atom.chain) for _, atom in solid], dtype=int)
    residue = np.array([number for number, _ in solid], dtype=int)
    pairs = pairs_within(points, points, CONTACT)
    pairs = pairs[chain[pairs[:, 0]] < chain[pairs[:, 1]]]
    unique = {(int(residue[i]), int(residue[j])): (names[chain[i]], names[chain[j]]) for i, j in pairs}
    return dict(sorted(Counter(unique.values()).items(), key=lambda item: (-item[1], item[0])))


def bonded_residues(groups: list[list[AtomRecord]]) -> dict[int, list[int]]:
    """Residues that are bonded to each other by the distance of their heavy atoms, metals and water left out.

    Parameters
    ----------
    groups : list of list of AtomRecord
        Atoms by residue.

    Returns
    -------
    dict of int to list of int
        Place of each residue that is no link of a chain -> places of those that it is bonded to.
    """
    heavy = [
        (place, atom)
        for place, group in enumerate(groups)
        if group[0].residue_name != "HOH" and len(group) > 1
        for atom in group
        if not is_hydrogen(atom) and atom.element not in METALS
    ]
    small = [entry for entry in heavy if not is_polymer(groups[entry[0]])]
    radii = {element: gemmi.Element(element).covalent_r / 10 for element in {a.element for _, a in heavy}}
    points = coordinates(atom for _, atom in small), coordinates(atom for _, atom in heavy)
    found: dict[int, list[int]] = {}
    for i, j in pairs_within(*points, _LONGEST):
        (one, first), (other, second) = small[i], heavy[j]
        distance = float(np.linalg.norm(points[0][i] - points[1][j]))
        if one != other and distance < radii[first.element] + radii[second.element] + _SLACK:
            found.setdefault(one, []).append(other)
    return found
