"""What has been done of a search: arrays by name, kept after each part, so that it can go on from there."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Progress"]


class Progress:
    """Arrays of a search in memory; a run directory keeps them in a file.

    Parameters
    ----------
    arrays : dict of str to ndarray, optional
        What was kept before.
    """

    def __init__(self, arrays: dict[str, np.ndarray] | None = None):
        self.arrays: dict[str, np.ndarray] = dict(arrays or {})

    def get(self, name: str) -> np.ndarray | None:
        """What was kept under a name; None if nothing was."""
        return self.arrays.get(name)

    def keep(self, text: str, **arrays: Any) -> None:
        """Keep arrays, and say in a line what was done."""
        self.arrays |= {name: np.asarray(value) for name, value in arrays.items() if value is not None}

    def part(self, prefix: str) -> Progress:
        """Progress of a part of the search, whose names begin with a prefix."""
        return _Part(self, prefix)


class _Part(Progress):
    """Names with a prefix in the progress of the whole."""

    def __init__(self, whole: Progress, prefix: str):
        self._whole, self._prefix = whole, prefix

    def get(self, name: str) -> np.ndarray | None:
        return self._whole.get(f"{self._prefix}_{name}")

    def keep(self, text: str, **arrays: Any) -> None:
        self._whole.keep(text, **{f"{self._prefix}_{name}": value for name, value in arrays.items()})
