"""What has to be in order before a run goes on: the same settings, and files as the checkpoint counts on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmm.dynamics.checksums import GrowingChecksums, header_length
from mlmm.dynamics.fingerprint import differences, same_force_field
from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.dynamics.stages import Dynamics, Minimise, NVECheck
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem

__all__ = ["check_files", "extensible", "take_up"]


def extensible(stages: Sequence[Minimise | Dynamics]) -> int:
    """Index of the stage that may become longer: the last one before the NVE checks at the end."""
    last = len(stages) - 1
    index = last
    while index > 0 and isinstance(stages[index], NVECheck):
        index -= 1
    return index if isinstance(stages[index], Dynamics) else last


def take_up(
    run: RunDirectory,
    settings: Mapping[str, Any],
    hybrid: HybridSystem,
    stages: Sequence[Minimise | Dynamics],
) -> tuple[Checkpoint, bool]:
    """Find the checkpoint from which a run goes on, with its own settings.

    The last stage may be longer now, and so may the one before the NVE checks at the end: these are repeated
    from its new end.

    Parameters
    ----------
    run : RunDirectory
    settings : mapping
        As `settings_of` returns them.
    hybrid : HybridSystem
    stages : sequence of Minimise or Dynamics

    Returns
    -------
    Checkpoint
    bool
        Whether it is an earlier one than the last.

    Raises
    ------
    ConfigError
        Settings that differ, each of them named; or a finished run of which no stage is longer than it was.
    """
    checkpoint = run.read_checkpoint()
    then, index = checkpoint.summary["settings"], extensible(stages)
    growing = f"{stages[index].name}.length"
    lengths = {growing, f"{stages[-1].name}.length"}
    found = differences(then, settings, may_grow=lengths)
    if not same_force_field(run.built_folder, hybrid.built.system):
        found.append("another force field, constraints or masses")
    if found:
        raise ConfigError(
            f"the settings of the run in {run.path}",
            "; ".join(found),
            f"resume without changes, or choose another --out; {stages[index].name} alone may become longer",
        )
    if run.state == "finished" and all(then.get(name) == settings.get(name) for name in lengths):
        raise ConfigError(
            f"an unfinished run to resume, or a longer {stages[index].name}",
            f"{run.path}, which is finished",
            "see its report.html"
            + (
                f'; to make it longer: --resume --set run.{stages[index].name}="…", more than the '
                f"{then[growing]:g} ps that it has; to branch from it: --from {run.path} --out …"
                if growing in then
                else ""
            ),
        )
    if checkpoint.stage > index and then.get(growing) != settings.get(growing):
        return run.kept_checkpoint(), True
    return checkpoint, False


def check_files(run: RunDirectory, checkpoint: Checkpoint) -> None:
    """Refuse to go on where a file is shorter than it was at the checkpoint, or holds other bytes.

    Parameters
    ----------
    run : RunDirectory
    checkpoint : Checkpoint

    Raises
    ------
    ConfigError
        A file that is missing, changed or too short; the message says how much of that is whole.
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
    for name, value in GrowingChecksums(run.path).up_to(checkpoint.sizes).items():
        if checkpoint.sums.get(name, value) != value:
            raise ConfigError(
                f"{run.file(name)} as it was at the checkpoint",
                "other bytes: it was changed or damaged since",
                "put the file back from a copy and resume again, or branch into another folder with --from; "
                "nothing was changed",
            )


def _whole_part(path: Path, found: int, checkpoint: Checkpoint) -> str:
    """Name the last good frame or row of a file that is too short."""
    if path.suffix == ".csv":
        rows = path.read_bytes().split(b"\n")[:-1]
        last = rows[-1].decode(errors="replace").split(",") if len(rows) > 1 else []
        return f", the last good row of which is step {last[1]} of {last[0]}" if len(last) > 1 else ", no row"
    if path.suffix not in (".dcd", ".npy") or not checkpoint.frames:
        return ""
    header = header_length(path)
    frame = (checkpoint.sizes[path.name] - header) // checkpoint.frames
    whole = max(0, (found - header) // frame)
    return f", the last good frame of which is number {whole} of {checkpoint.frames}"
