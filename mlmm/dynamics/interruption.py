"""Stopping a run: signals ask for it, the loop over steps ends at the next chance."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StopRequest"]

logger = logging.getLogger(__name__)


class StopRequest:
    """Whether a run should stop, and why.

    Parameters
    ----------
    number : int, optional
        Of the signal that asked for it.
    reason : str, optional
        Of the run itself: a limit on the uncertainty.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.number is not None or self.reason is not None

    def pass_on(self) -> None:
        """Do what the signal would have done, once the run is saved; nothing without a signal.

        A loop over runs, or a notebook, has to end as well.

        Raises
        ------
        KeyboardInterrupt
            After SIGINT.
        SystemExit
            After SIGTERM, with the status 143, unless the program handles that signal itself.
        """
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number == signal.SIGTERM:
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                raise SystemExit(128 + signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    def __str__(self) -> str:
        if self.number is not None:
            return f"signal {signal.Signals(self.number).name}"
        return f"uncertainty: {self.reason}"

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM ask for a stop, while this lasts; a second one ends the process at once.

        Does nothing outside the main thread, where Python takes no signal handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: object) -> None:
            self.number = number
            signal.signal(number, previous[signal.Signals(number)])
            logger.info("signal %d: stopping after these steps", number)

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
