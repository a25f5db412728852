"""Reproducible division of labelled structures by block of trajectory.

Consecutive frames resemble each other: a test on the neighbours of training frames tells how well a model
remembers. A block is a window of a run, or so many frames of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reference.labels import Label, Molecule

__all__ = ["block_names", "split_by_block"]


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


def split_by_block(
    samples: Sequence[tuple[Molecule, Label]],
    share: float,
    seed: int = 0,
    key: str = "window",
    *,
    whole: bool = False,
) -> tuple[list[int], list[int]]:
    """Divide a set so that neighbouring frames of a trajectory stay on one side.

    Structures of one run and one `key` of their origin are consecutive frames; without an origin the order of
    the list counts. Each such stretch gives its last frames, as many as the share says, in one block; or
    whole stretches are taken at random, which measures the error where nothing was sampled.

    Parameters
    ----------
    samples : sequence of (Molecule, Label)
    share : float
        Of the second part, above 0 and below 1.
    seed : int
        Of the choice of whole stretches, and among stretches that are too short to be divided.
    key : str
        Of `Molecule.origin` that names a stretch beside ``run``.
    whole : bool
        Take whole stretches, as many as come nearest to the share, one at least.

    Returns
    -------
    first, second : list of int
        Indices, sorted.

    Raises
    ------
    ConfigError
        Whole stretches of which there is one alone.
    """
    stretches: dict[tuple[str, str], list[int]] = {}
    for k, (molecule, _) in enumerate(samples):
        origin = molecule.origin
        stretches.setdefault((origin.get("run", ""), origin.get(key, "")), []).append(k)
    taken = _whole(stretches, share, seed, key) if whole else _last(stretches, share, seed, len(samples))
    return [k for k in range(len(samples)) if k not in taken], sorted(taken)


def _whole(stretches: Mapping[tuple[str, str], list[int]], share: float, seed: int, key: str) -> set[int]:
    """Frames of whole stretches, chosen at random."""
    if len(stretches) < 2:
        raise ConfigError(
            f"labels of two or more windows to hold out whole ones (run and {key} of their origin)",
            "one",
            'write held_out_by = "last frames", or give the origin of each label',
        )
    wanted = share * sum(map(len, stretches.values()))
    names = list(stretches)
    taken: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(names))[:-1].tolist():
        members = stretches[names[place]]
        if taken and len(taken) + len(members) / 2 > wanted:
            break
        taken += members
    return set(taken)


def _last(stretches: Mapping[tuple[str, str], list[int]], share: float, seed: int, count: int) -> set[int]:
    """The last frames of each stretch; where stretches are too short, frames of some of them."""
    second: list[int] = []
    wanted = max(1, round(share * count))
    for members in stretches.values():
        some = int(share * len(members))
        second += members[len(members) - some :] if some else []
    if len(second) < wanted:
        order = np.random.default_rng(seed).permutation(len(stretches))
        for place in order:
            members = list(stretches.values())[place]
            free = [k for k in members if k not in second]
            if len(second) < wanted and len(free) > 1:
                second.append(free[-1])
        rest = sorted(set(range(count)) - set(second))
        if len(second) < wanted:  # stretches of one frame each: any of them
            more = np.random.default_rng(seed).permutation(rest)[: wanted - len(second)]
            second += [int(k) for k in more]
    return set(second)
