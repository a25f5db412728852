"""A search in a run directory: locked, kept after each part, resumed only with its own settings."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.dynamics.failures import disk_errors
from mlmm.dynamics.fingerprint import differences
from mlmm.dynamics.interruption import StopRequest
from mlmm.dynamics.lock import locked
from mlmm.dynamics.records import log_to
from mlmm.dynamics.run_directory import RunDirectory, timestamp, versions
from mlmm.errors import ConfigError, MLMMError
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import ReactionSurface
from mlmm.whole_files import write_whole

__all__ = ["RESULT", "load_arrays", "run_search", "save_arrays"]

logger = logging.getLogger(__name__)
_STATE, RESULT = "state.npz", "result.npz"
_TEXT = 300  # characters of a setting that is kept as it is


class _InterruptedError(Exception):
    """The search was asked to stop, and is saved."""


class _Kept(Progress):
    """Progress in the file ``state.npz`` of a run directory."""

    def __init__(
        self,
        run: RunDirectory,
        surface: ReactionSurface,
        stop: StopRequest,
        say: Callable[[str], None],
        arrays: dict[str, np.ndarray],
    ):
        super().__init__(arrays)
        self._run, self._surface, self._stop, self._say = run, surface, stop, say
        self._before = (
            int(arrays.get("calls", 0)),
            float(arrays.get("seconds", 0.0)),
            float(arrays.get("cpu", 0.0)),
        )
        self._begin = (surface.calls, time.monotonic(), time.process_time())

    def spent(self) -> dict[str, Any]:
        """Evaluations, seconds and processor seconds so far, earlier parts of the run included."""
        now = (self._surface.calls, time.monotonic(), time.process_time())
        calls, seconds, cpu = (b + n - s for b, n, s in zip(self._before, now, self._begin, strict=True))
        return {"calls": int(calls), "seconds": seconds, "cpu": cpu}

    def keep(self, text: str, **arrays: Any) -> None:
        """Keep arrays in the file; ends the search if a signal asked for it."""
        super().keep(text, **arrays, **self.spent())
        save_arrays(self._run.file(_STATE), self.arrays)
        logger.info("%s", text)
        self._say(text)
        if self._stop:
            raise _InterruptedError


def run_search(
    run: RunDirectory,
    kind: str,
    surface: ReactionSurface,
    settings: Mapping[str, Any],
    work: Callable[[Progress], tuple[dict[str, Any], dict[str, Any]]],
    *,
    resume: bool = False,
    overwrite: bool = False,
    title: str = "",
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Do a search in a run directory.

    Parameters
    ----------
    run : RunDirectory
        With the settings that ``resolved.toml`` gets.
    kind : str
        "scan", "neb", "ts", "irc" or "freq".
    surface : ReactionSurface
    settings : mapping
        All that decides the result; a run goes on only with the same.
    work : callable
        Gets the progress; returns facts for ``run.json`` and arrays for ``result.npz``.
    resume, overwrite : bool
    title : str
    facts : mapping, optional
        Further ones for ``run.json``.
    progress : callable
        Gets a line of text after each part.

    Returns
    -------
    dict
        The contents of ``run.json``.

    Raises
    ------
    ConfigError
        A run that is there, that another process writes to, or that has other settings.
    KeyboardInterrupt, SystemExit
        After a signal, once what was done is saved.
    """
    stop = StopRequest()
    plain = {name: _plain(value) for name, value in settings.items()}
    with disk_errors(run.path):
        if resume:
            run.check_resumable()
        else:
            run.check_free(run.path, overwrite)
            run.path.mkdir(parents=True, exist_ok=True)
        with locked(run.path):
            going_on = resume and run.begun
            arrays: dict[str, np.ndarray] = {}
            if going_on:
                summary = run.summary
                _check_same(summary, kind, plain, run.path)
                arrays = load_arrays(run.file(_STATE)) if run.file(_STATE).exists() else {}
            else:
                run.check_free(run.path, overwrite or resume, held=True)
                summary = {"created": timestamp(), "warnings": [], **(facts or {})}
                summary |= {"kind": kind, "title": title or run.path.name, "settings": plain}
                summary |= {"surface": dict(surface.facts), "moving": _moving(surface)}
                run.make(summary)
                write_structure(run.file("topology.pdb"), surface)
                if surface.whole is not None:
                    surface.built.save(run.built_folder)
            summary |= {"versions": _versions(), "state": "running", "message": None}
            run.write_settings()
            run.write_summary(summary)
            with log_to(run.file("run.log")), stop.by_signals():
                kept = _Kept(run, surface, stop, progress, arrays)
                try:
                    result, found = work(kept)
                    save_arrays(run.file(RESULT), found)
                    summary |= {"state": "finished", "result": result}
                except _InterruptedError:
                    summary |= {"state": "interrupted", "message": str(stop)}
                except MLMMError as error:
                    summary |= {"state": "failed", "message": str(error)}
                    raise
                finally:
                    summary["cost"] = kept.spent()
                    if summary["state"] == "running":
                        summary |= {
                            "state": "failed",
                            "message": "an error that was not foreseen: see run.log",
                        }
                    run.write_summary(summary)
    stop.pass_on()
    return summary


def _check_same(summary: Mapping[str, Any], kind: str, settings: Mapping[str, Any], path: Path) -> None:
    """A run goes on as what it is, with its own settings."""
    if summary.get("kind") != kind:
        raise ConfigError(
            f"a run of mlmm {kind} in {path}",
            f"one of mlmm {summary.get('kind', 'run')}",
            "give the directory of that run, or choose another --out",
        )
    other = differences(summary.get("settings", {}), settings)
    if other:
        raise ConfigError(
            "the settings with which the run began",
            "; ".join(other),
            "set them back, or choose another --out for a new run",
        )


def _plain(value: Any) -> Any:
    """A value as JSON holds it, numbers rounded; long arrays as their checksum."""
    if isinstance(value, np.ndarray):
        import hashlib

        text = np.array2string(np.round(value, 7) + 0.0, threshold=10**9)
        return text if len(text) < _TEXT else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _moving(surface: ReactionSurface) -> dict[str, Any]:
    indices = range(len(surface)) if surface.indices is None else surface.indices
    return {"atoms": len(surface), "indices": [int(i) for i in indices], "free": surface.free}


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = versions()
    for package in ("ase", "sella", "tblite"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_structure(path: Path, surface: ReactionSurface, positions: np.ndarray | None = None) -> None:
    """Write the whole system as PDB, B-factor 1 for the atoms that move."""
    import mdtraj

    if surface.built is None:
        return
    topology = mdtraj.Topology.from_openmm(surface.built.topology)
    where = surface.whole_positions(surface.positions if positions is None else positions)
    moving = np.zeros(len(where))
    moving[surface.indices] = 1.0
    mdtraj.Trajectory(where[None], topology).save_pdb(str(path), bfactors=moving)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Replace a file of arrays in one move."""
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(buffer, **plain)
    write_whole(path, buffer.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file; nothing that could run code is read (ConfigError where it is damaged)."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # damaged archives raise many kinds
        raise ConfigError(
            f"a readable {path.name} in {path.parent}",
            str(error) or type(error).__name__,
            "put it back from a copy, or run anew with another --out",
        ) from error
