"""The TOML file of a run: read, checked against its schema, with its files found.

Only the standard library is imported here: the command line reads the number of threads before the numerical
libraries start.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlmm.build.options import ForceOptions
from mlmm.config.schema import (
    FILES_OF,
    SECTIONS,
    TABLES,
    RunConfig,
    SourceSettings,
    SystemSettings,
    ZoneSettings,
)
from mlmm.config.search_sections import REACTIONS
from mlmm.config.tables import check_tables, find_files, set_in_table
from mlmm.errors import ConfigError
from mlmm.options import check_names, default_of, fields_of, options_of
from mlmm.options.files import beside, check_table, override_entry, read_toml, set_value
from mlmm.options.kinds import toml

__all__ = ["load_config", "structure_config"]


def structure_config(pdb: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Settings for building one structure, without a run file.

    Parameters
    ----------
    pdb : str
        Path or PDB id.
    overrides : sequence of str
        ``section.key=value``, as given with ``--set``.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    content: dict[str, Any] = {}
    for override in overrides:
        _override(content, override)
    content.setdefault("system", {})["pdb"] = pdb
    return _checked(content, "--set", Path("."), needs=("system.pdb",))


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    needs: Sequence[str] = ("system.pdb", "region.select"),
) -> RunConfig:
    """Read and check a run file.

    Parameters
    ----------
    path : path
        TOML file.
    overrides : sequence of str
        ``section.key=value``, as given with ``--set``.
    needs : sequence of str
        Keys that have no default; building alone needs no region.

    Raises
    ------
    ConfigError
        No such file, no TOML, an unknown section or key, a value of another type or unit, or no structure or
        region.
    """
    path = Path(path)
    content = read_toml(path, "a run file", "give the path of a run.toml, or write one with mlmm init")
    for override in overrides:
        _override(content, override)
    return _checked(content, str(path), path.parent, needs)


def _checked(content: dict[str, Any], path: str, folder: Path, needs: Sequence[str]) -> RunConfig:
    """Sections from a table; a key of `needs` without a value is an error."""
    known = [*SECTIONS, *TABLES, *REACTIONS]
    check_names(content, known, f"sections {', '.join(f'[{name}]' for name in known)} in {path}")
    tables = check_tables(content, path)
    tables["reactions"] = {
        name: _section(schema, content[name], path, name)
        for name, schema in REACTIONS.items()
        if name in content
    }
    content = {name: table for name, table in content.items() if name in SECTIONS}
    values: dict[str, dict[str, Any]] = {attribute: {} for _, attribute in SECTIONS.values()}
    for name, table in content.items():
        schema, attribute = SECTIONS[name]
        values[attribute] |= _section(schema, table, path, name)
    made = {attribute: schema(**values[attribute]) for schema, attribute in SECTIONS.values()}
    made["zones"] = _with_defaults(made["zones"], content.get("zones", {}), f" in {path} [zones]")
    config = RunConfig(**made, **tables)
    _check_sources(config.system, f" in {path} [system]")
    for key in needs:
        section, _, name = key.partition(".")
        instead = (config.system.smiles or config.system.parametrised) if key == "system.pdb" else ""
        if not getattr(getattr(config, section), name) and not instead:
            raise ConfigError(f"{key} in {path}", "nothing", f'add {name} = "…" to [{section}]')
    return _with_paths(config, folder)


def _section(schema: type, table: Any, path: str, name: str) -> dict[str, Any]:
    """The checked values of one section."""
    return check_table(schema, table, path, name, f"mlmm config --explain {name}, which lists the keys")


def _check_sources(system: SystemSettings, where: str) -> None:
    """A structure that is built, or the files of one system that has its parameters."""
    given = {key for key in options_of(SourceSettings) if getattr(system, key)}
    kind = system.parametrised
    needed, possible = FILES_OF.get(kind, ((), ()))
    allowed = {kind, *needed, *possible} if kind else {"pdb", "smiles"}
    if given - allowed or not {*needed} <= given:
        raise ConfigError(
            "pdb, or "
            + ", or ".join(" and ".join((key, *others)) for key, (others, _) in FILES_OF.items())
            + where,
            ", ".join(
                f"{key} = {toml(getattr(system, key))}" for key in options_of(SourceSettings) if key in given
            ),
            f"add {' and '.join(key for key in needed if key not in given)}"
            if given <= allowed
            else "give the files of one system",
        )
    if not kind:
        return
    used = {*options_of(SourceSettings)} | ({*options_of(ForceOptions)} if kind != "xml" else set())
    for name in fields_of(SystemSettings).values():
        if name not in used and getattr(system, name) != default_of(SystemSettings, name):
            raise ConfigError(
                f"no {name}{where} with a system that has its parameters",
                f"{name} = {getattr(system, name)!r}",
                "leave it out, or build from a structure file alone",
            )


def _with_defaults(zones: ZoneSettings, written: Mapping[str, Any], where: str) -> ZoneSettings:
    """Defaults of the kind filled in; a key of another kind is refused."""
    known = {"kind": "", **ZoneSettings.keys_of(zones.kind)}
    for key in written:
        if key not in known:
            kinds = list(options_of(ZoneSettings)[key].kinds)
            what = f"kind {zones.kind!r}" if "kind" in written else 'no kind, which means "auto"'
            advice = " or ".join(f'kind = "{kind}"' for kind in kinds)
            raise ConfigError(
                f"{key} with {' or '.join(kinds)} zones only{where}", what, f"write {advice}, or leave it out"
            )
    if zones.kind == "residues" and not zones.residues:
        raise ConfigError(
            f"residues{where}",
            "none",
            'add the table [zones.residues] with lines such as "resid 3" = 0.5, from selection to lambda',
        )
    zones = zones.of_kind(zones.kind)
    in_bonds = ["bond" in length for length in (zones.plateau, zones.width) if length]
    if zones.kind == "adaptive" and any(in_bonds):
        raise ConfigError(
            f"plateau and width of an adaptive zone in nm{where}",
            f"{zones.plateau!r} and {zones.width!r}",
            'write plateau = "0.4 nm" and width = "0.5 nm"',
        )
    if len(set(in_bonds)) > 1:
        raise ConfigError(
            f"plateau and width in one unit{where}",
            f"{zones.plateau!r} and {zones.width!r}",
            'write both in nm, or both as "2 bonds"',
        )
    return zones


def _override(content: dict[str, Any], override: str) -> None:
    """Write ``section.key=value`` into the content of a file; ConfigError for another form."""
    example = 'run.timestep="1 fs"'
    if not set_in_table(content, *override_entry(override, example)):
        set_value(content, override, example)


def _with_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Files are looked for beside the run file first; the builder looks for the others."""

    find = partial(beside, folder=folder)
    changed = {}
    for schema, attribute in dict.fromkeys(SECTIONS.values()):
        settings, fields = getattr(config, attribute), fields_of(schema)
        found = {}
        for key in options_of(schema):
            value = getattr(settings, fields[key])
            found[fields[key]] = _found(schema, key, value, find, folder)
        changed[attribute] = dataclasses.replace(settings, **found)
    changed["reactions"] = {
        name: {key: _found(REACTIONS[name], key, value, find, folder) for key, value in table.items()}
        for name, table in config.reactions.items()
    }
    system = changed["system"]
    if system.pdb:
        changed["system"] = dataclasses.replace(system, pdb=_structure_path(system.pdb, folder))
    return dataclasses.replace(config, **changed, **find_files(config, find))


def _found(schema: type, key: str, value: Any, find: Any, folder: Path) -> Any:
    """A value of a section, its files found."""
    entry = options_of(schema)[key]
    found = entry.located(value, find)
    missing = getattr(entry, "missing", "")
    if missing and value and not Path(found).exists():
        raise ConfigError(f"a {key} beside the run file in {folder}", f"no file {value}", missing)
    return found


def _structure_path(name: str, folder: Path) -> str:
    """A file beside the run file; else a bare name for the builder to find, such as a PDB id."""
    folders = os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep)
    elsewhere = "." not in name or any(Path(other, name).is_file() for other in folders if other)
    if not (folder / name).exists() and Path(name).name == name and elsewhere:
        return name
    return str((folder / name).resolve())
