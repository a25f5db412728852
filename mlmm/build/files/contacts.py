"""Contacts between the polymer chains of a structure file."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlmm.build.files.atoms import AtomRecord, coordinates, is_hydrogen, is_polymer, residues
from mlmm.neighbours import pairs_within

CONTACT = 0.45  # nm between heavy atoms of residues that touch


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
