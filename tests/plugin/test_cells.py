"""Atoms that are sorted into cells on a GPU, as thousands of them are: in every box as on the processor."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openmm
import pytest
from ani_contexts import context_of, evaluated, picked, system_of, tolerance

import mlmm
from mlmm.plugin import ANIForce, plugin_problem
from mlmm.potentials import load_potential

pytestmark = pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built")

HOST = ("CPU", {"Threads": "1"})
#: Along the edges; with fewer along the first no atom is sorted, and each is looked at for every centre.
GRID, FEWER = (29, 13, 13), 13
#: Edges of boxes, nm: five cells or more along each, up to two along one, three in a leaning one; none.
BOXES = {
    "small": np.diag([2.7, 2.7, 2.7]),
    "long": np.diag([6.0, 2.7, 2.7]),
    "flat": np.diag([10.3, 3.8, 1.1]),
    "two and three": np.diag([13.4, 2.0, 1.6]),
    "leaning": np.array([[6.5, 0, 0], [2.7, 2.6, 0], [-2.9, 1.1, 2.7]]),
    "large": np.diag([40.0, 30.0, 50.0]),
    "open": None,
}


def atoms_in(cell: np.ndarray | None) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Numbers, weights of 60 atoms in any place, and positions as dense as in water, beside the origin."""
    generator = np.random.default_rng(8)
    volume = np.inf if cell is None else np.linalg.det(cell)
    shape = np.array((FEWER, *GRID[1:]) if volume < 25 else GRID)
    edges = cell if volume < 60 else np.diag([6.2, 2.8, 2.8])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    n = len(grid)
    fractions = (grid + generator.uniform(-0.25, 0.25, (n, 3))) / shape - 0.5
    weights = np.zeros(n)
    weights[generator.choice(n, 60, replace=False)] = 1.0
    return generator.choice([1, 8], n).tolist(), weights, fractions @ edges


def test_there_are_as_many_atoms_as_are_sorted():
    """And in the small box fewer, so that both ways are taken."""
    code = (Path(mlmm.__file__).parent / "plugin/cpp/device_ani.cpp").read_text(encoding="utf-8")
    most = int(re.search(r"kMostSearched = (\d+);", code).group(1))
    assert {name: len(atoms_in(cell)[0]) > most for name, cell in BOXES.items()} == {
        name: name != "small" for name in BOXES
    }


def context_with(cell, host, *, periodic=True) -> openmm.Context:
    """With the atoms of a box, and the box itself if it is to count."""
    numbers, weights, _ = atoms_in(cell)
    box = cell if periodic else None
    single = load_potential("ani1x", members=[0]).parameters
    force = ANIForce(single, numbers, None, weights, periodic=box is not None, precision="float64")
    return context_of(system_of(len(numbers), force, cell=box), host)


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
@pytest.mark.parametrize("box", BOXES)
def test_no_neighbour_is_lost(platform, box):
    """Energy and forces; in the boxes those beyond an edge count, and the order in which a cell has its atoms
    changes no bit."""
    cell = BOXES[box]
    positions = atoms_in(cell)[2]
    context = context_with(cell, platform)
    (energy, forces), (found, others) = (evaluated(c, positions) for c in (context_with(cell, HOST), context))
    relative = 20 * tolerance(platform)
    assert abs(found - energy) < relative * abs(energy)
    assert np.abs(others - forces).max() < relative * np.abs(forces).max()
    for _ in range(3):
        again = evaluated(context, positions)
        assert again[0] == found and np.array_equal(again[1], others)
    if box not in ("large", "open"):
        alone = evaluated(context_with(cell, HOST, periodic=False), positions)[1]
        assert np.abs(alone - forces).max() > 100 * relative * np.abs(forces).max()


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
def test_without_a_box_any_place_will_do(platform):
    """Far from the origin, and in two parts that are far from one another."""
    positions = atoms_in(None)[2]
    positions[len(positions) // 2 :] += [0.0, 900.0, 0.0]
    energy = [evaluated(context_with(None, host), positions - 400.0) for host in (HOST, platform)]
    relative = 20 * tolerance(platform)
    assert abs(energy[1][0] - energy[0][0]) < relative * abs(energy[0][0])
    # Float32 positions, 400 nm away, are good to 3e-5 nm; mixed precision keeps the rest beside them.
    assert np.abs(energy[1][1] - energy[0][1]).max() < relative * np.abs(energy[0][1]).max()


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
@pytest.mark.parametrize("broken", ["no number", "collapsed"])
def test_what_is_no_structure_reaches_the_host(platform, broken):
    """An atom without weight that is nowhere, and more atoms in one place than there are places for."""
    cell, (_, weights, positions) = BOXES["long"], atoms_in(BOXES["long"])
    context = context_with(cell, platform)
    energy = evaluated(context, positions)[0]
    moved = positions.copy()
    if broken == "no number":
        moved[np.flatnonzero(weights == 0)[7], 2] = np.nan
    else:
        moved *= 0.1
    context.setPositions(moved)
    with pytest.raises(openmm.OpenMMException, match="finite energies of the atoms of an ANIForce"):
        context.getState(energy=True)
    assert evaluated(context, positions)[0] == energy
