"""Random force fields on random points, for pairs that the C++ kernel subtracts."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch

from mlmm.errors import MissingPackageError
from mlmm.kernels import direct_pairs as hosted_pairs
from mlmm.structures import minimum_image


def _built() -> bool:
    try:
        hosted_pairs._library()
    except MissingPackageError:
        return False
    return True


pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(not _built(), reason="the package was built without a compiler"),
]


CUBE = np.eye(3) * 1.9
LEANING = np.array([[2.0, 0, 0], [0.7, 1.8, 0], [-0.6, 0.7, 1.7]])


BOXES = {"open": None, "cube": CUBE, "leaning": LEANING}
CUTOFF = 0.7


# Two sums over the same pairs in double precision, of the largest force and of the energy.
FORCE, ENERGY = 1e-11, 1e-12


def gas_system(n: int, box, *, seed: int, switch: float | None = None, method=None) -> openmm.System:
    """Random charges and wells, some of them zero, exclusions, 1-4 pairs and virtual sites."""
    rng = np.random.default_rng(seed)
    system, force = openmm.System(), openmm.NonbondedForce()
    for i in range(n):
        system.addParticle(0.0 if i % 10 == 9 else 12.0)
        charge = rng.normal(0, 0.4) * (rng.random() > 0.2)
        force.addParticle(charge, rng.uniform(0.1, 0.25), rng.uniform(0.1, 1.0) * (rng.random() > 0.3))
    for i in range(9, n, 10):
        system.setVirtualSite(i, openmm.TwoParticleAverageSite(i - 1, i - 2, 0.5, 0.5))
    pairs = {tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(2 * n)}
    for k, (a, b) in enumerate(sorted(pairs)):
        force.addException(a, b, *((0.0, 1.0, 0.0) if k % 3 else (0.1, 0.2, 0.3)))
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
        force.setNonbondedMethod(openmm.NonbondedForce.PME if method is None else method)
        force.setCutoffDistance(CUTOFF)
        if switch is not None:
            force.setUseSwitchingFunction(True)
            force.setSwitchingDistance(switch)
    system.addForce(force)
    return system


def gas(n: int, box, *, seed: int, closest: float = 0.17) -> np.ndarray:
    """Points at random, none closer than some distance to another, in random images."""
    rng = np.random.default_rng(seed)
    cell = None if box is None else torch.tensor(box)
    points = np.zeros((0, 3))
    while len(points) < n:
        point = rng.uniform(0, 1, 3) @ (np.eye(3) * 1.9 if box is None else box)
        if (minimum_image(torch.tensor(points - point), cell).norm(dim=1) > closest).all():
            points = np.vstack([points, point])
    return points if box is None else points + rng.integers(-1, 2, points.shape) @ box


def assert_same(found, expected):
    assert abs(found[0] - expected[0]) < ENERGY * max(abs(expected[0]), 1e4)
    assert np.abs(found[1] - expected[1]).max() < FORCE * max(np.abs(expected[1]).max(), 1e4)


def names_of(system: openmm.System) -> list[str]:
    return [force.getName() for force in system.getForces()]
