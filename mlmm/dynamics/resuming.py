"""What has to be in order before a run goes on: its files hold what the checkpoint counts on."""

from __future__ import annotations

from pathlib import Path

from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.errors import ConfigError

__all__ = ["check_files"]

_DCD_HEADER = 276  # bytes before the first frame, as OpenMM writes it


def check_files(run: RunDirectory, checkpoint: Checkpoint) -> None:
    """Refuse to go on where a file is shorter than it was at the checkpoint.

    Parameters
    ----------
    run : RunDirectory
    checkpoint : Checkpoint

    Raises
    ------
    ConfigError
        A file that is missing or too short; the message says how much of it is whole.
    """
    for name, size in checkpoint.sizes.items():
        path = run.file(name)
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise ConfigError(
                f"{path} with the {size} bytes that it had at the checkpoint",
                f"{found} bytes{_whole_part(path, found, checkpoint)}" if path.exists() else "no such file",
                "put the whole file back and resume again, or choose another --out; nothing was changed",
            )


def _whole_part(path: Path, found: int, checkpoint: Checkpoint) -> str:
    """Name the last good frame or row of a file that is too short."""
    if path.suffix == ".csv":
        rows = path.read_bytes().split(b"\n")[:-1]
        last = rows[-1].decode(errors="replace").split(",") if len(rows) > 1 else []
        return f", the last good row of which is step {last[1]} of {last[0]}" if len(last) > 1 else ", no row"
    if path.suffix not in (".dcd", ".npy") or not checkpoint.frames:
        return ""
    header = _DCD_HEADER
    if path.suffix == ".npy":
        with path.open("rb") as file:
            start = file.read(10)
        # numpy's format 1.0: ten bytes, of which the last two are the length of what follows.
        header = 10 + int.from_bytes(start[8:10], "little")
    frame = (checkpoint.sizes[path.name] - header) // checkpoint.frames
    whole = max(0, (found - header) // frame)
    return f", the last good frame of which is number {whole} of {checkpoint.frames}"
