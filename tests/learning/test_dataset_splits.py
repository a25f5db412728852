"""Splits by block: neighbours on one side, whole windows, the same every time."""

from __future__ import annotations

import pytest
from labelled_pairs import labelled_pairs

from mlmm.errors import ConfigError
from mlmm.learning.dataset.splits import block_names, split_by_block
from mlmm.reference.labels import Molecule

#: 120 frames of 12 windows.
PAIRS = labelled_pairs(120, charges=0, windows=12)


def windows(indices):
    return {PAIRS[k][0].origin["window"] for k in indices}


def test_the_last_frames_of_each_window_are_held_out():
    """Control: without an origin the order of the list counts."""
    first, second = split_by_block(PAIRS, 0.2)
    assert sorted(first + second) == list(range(120)) and len(second) == 24
    for window in windows(range(120)):
        inside = [k for k in range(120) if PAIRS[k][0].origin["window"] == window]
        assert [k for k in inside if k in second] == inside[-2:]
    alone = [(Molecule(m.numbers, m.positions), label) for m, label in PAIRS]
    assert split_by_block(alone, 0.2)[1] == list(range(96, 120))


def test_whole_windows_are_on_one_side_and_all_are_used():
    """Control: last frames have every window on both sides."""
    first, second = split_by_block(PAIRS, 0.25, 3, whole=True)
    assert sorted(first + second) == list(range(120)) and len(second) == 30
    assert not windows(first) & windows(second)
    assert windows(split_by_block(PAIRS, 0.25)[1]) == windows(range(120))


def test_seed_decides():
    chosen = [windows(split_by_block(PAIRS, 0.2, seed, whole=True)[1]) for seed in (1, 1, 2, 3, 4)]
    assert chosen[0] == chosen[1] and any(other != chosen[0] for other in chosen[2:])


def test_one_window_cannot_be_held_out_whole():
    """Two can: one is left to train on, however large the share."""
    some = [pair for pair in PAIRS if pair[0].origin["window"] == PAIRS[0][0].origin["window"]]
    with pytest.raises(ConfigError, match="two or more windows"):
        split_by_block(some, 0.2, whole=True)
    two = [pair for pair in PAIRS if pair[0].origin["window"] in sorted(windows(range(120)))[:2]]
    first, second = split_by_block(two, 0.79, whole=True)
    assert len(first) == len(second) == 10


def test_names_of_blocks():
    origins = [{"run": "a", "window": "1", "frame": str(k)} for k in range(10)]
    assert len(set(block_names(origins))) == 1
    names = block_names(origins, frames=4)
    assert [names.index(name) for name in dict.fromkeys(names)] == [0, 4, 8]
    # Structures without a run are drawn one by one.
    assert len(set(block_names([{}, {"frame": "1"}, {}]))) == 3
    with pytest.raises(ConfigError, match="number of the frame"):
        block_names([{"run": "a", "frame": "x"}], frames=4)
