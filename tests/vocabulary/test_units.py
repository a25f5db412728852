"""Quantities: every unit by its definition, every mistake by name."""

from __future__ import annotations

import pytest
from openmm import unit

from mlmm import units
from mlmm.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("1.5 nm", "length", 1.5),
        ("15 A", "length", 1.5),
        ("15 Å", "length", 1.5),
        ("2 fs", "time", 0.002),
        ("2e-3 ns", "time", 2.0),
        ("-1 kcal/mol", "energy", -4.184),
        ("1 eV", "energy", 96.48533212331),
        ("1 hartree", "energy", 2625.49963948),
        (".5 /ps", "rate", 0.5),
        ("300K", "temperature", 300.0),
        ("1 atm", "pressure", 1.01325),
        ("150 mM", "concentration", 0.15),
        ("180 degree", "angle", 3.141592653589793),
        ("90°", "angle", 1.5707963267948966),
        ("2 A^2", "area", 0.02),
        ("1 1/A^2", "inverse area", 100.0),
        ("1 kcal/mol/A^2", "energy per length squared", 418.4),
        ("1 kcal/mol/Å²", "energy per length squared", 418.4),
        ("1 kJ/mol/nm**2", "energy per length squared", 1.0),
        ("2 eV/A^2", "energy per length squared", 19297.066424662),
        ("1 kJ/mol/deg^2", "energy per angle squared", 3282.806350011744),
        ("1 kcal/mol/radian^2", "energy per angle squared", 4.184),
        ("1 kJ/mol/A^4", "energy per area squared", 10000.0),
        (0.25, "length", 0.25),
        (3, "time", 3.0),
        (2 * unit.femtosecond, "time", 0.002),
        (1 * unit.kilocalorie_per_mole, "energy", 4.184),
        (5 / unit.picosecond, "rate", 5.0),
        (1 * unit.kilocalorie_per_mole / unit.angstrom, "force", 41.84),
        (1 * unit.atmosphere, "pressure", 1.01325),
        (180 * unit.degree, "angle", 3.141592653589793),
        (1 * unit.kilocalorie_per_mole / unit.angstrom**2, "energy per length squared", 418.4),
        (1 * unit.kilocalorie_per_mole / unit.radian**2, "energy per angle squared", 4.184),
        (1 / unit.angstrom**2, "inverse area", 100.0),
    ],
)
def test_quantities_are_parsed_to_internal_units(text, dimension, value):
    assert units.parse(text, dimension) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "dimension", "message"),
    [
        ("5", "time", 'without a unit. Write "5 ps"'),
        ("5 K", "time", "Units for a time: ps, fs"),
        ("5 f", "time", "fs"),
        ("five ps", "time", "Write a number and a unit"),
        ("nan ps", "time", "Write a number and a unit"),
        ("1e400 ps", "time", "Write a finite number"),
        (True, "time", "got True"),
        (None, "length", "got None"),
        (float("inf"), "length", "Write a finite number"),
        (1 * unit.kelvin, "time", "converts to picosecond"),
        ("5 kJ/mol/nm^3", "energy per length squared", "kJ/mol/nm^2"),
        (1 * unit.kelvin, "energy per angle squared", "converts to kilojoule"),
    ],
)
def test_bad_quantities_are_rejected(value, dimension, message):
    with pytest.raises(ConfigError, match=r"Expected step as an? ") as caught:
        units.parse(value, dimension, "step")
    assert message in str(caught.value)


def test_constants_agree_with_their_definitions():
    electron, avogadro, hartree_joule = 1.602176634e-19, 6.02214076e23, 4.3597447222071e-18
    assert pytest.approx(electron * avogadro * 1e-3, rel=1e-12) == units.ELECTRONVOLT
    assert pytest.approx(hartree_joule * avogadro * 1e-3, rel=1e-12) == units.HARTREE
    assert pytest.approx(1.380649e-23 * avogadro * 1e-3, rel=1e-12) == units.GAS_CONSTANT
    # OpenMM's own value, to be met to the last digit, is within its known offset of the CODATA one.
    epsilon0 = 8.8541878128e-12
    coulomb = electron**2 * avogadro / (4 * 3.141592653589793 * epsilon0) * 1e9 * 1e-3
    assert pytest.approx(coulomb, rel=1e-8) == units.COULOMB
