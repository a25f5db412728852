"""Contributions of residues to a barrier: exact means, errors by windows, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from mlmm.errors import ConfigError
from mlmm.reactions.contributions import frames_near, residue_contributions
from mlmm.validation.embedding_levels import EmbeddingLevels


def levels(
    means, spread: float, seed: int, count: int = 400, names=("ARG 90 A", "HOH (9)")
) -> EmbeddingLevels:
    """Frames with Gaussian energies of the embedded level; the others are far off."""
    generator = np.random.default_rng(seed)
    energies = np.full((count, 2, 3), 1e6)
    energies[:, :, 2] = generator.normal(means, spread, (count, 2))
    return EmbeddingLevels(names, energies, generator.normal(-3.0, 0.1, count))


def test_differences_are_those_of_the_means_in_sigma():
    """ARG holds the top by 40 kJ/mol, water loses 10; the control, both alike, is zero within its error."""
    windows = ([0] * 200 + [1] * 200, [5] * 200 + [6] * 200)
    reactant, top = levels((-100.0, -50.0), 8.0, 0), levels((-140.0, -40.0), 8.0, 1)
    found = residue_contributions(reactant, top, windows)
    expected = np.array([-40.0, 10.0, 0.0])
    assert found.names[-1] == "within the region"
    assert np.abs((found.differences[:, 0] - expected) / found.differences[:, 1]).max() < 4
    assert found.differences[:2, 1].max() < 2.0
    assert "ARG 90 A" in found.lines()[1]
    alike = residue_contributions(reactant, levels((-100.0, -50.0), 8.0, 2), windows)
    assert np.abs(alike.differences[:, 0] / alike.differences[:, 1]).max() < 4


def test_windows_that_differ_widen_the_error():
    """Frames of one window that repeat each other are one, not two hundred."""
    generator = np.random.default_rng(3)
    energies = np.full((400, 2, 3), 0.0)
    energies[:, 0, 2] = np.repeat([10.0, 20.0], 200) + generator.normal(0, 0.1, 400)
    own = EmbeddingLevels(("A", "B"), energies, np.zeros(400))
    windows = [0] * 200 + [1] * 200
    found = residue_contributions(own, own, (windows, windows))
    assert found.reactant[0, 1] == pytest.approx(5.0, rel=0.05)
    as_one = residue_contributions(own, own, ([0] * 400, [0] * 400))
    assert as_one.reactant[0, 1] < 0.5


def test_frames_nearest_to_a_place():
    values = [np.array([0.1, 0.2, 0.31]), np.array([0.3, 0.29, 0.5])]
    assert frames_near(values, 0.3, 0.05, 9) == [(0, 2), (1, 0), (1, 1)]
    assert frames_near(values, 0.3, 0.05, 1) == [(1, 0)]
    assert frames_near(values, 0.9, 0.05, 9) == []


def test_too_few_frames_and_other_residues_are_refused():
    one = levels((0.0, 0.0), 1.0, 0, count=1)
    with pytest.raises(ConfigError, match="2 frames or more"):
        residue_contributions(one, one, ([0], [0]))
    other = levels((0.0, 0.0), 1.0, 0, names=("GLU 78 A", "HOH (9)"))
    with pytest.raises(ConfigError, match="the same residues"):
        residue_contributions(levels((0.0, 0.0), 1.0, 0), other, ([0] * 400, [0] * 400))
