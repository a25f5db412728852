"""The kinds of collective variables and the shapes of restraints: dimensions, groups, keys, ranges.

To add a kind, write a row here, one in `values.py` and one in `openmm_forces.py`. Only the standard library
is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlmm import units
from mlmm.errors import ConfigError
from mlmm.options.kinds import Many, Option, Text

__all__ = [
    "KINDS",
    "RANGES",
    "SHAPES",
    "STAGES",
    "Coordinates",
    "Kind",
    "Measure",
    "Numbers",
    "force_dimension",
    "is_empty",
    "to_number",
    "unit_advice",
]


@dataclass(frozen=True)
class Kind:
    """What is particular to one kind of collective variable.

    Parameters
    ----------
    dimension : str
        Of its value, as `mlmm.units.parse` takes it; "number" for none.
    groups : str
        How many groups of atoms it has, and which.
    count : callable
        Whether a number of groups is right.
    keys : tuple of str
        Keys that it has besides `groups`.
    needs : str
        The one of them that has no default.
    """

    dimension: str
    groups: str
    count: Callable[[int], bool]
    keys: tuple[str, ...] = ()
    needs: str = ""


KINDS: dict[str, Kind] = {
    "distance": Kind("length", "2 groups", lambda n: n == 2),
    "angle": Kind("angle", "3 groups, the apex in the middle", lambda n: n == 3),
    "torsion": Kind("angle", "4 groups in a row", lambda n: n == 4),
    "difference": Kind(
        "length", "4 groups: distance of the first two less that of the others", lambda n: n == 4
    ),
    "sum": Kind(
        "length",
        "an even number of groups: two for each distance",
        lambda n: n >= 2 and not n % 2,
        ("coefficients",),
    ),
    "axis": Kind(
        "length", "3 groups: where the axis begins, where it leads, what moves along it", lambda n: n == 3
    ),
    "coordination": Kind(
        "number",
        "2 groups, of whose atoms pairs are counted",
        lambda n: n == 2,
        ("contact_distance", "exponent", "cutoff"),
        "contact_distance",
    ),
    "rmsd": Kind("length", "1 group", lambda n: n == 1, ("reference",)),
    "position": Kind("length", "1 group", lambda n: n == 1, ("reference",)),
    "path_s": Kind("number", "1 group", lambda n: n == 1, ("images", "sharpness"), "images"),
    "path_z": Kind("area", "1 group", lambda n: n == 1, ("images", "sharpness"), "images"),
}
SHAPES = ("harmonic", "flat_bottom", "lower", "upper")
#: Stages of a run file.
STAGES = ("minimise", "equilibrate", "produce", "nve")
_FORCE_DIMENSIONS = {
    "length": "energy per length squared",
    "angle": "energy per angle squared",
    "area": "energy per area squared",
    "number": "energy",
}
#: Values that a variable can take, in internal units.
RANGES: dict[str, tuple[float, float | None]] = {
    "distance": (0.0, None),
    "angle": (0.0, 3.141592653589793),
    "coordination": (0.0, None),
    "rmsd": (0.0, None),
    "path_s": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Numbers(Many):
    """A list of numbers."""

    @property
    def values(self) -> str:
        return "a list of numbers"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(
            isinstance(entry, (int, float)) and not isinstance(entry, bool) for entry in value
        )


@dataclass(frozen=True, kw_only=True)
class Measure(Option):
    """A number in the unit of the variable that the restraint acts on, which converts it."""

    @property
    def values(self) -> str:
        return "a number with the unit of the variable, in quotes; without unit where that has none"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (str, int, float)) and not isinstance(value, bool)

    def parse(self, name: str, value: Any) -> Any:
        """Leave a Quantity of OpenMM alone."""
        return value if hasattr(value, "value_in_unit") else super().parse(name, value)


@dataclass(frozen=True, kw_only=True)
class Coordinates(Text):
    """The path of a structure file; in Python also an array."""

    def parse(self, name: str, value: Any) -> Any:
        return value if hasattr(value, "shape") else super().parse(name, value)


def force_dimension(dimension: str) -> str:
    """Dimension of a force constant k in k/2 x^2, for an x of some dimension."""
    return _FORCE_DIMENSIONS[dimension]


def to_number(value: Any, dimension: str, name: str) -> float:
    """Convert to internal units; a number of no dimension may be text, as ``--set`` gives it.

    Raises
    ------
    ConfigError
    """
    if dimension != "number":
        return units.parse(value, dimension, name)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} as a number without unit", repr(value), f"write {name.split()[0]} = 1.0"
        ) from error


def unit_advice(dimension: str) -> str:
    """The unit that a value has, in words."""
    if dimension == "number":
        return "a number, which is none"
    return f"{units.article(dimension)} {dimension}: {', '.join(units.names(dimension))}"


def is_empty(value: Any) -> bool:
    """Whether a key was left out."""
    return value is None or (isinstance(value, (str, tuple, list)) and len(value) == 0)
