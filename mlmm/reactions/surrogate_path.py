"""A path of lowest energy with few energies: relaxed on a Gaussian process, which learns where it has to.

After Koistinen, Dagbjartsdóttir, Ásgeirsson, Vehtari, Jónsson, J. Chem. Phys. 147, 152720 (2017), doi
10.1063/1.4986787. The path is accepted by the true forces on all of its images, not by those of the process.
"""

from __future__ import annotations

from dataclasses import replace

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
_TRUST = 0.05
#: Iterations on the process between two energies, and energies between two searches for its length scale.
_INNER, _RESCALE = 150, 6


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
    process = GaussianProcess(invariant=surface.free and len(surface) > 2)
    known = _known(progress)
    for where, energy, forces in known:
        process.add(where, energy, forces)
    if not known:
        _learn(surface, process, known, [path[0], path[-1], *path[1:-1][:: max(1, (len(path) - 2) // 3)]])
    rounds = 0
    result: PathResult | None = None
    while rounds < options.steps:
        process.fit(search=rounds % _RESCALE == 0)
        moved = _on_process(surface, process, path, options)
        path = _trusted(path, moved, known)
        unsure = np.array([process.uncertainty(image) for image in path[1:-1]])
        energies = np.array([process.predict(image)[0] for image in path])
        top = int(np.argmax(energies))
        if unsure.max() > _CERTAIN:
            picked = np.argsort(-unsure)[: surface.workers] + 1
            _learn(surface, process, known, [path[k] for k in picked])
        else:
            (climbing,) = _learn(surface, process, known, [path[top]])
            if force_norm(climbing.forces) <= options.force_tolerance or not 0 < top < len(path) - 1:
                result = _true(surface, process, known, path, options, rounds)
                if result.converged:
                    break
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


Known = list[tuple[np.ndarray, float, np.ndarray]]


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
    surface: ReactionSurface, process: GaussianProcess, path: np.ndarray, options: NEBOptions
) -> np.ndarray:
    """The path relaxed on the process."""

    def evaluate(where: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        return Evaluation(*process.predict(where))

    model = replace(surface, make=lambda: evaluate, workers=1, executor=None, remote=None, calls=0)
    inner = replace(options, optimiser="bfgs", steps=_INNER, force_tolerance=0.3 * options.force_tolerance)
    return relax_band(model, path, inner, Progress()).positions


def _trusted(path: np.ndarray, moved: np.ndarray, known: Known) -> np.ndarray:
    """Images no farther than trusted from the nearest structure that is known."""
    found = np.array(path)
    places = np.array([row[0] for row in known])
    for k in range(1, len(path) - 1):
        nearest = places[np.argmin(np.abs(places - moved[k]).max(axis=(1, 2)))]
        step = moved[k] - nearest
        far = np.linalg.norm(step, axis=1).max()
        found[k] = nearest + step * min(1.0, _TRUST / max(far, 1e-12))
    return found


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
    force = band_force(judged, path, options.spring, options.climb)
    return PathResult(
        positions=path,
        energies=np.array([row[1] for row in rows]),
        force=force,
        converged=force <= options.force_tolerance,
        iterations=rounds,
        folds=folds(path),
    )
