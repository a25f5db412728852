"""How wrong the forces on the region are because a boundary is near.

The error is linear in the weights, F_k − F_k(lambda = 1 everywhere) = sum_i (1 − lambda_i) dDelta_i/dr_k with
Delta_i = eps_i^ML − eps_i^MM,sr: one evaluation of Delta serves every zone, at one backward pass each.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlmm.build import BuiltSystem
from mlmm.dynamics.frames import device_of
from mlmm.errors import EmbeddingError
from mlmm.forcefield.reference_platform import forces_of, reference_context
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.assemble import blend_of
from mlmm.hybrid.spec import replaceable_atoms, visible_atoms
from mlmm.hybrid.system import HybridSystem
from mlmm.neighbours import pairs_within
from mlmm.potentials.base import PotentialModel
from mlmm.structures import minimum_image

__all__ = [
    "BoundaryError",
    "BoundaryField",
    "DepthClass",
    "Surroundings",
    "boundary_error",
    "neighbours_of",
    "seen_from",
]

# Force-field terms join atoms up to a 1-4 distance apart, whatever the range of the model.
BONDED_REACH = 0.6  # nm
#: Depths between which errors are listed, nm.
DEPTHS = (0.0, 0.2, 0.35, 0.5, np.inf)


def neighbours_of(
    positions: torch.Tensor, cell: torch.Tensor | None, distance: float, atoms: Sequence[int] | np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of given atoms with all others within a distance, by minimum image.

    Parameters
    ----------
    positions : torch.Tensor, shape (N, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    distance : float
        nm.
    atoms : sequence of int

    Returns
    -------
    first, second : torch.Tensor, shape (P,), int64
        Atoms; a pair of two given ones stands twice.
    displacements : torch.Tensor, shape (P, 3), nm
        From first to second.
    """
    atoms = np.array(list(atoms), dtype=np.int64)
    x = positions.detach().numpy()
    pairs = torch.from_numpy(pairs_within(x[atoms], x, distance, None if cell is None else cell.numpy()))
    first, second = torch.from_numpy(atoms)[pairs[:, 0]], pairs[:, 1]
    first, second = first[first != second], second[first != second]
    return first, second, minimum_image(positions[second] - positions[first], cell)


@dataclass(frozen=True)
class DepthClass:
    """Boundary error of the region's atoms at similar distances from the boundary.

    Parameters
    ----------
    low, high : float
        Distance from the nearest atom with lambda < 1, nm.
    atoms : int
    rms, largest : float
        Over the components; of one atom. kJ/mol/nm, 0 without atoms.
    """

    low: float
    high: float
    atoms: int
    rms: float
    largest: float


@dataclass(frozen=True)
class BoundaryError:
    """Force of the blend minus the force with the model on all atoms, on the atoms of the region.

    Parameters
    ----------
    atoms : tuple of int
    errors : ndarray, shape (n, 3), kJ/mol/nm
    forces : ndarray, shape (n, 3), kJ/mol/nm
        With the model on all atoms and the tail of the force field.
    depths : ndarray, shape (n,), nm
        Distance of each atom from the nearest one with lambda < 1 that the potential sees.
    exact : int
        Atoms of the region on which the force is exactly that of the model everywhere (with the same tail).
    """

    atoms: tuple[int, ...]
    errors: np.ndarray
    forces: np.ndarray
    depths: np.ndarray
    exact: int

    @property
    def rms(self) -> float:
        """Root mean square over the components, kJ/mol/nm."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def percent(self) -> float:
        """`rms` in per cent of the rms force with the model on all atoms."""
        return 100.0 * self.rms / float(np.sqrt(np.mean(self.forces**2)))

    @property
    def largest(self) -> float:
        """Largest error of one atom, kJ/mol/nm."""
        return float(np.linalg.norm(self.errors, axis=1).max())

    def by_depth(self, edges: Sequence[float] = DEPTHS) -> tuple[DepthClass, ...]:
        """Errors between given depths, nm; classes without atoms included."""
        classes = []
        for low, high in itertools.pairwise(edges):
            chosen = self.errors[(self.depths >= low) & (self.depths < high)]
            if high == np.inf:
                chosen = self.errors[self.depths >= low]
            rms = float(np.sqrt(np.mean(chosen**2))) if len(chosen) else 0.0
            largest = float(np.linalg.norm(chosen, axis=1).max()) if len(chosen) else 0.0
            classes.append(DepthClass(float(low), float(high), len(chosen), rms, largest))
        return tuple(classes)


class BoundaryField:
    """Delta_i around a region at one structure, ready to be differentiated with any weights.

    Made by `Surroundings.at`; the intermediate results of one evaluation of the potential stay in memory.

    Parameters
    ----------
    region, wide : tuple of int
        Atoms whose forces count, and all whose energy may depend on them.
    positions : torch.Tensor, shape (N, 3), nm
        With gradient.
    cell : torch.Tensor or None
    differences : torch.Tensor, shape (len(wide),), kJ/mol
        Delta_i as a function of `positions`.
    mm_forces : ndarray, shape (len(region), 3), kJ/mol/nm
        Of the pure force field.
    reach : float
        nm, beyond which nothing depends on anything.
    """

    def __init__(
        self,
        region: tuple[int, ...],
        wide: tuple[int, ...],
        positions: torch.Tensor,
        cell: torch.Tensor | None,
        differences: torch.Tensor,
        mm_forces: np.ndarray,
        reach: float,
    ):
        self.region, self.wide, self.reach = region, wide, reach
        self._positions, self._differences = positions, differences
        self.forces = mm_forces - self._gradient(torch.ones(len(wide), dtype=torch.float64))
        inside, others = torch.tensor(region), torch.tensor(wide)
        x = positions.detach()
        self._distances = minimum_image(x[others].unsqueeze(0) - x[inside].unsqueeze(1), cell).norm(dim=2)

    def error(self, weights: np.ndarray) -> BoundaryError:
        """Boundary error for lambda of every atom of the system, shape (N,), at one backward pass."""
        missing = 1.0 - torch.as_tensor(np.asarray(weights, dtype=np.float64))[list(self.wide)]
        outside = missing > 0
        errors, depths = np.zeros((len(self.region), 3)), np.full(len(self.region), np.inf)
        if bool(outside.any()):
            errors = self._gradient(missing)
            depths = self._distances[:, outside].min(dim=1).values.numpy()
        exact = int((depths >= self.reach).sum())
        return BoundaryError(self.region, errors, self.forces, depths, exact)

    def _gradient(self, weights: torch.Tensor) -> np.ndarray:
        """sum_i w_i dDelta_i/dr_k on the region."""
        weights = weights.to(self._differences.device)
        (gradient,) = torch.autograd.grad(self._differences, self._positions, weights, retain_graph=True)
        return gradient[list(self.region)].numpy()


class Surroundings:
    """All atoms whose energy may depend on a region, bound to force field and potential.

    Parameters
    ----------
    built : BuiltSystem
    region : sequence of int
    potential : PotentialModel
    frames : sequence of ndarray, shape (N, 3), nm
        Structures that will be asked for: an atom belongs here if it is near in one of them.
    box_vectors : ndarray, shape (3, 3), nm, optional
        Of all frames; the system's own by default.
    keep : collection of str
        Forces that belong to nobody, see `hybrid_system`.
    """

    def __init__(
        self,
        built: BuiltSystem,
        region: Sequence[int],
        potential: PotentialModel,
        frames: Sequence[np.ndarray],
        *,
        box_vectors: np.ndarray | None = None,
        keep: Collection[str] = (),
    ):
        self.region = tuple(region)
        self.cell = None
        if built.periodic:
            box = built.box_vectors if box_vectors is None else box_vectors
            self.cell = torch.tensor(np.asarray(box), dtype=torch.float64)
        self.reach = max(potential.spec.receptive_field, BONDED_REACH)
        near = set(self.region)
        for frame in frames:
            x = torch.tensor(np.asarray(frame), dtype=torch.float64)
            near.update(neighbours_of(x, self.cell, self.reach, self.region)[1].tolist())
        owned = replaceable_atoms(built, potential.spec)
        self.wide = tuple(sorted(atom for atom in near if owned[atom]))
        tables = read_mm_tables(built.system, keep=keep)
        self._blend = blend_of(built, tables, potential, self.wide, [1.0] * len(self.wide))
        #: Of one evaluation of Delta and its gradient, the fastest so far.
        self.seconds = math.inf
        self._context = reference_context(built.system, None if self.cell is None else self.cell.numpy())

    def at(self, positions: np.ndarray) -> BoundaryField:
        """Evaluate the potential once, for positions (N, 3) of the whole system in nm."""
        x = torch.tensor(np.asarray(positions), dtype=torch.float64, requires_grad=True)
        mm_forces = forces_of(self._context, np.asarray(positions))[list(self.region)]
        started = time.perf_counter()
        device = device_of(self._blend)
        moved, cell = x.to(device), None if self.cell is None else self.cell.to(device)
        differences = self._blend.differences(moved, cell)
        field = BoundaryField(self.region, self.wide, x, self.cell, differences, mm_forces, self.reach)
        self.seconds = min(self.seconds, time.perf_counter() - started)
        return field


def boundary_error(
    hybrid: HybridSystem, positions: np.ndarray | None = None, box_vectors: np.ndarray | None = None
) -> BoundaryError:
    """F_k − F_k(lambda = 1 everywhere) = sum_i (1 − lambda_i) d(eps_i^ML − eps_i^MM,sr)/dr_k.

    The sum runs over all atoms whose energy depends on an atom of the region, so that it is exact for a
    static zone.

    Parameters
    ----------
    hybrid : HybridSystem
        Of scheme ``per_atom``.
    positions : ndarray, shape (N, 3), nm, optional
        The built structure by default.
    box_vectors : ndarray, shape (3, 3), nm, optional

    Raises
    ------
    EmbeddingError
        Another scheme.
    """
    if hybrid.scheme != "per_atom":
        raise EmbeddingError("a hybrid system of scheme 'per_atom'", hybrid.scheme, 'use scheme = "per_atom"')
    built = hybrid.built
    where = np.asarray(built.positions if positions is None else positions)
    surroundings = Surroundings(
        built,
        hybrid.zones.region.atoms,
        hybrid.potential,
        [where],
        box_vectors=box_vectors,
        keep=hybrid.keep,
    )
    return surroundings.at(where).error(hybrid.zones.weights(torch.tensor(where)).numpy())


def seen_from(
    built: BuiltSystem, potential: PotentialModel, sets: Sequence[Collection[int]]
) -> list[set[int]]:
    """Atoms that the potential must be given if the energies of some atoms are wanted.

    Parameters
    ----------
    built : BuiltSystem
    potential : PotentialModel
    sets : sequence of collection of int

    Returns
    -------
    list of set of int
        For each set, its atoms and the visible ones within their receptive field in the built structure.
    """
    cell = torch.tensor(built.box_vectors) if built.periodic else None
    visible = visible_atoms(built, potential.spec)
    widest = sorted(set().union(*sets))
    found = neighbours_of(torch.tensor(built.positions), cell, potential.spec.receptive_field, widest)
    atoms, seen = found[0].numpy(), found[1].numpy()
    near = [seen[np.isin(atoms, list(chosen))] for chosen in sets]
    return [
        set(others[visible[others]].tolist()) | set(chosen) for others, chosen in zip(near, sets, strict=True)
    ]
