"""Files that are there whole or not at all."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest

from mlmm.whole_files import write_json, write_whole


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "first, ä")
    write_whole(path, b"\x00second")
    assert path.read_bytes() == b"\x00second" and list(tmp_path.iterdir()) == [path]
    write_json(path, {"a": 1})
    assert path.read_text() == '{\n "a": 1\n}\n'


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": math.nan})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_json(path, {"a": math.nan}, nan=True)
    assert "NaN" in path.read_text()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_leaves_the_old_file(tmp_path, call):
    """SIGKILL before the content is on the disk, and before the move; the next writer is not disturbed."""
    path = tmp_path / "file"
    write_whole(path, "old")
    program = (
        f"import os, signal\nfrom mlmm.whole_files import write_whole\n"
        f"os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nwrite_whole({str(path)!r}, 'new')"
    )
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ)
    assert ended.returncode == -signal.SIGKILL and path.read_text() == "old"
    write_whole(path, "newer")
    assert path.read_text() == "newer"
