"""Numbers of atoms one below, at and above what the device code takes together: tiles, groups of threads."""

from __future__ import annotations

import numpy as np
import pytest
from ani_contexts import context_of, evaluated, force_of, parameters, picked, system_of, tolerance
from ani_gases import gas

from mlmm.plugin import SupermolecularANIForce, plugin_problem

pytestmark = pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built")

HOST = ("CPU", {"Threads": "1"})
#: Atoms with a weight of H, C, N, O, and all atoms. Tiles hold 4 rows in small regions, 16 in others, half of
#: that in double precision; a group of threads looks at 128 atoms.
SIZES = {"small": ((9, 7, 8, 5), 127), "large": ((33, 15, 16, 17), 129)}


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
@pytest.mark.parametrize("size", SIZES)
def test_rows_that_just_fill_tiles_or_do_not(platform, size):
    """Energy of each atom by each member, and all forces; no two atoms have the same energy."""
    rows, n = SIZES[size]
    numbers = np.array([1, 1, 8, 6, 1, 7, 1, 8] * 17)[:n]
    weights = np.zeros(n)
    for element, count in zip((1, 6, 7, 8), rows, strict=True):
        weights[np.flatnonzero(numbers == element)[:count]] = np.linspace(0.5, 1.0, count)
    where = gas(n, 1.5, [1], seed=4).positions.numpy()
    found, energies = [], []
    for host in (HOST, platform):
        force = force_of(numbers.tolist(), weights)
        context = context_of(system_of(n, force), host)
        found.append(evaluated(context, where))
        energies.append(force.getMemberEnergies(context)[:, weights != 0])
    scale, relative = np.abs(energies[0]).max(), tolerance(platform)
    assert energies[0].shape == (2, sum(rows))
    assert np.abs(energies[1] - energies[0]).max() < relative * scale
    apart = np.diff(np.sort(energies[0], axis=1), axis=1).min()
    assert apart > 0 and np.abs(energies[0]).min() > 100 * relative * scale
    assert found[1][0] == pytest.approx(found[0][0], abs=relative * scale * sum(rows))
    assert np.abs(found[1][1] - found[0][1]).max() < relative * np.abs(found[0][1]).max()


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
def test_rows_that_the_device_chooses_just_fill_tiles_or_do_not(platform):
    """Two H and an O, atoms near them with two rows each, others without: H 4, 8, 10, 16; O 7, 9, 17 rows."""
    numbers = np.array([1, 8] * 9)
    region = [0, 1, 2]
    near = gas(len(numbers), 0.55, [1], seed=6).positions.numpy()
    contexts = []
    for host in (HOST, platform):
        force = SupermolecularANIForce(
            parameters(), numbers.tolist(), range(len(numbers)), region, precision="float64"
        )
        contexts.append(context_of(system_of(len(numbers), force), host))
    seen = []
    for hydrogens, oxygens in ((3, 4), (4, 3), (7, 8), (1, 4)):
        where = near.copy()
        for start, count in ((4, hydrogens), (3, oxygens)):
            far = np.arange(start + 2 * count, len(numbers), 2)
            where[far] += 10.0 * (far[:, None] + 1)
        found = [evaluated(context, where) for context in contexts]
        largest = np.abs(found[0][1]).max()
        assert found[1][0] == pytest.approx(found[0][0], rel=20 * tolerance(platform))
        assert np.abs(found[1][1] - found[0][1]).max() < 2 * tolerance(platform) * largest
        seen.append(found[0][0])
    assert np.abs(np.diff(seen)).min() > 1.0
