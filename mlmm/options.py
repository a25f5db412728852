"""Options as frozen dataclasses whose fields know their unit, limits and meaning.

They are one schema for Python keywords, run files and the command line. A class of options declares its
fields with `quantity`, `number`, `word` or `setting` and calls `check_fields` in ``__post_init__``:
quantities become numbers in internal units, and a value out of range is refused. Only the standard library is
imported here, since run files are read before any numerical library starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any, TypeAlias, TypeVar

from mlmm.errors import ConfigError
from mlmm.units import internal_unit, parse

__all__ = [
    "Quantity",
    "as_written",
    "check_fields",
    "number",
    "quantity",
    "rising",
    "setting",
    "split_changes",
    "with_changes",
    "word",
]

#: A number in internal units, a string such as "2 fs", or an OpenMM Quantity; a float once it is checked.
Quantity: TypeAlias = Any
_Options = TypeVar("_Options")


def quantity(
    default: Quantity,
    dimension: str,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    none: bool = False,
    several: bool = False,
    example: str = "",
    **facts: Any,
) -> Any:
    """Declare a field with a physical dimension.

    Parameters
    ----------
    default : str or float
    dimension : str
        See `mlmm.units.parse`.
    help : str
        What it is, in one line.
    least, above : float, optional
        Smallest value, or a bound that itself is excluded, in internal units.
    none : bool
        Whether it may be left out: None, or "none" in a run file.
    several : bool
        Whether it is a list of such quantities, a tuple once it has been checked.
    example : str
        How to write it; the default if empty.
    **facts
        Further metadata, such as ``section``.
    """
    known = {"dimension": dimension, "help": help, "least": least, "above": above}
    known |= {"none": none, "several": several, "example": example or str(default)}
    return field(default=default, metadata=known | facts)


def number(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    several: bool = False,
    **facts: Any,
) -> Any:
    """Declare a field with a number; arguments as for `quantity`, without a unit."""
    limits = {"least": least, "above": above, "most": most, "several": several}
    return field(default=default, metadata={"help": help} | limits | facts)


def rising(default: tuple[float, ...], help: str, **facts: Any) -> Any:
    """Declare a field with numbers that rise from 0 to 1, such as values of lambda."""
    return number(default, help, several=True, rising=True, **facts)


def word(default: str, choices: Collection[str], help: str, **facts: Any) -> Any:
    """Declare a field with one of some words."""
    return field(default=default, metadata={"choices": tuple(choices), "help": help} | facts)


def setting(default: Any, help: str, **facts: Any) -> Any:
    """Declare a field without limits: a name, a switch, a tuple."""
    return field(default=default, metadata={"help": help} | facts)


def check_fields(options: Any) -> None:
    """Convert quantities of a frozen dataclass to internal units and check every field against its limits.

    Raises
    ------
    ConfigError
        A quantity without unit or of another dimension, a word that is no choice, a value below its limit, or
        one of another type than the default.
    """
    for spec in dataclasses.fields(options):
        value, facts = getattr(options, spec.name), spec.metadata
        default: Any = spec.default
        if facts.get("none") and value in (None, "none"):
            found = None
        elif facts.get("several"):
            parts = [value] if isinstance(value, (str, int, float)) else list(value)
            found = tuple(_checked(spec.name, part, facts, default[0]) for part in parts)
            if facts.get("rising"):
                _check_rising(spec.name, found)
        else:
            found = _checked(spec.name, value, facts, default)
        object.__setattr__(options, spec.name, found)


def _checked(name: str, value: Any, facts: Mapping[str, Any], default: Any) -> Any:
    """One value in internal units, of the kind of the default and within its limits."""
    if "dimension" in facts:
        value = parse(value, facts["dimension"], name)
    elif "choices" in facts:
        if value not in facts["choices"]:
            raise ConfigError(
                f"{name} = {' | '.join(facts['choices'])}", repr(value), f'write {name} = "{default}"'
            )
    elif not _same_kind(value, default):
        raise ConfigError(f"{name} as {_KINDS[type(default)]}", repr(value), f"write {name} = {default!r}")
    _check_limits(name, value, facts)
    return value


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def _same_kind(value: Any, default: Any) -> bool:
    """Return True if a value has the type of the default; a whole number is a number, a switch is not."""
    if type(default) not in _KINDS:
        return True
    if type(default) is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if type(default) is int:
        # numpy's integers too, without importing numpy.
        return hasattr(value, "__index__") and not isinstance(value, bool)
    return isinstance(value, type(default))


def _check_rising(name: str, values: tuple[float, ...]) -> None:
    """Refuse numbers that do not rise from 0 to 1."""
    rises = all(a < b for a, b in itertools.pairwise(values))
    if len(values) < 2 or not rises or values[0] != 0.0 or values[-1] != 1.0:
        raise ConfigError(f"{name} that rise from 0 to 1", str(list(values)), f"write {name} = (0, 0.5, 1)")


def _check_limits(name: str, value: Any, facts: Mapping[str, Any]) -> None:
    least, above, most = facts.get("least"), facts.get("above"), facts.get("most")
    unit = f" {internal_unit(facts['dimension'])}" if "dimension" in facts else ""
    # Written so that NaN is out of range.
    if least is not None and not value >= least:
        raise ConfigError(f"{name} of {least:g}{unit} or more", f"{value:g}{unit}", f"correct {name}")
    if above is not None and not value > above:
        raise ConfigError(f"{name} above {above:g}{unit}", f"{value:g}{unit}", f"correct {name}")
    if most is not None and not value <= most:
        raise ConfigError(f"{name} of {most:g}{unit} at most", f"{value:g}{unit}", f"correct {name}")


def with_changes(
    kind: type[_Options],
    options: _Options | None,
    changes: Mapping[str, Any],
    used: Collection[str] | None = None,
) -> _Options:
    """Apply keyword changes to options, those of `kind` by default.

    Parameters
    ----------
    kind : type
        Dataclass of options.
    options : instance of `kind`, optional
    changes : mapping
        New values by field name.
    used : collection of str, optional
        Fields that the caller makes use of; all by default. Another one among the changes would do nothing
        and is refused; in `options`, which several functions share, it may have any value.

    Raises
    ------
    ConfigError
        A name that is no field of `kind` or not in `used`, or a value that `check_fields` refuses.
    """
    if options is not None and not isinstance(options, kind):
        raise ConfigError(
            f"options of class {kind.__name__}", repr(options), f"write {kind.__name__}(…), or keywords"
        )
    _check_names(changes, _names(kind) if used is None else used)
    return dataclasses.replace(kind() if options is None else options, **changes)  # type: ignore[type-var]


def split_changes(
    changes: Mapping[str, Any], kind: type, others: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keywords between the options of one function and those that it shares with others.

    Parameters
    ----------
    changes : mapping
    kind : type
        Dataclass of the function's own options, whose names come first.
    others : collection of str
        Fields of the shared options that the function makes use of.

    Returns
    -------
    own, shared : dict

    Raises
    ------
    ConfigError
        A name that belongs to neither.
    """
    names = _names(kind)
    _check_names(changes, [*names, *others])
    own = {name: value for name, value in changes.items() if name in names}
    return own, {name: value for name, value in changes.items() if name not in names}


def as_written(options: Any) -> dict[str, Any]:
    """Values of checked options as a run file holds them: quantities as text with their internal unit."""
    written: dict[str, Any] = {}
    for spec in dataclasses.fields(options):
        value = getattr(options, spec.name)
        unit = f" {internal_unit(spec.metadata['dimension'])}" if "dimension" in spec.metadata else ""
        if value is None:
            written[spec.name] = "none"
        elif isinstance(value, tuple):
            written[spec.name] = [f"{part!r}{unit}" if unit else part for part in value]
        else:
            written[spec.name] = f"{value!r}{unit}" if unit else value
    return written


def _names(kind: type) -> list[str]:
    return [spec.name for spec in dataclasses.fields(kind)]


def _check_names(changes: Mapping[str, Any], names: Collection[str]) -> None:
    for name in changes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else "choose one of these"
            raise ConfigError(f"options {', '.join(names)}", repr(name), hint)
