"""Which atoms are near which others, on a grid of cells."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlmm.build.files.atoms import AtomRecord, coordinates, is_hydrogen, is_polymer, residues

CONTACT = 0.45  # nm between heavy atoms of residues that touch


def near_pairs(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Indices (P, 2) of all pairs of a point (N, 3) and another (M, 3) within a distance.

    Cells are as wide as the distance, so that partners lie in neighbouring cells.
    """
    if not len(points) or not len(others) or distance <= 0:
        return np.zeros((0, 2), dtype=int)
    origin = np.minimum(points.min(axis=0), others.min(axis=0)) - distance
    here = np.floor((points - origin) / distance).astype(np.int64)
    there = np.floor((others - origin) / distance).astype(np.int64)
    shape = np.maximum(here.max(axis=0), there.max(axis=0)) + 2
    code = (there[:, 0] * shape[1] + there[:, 1]) * shape[2] + there[:, 2]
    order = np.argsort(code, kind="stable")
    code = code[order]
    found = []
    for offset in np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3):
        cell = here + offset
        wanted = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
        start, end = np.searchsorted(code, wanted, "left"), np.searchsorted(code, wanted, "right")
        counts = end - start
        first = np.repeat(np.arange(len(points)), counts)
        second = order[
            np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(start, counts)
        ]
        inside = ((points[first] - others[second]) ** 2).sum(axis=1) <= distance * distance
        found.append(np.stack([first[inside], second[inside]], axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def near(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """For each point (N,), whether any other lies within the distance."""
    close = np.zeros(len(points), dtype=bool)
    close[near_pairs(points, others, distance)[:, 0]] = True
    return close


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
    pairs = near_pairs(points, points, CONTACT)
    pairs = pairs[chain[pairs[:, 0]] < chain[pairs[:, 1]]]
    unique = {(int(residue[i]), int(residue[j])): (names[chain[i]], names[chain[j]]) for i, j in pairs}
    return dict(sorted(Counter(unique.values()).items(), key=lambda item: (-item[1], item[0])))
