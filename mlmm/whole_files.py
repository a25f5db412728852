"""Files that are there whole or not at all, whenever a process is killed or a machine loses power."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["sync", "write_json", "write_whole"]


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Replace a file in one move, after its content is on the disk.

    Two processes that write one file at a time do not mix: the last one wins. Text is UTF-8.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, content: Any, *, nan: bool = False) -> None:
    """Replace a JSON file in one move. ValueError for NaN and infinity, unless ``nan`` lets them pass."""
    write_whole(path, json.dumps(content, indent=1, allow_nan=nan) + "\n")


def sync(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
