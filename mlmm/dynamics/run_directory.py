"""A run on disk: the hand-over between simulation, report and whatever comes next is files."""

from __future__ import annotations

import json
import logging
import os
import platform as python_platform
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.dynamics.lock import LOCK, check_unlocked
from mlmm.errors import ConfigError
from mlmm.short_repr import ShortRepr, shortened
from mlmm.whole_files import sync, write_whole

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Checkpoint", "RunDirectory", "timestamp", "versions"]

logger = logging.getLogger(__name__)
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
#: At the end of the last stage before the closing NVE checks: from here a run can be made longer.
_EXTENSIBLE = "checkpoint.before_nve.zip"
_NEWEST, _PREVIOUS, _DAMAGED = "checkpoint.zip", "checkpoint.previous.zip", "checkpoint.damaged.zip"
_PACKAGES = ("mlmm", "openmm", "torch", "openmmtorch", "numpy", "mdtraj", "parmed", "pdbfixer")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run can be taken up again.

    Parameters
    ----------
    stage : int
        Index of the stage that comes next or is under way.
    step : int
        Steps of that stage that are done.
    state : str
        OpenMM State as XML: positions, velocities, box; portable. Empty before the first stage has ended.
    context : bytes
        OpenMM's binary checkpoint, with the random numbers; empty before the first step of a stage.
    sizes : dict of str to int
        Length in bytes, at that moment, of every file that grows; what was written later is cut off.
    frames : int
        Of the trajectory.
    summary : dict
        The facts of `run.json` at that moment.
    sums : dict of str to int
        CRC-32 of what the files held then, without headers that change; see `GrowingChecksums`.
    """

    stage: int
    step: int
    state: str
    context: bytes
    sizes: dict[str, int]
    frames: int
    summary: dict[str, Any]
    sums: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class RunDirectory(ShortRepr):
    """One run: settings, versions, trajectory, energies, checkpoint, report.

    Parameters
    ----------
    path : Path
    settings : mapping, optional
        What `write_settings` writes to ``resolved.toml``: the run file with every default filled in.
    """

    path: Path
    settings: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def _summary(self) -> dict[str, str]:
        said = {"path": str(self.path)}
        try:
            facts = self.summary
        except ConfigError:
            return said | {"state": "no readable run.json"}
        stages = ", ".join(str(stage.get("name", "")) for stage in facts.get("stages", []))
        machine = facts.get("platform", "")
        return said | {
            "state": str(facts.get("state", "")),
            "title": shortened(str(facts.get("title", ""))),
            "stages": shortened(stages),
            "platform": str(machine)
            + (f", {facts['threads']} threads" if "threads" in facts else "")
            + (f", {facts['precision']} precision" if "precision" in facts else ""),
        }

    @property
    def summary(self) -> dict[str, Any]:
        """The facts of the run: state, versions, seed, region, stages, timing, drift.

        They are those of `run.json`, or of the last checkpoint where that file is gone or damaged.
        """
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            with suppress(ConfigError):
                return self.read_checkpoint(put_aside=False).summary
            raise ConfigError(
                f"a run directory with a readable run.json in {self.path}",
                str(error),
                "give the folder of a run",
            ) from error

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``interrupted``, ``failed`` or ``finished``."""
        return str(self.summary["state"])

    @property
    def recorded(self) -> bool:
        """Whether there is any record of the run, if only of how it starts."""
        return any(self.file(name).exists() for name in ("run.json", _NEWEST, _PREVIOUS))

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from, or to lose; a run that is ``starting`` has nothing."""
        return self.recorded and self.state != "starting"

    @property
    def built_folder(self) -> Path:
        """The pure-MM system of the run, as `BuiltSystem.save` wrote it."""
        return self.path / "built"

    @property
    def built_positions(self) -> np.ndarray:
        """Positions (N, 3) of the structure that the run began with, nm."""
        import numpy as np

        return np.load(self.built_folder / "positions.npy", allow_pickle=False)

    def file(self, name: str) -> Path:
        """Path of a file in the directory."""
        return self.path / name

    @classmethod
    def check_free(cls, path: str | os.PathLike[str], overwrite: bool = False, held: bool = False) -> None:
        """Make sure that `path` may become a run directory, before any work is done.

        Parameters
        ----------
        path : path
        overwrite : bool
            Whether a run that is there may be replaced.
        held : bool
            Whether the caller holds its lock.

        Raises
        ------
        ConfigError
            Something is there already, and `overwrite` is off or it is not a run; or a process is writing to
            it.
        """
        path = Path(path)
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            what = "a folder that may not be written to" if above.is_dir() else "a file"
            raise ConfigError(f"a folder for the run at {path}", f"{above}, {what}", "choose another --out")
        if above != path:
            return
        if not held:
            check_unlocked(path)
        # What is left where a run was killed before it had a name.
        if all(entry.name == LOCK or entry.match("run.json.*.part") for entry in path.iterdir()):
            return
        if not (path / "run.json").exists() and not cls(path).begun:
            raise ConfigError(
                "a new or empty folder for the run", f"{path} with other files", "choose another --out"
            )
        if not overwrite:
            raise ConfigError(
                "a new folder for the run",
                f"{path}, which holds a run that is {cls(path).state}",
                "add --resume to go on with it, --overwrite to replace it, or choose another --out",
            )

    def check_resumable(self) -> None:
        """Make sure that there is a run to go on with which no process is writing to (ConfigError)."""
        if not self.path.is_dir():
            raise ConfigError(
                "a run to resume",
                f"no folder {self.path}",
                "leave --resume out, or give the --out of the run",
            )
        check_unlocked(self.path)

    def make(self, summary: dict[str, Any]) -> None:
        """Empty the folder, which is there and locked, but for a `run.json` with the state ``starting``.

        That file comes first: a run that is killed at any moment from here on is one that can be started
        again, with ``--resume`` and with ``--overwrite``.
        """
        self.write_summary(summary | {"state": "starting"})
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in (LOCK, "run.json"):
                entry.unlink()

    def write_settings(self) -> None:
        """Write ``resolved.toml``, if there are settings."""
        if self.settings is not None:
            import tomli_w

            write_whole(self.file("resolved.toml"), tomli_w.dumps(self.settings))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace `run.json` in one move."""
        write_whole(self.path / "run.json", json.dumps(summary, indent=1, default=str))

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint beside the one before, which is kept as ``checkpoint.previous.zip``.

        What it counts on is on the disk before it is: not even a machine that loses power leaves a checkpoint
        with less data than it states.
        """
        for name in checkpoint.sizes:
            if self.file(name).exists():
                sync(self.file(name))
        target = self.path / _NEWEST
        temporary = target.with_suffix(".tmp")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("state.xml", checkpoint.state)
            archive.writestr("context.chk", checkpoint.context)
            numbers = {k: v for k, v in checkpoint.__dict__.items() if k not in ("state", "context")}
            archive.writestr("position.json", json.dumps(numbers, default=str))
        sync(temporary)
        if target.exists():
            os.replace(target, self.path / _PREVIOUS)
        os.replace(temporary, target)
        sync(self.path)

    def keep_checkpoint(self) -> None:
        """Keep the last checkpoint as the one from which the run can be made longer."""
        write_whole(self.path / _EXTENSIBLE, (self.path / _NEWEST).read_bytes())

    def kept_checkpoint(self) -> Checkpoint:
        """The checkpoint from which the run can be made longer (ConfigError where there is none)."""
        path = self.path / _EXTENSIBLE
        try:
            return self._checkpoint_in(path)
        except _UNREADABLE as error:
            raise ConfigError(
                f"{path}, from which the run becomes longer",
                str(error) or type(error).__name__,
                "put it back from a copy, or start another run from here: --from in mlmm run",
            ) from error

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Go back to an earlier checkpoint; files with more than it counts on are copied to ``replaced/``."""
        for name, size in checkpoint.sizes.items():
            path = self.file(name)
            if path.exists() and path.stat().st_size > size:
                folder = self.path / "replaced"
                folder.mkdir(exist_ok=True)
                number = 1 + len(list(folder.glob(f"{path.stem}.*{path.suffix}")))
                write_whole(folder / f"{path.stem}.{number}{path.suffix}", path.read_bytes())
        self.write_checkpoint(checkpoint)

    def read_checkpoint(self, put_aside: bool = True) -> Checkpoint:
        """The last checkpoint, or the one before where the last is damaged.

        A damaged one is put aside as ``checkpoint.damaged.zip``, unless the run is only read.

        Raises
        ------
        ConfigError
            There is none, or both are damaged.
        """
        newest = self.path / _NEWEST
        try:
            return self._checkpoint_in(newest)
        except _UNREADABLE as error:
            problem = f"{_NEWEST}: {error or type(error).__name__}"
        try:
            checkpoint = self._checkpoint_in(self.path / _PREVIOUS)
        except _UNREADABLE as error:
            raise ConfigError(
                f"a checkpoint in {self.path}",
                f"{problem}; {_PREVIOUS}: {error or type(error).__name__}",
                "put one of them back from a copy, or run anew with another --out; "
                "the rows and frames so far can be read as they are",
            ) from error
        logger.warning(
            "%s cannot be read (%s): going on from the checkpoint before, step %d of stage %d",
            newest,
            problem,
            checkpoint.step,
            checkpoint.stage + 1,
        )
        # Aside, or the next checkpoint would make it the one before.
        if put_aside and newest.exists():
            os.replace(newest, self.path / _DAMAGED)
        return checkpoint

    def _checkpoint_in(self, path: Path) -> Checkpoint:
        with zipfile.ZipFile(path) as archive:
            numbers = json.loads(archive.read("position.json"))
            return Checkpoint(
                state=archive.read("state.xml").decode(), context=archive.read("context.chk"), **numbers
            )


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {"python": python_platform.python_version(), "platform": python_platform.platform()}


def timestamp() -> str:
    """The time now, UTC, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
