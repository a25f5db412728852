"""How a structure changed in a run: RMSD, distances that were asked for, bonds, over some hundred frames."""

from __future__ import annotations

import logging
import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlmm.report.bonds import BondChecker, BondFacts
from mlmm.report.superposition import Superposition, distance_between
from mlmm.report.text import as_list, as_mapping, look_up
from mlmm.report.trajectory import Start, Trajectory, read_start

__all__ = ["Frames", "StructureSeries", "open_frames", "structure_series"]

logger = logging.getLogger(__name__)
#: Frames that are looked at; of a longer run every second, third, …
_FRAMES = 400
#: Coordinates that are looked at, to keep the time for a report of a large system short.
_ATOMS = 20_000_000


@dataclass(frozen=True)
class Frames:
    """What the files of a run say about its structure.

    Parameters
    ----------
    start : Start
    trajectory : Trajectory or None
        None where nothing was written, or nothing that can be read.
    superposition : Superposition
    weights : ndarray, shape (F, N), or None
        lambda by frame, for a zone that moves.
    """

    start: Start
    trajectory: Trajectory | None
    superposition: Superposition
    weights: np.ndarray | None = None

    def shown(self) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Number, positions (N, 3) and box of the frames that are looked at."""
        if self.trajectory is not None:
            limit = max(2, min(_FRAMES, _ATOMS // len(self.start.positions)))
            for k in self.trajectory.spread(limit):
                yield k, *self.trajectory[k]


@dataclass(frozen=True)
class StructureSeries:
    """What changed in the structure of a run; empty arrays where there are no frames.

    Parameters
    ----------
    times : ndarray, shape (F,)
        ps, or numbers of frames where `timed` is False.
    timed : bool
    polymer, region : ndarray, shape (F,)
        RMSD from the start in nm: of the backbone; of the heavy atoms of the region, after superposition of
        the backbone, or of the region itself where there is none. NaN where there are no such atoms.
    has_polymer : bool
    distances : dict of str to ndarray, shape (F,)
        nm.
    bonds : BondFacts or None
        None where no frame could be looked at.
    frames : int
        How many frames there are in all.
    """

    times: np.ndarray
    timed: bool
    polymer: np.ndarray
    region: np.ndarray
    has_polymer: bool
    distances: dict[str, np.ndarray] = field(default_factory=dict)
    bonds: BondFacts | None = None
    frames: int = 0


def open_frames(directory: pathlib.Path, run: dict[str, Any], notes: list[str]) -> Frames | None:
    """Open the starting structure and the frames of a run; None, without a note, where there is neither."""
    start = read_start(directory)
    if start is None:
        return None
    superposition = Superposition(start, as_list(look_up(run, "region", "atoms")))
    path, n_atoms = directory / "trajectory.dcd", len(start.positions)
    if not path.is_file():
        return Frames(start, None, superposition)
    try:
        trajectory = Trajectory(path, n_atoms, run)
    except (OSError, ValueError) as problem:
        notes.append(f"trajectory.dcd could not be read ({problem}): nothing is said about its frames.")
        return Frames(start, None, superposition)
    return Frames(start, trajectory, superposition, _moving_weights(directory, len(trajectory), n_atoms))


def _moving_weights(directory: pathlib.Path, frames: int, n_atoms: int) -> np.ndarray | None:
    path = directory / "lambda.npy"
    if not path.is_file():
        return None
    try:
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return weights if weights.ndim == 2 and weights.shape[1] == n_atoms and len(weights) >= frames else None


def structure_series(
    frames: Frames, run: dict[str, Any], weights: np.ndarray, last: np.ndarray | None = None
) -> StructureSeries:
    """Follow the structure through the frames of a run.

    Parameters
    ----------
    frames : Frames
    run : dict
        Contents of ``run.json``, with the atoms of the distances.
    weights : ndarray, shape (N,)
        lambda in the built structure.
    last : ndarray, shape (N, 3), optional
        The last finite frame of a run that failed, nm: its bonds are looked at too.
    """
    trajectory, superposition = frames.trajectory, frames.superposition
    modelled = weights > 0
    if frames.weights is not None:
        modelled = modelled | (np.asarray(frames.weights).max(axis=0, initial=0.0) > 0)
    checker = BondChecker(frames.start, modelled)
    asked = _asked(run, len(weights))
    times, rows = [], []
    all_times = np.empty(0) if trajectory is None else trajectory.times
    timed = bool(len(all_times)) and bool(np.isfinite(all_times).all())
    for k, positions, box in frames.shown():
        times.append(all_times[k] if timed else k + 1)
        checker.look(positions, box, f"{all_times[k]:.4g} ps" if timed else f"frame {k + 1}")
        placed = superposition.place(positions, box)
        row = [
            superposition.rmsd(placed, atoms) if len(atoms) else math.nan
            for atoms in (superposition.backbone, superposition.region)
        ]
        rows.append(row + [distance_between(placed, box, *atoms) for atoms in asked.values()])
    if last is not None:
        checker.look(last, None, "the last finite frame")
    table = np.array(rows).reshape(len(rows), 2 + len(asked))
    bonds = checker.facts()
    return StructureSeries(
        times=np.array(times),
        timed=timed,
        polymer=table[:, 0],
        region=table[:, 1],
        has_polymer=bool(len(superposition.backbone)),
        distances={name: table[:, 2 + k] for k, name in enumerate(asked)},
        bonds=bonds if bonds.frames and bonds.bonds else None,
        frames=0 if trajectory is None else len(trajectory),
    )


def _asked(run: dict[str, Any], n_atoms: int) -> dict[str, list[list[int]]]:
    """Atoms of each distance in ``run.json``; one that is damaged is left out."""
    found = {}
    for name, facts in as_mapping(run.get("distances")).items():
        groups = [as_list(group) for group in as_list(look_up(facts, "atoms"))]
        known = all(
            group and all(type(atom) is int and 0 <= atom < n_atoms for atom in group) for group in groups
        )
        if len(groups) == 2 and known:
            found[str(name)] = groups
    return found
