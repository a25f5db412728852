"""A band of images between two minima: forces across it and springs along it, and how it is relaxed.

Springs are stiffer the higher their images (Ásgeirsson et al., J. Chem. Theory Comput. 17, 4929 (2021), doi
10.1021/acs.jctc.1c00462). Equal ones that are soft let images slide down both sides of a high barrier where
the path bends, since the tangent there is a guess; one long step then leads over it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.mep import NEB

from mlmm.errors import SimulationError
from mlmm.reactions.hessian import rigid_motions
from mlmm.reactions.options import NEBOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import FORCE_OF_ASE, ReactionSurface
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["PathResult", "band_force", "folds", "relax_band", "spring_constants"]

#: Force across the path below which the highest image may begin to climb, kJ/mol/nm.
_CLIMB = 300.0
#: Force over the smallest so far (and over _CLIMB) beyond which steps have run away, and how often they may.
_LOST, _RETURNS = 20.0, 4
#: Å: longest displacement of an atom in a step; shorter after steps that ran away.
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
    returns : int
        How often steps ran away, and the search went back to its best path.
    """

    positions: np.ndarray
    energies: np.ndarray
    force: float
    converged: bool
    iterations: int
    folds: tuple[int, ...]
    returns: int = 0

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

    def __init__(
        self, images: list[Any], surface: ReactionSurface, springs: tuple[float, float], climb: bool
    ):
        super().__init__(
            images,
            k=springs[0] / FORCE_OF_ASE * ANGSTROM,
            climb=climb,
            method="improvedtangent",
            allow_shared_calculator=False,
            # That turns images behind the optimiser's back; forces without rotation do not.
            remove_rotation_and_translation=False,
        )
        self._surface, self._springs = surface, springs
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
        energies = np.array([image.get_potential_energy() for image in self.images])
        self.k = [k / FORCE_OF_ASE * ANGSTROM for k in spring_constants(energies, *self._springs)]
        forces = super().get_forces()
        if self._turns:
            forces = forces.reshape(len(self.images) - 2, -1)
            for force, image in zip(forces, self.images[1:-1], strict=True):
                rigid = rigid_motions(image.positions, np.ones(len(image)))
                force -= rigid.T @ (rigid @ force)
        return forces.reshape(-1, 3)


def spring_constants(energies: np.ndarray, spring: float, top: float) -> np.ndarray:
    """Force constants of the springs between images (K − 1,), in the unit of `spring` and `top`.

    `top` for a spring at the highest image, `spring` for one whose images lie below the higher end, and
    linear in the energy of its higher image between.

    Parameters
    ----------
    energies : ndarray, shape (K,)
    spring, top : float
    """
    low, high = max(energies[0], energies[-1]), energies.max()
    if high <= low:
        return np.full(len(energies) - 1, spring)
    share = (np.maximum(energies[1:], energies[:-1]) - low) / (high - low)
    return np.asarray(spring + (top - spring) * np.clip(share, 0.0, 1.0))


def band_force(
    surface: ReactionSurface, path: np.ndarray, springs: tuple[float, float], climb: bool
) -> float:
    """Largest force on an atom of an image across a path, with the springs along it, kJ/mol/nm.

    Parameters
    ----------
    surface : ReactionSurface
    path : ndarray, shape (K, n, 3), nm
    springs : pair of float
        See `spring_constants`, kJ/mol/nm².
    climb : bool
    """
    return _force(_Band([surface.atoms(image) for image in path], surface, springs, climb))


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
    images = [surface.atoms(image) for image in path]
    done = progress.get("iterations")
    iterations = 0 if done is None else int(done)
    band = _Band(images, surface, (options.spring, options.spring_top), climb=False)
    optimiser = _optimiser(band, options.optimiser, _LONGEST)
    best, returns = (np.inf, path), 0
    near = max(_CLIMB, options.force_tolerance)
    while True:
        try:
            force, failure = _force(band), None
        except SimulationError as error:
            if not np.isfinite(best[0]):
                raise
            force, failure = np.inf, error
        now = np.array([image.positions * ANGSTROM for image in images])
        if force > max(_LOST * best[0], _CLIMB):
            # A band has no energy of its own that would keep quasi-Newton steps from running away, nor a
            # climbing image, up to where a method has no answer: FIRE is more patient, and if it runs away as
            # well, no image climbs before the path is better.
            for image, where in zip(images, best[1], strict=True):
                image.set_positions(where / ANGSTROM)
            returns += 1
            if band.climb and returns > 1:
                band.climb, near = False, max(near / 2.0, options.force_tolerance)
            force = _force(band)
            best = (force, best[1])
            optimiser = _optimiser(band, "fire", _LONGEST / returns)
            said = f", where there is no energy ({failure.got})" if failure else ""
            progress.keep(
                f"iteration {iterations}: steps ran away{said}: back to the best path, by FIRE",
                images=best[1],
                iterations=iterations,
            )
            if returns > _RETURNS:
                break
        else:
            progress.keep(
                f"iteration {iterations}: largest force {force:.0f} kJ/mol/nm",
                images=now,
                iterations=iterations,
            )
            if force <= (near if options.climb and not band.climb else options.force_tolerance):
                if band.climb or not options.climb:
                    break
                band.climb, best = True, (np.inf, now)
                continue
            if force < best[0]:
                best = (force, now)
        if iterations >= options.steps:
            break
        optimiser.step()
        iterations += 1
    energies = np.array([image.get_potential_energy() for image in images]) * ELECTRONVOLT
    positions = np.array([image.positions * ANGSTROM for image in images])
    climbed = band.climb or not options.climb
    return PathResult(
        positions,
        energies,
        force,
        climbed and force <= options.force_tolerance,
        iterations,
        folds(positions),
        returns,
    )


def _force(band: _Band) -> float:
    """Largest force on an atom of an image, kJ/mol/nm."""
    return float(np.linalg.norm(band.get_forces().reshape(-1, 3), axis=1).max()) * FORCE_OF_ASE


def _optimiser(band: _Band, name: str, longest: float) -> Any:
    """An optimiser of ASE that knows no curvatures yet."""
    from ase.optimize import BFGS, FIRE, LBFGS

    coordinates = 3 * len(band.images[0]) * len(band.images)
    quasi_newton = BFGS if coordinates <= _DENSE else LBFGS
    kind: Any = FIRE if name == "fire" else quasi_newton
    return kind(band, logfile=None, maxstep=longest)
