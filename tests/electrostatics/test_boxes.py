"""Energy of a region with its own images, against the whole periodic sum less that in vacuum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf

from mlmm.electrostatics.boxes import half_space, images_of_region


def energy_with_images(positions: np.ndarray, charges: np.ndarray, length: float) -> float:
    """Of charges near each other with all their images in a cube and a background, in units of K.

    Ewald's sum with erfc(a length) = 2e-17, so that only waves and what they have too much are left.
    """
    a, volume = 6.0 / length, length**3
    n = half_space(length * torch.eye(3, dtype=torch.float64), 2.0 * np.pi * 14 / length).numpy()
    k = 2.0 * np.pi / length * n
    square = (k**2).sum(axis=1)
    structure = np.abs(np.exp(1j * (positions @ k.T)).T @ charges) ** 2
    waves = 4.0 * np.pi / volume * (np.exp(-square / (4.0 * a**2)) / square * structure).sum()
    r = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    own = np.where(r > 0, erf(a * r) / np.where(r > 0, r, 1.0), 2.0 * a / np.sqrt(np.pi))
    return float(waves - 0.5 * charges @ own @ charges - 0.5 * np.pi / (a**2 * volume) * charges.sum() ** 2)


@pytest.mark.parametrize("charge", [0.0, 1.0, -2.0])
def test_images_of_a_region_are_those_of_the_periodic_sum(charge):
    """Less those of q0, to leading order in the extent; dipoles as pairs of charges; each part counts."""
    draws, length, extent, n = np.random.default_rng(8), 3.0, 0.01, 6
    x = 1.5 + extent * draws.normal(size=(n, 3))
    reference, charges = draws.normal(size=(2, n))
    reference += (charge - reference.sum()) / n
    charges += (charge - charges.sum()) / n
    dipoles, half = extent * draws.normal(size=(n, 3)), 0.05 * extent
    directions = dipoles / np.linalg.norm(dipoles, axis=1, keepdims=True)
    ends = np.linalg.norm(dipoles, axis=1) / (2.0 * half)
    every = np.concatenate([x, x + half * directions, x - half * directions])
    whole = energy_with_images(every, np.concatenate([charges, ends, -ends]), length)
    exact = whole - energy_with_images(x, reference, length)

    def found(dipoles: np.ndarray, reference: np.ndarray) -> float:
        given = (torch.tensor(part) for part in (x, charges, dipoles, reference, length * np.eye(3)))
        return float(images_of_region(*given))

    assert found(dipoles, reference) == pytest.approx(exact, rel=5e-4)
    wrongs = found(0.0 * dipoles, reference), found(-dipoles, reference), found(dipoles, 1.1 * reference)
    for wrong in wrongs:
        assert abs(wrong - exact) > 0.02 * abs(exact)
