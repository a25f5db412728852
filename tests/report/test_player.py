"""Frames that the page plays: the coordinates of the run, the nearest waters, a bounded size."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from frames import make_run, make_topology, start_positions

from mlmm.report import write_report
from mlmm.report.player import packed_frames
from mlmm.report.record import read_record


def _unpacked(played: dict, n_atoms: int) -> np.ndarray:
    """Coordinates (F, K, 3) in Å, as the page decodes them."""
    numbers = np.frombuffer(base64.b64decode(played["xyz"]), "<i2").reshape(-1, n_atoms, 3)
    return np.array(played["centre"]) + played["step"] * numbers


def _view(folder) -> dict:
    text = write_report(folder).read_text()
    return json.loads(text.split('id="viewer-data">')[1].split("</script>")[0])


def _wandering(count: int) -> np.ndarray:
    """Frames with noise, in which the last water comes to the ligand and the first one leaves."""
    start = start_positions(make_topology())
    frames = start + np.random.default_rng(1).normal(scale=0.002, size=(count, *start.shape))
    for k in range(count):
        share = k / max(count - 1, 1)
        frames[k, 33:36] += share * np.array([0.0, 0.0, 3.0])
        frames[k, -3:] += share * (start[33] - start[-3])
    return frames


def test_played_coordinates_are_those_of_the_frames(tmp_path):
    """Laid on the start, to the resolution of the packing, in the order of the atoms of the view."""
    frames = _wandering(5)
    make_run(tmp_path, frames)
    record = read_record(tmp_path)
    kept = np.array([0, 1, 2, 30, 31, 32])
    played = packed_frames(record.frames, kept, [30, 31, 32])
    found = _unpacked(played, len(kept))
    expected = [10 * record.frames.superposition.place(frame, None)[kept] for frame in frames]
    assert np.abs(found - expected).max() <= 0.51 * played["step"] + 1e-3 and played["step"] <= 0.006
    assert played["times"] == pytest.approx([0.51, 0.52, 0.53, 0.54, 0.55]) and played["of"] == 5
    assert packed_frames(None, kept, []) is None


def test_waters_that_are_drawn_are_the_nearest(tmp_path):
    """Each frame fills the places for waters with the nearest; those that stay keep their place."""
    frames = _wandering(6)
    make_run(tmp_path, frames)
    record = read_record(tmp_path)
    kept = np.arange(30, 42)  # the ligand and three waters
    found = _unpacked(packed_frames(record.frames, kept, [30, 31, 32]), len(kept))
    oxygens = np.arange(33, len(frames[0]), 3)
    for k, frame in enumerate(frames):
        placed = 10 * record.frames.superposition.place(frame, None)
        distance = np.linalg.norm(placed[oxygens, None] - placed[None, 30:33], axis=2).min(axis=1)
        nearest = placed[oxygens[np.argsort(distance)[:3]]]
        shown = found[k, 3::3]
        np.testing.assert_allclose(np.sort(shown[:, 2]), np.sort(nearest[:, 2]), atol=0.01)
    # One water has changed; the other two are in the same places all along.
    jumps = np.linalg.norm(np.diff(found[:, 3::3], axis=0), axis=2).max(axis=0)
    assert (jumps > 2.0).sum() <= 1 and (jumps < 1.0).sum() >= 1


def test_lambda_of_a_moving_zone_is_played(tmp_path):
    frames = np.repeat(start_positions(make_topology())[None], 4, axis=0)
    make_run(tmp_path, frames)
    weights = np.zeros((4, len(frames[0])), dtype=np.float32)
    weights[:, 30:33], weights[2, 33:36] = 1.0, 0.5
    np.save(tmp_path / "lambda.npy", weights)
    played = packed_frames(read_record(tmp_path).frames, np.arange(30, 36), [30, 31, 32])
    found = np.frombuffer(base64.b64decode(played["weights"]), np.uint8).reshape(4, 6)
    assert found[:, :3].min() == 255 and found[2, 3:].tolist() == [128] * 3 and found[0, 3:].max() == 0


def test_many_frames_stay_small(tmp_path):
    """As many as can be looked at, the first and the last among them."""
    start = start_positions(make_topology())
    make_run(tmp_path, np.repeat(start[None], 1000, axis=0))
    view = _view(tmp_path)
    assert len(view["played"]["numbers"]) == 120
    assert view["played"]["numbers"][0] == 1 and view["played"]["numbers"][-1] == 1000
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_packing_is_bounded_for_a_large_view(tmp_path, monkeypatch):
    """Fewer frames of more atoms; atoms that flew away do not coarsen the rest beyond 0.02 Å."""
    frames = _wandering(50)
    frames[10, 0] += 1e4
    make_run(tmp_path, frames)
    monkeypatch.setattr("mlmm.report.player._BYTES", 6 * 69 * 20)
    played = packed_frames(read_record(tmp_path).frames, np.arange(69), [30, 31, 32])
    assert len(played["numbers"]) == 20 and len(base64.b64decode(played["xyz"])) <= 6 * 69 * 20
    assert played["step"] < 0.02


def test_a_run_that_was_killed_shows_its_last_frame(tmp_path):
    """final.pdb is that of an earlier stage; that of a finished run is the end."""
    frames = _wandering(3)
    frames[:, 30:33] += [0.0, 0.05, 0.0]
    run = make_run(tmp_path, frames, state="running")
    (tmp_path / "final.pdb").write_text((tmp_path / "topology.pdb").read_text())
    assert _view(tmp_path)["source"] == "the last frame of the trajectory"
    (tmp_path / "run.json").write_text(json.dumps(run | {"state": "finished"}))
    view = _view(tmp_path)
    assert view["source"] == "the last frame" and len(view["played"]["numbers"]) == 3


def test_one_frame_is_nothing_to_play(tmp_path):
    make_run(tmp_path, _wandering(1))
    assert _view(tmp_path)["played"] is None
    make_run(tmp_path, None)
    (tmp_path / "trajectory.dcd").unlink()
    assert _view(tmp_path)["played"] is None
