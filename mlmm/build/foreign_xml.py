"""XML files of others: what would run Python code inside OpenMM is found before OpenMM reads it.

OpenMM executes ``<Script>`` and ``<InitializationScript>`` of a force field, evaluates its
``useDispersionCorrection``, and unpickles a PythonForce of a serialised System.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any
from xml.parsers import expat

import openmm
from openmm.app import forcefield as openmm_forcefield

from mlmm.errors import ConfigError, StructureError

__all__ = ["check_force_field_files", "read_serialised"]

_SCRIPTS = ("Script", "InitializationScript")
_EVALUATED = "useDispersionCorrection"
_SWITCHES = ("true", "false", "0", "1")
_Found = Callable[[str, dict[str, str], int], None]


def check_force_field_files(files: Iterable[str | Path], trust: bool = False) -> None:
    """Refuse force fields that run Python code; files that they include are read as OpenMM finds them.

    Force fields in the folders of OpenMM, of installed packages and of this one are trusted.

    Parameters
    ----------
    files : iterable of path
        As for `openmm.app.ForceField`.
    trust : bool
        Let every file pass.

    Raises
    ------
    ConfigError
        Code in a file, by file and line, or a file that is no XML.
    """
    waiting = [str(file) for file in files]
    seen: set[Path] = set()
    while waiting and not trust:
        path = _located(waiting.pop(0))
        if path is None or path.resolve() in seen:
            continue  # a missing file is OpenMM's to name
        seen.add(path.resolve())
        if not _shipped(path):
            for included in _checked_includes(path):
                beside = path.parent / included
                waiting.append(str(beside) if beside.is_file() else included)


def read_serialised(text: str, kind: str, name: str) -> Any:
    """A System or State from OpenMM's XML, in which nothing but OpenMM's own classes may be made.

    OpenMM's parser is more lenient than expat. Comments and the like, which the two read differently and
    OpenMM never writes, are refused, so that both see the same elements.

    Parameters
    ----------
    text : str
    kind : {"System", "State"}
    name : str
        Of the file, for the message.

    Raises
    ------
    StructureError
        Other XML, or a force that holds code or belongs to a plugin.
    openmm.OpenMMException
        From OpenMM's own reader.
    """
    expected = f"an OpenMM {kind} as XML that holds OpenMM's own classes alone"
    write = "write it with openmm.XmlSerializer.serialize, without forces in Python, torch or plugins"
    strange = re.search(r"<!|<\?(?!xml )", text)
    if strange:
        line = text.count("\n", 0, strange.start()) + 1
        raise StructureError(
            expected,
            f"a comment, declaration or instruction in {name}, line {line}",
            f"delete it, or {write}",
        )
    kinds: list[str | None] = []

    def found(tag: str, attributes: dict[str, str], line: int) -> None:
        made = attributes.get("type")
        kinds.append(made)
        # Numbers are types of particles.
        if made is not None and not made.isdigit() and made not in {kind, *_own_classes()}:
            raise StructureError(expected, f"a {made} in {name}, line {line}", write)

    try:
        _parse(text.encode(), found)
    except expat.ExpatError as error:
        raise StructureError(expected, f"{name}: {error}", write) from error
    if kinds[0] != kind:
        raise StructureError(expected, f"a serialised {kinds[0]} in {name}", write)
    return openmm.XmlSerializer.deserialize(text)


@cache
def _own_classes() -> frozenset[str]:
    """Forces and functions that hold numbers and formulas, not code."""
    base = (openmm.Force, openmm.TabulatedFunction)
    names = {name for name, own in vars(openmm).items() if isinstance(own, type) and issubclass(own, base)}
    return frozenset(names - {"PythonForce", "Force", "TabulatedFunction"})


def _located(file: str) -> Path | None:
    """Where OpenMM finds a file: by its path, else in its own folders."""
    for folder in ("", *openmm_forcefield._getDataDirectories()):
        if (path := Path(folder) / file).is_file():
            return path
    if Path(file).exists():
        raise ConfigError("a force-field file", f"{file}, which is no regular file", "give an XML file")
    return None


def _shipped(path: Path) -> bool:
    folders = [Path(folder).resolve() for folder in openmm_forcefield._getDataDirectories()]
    folders.append(Path(__file__).resolve().parents[1] / "data")
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def _checked_includes(path: Path) -> list[str]:
    included = []

    def found(tag: str, attributes: dict[str, str], line: int) -> None:
        code = f"<{tag}>" if tag in _SCRIPTS else ""
        value = attributes.get(_EVALUATED, "true")
        if value.strip().lower() not in _SWITCHES:
            code = f"{_EVALUATED}={value!r}"
        if code:
            raise ConfigError(
                "a force field without code, or trust in its source",
                f"{code} in {path}, line {line}, which OpenMM runs as Python code",
                "read it; if you trust its source: trust=True in Python, or trust = true in [system]",
            )
        if tag == "Include":
            included.append(attributes.get("file", ""))

    try:
        _parse(path.read_bytes(), found)
    except (OSError, expat.ExpatError) as error:
        raise ConfigError(
            "an OpenMM force-field file (XML)",
            f"{path.name}: {error}",
            "write it with ParmEd or openmmforcefields",
        ) from error
    return included


def _parse(content: bytes, found: _Found) -> None:
    """Call `found` with name, attributes and line of every element."""
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: found(tag, attributes, parser.CurrentLineNumber)
    parser.Parse(content, True)
