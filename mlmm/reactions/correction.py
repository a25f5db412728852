"""Frames of runs reweighted to another description: energies frame by frame, then free energies."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.collective_variables.definitions import BoundVariable
from mlmm.collective_variables.values import value
from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.errors import ConfigError
from mlmm.reactions.reweighting import effective_samples
from mlmm.reactions.umbrella_analysis import UmbrellaResult, unbiased_log_weights
from mlmm.statistics import statistical_inefficiency
from mlmm.units import GAS_CONSTANT
from mlmm.whole_files import write_whole

__all__ = [
    "DifferenceRunner",
    "FrameChunk",
    "ProfileCorrection",
    "correct_profile",
    "frame_chunks",
    "frame_values",
    "frames_of",
]

#: (positions (N, 3), box (3, 3) or None) in nm -> energy of the other description less that of the own one.
Difference = Callable[[np.ndarray, np.ndarray | None], float]
_CHUNK = 10


@dataclass(frozen=True)
class FrameChunk:
    """Some frames of one trajectory, and the file where their differences go.

    Parameters
    ----------
    trajectory, result : str
    n_atoms : int
        Of the whole system.
    frames : tuple of int
    """

    trajectory: str
    n_atoms: int
    frames: tuple[int, ...]
    result: str


class DifferenceRunner:
    """Evaluates differences of chunks of frames; it is sent to a worker once and keeps its energies there.

    Parameters
    ----------
    make : callable
        Without arguments, for a function of positions and box.
    """

    def __init__(self, make: Callable[[], Difference]):
        self._make = make
        self._difference: Difference | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_difference": None}

    def __call__(self, chunk: FrameChunk) -> str:
        """Evaluate a chunk unless it is there; returns the file.

        The last one of a run that has become longer since holds fewer frames, and is evaluated again.
        """
        path = Path(chunk.result)
        if not path.exists() or len(np.load(path)) != len(chunk.frames):
            if self._difference is None:
                self._difference = self._make()
            frames = frames_of(Path(chunk.trajectory), chunk.n_atoms)
            found = [self._difference(*frames[k]) for k in chunk.frames]
            array = io.BytesIO()
            np.save(array, np.array(found))
            write_whole(path, array.getvalue())
        return chunk.result


def frames_of(path: Path, n_atoms: int) -> DCDFrames | tuple[()]:
    """Frames of a trajectory; none where there is no file.

    Raises
    ------
    ConfigError
        A file of another system, or none that a run wrote.
    """
    if not path.exists():
        return ()
    try:
        return DCDFrames(path, n_atoms)
    except (OSError, ValueError) as error:
        raise ConfigError(f"frames of the run in {path}", str(error), "give the folder of a run") from error


def frame_chunks(trajectory: Path, n_atoms: int, folder: Path, name: str, every: int = 1) -> list[FrameChunk]:
    """Divide the frames of a trajectory into chunks, whose results go into a folder.

    Parameters
    ----------
    trajectory : Path
    n_atoms : int
        Of the whole system.
    folder : Path
    name : str
        Of the files, for this trajectory alone.
    every : int
    """
    numbers = range(0, len(frames_of(trajectory, n_atoms)), every)
    return [
        FrameChunk(
            str(trajectory),
            n_atoms,
            tuple(numbers[k : k + _CHUNK]),
            str(folder / f"{name}_{numbers[k]:06d}_{every}.npy"),
        )
        for k in range(0, len(numbers), _CHUNK)
    ]


def frame_values(chunks: Sequence[FrameChunk], variable: BoundVariable) -> np.ndarray:
    """Values of a variable in the frames of some chunks."""
    found = []
    for chunk in chunks:
        frames = frames_of(Path(chunk.trajectory), chunk.n_atoms)
        for positions, box in (frames[k] for k in chunk.frames):
            cell = None if box is None else torch.tensor(box)
            found.append(float(value(variable, torch.tensor(positions), cell)))
    return np.array(found)


@dataclass(frozen=True, eq=False)
class ProfileCorrection:
    """What another description changes in a profile.

    Parameters
    ----------
    places : ndarray, shape (B,)
        Middle of coarse bins.
    shifts, errors : ndarray, shape (B,)
        Change of the free energy in each bin relative to the reactant and its standard error, kJ/mol.
    effective : ndarray, shape (B,)
        Independent frames in each bin that have weight in the other description.
    barrier, reaction : tuple of (float, float)
        Change of both and its standard error, kJ/mol; `barrier` is NaN without one.
    frames : int
    """

    places: np.ndarray
    shifts: np.ndarray
    errors: np.ndarray
    effective: np.ndarray
    barrier: tuple[float, float]
    reaction: tuple[float, float]
    frames: int


def correct_profile(
    result: UmbrellaResult,
    values: Sequence[np.ndarray],
    differences: Sequence[np.ndarray],
    *,
    bootstraps: int = 200,
    seed: int = 0,
) -> ProfileCorrection:
    """Change of a profile from frames of its windows: in each bin -kT ln <exp(-DeltaU/kT)> without bias.

    The bins are as many as windows. The error is that of drawing as many frames of every window as are
    independent.

    Parameters
    ----------
    result : UmbrellaResult
        The profile as it was sampled.
    values, differences : sequence of ndarray
        Of the variable and DeltaU (kJ/mol) in the frames of each window, in the order of `result.samples`.
    bootstraps, seed : int

    Raises
    ------
    ConfigError
        Frames in fewer than two bins.
    """
    profile, coordinate = result.profile, result.coordinate
    thermal = GAS_CONSTANT * profile.temperature
    low, high = float(profile.edges[0]), float(profile.edges[-1])
    edges = np.linspace(low, high, len(result.samples) + 1)
    x = np.concatenate(list(values))
    if coordinate.period:
        x = low + np.mod(x - low, coordinate.period)
    delta = np.concatenate(list(differences))
    bins = np.digitize(x, edges) - 1
    lengths = np.array([len(own) for own in values])
    # Number of frames of each window that count as one.
    inefficiencies = np.array(
        [
            max(statistical_inefficiency(own), statistical_inefficiency(change)) if len(own) else 1.0
            for own, change in zip(values, differences, strict=True)
        ]
    )
    counts = lengths / inefficiencies
    inefficiency = np.repeat(inefficiencies, lengths)
    logs = unbiased_log_weights(
        result.samples, coordinate, profile.temperature, np.concatenate(list(values)), counts
    )

    def shifts_of(drawn: np.ndarray) -> np.ndarray:
        found = np.full(len(edges) - 1, np.nan)
        for k in range(len(found)):
            inside = (bins == k) & (drawn > 0)
            if inside.any():
                own = logs[inside] + np.log(drawn[inside])
                top = -delta[inside] / thermal
                found[k] = -thermal * (_log_sum(own + top) - _log_sum(own))
        return found

    whole = shifts_of(1.0 / inefficiency)
    if np.isfinite(whole).sum() < 2:
        raise ConfigError(
            "frames in two bins of the profile or more", f"{len(x)} frames in one", "write frames more often"
        )
    marks = profile.landmarks
    middle = 0.5 * (edges[1:] + edges[:-1])
    known = np.flatnonzero(np.isfinite(whole))

    def nearest(fine: int | None) -> int | None:
        if fine is None:
            return None
        return int(known[np.argmin(np.abs(middle[known] - profile.centres[fine]))])

    start, top, end = map(nearest, (marks.reactant, marks.transition_state, marks.product))
    assert start is not None
    assert end is not None
    generator = np.random.default_rng(seed)
    replicates = []
    for _ in range(bootstraps):
        parts = [
            generator.multinomial(max(1, round(count)), np.full(length, 1.0 / length))
            for count, length in zip(counts, lengths, strict=True)
            if length
        ]
        replicates.append(shifts_of(np.concatenate(parts)))
    spread = np.array(replicates)

    def step(first: int, last: int | None) -> tuple[float, float]:
        if last is None:
            return float("nan"), float("nan")
        resampled = spread[:, last] - spread[:, first]
        resampled = resampled[np.isfinite(resampled)]
        error = float(resampled.std(ddof=1)) if len(resampled) > 1 else float("nan")
        return float(whole[last] - whole[first]), error

    steps = [step(start, k) for k in range(len(whole))]
    reweighted = logs - np.log(inefficiency) - delta / thermal
    effective = [
        effective_samples(reweighted[bins == k], inefficiency[bins == k]) if (bins == k).any() else 0.0
        for k in range(len(whole))
    ]
    return ProfileCorrection(
        middle,
        np.array([one[0] for one in steps]),
        np.array([one[1] for one in steps]),
        np.array(effective),
        step(start, top),
        step(start, end),
        len(x),
    )


def _log_sum(logs: np.ndarray) -> float:
    top = float(logs.max())
    return top + float(np.log(np.exp(logs - top).sum()))
