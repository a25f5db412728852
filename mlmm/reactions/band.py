"""A band of images between two minima: forces across it and springs along it, and how it is relaxed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.mep import NEB

from mlmm.reactions.hessian import rigid_motions
from mlmm.reactions.options import NEBOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import FORCE_OF_ASE, ReactionSurface
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["PathResult", "band_force", "folds", "relax_band"]

#: Force across the path below which the highest image may begin to climb, kJ/mol/nm.
_CLIMB = 300.0
#: Force over the smallest so far beyond which steps have run away.
_LOST = 20.0
#: Å: longest displacement of an atom in a step.
_LONGEST = 0.2
#: Coordinates of a band above which a full matrix costs more than the energies.
_DENSE = 900


@dataclass(frozen=True)
class PathResult:
    """A path of K images, its ends among them.

    Parameters
    ----------
    positions : ndarray, shape (K, n, 3), nm
    energies : ndarray, shape (K,), kJ/mol
    force : float
        Largest force across the path on an atom of an image, kJ/mol/nm.
    converged : bool
    iterations : int
    folds : tuple of int
        Images at which the path turns back on itself.
    """

    positions: np.ndarray
    energies: np.ndarray
    force: float
    converged: bool
    iterations: int
    folds: tuple[int, ...]

    @property
    def highest(self) -> int:
        """Number of the highest image."""
        return int(np.argmax(self.energies))

    @property
    def lengths(self) -> np.ndarray:
        """Length of the path up to each image (K,), nm."""
        steps = np.linalg.norm(np.diff(self.positions, axis=0).reshape(len(self.positions) - 1, -1), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])


class _Band(NEB):
    """ASE's band, whose images are evaluated together."""

    def __init__(self, images: list[Any], surface: ReactionSurface, spring: float, climb: bool):
        super().__init__(
            images,
            k=spring / FORCE_OF_ASE * ANGSTROM,
            climb=climb,
            method="improvedtangent",
            allow_shared_calculator=False,
            # That turns images behind the optimiser's back; forces without rotation do not.
            remove_rotation_and_translation=False,
        )
        self._surface = surface
        self._turns = surface.free and surface.dimensions == 3 and len(surface) > 1

    def get_forces(self) -> np.ndarray:
        """Forces on all images; see ASE."""
        new = [
            image
            for image in self.images[1:-1]
            if image.calc.calculation_required(image, ["energy", "forces"])
        ]
        results = self._surface.evaluate_many(
            [image.positions * ANGSTROM for image in new], [image.calc.memory for image in new]
        )
        for image, found in zip(new, results, strict=True):
            image.calc.take(image, found)
        forces = super().get_forces()
        if self._turns:
            forces = forces.reshape(len(self.images) - 2, -1)
            for force, image in zip(forces, self.images[1:-1], strict=True):
                rigid = rigid_motions(image.positions, np.ones(len(image)))
                force -= rigid.T @ (rigid @ force)
        return forces.reshape(-1, 3)


def band_force(surface: ReactionSurface, path: np.ndarray, spring: float, climb: bool) -> float:
    """Largest force on an atom of an image across a path, with the springs along it, kJ/mol/nm."""
    band = _Band([surface.atoms(image) for image in path], surface, spring, climb)
    return float(np.linalg.norm(band.get_forces().reshape(-1, 3), axis=1).max()) * FORCE_OF_ASE


def folds(path: np.ndarray) -> tuple[int, ...]:
    """Images at which a path turns back: steps to and from them form an angle below 90°."""
    steps = np.diff(path.reshape(len(path), -1), axis=0)
    turns = [float(a @ b) for a, b in itertools.pairwise(steps)]
    return tuple(k + 1 for k, turn in enumerate(turns) if turn < 0)


def relax_band(
    surface: ReactionSurface,
    path: np.ndarray,
    options: NEBOptions,
    progress: Progress,
) -> PathResult:
    """Relax a band of images: without climbing until it is near, then with.

    Parameters
    ----------
    surface : ReactionSurface
    path : ndarray, shape (K, n, 3), nm
    options : NEBOptions
    progress : Progress
        Kept after each iteration.
    """
    from ase.optimize import BFGS, FIRE, LBFGS

    images = [surface.atoms(image) for image in path]
    done = progress.get("iterations")
    iterations = 0 if done is None else int(done)
    band = _Band(images, surface, options.spring, climb=False)
    quasi_newton = BFGS if 3 * len(surface) * len(path) <= _DENSE else LBFGS
    kind: Any = FIRE if options.optimiser == "fire" else quasi_newton
    optimiser = kind(band, logfile=None, maxstep=_LONGEST)
    force, best = np.inf, (np.inf, path)
    with optimiser:
        near = max(_CLIMB, options.force_tolerance)
        tolerance = near if options.climb and not band.climb else options.force_tolerance
        while True:
            force = float(np.linalg.norm(band.get_forces().reshape(-1, 3), axis=1).max()) * FORCE_OF_ASE
            now = np.array([image.positions * ANGSTROM for image in images])
            progress.keep(
                f"iteration {iterations}: largest force {force:.0f} kJ/mol/nm",
                images=now,
                iterations=iterations,
            )
            if force <= tolerance:
                if band.climb or not options.climb:
                    break
                band.climb, tolerance = True, options.force_tolerance
                best = (np.inf, now)
                continue
            if iterations >= options.steps:
                break
            if force < best[0]:
                best = (force, now)
            elif force > _LOST * best[0] and kind is not FIRE:
                # A band has no energy of its own that would keep quasi-Newton steps from running away.
                for image, where in zip(images, best[1], strict=True):
                    image.set_positions(where / ANGSTROM)
                kind = FIRE
                optimiser = kind(band, logfile=None, maxstep=_LONGEST)
                progress.keep("steps ran away: going on from the best path by FIRE")
            optimiser.step()
            iterations += 1
    energies = np.array([image.get_potential_energy() for image in images]) * ELECTRONVOLT
    positions = np.array([image.positions * ANGSTROM for image in images])
    climbed = band.climb or not options.climb
    return PathResult(
        positions, energies, force, climbed and force <= options.force_tolerance, iterations, folds(positions)
    )
