"""Interaction of solutes with water: AMP-BMS against DFT among the same charges, from a file of frames."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks.solute_water import LEVELS, dft_energies, interactions, molecules, other_errors, read

from mlmm.units import HARTREE

DATA = read(Path(__file__).with_name("solute_water.json"))
GUIDE = Path(__file__).parents[2] / "examples/guide/charges.md"
NAMES = ("acetate", "methylammonium", "N-methylacetamide")


def row_of_the_guide(name: str) -> list[float]:
    """The numbers of a row: frames, mean and spread by DFT, mean absolute and mean error of each level."""
    (line,) = (line for line in GUIDE.read_text().splitlines() if line.startswith(f"| {name} | "))
    line = line.removeprefix(f"| {name} |")
    return [float(number.replace("−", "-")) for number in re.findall(r"[+−]?\d+(?:\.\d+)?", line)]


@pytest.mark.parametrize("name", NAMES)
def test_amp_bms_has_the_errors_of_the_guide(name):
    """Every number of its table, against wB97X-D3BJ in the same point charges, as stored."""
    exact, found = interactions(DATA["solutes"][name])
    errors = (found - exact[:, None]) / 4.184
    assert len(exact) >= 76 and len(LEVELS) == found.shape[1]
    pairs = np.stack([np.abs(errors).mean(axis=0), errors.mean(axis=0)], axis=1).ravel()
    table = [len(exact), exact.mean() / 4.184, exact.std() / 4.184, *pairs]
    assert table == pytest.approx(row_of_the_guide(name), abs=0.06)
    # Control: charges of the model in vacuum are worse; with the field it follows each frame.
    assert pairs[4] > 2.0 * pairs[8]
    assert np.corrcoef(found[:, 4], exact)[0, 1] > 0.98


def test_chorismate_along_its_reaction():
    """Frames of windows that no training saw: the guide's row, and those of models that are not shipped."""
    solute = DATA["solutes"]["chorismate"]
    exact, found = interactions(solute)
    errors = (found - exact[:, None]) / 4.184
    pairs = np.stack([np.abs(errors).mean(axis=0), errors.mean(axis=0)], axis=1).ravel()
    table = [len(exact), exact.mean() / 4.184, exact.std() / 4.184, *pairs]
    assert table == pytest.approx(row_of_the_guide("chorismate"), abs=0.06)
    for name, error in other_errors(solute).items():
        values = [np.abs(error).mean(), error.mean(), error.std()]
        assert values == pytest.approx(row_of_the_guide(f"chorismate by {name}"), abs=0.06)
        assert solute["others"][name]["about"] and len(error) == len(exact)
    by_model, by_labels = (np.array(e["values"]) / 4.184 for e in solute["others"].values())
    gap = f"{(by_model - by_labels).mean():+.1f} ± {(by_model - by_labels).std():.1f}"
    assert f"it is off by {gap} in the twelve frames" in GUIDE.read_text() and len(by_model) == 12
    # Control: charges that stay those of the reactant.
    assert pairs[0] > 2.0 * pairs[6]


def test_every_value_says_how_it_was_made():
    assert sum("in_charges" in frame for s in DATA["solutes"].values() for frame in s["frames"]) >= 200
    assert "wB97X-D3BJ/6-31+G*" in DATA["about"]["method"] and DATA["about"]["programs"]["pyscf"]
    for solute in DATA["solutes"].values():
        assert sum(solute["fixed_charges"]) == pytest.approx(solute["charge"], abs=1e-3)
        for molecule in molecules(solute):
            apart = np.linalg.norm(molecule.positions[:, None] - molecule.external.positions[None], axis=2)
            assert 0.13 < apart.min() < 0.4


@pytest.mark.slow
def test_a_value_can_be_computed_again():
    pytest.importorskip("pyscf", reason='pip install "mlmm[qm]"')
    solute = DATA["solutes"]["methylammonium"]
    energies = dft_energies(molecules(solute)[3])
    for key, energy in energies.items():
        assert HARTREE * (energy - solute["frames"][3][key]) == pytest.approx(0.0, abs=0.02)
