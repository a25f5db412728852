"""What has to be in order before a run goes on: the same settings, and files as the checkpoint counts on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmm.dynamics.fingerprint import differences, same_force_field
from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.dynamics.stages import Dynamics, Minimise
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem

__all__ = ["check_files", "check_same"]

_DCD_HEADER = 276  # bytes before the first frame, as OpenMM writes it


def check_same(
    run: RunDirectory,
    checkpoint: Checkpoint,
    settings: Mapping[str, Any],
    hybrid: HybridSystem,
    last: Minimise | Dynamics,
) -> None:
    """Refuse to go on with other settings, but for a last stage that is longer now.

    Parameters
    ----------
    run : RunDirectory
    checkpoint : Checkpoint
    settings : mapping
        As `settings_of` returns them.
    hybrid : HybridSystem
    last : Minimise or Dynamics
        The last stage.

    Raises
    ------
    ConfigError
        Settings that differ, each of them named; or a finished run whose last stage is no longer than it was.
    """
    length, then = f"{last.name}.length", checkpoint.summary["settings"]
    found = differences(then, settings, may_grow=length)
    if not same_force_field(run.built_folder, hybrid.built.system):
        found.append("another force field, constraints or masses")
    if found:
        raise ConfigError(
            f"the settings of the run in {run.path}",
            "; ".join(found),
            "resume without changes, or choose another --out; the last stage alone may become longer",
        )
    if run.state == "finished" and then.get(length) == settings.get(length):
        raise ConfigError(
            "an unfinished run to resume, or a longer last stage",
            f"{run.path}, which is finished",
            "see its report.html"
            + (f'; to make it longer: --resume --set run.{last.name}="…"' if length in then else ""),
        )


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
