"""Where a run begins: at its built structure, or where another run of the same system is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError

__all__ = ["VELOCITIES", "Start", "check_start"]

VELOCITIES = ("new", "kept")


@dataclass(frozen=True)
class Start:
    """Where a run begins, instead of at its built structure.

    Parameters
    ----------
    run : path
        Directory of another run of the same system; it is only read, and may still be going on.
    frame : int, optional
        Number of a frame of its trajectory, from 1, or from -1 backwards; its last checkpoint by default.
        Frames have single precision, no velocities, and are centred on the region.
    velocities : {"new", "kept"}
        Drawn anew at the temperature of the first stage, or taken over.

    Raises
    ------
    ConfigError
        Other words, or velocities of a frame.
    """

    run: str | Path
    frame: int | None = None
    velocities: str = "new"

    def __post_init__(self) -> None:
        if self.velocities not in VELOCITIES:
            raise ConfigError("velocities new or kept", repr(self.velocities), 'write velocities = "kept"')
        if self.frame is not None and self.velocities == "kept":
            raise ConfigError(
                "new velocities for a start from a frame, which holds none",
                'velocities = "kept"',
                "leave the frame out to start from the last checkpoint, or take new velocities",
            )

    @classmethod
    def recorded(cls, run: RunDirectory) -> Start | None:
        """The start that a run states in its record, if it has one."""
        facts = run.summary.get("start") if run.recorded else None
        return None if facts is None else cls(facts["run"], facts["frame"], facts["velocities"])


def check_start(start: Start | None, run: RunDirectory, resume: bool) -> None:
    """Refuse a start without a run, for a run with a record, or in the one to be replaced (ConfigError)."""
    if start is None:
        return
    if resume and run.recorded:
        raise ConfigError(
            "no start for a run that is resumed, since it has its own",
            str(start.run),
            "leave the start (--from) out, or leave --resume out and choose another --out",
        )
    _ = RunDirectory(Path(start.run)).summary
    if Path(start.run).resolve() == run.path.resolve():
        raise ConfigError(
            "another folder for a run that starts from an earlier one",
            f"{run.path}, where that one is",
            "choose another --out",
        )
