"""Nudged elastic band: images of a path between two minima, held apart by springs along it.

Henkelman, Uberuaga and Jónsson, J. Chem. Phys. 113, 9901 and 9978 (2000), doi 10.1063/1.1329672 and
10.1063/1.1323224, as ASE has it; images are evaluated together, so that workers can take them in parallel.
"""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from ase.mep import NEB
from ase.mep.neb import idpp_interpolate

from mlmm.errors import ConfigError
from mlmm.reactions.band import PathResult, relax_band
from mlmm.reactions.minimise import minimise
from mlmm.reactions.options import NEBOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import ReactionSurface
from mlmm.reactions.surrogate_path import surrogate_path
from mlmm.units import ANGSTROM

__all__ = ["along_scan", "check_apart", "interpolate", "nudged_elastic_band", "superposed"]

#: Sum of covalent radii times this: atoms that are closer run into each other.
_CLASH = 0.55


def superposed(positions: np.ndarray, reference: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Positions (n, 3) laid on a reference by the best rotation and translation, weighted with masses."""
    weights = masses / masses.sum()
    here, there = weights @ positions, weights @ reference
    left, _, right = np.linalg.svd((positions - here).T @ ((reference - there) * weights[:, None]))
    proper = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return (positions - here) @ (left @ proper @ right) + there


def interpolate(
    surface: ReactionSurface, first: np.ndarray, last: np.ndarray, images: int, kind: str
) -> np.ndarray:
    """A first path (images + 2, n, 3) in nm: straight lines, or distances that change evenly (IDPP).

    Smidstrup, Pedersen, Stokbro and Jónsson, J. Chem. Phys. 140, 214106 (2014), doi 10.1063/1.4878664.
    """
    last = superposed(last, first, surface.masses) if surface.free and len(surface) > 1 else last
    straight = np.linspace(0.0, 1.0, images + 2)[:, None, None] * (last - first) + first
    if kind != "idpp" or len(surface) < 2:
        return straight
    band = NEB(
        [surface.atoms(image) for image in straight],
        method="improvedtangent",
        remove_rotation_and_translation=surface.free,
    )
    idpp_interpolate(band, traj=None, log=None, fmax=0.1, steps=200)
    return np.array([image.positions * ANGSTROM for image in band.images])


def along_scan(
    surface: ReactionSurface, directions: np.ndarray, energies: np.ndarray, spring: float
) -> np.ndarray:
    """A path (P, n, 3), nm, of one structure from each point of a scan that went forth and back.

    Where both ways are in different valleys, the lower one of each point jumps back and forth between them.
    Here Σ E + Σ k/2 L² is lowest, with the lengths L of all steps: a jump has to pay.

    Parameters
    ----------
    surface : ReactionSurface
    directions : ndarray, shape (D, P, n, 3), nm
    energies : ndarray, shape (D, P), kJ/mol
    spring : float
        k, kJ/mol/nm².
    """
    weights = np.ones(len(surface))

    def laid(where: np.ndarray, before: np.ndarray) -> np.ndarray:
        return superposed(where, before, weights) if surface.free and len(surface) > 1 else where

    ways = range(len(directions))
    cost, begun = energies[:, 0].copy(), []
    for k in range(1, directions.shape[1]):
        steps = np.array([
            [np.sum((laid(directions[b, k], directions[a, k - 1]) - directions[a, k - 1]) ** 2) for a in ways]
            for b in ways
        ])  # fmt: skip
        totals = cost + 0.5 * spring * steps
        begun.append(totals.argmin(axis=1))
        cost = totals.min(axis=1) + energies[:, k]
    chosen = [int(cost.argmin())]
    for earlier in reversed(begun):
        chosen.append(int(earlier[chosen[-1]]))
    path = [directions[chosen[-1], 0]]
    for k, way in enumerate(reversed(chosen[:-1]), start=1):
        path.append(laid(directions[way, k], path[-1]))
    return np.array(path)


def check_apart(surface: ReactionSurface, path: np.ndarray) -> None:
    """Refuse a path on which atoms run into each other (ConfigError)."""
    if len(surface) < 2:
        return
    radii = covalent_radii[surface.numbers] * ANGSTROM
    first, second = np.triu_indices(len(surface), 1)
    limits = _CLASH * (radii[first] + radii[second])
    for k, image in enumerate(path):
        distances = np.linalg.norm(image[first] - image[second], axis=1)
        worst = int(np.argmin(distances / limits))
        if distances[worst] < limits[worst]:
            names = [surface.labels[i] if surface.labels else str(i) for i in (first[worst], second[worst])]
            raise ConfigError(
                "a first path on which atoms stay apart",
                f"{names[0]} and {names[1]} at {distances[worst]:.3f} nm in image {k + 1}",
                'write interpolation = "idpp", begin from a scan with --from, or check that both ends have '
                "their atoms in one order",
            )


def nudged_elastic_band(
    surface: ReactionSurface,
    first: np.ndarray,
    last: np.ndarray,
    options: NEBOptions | None = None,
    *,
    path: np.ndarray | None = None,
    progress: Progress | None = None,
) -> PathResult:
    """Minimum energy path between two structures.

    Parameters
    ----------
    surface : ReactionSurface
    first, last : ndarray, shape (n, 3), nm
    options : NEBOptions, optional
    path : ndarray, shape (K, n, 3), nm, optional
        A first path; interpolated by default.
    progress : Progress, optional
        Kept after each iteration; goes on from the images of the last one.

    Raises
    ------
    ConfigError
        A first path on which atoms run into each other.
    """
    options, progress = options or NEBOptions(), progress or Progress()
    ends = _ends(surface, first, last, options, progress)
    kept = progress.get("images")
    if kept is not None:
        path = kept
    elif path is None:
        path = interpolate(surface, ends[0], ends[1], options.images, options.interpolation)
    else:
        path = np.array([ends[0], *path[1:-1], ends[1]])
    check_apart(surface, path)
    if options.optimiser == "gp":
        return surrogate_path(surface, path, options, progress)
    return relax_band(surface, path, options, progress)


def _ends(
    surface: ReactionSurface, first: np.ndarray, last: np.ndarray, options: NEBOptions, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, minimised if asked for."""
    found = []
    for name, where in (("first", first), ("last", last)):
        kept = progress.get(name)
        if kept is None and options.relax_ends:
            end = minimise(surface, where, tolerance=min(options.force_tolerance, 10.0), steps=500)
            kept = end.positions
            progress.keep(f"{name} end: {end.steps} steps, {end.energy:.2f} kJ/mol", **{name: kept})
        found.append(where if kept is None else kept)
    return found[0], found[1]
