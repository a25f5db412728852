"""Which covalent bonds may join atoms of different lambda, judged from elements and numbers of neighbours.

A topology has no bond orders, and needs none here: sp3 and sp2 carbons differ in their number of neighbours.
What is not known to be a harmless single bond is not cut. Two kinds of bond may be cut: between two sp3
carbons (CA–CB), and from an sp3 carbon with an amino nitrogen to an amide carbon (CA–C of a peptide).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.zones.bond_graph import bond_pairs, bridges, components

__all__ = [
    "SNAPS",
    "Cut",
    "atom_labels",
    "classify_bonds",
    "named_cuts",
    "residue_groups",
    "snap_groups",
]

SNAPS = ("residue", "molecule", "fragment", "hydrogen", "atom")
_NONMETALS = (1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54, 85, 86)
_H, _C, _N, _O, _P, _S = 1, 6, 7, 8, 15, 16
_SP3, _CA_C = "sp3–sp3 C–C", "CA–C"
#: Reasons why a bond may not be cut, in the order in which they are looked at: what it is, what to do.
_REFUSALS = {
    "virtual site": ("holds a virtual site", "keep the site with its atom"),
    "bond to hydrogen": ("is a bond to hydrogen", "keep H with its heavy atom"),
    "metal": ("is a bond to a metal", "keep the metal with its ligands"),
    "disulfide": ("is a disulfide bond", "cut CA–CB on both sides instead"),
    "amide": ("is an amide bond", "cut CA–C instead"),
    "ring": ("is in a ring", "keep the ring whole"),
    "double bond": ("is a double bond", "cut a single bond between sp3 carbons instead"),
    "polar bond": ("is a polar bond", "cut a single bond between sp3 carbons instead"),
    "bond to an sp2 carbon": ("is a bond to an sp2 carbon", "cut a bond between sp3 carbons instead"),
}


@dataclass(frozen=True)
class Cut:
    """The verdict on one bond of the topology.

    Parameters
    ----------
    first, second : int
        Atoms, as in the topology.
    allowed : bool
        Whether its ends may have different lambda.
    reason : str
        ``"sp3–sp3 C–C"`` or ``"CA–C"`` if so; otherwise ``"amide"``, ``"ring"``, ``"double bond"`` (also
        partial ones), ``"disulfide"``, ``"bond to hydrogen"``, ``"metal"``, ``"polar bond"``, ``"bond to an
        sp2 carbon"`` or ``"virtual site"``.
    """

    first: int
    second: int
    allowed: bool
    reason: str


@dataclass(frozen=True)
class _Graph:
    """A topology as arrays: atomic numbers (0 for a virtual site), residues, bonds (B, 2) and verdicts."""

    numbers: np.ndarray
    residues: np.ndarray
    bonds: np.ndarray
    reasons: np.ndarray

    @property
    def allowed(self) -> np.ndarray:
        return (self.reasons == _SP3) | (self.reasons == _CA_C)

    @property
    def sites(self) -> np.ndarray:
        """Each virtual site without a bond, and the first atom of its residue; (V, 2)."""
        alone = np.ones(len(self.numbers), dtype=bool)
        alone[self.bonds] = False
        real = np.flatnonzero(self.numbers > 0)
        residues, first = np.unique(self.residues[real], return_index=True)
        owner = dict(zip(residues.tolist(), real[first].tolist(), strict=True))
        sites = np.flatnonzero((self.numbers == 0) & alone).tolist()
        residue = self.residues.tolist()
        return _pairs((i, owner[residue[i]]) for i in sites if residue[i] in owner)


def classify_bonds(topology: Any) -> tuple[Cut, ...]:
    """May a bond join atoms of different lambda? One verdict for each bond of the topology, in its order.

    Only bridges of the graph may be cut. A disulfide between residues or a metal does not make a ring of the
    chains that it holds together: their other bonds are judged as if it were not there.

    Parameters
    ----------
    topology : openmm.app.Topology
        With all its hydrogens: without them every carbon has too few neighbours, and nothing may be cut.
    """
    graph = _read(topology)
    columns = (*graph.bonds.T.tolist(), graph.allowed.tolist(), graph.reasons.tolist())
    return tuple(Cut(*row) for row in zip(*columns, strict=True))


def residue_groups(topology: Any) -> tuple[np.ndarray, np.ndarray]:
    """Residues, shifted so that no bond is cut which must not be.

    A fragment that reaches over an amide belongs to the residue of the N: C and O of residue i go with
    residue i + 1, and chains are separated at CA–C. A fragment that reaches over a phosphate belongs to the
    residue of the O3', and strands are separated at C4'–C5'. Any other fragment that reaches over residues
    (disulfide, glycosidic bond) makes one group of them.

    Parameters
    ----------
    topology : openmm.app.Topology

    Returns
    -------
    groups : ndarray, shape (N,), int64
        Number of the group of each atom.
    at_home : ndarray, shape (N,), bool
        False for atoms that went to another residue's group, unless nothing of their residue stayed.
    """
    graph = _read(topology)
    residues, bonds = graph.residues, graph.bonds[~graph.allowed]
    pieces = components(len(residues), np.vstack([bonds, graph.sites]))
    # From the atom whose part of the fragment moves to the atom whose residue takes it.
    carbon = (graph.numbers[bonds] == _C) & (graph.reasons[~graph.allowed] == "amide")[:, None]
    phosphorus = (graph.numbers[bonds] == _P) & (graph.numbers[bonds[:, ::-1]] == _O)
    moves = carbon | phosphorus
    directed = moves.any(axis=1)
    tails = np.where(moves[:, 0], bonds[:, 0], bonds[:, 1])
    heads = np.where(moves[:, 0], bonds[:, 1], bonds[:, 0])
    joined = residues[bonds[~directed]]
    while True:
        roots = components(int(residues.max()) + 1, joined)[residues]
        leaves = directed & (roots[tails] != roots[heads])
        left = set(zip(pieces[tails[leaves]].tolist(), roots[tails[leaves]].tolist(), strict=True))
        inside: dict[int, set[int]] = {}
        for piece, root in zip(pieces.tolist(), roots.tolist(), strict=True):
            inside.setdefault(piece, set()).add(root)
        ends = [[root for root in inside[i] if (i, root) not in left] for i in range(len(inside))]
        tangled = [sorted(inside[i]) for i, end in enumerate(ends) if len(end) != 1]
        if not tangled:
            break
        joined = np.vstack([joined, _pairs((some[0], other) for some in tangled for other in some)])
    groups = np.array([end[0] for end in ends], dtype=np.int64)[pieces]
    at_home = groups == roots
    stayed = np.zeros(int(residues.max()) + 1, dtype=bool)
    stayed[residues[at_home]] = True
    return groups, at_home | ~stayed[residues]


def snap_groups(topology: Any, snap: str) -> np.ndarray:
    """Number of the group of each atom, (N,): the atoms of a group get one lambda.

    Parameters
    ----------
    topology : openmm.app.Topology
    snap : {"residue", "molecule", "fragment", "hydrogen", "atom"}
        Shifted residues (`residue_groups`); molecules; atoms joined by bonds that may not be cut; each
        hydrogen with its heavy atom; atoms
        by themselves. Virtual sites always go with their atom.

    Raises
    ------
    ConfigError
        An unknown `snap`.
    """
    if snap not in SNAPS:
        raise ConfigError(f"snap = {' | '.join(SNAPS)}", repr(snap), 'write snap = "residue"')
    if snap == "residue":
        return residue_groups(topology)[0]
    graph = _read(topology)
    joins = {
        "molecule": np.ones(len(graph.bonds), dtype=bool),
        "fragment": ~graph.allowed,
        "hydrogen": np.isin(graph.reasons, ("bond to hydrogen", "virtual site")),
        "atom": graph.reasons == "virtual site",
    }[snap]
    return components(len(graph.numbers), np.vstack([graph.bonds[joins], graph.sites]))


def named_cuts(topology: Any, cut_bonds: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """A sentence for each bond that should not be cut: "ALA5:C–GLY6:N is an amide bond; cut CA–C instead".

    Parameters
    ----------
    topology : openmm.app.Topology
    cut_bonds : iterable of (int, int)
        Bonds whose ends have different lambda, in either direction; those that may be cut are left out.
    """
    cut_bonds = list(cut_bonds)
    if not cut_bonds:
        return ()
    label = atom_labels(topology)
    bad = {
        frozenset((cut.first, cut.second)): cut.reason for cut in classify_bonds(topology) if not cut.allowed
    }
    sentences = []
    for first, second in cut_bonds:
        reason = bad.get(frozenset((first, second)))
        if reason is not None:
            what, instead = _REFUSALS[reason]
            sentences.append(f"{label(first)}–{label(second)} {what}; {instead}")
    return tuple(sentences)


def atom_labels(topology: Any) -> Callable[[int], str]:
    """Index to a name such as ALA5:CA."""
    atoms = list(topology.atoms())
    return lambda i: f"{atoms[i].residue.name}{atoms[i].residue.id}:{atoms[i].name}"


def _read(topology: Any) -> _Graph:
    """Arrays of a topology, each bond judged."""
    atoms = list(topology.atoms())
    numbers = np.array([0 if atom.element is None else atom.element.atomic_number for atom in atoms])
    residues = np.array([atom.residue.index for atom in atoms])
    bonds = bond_pairs(topology)
    return _Graph(numbers, residues, bonds, _judge(numbers, residues, bonds))


def _judge(numbers: np.ndarray, residues: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """A reason for each bond, (B,)."""
    # Each bond once, so that one which the topology repeats neither adds a neighbour nor closes a ring.
    unique, inverse = np.unique(np.sort(bonds, axis=1), axis=0, return_inverse=True)
    a, b = unique.T
    z = numbers[unique]
    site = (z == 0).any(axis=1)
    metal = ~np.isin(z, (0, *_NONMETALS)).all(axis=1)
    real = unique[~site & ~metal]
    degree = np.bincount(real.ravel(), minlength=len(numbers))

    def has(marked: np.ndarray) -> np.ndarray:
        """Atoms with a marked neighbour."""
        found = np.zeros(len(numbers), dtype=bool)
        found[real[marked[real[:, 1]], 0]] = found[real[marked[real[:, 0]], 1]] = True
        return found

    carbon, nitrogen = numbers == _C, numbers == _N
    sp3, sp2 = carbon & (degree == 4), carbon & (degree <= 3)
    terminal = np.isin(numbers, (_O, _S)) & (degree == 1)
    amide = sp2 & has(terminal) & has(nitrogen)
    double = sp2 | terminal | (nitrogen & (degree <= 2))
    sulfur = (z == _S).all(axis=1)
    between = residues[a] != residues[b]
    # Disulfides between residues and metals hold chains together without being part of their backbone.
    skeleton = ~site & ~metal & ~(sulfur & between) & (z != _H).all(axis=1)
    ring = np.zeros(len(unique), dtype=bool)
    ring[skeleton] = ~bridges(len(numbers), unique[skeleton])

    def pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Bonds with one end of each kind."""
        return (first[a] & second[b]) | (first[b] & second[a])

    cases = {
        "virtual site": site,
        "bond to hydrogen": (z == _H).any(axis=1),
        "metal": metal,
        "disulfide": sulfur,
        "amide": pair(amide, nitrogen),
        "ring": ring,
        "double bond": pair(double, double) | pair(sp2, nitrogen & (degree == 3)) | pair(terminal, ~carbon),
        "polar bond": (z != _C).any(axis=1),
        _SP3: pair(sp3, sp3),
        _CA_C: pair(sp3 & has(nitrogen), amide),
    }
    reasons = np.select(list(cases.values()), list(cases), default="bond to an sp2 carbon")
    return reasons[inverse.reshape(-1)]


def _pairs(items: Iterable[tuple[int, int]]) -> np.ndarray:
    """Pairs of numbers as an array (P, 2), also where there are none."""
    return np.array(list(items), dtype=np.int64).reshape(-1, 2)
