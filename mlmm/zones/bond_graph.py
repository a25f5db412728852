"""The graph of covalent bonds: bridges, connected parts, distances in bonds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

__all__ = ["bond_distances", "bond_pairs", "bridges", "components"]


def bond_pairs(topology: Any) -> np.ndarray:
    """The bonds of an openmm.app.Topology as pairs of atoms, (B, 2)."""
    pairs = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def bridges(n_atoms: int, bonds: np.ndarray) -> np.ndarray:
    """Bonds whose removal separates their ends, by one depth-first walk (R. E. Tarjan, Inf. Process. Lett. 2,
    160 (1974), doi:10.1016/0020-0190(74)90003-9).

    Parameters
    ----------
    n_atoms : int
    bonds : ndarray, shape (B, 2), int
        A bond that stands twice is no bridge.

    Returns
    -------
    ndarray, shape (B,), bool
    """
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(n_atoms)]
    for index, (first, second) in enumerate(np.asarray(bonds).reshape(-1, 2).tolist()):
        neighbours[first].append((second, index))
        neighbours[second].append((first, index))
    found = np.zeros(len(bonds), dtype=bool)
    entered, lowest, clock = [0] * n_atoms, [0] * n_atoms, 0
    for root in range(n_atoms):
        if entered[root] or not neighbours[root]:
            continue
        clock += 1
        entered[root] = lowest[root] = clock
        path = [(root, -1, iter(neighbours[root]))]
        while path:
            atom, came_by, rest = path[-1]
            for other, bond in rest:
                if bond == came_by:
                    continue
                if entered[other]:
                    lowest[atom] = min(lowest[atom], entered[other])
                else:
                    clock += 1
                    entered[other] = lowest[other] = clock
                    path.append((other, bond, iter(neighbours[other])))
                    break
            else:
                path.pop()
                if path:
                    parent = path[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[atom])
                    found[came_by] = lowest[atom] > entered[parent]
    return found


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Number of the connected part of each node, counted by first member.

    Parameters
    ----------
    n : int
        Nodes.
    pairs : ndarray, shape (P, 2), int

    Returns
    -------
    ndarray, shape (n,), int64
    """
    return connected_components(_matrix(n, pairs), directed=False)[1].astype(np.int64)


def bond_distances(n_atoms: int, bonds: np.ndarray, atoms: Sequence[int], reach: int) -> np.ndarray:
    """Least number of bonds from each atom to the nearest of some atoms.

    Parameters
    ----------
    n_atoms : int
    bonds : ndarray, shape (B, 2), int
    atoms : sequence of int
    reach : int
        Distances beyond are not looked for.

    Returns
    -------
    ndarray, shape (N,), float64
        Infinite beyond the reach and in other molecules.
    """
    sources = np.asarray(list(atoms), dtype=np.int64)
    return dijkstra(
        _matrix(n_atoms, bonds), directed=False, indices=sources, unweighted=True, limit=reach, min_only=True
    )


def _matrix(n: int, pairs: np.ndarray) -> csr_array:
    """Adjacency matrix of a graph whose edges may stand several times."""
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    return csr_array((np.ones(len(first)), (first, second)), shape=(n, n))
