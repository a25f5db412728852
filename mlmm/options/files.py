"""Files of options: TOML, ``--set section.key=value``, sections; only the standard library is imported."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError
from mlmm.options.schema import check_section

__all__ = ["beside", "check_is_table", "check_table", "override_entry", "read_toml", "set_value"]


def beside(name: str, folder: Path) -> str:
    """A file that is looked for in a folder first, where it is found there; else the name as it is."""
    path = folder / name
    return str(path.resolve()) if name and path.exists() else name


def read_toml(path: Path, what: str, advice: str) -> dict[str, Any]:
    """Content of a file in TOML.

    Parameters
    ----------
    path : Path
    what, advice : str
        Which file it should be, and how to come by one, for the error.

    Raises
    ------
    ConfigError
        No such file, or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"TOML in {path}", str(error), "correct that line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} in TOML", f"{path}: {error}", advice) from error


def override_entry(override: str, example: str) -> tuple[str, str, Any]:
    """Section, key and value of ``section.key=value``; a value that is no TOML is text.

    Parameters
    ----------
    override : str
    example : str
        One that is right, for the error.

    Raises
    ------
    ConfigError
        Another form.
    """
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError("--set section.key=value", repr(override), f"try --set {example}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # the shell has taken the quotes away
    return section, key, value


def set_value(content: dict[str, Any], override: str, example: str) -> None:
    """Write ``section.key=value`` into the content of a file; arguments and errors as `override_entry`."""
    section, key, value = override_entry(override, example)
    table = content.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"a section [{section}]", repr(table), f"write [{section}] above its keys")
    table[key] = value


def check_table(schema: type, table: Any, path: str, name: str, listing: str = "") -> dict[str, Any]:
    """The checked values of a section, by field.

    Parameters
    ----------
    schema : type
        Class of options.
    table : object
        What stands under [name] in the file; anything but a table is refused.
    path, name : str
        File and section, for errors.
    listing : str
        Where all keys are listed.

    Raises
    ------
    ConfigError
        No table, an unknown key, or a value of another type or unit.
    """
    return check_section(schema, check_is_table(table, path, name), f" in {path} [{name}]", listing, name)


def check_is_table(table: Any, path: str, name: str) -> dict[str, Any]:
    """A copy of what stands under [name] in a file; ConfigError if it is no table."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"a section [{name}] in {path}", repr(table), f"write [{name}] above its keys")
    return dict(table)
