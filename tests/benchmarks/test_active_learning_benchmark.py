"""The program that compares choices of structures: errors of each round, at equal labels."""

from __future__ import annotations

from labelled_molecules import shaken, springs

from benchmarks import active_learning


def test_choices_are_compared_at_equal_labels():
    """Both measured on one test after each round; the table holds both; more labels are better."""
    pool = [(molecule, springs(molecule)) for molecule in shaken(100, 1, windows=10)]
    test = [(molecule, springs(molecule)) for molecule in shaken(30, 2)]
    rows = [
        active_learning.loop(by, pool, test, 0, start=12, batch=40, rounds=2, model="sGDML")
        for by in ("distance", "passive")
    ]
    for row in rows:
        first, last = row["rounds"]
        assert (first["labels"], last["labels"]) == (12, 52)
        assert last["overall"]["force"] < 0.5 * first["overall"]["force"]
        assert set(last["basins"]) == {"0", "1", "2", "3", "4"}
        assert (
            max(basin["force_largest"] for basin in last["basins"].values())
            == last["overall"]["force_largest"]
        )
    text = active_learning.table(rows)
    assert "| distance | 52 |" in text and f"{rows[1]['rounds'][1]['overall']['force']:.2f}" in text
