"""Bonds of the starting structure that are broken, or crushed, in frames of a run, and bonds that are new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gemmi
import numpy as np

from mlmm.neighbours import minimum_images, pairs_within
from mlmm.report.superposition import distance_between
from mlmm.report.trajectory import Start

__all__ = ["BondChecker", "BondFacts", "ChangedBond"]

#: Limits on a length, in parts of its length at the start or of the sum of covalent radii, whichever is
#: longer. Thermal vibrations stay within 0.8 and 1.25.
LONGEST, SHORTEST = 1.5, 0.5
#: A bond that is new is shorter than this, in parts of the sum of covalent radii: a short hydrogen bond has
#: 1.5, the CSD's rule is a sum and 0.04 nm. Two atoms at one neighbour are as close as 1.3 in CHI3.
FORMED, FORMED_AT_ONE = 1.3, 1.15
_NONMETALS = {"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I"}


@dataclass(frozen=True)
class ChangedBond:
    """A bond that was too long or too short, or new, in some frame.

    Parameters
    ----------
    name : str
    modelled : bool
        Whether the potential describes one of its atoms: it may then have reacted.
    length, usual : float
        Where it was farthest from what is usual, or shortest, and what is usual, nm.
    where : str
        The first frame, in words.
    frames : int
        Number of frames.
    """

    name: str
    modelled: bool
    length: float
    usual: float
    where: str
    frames: int


@dataclass(frozen=True)
class BondFacts:
    """What the frames of a run say about its bonds.

    Parameters
    ----------
    frames, bonds : int
        How many were looked at.
    broken : tuple of ChangedBond
    modelled_share : float
        Largest part of the bonds that the potential describes that were broken at once.
    formed : tuple of ChangedBond
        New ones, each of an atom that the potential describes.
    formed_share : float
        Largest number of new ones at once, in parts of the bonds that the potential describes.
    """

    frames: int
    bonds: int
    broken: tuple[ChangedBond, ...] = ()
    modelled_share: float = 0.0
    formed: tuple[ChangedBond, ...] = ()
    formed_share: float = 0.0


@dataclass
class _Found:
    where: str
    length: float
    frames: int = 0


@dataclass
class BondChecker:
    """Holds the lengths of bonds against those of the start, and looks for new ones, frame by frame.

    Parameters
    ----------
    start : Start
        With the bonds; those to metals, which come and go, are left out.
    modelled : ndarray of bool, shape (N,)
        Atoms that the potential describes, wholly or in part.
    """

    start: Start
    modelled: np.ndarray
    _found: dict[int, _Found] = field(default_factory=dict)
    _frames: int = 0
    _share: float = 0.0
    _new: dict[tuple[int, int], _Found] = field(default_factory=dict)
    _new_share: float = 0.0
    _near_at_start: set[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        bonds = [(bond[0], bond[1]) for bond in self.start.topology.bonds]
        kept = [pair for pair in bonds if all(atom.element.symbol in _NONMETALS for atom in pair)]
        self._pairs = np.array([[a.index, b.index] for a, b in kept], dtype=int).reshape(-1, 2)
        radii = [sum(gemmi.Element(atom.element.symbol).covalent_r for atom in pair) / 10 for pair in kept]
        first, second = self.start.positions[self._pairs.T]
        self._usual = np.maximum(np.linalg.norm(second - first, axis=1), radii)
        self._of_model = self.modelled[self._pairs].any(axis=1)
        self._atoms = list(self.start.topology.atoms)
        symbols = [atom.element.symbol if atom.element is not None else "" for atom in self._atoms]
        # Metals and virtual sites have no bonds that could be told by a length.
        self._radii = np.array(
            [gemmi.Element(s).covalent_r / 10 if s in _NONMETALS else -np.inf for s in symbols]
        )
        self._described = np.flatnonzero(self.modelled & (self._radii > 0))
        self._neighbours: dict[int, set[int]] = {}
        for first, second in bonds:
            self._neighbours.setdefault(first.index, set()).add(second.index)
            self._neighbours.setdefault(second.index, set()).add(first.index)

    def look(self, positions: np.ndarray, box: np.ndarray | None, where: str) -> None:
        """Take a frame in: positions (N, 3) and box (3, 3) in nm, and what to call it."""
        self._frames += 1
        self._look_for_new(positions, box, where)
        if not len(self._pairs):
            return
        first, second = positions[self._pairs.T]
        ratio = np.linalg.norm(second - first, axis=1) / self._usual
        suspects = np.flatnonzero(~((ratio > SHORTEST) & (ratio < LONGEST)))  # NaN is one
        broken = []
        for k in suspects.tolist():
            length = distance_between(positions, box, [self._pairs[k, 0]], [self._pairs[k, 1]])
            if SHORTEST < length / self._usual[k] < LONGEST:
                continue
            broken.append(k)
            found = self._found.setdefault(k, _Found(where, length))
            found.frames += 1
            usual = self._usual[k]
            if not abs(np.log(length / usual)) <= abs(np.log(found.length / usual)):
                found.length = length
        count = int(self._of_model.sum())
        if count:
            self._share = max(self._share, float(self._of_model[broken].sum()) / count)

    def facts(self) -> BondFacts:
        """What was found so far, those outside the potential first."""
        broken = [
            ChangedBond(
                self._name(*self._pairs[k].tolist()),
                bool(self._of_model[k]),
                found.length,
                float(self._usual[k]),
                found.where,
                found.frames,
            )
            for k, found in self._found.items()
        ]
        broken.sort(key=lambda bond: bond.modelled)
        formed = tuple(
            ChangedBond(
                self._name(*pair),
                True,
                found.length,
                float(self._radii[list(pair)].sum()),
                found.where,
                found.frames,
            )
            for pair, found in self._new.items()
        )
        return BondFacts(self._frames, len(self._pairs), tuple(broken), self._share, formed, self._new_share)

    def _look_for_new(self, positions: np.ndarray, box: np.ndarray | None, where: str) -> None:
        if self._near_at_start is None:
            self._near_at_start = set(self._near(self.start.positions, box))
        found = self._near(positions, box)
        new = {pair: length for pair, length in found.items() if pair not in self._near_at_start}
        for pair, length in new.items():
            known = self._new.setdefault(pair, _Found(where, length))
            known.frames += 1
            known.length = min(known.length, length)
        self._new_share = max(self._new_share, len(new) / max(1, int(self._of_model.sum())))

    def _near(self, positions: np.ndarray, box: np.ndarray | None) -> dict[tuple[int, int], float]:
        """Pairs that are not bonded in the topology and as close as bonded ones, with their distances, nm."""
        if not len(self._described) or not np.isfinite(positions).all():
            return {}
        reach = FORMED * (self._radii[self._described].max() + self._radii.max())
        first, second = pairs_within(positions[self._described], positions, reach, box).T
        first = self._described[first]
        lengths = np.linalg.norm(minimum_images(positions[second] - positions[first], box), axis=1)
        once = (first < second) | ~self.modelled[second]
        close = once & (first != second) & (lengths < FORMED * (self._radii[first] + self._radii[second]))
        near = {}
        for a, b, length in zip(
            first[close].tolist(), second[close].tolist(), lengths[close].tolist(), strict=True
        ):
            of_a, of_b = self._neighbours.get(a, set()), self._neighbours.get(b, set())
            at_one = FORMED_AT_ONE * (self._radii[a] + self._radii[b])
            if b not in of_a and (not of_a & of_b or length < at_one):
                near[a, b] = length
        return near

    def _name(self, a: int, b: int) -> str:
        first, second = self._atoms[a], self._atoms[b]
        return f"{first.name}-{second.name} of {_residues(first, second)}"


def _residues(first: Any, second: Any) -> str:
    names = [f"{atom.residue.name}{atom.residue.resSeq}" for atom in (first, second)]
    return names[0] if names[0] == names[1] else "-".join(names)
