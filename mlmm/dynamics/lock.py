"""One process at a time in a run directory: a lock that ends with the process that holds it."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlmm.errors import ConfigError

if sys.platform != "win32":  # no flock there
    import fcntl

__all__ = ["LOCK", "check_unlocked", "locked"]

logger = logging.getLogger(__name__)
#: Name of the file in the run directory; it says who holds it, and is gone after the run.
LOCK = "lock.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process, and every other run of this one, out of a run directory while this lasts.

    The operating system drops the lock with the process, however that ends: what a killed run leaves behind
    is a file that locks nothing.

    Parameters
    ----------
    folder : Path
        It has to exist.

    Raises
    ------
    ConfigError
        Another run holds the lock; the message names its process.
    """
    file = _opened(folder)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(holder).encode(), 0)
        yield
    finally:
        # Gone before the lock is: whoever opened it meanwhile sees that the folder no longer has it.
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        os.close(file)


def check_unlocked(folder: Path) -> None:
    """Raise what `locked` raises, without taking the lock; a folder without a lock file stays as it is."""
    if not (folder / LOCK).exists():
        return
    file = os.open(folder / LOCK, os.O_RDONLY)
    try:
        _take(file, folder)
    finally:
        os.close(file)


def _opened(folder: Path) -> int:
    """The lock file, open and locked."""
    path = folder / LOCK
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(file, folder)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
        except BaseException:
            os.close(file)
            raise
        # The run that held it has ended and removed it in between.
        os.close(file)


def _take(file: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            "a run directory that no other process is writing to",
            f"{folder}, in use by {_holder(file)}",
            "wait until that run has ended or stop it, or choose another --out",
        ) from None
    except OSError as error:
        # Some network file systems know no locks.
        logger.warning(
            "%s cannot be locked (%s): see to it that only one process at a time runs there",
            folder,
            error.strerror,
        )


def _holder(file: int) -> str:
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
