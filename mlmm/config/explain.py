"""The schema of a run file as text: a page for `mlmm config`, lines for ``--help``, a file to start from.

Only the standard library is imported here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from mlmm.config.schema import SECTIONS, TABLES
from mlmm.config.search_sections import REACTIONS
from mlmm.options import Option, check_names, default_of, fields_of, options_of, toml

__all__ = ["explain", "key_lines", "option_page", "start_file"]

_WIDTH = 100
_COLUMN = 34  # of the help in a line of ``--help``
#: Keys besides those with a value that a file to start from shows.
_START = {
    *("system.chains", "system.waters", "system.ligands", "system.padding", "system.ionic_strength"),
    *("region.complete", "zones.kind", "zones.plateau", "zones.width", "embedding.scheme"),
    *("run.seed", "run.equilibrate", "run.timestep", "run.temperature", "run.ensemble", "run.platform"),
    *("report.interval", "report.trajectory_interval", "uncertainty.force", "uncertainty.action"),
}


def explain(section: str = "") -> str:
    """Every key of one section, or of all: default, values that it takes, what it is for.

    Raises
    ------
    ConfigError
        No such section.
    """
    if section:
        name = section.strip("[]")
        known = [*SECTIONS, *TABLES, *REACTIONS]
        check_names([name], known, "a section of a run file", f"the sections are {', '.join(known)}")
        return "\n".join(_page(name))
    return "\n\n".join("\n".join(_page(name)) for name in (*SECTIONS, *TABLES, *REACTIONS))


def _page(section: str) -> Iterator[str]:
    yield f"{_header(section)}  {_purpose(section)}"
    yield from _entries(_keys(section))


def option_page(schema: type) -> str:
    """Every option of a class: default, values that it takes, what it is for."""
    return "\n".join(_entries(_keys_of(schema))).lstrip("\n")


def _entries(keys: Iterable[tuple[str, Option, str]]) -> Iterator[str]:
    for key, entry, default in keys:
        yield f"\n  {key} = {default}" if default else f"\n  {key}    (not set)"
        values = entry.values
        bounds = getattr(entry, "bounds", "")
        facts = f"{values} {bounds}" if bounds else values
        if entry.kinds:
            facts += f"; zones of kind {_by_kind(entry.kinds)}"
        if entry.example is not None and toml(entry.example) != default:
            facts += f"; for example {toml(entry.example)}"
        for text in (_sentence(entry.help), _sentence(facts)):
            yield textwrap.fill(text, _WIDTH, initial_indent="      ", subsequent_indent="      ")
        inner = getattr(entry, "schema", None)
        if inner is not None:
            for name, below in options_of(inner).items():
                text = f"{name}: {below.help} ({below.values})"
                yield textwrap.fill(text, _WIDTH, initial_indent="        ", subsequent_indent="          ")


def key_lines(*sections: str) -> str:
    """One entry for each key, under the name that ``--set`` takes, for the help of a verb."""
    lines = []
    for section in sections:
        lines.append(f"{_header(section)}  {_purpose(section)}")
        inner = ".NAME" if section in TABLES else ""
        for key, entry, default in _keys(section):
            left = f"  {section}{inner}.{key} = {default}" if default else f"  {section}{inner}.{key}"
            indent = " " * _COLUMN
            if len(left) > _COLUMN - 2:
                lines.append(left)
                left = ""
            text = entry.help + (f" ({_by_kind(entry.kinds)})" if entry.kinds else "")
            lines.append(
                textwrap.fill(text, _WIDTH, initial_indent=left.ljust(_COLUMN), subsequent_indent=indent)
            )
    return "\n".join(lines)


def start_file(values: Mapping[str, object], notes: Mapping[str, str]) -> str:
    """A commented run file: a few keys of every section, most of them as they are by default.

    Parameters
    ----------
    values : mapping
        What is known of the system, by "section.key", such as ``{"system.pdb": "input.pdb"}``.
    notes : mapping
        Comments above a key, by "section.key".
    """
    lines = ["# A run of mlmm. Lines that begin with # show what else may be set."]
    lines += ["#   mlmm config --explain            every key, with unit, choices and meaning"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        for key, entry, default in _keys(section):
            name = f"{section}.{key}"
            if name not in values and name not in _START:
                continue
            lines += _comment(notes.get(name, _sentence(entry.help)))
            empty = default in ("", '""', "[]", "{}")
            shown = toml(entry.example) if empty and entry.example is not None else default
            lines.append(f"{key} = {toml(values[name])}" if name in values else f"# {key} = {shown}")
    return "\n".join(lines) + "\n"


def _keys(section: str) -> Iterator[tuple[str, Option, str]]:
    """Key, option and default as text (empty where there is none) of a section."""
    yield from _keys_of(_schema(section), section)


def _keys_of(schema: type, section: str = "") -> Iterator[tuple[str, Option, str]]:
    fields = fields_of(schema, section)
    for key, entry in options_of(schema, section).items():
        default = default_of(schema, fields[key])
        yield key, entry, "" if default is None else toml(default)


def _schema(section: str) -> type:
    tables = TABLES | REACTIONS
    return tables[section] if section in tables else SECTIONS[section][0]


def _purpose(section: str) -> str:
    if section == "report":
        return "How often a run writes rows, frames and checkpoints."
    schema = _schema(section)
    return (schema.__doc__ or "").strip().splitlines()[0]


def _header(section: str) -> str:
    return {"variable": "[variable.NAME]", "restraint": "[[restraint]]"}.get(section, f"[{section}]")


def _by_kind(kinds: Mapping[str, object]) -> str:
    return ", ".join(f"{kind}: {toml(value)}" if value else kind for kind, value in kinds.items())


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
