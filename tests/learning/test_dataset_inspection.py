"""Odd labels are found: units, duplicates, contradictions, outliers; and nothing is said about good ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from labelled_pairs import labelled_pairs

from mlmm.learning.dataset.inspection import check_units, inspect_pairs
from mlmm.learning.dataset.units_by_size import (
    energy_force_slope,
    energy_unit,
    length_unit,
    slope_meaning,
)
from mlmm.reference.labels import Label, Molecule
from mlmm.units import ANGSTROM, ELECTRONVOLT, HARTREE, KILOCALORIE

PAIRS = labelled_pairs(40, charges=0)


def test_good_labels_are_left_alone():
    assert inspect_pairs(PAIRS, elements=[1, 8]) == []


def test_slope_is_one_for_forces_that_are_the_gradient():
    slope, correlation, count = energy_force_slope(PAIRS)
    assert count == 39 and abs(slope - 1.0) < 0.1 and correlation > 0.98


def test_slope_is_exact_for_a_quadratic_energy():
    """The trapezium rule has no error up to second order."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(9, 9))
    matrix = 1e5 * (matrix + matrix.T)
    pairs = []
    for _ in range(10):
        x = random.normal(0.0, 0.01, 9)
        forces = -(matrix @ x).reshape(3, 3)
        pairs.append((Molecule([8, 1, 1], x.reshape(3, 3)), Label(0.5 * x @ matrix @ x, forces)))
    slope, correlation, _ = energy_force_slope(pairs)
    assert abs(slope - 1.0) < 1e-10 and correlation > 1 - 1e-10


@pytest.mark.parametrize(
    ("energy", "force", "said"),
    [
        (1.0, 1.0, ""),
        (1.0, -1.0, "gradients in place of forces"),
        (HARTREE, 1.0, "energies in hartree"),
        (1.0, ELECTRONVOLT / ANGSTROM, "forces in eV/angstrom"),
        (KILOCALORIE, KILOCALORIE / ANGSTROM, "energies in kcal/mol and forces in kcal/mol/angstrom"),
        (1.0, -KILOCALORIE / ANGSTROM, "forces in kcal/mol/angstrom with the sign of gradients"),
    ],
)
def test_meaning_of_a_slope(energy, force, said):
    """Numbers divided by what one unit is: their slope names the unit."""
    wrong = [(m, Label(label.energy / energy, label.forces / force)) for m, label in PAIRS]
    slope, *_ = energy_force_slope(wrong)
    expected, *_ = energy_force_slope(PAIRS)
    meaning = slope_meaning(slope / expected)
    assert said in meaning if said else meaning == ""


def test_a_slope_that_wide_steps_have_bent_blames_no_unit():
    """Distorted structures with right units have slopes such as 0.82; a mistaken length is 0.53 or 1.9."""
    assert slope_meaning(0.82) == "" == slope_meaning(1.3)
    assert slope_meaning(0.529177) and slope_meaning(1.889726) and slope_meaning(-0.82)


def test_total_energies_of_molecules_by_unit():
    """Computed totals (GFN2-xTB, valence electrons) and textbook ones (all electrons), hartree."""
    known = {
        (1, 1): (-0.9825, -1.17),
        (6, 1, 1, 1, 1): (-4.1752, -40.5),
        (8, 1, 1): (-5.0704, -76.4),
        (6, 8, 8): (-10.308, -188.6),
        (7, 1, 1, 1): (-4.4261, -56.55),
        (6,) * 6 + (1,) * 6: (-15.8798, -232.2),
    }
    for numbers, energies in known.items():
        molecule = Molecule(numbers, np.zeros((len(numbers), 3)))
        for energy in energies:
            for name, factor in (("hartree", HARTREE), ("eV", ELECTRONVOLT), ("kcal/mol", KILOCALORIE)):
                label = Label(energy * HARTREE / factor)
                assert energy_unit([(molecule, label)]) == name, (numbers, energy)
                taken = Label(energy * HARTREE)
                assert energy_unit([(molecule, taken)]) == "kJ/mol"
    # Atomization energies are no totals: nothing is said.
    assert energy_unit([(Molecule([6, 1, 1, 1, 1], np.zeros((5, 3))), Label(-1640.0))]) == ""


def test_lengths_by_hydrogen():
    water = PAIRS[0][0]
    assert length_unit([water]) == "nm"
    for factor, name in ((10.0, "angstrom"), (18.897, "bohr")):
        assert length_unit([dataclasses.replace(water, positions=water.positions * factor)]) == name
    assert length_unit([Molecule([8, 8], [[0, 0, 0], [0, 0, 0.12]])]) == ""


def test_forces_that_are_too_small_are_said():
    """Energies that are no totals and forces alone in eV/Å: their size tells."""
    wrong = [(m, Label(0.0, label.forces / (ELECTRONVOLT / ANGSTROM), method="x")) for m, label in PAIRS]
    (finding,) = check_units(wrong)
    assert "they look like eV/angstrom" in finding.sentence and finding.serious


def _kinds(pairs, **options):
    return {finding.kind: finding for finding in inspect_pairs(pairs, **options)}


def test_duplicates_are_found_whatever_their_order_and_place():
    molecule, label = PAIRS[3]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    twin = (Molecule([1, 8, 1], molecule.positions[[2, 0, 1]] @ turn + 0.5), Label(label.energy))
    found = _kinds([*PAIRS, twin])
    assert found["duplicates"].structures == (40,) and "contradiction" not in found
    odd = (twin[0], Label(label.energy + 30.0))
    found = _kinds([*PAIRS, odd])
    assert found["contradiction"].serious and found["contradiction"].structures == (3, 40)
    assert "+30 kJ/mol apart" in found["contradiction"].sentence
    # A charge around it makes it another structure.
    charged = labelled_pairs(2, charges=3)
    assert "duplicates" not in _kinds([*PAIRS, charged[0]])


def test_outliers_in_structure_energy_and_force():
    molecule, label = PAIRS[5]
    stretched = molecule.positions.copy()
    stretched[1] *= 1.6
    found = inspect_pairs([*PAIRS, (Molecule(molecule.numbers, stretched), Label(label.energy))])
    assert any(f.structures == (40,) and "times as far" in f.sentence for f in found)
    shifted = [*PAIRS]
    shifted[5] = (molecule, dataclasses.replace(label, energy=label.energy + 5000.0))
    found = [f for f in inspect_pairs(shifted) if f.kind == "outliers"]
    assert found[0].structures == (5,) and "ten standard deviations" in found[0].sentence
    shifted[5] = (molecule, dataclasses.replace(label, forces=label.forces * 1e3))
    assert any("above 50,000" in f.sentence and f.structures == (5,) for f in inspect_pairs(shifted))


def test_forces_that_do_not_add_up():
    molecule, label = PAIRS[2]
    pairs = [*PAIRS]
    pairs[2] = (molecule, dataclasses.replace(label, forces=label.forces + np.array([300.0, 0, 0])))
    assert _kinds(pairs)["net force"].structures == (2,)
    charged = labelled_pairs(3)  # random forces on the point charges
    assert _kinds(charged)["net force"].structures == (0, 1, 2)


def test_failed_labels_and_unknown_elements_are_counted():
    pairs = [*PAIRS]
    pairs[7] = (pairs[7][0], dataclasses.replace(pairs[7][1], converged=False, energy=float("nan")))
    found = _kinds(pairs, elements=[1, 6])
    assert found["not converged"].structures == (7,) and "(2.5%)" in found["not converged"].sentence
    assert found["elements"].serious and "O in 40 structures" in found["elements"].sentence
