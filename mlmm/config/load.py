"""The TOML file of a run: every key, its default, its unit; an unknown key is an error.

Only the standard library is imported here: the command line reads the number of threads before the numerical
libraries start.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmm.config.schema import SCHEMES, ZONE_KINDS, EmbeddingSettings, RunConfig, SystemSettings, ZoneSettings
from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = [
    "SCHEMES",
    "ZONE_KINDS",
    "EmbeddingSettings",
    "RunConfig",
    "ZoneSettings",
    "load_config",
    "structure_config",
]

_SOURCES = ("pdb", "xml", "prmtop", "inpcrd")
_BONDS = re.compile(r"^\s*\d+\s*bonds?\s*$")


_SECTIONS = {f.name: f.default_factory for f in dataclasses.fields(RunConfig)}


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
        _apply(content, override)
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
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"TOML in {path}", str(error), "correct that line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("a run file in TOML", f"{path}: {error}", "give the path of a run.toml") from error
    for override in overrides:
        _apply(content, override)
    return _checked(content, str(path), path.parent, needs)


def _checked(content: dict[str, Any], path: str, folder: Path, needs: Sequence[str]) -> RunConfig:
    """Sections from a table; a key of `needs` without a value is an error."""
    sections = {}
    for name, values in content.items():
        if name not in _SECTIONS or not isinstance(values, Mapping):
            raise ConfigError(
                f"sections {', '.join(f'[{s}]' for s in _SECTIONS)} in {path}",
                f"{name!r}",
                _suggest(name, _SECTIONS),
            )
        if name == "zones":
            values = _with_table(values, f"{path} [zones]")
        sections[name] = _section(_SECTIONS[name], values, f"{path} [{name}]")
    config = RunConfig(**sections)
    _check_sources(config.system, path)
    for key in needs:
        section, _, name = key.partition(".")
        instead = (config.system.smiles or config.system.prmtop) if key == "system.pdb" else ""
        if not getattr(getattr(config, section), name) and not instead:
            raise ConfigError(f"{key} in {path}", "nothing", f'add {name} = "…" to [{section}]')
    zones = _checked_zones(config.zones, content.get("zones", {}), f"{path} [zones]")
    config = dataclasses.replace(config, zones=zones)
    if config.embedding.scheme != "auto":
        check_embedding(config.embedding, config.embedding.scheme)
    return _with_paths(config, folder)


def _check_sources(system: SystemSettings, path: str) -> None:
    """A structure that is built, one with an OpenMM System, or an Amber topology with its coordinates."""
    if bool(system.prmtop) != bool(system.inpcrd) or (system.prmtop and (system.pdb or system.xml)):
        given = [f'{key} = "{value}"' for key, value in vars(system).items() if key in _SOURCES and value]
        raise ConfigError(
            f"pdb, or pdb and xml, or prmtop and inpcrd in {path} [system]",
            ", ".join(given),
            "give the files of one system",
        )
    if not (system.prmtop or system.xml):
        return
    taken = {*_SOURCES, "nonbonded_cutoff", "constraints", "rigid_water", "hydrogen_mass"}
    if system.xml:
        taken = set(_SOURCES)
    for spec in dataclasses.fields(system):
        default = spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()
        if spec.name not in taken and getattr(system, spec.name) != default:
            raise ConfigError(
                f"no {spec.name} in {path} [system] with a system that has its parameters",
                f"{spec.name} = {getattr(system, spec.name)!r}",
                "leave it out, or build from a structure file alone",
            )


def check_embedding(settings: EmbeddingSettings, scheme: str) -> None:
    """Refuse what another scheme than this one would need (ConfigError)."""
    for key, owner in (("mm_tail", "additive"),):
        default = EmbeddingSettings.__dataclass_fields__[key].default
        if getattr(settings, key) != default and scheme != owner:
            raise ConfigError(
                f"embedding.{key} with scheme {owner!r} only",
                f"scheme {scheme!r}",
                f'leave {key} out, or write scheme = "{owner}"',
            )
    if settings.electrostatics == "charges" and scheme not in ("per_atom", "additive"):
        raise ConfigError(
            "embedding.electrostatics = \"charges\" with schemes 'per_atom' and 'additive' only",
            f"scheme {scheme!r}",
            'write electrostatics = "mechanical"',
        )


def _with_table(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """[zones] with `residues` as a table, also where it is written as two lists."""
    values = dict(values)
    weights, residues = values.pop("weights", None), values.get("residues")
    if isinstance(residues, list) or weights is not None:
        if not isinstance(residues, list) or not isinstance(weights, list) or len(weights) != len(residues):
            raise ConfigError(
                f"as many weights as residues in {where}",
                f"residues = {residues!r} and weights = {weights!r}",
                'write residues = ["resid 3", "resid 5"] and weights = [0.6, 0.3], or [zones.residues]',
            )
        values["residues"] = dict(zip(map(str, residues), weights, strict=True))
    return values


def _checked_zones(zones: ZoneSettings, written: Mapping[str, Any], where: str) -> ZoneSettings:
    """Defaults of the kind filled in; a key of another kind is refused."""
    known = ZONE_KINDS[zones.kind]
    for key in written:
        if key in ("kind", "weights") or key in known:
            continue
        kinds = [kind for kind, keys in ZONE_KINDS.items() if key in keys and kind != "auto"]
        what = f"kind {zones.kind!r}" if "kind" in written else 'no kind, which means "auto"'
        advice = " or ".join(f'kind = "{kind}"' for kind in kinds)
        raise ConfigError(
            f"{key} with {' or '.join(kinds)} zones only in {where}", what, f"write {advice}, or leave it out"
        )
    if zones.kind == "residues" and not zones.residues:
        raise ConfigError(
            f"residues in {where}",
            "none",
            'add the table [zones.residues] with lines such as "resid 3" = 0.5, from selection to lambda',
        )
    zones = zones.of_kind(zones.kind)
    in_bonds = [bool(_BONDS.match(length)) for length in (zones.plateau, zones.width) if length]
    if zones.kind == "adaptive" and any(in_bonds):
        raise ConfigError(
            f"plateau and width of an adaptive zone in nm in {where}",
            f"{zones.plateau!r} and {zones.width!r}",
            'write plateau = "0.4 nm" and width = "0.5 nm"',
        )
    if len(set(in_bonds)) > 1:
        raise ConfigError(
            f"plateau and width in one unit in {where}",
            f"{zones.plateau!r} and {zones.width!r}",
            'write both in nm, or both as "2 bonds"',
        )
    return zones


def _section(section: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(section)}
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"keys {', '.join(fields)} in {where}", repr(key), _suggest(key, fields))
        checked[key] = _value(fields[key], value, f"{where} {key}")
    return section(**checked)


def _value(spec: dataclasses.Field, value: Any, where: str) -> Any:
    dimension = spec.metadata.get("dimension")
    if dimension is not None:
        if not isinstance(value, str):
            raise ConfigError(
                f"{where} with its unit",
                repr(value),
                f'write it in quotes, such as {spec.name} = "{spec.metadata["example"]}"',
            )
        in_bonds = spec.metadata["bonds"] and _BONDS.match(value)
        left_out = spec.metadata["none"] and value == "none"
        if (value or spec.default) and not in_bonds and not left_out:
            parse(value, dimension, where)
        return value
    if "table" in spec.metadata:
        return _tables(spec, value, where)
    kinds = {
        "str": str,
        "int": int,
        "float": (int, float),
        "bool": bool,
        "list[str]": list,
        "list[int]": list,
        "dict[str, float]": dict,
        "dict[str, str]": dict,
        "dict[str, Any]": dict,
    }
    expected = kinds[spec.type]
    right = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    if right and expected is list:
        item = str if spec.type == "list[str]" else int
        right = all(isinstance(entry, item) and not isinstance(entry, bool) for entry in value)
    if right and spec.type == "dict[str, str]":
        right = all(isinstance(entry, str) for entry in value.values())
    if right and spec.type == "dict[str, float]":
        right = all(isinstance(entry, (int, float)) and 0 < entry <= 1 for entry in value.values())
        if not right:
            raise ConfigError(
                f"{where} as a table of weights above 0 and up to 1", repr(value), 'write "resid 3" = 0.5'
            )
    if not right:
        raise ConfigError(f"{where} as {spec.type}", repr(value), "correct the value")
    choices = spec.metadata.get("choices", (value,))
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        raise ConfigError(
            f"{spec.name} = {' | '.join(filter(None, choices))} in {where.rsplit(' ', 1)[0]}",
            repr(value),
            f'write {spec.name} = "{near[0] if near else choices[0]}"',
        )
    if spec.name.endswith("interval") and value < (0 if spec.default == 0 else 1):
        raise ConfigError(f"{where} of at least 1 step", repr(value), "correct the value")
    if spec.name in ("nonbonded_every", "reciprocal_every") and value < 1:
        raise ConfigError(f"{where} of 1 or more", repr(value), f"write {spec.name} = 1")
    if spec.name in ("minimise", "relax", "threads", "ml_threads", "seed", "model") and value < 0:
        raise ConfigError(f"{where} not negative", repr(value), "correct the value")
    return value


def _tables(spec: dataclasses.Field, value: Any, where: str) -> dict[str, dict[str, Any]]:
    """Tables within a section, by name; only the keys that were written."""
    section = spec.metadata["table"]
    if not isinstance(value, Mapping) or not all(isinstance(entry, Mapping) for entry in value.values()):
        raise ConfigError(
            f"a table for each name in {where}",
            repr(value),
            f"write [{where.split('[')[-1].split(']')[0]}."
            f"{spec.name}.NAME] and below it {spec.metadata['example']}",
        )
    for name, entry in value.items():
        _section(section, entry, f"{where}.{name}")
    return {name: dict(entry) for name, entry in value.items()}


def _apply(content: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError("--set section.key=value", repr(override), 'try --set run.timestep="1 fs"')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # the shell has taken the quotes away
    content.setdefault(section, {})[key] = value


def _suggest(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it or correct its name"


def _with_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Files are looked for beside the run file first; the builder looks for the others."""

    def resolve(name: str) -> str:
        beside = folder / name
        return str(beside.resolve()) if name and beside.exists() else name

    system = dataclasses.replace(
        config.system,
        pdb=_structure_path(config.system.pdb, folder) if config.system.pdb else "",
        **{key: resolve(getattr(config.system, key)) for key in ("xml", "prmtop", "inpcrd")},
        ligands=[resolve(name) for name in config.system.ligands],
        ligand={
            name: {
                key: resolve(text) if key in ("file", "parameters") else text for key, text in entry.items()
            }
            for name, entry in config.system.ligand.items()
        },
    )
    zones = dataclasses.replace(config.zones, compensation=resolve(config.zones.compensation))
    uncertainty = dataclasses.replace(
        config.uncertainty, training_set=resolve(config.uncertainty.training_set)
    )
    potential = dataclasses.replace(config.potential, name=resolve(config.potential.name))
    if config.zones.compensation and not Path(zones.compensation).exists():
        raise ConfigError(
            f"a compensation beside the run file in {folder}",
            f"no file {config.zones.compensation}",
            "write one with mlmm calibrate, or leave compensation out",
        )
    return dataclasses.replace(
        config, system=system, zones=zones, uncertainty=uncertainty, potential=potential
    )


def _structure_path(name: str, folder: Path) -> str:
    """A file beside the run file; else a bare name for the builder to find, such as a PDB id."""
    folders = os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep)
    elsewhere = "." not in name or any(Path(other, name).is_file() for other in folders if other)
    if not (folder / name).exists() and Path(name).name == name and elsewhere:
        return name
    return str((folder / name).resolve())
