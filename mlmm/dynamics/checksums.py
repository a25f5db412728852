"""Checksums of files that grow: what was written before a checkpoint is the same when a run goes on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["GrowingChecksums", "header_length"]

_DCD_HEADER = 276  # bytes before the first frame, as OpenMM writes it
_PIECE = 1 << 24


def header_length(path: Path) -> int:
    """Bytes at the start of a file that are written again as it grows: they hold the number of frames."""
    if path.suffix == ".dcd":
        return _DCD_HEADER
    if path.suffix != ".npy":
        return 0
    with path.open("rb") as file:
        start = file.read(10)
    # numpy's format 1.0: ten bytes, of which the last two are the length of what follows.
    return 10 + int.from_bytes(start[8:10], "little")


class GrowingChecksums:
    """CRC-32 of files without their headers; what was summed before is not read again.

    Parameters
    ----------
    folder : Path
    sizes, sums : mapping of str to int, optional
        Bytes of each file that are summed already, and their checksum.
    """

    def __init__(
        self, folder: Path, sizes: Mapping[str, int] | None = None, sums: Mapping[str, int] | None = None
    ):
        self._folder, sizes = folder, sizes or {}
        self._known = {name: (sizes[name], value) for name, value in (sums or {}).items()}

    def up_to(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Checksums of the first bytes of each file, as many as given; a missing file is left out."""
        for name, size in sizes.items():
            path = self._folder / name
            if size and path.exists():
                done, value = self._known.get(name, (header_length(path), 0))
                self._known[name] = (size, _extended(path, done, size, value))
        return {name: value for name, (_, value) in self._known.items() if name in sizes}


def _extended(path: Path, start: int, end: int, value: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = file.read(min(_PIECE, end - start))
            if not piece:
                break
            value, start = zlib.crc32(piece, value), start + len(piece)
    return value
