"""A run goes on only if its files hold what the checkpoint counts on."""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest
from runs import CrashError, crash_at, results, run_in

from mlmm.dynamics.checksums import GrowingChecksums
from mlmm.dynamics.resuming import check_files
from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.errors import ConfigError


@pytest.fixture
def crashed(tmp_path):
    with pytest.raises(CrashError):
        run_in(tmp_path / "run", progress=crash_at("produce", 60))
    return RunDirectory(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "keep", "found"),
    [
        ("energies.csv", 0.8, r"last good row of which is step \d+ of produce"),
        ("energies.csv", 300, ", no row"),
        ("trajectory.dcd", 400, "last good frame of which is number 1 of 5"),
        ("trajectory.dcd", 0.7, "last good frame of which is number 2 of 5"),
        ("trajectory.dcd", None, "got no such file"),
        ("energies.csv", None, "got no such file"),
    ],
)
def test_a_file_shorter_than_at_the_checkpoint_is_refused(tmp_path, crashed, name, keep, found):
    path, size = crashed.file(name), crashed.read_checkpoint().sizes[name]
    content = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(content[: int(keep * size) if isinstance(keep, float) else keep])
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(ConfigError, match=found) as refused:
        run_in(crashed.path, resume=True)
    assert f"with the {size} bytes" in str(refused.value)
    # Nothing was padded or made, and once the file is back the run goes on.
    assert (path.read_bytes() if path.exists() else None) == left
    path.write_bytes(content)
    assert results(run_in(crashed.path, resume=True)) == results(run_in(tmp_path / "whole"))


@pytest.mark.parametrize(("name", "place"), [("energies.csv", 0.5), ("trajectory.dcd", 0.9)])
def test_a_file_with_a_flipped_bit_is_refused(tmp_path, crashed, name, place):
    path = crashed.file(name)
    content = path.read_bytes()
    at = int(place * crashed.read_checkpoint().sizes[name])
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ConfigError, match=f"{name} as it was at the checkpoint.*nothing was changed"):
        run_in(crashed.path, resume=True)
    path.write_bytes(content)
    assert results(run_in(crashed.path, resume=True)) == results(run_in(tmp_path / "whole"))


def test_checksums_grow_as_they_would_from_the_start(tmp_path):
    """Piece by piece as in one go; the header that counts the frames is left out."""
    path = tmp_path / "trajectory.dcd"
    content = np.random.default_rng(1).bytes(2000)
    growing = GrowingChecksums(tmp_path)
    for size in (276, 900, 901, 2000):
        path.write_bytes(np.random.default_rng(size).bytes(276) + content[276:size])
        found = growing.up_to({path.name: size, "missing": 3})
    assert found == {path.name: zlib.crc32(content[276:])}
    assert found == GrowingChecksums(tmp_path).up_to({path.name: 2000})
    assert found != GrowingChecksums(tmp_path).up_to({path.name: 1999})


def test_frames_of_lambda_are_counted_too(tmp_path):
    whole = np.arange(40, dtype="<f4").reshape(5, 8)
    np.save(tmp_path / "lambda.npy", whole)
    size = (tmp_path / "lambda.npy").stat().st_size
    checkpoint = Checkpoint(0, 0, "", b"", {"lambda.npy": size}, 5, {})
    check_files(RunDirectory(tmp_path), checkpoint)
    os.truncate(tmp_path / "lambda.npy", size - 2 * 8 * 4 - 1)
    with pytest.raises(ConfigError, match="last good frame of which is number 2 of 5"):
        check_files(RunDirectory(tmp_path), checkpoint)


def test_data_are_on_the_disk_before_a_checkpoint_counts_on_them(tmp_path, monkeypatch):
    """Between two checkpoints every file that grows is synced, then the new one, then that is moved."""
    events = []
    sync, replace = os.fsync, os.replace

    def synced(file):
        events.append(os.readlink(f"/proc/self/fd/{file}").rpartition("/")[2])
        sync(file)

    def replaced(source, target):
        events.append(f"-> {os.path.basename(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    run_in(tmp_path / "run")
    moves = [k for k, event in enumerate(events) if event == "-> checkpoint.zip"]
    assert len(moves) > 3
    for before, move in zip([0, *moves], moves, strict=False):
        assert {"energies.csv", "checkpoint.tmp"} <= set(events[before:move])
        assert events[move + 1] == "run"
    assert "trajectory.dcd" in events[moves[-2] : moves[-1]]
