"""Which potential owns which atom: the weight lambda, 1 for machine-learned and 0 for the force field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mlmm.errors import ConfigError, SelectionError, check_kind
from mlmm.short_repr import ShortRepr, counted, shortened
from mlmm.zones.bond_graph import bond_distances, bond_pairs
from mlmm.zones.cut_bonds import named_cuts, residue_groups, snap_groups
from mlmm.zones.lengths import lengths
from mlmm.zones.region import Region, select_region
from mlmm.zones.shapes import check_shape, shape_distances, switch

__all__ = ["ZonePartition", "hard_zones", "residue_zones", "static_zones"]

_NAMED = 20  # bonds by name in the notes; the rest is counted


@dataclass(frozen=True, repr=False)
class ZonePartition(ShortRepr):
    """Atoms by zone.

    Parameters
    ----------
    n_atoms : int
        Atoms of the whole system.
    region : Region
        The atoms of the core, and how they were chosen.
    core : tuple of int
        lambda = 1.
    transition : tuple of int
        0 < lambda < 1.
    transition_weights : tuple of float
        lambda of the transition's atoms.
    cut_bonds : tuple of (int, int)
        Bonds whose ends have different lambda.
    notes : tuple of str
        What snapping took in, and bonds among `cut_bonds` that should not be cut.
    setup : tuple of (str, str)
        How it was made, in words: kind, plateau, width …; for records.
    """

    n_atoms: int
    region: Region
    core: tuple[int, ...]
    transition: tuple[int, ...] = ()
    transition_weights: tuple[float, ...] = ()
    cut_bonds: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    setup: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def _summary(self) -> dict[str, str]:
        made = dict(self.setup)
        return {
            "kind": made.pop("kind", ""),
            "atoms": f"{self.n_atoms:,}",
            "lambda = 1": f"{len(self.core):,}",
            "0 < lambda < 1": f"{len(self.transition):,}",
            "may change": counted(len(self.switchable_atoms), "atom") if self.moves else "",
            "region": self.region.label,
            "setup": shortened(", ".join(f"{name} {value}" for name, value in made.items())),
            "bonds of different lambda": str(len(self.cut_bonds) or ""),
        }

    @property
    def moves(self) -> bool:
        """Whether lambda of an atom depends on the positions."""
        return False

    @property
    def kind(self) -> str:
        """hard, static, residues or adaptive: what was asked for."""
        content = "adaptive" if self.moves else "hard" if self.hard else "static"
        return dict(self.setup).get("kind", content)

    @property
    def hard(self) -> bool:
        """Whether lambda is 0 or 1 on every atom at any time."""
        return not self.transition and not self.moves

    @property
    def switchable_atoms(self) -> tuple[int, ...]:
        """Atoms whose lambda depends on the positions."""
        return ()

    @property
    def reach(self) -> float:
        """How far from an atom that the zone surrounds a switchable atom may have lambda > 0, nm."""
        return 0.0

    @property
    def active(self) -> tuple[int, ...]:
        """Atoms with lambda > 0 at any positions, sorted."""
        return tuple(sorted((*self.core, *self.transition)))

    @property
    def active_weights(self) -> tuple[float, ...]:
        """lambda of `active`."""
        weights = dict.fromkeys(self.core, 1.0) | dict(
            zip(self.transition, self.transition_weights, strict=True)
        )
        return tuple(weights[atom] for atom in self.active)

    def weights(self, positions: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """lambda of every atom, shape (N,), for positions (N, 3) and box vectors (3, 3) in nm.

        Neither changes the weights of a zone that stays with its atoms.
        """
        weights = torch.zeros(self.n_atoms, dtype=torch.float64, device=positions.device)
        weights[list(self.active)] = torch.tensor(self.active_weights, dtype=torch.float64)
        return weights


def hard_zones(built: Any, region: Region) -> ZonePartition:
    """A sharp boundary: lambda = 1 on the region, 0 everywhere else.

    Parameters
    ----------
    built : BuiltSystem
    region : Region

    Raises
    ------
    SelectionError
        A region without atoms, or one that was made for a larger system.
    """
    n_atoms, notes = _checked(built, region), _bad_cuts(built.topology, region.cut_bonds)
    return ZonePartition(
        n_atoms, region, region.atoms, cut_bonds=region.cut_bonds, notes=notes, setup=(("kind", "hard"),)
    )


def static_zones(
    built: Any,
    region: Region,
    plateau: str | float = "0.3 nm",
    width: str | float = "0.2 nm",
    snap: str = "residue",
    shape: str = "skin",
) -> ZonePartition:
    """lambda = 1 on the region and its surroundings, then a smooth zone; fixed from the built structure on.

    With d the distance of an atom, x = (d − plateau)/width clamped to [0, 1]:
    lambda = 1 − x³(10 − 15x + 6x²). A plateau puts the boundary, where forces are neither, away from the
    atoms that matter; a wide zone alone does not.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
    plateau, width : str or float
        nm, or both in bonds, such as ``"2 bonds"``: d is then the least number of bonds to the region, and
        other molecules have lambda = 0. A width of n bonds has n − 1 shells of atoms with lambda between 1
        and 0. A width of 0 (or of 1 bond) is a hard boundary.
    snap : {"residue", "molecule", "fragment", "hydrogen", "atom"}
        Atoms that get one lambda, that of their nearest; see `mlmm.zones.cut_bonds.snap_groups`. By residue
        (C and O go with the N of the next one) and by fragment, only bonds are cut that may be.
    shape : {"skin", "sphere"}
        d is the shortest distance to the region, or the distance from the region's centre (mean position).
        The region itself has lambda = 1 in either shape.

    Raises
    ------
    ConfigError
        A negative length, lengths in different units, an unknown `snap` or `shape`, or a zone so wide
        that it meets its own periodic image.
    SelectionError
        A region without atoms, or one that was made for a larger system.
    """
    n_atoms = _checked(built, region)
    check_shape(shape)
    reach, zone, in_bonds = lengths(plateau, width)
    groups = snap_groups(built.topology, snap)
    notes: tuple[str, ...] = ()
    if in_bonds:
        if shape != "skin":
            raise ConfigError('shape = "skin" for a zone in bonds', repr(shape), "give both lengths in nm")
        distances = bond_distances(n_atoms, bond_pairs(built.topology), region.atoms, int(reach + zone))
    else:
        positions = torch.tensor(built.positions)
        cell = None if built.box_vectors is None else torch.tensor(built.box_vectors)
        distances = shape_distances(positions, cell, region.atoms, shape, reach + zone)
        farthest = distances[list(region.atoms)].max()
        if farthest > reach:
            notes = (
                f"the region reaches {farthest:.2f} nm from the centre of the {shape}, out of its plateau of "
                f"{reach:g} nm: atoms of the region touch atoms of lambda < 1",
            )
        distances[list(region.atoms)] = 0.0
    nearest = np.full(int(groups.max()) + 1, np.inf)
    np.minimum.at(nearest, groups, distances)
    weights = switch(nearest[groups], reach, zone)
    notes += _taken_in(built.topology, snap, switch(distances, reach, zone), weights)
    unit = "bonds" if in_bonds else "nm"
    setup = {"kind": "static", "plateau": f"{reach:g} {unit}", "width": f"{zone:g} {unit}"}
    setup |= {"snap": snap, "shape": shape}
    return _partition(built, region, weights, notes, setup)


def residue_zones(
    built: Any,
    region: Region,
    transition: Mapping[str, float],
    plateau: str | None = None,
    snap: str = "residue",
) -> ZonePartition:
    """lambda by name: 1 on the region and a plateau, given weights on selected residues, 0 elsewhere.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
    transition : mapping of str to float
        Selections in mdtraj's language and the lambda of their atoms, in (0, 1]. Region and plateau may be
        among them and keep 1.
    plateau : str, optional
        Further atoms with lambda = 1.
    snap : {"residue", "molecule", "fragment", "hydrogen", "atom"}
        As for `static_zones`; a group gets the largest lambda of its atoms. By residue, a selected residue
        stands for its shifted group: C and O of the residue before it, its own N, CA and side chain.

    Raises
    ------
    ConfigError
        A weight outside (0, 1], an unknown `snap`.
    SelectionError
        A selection that is not understood, matches nothing, or has only atoms that go with the next residue;
        an atom with two weights; a bad region.
    """
    n_atoms = _checked(built, region)
    groups = snap_groups(built.topology, snap)
    at_home = residue_groups(built.topology)[1] if snap == "residue" else np.ones(n_atoms, dtype=bool)
    weights = np.zeros(n_atoms)
    for selection, weight in transition.items():
        if not 0 < weight <= 1:
            raise ConfigError(
                "weights above 0 and up to 1", f"{weight!r} for {selection!r}", "correct the weight"
            )
        atoms = _voters(built, selection, at_home)
        twice = atoms[(weights[atoms] > 0) & (weights[atoms] != weight)]
        if len(twice):
            atom = list(built.topology.atoms())[twice[0]]
            raise SelectionError(
                "one weight for each atom",
                f"{weights[twice[0]]:g} and {weight:g} for {atom.residue.name}{atom.residue.id}:{atom.name}",
                "make the selections of the transition exclude each other",
            )
        weights[atoms] = weight
    if plateau is not None:
        weights[_voters(built, plateau, at_home)] = 1.0
    weights[list(region.atoms)] = 1.0
    largest = np.zeros(int(groups.max()) + 1)
    np.maximum.at(largest, groups, weights)
    snapped = largest[groups]
    setup = {"kind": "residues", "snap": snap, "plateau": plateau or "the region"}
    setup |= {f"lambda of {selection}": f"{weight:g}" for selection, weight in transition.items()}
    return _partition(built, region, snapped, _taken_in(built.topology, snap, weights, snapped), setup)


def _partition(
    built: Any, region: Region, weights: np.ndarray, notes: tuple[str, ...], setup: Mapping[str, str]
) -> ZonePartition:
    """A `ZonePartition` of weights (N,)."""
    bonds = bond_pairs(built.topology)
    cut = tuple(map(tuple, bonds[weights[bonds[:, 0]] != weights[bonds[:, 1]]].tolist()))
    transition = np.flatnonzero((weights > 0) & (weights < 1))
    return ZonePartition(
        len(weights),
        region,
        tuple(np.flatnonzero(weights == 1).tolist()),
        tuple(transition.tolist()),
        tuple(weights[transition].tolist()),
        cut,
        notes + _bad_cuts(built.topology, cut),
        tuple(setup.items()),
    )


def check_region(region: Any) -> None:
    """Refuse what is no `Region` (ConfigError)."""
    do = 'select it: region = mlmm.select_region(built, "resname LIG")'
    check_kind(region, Region, "a Region as region", do)


def _checked(built: Any, region: Region) -> int:
    """Number of atoms of a system to which the region belongs."""
    check_region(region)
    n_atoms = built.topology.getNumAtoms()
    if not region.atoms:
        raise SelectionError("a region with atoms", "none", "select at least one atom")
    if region.atoms[-1] >= n_atoms:
        raise SelectionError(
            f"a region of a system with {n_atoms} atoms",
            f"atom index {region.atoms[-1]}",
            "select it again here",
        )
    return n_atoms


def _voters(built: Any, selection: str, at_home: np.ndarray) -> np.ndarray:
    """The selected atoms that decide over their group."""
    atoms = np.array(select_region(built, selection, complete="atoms").atoms)
    if not at_home[atoms].any():
        raise SelectionError(
            "a selection with atoms that stay with their residue",
            f"{selection!r}, whose atoms go with another one, since no amide or phosphate is cut",
            'select whole residues, or set snap = "fragment"',
        )
    return atoms[at_home[atoms]]


def _taken_in(topology: Any, snap: str, before: np.ndarray, after: np.ndarray) -> tuple[str, ...]:
    """What snapping did to the weights, in words."""
    raised, core = after > before, (after == 1) & (before < 1)
    if not raised.any():
        return ()
    text = f"snap = {snap!r} raised lambda of {raised.sum()} atoms, {core.sum()} of them to 1"
    atoms = list(topology.atoms())
    names = dict.fromkeys(f"{atoms[i].residue.name}{atoms[i].residue.id}" for i in np.flatnonzero(core))
    more = f" and {len(names) - 6} more residues" if len(names) > 6 else ""
    return (f"{text}: {' '.join([*names][:6])}{more}" if names else text,)


def _bad_cuts(topology: Any, cut_bonds: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    """Bonds that should not be cut, the first ones by name."""
    named = named_cuts(topology, cut_bonds)
    more = len(named) - _NAMED
    return (*named[:_NAMED], f"and {more} more bonds that should not be cut") if more > 0 else named
