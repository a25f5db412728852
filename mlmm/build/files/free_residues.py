"""Amino acids and nucleotides that are ligands: substrates, cofactors, caps beside the chains of a file."""

from __future__ import annotations

import numpy as np

from mlmm.build.files.atoms import (
    CAPS,
    CHAIN_LINKS,
    LONGEST_LINK,
    AtomRecord,
    coordinates,
    is_polymer,
    residues,
)
from mlmm.neighbours import pairs_within

__all__ = ["mark_free"]


def mark_free(atoms: list[AtomRecord]) -> list[AtomRecord]:
    """Mark residues that have the backbone of a link of a chain, but stand alone: arginine, ATP, GDP.

    They are HETATM records without a peptide or phosphate bond to another residue. A residue among those of a
    chain, before its TER (mmCIF: with its label), is a link of it also where both neighbours are missing.

    Parameters
    ----------
    atoms : list of AtomRecord
        One model, one location of each atom.
    """
    groups = list(residues(atoms))
    links = [index for index, group in enumerate(groups) if is_polymer(group)]
    bonded = _bonded(groups, links)
    last_part: dict[str, int] = {}
    last_link: dict[tuple[str, int, str], int] = {}
    for index in links:
        first = groups[index][0]
        last_part[first.chain] = max(last_part.get(first.chain, 0), first.part)
        if not first.hetero:
            last_link[first.chain, first.part, first.label_chain] = index
    marked: list[AtomRecord] = []
    for index, group in enumerate(groups):
        first = group[0]
        alone = first.hetero and first.residue_name not in CAPS and is_polymer(group) and index not in bonded
        # Without a TER behind its last link, a chain ends there.
        closed = first.label_chain != "" or first.part < last_part.get(first.chain, 0)
        end = last_link.get((first.chain, first.part, first.label_chain), -1)
        within = end >= 0 if closed else index < end
        marked += [atom._replace(free=True) for atom in group] if alone and not within else group
    return marked


def _bonded(groups: list[list[AtomRecord]], links: list[int]) -> set[int]:
    """Places of the residues that a bond of a backbone joins to another one."""
    found: set[int] = set()
    for names in CHAIN_LINKS:
        ends = [(index, atom) for index in links for atom in groups[index] if atom.name in names]
        owner = np.array([index for index, _ in ends], dtype=int)
        side = np.array([names.index(atom.name) for _, atom in ends], dtype=int)
        points = coordinates(atom for _, atom in ends)
        for i, j in pairs_within(points, points, LONGEST_LINK):
            if owner[i] != owner[j] and side[i] != side[j]:
                found |= {int(owner[i]), int(owner[j])}
    return found
