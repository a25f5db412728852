"""Choice of structures and measurement of models: determinants, distances, shares, coverage, targets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from labelled_pairs import labelled_pairs

from mlmm.errors import ConfigError
from mlmm.learning.active.choice import choose, extrapolation_grades, most_informative
from mlmm.learning.active.measure import Answers, Measured, measure, unmet_targets
from mlmm.learning.active.options import ChoiceOptions, LoopOptions, StopOptions

RANDOM = np.random.default_rng(4)
TABLE = RANDOM.normal(size=(60, 6))
KNOWN = RANDOM.normal(size=(10, 6))


def test_determinant_grows_by_one_plus_the_grade():
    """log det(A^T A + r), computed in full, after each choice."""
    from mlmm.learning.active.choice import _ridge

    scale = _ridge(TABLE, KNOWN)
    picked = most_informative(TABLE, KNOWN, 5)
    rows = KNOWN / scale
    for index, grade in picked:
        before = np.linalg.slogdet(rows.T @ rows + np.eye(6))[1]
        rows = np.concatenate([rows, TABLE[[index]] / scale])
        after = np.linalg.slogdet(rows.T @ rows + np.eye(6))[1]
        np.testing.assert_allclose(after - before, np.log1p(grade), rtol=1e-6)
    # Greedy: no other single row would have given more.
    grades = extrapolation_grades(TABLE, KNOWN)
    assert picked[0][0] == int(grades.argmax()) and abs(picked[0][1] - grades.max()) < 1e-9


def test_grade_is_below_one_for_what_is_known_and_large_outside():
    known = TABLE[:20]
    inside = extrapolation_grades(known, known)
    assert (inside < 1.0).all() and (inside >= 0.0).all()
    flat = known.copy()
    flat[:, 5] = 0.0
    outside = np.zeros((1, 6))
    outside[0, 5] = 1.0
    assert extrapolation_grades(outside, flat)[0] > 100 * extrapolation_grades(flat, flat).max()
    assert len(extrapolation_grades(TABLE, np.empty((0, 6)))) == 60


def test_shares_of_a_batch():
    spreads = np.arange(60.0)
    options = ChoiceOptions(batch=10, thermal=0.3)
    chosen = choose(options, 10, TABLE, KNOWN, spreads, np.random.default_rng(1))
    assert [c.why for c in chosen] == ["spread"] * 7 + ["random"] * 3
    assert len({c.index for c in chosen}) == 10
    # Of the 35 largest spreads those farthest apart.
    assert all(c.index >= 25 and c.score == c.index for c in chosen[:7])
    with pytest.raises(ConfigError, match="uncertainties of the candidates"):
        choose(options, 10, TABLE, KNOWN, None, np.random.default_rng(1))


def test_batch_is_diverse():
    """The most uncertain structure ten times over: one of the copies is chosen."""
    table = np.concatenate([np.repeat(TABLE[:1], 10, axis=0), TABLE])
    spreads = np.concatenate([np.full(10, 99.0), np.linspace(1, 2, 60)])
    chosen = choose(ChoiceOptions(thermal=0.0), 8, table, KNOWN, spreads, np.random.default_rng(0))
    assert sum(c.index < 11 for c in chosen) <= 1
    # Negative control: by the score alone all would be copies.
    assert set(np.argsort(-spreads, kind="stable")[:8]) <= set(range(10))


def test_seed_decides_at_random_and_small_pools_are_taken_whole():
    options = ChoiceOptions(by="passive")
    one, two, other = (
        [c.index for c in choose(options, 9, TABLE, KNOWN, None, np.random.default_rng(s))] for s in (1, 1, 2)
    )
    assert one == two != other
    assert len(choose(options, 9, TABLE[:4], KNOWN, None, np.random.default_rng(0))) == 4


class _Exact:
    """Predictions with Gaussian errors of a known size."""

    def __init__(self, pairs, size: float, claimed: float, seed: int = 0):
        self.pairs, self.size, self.claimed = pairs, size, claimed
        self.random = np.random.default_rng(seed)

    def predict(self, molecules):
        forces = [label.forces + self.random.normal(0.0, self.size, (3, 3)) for _, label in self.pairs]
        energies = np.array([label.energy + 2.0 for _, label in self.pairs])
        return Answers(energies, forces, [np.full(3, self.claimed) for _ in self.pairs])


def test_coverage_is_that_of_a_gaussian():
    pairs = labelled_pairs(300, charges=0, windows=3)
    found = measure(_Exact(pairs, 10.0, 10.0), pairs)
    error = np.sqrt(0.25 / 2700)
    assert abs(found.coverage68 - 0.6827) < 4 * error and abs(found.coverage95 - 0.9545) < 4 * error
    assert sorted(found.basins) == ["0", "1", "2"] and found.basins["0"].structures == 100
    np.testing.assert_allclose([found.overall.energy, found.overall.energy_bias], 2.0, rtol=1e-6)
    np.testing.assert_allclose(found.overall.force, 10.0 * np.sqrt(2 / np.pi), rtol=0.05)
    facts = json.loads(json.dumps(found.as_facts(), allow_nan=False))
    assert Measured.from_facts(facts).as_facts() == facts
    # Half the claimed size: far too few inside.
    assert measure(_Exact(pairs, 10.0, 5.0), pairs).coverage68 < 0.45


def test_targets_are_those_of_the_worst_basin():
    pairs = labelled_pairs(40, charges=0, windows=2)
    found = measure(_Exact(pairs, 10.0, 5.0), pairs)
    missed = unmet_targets(found, StopOptions(energy="1 kJ/mol", force="5 kJ/mol/nm", coverage=0.1))
    assert len(missed) == 3 and "The energy is off by 2 kJ/mol in basin" in missed[0]
    assert "Intervals of 68 %" in missed[2]
    assert unmet_targets(found, StopOptions(energy="3 kJ/mol", force="60 kJ/mol/nm", coverage=1.0)) == []


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (ChoiceOptions, {"by": "variance"}, "spread \\| distance \\| determinant"),
        (ChoiceOptions, {"thermal": 1.5}, "thermal between 0 and 1"),
        (StopOptions, {"energy": "3 kcal"}, "kcal/mol"),
        (LoopOptions, {"held_out": 2}, "held_out of 5 or more"),
    ],
)
def test_bad_options(kind, changes, said):
    with pytest.raises(ConfigError, match=said):
        kind(**changes)
