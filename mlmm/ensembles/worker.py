"""A worker process, started by `mlmm.ensembles.local_processes`.

It gets pickled functions and tasks through a socket and answers each with a result or an exception.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

__all__ = ["answer_to", "main"]


def main(descriptor: int) -> None:
    """Answer until the socket with that file descriptor closes."""
    # Ctrl-C reaches the whole group; the process that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What programs print goes where warnings go: standard output belongs to the parent.
    os.dup2(2, 1)
    connection = Connection(descriptor)
    connection.send("ready")
    function: Any = None
    while True:
        try:
            code, task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if code is not None:
                function = pickle.loads(code)
            task = pickle.loads(task)
        except Exception as error:
            connection.send(("error", _sendable(error), traceback.format_exc()))
            continue
        connection.send(answer_to(function, task))


def answer_to(function: Callable[[Any], Any], task: Any) -> tuple[str, bytes, str]:
    """Call a function: ("result", pickled, "") or ("error", pickled exception, traceback)."""
    try:
        return "result", cloudpickle.dumps(function(task)), ""
    except Exception as error:
        return "error", _sendable(error), traceback.format_exc()


def _sendable(error: Exception) -> bytes:
    """The exception, or its text where it cannot be taken apart and put together again."""
    try:
        content: bytes = cloudpickle.dumps(error)
        pickle.loads(content)
    except Exception:
        content = cloudpickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


def _end_with_parent() -> None:
    """End this process when its standard input closes: the parent is gone, killed perhaps."""
    while os.read(0, 4096):
        pass
    os._exit(1)
