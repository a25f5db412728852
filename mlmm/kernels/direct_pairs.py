"""Force-field pairs that stay in OpenMM and that a force of their own subtracts, in float64 without torch.

The force is one of the plugin's around the C++ kernel, or a PythonForce without the plugin; it stands beside
any host of the potential. An exception costs OpenMM's CPU platform more than the pair itself, and a custom
non-bonded force visits every pair of its groups. Here a pair costs a few nanoseconds. What OpenMM rounds to
single precision stays rounded in the difference: at contacts no more than in the force field itself, but a
repulsive wall that a potential does not have would leave its noise. Pairs with a well that are neighbours at
the start, between which bonds may form, leave OpenMM by exceptions therefore. Others keep the noise if they
form one later: two carbons in a box of 4 nm 0.01 kJ/mol/nm at 0.25 nm, 0.2 at 0.20 nm, 14 (at most 34) at
0.15 nm; charges without wells 0.02 at 0.1 nm. A system built anew from the later structure loses it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mlmm.errors import EmbeddingError
from mlmm.kernels.library import open_build
from mlmm.kernels.torch_pairs import partners
from mlmm.neighbours import pairs_within
from mlmm.units import COULOMB

if TYPE_CHECKING:
    from mlmm.forcefield.tables import MMTables
    from mlmm.term_weights import TermWeights

__all__ = [
    "CLOSE",
    "REGION_PAIRS",
    "ZONE_PAIRS",
    "RegionPairs",
    "ZonePairs",
    "close_pairs",
    "neighbours_with_wells",
    "region_pairs",
]

#: nm; pairs with a well this close in the built structure leave OpenMM through exceptions.
CLOSE = 0.5
#: Names of the forces that subtract the pairs of a region, and those that a zone hands over.
REGION_PAIRS = "pairs inside the region"
ZONE_PAIRS = "pairs of the zone"
# Fewer pairs cost less as exceptions than the way to the host and back.
_FEW = 2000
# Pairs for which a second thread is worth its start.
_PAIRS_PER_THREAD = 20_000
_PROBLEMS = {1: ("atoms that exist", "an index out of range"), 2: ("enough memory", "none left")}


def close_pairs(positions: np.ndarray, cell: np.ndarray | None, distance: float = CLOSE) -> np.ndarray:
    """Pairs of places (P, 2), the smaller first, nearer than a distance by minimum image.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), nm
    cell : ndarray, shape (3, 3), nm, optional
        Reduced box vectors in rows.
    distance : float
        nm, below half of the smallest box width.
    """
    pairs = pairs_within(positions, positions, distance, cell)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def neighbours_with_wells(
    tables: MMTables, atoms: np.ndarray, positions: np.ndarray, cell: np.ndarray | None
) -> np.ndarray:
    """Pairs (P, 2) of sorted atoms with wells that are closer than `CLOSE`, exceptions among them.

    Parameters
    ----------
    tables : MMTables
    atoms : ndarray of int
    positions : ndarray, shape (N, 3), nm
        Of the built structure.
    cell : ndarray, shape (3, 3), nm, optional
    """
    hard = atoms[tables.epsilon[atoms] != 0]
    return hard[close_pairs(positions[hard], cell if tables.periodic else None)]


def region_pairs(
    tables: MMTables, atoms: Sequence[int], positions: np.ndarray, cell: np.ndarray | None
) -> RegionPairs | None:
    """The pairs of a region that need no exception; None where they are so few that exceptions cost less.

    Parameters
    ----------
    tables : MMTables
        Of the NonbondedForce.
    atoms : sequence of int
        The region, virtual sites included.
    positions : ndarray, shape (N, 3), nm
        Of the built structure: pairs with a well and closer than `CLOSE` become exceptions.
    cell : ndarray, shape (3, 3), nm, optional
    """
    inside = np.array(sorted(atoms), dtype=np.int64)
    near = neighbours_with_wells(tables, inside, positions, cell)
    held = tables.exception_atoms[np.isin(tables.exception_atoms, inside).all(axis=1)]
    pairs = RegionPairs(tables, inside, np.concatenate([near, held]))
    return pairs if pairs.pairs > _FEW else None


class RegionPairs:
    """Minus what a NonbondedForce holds for the pairs inside a region, but for some, with its gradient.

    Within the cutoff Lennard-Jones with its switch and K q q / r, direct and reciprocal part together; beyond
    the cutoff of PME K q q erf(alpha r) / r of the nearest image, which is what the mesh alone has of it. It
    is what exceptions for these pairs would remove; all of it holds for the parameters that were read, so
    that a charge changed in the context later would be counted with its old value here.

    Parameters
    ----------
    tables : MMTables
        Of the NonbondedForce.
    atoms : sequence of int
        The region, in the order of the positions.
    emptied : ndarray, shape (P, 2)
        Pairs of atoms of the system that are exceptions, and so have no part in this.
    """

    #: Of the force.
    name = REGION_PAIRS

    def __init__(self, tables: MMTables, atoms: np.ndarray, emptied: np.ndarray):
        self.atoms = np.array(atoms, dtype=np.int64)
        self.emptied, self.periodic = np.asarray(emptied, dtype=np.int64).reshape(-1, 2), tables.periodic
        self.parameters = _parameters(tables, self.atoms)
        self.start, self.other = _places(self.emptied, self.atoms, tables.n_atoms)
        switched = tables.switch is not None
        self.ranges = (tables.cutoff, tables.alpha, float(switched), tables.switch or 0.0, COULOMB)
        self.pairs = len(self.atoms) * (len(self.atoms) - 1) // 2 - len(self.other) // 2

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and gradient (n, 3), kJ/mol/nm, for positions (n, 3) and cell (3, 3) in nm."""
        positions, cell = _checked(positions, cell, len(self.atoms))
        gradient, energy = np.zeros_like(positions), ctypes.c_double()
        threads = min(torch.get_num_threads(), self.pairs // _PAIRS_PER_THREAD)
        code = _library().mlmm_pairs_region(
            len(positions),
            positions.ctypes.data,
            None if cell is None else cell.ctypes.data,
            self.parameters.ctypes.data,
            self.start.ctypes.data,
            self.other.ctypes.data,
            (ctypes.c_double * len(self.ranges))(*self.ranges),
            threads,
            ctypes.byref(energy),
            gradient.ctypes.data,
        )
        if code:
            raise EmbeddingError(*_PROBLEMS[code], "select the atoms again")
        return -energy.value, -gradient


class ZonePairs:
    """−sum W v_sr over pairs of a zone, among themselves and with visible atoms around, with its gradient.

    v_sr is Lennard-Jones times the switching function and K q q / r less its smooth tail. W is the share of
    the scheme: the mean lambda of the two atoms, or 1 for pairs of a hard zone under a scheme that takes all
    pairs that touch it, or all inside. 1-4 pairs and exclusions have no part in it.

    Parameters
    ----------
    tables : MMTables
    term_weights : TermWeights
        With a switching function within the force field's cutoff.
    emptied : ndarray, shape (P, 2)
        Pairs inside the zone that left OpenMM, and of which another force holds what remains.

    Raises
    ------
    EmbeddingError
        A scheme that takes no pairs, no switching function, or weights between 0 and 1 under another scheme
        than one with shares.
    """

    #: Of the force.
    name = ZONE_PAIRS

    def __init__(self, tables: MMTables, term_weights: TermWeights, emptied: np.ndarray):
        rule, weights = term_weights.rules.pairs, term_weights.weights
        smooth = bool(((weights > 0) & (weights < 1)).any())
        if rule == "none" or term_weights.switching is None or (smooth and rule != "share"):
            raise EmbeddingError(
                "pairs whose share is the mean lambda of their atoms, or those of a hard zone",
                f"scheme {term_weights.scheme!r}",
                "set direct_pairs = False",
            )
        seen = weights > 0 if rule == "all" else term_weights.visible
        self.atoms, self.periodic = np.flatnonzero(seen), tables.periodic
        self.emptied = np.asarray(emptied, dtype=np.int64).reshape(-1, 2)
        self.active, self.seen = np.flatnonzero(weights[self.atoms] > 0), np.arange(len(self.atoms))
        # Every pair that is found has an atom of the zone: in a hard zone its share is 1 by either rule.
        own = weights[self.atoms] if rule == "share" else np.ones(len(self.atoms))
        self.weights = np.ascontiguousarray(own, dtype=np.float64)
        self.parameters = _parameters(tables, self.atoms)
        special = np.concatenate([tables.exception_atoms, self.emptied])
        self.start, self.other = _places(special, self.atoms, tables.n_atoms)
        start, end = map(float, term_weights.switching)
        # A switch that starts beyond the switching function is 1 wherever anything is evaluated.
        switched = tables.switch is not None and tables.switch < end
        self.ranges = (start, end, float(switched), tables.switch or 0.0, tables.cutoff, COULOMB)

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None) -> tuple[float, np.ndarray]:
        """As `RegionPairs`, for the positions of the visible atoms."""
        positions, cell = _checked(positions, cell, len(self.atoms))
        gradient, energy = np.zeros_like(positions), ctypes.c_double()
        code = _library().mlmm_pairs_shared(
            len(positions),
            positions.ctypes.data,
            None if cell is None else cell.ctypes.data,
            len(self.active),
            self.active.ctypes.data,
            len(self.seen),
            self.seen.ctypes.data,
            self.parameters.ctypes.data,
            self.start.ctypes.data,
            self.other.ctypes.data,
            (ctypes.c_double * len(self.ranges))(*self.ranges),
            self.weights.ctypes.data,
            ctypes.byref(energy),
            gradient.ctypes.data,
            None,
        )
        if code:
            raise EmbeddingError(*_PROBLEMS[code], "select the atoms again")
        return -energy.value, -gradient


def _parameters(tables: MMTables, atoms: np.ndarray) -> np.ndarray:
    """Charge, half sigma and root of epsilon, (n, 3)."""
    columns = (tables.charge, 0.5 * tables.sigma, np.sqrt(tables.epsilon))
    return np.ascontiguousarray(np.column_stack(columns)[atoms])


def _places(pairs: np.ndarray, atoms: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """`partners` of the atoms by their places in a list, of those pairs that lie in it."""
    place = np.full(n_atoms, -1)
    place[atoms] = np.arange(len(atoms))
    inner = place[np.asarray(pairs, dtype=np.int64).reshape(-1, 2)]
    return partners(inner[(inner >= 0).all(axis=1)], len(atoms))


def _checked(positions: np.ndarray, cell: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Both as the library reads them."""
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    if positions.shape != (n, 3):
        raise EmbeddingError(f"positions of shape ({n}, 3)", str(positions.shape), "select the atoms again")
    if cell is not None:
        cell = np.ascontiguousarray(cell, dtype=np.float64)
        if cell.shape != (3, 3):
            raise EmbeddingError("a cell of shape (3, 3)", str(cell.shape), "pass the box vectors in rows")
    return positions, cell


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mlmm_pairs_region.argtypes = [integer, *[pointer] * 6, ctypes.c_int, pointer, pointer]
    library.mlmm_pairs_shared.argtypes = [
        *(integer, pointer, pointer, integer, pointer, integer, pointer),
        *[pointer] * 8,
    ]
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    """The best build for this processor."""
    return open_build("the compiled kernel for force-field pairs", _load)
