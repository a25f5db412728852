"""The neighbour search of the numpy side finds what a table of all distances shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlmm.neighbours import closest_pair, has_neighbour, minimum_images, nearest, pairs_within
from mlmm.structures import minimum_image

CELLS = {
    "open": None,
    "cube": np.diag([2.0, 2.0, 2.0]),
    "brick": np.diag([1.7, 2.4, 3.1]),
    "leaning": np.array([[2.4, 0.0, 0.0], [0.7, 2.2, 0.0], [-0.6, 0.9, 2.1]]),
}


def two_sets(seed=5):
    generator = np.random.default_rng(seed)
    return generator.uniform(-2, 3, (60, 3)), generator.uniform(-1, 4, (80, 3))


def table(points, others, cell):
    """All distances by the minimum image of the torch side."""
    separation = torch.tensor(others[None] - points[:, None])
    return minimum_image(separation, None if cell is None else torch.tensor(cell)).norm(dim=2).numpy()


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_pairs_are_those_of_all_distances(cell):
    points, others = two_sets()
    distances = table(points, others, cell)
    for cutoff in (0.3, 0.6, 0.8) if cell is not None else (0.3, 0.9, 2.5, 20.0):
        expected = np.argwhere(distances <= cutoff)
        assert len(expected) > 10 or cutoff == 0.3
        np.testing.assert_array_equal(pairs_within(points, others, cutoff, cell), expected)
    vectors = minimum_images(others[None] - points[:, None], cell)
    np.testing.assert_allclose(np.sqrt((vectors**2).sum(axis=2)), distances, rtol=1e-14)


def test_beyond_half_of_a_cell_each_pair_is_found_once():
    """The nearest image of each other counts, as for the torch side."""
    points, others = two_sets(1)
    cell = CELLS["brick"]
    for cutoff in (1.2, 2.0, 5.0):
        expected = np.argwhere(table(points, others, cell) <= cutoff)
        np.testing.assert_array_equal(pairs_within(points, others, cutoff, cell), expected)


def test_a_few_points_in_a_corner_see_across_the_faces():
    cell = CELLS["leaning"]
    points = np.array([[0.01, 0.01, 0.01]])
    _, others = two_sets(2)
    expected = np.argwhere(table(points, others, cell) <= 0.9)
    assert len(expected) > 5
    np.testing.assert_array_equal(pairs_within(points, others, 0.9, cell), expected)


def test_nearest_and_closest():
    points, others = two_sets(3)
    distances = table(points, others, None)
    found, index = nearest(points, others)
    np.testing.assert_array_equal(index, distances.argmin(axis=1))
    np.testing.assert_allclose(found, distances.min(axis=1), rtol=1e-14)
    np.testing.assert_array_equal(has_neighbour(points, others, 0.5), (distances <= 0.5).any(axis=1))
    own = table(points, points, None)
    np.fill_diagonal(own, np.inf)
    assert closest_pair(points)[:2] == np.unravel_index(own.argmin(), own.shape)
    assert closest_pair(np.vstack([points, points[7:8], points[7:8]]))[2] == 0.0


def test_nothing_and_not_a_number():
    """Empty sets have no pairs; a broken point has no neighbours and takes none from the others."""
    points, others = two_sets(4)
    assert len(pairs_within(points, others[:0], 1.0)) == len(pairs_within(points, others, 0.0)) == 0
    for cell in CELLS.values():
        whole = pairs_within(points, others, 0.6, cell)
        points[3, 1] = np.nan
        broken = pairs_within(points, others, 0.6, cell)
        np.testing.assert_array_equal(broken, whole[whole[:, 0] != 3])
        assert len(pairs_within(np.full((2, 3), np.nan), others, 0.6, cell)) == 0
        points, others = two_sets(4)
