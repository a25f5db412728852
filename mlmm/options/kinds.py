"""Kinds of options: which values a key takes, in a run file and in Python, and what a wrong one is answered.

Only the standard library is imported here.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmm import units
from mlmm.errors import ConfigError

__all__ = ["Choice", "Flag", "Many", "Number", "Option", "Quantity", "Text", "toml"]

_BONDS = re.compile(r"^\s*\d+\s*bonds?\s*$")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One key: what it is for and which values it takes.

    Parameters
    ----------
    help : str
        What the key is for, in one line.
    example : object
        A value to write, where the default is empty.
    optional : bool
        In Python None stands for a default that is not set.
    kinds : mapping of str to object
        Of [zones]: the kinds of zone that have this key, with its default in each.
    section, key : str
        Section of a run file and name there, where a class holds options of several or under other names;
        section "none": only a keyword in Python.
    """

    help: str
    example: Any = None
    optional: bool = False
    kinds: Mapping[str, Any] = field(default_factory=dict)
    section: str = ""
    key: str = ""

    @property
    def values(self) -> str:
        """The values that it takes, in words."""
        raise NotImplementedError

    def accepts(self, value: Any) -> bool:
        """Return True for a value of the right type."""
        raise NotImplementedError

    def check(self, name: str, value: Any, where: str = "") -> Any:
        """Check a value of a run file and return it as it is kept: text stays text, with its unit.

        Raises
        ------
        ConfigError
            Another type, a word that is none of the choices, a number out of bounds, or another unit.
        """
        if not self.accepts(value):
            raise ConfigError(f"{name} as {self.values}{where}", repr(value), self._advice(name, value))
        return tuple(value) if isinstance(value, list) else value

    def located(self, value: Any, find: Callable[[str], str]) -> Any:
        """Return the value with every file that it names replaced by `find(name)`."""
        return value

    def parse(self, name: str, value: Any) -> Any:
        """Check the value of a Python keyword; quantities become internal units. Errors as `check`."""
        if value is None and self.optional:
            return None
        return self.check(name, value)

    def _advice(self, name: str, value: Any) -> str:
        return f"correct {name}" if self.example is None else f"write {name} = {toml(self.example)}"


@dataclass(frozen=True, kw_only=True)
class Text(Option):
    """Any text.

    Parameters
    ----------
    path : bool
        A file, looked for beside the run file first.
    missing : str
        What to do where there must be such a file and is none.
    """

    path: bool = False
    missing: str = ""

    @property
    def values(self) -> str:
        return "the path of a file" if self.path else "text"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str)

    def located(self, value: Any, find: Callable[[str], str]) -> Any:
        return find(value) if self.path and value else value

    def parse(self, name: str, value: Any) -> Any:
        return super().parse(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


@dataclass(frozen=True, kw_only=True)
class Flag(Option):
    """True or false."""

    @property
    def values(self) -> str:
        return "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)

    def _advice(self, name: str, value: Any) -> str:
        return f"write {name} = true or {name} = false, without quotes"


@dataclass(frozen=True, kw_only=True)
class Number(Option):
    """A number without unit.

    Parameters
    ----------
    whole : bool
    least, above, most : float, optional
        Smallest value, a bound that itself is excluded, largest value.
    several, rising : bool
        In Python a list of them, a tuple once it has been checked; one that rises from 0 to 1.
    """

    whole: bool = False
    least: float | None = None
    above: float | None = None
    most: float | None = None
    several: bool = False
    rising: bool = False

    @property
    def values(self) -> str:
        return "a whole number" if self.whole else "a number"

    @property
    def bounds(self) -> str:
        """The bounds in words, or nothing."""
        return _bounds(self.least, self.above, self.most)

    def accepts(self, value: Any) -> bool:
        if isinstance(value, bool):
            return False
        # numpy's numbers too, without importing numpy.
        return hasattr(value, "__index__") or (not self.whole and hasattr(value, "__float__"))

    def check(self, name: str, value: Any, where: str = "") -> Any:
        super().check(name, value, where)
        if not _within(value, self.least, self.above, self.most):
            raise ConfigError(f"{name} {self.bounds}{where}", f"{value:g}", self._advice(name, value))
        return value

    def parse(self, name: str, value: Any) -> Any:
        if not self.several:
            return super().parse(name, value)
        found = _each(self, name, value)
        whole = len(found) >= 2 and found[0] == 0.0 and found[-1] == 1.0
        if self.rising and not (whole and all(a < b for a, b in itertools.pairwise(found))):
            raise ConfigError(
                f"{name} that rise from 0 to 1", str(list(found)), f"write {name} = (0, 0.5, 1)"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Quantity(Option):
    """A number with its unit.

    Parameters
    ----------
    dimension : str
        As `mlmm.units.parse` takes it.
    least, above : float, optional
        Smallest value, or a bound that itself is excluded, in internal units.
    none : bool
        Or none: ``"none"``, in Python also None, which it becomes.
    several : bool
        In Python a list of them, a tuple once it has been checked.
    bonds : bool
        Or a number of bonds, ``"2 bonds"``.
    words : tuple of str
        Or one of these; whoever has such an option converts the lengths, which stay as they were written.
    """

    dimension: str
    least: float | None = None
    above: float | None = None
    none: bool = False
    several: bool = False
    bonds: bool = False
    words: tuple[str, ...] = ()

    @property
    def values(self) -> str:
        words = [*self.words, *["none"] * self.none]
        others = ['"2 bonds"'] * self.bonds + [f'"{word}"' for word in words]
        known = f"{self.dimension} ({', '.join(units.names(self.dimension))})"
        return " or ".join([f"{units.article(self.dimension)} {known}", *others])

    @property
    def bounds(self) -> str:
        """The bounds in words, or nothing."""
        return _bounds(self.least, self.above, None, f" {units.internal_unit(self.dimension)}")

    def check(self, name: str, value: Any, where: str = "") -> Any:
        if not isinstance(value, str):
            raise ConfigError(
                f"{name} with its unit{where}",
                repr(value),
                f"write it in quotes, such as {name} = {toml(self.example)}",
            )
        self._number(name, value, where)
        return value

    def parse(self, name: str, value: Any) -> Any:
        if self.several:
            return _each(self, name, value)
        number = self._number(name, value, "")
        return value if self.words else number

    def _number(self, name: str, value: Any, where: str) -> float | None:
        """Internal units; None where it is empty or a word."""
        empty = (self.optional and value in ("", None)) or (self.none and value in ("none", None))
        if empty or value in self.words:
            return None
        if self.bonds and isinstance(value, str) and _BONDS.match(value):
            return None
        number = units.parse(value, self.dimension, f"{name}{where}")
        if not _within(number, self.least, self.above, None):
            raise ConfigError(f"{name} {self.bounds}{where}", str(value), self._advice(name, value))
        return number


@dataclass(frozen=True, kw_only=True)
class Choice(Option):
    """One of some words.

    Parameters
    ----------
    choices : tuple of str
        An empty one (in Python also None) is a default that depends on other keys.
    instead : mapping of str to str
        What to do for a word that one might expect here.
    """

    choices: tuple[str, ...]
    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> str:
        return " | ".join(f'"{word}"' for word in self.choices if word)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.choices

    def check(self, name: str, value: Any, where: str = "") -> Any:
        if self.accepts(value):
            return value
        words = [word for word in self.choices if word]
        near = difflib.get_close_matches(str(value), words, n=1)
        write = near[0] if near else (self.example or words[0])
        advice = self.instead.get(str(value), f'write {name} = "{write}"')
        raise ConfigError(f"{name} = {' | '.join(words)}{where}", repr(value), advice)

    def parse(self, name: str, value: Any) -> Any:
        return self.check(name, "" if value is None else value)


@dataclass(frozen=True, kw_only=True)
class Many(Option):
    """A list.

    Parameters
    ----------
    item : type
        str or int.
    single : bool
        One value without brackets is enough.
    objects : bool
        In Python the entries may be other objects, and the list a mapping; whoever uses them checks them.
    path : bool
        Entries are files, looked for beside the run file first.
    """

    item: type = str
    single: bool = False
    objects: bool = False
    path: bool = False

    @property
    def values(self) -> str:
        what = "a list of whole numbers" if self.item is int else "a list of texts"
        return f"text or {what}" if self.single else what

    def accepts(self, value: Any) -> bool:
        if self.single and isinstance(value, self.item):
            return True
        return isinstance(value, (list, tuple)) and all(
            isinstance(entry, self.item) and not isinstance(entry, bool) for entry in value
        )

    def located(self, value: Any, find: Callable[[str], str]) -> Any:
        return tuple(map(find, value)) if self.path else value

    def parse(self, name: str, value: Any) -> Any:
        if self.objects and isinstance(value, (list, tuple, Mapping)):
            return value if isinstance(value, Mapping) else tuple(value)
        if self.single and isinstance(value, (list, tuple, os.PathLike)):
            value = [os.fspath(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
        return super().parse(name, value)

    def _advice(self, name: str, value: Any) -> str:
        if isinstance(value, (self.item, os.PathLike)) and not isinstance(value, bool):
            return f"write {name} = {toml([os.fspath(value) if isinstance(value, os.PathLike) else value])}"
        return f"write {name} = {toml(self.example)}"


def _each(option: Any, name: str, value: Any) -> tuple[Any, ...]:
    """Each of several numbers or quantities, in internal units; one alone counts as a list of one."""
    single = dataclasses.replace(option, several=False)
    parts = [value] if isinstance(value, (str, int, float)) else list(value)
    return tuple(single.parse(name, part) for part in parts)


def _within(value: float, least: float | None, above: float | None, most: float | None) -> bool:
    """Return True between the bounds; NaN never is."""
    inside = (least is None or value >= least) and (above is None or value > above)
    return inside and (most is None or value <= most) and value == value


def _bounds(least: float | None, above: float | None, most: float | None, unit: str = "") -> str:
    if above is not None:
        return f"above {above:g}{unit}" + ("" if most is None else f" and at most {most:g}{unit}")
    if most is not None:
        return f"between {least:g} and {most:g}{unit}" if least is not None else f"of {most:g}{unit} at most"
    return "" if least is None else f"of {least:g}{unit} or more"


def toml(value: Any) -> str:
    """A value as it is written in a run file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
