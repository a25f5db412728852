"""Reproducible division of a data set into training, validation and test, by block of trajectory.

Consecutive frames resemble each other: a test on the neighbours of training frames tells how well a model
remembers. Frames of one block are therefore never on two sides. A block is a window of a run, or so many
frames of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlmm.errors import ConfigError
from mlmm.learning.dataset.store import Dataset
from mlmm.short_repr import ShortRepr, counted
from mlmm.whole_files import write_json

__all__ = ["SIDES", "Split", "block_names", "check_split", "read_split", "split_dataset"]

SIDES = ("train", "validation", "test")


@dataclass(frozen=True, repr=False)
class Split(ShortRepr):
    """Which structures of a data set are on which side.

    Parameters
    ----------
    train, validation, test : ndarray of int64
        Indices, sorted; structures whose label did not converge are on none.
    blocks : mapping of str to str
        Side of each block by its name.
    frames : int
        Frames of a block; 0 for whole windows.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    blocks: Mapping[str, str]
    frames: int = 0

    def _summary(self) -> dict[str, str]:
        return {side: counted(len(getattr(self, side)), "structure") for side in SIDES} | {
            "blocks": str(len(self.blocks))
        }

    def save(self, path: str | Path) -> None:
        """Write the sides of the blocks as JSON, in one move."""
        content = {"frames": self.frames, "blocks": dict(self.blocks)}
        write_json(path, content)


def block_names(origins: Sequence[Mapping[str, str]], frames: int = 0) -> list[str]:
    """Name of the block of each structure: run, window and number of the block.

    A structure that does not say from which run it is, is a block of its own: those of normal modes and of
    random distortion are drawn one by one.

    Parameters
    ----------
    origins : sequence of mapping
        ``run``, ``window`` and ``frame`` of each.
    frames : int
        Frames of a block; 0 for the whole window, which also is the block of a structure without number.

    Raises
    ------
    ConfigError
        A frame that is no number where blocks are counted in frames.
    """
    names = []
    for index, origin in enumerate(origins):
        if "run" not in origin and "window" not in origin:
            names.append(f"structure {index}")
            continue
        name = " ".join(f"{part} {origin[part]}" for part in ("run", "window") if part in origin)
        if frames and "frame" in origin:
            frame = origin["frame"]
            if not frame.isdigit():
                raise ConfigError(
                    f"the number of the frame of structure {index}, for blocks of {frames} frames",
                    repr(frame),
                    "give each molecule its origin = {run, window, frame}, or split by whole windows",
                )
            name += f" block {int(frame) // frames}"
        names.append(name)
    return names


def split_dataset(
    dataset: Dataset,
    validation: float = 0.1,
    test: float = 0.1,
    *,
    frames: int = 0,
    seed: int = 0,
    earlier: Split | None = None,
) -> Split:
    """Divide a data set at random, by block.

    Parameters
    ----------
    dataset : Dataset
    validation, test : float
        Shares of the structures, met as closely as whole blocks allow; 0 for none.
    frames : int
        Frames of a block; 0 for whole windows.
    seed : int
    earlier : Split, optional
        Of the same set when it was smaller: its blocks stay where they are.

    Raises
    ------
    ConfigError
        Shares that leave nothing to train on, fewer blocks than sides, or an earlier split by other blocks.
    """
    shares = {"train": 1.0 - validation - test, "validation": validation, "test": test}
    if min(shares.values()) < 0.0 or shares["train"] <= 0.0:
        raise ConfigError(
            "shares of validation and test that leave a training set",
            f"{validation:g} and {test:g}",
            "write 0.1 and 0.1",
        )
    if earlier is not None and earlier.frames != frames:
        raise ConfigError(
            f"the blocks of the earlier split, {earlier.frames} frames", f"{frames}", "keep frames as it was"
        )
    names = block_names(dataset.origins, frames)
    sizes: dict[str, int] = {}
    for index in dataset.usable.tolist():
        sizes[names[index]] = sizes.get(names[index], 0) + 1
    wanted = [side for side in SIDES if shares[side] > 0.0]
    if len(sizes) < len(wanted):
        raise ConfigError(
            f"{len(wanted)} blocks or more for {', '.join(wanted)}",
            f"{counted(len(sizes), 'block')} in {dataset.path}",
            "give frames, the length of a block, to cut windows into blocks, or label more of them",
        )
    blocks = {name: side for name, side in (earlier.blocks if earlier else {}).items() if name in sizes}
    filled = {side: sum(sizes[name] for name, where in blocks.items() if where == side) for side in SIDES}
    total = sum(sizes.values())
    new = [name for name in sizes if name not in blocks]
    for place in np.random.default_rng(seed).permutation(len(new)).tolist():
        # The side that lacks most of its share; an empty one before all others.
        side = max(wanted, key=lambda s: (not filled[s], shares[s] - filled[s] / total))
        blocks[new[place]] = side
        filled[side] += sizes[new[place]]
    return _of_blocks(dataset, names, blocks, frames)


def read_split(dataset: Dataset, path: str | Path) -> Split:
    """Read a split that was saved.

    Raises
    ------
    ConfigError
        A file that is none, or a block of the set that it does not know.
    """
    try:
        content = json.loads(Path(path).read_text())
        blocks, frames = dict(content["blocks"]), int(content["frames"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"a split in {path}", f"{type(error).__name__}: {error}", "split anew") from error
    names = block_names(dataset.origins, frames)
    unknown = sorted({names[index] for index in dataset.usable.tolist()} - set(blocks))
    if unknown:
        raise ConfigError(
            f"the blocks of {path}",
            f"{counted(len(unknown), 'other')}, such as {unknown[0]}",
            "split anew with the earlier split, so that the others stay where they are",
        )
    return _of_blocks(dataset, names, blocks, frames)


def check_split(dataset: Dataset, sides: Mapping[str, Iterable[int]], frames: int = 0) -> None:
    """Refuse a split that leaks: frames of one block, or one structure twice, on two sides.

    Parameters
    ----------
    dataset : Dataset
    sides : mapping of str to iterable of int
        Indices by the name of the side.
    frames : int
        Frames of a block; 0 for whole windows.

    Raises
    ------
    ConfigError
        Names the block and both sides, or an index that the set does not have.
    """
    names = block_names(dataset.origins, frames)
    of_block: dict[str, tuple[str, int]] = {}
    for side, indices in sides.items():
        for index in indices:
            if not 0 <= index < len(dataset):
                raise ConfigError(
                    f"indices of the {len(dataset)} structures in {side}", f"{index}", "split anew"
                )
            other, first = of_block.setdefault(names[index], (side, index))
            if other != side:
                raise ConfigError(
                    f"frames of one block on one side, in the split of {dataset.path}",
                    f"structure {first} in {other} and {index} in {side}, both of {names[index]}: a test on "
                    "neighbours of training frames tells nothing",
                    "split by blocks (mlmm.learning.dataset.splits.split_dataset)",
                )


def _of_blocks(dataset: Dataset, names: Sequence[str], blocks: Mapping[str, str], frames: int) -> Split:
    usable = dataset.usable.tolist()
    train, validation, test = (
        np.array([index for index in usable if blocks[names[index]] == side], dtype=np.int64)
        for side in SIDES
    )
    return Split(train, validation, test, dict(blocks), frames)
