"""Zones in a periodic box: how wide they may be, where the centre of a region is."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from toys import chains

from mlmm.errors import ConfigError
from mlmm.zones.region import region_from_atoms
from mlmm.zones.shapes import switch
from mlmm.zones.static import static_zones

DODECAHEDRON = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]])


def rod(length: float, box: np.ndarray, n: int = 20, direction=(1.0, 0.0, 0.0)) -> SimpleNamespace:
    """A chain of n bonded atoms of a given length in a box, wrapped into it."""
    built = chains(n_molecules=1, n_atoms=n, box=None)
    line = np.linspace(0, length, n)[:, None] * np.array(direction) + 0.1
    wrapped = line - np.floor(line @ np.linalg.inv(box)) @ box
    return SimpleNamespace(topology=built.topology, positions=wrapped, box_vectors=box)


@pytest.mark.parametrize(
    ("length", "box", "shape", "limit"),
    [
        (0.0, np.eye(3) * 3.0, "skin", 1.5),
        (1.0, np.eye(3) * 3.0, "skin", 1.0),  # 2 nm from the end to the image's beginning
        (2.4, np.eye(3) * 3.0, "skin", 0.3),  # longer than half of the box
        (2.4, np.diag([3.0, 2.0, 4.0]), "skin", 0.3),
        (0.4, np.diag([3.0, 2.0, 4.0]), "skin", 1.0),  # nearest image along y
        (2.4, np.eye(3) * 3.0, "sphere", 1.5),
        (2.4, np.diag([3.0, 2.0, 4.0]), "sphere", 1.0),
        (1.0, DODECAHEDRON * 3.0, "skin", 1.0),
        (0.0, DODECAHEDRON * 3.0, "skin", 1.5 * np.sqrt(0.5)),  # half of the smallest width
    ],
)
def test_a_zone_may_not_meet_its_own_image(length, box, shape, limit):
    """plateau + width up to half of the gap between the region and its image, by shape; not 2 pm more."""
    built = rod(length, box)
    region = region_from_atoms(built.topology, range(20))
    inside = static_zones(built, region, limit - 0.102, 0.1, shape=shape)
    assert set(inside.core) >= set(region.atoms)
    with pytest.raises(ConfigError, match=r"plateau \+ width of at most .* meets its own periodic image"):
        static_zones(built, region, limit - 0.098, 0.1, shape=shape)


def test_centre_of_a_region_longer_than_half_of_the_box():
    """A chain that is wrapped around the box has its centre in its middle."""
    built = rod(2.4, np.eye(3) * 3.0)
    region = region_from_atoms(built.topology, range(18), complete="atoms")
    zones = static_zones(built, region, "1.0 nm", "0.45 nm", snap="atom", shape="sphere")
    step = 2.4 / 19
    expected = switch(step * np.array([18 - 8.5, 19 - 8.5]), 1.0, 0.45)
    np.testing.assert_allclose(zones.transition_weights, expected, atol=1e-9)
    assert zones.notes[0].startswith("the region reaches 1.07 nm from the centre")


def test_image_gap_against_touching_balls():
    """Random regions, slanted boxes: refused exactly where balls of the skin's radius link to an image."""
    verdicts = set()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        box = 2.0 * (DODECAHEDRON if seed % 2 else np.diag([1.0, 1.2, 0.9]))
        built = SimpleNamespace(
            topology=chains(n_molecules=1, n_atoms=4, box=None).topology,
            positions=generator.uniform(0, 1, (4, 3)) @ box,
            box_vectors=box,
        )
        radius = float(generator.uniform(0.3, 0.5) * np.diag(box).min())
        region = region_from_atoms(built.topology, range(4))
        wound = False
        # Unwrap along links of touching balls; an atom that is reached in two images closes a loop.
        images, place = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ box, {}
        for start in range(4):
            if start in place:
                continue
            place[start], front = built.positions[start], [start]
            while front:
                a = front.pop()
                for b in range(4):
                    for other in built.positions[b] + images + (place[a] - built.positions[a]):
                        if not 1e-9 < np.linalg.norm(other - place[a]) < 2 * radius:
                            continue
                        if b not in place:
                            place[b] = other
                            front.append(b)
                        elif np.abs(place[b] - other).max() > 1e-9:
                            wound = True
        if wound:
            with pytest.raises(ConfigError, match="periodic image"):
                static_zones(built, region, radius, 0.0)
        else:
            static_zones(built, region, radius, 0.0)
        verdicts.add(wound)
    assert verdicts == {True, False}
