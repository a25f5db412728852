"""Zones that move with the atoms: lambda of whole solvent molecules by their distance from a centre."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch

from mlmm.errors import ConfigError, SelectionError
from mlmm.modules import Module
from mlmm.pair_formulas import smooth_step
from mlmm.structures import minimum_image
from mlmm.units import parse
from mlmm.zones.region import Region
from mlmm.zones.static import ZonePartition, check_region

__all__ = ["AdaptiveWeights", "AdaptiveZones", "UniformWeights", "adaptive_zones", "molecule_anchors"]


@dataclass(frozen=True, repr=False)
class AdaptiveZones(ZonePartition):
    """A fixed core (lambda = 1, the region) and whole molecules whose lambda follows their distance.

    Parameters
    ----------
    molecules : tuple of tuple of int
        Molecules that may enter the zone.
    kinds : tuple of str
        Kind of each (its residue name): one compensation per kind.
    anchors : tuple of tuple of float
        Share of each atom in the point that stands for its molecule.
    centres : tuple of int
        Atoms that the zone surrounds.
    plateau, width : float
        lambda = 1 up to the plateau, 0 beyond plateau + width, nm.
    walls : float
        Where bonds to hydrogen in the molecules meet a wall, nm; infinite without.
    """

    molecules: tuple[tuple[int, ...], ...] = ()
    kinds: tuple[str, ...] = ()
    anchors: tuple[tuple[float, ...], ...] = ()
    centres: tuple[int, ...] = ()
    plateau: float = 0.0
    width: float = 0.0
    walls: float = math.inf

    @property
    def moves(self) -> bool:
        """True: molecules enter and leave."""
        return True

    @property
    def switchable_atoms(self) -> tuple[int, ...]:
        """Atoms of the molecules that may enter."""
        return tuple(atom for molecule in self.molecules for atom in molecule)

    @property
    def reach(self) -> float:
        """Plateau and width together, nm."""
        return self.plateau + self.width

    def weights(self, positions: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """lambda of every atom, shape (N,), for positions (N, 3) and cell (3, 3) in nm."""
        weights = torch.zeros(self.n_atoms, dtype=torch.float64, device=positions.device)
        module = AdaptiveWeights(self).to(positions.device)
        found = module(positions.to(torch.float64), cell)
        owner = torch.tensor([m for m, atoms in enumerate(self.molecules) for _ in atoms], dtype=torch.int64)
        atoms = torch.tensor([atom for atoms in self.molecules for atom in atoms], dtype=torch.int64)
        weights = weights.index_copy(0, atoms, found[owner])
        weights[list(self.core)] = 1.0
        return weights


class AdaptiveWeights(Module):
    """lambda of each molecule: 1 − lambda_m = prod_a (1 − s(|r_m − r_a|)) over the centres a.

    s falls from 1 at the plateau to 0 at plateau + width as 1 − x³(10 − 15x + 6x²): the union of the spheres
    around all centres, twice differentiable also where two of them meet. A nearest centre would have kinks.

    Parameters
    ----------
    zones : AdaptiveZones
    """

    def __init__(self, zones: AdaptiveZones):
        super().__init__()
        first = [molecule[0] for molecule in zones.molecules]
        others = [(m, atom, share)
                  for m, (atoms, shares) in enumerate(zip(zones.molecules, zones.anchors, strict=True))
                  for atom, share in zip(atoms[1:], shares[1:], strict=True)
                  if share != 0.0]  # fmt: skip
        self.plateau, self.width = float(zones.plateau), float(zones.width)
        for name, values, kind in (
            ("first", first, np.int64),
            ("others", [atom for _, atom, _ in others], np.int64),
            ("owners", [m for m, _, _ in others], np.int64),
            ("shares", [share for _, _, share in others], np.float64),
            ("centres", list(zones.centres), np.int64),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(values, dtype=kind)))

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """(M,) for positions (N, 3) of the whole system and box vectors (3, 3), nm."""
        return self.at(self.distances(positions, cell))

    def distances(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """From each molecule's anchor to each centre, (M, centres), nm."""
        base = positions.index_select(0, self.first)
        anchor = base
        if self.others.shape[0] > 0:
            arms = positions.index_select(0, self.others) - base.index_select(0, self.owners)
            arms = minimum_image(arms, cell) * self.shares.unsqueeze(1)
            anchor = base.index_add(0, self.owners, arms)
        centres = positions.index_select(0, self.centres)
        vectors = minimum_image(anchor.unsqueeze(1) - centres.unsqueeze(0), cell)
        # Inside the plateau nothing depends on the distance; the bound keeps the root of 0 differentiable.
        return vectors.square().sum(-1).clamp(min=1e-12).sqrt()

    def at(self, distances: torch.Tensor) -> torch.Tensor:
        """lambda at points with these distances from the centres, (P, centres) to (P,)."""
        x = ((distances - self.plateau) / self.width).clamp(0.0, 1.0)
        return 1.0 - smooth_step(x).prod(dim=1)


class UniformWeights(Module):
    """The same lambda for each of M molecules: what a bulk calibration samples."""

    def __init__(self, weight: float, n_molecules: int):
        super().__init__()
        self.register_buffer("weight", torch.full((n_molecules,), float(weight), dtype=torch.float64))

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """(M,), whatever the positions."""
        return self.weight


def adaptive_zones(
    built: Any,
    region: Region,
    plateau: str | float = "0.4 nm",
    width: str | float = "0.5 nm",
    *,
    molecules: Iterable[str] = ("HOH",),
    centre: Sequence[int] | None = None,
    walls: str | float | None = "0.125 nm",
) -> AdaptiveZones:
    """lambda = 1 on the region, and on molecules as long as they are near it; a smooth zone in between.

    A molecule is whole: its atoms have one lambda, that of its anchor (its only heavy atom, or its centre of
    mass). Covalent structure in the region is static; ions stay with the force field unless named.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
        Whole molecules.
    plateau, width : str or float
        nm, from each centre: lambda = 1 up to the plateau, 0 beyond plateau + width. A hydrogen bond that
        spans a zone narrower than 0.4 nm is softer than in either description.
    molecules : iterable of str
        Residue names of the molecules that may enter, one residue each.
    centre : sequence of int, optional
        Atoms that the zone surrounds; the region's heavy atoms by default.
    walls : str or float, optional
        Length at which bonds to hydrogen in molecules of these kinds meet a wall, nm. Without it a proton can
        pass from a molecule with lambda = 1 to one with lambda = 0; see
        `mlmm.build.surroundings.walls`. None for none.

    Raises
    ------
    ConfigError
        Lengths that are not positive, or no molecule to enter the zone.
    SelectionError
        A region that cuts a molecule, or a centre outside the region.
    """
    check_region(region)
    reach, zone = parse(plateau, "length", "plateau"), parse(width, "length", "width")
    if reach <= 0 or zone <= 0:
        raise ConfigError(
            "plateau and width above 0 in an adaptive zone",
            f"{reach:g} and {zone:g} nm",
            "a sharp boundary has no energy that moving molecules could conserve: give it a width",
        )
    if region.cut_bonds:
        a, b = region.cut_bonds[0]
        raise SelectionError(
            "a region of whole molecules in an adaptive zone",
            f"the bond between atoms {a} and {b} across its boundary",
            'set region.complete = "molecule"',
        )
    inside, names = set(region.atoms), set(molecules)
    atoms = list(built.topology.atoms())
    heavy = [i for i in region.atoms if atoms[i].element is not None and atoms[i].element.symbol != "H"]
    centres = tuple(heavy or region.atoms) if centre is None else tuple(int(i) for i in centre)
    if not centres or not inside.issuperset(centres):
        raise SelectionError("centres among the atoms of the region", str(centres[:4]), "choose others")
    chosen, kinds = [], []
    for members in built.molecules:
        name = atoms[members[0]].residue.name
        if name in names and not inside.intersection(members):
            chosen.append(tuple(members))
            kinds.append(name)
    if not chosen:
        present = sorted({atom.residue.name for atom in atoms})
        raise ConfigError(
            f"molecules called {' or '.join(sorted(names))} outside the region",
            "none",
            f"name some of: {' '.join(present[:20])}",
        )
    wall = math.inf if walls is None else parse(walls, "length", "walls")
    return AdaptiveZones(
        built.topology.getNumAtoms(),
        region,
        core=region.atoms,
        setup=(
            ("kind", "adaptive"),
            ("plateau", f"{reach:g} nm"),
            ("width", f"{zone:g} nm"),
            ("molecules", " ".join(sorted(set(kinds)))),
            ("centre", f"{len(centres)} atoms"),
            ("walls", "none" if walls is None else f"{wall:g} nm"),
        ),
        molecules=tuple(chosen),
        kinds=tuple(kinds),
        anchors=molecule_anchors(built.topology, chosen),
        centres=centres,
        plateau=reach,
        width=zone,
        walls=wall,
    )


def molecule_anchors(topology: Any, molecules: Sequence[Sequence[int]]) -> tuple[tuple[float, ...], ...]:
    """Shares of its atoms in the point that stands for each molecule: its only heavy atom, or all by mass.

    A site without element has no share.
    """
    elements = [atom.element for atom in topology.atoms()]
    anchors = []
    for molecule in molecules:
        own = [elements[i] for i in molecule]
        heavy = [element is not None and element.symbol != "H" for element in own]
        masses = [0.0 if element is None else element.mass._value for element in own]
        shares = [float(h) for h in heavy] if sum(heavy) == 1 else [m / sum(masses) for m in masses]
        anchors.append(tuple(shares))
    return tuple(anchors)
