"""Minimum image and neighbour pairs against a search over all images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mlmm.errors import PotentialError
from mlmm.structures import Structure, minimum_image, neighbour_pairs, possible_neighbours

CELLS = {
    "cube": np.diag([2.0, 2.0, 2.0]),
    "brick": np.diag([1.5, 2.0, 3.0]),
    "dodecahedron": 2.0 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),
    "octahedron": 2.0
    * np.array([[1, 0, 0], [1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]]),
    "triclinic": np.array([[2.0, 0, 0], [0.7, 1.9, 0], [-0.9, 0.8, 1.7]]),
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_minimum_image_is_the_shortest_below_half_the_width(cell):
    generator = np.random.default_rng(3)
    vectors = generator.normal(0, 3, (2000, 3))
    images = np.array(list(itertools.product(range(-4, 5), repeat=3))) @ cell
    near = minimum_image(torch.tensor(vectors), torch.tensor(cell)).numpy()
    # Any image of a vector will do as the start of the search over neighbouring cells.
    shortest = np.linalg.norm(near[:, None] + images[None], axis=-1).min(axis=1)
    inside = shortest < np.diag(cell).min() / 2
    assert inside.sum() > 100
    np.testing.assert_allclose(np.linalg.norm(near[inside], axis=1), shortest[inside], atol=1e-12)
    # What was subtracted is a whole number of box vectors.
    steps = (vectors - near) @ np.linalg.inv(cell)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)


@pytest.mark.parametrize("cell", [None, *CELLS.values()], ids=["open", *CELLS])
def test_neighbour_pairs_are_all_pairs_within_the_cutoff(cell):
    positions = torch.tensor(np.random.default_rng(1).uniform(0, 2, (40, 3)))
    box = None if cell is None else torch.tensor(cell)
    first, second, vectors = neighbour_pairs(positions, box, 0.6)
    expected = set()
    for i, j in itertools.permutations(range(40), 2):
        if torch.linalg.norm(minimum_image(positions[j] - positions[i], box)) < 0.6:
            expected.add((i, j))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert len(first) == len(expected) > 50
    assert torch.equal(first, first.sort(stable=True)[0])
    assert torch.allclose(vectors, minimum_image(positions[second] - positions[first], box))


@pytest.mark.parametrize("cell", [None, CELLS["triclinic"]], ids=["open", "triclinic"])
def test_neighbours_of_some_centres_are_those_of_the_full_list(cell):
    positions = torch.tensor(np.random.default_rng(4).uniform(0, 2, (40, 3)))
    box = None if cell is None else torch.tensor(cell)
    first, second, vectors = neighbour_pairs(positions, box, 0.6)
    centres = torch.tensor([31, 2, 17])
    place, neighbour, some = neighbour_pairs(positions, box, 0.6, centres)
    for k, centre in enumerate(centres):
        assert torch.equal(neighbour[place == k], second[first == centre])
        assert torch.equal(some[place == k], vectors[first == centre])


@pytest.mark.parametrize("cell", [None, *CELLS.values()], ids=["open", *CELLS])
@pytest.mark.parametrize("width", [0.05, 0.3, 1.0, 3.0])
def test_a_block_around_the_centres_holds_all_their_neighbours(cell, width):
    """Anywhere in the box, across its faces and in other images; a small cluster leaves most atoms out."""
    generator = np.random.default_rng(int(100 * width))
    box = None if cell is None else torch.tensor(cell)
    shape = np.eye(3) * 2.0 if cell is None else np.asarray(cell)
    for _ in range(20):
        positions = generator.uniform(0, 1, (300, 3)) @ shape
        middle = generator.uniform(-1, 2, 3) @ shape
        positions[::10] = middle + generator.uniform(-width / 2, width / 2, (30, 3))
        if cell is not None:
            positions += generator.integers(-2, 3, (300, 3)) @ shape
        positions = torch.tensor(positions)
        centres = torch.arange(0, 300, 10)
        central = positions[centres]
        distances = minimum_image(positions.unsqueeze(0) - central.unsqueeze(1), box).norm(dim=-1)
        expected = set((distances.min(dim=0).values < 0.4).nonzero().squeeze(1).tolist())
        possible = possible_neighbours(positions, central, box, 0.4)
        assert expected <= set(possible.tolist())
        assert torch.equal(possible, possible.unique())
        first, second, _ = neighbour_pairs(positions, box, 0.4, centres)
        whole = distances.scatter(1, centres.unsqueeze(1), float("inf")) < 0.4
        assert torch.equal(torch.stack([first, second], dim=1), whole.nonzero())
        if width == 0.05:
            assert len(possible) < 0.5 * 300
        if width == 3.0 and cell is not None:
            assert len(possible) == 300


def test_nan_positions_have_no_neighbours():
    positions = torch.zeros(4, 3, dtype=torch.float64)
    positions[1] = float("nan")
    for cell in (None, 3.0 * torch.eye(3, dtype=torch.float64)):
        first, _, _ = neighbour_pairs(
            positions + torch.arange(4.0).unsqueeze(1), cell, 0.5, torch.tensor([1, 2])
        )
        assert len(first) == 0


def test_displacements_carry_the_gradient():
    positions = torch.tensor(np.random.default_rng(1).uniform(0, 1, (5, 3)), requires_grad=True)
    _, _, vectors = neighbour_pairs(positions, None, 2.0)
    vectors.square().sum().backward()
    assert positions.grad.abs().min() > 0


def test_a_structure_on_another_device_is_the_same():
    """Numbers, positions with gradient, charge and spin go along; where it is already, nothing is made."""
    positions = torch.zeros((3, 3), dtype=torch.float64, requires_grad=True)
    structure = Structure(torch.tensor([8, 1, 1]), positions, None, charge=-1, spin=2)
    moved = structure.to("meta")
    assert moved.numbers.device.type == moved.positions.device.type == "meta"
    assert moved.positions.dtype == torch.float64 and moved.positions.grad_fn is not None
    assert (len(moved), moved.cell, moved.charge, moved.spin) == (3, None, -1, 2)
    assert structure.to("cpu") is structure
    boxed = Structure(structure.numbers, positions, torch.eye(3, dtype=torch.float64))
    assert boxed.to(torch.device("cpu")) is boxed


@pytest.mark.parametrize(
    ("numbers", "positions", "cell", "message"),
    [
        ([6], np.zeros((2, 3)), None, "one atomic number and one position per atom"),
        ([6], np.zeros((1, 2)), None, "one atomic number and one position per atom"),
        ([6], np.zeros((1, 3)), np.eye(2), "three box vectors in rows"),
        ([6], np.zeros((1, 3)), np.eye(3) + np.eye(3)[[1, 2, 0]], "reduced form"),
    ],
)
def test_bad_structure_arrays_are_rejected(numbers, positions, cell, message):
    with pytest.raises(PotentialError, match=message):
        Structure(
            torch.tensor(numbers), torch.tensor(positions), None if cell is None else torch.tensor(cell)
        )
