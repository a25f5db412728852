"""Progress on standard error: bars and spinners by rich on a terminal, plain lines everywhere else."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import rich.progress

    from mlmm.dynamics.progress import Progress

__all__ = ["LogHandler", "ProgressLine", "Stages", "say"]

_LONG = 2.0  # s; shorter stages are not timed
_EVERY = 10.0  # s between the lines of one stage where nothing can be rewritten
_REDRAWN = 0.1  # s between two drawings of a bar


def say(text: str) -> None:
    """Print that something begins; a text of several lines, such as a table, as it is."""
    print(text if "\n" in text else f"  {text} …", file=sys.stderr, flush=True)


class Stages:
    """Name the stages of a build or a calibration as they begin.

    On a terminal the current stage has a spinner and a clock. Elsewhere each stage is a line.

    Parameters
    ----------
    timed : bool
        Print how long a stage took if it was long.
    """

    def __init__(self, timed: bool = True):
        self._timed, self._stage, self._started = timed, "", 0.0
        self._live = _live("spinner", "text", "clock", transient=True, refresh_per_second=4)

    def __enter__(self) -> Stages:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._live:
            self._live.stop()

    def show(self, stage: str) -> None:
        """Begin a stage; the one before is over."""
        self._end()
        say(stage)
        if self._live and "\n" not in stage:
            self._live.add_task(stage)
        self._stage, self._started = stage, time.monotonic()

    def _end(self) -> None:
        seconds = time.monotonic() - self._started
        if self._live:
            for task in self._live.task_ids:
                self._live.remove_task(task)
        if self._stage and self._timed and seconds > _LONG:
            print(f"  {self._stage} took {seconds:.1f} s", file=sys.stderr, flush=True)
        self._stage = ""


class ProgressLine:
    """Show how far a run is: a bar for each stage on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        # No thread of its own: it is drawn when the run reports, between steps.
        self._live = _live("text", "bar", "facts", auto_refresh=False)
        self._stage, self._printed = "", 0.0

    def __enter__(self) -> ProgressLine:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show where the run is."""
        now = time.monotonic()
        new_stage = progress.stage != self._stage
        if self._live:
            if new_stage:
                self._live.add_task(progress.stage, facts="")
            total = progress.total or None
            task = self._live.task_ids[-1]
            # Between two looks of a fast run there are milliseconds.
            drawn = new_stage or now - self._printed >= _REDRAWN or progress.done == progress.total
            self._live.update(
                task, completed=progress.done, total=total, facts=_facts(progress), refresh=drawn
            )
            self._printed = now if drawn else self._printed
        elif new_stage or now - self._printed >= _EVERY or progress.done == progress.total:
            print(f"  {progress.stage:<12} {_facts(progress)}", file=sys.stderr, flush=True)
            self._printed = now
        self._stage = progress.stage


class LogHandler(logging.StreamHandler):
    """Print log records to what standard error is at the moment, so that a bar does not run into them."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Standard error, which rich replaces while it draws."""
        return sys.stderr


def _facts(progress: Progress) -> str:
    """Stages, energy, speed and time left, as far as they are known."""
    parts = [f"{progress.done}" + (f"/{progress.total}" if progress.total else "")]
    if progress.energy is not None:
        parts.append(f"{progress.energy:.0f} kJ/mol")
    if progress.ns_per_day:
        parts.append(f"{progress.ns_per_day:.3g} ns/day")
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


def _live(*columns: str, **options: Any) -> rich.progress.Progress | None:
    """Return a display with these columns; None where standard error is no terminal that can be rewritten."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    known = {
        "spinner": SpinnerColumn(),
        "text": TextColumn("  {task.description:<12}", markup=False),
        "bar": BarColumn(bar_width=24),
        "facts": TextColumn("{task.fields[facts]}", markup=False),
        "clock": TimeElapsedColumn(),
    }
    return Progress(*(known[name] for name in columns), console=console, redirect_stdout=False, **options)
