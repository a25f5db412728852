"""The program that measures learning curves: its rows are valid trainings, one is run, tables and figures."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from labelled_molecules import shaken, springs

from benchmarks import learning_curves
from mlmm.learning.dataset.frames import frame_text


@pytest.mark.parametrize("name", learning_curves.MODELS)
def test_rows_are_valid_trainings(name):
    assert learning_curves.training(name, 3).fit.seed == 3


def test_a_curve_is_measured_goes_on_and_is_drawn(tmp_path, monkeypatch, capsys):
    """More labels give smaller errors; what was measured is not fitted again."""
    for name, count, seed in (("pool", 60, 1), ("test", 60, 2)):
        frames = [frame_text(molecule, springs(molecule), side=False) for molecule in shaken(count, seed)]
        (tmp_path / f"{name}.xyz").write_bytes(b"".join(frames))
    arguments = ["learning_curves", str(tmp_path / "pool.xyz"), str(tmp_path / "test.xyz")]
    arguments += [str(tmp_path / "results.jsonl"), "--models", "sGDML", "--labels", "12,50"]
    monkeypatch.setattr(sys, "argv", arguments)
    learning_curves.main()
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["labels"] for row in rows] == [12, 50] and rows[1]["force"] < 0.5 * rows[0]["force"]
    monkeypatch.setattr(learning_curves, "one", lambda *_: pytest.fail("fitted again"))
    monkeypatch.setattr(sys, "argv", [*arguments, "--plot", str(tmp_path / "curve.png")])
    learning_curves.main()
    assert f"{rows[1]['energy']:.2f} / {rows[1]['force']:.2f}" in capsys.readouterr().out
    import matplotlib.image

    picture = matplotlib.image.imread(tmp_path / "curve.png")
    assert picture.shape[0] > 300 and np.unique(picture.reshape(-1, picture.shape[2]), axis=0).shape[0] > 20
