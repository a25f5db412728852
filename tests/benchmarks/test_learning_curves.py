"""The program that measures learning curves: its rows are valid trainings, one is run, tables and figures."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from labelled_molecules import shaken, springs

from benchmarks import learning_curves, outside_frames
from mlmm.learning.dataset.frames import frame_text
from mlmm.reference.labels import Molecule


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


def test_intervals_are_measured_elsewhere_as_on_the_test():
    """On the test itself the numbers are those of the row; far away the errors are larger."""
    pool, test, far = (
        [(molecule, springs(molecule)) for molecule in shaken(count, seed, size)]
        for count, seed, size in ((60, 1, 0.004), (20, 2, 0.004), (20, 3, 0.012))
    )
    row = learning_curves.one("GP, symmetry functions", pool, test, 60, 0, {"test": test, "far": far})
    found, elsewhere = row["outside"]["test"], row["outside"]["far"]
    assert (found["energy"], found["force"]) == pytest.approx((row["energy"], row["force"]), rel=1e-9)
    for key in ("coverage68", "coverage95"):
        assert found[key] == pytest.approx(row["calibration"][key], abs=1e-12)
    assert elsewhere["force"] > 2.0 * found["force"]


def test_structures_unlike_the_others():
    """One hydrogen is 0.2 to 0.4 Å farther out; single bonds of chains turn, those of rings do not."""
    text = "0 0 0  1.52 0 0  2 1.35 0  2.95 1.3 0  -0.4 1 0.1  -0.4 -0.5 0.9"
    text += "  -0.4 -0.5 -0.9  1.9 -0.5 0.9  1.9 -0.5 -0.9"
    x = np.array(text.split(), dtype=float).reshape(-1, 3)
    ethanol = Molecule([6, 6, 8, 1, 1, 1, 1, 1, 1], 0.1 * x)
    moved = outside_frames.stretched(ethanol, np.random.default_rng(0)).positions - ethanol.positions
    far = np.linalg.norm(moved, axis=1)
    assert (far > 0).sum() == 1 and 0.02 <= far.max() <= 0.04 and ethanol.numbers[far.argmax()] == 1
    turning = {(a, b): side.tolist() for a, b, side in outside_frames.single_bonds(ethanol)}
    assert turning == {(0, 1): [1, 2, 3, 7, 8], (1, 2): [2, 3]}
    ring = 0.1 * np.array([[0, 0, 0], [1.5, 0, 0], [0.75, 1.3, 0]])
    assert outside_frames.single_bonds(Molecule([6, 6, 6], ring)) == []
