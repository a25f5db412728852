"""What each residue around does to a barrier: its energy with the region at the reactant and on the top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.correction import FrameChunk, frames_of
from mlmm.short_repr import ShortRepr
from mlmm.validation.embedding_levels import EmbeddingLevels

__all__ = ["DrawnFrames", "ResidueContributions", "draw_frames", "frames_near", "residue_contributions"]

_FEWEST = 2


@dataclass(frozen=True, repr=False)
class ResidueContributions(ShortRepr):
    """Energies of residues with the region, at two places of a profile.

    They are averages over the frames there, not free energies: they do not add up to the barrier, but tell
    which residue holds the reactant or the transition state.

    Parameters
    ----------
    names : tuple of str
        Residues, and ``within the region`` for what the field does inside it.
    reactant, top : ndarray, shape (R, 2), kJ/mol
        Mean and standard error at each place.
    frames : tuple of (int, int)
        Frames at both.
    """

    names: tuple[str, ...]
    reactant: np.ndarray
    top: np.ndarray
    frames: tuple[int, int]

    @property
    def differences(self) -> np.ndarray:
        """Top less reactant, (R, 2): mean and standard error; a negative one lowers the barrier."""
        means = self.top[:, 0] - self.reactant[:, 0]
        return np.stack([means, np.hypot(self.top[:, 1], self.reactant[:, 1])], axis=1)

    def lines(self, rows: int = 12) -> list[str]:
        """A table of the residues that change most."""
        order = np.argsort(-np.abs(self.differences[:, 0]))[:rows]
        found = [f"{'residue':24} {'reactant':>16} {'top':>16} {'difference':>16}"]
        for k in order:
            pairs = (self.reactant[k], self.top[k], self.differences[k])
            cells = " ".join(f"{f'{mean:.1f} ± {error:.1f}':>16}" for mean, error in pairs)
            found.append(f"{self.names[k]:24} {cells}")
        return found

    def _summary(self) -> dict[str, str]:
        largest = int(np.argmax(np.abs(self.differences[:, 0])))
        mean, error = self.differences[largest]
        return {"residues": str(len(self.names)), self.names[largest]: f"{mean:.1f} ± {error:.1f} kJ/mol"}


def frames_near(values: Sequence[np.ndarray], place: float, width: float, most: int) -> list[tuple[int, int]]:
    """Window and number of the frames that are nearest to a place, `most` of them within `width`."""
    near = [
        (abs(float(x) - place), window, frame)
        for window, own in enumerate(values)
        for frame, x in enumerate(own)
        if abs(float(x) - place) <= width
    ]
    return sorted((window, frame) for _, window, frame in sorted(near)[:most])


@dataclass(frozen=True)
class DrawnFrames:
    """Frames of windows: positions (N, 3) and box (3, 3) of each in nm, and its window.

    `boxes` is None without periodicity. Under a barostat every frame has a box of its own.
    """

    positions: list[np.ndarray]
    boxes: list[np.ndarray] | None
    windows: list[int]


def draw_frames(
    chunks: Sequence[Sequence[FrameChunk]],
    values: Sequence[np.ndarray],
    place: float,
    width: float,
    most: int,
) -> DrawnFrames:
    """Read the frames of windows that are nearest to a place.

    Parameters
    ----------
    chunks : sequence of sequence of FrameChunk
        Of each window.
    values : sequence of ndarray
        Of the variable in the frames of each window.
    place, width : float
        Frames count up to `width` away, in the unit of the variable.
    most : int

    Raises
    ------
    ConfigError
        None there.
    """
    near = frames_near(values, place, width, most)
    if not near:
        raise ConfigError(
            f"frames within {width:.3g} of {place:.3g}", "none", "write frames more often, or sample longer"
        )
    positions, boxes = [], []
    for window, number in near:
        chunk, frame = [(chunk, frame) for chunk in chunks[window] for frame in chunk.frames][number]
        where, box = frames_of(Path(chunk.trajectory), chunk.n_atoms)[frame]
        positions.append(where)
        boxes += [] if box is None else [box]
    return DrawnFrames(positions, boxes or None, [window for window, _ in near])


def residue_contributions(
    reactant: EmbeddingLevels,
    top: EmbeddingLevels,
    windows: tuple[Sequence[int], Sequence[int]],
) -> ResidueContributions:
    """Contributions of residues from the energies of frames at two places.

    Parameters
    ----------
    reactant, top : EmbeddingLevels
        Of the same residues; the embedded level counts.
    windows : tuple of two sequences of int
        Window of each frame: frames of one window are alike, so that the error is that of the means of
        windows, where there are two or more.

    Raises
    ------
    ConfigError
        Fewer than two frames at a place, or other residues.
    """
    if reactant.names != top.names:
        raise ConfigError("the same residues at both places", "others", "take frames of one system")
    tables = []
    for levels, own in zip((reactant, top), windows, strict=True):
        energies = np.concatenate([levels.energies[:, :, 2], levels.polarisation[:, None]], axis=1)
        if len(energies) < _FEWEST:
            raise ConfigError(
                f"{_FEWEST} frames or more at the reactant and on the top",
                str(len(energies)),
                "write frames more often (trajectory_interval in [report]), or sample longer",
            )
        tables.append(_means(energies, np.asarray(own)))
    names = (*reactant.names, "within the region")
    frames = (len(reactant.polarisation), len(top.polarisation))
    return ResidueContributions(names, tables[0], tables[1], frames)


def _means(energies: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Mean and standard error of each column, the larger of those by frames and by windows."""
    by_frame = energies.std(axis=0, ddof=1) / math.sqrt(len(energies))
    there = np.unique(windows)
    error = by_frame
    if len(there) > 1:
        means = np.array([energies[windows == one].mean(axis=0) for one in there])
        error = np.maximum(by_frame, means.std(axis=0, ddof=1) / math.sqrt(len(there)))
    return np.stack([energies.mean(axis=0), error], axis=1)
