"""`mlmm train` among point charges, killed within an epoch: the same command ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_field_training import labelled, teacher

from mlmm.learning.dataset.store import Dataset

_VERB = "import sys; from mlmm.cli import main; sys.exit(main(sys.argv[1:]))"


def started(file: Path, folder: Path, seed: int = 0) -> subprocess.Popen:
    """`mlmm train` as a process of one thread."""
    command = [sys.executable, "-c", _VERB, "train", str(file), "--out", str(folder)]
    command += ["--set", f"fit.seed={seed}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def epochs_written(state: Path, count: int) -> None:
    """Wait until the state of the fit was written so often."""
    seen: set[tuple[int, int]] = set()
    deadline = time.monotonic() + 120
    while len(seen) < count:
        assert time.monotonic() < deadline
        if state.exists():
            seen.add((state.stat().st_ino, state.stat().st_mtime_ns))
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "epochs"), [("qeq-ani", 30), ("amp-bms", 12)])
def test_killed_in_an_epoch(kind, epochs, tmp_path):
    """SIGKILL, twice in one training; control: another seed gives other weights."""
    Dataset.create(tmp_path / "set", "another potential").append(labelled(teacher(), 24))
    file = tmp_path / "train.toml"
    text = f'[data]\nlabels = "set"\nheld_out = 0.0\n[model]\nkind = "{kind}"\ntrained_on = "total"\n'
    file.write_text(f"{text}[fit]\nepochs = {epochs}\nbatch = 4\nlearning_rate = 1e-3\n", encoding="utf-8")
    killed, state = tmp_path / "killed", tmp_path / "killed/fit.safetensors"
    for pause in (0.03, 0.07):
        process = started(file, killed)
        epochs_written(state, 3)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not (killed / "report.json").exists()
        process.stderr.close()
    for folder, seed in ((killed, 0), (tmp_path / "whole", 0), (tmp_path / "other", 1)):
        process = started(file, folder, seed)
        assert process.communicate()[1] is not None and process.returncode == 0
    again, whole, other = (
        load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole", "other")
    )
    assert set(again) == set(whole)
    assert all(np.array_equal(again[name], whole[name]) for name in whole)
    assert any(not np.array_equal(other[name], whole[name]) for name in whole)
