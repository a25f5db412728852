"""Frames of a run as molecules to be labelled: the region with caps, and the charges of all else around it.

Every molecule around is whole and in the image in which its nearest atom is nearest to the region. On a cut
bond the region gets a hydrogen, and the charge of the atom that it replaces moves to that atom's neighbours,
so that no charge sits on the cap and the total stays (Lin, Truhlar, J. Phys. Chem. A 109, 3991 (2005), doi
10.1021/jp0446332, scheme RC without its midpoints).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from mlmm.blending.link_atoms import CAP_LENGTHS, CappedAtoms
from mlmm.build import BuiltSystem
from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.elements import element_names
from mlmm.errors import ConfigError
from mlmm.options import Quantity
from mlmm.reference.labels import Molecule, PointCharges
from mlmm.structures import minimum_image
from mlmm.units import parse

__all__ = ["RegionInCharges", "frames_of_run"]


class RegionInCharges:
    """Cuts the region out of a system, among the charges of everything else.

    Parameters
    ----------
    built : BuiltSystem
    atoms : sequence of int
        The region; virtual sites among them are left out, with their charges.
    radius : str or float, optional
        Molecules with an atom within it of an atom of the region are kept whole, nm; None for all, 0 for
        none.
    charge, multiplicity : int
        Of the region.

    Raises
    ------
    ConfigError
        No atoms, or a cut bond whose atom has no tabulated bond to hydrogen.
    """

    def __init__(
        self,
        built: BuiltSystem,
        atoms: Sequence[int],
        radius: Quantity = None,
        charge: int = 0,
        multiplicity: int = 1,
    ):
        self.radius = None if radius is None else parse(radius, "length", "radius")
        self.charge, self.multiplicity = charge, multiplicity
        chosen = [int(atom) for atom in atoms if not built.virtual_sites[atom]]
        if not chosen:
            raise ConfigError("a region of some atoms", "none", "give the atoms that get a label")
        self._atoms = np.array(chosen)
        inside = np.zeros(built.n_atoms, dtype=bool)
        inside[chosen] = True
        bonds = built.bonds.tolist()
        self._caps = [(a, b) if inside[a] else (b, a) for a, b in bonds if inside[a] != inside[b]]
        self._caps = [pair for pair in self._caps if not built.virtual_sites[pair[1]]]
        unknown = {int(built.numbers[a]) for a, _ in self._caps} - set(CAP_LENGTHS)
        if unknown:
            raise ConfigError(
                f"cut bonds of {element_names(CAP_LENGTHS, ' ')}, to put hydrogens there",
                element_names(sorted(unknown)),
                "move the boundary to another bond",
            )
        lengths = [CAP_LENGTHS[int(built.numbers[a])] for a, _ in self._caps]
        self._capped = CappedAtoms(chosen, self._caps, lengths)
        self.numbers = np.concatenate([built.numbers[self._atoms], np.ones(len(self._caps), dtype=np.int64)])
        self._charges = _charges_around(built, inside, [b for _, b in self._caps])
        self._molecules = [np.array(molecule) for molecule in built.molecules]
        self._of_molecule = np.empty(built.n_atoms, dtype=np.int64)
        for place, members in enumerate(self._molecules):
            self._of_molecule[members] = place

    def molecule(
        self, positions: np.ndarray, box: np.ndarray | None = None, origin: Mapping[str, str] | None = None
    ) -> Molecule:
        """The region in one frame.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
            Of the whole system, molecules whole.
        box : ndarray, shape (3, 3), nm, optional
            Reduced box vectors in rows.
        origin : mapping of str to str, optional
        """
        where, cell = as_tensors(positions, box)
        where = self._gathered(where, cell)
        region = where[torch.as_tensor(self._atoms)]
        external = None
        if self.radius is None or self.radius > 0.0:
            external = self._around(where, region, cell)
        return Molecule(
            self.numbers,
            self._capped(where, None).numpy(),
            self.charge,
            self.multiplicity,
            external,
            dict(origin or {}),
        )

    def _gathered(self, where: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """Molecules of the region side by side: each in its image nearest to those before it."""
        if cell is None:
            return where
        moved = where.clone()
        placed: torch.Tensor | None = None
        for place in dict.fromkeys(self._of_molecule[self._atoms].tolist()):
            mine = torch.as_tensor(self._atoms[self._of_molecule[self._atoms] == place])
            if placed is not None:
                shift, _ = _nearest_image(moved[mine], placed, cell)
                moved[torch.as_tensor(self._molecules[place])] += shift
            placed = moved[mine] if placed is None else torch.cat([placed, moved[mine]])
        return moved

    def _around(
        self, where: torch.Tensor, region: torch.Tensor, cell: torch.Tensor | None
    ) -> PointCharges | None:
        own = set(self._of_molecule[self._atoms].tolist())
        positions, charges = [], []
        # The nearest atom of each molecule tells its image, and whether it is within the radius.
        shifts, distances = _nearest_of_each(where, region, cell)
        for place, members in enumerate(self._molecules):
            values = self._charges[members]
            if not values.any():
                continue
            nearest = int(members[int(distances[members].argmin())])
            if self.radius is not None and float(distances[nearest]) > self.radius:
                continue
            shift = np.zeros(3) if place in own else shifts[nearest]
            kept = values != 0.0
            positions.append(where.numpy()[members[kept]] + shift)
            charges.append(values[kept])
        if not positions:
            return None
        return PointCharges(np.concatenate(positions), np.concatenate(charges))


def frames_of_run(
    path: str | Path,
    *,
    radius: Quantity = None,
    first: int = 0,
    every: int = 1,
    window: str = "",
    multiplicity: int | None = None,
) -> list[Molecule]:
    """Molecules from the trajectory of a run directory: its region among the charges around it.

    Parameters
    ----------
    path : path
        Run directory of mlmm, one window of an umbrella among them.
    radius : str or float, optional
        As for `RegionInCharges`.
    first, every : int
        Frames that are taken: from `first` on, each `every`-th.
    window : str
        For the origin; the name of the folder if empty.
    multiplicity : int, optional
        Of the region; that of the run's settings, or 1.

    Raises
    ------
    ConfigError
        No such run, or a run without a trajectory.
    """
    run = RunDirectory(Path(path))
    facts = run.summary
    trajectory = run.file("trajectory.dcd")
    if not trajectory.exists() or every < 1:
        raise ConfigError(
            f"a run with a trajectory in {path}",
            "none" if every >= 1 else f"every = {every}",
            "run it with mlmm run, or give every = 1 or more",
        )
    built = BuiltSystem.load(run.built_folder)
    region = facts["region"]
    if multiplicity is None:
        multiplicity = int(_resolved(run).get("region", {}).get("multiplicity", 1))
    cutter = RegionInCharges(built, region["atoms"], radius, int(region["charge"]), multiplicity)
    try:
        frames = DCDFrames(trajectory, built.n_atoms)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"frames of the {built.n_atoms} atoms of the run in {trajectory}",
            str(error),
            "give the folder of one run",
        ) from error
    found = []
    for number in range(first, len(frames), every):
        positions, box = frames[number]
        origin = {"run": str(path), "frame": str(number)} | ({"window": window} if window else {})
        found.append(cutter.molecule(positions, box, origin))
    return found


def _charges_around(built: BuiltSystem, inside: np.ndarray, replaced: Sequence[int]) -> np.ndarray:
    """Charges (N,) of all particles, e: zero in the region and on its sites, moved off the replaced atoms."""
    charges = np.zeros(built.n_atoms)
    for force in built.system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            for i in range(built.n_atoms):
                charges[i] = force.getParticleParameters(i)[0].value_in_unit(unit.elementary_charge)
    owned = inside.copy()
    for i in np.flatnonzero(built.virtual_sites).tolist():
        site = built.system.getVirtualSite(i)
        owned[i] = all(inside[site.getParticle(k)] for k in range(site.getNumParticles()))
    charges[owned] = 0.0
    neighbours: dict[int, list[int]] = {atom: [] for atom in replaced}
    for a, b in built.bonds.tolist():
        for one, other in ((a, b), (b, a)):
            if one in neighbours and not owned[other] and other not in neighbours:
                neighbours[one].append(other)
    for atom, others in neighbours.items():
        if others:
            charges[others] += charges[atom] / len(others)
            charges[atom] = 0.0
    return charges


def _nearest_image(
    atoms: torch.Tensor, region: torch.Tensor, cell: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift (3,) that brings the nearest of some atoms into its image nearest to a region; its distance."""
    apart = (atoms.unsqueeze(1) - region.unsqueeze(0)).reshape(-1, 3)
    images = minimum_image(apart, cell)
    nearest = images.square().sum(1).argmin()
    return images[nearest] - apart[nearest], images[nearest].norm()


def _nearest_of_each(
    where: torch.Tensor, region: torch.Tensor, cell: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """For each atom, the shift (N, 3) of its image that is nearest to the region, and the distance (N,)."""
    shifts: list[Any] = []
    distances: list[Any] = []
    for piece in where.split(20_000):
        apart = piece.unsqueeze(1) - region.unsqueeze(0)
        images = minimum_image(apart, cell) if cell is not None else apart
        best = images.square().sum(2).argmin(1)
        rows = torch.arange(len(piece))
        shifts.append((images - apart)[rows, best])
        distances.append(images[rows, best].norm(dim=1))
    return torch.cat(shifts).numpy(), torch.cat(distances).numpy()


def _resolved(run: RunDirectory) -> dict[str, Any]:
    import tomllib

    path = run.file("resolved.toml")
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
