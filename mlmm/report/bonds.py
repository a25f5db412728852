"""Bonds of the starting structure that are broken, or crushed, in frames of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gemmi
import numpy as np

from mlmm.report.superposition import distance_between
from mlmm.report.trajectory import Start

__all__ = ["BondChecker", "BondFacts", "BrokenBond"]

#: Limits on a length, in parts of its length at the start or of the sum of covalent radii, whichever is
#: longer. Thermal vibrations stay within 0.8 and 1.25.
LONGEST, SHORTEST = 1.5, 0.5
_NONMETALS = {"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I"}


@dataclass(frozen=True)
class BrokenBond:
    """A bond that was too long, or too short, in some frame.

    Parameters
    ----------
    name : str
    modelled : bool
        Whether the potential describes one of its atoms: it may then have reacted.
    length, usual : float
        Where it was farthest from what is usual, and that, nm.
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
    broken : tuple of BrokenBond
    modelled_share : float
        Largest part of the bonds that the potential describes that were broken at once.
    """

    frames: int
    bonds: int
    broken: tuple[BrokenBond, ...] = ()
    modelled_share: float = 0.0


@dataclass
class _Found:
    where: str
    length: float
    frames: int = 0


@dataclass
class BondChecker:
    """Holds the lengths of bonds against those of the start, frame by frame.

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

    def __post_init__(self) -> None:
        bonds = [(bond[0], bond[1]) for bond in self.start.topology.bonds]
        kept = [pair for pair in bonds if all(atom.element.symbol in _NONMETALS for atom in pair)]
        self._names = [f"{a.name}-{b.name} of {_residues(a, b)}" for a, b in kept]
        self._pairs = np.array([[a.index, b.index] for a, b in kept], dtype=int).reshape(-1, 2)
        radii = [sum(gemmi.Element(atom.element.symbol).covalent_r for atom in pair) / 10 for pair in kept]
        first, second = self.start.positions[self._pairs.T]
        self._usual = np.maximum(np.linalg.norm(second - first, axis=1), radii)
        self._of_model = self.modelled[self._pairs].any(axis=1)

    def look(self, positions: np.ndarray, box: np.ndarray | None, where: str) -> None:
        """Take a frame in: positions (N, 3) and box (3, 3) in nm, and what to call it."""
        self._frames += 1
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
            BrokenBond(
                self._names[k],
                bool(self._of_model[k]),
                found.length,
                float(self._usual[k]),
                found.where,
                found.frames,
            )
            for k, found in self._found.items()
        ]
        broken.sort(key=lambda bond: bond.modelled)
        return BondFacts(self._frames, len(self._pairs), tuple(broken), self._share)


def _residues(first: Any, second: Any) -> str:
    names = [f"{atom.residue.name}{atom.residue.resSeq}" for atom in (first, second)]
    return names[0] if names[0] == names[1] else "-".join(names)
