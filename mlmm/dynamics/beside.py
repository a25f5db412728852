"""Work on the processor beside a run on a GPU: calls one after the other, and their results in that order."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["Beside", "quick_switches"]

T = TypeVar("T")
_SWITCH = 1e-4


class Beside(Generic[T]):
    """Calls in a thread of their own; what is done with each result happens in the thread that asks.

    OpenMM's steps and the plugin's evaluations hold no lock of Python's, so that both go on at a time.

    Parameters
    ----------
    in_thread : bool
        Otherwise each call is made at once, and so is what is done with its result.
    most : int
        Calls that may wait; a further one waits for the oldest of them, so that no more memory is held.
    """

    def __init__(self, in_thread: bool = True, most: int = 8):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="beside") if in_thread else None
        self._waiting: deque[tuple[Future[T], Callable[[T], None]]] = deque()
        self._most = most

    def submit(self, call: Callable[[], T], then: Callable[[T], None]) -> None:
        """Make a call, and hand its result on once it is there and those before it were handed on.

        Raises
        ------
        Exception
            Whatever an earlier call, or what was done with its result, has raised; those after it are lost.
        """
        if self._pool is None:
            then(call())
            return
        self._waiting.append((self._pool.submit(call), then))
        self.catch_up()

    def catch_up(self) -> None:
        """Hand on the results that are there; raises as `submit`."""
        while self._waiting and (self._waiting[0][0].done() or len(self._waiting) > self._most):
            self._hand_on()

    def finish(self) -> None:
        """Wait for all calls; raises as `submit`."""
        while self._waiting:
            self._hand_on()

    def close(self) -> None:
        """End the thread; what was not handed on is lost."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _hand_on(self) -> None:
        future, then = self._waiting.popleft()
        try:
            then(future.result())
        except Exception:
            # Nothing is handed on with a gap before it.
            self._waiting.clear()
            raise


@contextmanager
def quick_switches() -> Iterator[None]:
    """Python's lock changes hands after 0.1 ms here, instead of 5 ms.

    A thread that comes back from OpenMM waits that long for the lock where another one calculates in Python:
    a step of 5 ms and four short calls took 31 ms beside such a thread, 6.7 ms with 0.1 ms, 5.8 ms alone.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
