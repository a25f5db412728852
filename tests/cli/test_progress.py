"""Progress: plain lines where nothing can be rewritten, bars on a terminal, and the same facts on both."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from mlmm.cli import progress as module
from mlmm.cli.progress import ProgressLine, Stages, say
from mlmm.dynamics.progress import Progress

pty = pytest.importorskip("pty")

_RUN = """
import logging, sys
from mlmm.cli.progress import LogHandler, ProgressLine, Stages
from mlmm.dynamics.progress import Progress
logging.getLogger("mlmm").handlers = [LogHandler()]
with Stages() as steps:
    steps.show("solvent")
    steps.show("para[bold]metrise")
with ProgressLine() as line:
    line.show(Progress("minimise", 5, 0, energy=-1234.5))
    line.show(Progress("produce", 500, 2000, 5.25, 61.0))
    logging.getLogger("mlmm").warning("a warning in between")
    line.show(Progress("produce", 2000, 2000, 5.25, 0.0))
print("mlmm: error: plain", file=sys.stderr)
"""
_FACTS = ("5  -1234 kJ/mol", "500/2000  5.25 ns/day  1:01 left", "2000/2000  5.25 ns/day  0:00 left")


def on_terminal(**environment: str) -> str:
    """What the script writes to a pseudo-terminal as its standard error."""
    leader, follower = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    child = subprocess.Popen(
        [sys.executable, "-c", _RUN],
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env=kept | {"TERM": "xterm-256color", "COLUMNS": "120"} | environment,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not block:
            break
        written += block
    os.close(leader)
    assert child.wait() == 0
    return written.decode()


def test_lines_without_a_terminal(capsys, monkeypatch):
    """The first report of a stage, one every ten seconds, and the last."""
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with ProgressLine() as line:
        line.show(Progress("minimise", 5, 0, energy=-1234.5))
        line.show(Progress("produce", 500, 2000, 5.25, 61.0))
        line.show(Progress("produce", 600, 2000, 5.25, 58.0))
        clock[0] += 11.0
        line.show(Progress("produce", 700, 2000, 5.25, 55.0))
        line.show(Progress("produce", 2000, 2000, 5.25, 0.0))
    assert capsys.readouterr().err.splitlines() == [
        "  minimise     5  -1234 kJ/mol",
        "  produce      500/2000  5.25 ns/day  1:01 left",
        "  produce      700/2000  5.25 ns/day  0:55 left",
        "  produce      2000/2000  5.25 ns/day  0:00 left",
    ]


def test_steps_without_a_terminal(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    for timed in (True, False):
        with Stages(timed) as steps:
            steps.show("read")
            clock[0] += 1.0
            steps.show("solvent")
            clock[0] += 3.25
        expected = ["  read …", "  solvent …", "  solvent took 3.2 s"]
        assert capsys.readouterr().err.splitlines() == expected[: 3 if timed else 2]
    say("a table\nof two lines")
    assert capsys.readouterr().err == "a table\nof two lines\n"


def test_bars_on_a_terminal():
    written = on_terminal()
    assert "\x1b[" in written and "━" in written
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    for fact in (*_FACTS, "solvent …", "para[bold]metrise …", "a warning in between", "mlmm: error: plain"):
        assert fact in text, fact
    # The cursor is there again, and the error that follows has no colour.
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert written.endswith("\x1b[?25hmlmm: error: plain\r\n")


def test_no_colour_where_none_is_wanted():
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9](;[0-9]+)*m")
    assert coloured.search(on_terminal())
    written = on_terminal(NO_COLOR="1")
    assert not coloured.search(written) and "━" in written


def test_lines_on_a_dumb_terminal():
    written = on_terminal(TERM="dumb")
    assert "\x1b" not in written and "━" not in written
    for fact in _FACTS:
        assert fact in written


def test_help_does_not_load_rich():
    code = "import sys, mlmm.cli; print('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
