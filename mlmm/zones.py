"""Which potential owns which atom: the weight lambda, 1 for machine-learned and 0 for the force field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mlmm.errors import ConfigError, SelectionError
from mlmm.regions import Region, molecules_of
from mlmm.structures import minimum_image
from mlmm.units import parse

__all__ = ["ZonePartition", "hard_zones", "static_zones"]


@dataclass(frozen=True)
class ZonePartition:
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
    """

    n_atoms: int
    region: Region
    core: tuple[int, ...]
    transition: tuple[int, ...] = ()
    transition_weights: tuple[float, ...] = ()
    cut_bonds: tuple[tuple[int, int], ...] = ()

    @property
    def active(self) -> tuple[int, ...]:
        """Atoms with lambda > 0, sorted."""
        return tuple(sorted((*self.core, *self.transition)))

    @property
    def active_weights(self) -> tuple[float, ...]:
        """lambda of `active`."""
        weights = dict.fromkeys(self.core, 1.0) | dict(
            zip(self.transition, self.transition_weights, strict=True)
        )
        return tuple(weights[atom] for atom in self.active)

    @property
    def environment(self) -> tuple[int, ...]:
        """Atoms that belong to the force field, lambda = 0."""
        others = set(range(self.n_atoms)).difference(self.core, self.transition)
        return tuple(sorted(others))

    def counts(self) -> dict[str, int]:
        """Number of atoms in each zone."""
        inside = {"core": len(self.core), "transition": len(self.transition)}
        return inside | {"environment": self.n_atoms - sum(inside.values())}

    def weights(self, positions: torch.Tensor) -> torch.Tensor:
        """lambda of every atom, shape (N,), for positions (N, 3) in nm."""
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
        A region that was made for a larger system.
    """
    n_atoms = built.topology.getNumAtoms()
    if region.atoms[-1] >= n_atoms:
        raise SelectionError(
            f"a region of a system with {n_atoms} atoms",
            f"atom index {region.atoms[-1]}",
            "select it again here",
        )
    return ZonePartition(n_atoms, region, core=region.atoms, cut_bonds=region.cut_bonds)


def static_zones(
    built: Any,
    region: Region,
    plateau: str | float = "0.3 nm",
    width: str | float = "0.2 nm",
    snap: str = "residue",
) -> ZonePartition:
    """lambda = 1 on the region and a skin around it, then a smooth zone; fixed from the built structure on.

    With d the shortest distance to the region (minimum image), x = (d − plateau)/width clamped to [0, 1]:
    lambda = 1 − x³(10 − 15x + 6x²). A plateau puts the boundary, where forces are neither, away from the
    atoms that matter; a wide zone alone does not.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
    plateau, width : str or float
        nm; a width of 0 is a hard boundary.
    snap : {"residue", "molecule", "atom"}
        Atoms that get one lambda, that of their nearest. By residue (waters and ions are residues too), only
        bonds between residues join different lambda.

    Raises
    ------
    ConfigError
        A negative length, or an unknown `snap`.
    """
    reach, zone = parse(plateau, "length", "plateau"), parse(width, "length", "width")
    if reach < 0 or zone < 0:
        raise ConfigError("plateau and width not negative", f"{reach:g} and {zone:g} nm", "correct the zones")
    groups = _groups(built.topology, snap)
    positions = torch.tensor(built.positions)
    cell = None if built.box_vectors is None else torch.tensor(built.box_vectors)
    nearest = torch.full((len(positions),), float("inf"), dtype=torch.float64)
    for atom in region.atoms:
        distance = minimum_image(positions - positions[atom], cell).norm(dim=1)
        nearest = torch.minimum(nearest, distance)
    smallest = torch.full((int(groups.max()) + 1,), float("inf"), dtype=torch.float64)
    distances = smallest.scatter_reduce(0, groups, nearest, "amin")[groups]
    x = ((distances - reach) / zone).clamp(0, 1) if zone > 0 else (distances > reach).to(torch.float64)
    weights = 1 - x**3 * (10 - 15 * x + 6 * x**2)
    weights[list(region.atoms)] = 1.0
    core = (weights == 1).nonzero().squeeze(1).tolist()
    transition = ((weights > 0) & (weights < 1)).nonzero().squeeze(1).tolist()
    bonds = ((bond[0].index, bond[1].index) for bond in built.topology.bonds())
    return ZonePartition(
        len(positions),
        region,
        tuple(core),
        tuple(transition),
        tuple(weights[transition].tolist()),
        tuple((a, b) for a, b in bonds if weights[a] != weights[b]),
    )


def _groups(topology: Any, snap: str) -> torch.Tensor:
    """Number of the group of each atom, (N,)."""
    if snap == "atom":
        return torch.arange(topology.getNumAtoms())
    if snap == "residue":
        return torch.tensor([atom.residue.index for atom in topology.atoms()])
    if snap == "molecule":
        groups = torch.empty(topology.getNumAtoms(), dtype=torch.int64)
        for index, atoms in enumerate(molecules_of(topology)):
            groups[list(atoms)] = index
        return groups
    raise ConfigError("snap = residue | molecule | atom", repr(snap), 'write snap = "residue"')
