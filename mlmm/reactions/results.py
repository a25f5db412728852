"""Results of searches as a run directory keeps them: facts for ``run.json``, arrays, structures as xyz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.elements import element_names
from mlmm.reactions.band import PathResult
from mlmm.reactions.hessian import Modes
from mlmm.reactions.irc import IRCResult
from mlmm.reactions.scan import ScanResult
from mlmm.reactions.surface import ReactionSurface
from mlmm.reactions.transition_state import SaddleResult, SaddleVerdict
from mlmm.reactions.variables import SurfaceVariables
from mlmm.units import ANGSTROM

__all__ = [
    "grid_saddle",
    "irc_result",
    "mode_movie",
    "path_result",
    "saddle_result",
    "scan_result",
    "write_xyz",
]

_MOVIE = 20  # frames of an oscillation
_SWING = 0.03  # nm: largest displacement of an atom in it


def write_xyz(
    path: Path, numbers: np.ndarray, frames: Sequence[np.ndarray] | np.ndarray, comments: Sequence[str]
) -> None:
    """Write structures (n, 3) in nm as an xyz file, in Å."""
    names = [element_names([int(number)]) for number in numbers]
    lines = []
    for frame, comment in zip(frames, comments, strict=True):
        lines += [str(len(names)), comment]
        lines += [
            f"{name:2s} {x:14.8f} {y:14.8f} {z:14.8f}"
            for name, (x, y, z) in zip(names, np.asarray(frame) / ANGSTROM, strict=True)
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def mode_movie(positions: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """One oscillation along a mode (F, n, 3), nm."""
    swing = vector * (_SWING / np.linalg.norm(vector, axis=1).max())
    return positions + np.sin(2.0 * np.pi * np.arange(_MOVIE) / _MOVIE)[:, None, None] * swing


def grid_saddle(energies: np.ndarray) -> tuple[int, int]:
    """Highest point on the lowest way over a grid (I, J), from its first corner to its last.

    Points are taken in the order of their energies until both corners are joined by neighbours.
    """
    rows, columns = energies.shape
    root: dict[int, int] = {}

    def find(k: int) -> int:
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    for place in np.argsort(energies, axis=None).tolist():
        root[place] = place
        i, j = divmod(place, columns)
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < rows and 0 <= b < columns and a * columns + b in root:
                root[find(a * columns + b)] = find(place)
        if 0 in root and rows * columns - 1 in root and find(0) == find(rows * columns - 1):
            return i, j
    return 0, 0


def scan_result(
    surface: ReactionSurface, variables: SurfaceVariables, axes: Sequence[np.ndarray], found: ScanResult
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and arrays of a scan."""
    profile = found.profile
    counts = [len(axis) for axis in axes]
    if len(counts) == 1:
        top = int(np.argmax(profile))
    else:
        i, j = grid_saddle(profile.reshape(counts))
        top = i * counts[1] + j
    off = variables.difference(found.values, found.grid[None])
    facts = {
        "variables": variables.names,
        "units": [variable.unit for variable in variables.bound],
        "points": counts,
        "directions": len(found.energies),
        "barrier": float(profile[top] - profile[0]),
        "barrier_back": float(profile[top] - profile[-1]),
        "reaction_energy": float(profile[-1] - profile[0]),
        "highest": [float(value) for value in found.grid[top]],
        "highest_inside": bool(len(counts) > 1 or 0 < top < len(profile) - 1),
        "hysteresis": float(np.abs(found.hysteresis).max()),
        "hysteresis_at": [float(x) for x in found.grid[int(np.argmax(np.abs(found.hysteresis)))]],
        "hysteresis_top": float(abs(found.hysteresis[top])),
        "deviation": [float(x) for x in np.abs(off).max(axis=(0, 1))],
        "unconverged": int((~found.converged).sum()),
    }
    arrays = {
        **_common(surface),
        **{
            name: getattr(found, name)
            for name in ("grid", "values", "energies", "slopes", "forces", "converged")
        },
        "directions": found.positions,
        "profile": profile,
        "path": found.path,
        "counts": counts,
        "highest": found.path[top],
        "movie": found.path,
        "movie_labels": [
            ", ".join(
                f"{name} {_shown(x, v.dimension)}"
                for name, x, v in zip(variables.names, row, variables.bound, strict=True)
            )
            + f": {energy - profile[0]:.1f} kJ/mol"
            for row, energy in zip(found.grid, profile, strict=True)
        ],
    }
    return facts, arrays


def path_result(surface: ReactionSurface, found: PathResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and arrays of a path between two minima."""
    energies, top = found.energies, found.highest
    facts = {
        "barrier": float(energies[top] - energies[0]),
        "barrier_back": float(energies[top] - energies[-1]),
        "reaction_energy": float(energies[-1] - energies[0]),
        "images": len(energies) - 2,
        "highest": top,
        "force": found.force,
        "converged": found.converged,
        "iterations": found.iterations,
        "folds": list(found.folds),
        "returns": found.returns,
    }
    arrays = {
        **_common(surface),
        "path": found.positions,
        "energies": energies,
        "coordinate": found.lengths,
        "highest": found.positions[top],
        "movie": found.positions,
        "movie_labels": [f"image {k}: {e - energies[0]:.1f} kJ/mol" for k, e in enumerate(energies)],
    }
    return facts, arrays


def saddle_result(
    surface: ReactionSurface, found: SaddleResult, verdict: SaddleVerdict
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and arrays of a stationary point."""
    facts = {
        "energy": found.energy,
        "force": found.force,
        "converged": found.converged,
        "steps": found.steps,
        "imaginary": [float(x) for x in found.modes.imaginary],
        "overlaps": found.overlaps,
        "asymmetry": found.hessian.asymmetry,
        "judgement": {"level": verdict.level, "finding": verdict.finding, "advice": verdict.advice},
    }
    arrays = {
        **_common(surface),
        "highest": found.positions,
        "positions": found.positions,
        "hessian": found.hessian.matrix,
        "antisymmetric": found.hessian.antisymmetric,
        **_modes(found.modes),
        "energy": found.energy,
        "asymmetry": found.hessian.asymmetry,
        "movie": mode_movie(found.positions, found.modes.vectors[0]),
        "movie_labels": [f"mode of {_signed(found.modes.wavenumbers[0])} 1/cm"] * _MOVIE,
    }
    if found.memory is not None:
        arrays["memory"] = found.memory
    return facts, arrays


def irc_result(surface: ReactionSurface, found: IRCResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and arrays of an intrinsic reaction coordinate."""
    top = found.energies[found.saddle]
    ends: list[dict[str, Any]] = []
    for name, place, end in zip(("reverse", "forward"), (0, -1), found.ends, strict=True):
        energy = found.energies[place] if end is None else end[1]
        ends.append(
            {
                "direction": name,
                "depth": float(top - energy),
                "arrived": bool(found.arrived[place]),
                "converged": None if end is None else end[2],
            }
        )
    facts = {
        "points": len(found.energies),
        "rises": found.rises,
        "monotone": found.monotone,
        "ends": ends,
        "reaction_energy": ends[0]["depth"] - ends[1]["depth"],
    }
    arrays = {
        **_common(surface),
        "path": found.positions,
        "energies": found.energies,
        "coordinate": found.coordinate,
        "saddle": found.saddle,
        "highest": found.positions[found.saddle],
        "movie": found.positions,
        "movie_labels": [
            f"s = {s:.3f} nm √amu: {e - top:.1f} kJ/mol"
            for s, e in zip(found.coordinate, found.energies, strict=True)
        ],
    }
    return facts, arrays


def _common(surface: ReactionSurface) -> dict[str, Any]:
    indices = np.arange(len(surface)) if surface.indices is None else surface.indices
    return {"numbers": surface.numbers, "indices": indices, "masses": surface.masses}


def _modes(modes: Modes) -> dict[str, Any]:
    return {
        "wavenumbers": modes.wavenumbers,
        "vectors": modes.vectors,
        "reduced_masses": modes.reduced_masses,
        "removed": modes.removed,
    }


def _shown(value: float, dimension: str) -> str:
    if dimension == "angle":
        return f"{np.degrees(value):.1f}°"
    return f"{value:.4g} nm" if dimension == "length" else f"{value:.4g}"


def _signed(wavenumber: float) -> str:
    return f"{abs(wavenumber):.0f}i" if wavenumber < 0 else f"{wavenumber:.0f}"
