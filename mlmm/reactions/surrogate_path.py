"""A path of lowest energy with few energies: relaxed on a Gaussian process, which learns where it has to.

After Koistinen, Dagbjartsdóttir, Ásgeirsson, Vehtari, Jónsson, J. Chem. Phys. 147, 152720 (2017), doi
10.1063/1.4986787. A relaxation on the process ends where an image leaves what is known; that image is
computed, and the next one begins where this one did. The path is accepted by the true forces on all of its
images, not by those of the process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlmm.reactions.band import PathResult, band_force, folds, relax_band
from mlmm.reactions.gaussian_process import GaussianProcess
from mlmm.reactions.options import NEBOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import Evaluation, ReactionSurface, force_norm

__all__ = ["surrogate_path"]

#: kJ/mol: standard deviation along the path below which its highest image, then all images, are computed.
_CERTAIN = 1.0
#: nm: the path stays within this distance (largest displacement of an atom) of what is known.
_TRUST = 0.03
#: Iterations on the process between two energies, and rounds between two searches for its kernel.
_INNER, _RESCALE = 150, 6


#: Positions, energy and forces of each structure that was computed.
Known = list[tuple[np.ndarray, float, np.ndarray]]


class _Trust(Progress):
    """Ends a relaxation on the process where an image leaves what is known; the last images are kept."""

    def __init__(self, known: Known):
        super().__init__()
        self._places = np.array([row[0] for row in known])

    def keep(self, text: str, **arrays: Any) -> None:
        """See `Progress`."""
        super().keep(text, **arrays)
        images = arrays.get("images")
        if images is not None and max(self.far(image) for image in images[1:-1]) > _TRUST:
            raise _LeftTrustError

    def far(self, image: np.ndarray) -> float:
        """Largest displacement of an atom from the nearest structure that is known, nm."""
        return float(np.linalg.norm(self._places - image, axis=2).max(axis=1).min())


class _LeftTrustError(Exception):
    """An image is where nothing is known."""


def surrogate_path(
    surface: ReactionSurface, path: np.ndarray, options: NEBOptions, progress: Progress
) -> PathResult:
    """Relax a path whose ends stay; parameters as for `mlmm.reactions.path.nudged_elastic_band`.

    Parameters
    ----------
    surface : ReactionSurface
    path : ndarray, shape (K, n, 3), nm
    options : NEBOptions
        `steps` counts rounds of learning.
    progress : Progress
        Kept after each round, with all energies and forces so far.
    """
    molecule = surface.free and len(surface) > 2
    process = GaussianProcess(surface.numbers.tolist() if molecule else None)
    known = _known(progress)
    for where, energy, forces in known:
        process.add(where, energy, forces)
    if not known:
        _learn(surface, process, known, list(path))
    rounds = 0
    result: PathResult | None = None
    while rounds < options.steps:
        process.fit(search=rounds % _RESCALE == 0)
        moved, left = _on_process(surface, process, known, path, options)
        unsure = np.array([process.uncertainty(image) for image in moved[1:-1]])
        top = int(np.argmax([process.predict(image)[0] for image in moved]))
        if left or unsure.max() > _CERTAIN:
            picked = np.argsort(-unsure)[: surface.workers] + 1
            _learn(surface, process, known, [moved[k] for k in picked])
        else:
            (climbing,) = _learn(surface, process, known, [moved[top]])
            if force_norm(climbing.forces) <= options.force_tolerance or not 0 < top < len(path) - 1:
                result = _true(surface, process, known, moved, options, rounds)
                if result.converged:
                    break
        # A path that has left what is known tells where to learn, not where to go on.
        path = path if left else moved
        rounds += 1
        progress.keep(
            f"round {rounds}: {len(known)} energies known, uncertain by {unsure.max():.1f} kJ/mol",
            images=path,
            known_positions=[row[0] for row in known],
            known_energies=[row[1] for row in known],
            known_forces=[row[2] for row in known],
        )
    if result is None or not result.converged:
        result = _true(surface, process, known, path, options, rounds)
    return result


def _known(progress: Progress) -> Known:
    places = progress.get("known_positions")
    if places is None:
        return []
    energies, forces = progress.arrays["known_energies"], progress.arrays["known_forces"]
    return [(p, float(e), f) for p, e, f in zip(places, energies, forces, strict=True)]


def _learn(
    surface: ReactionSurface, process: GaussianProcess, known: Known, images: list[np.ndarray]
) -> list[Evaluation]:
    """Compute some images and add them to the process."""
    found = surface.evaluate_many(images)
    for where, one in zip(images, found, strict=True):
        process.add(where, one.energy, one.forces)
        known.append((np.array(where), one.energy, one.forces))
    return found


def _on_process(
    surface: ReactionSurface, process: GaussianProcess, known: Known, path: np.ndarray, options: NEBOptions
) -> tuple[np.ndarray, bool]:
    """The path relaxed on the process, and whether an image went farther than trusted from what is known."""

    def evaluate(where: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        return Evaluation(*process.predict(where))

    model = replace(surface, make=lambda: evaluate, workers=1, executor=None, remote=None, calls=0)
    inner = replace(options, optimiser="bfgs", steps=_INNER, force_tolerance=0.3 * options.force_tolerance)
    trust = _Trust(known)
    try:
        return relax_band(model, path, inner, trust).positions, False
    except _LeftTrustError:
        return trust.arrays["images"], True


def _true(
    surface: ReactionSurface,
    process: GaussianProcess,
    known: Known,
    path: np.ndarray,
    options: NEBOptions,
    rounds: int,
) -> PathResult:
    """The path judged by true energies and forces of all images, which the process learns as well."""
    table = {row[0].tobytes(): row for row in known}
    missing = [image for image in path if image.tobytes() not in table]
    if missing:
        _learn(surface, process, known, missing)
        table = {row[0].tobytes(): row for row in known}
    rows = [table[np.asarray(image).tobytes()] for image in path]

    def evaluate(where: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        near = min(rows, key=lambda row: float(np.abs(row[0] - where).max()))
        return Evaluation(near[1], near[2])

    judged = replace(surface, make=lambda: evaluate, workers=1, executor=None, remote=None, calls=0)
    force = band_force(judged, path, (options.spring, options.spring_top), options.climb)
    return PathResult(
        positions=path,
        energies=np.array([row[1] for row in rows]),
        force=force,
        converged=force <= options.force_tolerance,
        iterations=rounds,
        folds=folds(path),
    )
