"""Tasks for tests of executors; in a file of its own, since worker processes import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    return number * number


def sum_of(numbers: tuple[int, ...]) -> int:
    return sum(numbers)


def die(task: tuple[str, int, int]) -> int:
    """Kill the own process in the first `deaths` of all tries of a task; they are counted in a folder."""
    folder, number, deaths = task
    mark = Path(folder) / f"{number}.{len(list(Path(folder).glob(f'{number}.*')))}"
    mark.touch()
    if len(list(Path(folder).glob(f"{number}.*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_for(path: str) -> str:
    """Announce the own process, then wait until a file is there."""
    Path(f"{path}.{os.getpid()}").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return path


def surroundings(_: int) -> tuple[str, str, int]:
    time.sleep(0.2)  # so that each worker gets one
    return os.environ.get("OMP_NUM_THREADS", ""), os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getpid()


class OddError(Exception):
    """Cannot be made from its own arguments."""

    def __init__(self, first: str, second: str):
        super().__init__(first + second)


def fail(number: int) -> int:
    if number == 1:
        raise ValueError("one is not allowed")
    if number == 2:
        raise OddError("cannot be ", "sent")
    return number
