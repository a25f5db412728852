"""Internal units (nm, ps, kJ/mol, K, amu, e) and every conversion factor, once.

A bare number is in internal units. A string such as ``"2 fs"`` or an OpenMM ``Quantity`` is converted once,
at entry.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

from mlmm.errors import ConfigError

#: Coulomb's constant 1/(4 pi eps0), kJ nm / (mol e^2): OpenMM's own value, so that pair sums cancel to the
#: last digit.
COULOMB = 138.93545764438198
#: Gas constant, kJ / (mol K) (CODATA 2018, exact).
GAS_CONSTANT = 8.31446261815324e-3
#: Planck's constant times Avogadro's, kJ ps/mol (CODATA 2018, exact).
PLANCK = 0.3990312712893431
#: kJ/mol per hartree (CODATA 2018).
HARTREE = 2625.4996394798254
#: kJ/mol per electronvolt (CODATA 2018).
ELECTRONVOLT = 96.48533212331002
#: kJ/mol per thermochemical kcal/mol (exact).
KILOCALORIE = 4.184
#: kJ/mol per bar nm³: what a pressure does with the volume of one molecule (CODATA 2018, exact).
BAR_NM3 = 0.0602214076
#: g/cm³ per amu/nm³: the atomic mass constant, 1.66053906660e-24 g.
AMU_PER_NM3 = 1.66053906660e-3
#: Planck's constant times Avogadro's, kJ ps/mol (CODATA 2018, exact).
PLANCK = 0.3990312712893431
#: Speed of light, cm/ps (exact): what turns frequencies into wavenumbers in 1/cm.
LIGHT_SPEED = 0.0299792458
#: nm per angstrom.
ANGSTROM = 0.1
#: nm per bohr (CODATA 2018).
BOHR = 0.0529177210903
#: ps per fs.
FEMTOSECOND = 1e-3
#: ps per ns.
NANOSECOND = 1e3

_DEGREE = math.pi / 180  # radians

# dimension -> {unit as typed: factor to internal units}; the first entry is the internal unit.
_UNITS: dict[str, dict[str, float]] = {
    "length": {"nm": 1.0, "angstrom": ANGSTROM, "A": ANGSTROM, "Å": ANGSTROM, "pm": 1e-3},
    "time": {"ps": 1.0, "fs": FEMTOSECOND, "ns": NANOSECOND, "us": 1e6},
    "energy": {"kJ/mol": 1.0, "kcal/mol": KILOCALORIE, "eV": ELECTRONVOLT, "hartree": HARTREE, "Ha": HARTREE},
    "force": {"kJ/mol/nm": 1.0, "kcal/mol/A": KILOCALORIE / ANGSTROM, "eV/A": ELECTRONVOLT / ANGSTROM},
    "temperature": {"K": 1.0, "kelvin": 1.0},
    "rate": {"1/ps": 1.0, "/ps": 1.0, "ps^-1": 1.0, "1/fs": 1.0 / FEMTOSECOND},
    "pressure": {"bar": 1.0, "atm": 1.01325, "kPa": 0.01},
    "mass": {"amu": 1.0, "Da": 1.0, "dalton": 1.0},
    "concentration": {"M": 1.0, "molar": 1.0, "mol/L": 1.0, "mM": 1e-3},
    "angle": {"rad": 1.0, "deg": _DEGREE, "degree": _DEGREE, "degrees": _DEGREE, "°": _DEGREE},
    "area": {"nm^2": 1.0, "A^2": ANGSTROM**2},
    "inverse area": {"1/nm^2": 1.0, "1/A^2": ANGSTROM**-2},
    "energy per length squared": {
        "kJ/mol/nm^2": 1.0,
        "kJ/mol/A^2": ANGSTROM**-2,
        "kcal/mol/A^2": KILOCALORIE * ANGSTROM**-2,
        "kcal/mol/nm^2": KILOCALORIE,
        "eV/A^2": ELECTRONVOLT * ANGSTROM**-2,
    },
    "energy per angle squared": {
        "kJ/mol/rad^2": 1.0,
        "kcal/mol/rad^2": KILOCALORIE,
        "kJ/mol/deg^2": _DEGREE**-2,
        "kcal/mol/deg^2": KILOCALORIE * _DEGREE**-2,
    },
    "energy per area squared": {
        "kJ/mol/nm^4": 1.0,
        "kJ/mol/A^4": ANGSTROM**-4,
        "kcal/mol/A^4": KILOCALORIE * ANGSTROM**-4,
    },
}
# The same internal units under OpenMM's names, for Quantity.value_in_unit.
_OPENMM_UNIT = {
    "length": "nanometer",
    "time": "picosecond",
    "energy": "kilojoule_per_mole",
    "temperature": "kelvin",
    "pressure": "bar",
    "mass": "dalton",
    "concentration": "molar",
    "angle": "radian",
}
# Others as powers of those.
_OPENMM_POWERS = {
    "rate": (("picosecond", -1),),
    "force": (("kilojoule_per_mole", 1), ("nanometer", -1)),
    "area": (("nanometer", 2),),
    "inverse area": (("nanometer", -2),),
    "energy per length squared": (("kilojoule_per_mole", 1), ("nanometer", -2)),
    "energy per angle squared": (("kilojoule_per_mole", 1), ("radian", -2)),
    "energy per area squared": (("kilojoule_per_mole", 1), ("nanometer", -4)),
}
# Other ways to write a power, or a length.
_WRITTEN = (("**", "^"), ("²", "^2"), ("⁴", "^4"), ("Å", "A"), ("angstrom", "A"), ("radian", "rad"))
_NUMBER_AND_UNIT = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*$")


def internal_unit(dimension: str) -> str:
    """Return the internal unit of a dimension as it is written, such as "ps"."""
    return next(iter(_UNITS[dimension]))


def article(dimension: str) -> str:
    """Indefinite article of a dimension: "an" energy, "a" length."""
    return "an" if dimension[0] in "aei" else "a"


def names(dimension: str) -> tuple[str, ...]:
    """Units of a dimension as they may be typed, the internal one first."""
    return tuple(_UNITS[dimension])


def parse(value: Any, dimension: str, name: str = "value") -> float:
    """Convert a quantity to internal units.

    Parameters
    ----------
    value : float, str or openmm.unit.Quantity
        A bare number is taken as it is (internal units); ``"2 fs"`` and ``2*unit.femtosecond`` are converted.
    dimension : str
        One of ``length time energy force temperature rate pressure mass concentration angle area``, ``inverse
        area``, ``energy per length squared``, ``energy per angle squared``, ``energy per area squared``.
    name : str
        What the number is for; it opens the error message.

    Raises
    ------
    ConfigError
        No number, no unit in a string, a unit of another dimension, or a value that is not finite.
    """
    table = _UNITS[dimension]
    internal = internal_unit(dimension)
    expected = f'{name} as {article(dimension)} {dimension}, such as "1 {internal}"'
    if isinstance(value, str):
        match = _NUMBER_AND_UNIT.match(value)
        if match is None:
            raise ConfigError(expected, repr(value), f"write a number and a unit; units: {', '.join(table)}")
        number, unit = float(match[1]), match[2]
        if not unit:
            raise ConfigError(
                expected, f"{value!r} without a unit", f'write "{value.strip()} {internal}" or another unit'
            )
        if unit not in table:
            for other, known in _WRITTEN:
                unit = unit.replace(other, known)
        if unit not in table:
            near = difflib.get_close_matches(unit, table, n=1, cutoff=0.6)
            hint = (
                f'did you mean "{match[1]} {near[0]}"?'
                if near
                else f"units for {article(dimension)} {dimension}: {', '.join(table)}"
            )
            raise ConfigError(expected, f"{value!r}", hint)
        result = number * table[unit]
    elif hasattr(value, "value_in_unit"):
        result = _from_openmm(value, dimension, expected)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        result = float(value)
    else:
        raise ConfigError(expected, repr(value), f"write a number and a unit; units: {', '.join(table)}")
    if not math.isfinite(result):
        raise ConfigError(expected, repr(value), "write a finite number")
    return result


def _from_openmm(quantity: Any, dimension: str, expected: str) -> float:
    """Convert an OpenMM Quantity; OpenMM is loaded already, since the caller holds one of its objects."""
    from openmm import unit

    if dimension in _OPENMM_POWERS:
        target = math.prod(
            (getattr(unit, name) ** power for name, power in _OPENMM_POWERS[dimension]),
            start=unit.dimensionless,
        )
    else:
        target = getattr(unit, _OPENMM_UNIT[dimension])
    if not quantity.unit.is_compatible(target):
        raise ConfigError(expected, str(quantity), f"give a quantity that converts to {target}")
    return float(quantity.value_in_unit(target))
