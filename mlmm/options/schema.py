"""Schemas: frozen dataclasses whose fields are options, and how keywords or a table are checked against one.

A class of options declares its fields with `quantity`, `number`, `word`, `setting` or `section` and calls
`check_fields` in ``__post_init__``: quantities become numbers in internal units, and a value out of range is
refused. Only the standard library is imported here, since run files are read before any numerical library
starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlmm.errors import ConfigError
from mlmm.options.kinds import Choice, Flag, Many, Number, Option, Quantity, Text, toml
from mlmm.options.tables import Table
from mlmm.units import internal_unit

__all__ = [
    "Section",
    "as_written",
    "check_fields",
    "check_names",
    "check_section",
    "default_of",
    "documented",
    "fields_of",
    "number",
    "options_of",
    "quantity",
    "rising",
    "section",
    "setting",
    "split_changes",
    "with_changes",
    "word",
]

_Options = TypeVar("_Options")


@dataclass(frozen=True, kw_only=True)
class Section(Option):
    """A table with a schema of its own; `named`: several of them by name, [section.key.NAME]."""

    schema: type
    named: bool = False

    @property
    def values(self) -> str:
        keys = ", ".join(options_of(self.schema))
        return ("a table for each name" if self.named else "a table") + f" with the keys {keys}"

    def accepts(self, value: Any) -> bool:
        tables = value.values() if self.named and isinstance(value, Mapping) else [value]
        return all(isinstance(table, Mapping) for table in tables)

    def check(self, name: str, value: Any, where: str = "") -> dict[str, Any]:
        super().check(name, value, where)
        if not self.named:
            return check_section(self.schema, value, f"{where or ' in'} {name}")
        return {
            key: check_section(self.schema, table, f"{where or ' in'} {name}.{key}")
            for key, table in value.items()
        }

    def located(self, value: Any, find: Callable[[str], str]) -> Any:
        known = options_of(self.schema)
        if not self.named:
            return {key: known[key].located(entry, find) for key, entry in value.items()}
        return {
            name: {key: known[key].located(entry, find) for key, entry in table.items()}
            for name, table in value.items()
        }

    def parse(self, name: str, value: Any) -> Any:
        """Leave a mapping or an instance alone: its own class makes and checks it."""
        return {} if value is None else value


def quantity(default: Any, dimension: str, help: str, **facts: Any) -> Any:
    """Declare a field with a physical dimension; `facts` as `mlmm.options.kinds.Quantity` takes them."""
    return _declared(default, Quantity, dimension=dimension, help=help, **facts)


def number(default: Any, help: str, **facts: Any) -> Any:
    """Declare a field with a number without unit, or several; whole if the default (or example) is."""
    known = facts["example"] if default is None else default
    whole = isinstance(known[0] if facts.get("several") else known, int)
    return _declared(default, Number, whole=whole, help=help, **facts)


def rising(default: tuple[float, ...], help: str, **facts: Any) -> Any:
    """Declare a field with numbers that rise from 0 to 1, such as values of lambda."""
    return number(default, help, several=True, rising=True, **facts)


def word(default: str, choices: Collection[str], help: str, **facts: Any) -> Any:
    """Declare a field with one of some words."""
    return _declared(default, Choice, choices=tuple(choices), help=help, **facts)


def setting(default: Any, help: str, **facts: Any) -> Any:
    """Declare a field with text, a switch, a list or a table, as its default is (a tuple for a list).

    `kind` in `facts` is another class of `Option` for it.
    """
    kinds: dict[type, type[Option]] = {str: Text, bool: Flag, tuple: Many, dict: Table}
    kind = facts.pop("kind", Many if facts.get("single") else kinds[type(default)])
    return _declared(default, kind, help=help, **facts)


def section(schema: type, help: str, **facts: Any) -> Any:
    """Declare a field with a table that has a schema of its own."""
    return _declared({}, Section, schema=schema, help=help, **facts)


def _declared(default: Any, kind: type[Option], **facts: Any) -> Any:
    if "example" not in facts and default not in ("", (), {}, None):
        facts["example"] = default
    metadata = {"option": kind(**facts)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(schema: type, section: str = "") -> dict[str, Option]:
    """Keys of a run file that a class of options has, in order; those of one section if one is named."""
    found = {}
    for spec in _declared_fields(schema):
        entry = spec.metadata["option"]
        if entry.section != "none" and (not section or entry.section in ("", section)):
            found[entry.key or spec.name] = entry
    return found


def fields_of(schema: type, section: str = "") -> dict[str, str]:
    """Name of the field for every key of a run file; arguments as for `options_of`."""
    keys = options_of(schema, section)
    names = {(spec.metadata["option"].key or spec.name): spec.name for spec in _declared_fields(schema)}
    return {key: names[key] for key in keys}


def default_of(schema: type, name: str) -> Any:
    """Default of a field."""
    (spec,) = (spec for spec in dataclasses.fields(schema) if spec.name == name)
    return spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()


def check_fields(options: Any, prefix: str = "") -> None:
    """Convert quantities of a frozen dataclass to internal units and check every field.

    Parameters
    ----------
    options : dataclass
    prefix : str
        Before every name in a message, such as ``"droplet."``.

    Raises
    ------
    ConfigError
        A quantity without unit or of another dimension, a word that is no choice, a value out of bounds, or
        one of another type.
    """
    for spec in _declared_fields(options):
        value = spec.metadata["option"].parse(prefix + spec.name, getattr(options, spec.name))
        object.__setattr__(options, spec.name, value)


def check_section(
    schema: type, values: Mapping[str, Any], where: str, listing: str = "", section: str = ""
) -> dict[str, Any]:
    """Check the keys of a table of a run file; returns values by field, text as it is written.

    Parameters
    ----------
    schema : type
    values : mapping
    where : str
        End of every message, such as " in run.toml [run]".
    listing : str
        Where all keys are listed, for a key that resembles none.
    section : str
        As for `options_of`.

    Raises
    ------
    ConfigError
        A key that does not exist, or as `Option.check`.
    """
    known, names = options_of(schema, section), fields_of(schema, section)
    check_names(values, known, f"a known key{where}", listing)
    return {names[key]: known[key].check(key, value, where) for key, value in values.items()}


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
    check_names(changes, _fields(kind) if used is None else used, f"an option of {kind.__name__}")
    if options is None:
        return kind(**changes)
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


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
    own = _fields(kind)
    check_names(changes, [*own, *others], f"an option of {kind.__name__}")
    mine = {name: value for name, value in changes.items() if name in own}
    return mine, {name: value for name, value in changes.items() if name not in own}


def check_names(given: Iterable[str], known: Collection[str], expected: str, listing: str = "") -> None:
    """Refuse a name that is unknown (ConfigError), with the nearest one that is not."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else listing or f"choose {', '.join(known)}"
            raise ConfigError(expected, repr(name), advice)


def as_written(options: Any) -> dict[str, Any]:
    """Values of checked options as a run file holds them: quantities as text with their internal unit."""
    written: dict[str, Any] = {}
    for spec in dataclasses.fields(options):
        value, entry = getattr(options, spec.name), spec.metadata.get("option")
        unit = f" {internal_unit(entry.dimension)}" if isinstance(entry, Quantity) else ""
        if value is None:
            written[spec.name] = "" if getattr(entry, "optional", False) else "none"
        elif isinstance(value, tuple):
            written[spec.name] = [f"{part!r}{unit}" if unit else part for part in value]
        else:
            written[spec.name] = f"{value!r}{unit}" if unit and not isinstance(value, str) else value
    return written


def documented(schema: Any) -> Any:
    """Class decorator: the docstring lists every option with its values and help, from the fields."""
    lines = [inspect.cleandoc(schema.__doc__ or ""), "", "Parameters", "----------"]
    for spec in _declared_fields(schema):
        entry = spec.metadata["option"]
        lines.append(f"{spec.name} : {entry.values}; by default {toml(default_of(schema, spec.name))}")
        lines.append(textwrap.fill(entry.help, 104, initial_indent="    ", subsequent_indent="    "))
    schema.__doc__ = "\n".join(lines)
    return schema


def _declared_fields(schema: Any) -> list[dataclasses.Field[Any]]:
    return [spec for spec in dataclasses.fields(schema) if "option" in spec.metadata]


def _fields(kind: Any) -> list[str]:
    return [spec.name for spec in dataclasses.fields(kind)]
