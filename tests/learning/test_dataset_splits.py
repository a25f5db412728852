"""Splits by block: no block on two sides, the same every time, and a leak is refused."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_pairs import METHOD, labelled_pairs

from mlmm.errors import ConfigError
from mlmm.learning.dataset.splits import (
    SIDES,
    block_names,
    check_split,
    read_split,
    split_dataset,
)
from mlmm.learning.dataset.store import Dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """120 frames of 12 windows."""
    made = Dataset.create(tmp_path_factory.mktemp("splits") / "set", METHOD)
    made.append(labelled_pairs(120, charges=0, windows=12))
    return made


def test_blocks_stay_together_and_all_are_used(dataset):
    split = split_dataset(dataset, 0.25, 0.25, seed=3)
    sides = {side: set(getattr(split, side).tolist()) for side in SIDES}
    assert sorted(len(part) for part in sides.values()) == [30, 30, 60]
    assert set.union(*sides.values()) == set(range(120))
    windows = {side: {dataset.origins[k]["window"] for k in part} for side, part in sides.items()}
    for one in SIDES:
        assert all(not windows[one] & windows[other] for other in SIDES if other != one)
    check_split(dataset, sides)


def test_seed_decides(dataset):
    first = split_dataset(dataset, 0.2, 0.2, seed=1)
    assert np.array_equal(first.test, split_dataset(dataset, 0.2, 0.2, seed=1).test)
    others = [split_dataset(dataset, 0.2, 0.2, seed=seed).test for seed in range(2, 6)]
    assert any(not np.array_equal(first.test, other) for other in others)


def test_frames_of_a_block():
    origins = [{"run": "a", "frame": str(k)} for k in range(10)]
    assert len(set(block_names(origins))) == 1
    names = block_names(origins, frames=4)
    assert [names.index(name) for name in names] == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    # Drawn one by one: each by itself.
    assert len(set(block_names([{}, {"frame": "1"}, {}]))) == 3
    with pytest.raises(ConfigError, match="the number of the frame of structure 0"):
        block_names([{"run": "a", "frame": "x"}], frames=4)


def test_leaks_are_refused(dataset):
    """Frames 0 and 12 are of window 0."""
    with pytest.raises(
        ConfigError, match=r"structure 0 in train and 12 in test, both of run runs/a window 0"
    ):
        check_split(dataset, {"train": range(12), "test": [12]})
    check_split(dataset, {"train": [0, 12], "test": [1, 13]})
    with pytest.raises(ConfigError, match="indices of the 120 structures"):
        check_split(dataset, {"train": [120]})


def test_saved_and_read(dataset, tmp_path):
    split = split_dataset(dataset, 0.2, 0.1, seed=5, frames=60)
    split.save(tmp_path / "split.json")
    again = read_split(dataset, tmp_path / "split.json")
    for side in SIDES:
        assert np.array_equal(getattr(split, side), getattr(again, side))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="a split in"):
        read_split(dataset, tmp_path / "bad.json")


def test_growing_set_keeps_its_sides(tmp_path):
    made = Dataset.create(tmp_path / "set", METHOD)
    made.append(labelled_pairs(60, charges=0, windows=12)[:40])
    first = split_dataset(made, 0.2, 0.2, seed=1, frames=20)
    first.save(tmp_path / "split.json")
    made.append(labelled_pairs(200, charges=0, windows=12))
    second = split_dataset(made, 0.2, 0.2, seed=1, frames=20, earlier=first)
    for side in SIDES:
        assert set(getattr(first, side)) <= set(getattr(second, side))
    assert len(second.test) > len(first.test)
    with pytest.raises(ConfigError, match="Split anew with the earlier split"):
        read_split(made, tmp_path / "split.json")
    with pytest.raises(ConfigError, match="the blocks of the earlier split, 20 frames"):
        split_dataset(made, earlier=first)


def test_too_few_blocks_and_impossible_shares(tmp_path):
    made = Dataset.create(tmp_path / "set", METHOD)
    made.append(labelled_pairs(20, charges=0))
    with pytest.raises(ConfigError, match=r"3 blocks or more .* but got 1 block"):
        split_dataset(made)
    assert len(split_dataset(made, frames=4).test) == 4
    with pytest.raises(ConfigError, match="leave a training set"):
        split_dataset(made, 0.5, 0.5)
