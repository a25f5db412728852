"""The TOML file of a run: every key, its default, its unit; an unknown key is an error.

Only the standard library is imported here: the command line reads the number of threads before the numerical
libraries start.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["SCHEMES", "ZONE_KINDS", "RunConfig", "ZoneSettings", "load_config"]

#: What [zones] kind may be -> its keys and their defaults; "auto" is hard under scheme "intra", else static.
ZONE_KINDS: dict[str, dict[str, Any]] = {
    "auto": {"plateau": "", "width": "", "snap": "", "shape": "", "axis": ""},
    "hard": {},
    "static": {"plateau": "0.3 nm", "width": "0.2 nm", "snap": "residue", "shape": "skin", "axis": "z"},
    "residues": {"residues": {}, "plateau_select": "", "snap": "residue"},
    "adaptive": {
        "plateau": "0.4 nm",
        "width": "0.3 nm",
        "molecules": ["HOH"],
        "centre": "",
        "walls": "0.125 nm",
        "compensation": "",
    },
}
SCHEMES = ("auto", "local", "difference", "intra", "bonded", "delta")
_BONDS = re.compile(r"^\s*\d+\s*bonds?\s*$")


def _quantity(
    default: Any, dimension: str, example: str = "", bonds: bool = False, none: bool = False
) -> Any:
    """A field that is written with its unit; `bonds`: or as a number of bonds; `none`: or as "none"."""
    facts = {"dimension": dimension, "example": example or default, "bonds": bonds, "none": none}
    return field(default=default, metadata=facts)


def _choice(default: str, *choices: str) -> Any:
    """A field with one of some words."""
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True)
class SystemSettings:
    """[system]: where the structure comes from and how it is parametrised; see `mlmm.build_system`."""

    pdb: str = ""
    forcefield: str = "amber14"
    water: str = "tip3p"
    ligands: list[str] = field(default_factory=list)
    solvate: bool = True
    padding: str = _quantity("1.0 nm", "length")
    box_shape: str = "cube"
    ionic_strength: str = _quantity("0.0 M", "concentration")
    neutralise: bool = True
    ph: float = 7.0
    nonbonded_cutoff: str = _quantity("1.0 nm", "length")
    constraints: str = "hbonds"
    rigid_water: bool = True
    hydrogen_mass: str = _quantity("", "mass")


@dataclass(frozen=True)
class RegionSettings:
    """[region]: which atoms the potential describes."""

    select: str = ""
    complete: str = "residue"


@dataclass(frozen=True)
class ZoneSettings:
    """[zones]: where lambda goes from 1 to 0; a key belongs to the kinds that `ZONE_KINDS` gives it to."""

    kind: str = _choice("auto", *ZONE_KINDS)
    plateau: str = _quantity("", "length", "0.3 nm", bonds=True)
    width: str = _quantity("", "length", "0.2 nm", bonds=True)
    snap: str = _choice("", "residue", "molecule", "fragment", "hydrogen", "atom")
    shape: str = _choice("", "skin", "sphere", "slab")
    axis: str = _choice("", "x", "y", "z")
    residues: dict[str, float] = field(default_factory=dict)
    plateau_select: str = ""
    molecules: list[str] = field(default_factory=list)
    centre: str = ""
    walls: str = _quantity("", "length", "0.125 nm", none=True)
    compensation: str = ""

    def of_kind(self, kind: str) -> ZoneSettings:
        """The same as another kind, with that kind's defaults for what is not given."""
        defaults = {key: value for key, value in ZONE_KINDS[kind].items() if not getattr(self, key)}
        return dataclasses.replace(self, kind=kind, **defaults)

    def given(self) -> dict[str, Any]:
        """Kind and keys that are not empty."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}


@dataclass(frozen=True)
class PotentialSettings:
    """[potential]: the machine-learned potential and its host."""

    name: str = "ani1x"
    members: list[int] = field(default_factory=list)
    precision: str = "float32"
    device: str = "cpu"
    bridge: str = "auto"


@dataclass(frozen=True)
class EmbeddingSettings:
    """[embedding]: who owns which interaction, and where it is evaluated; see `mlmm.hybrid_system`."""

    scheme: str = _choice("auto", *SCHEMES)
    route: str = _choice("auto", "auto", "compiled", "subtractive")
    levels: int = 1
    tail: bool = False
    keep: list[str] = field(default_factory=list)
    electrostatics: str = _choice("mechanical", "mechanical", "charges")
    charges: str = _choice("force field", "force field", "model")
    charge_range: str = _quantity("1.2 nm", "length")


@dataclass(frozen=True)
class RunSettings:
    """[run]: stages, conditions, machine. A stage of length "0 ps" (or 0 iterations) is left out."""

    seed: int = 0
    minimise: int = 500
    equilibrate: str = _quantity("10 ps", "time")
    produce: str = _quantity("100 ps", "time")
    nve: str = _quantity("0 ps", "time")
    timestep: str = _quantity("0.5 fs", "time")
    temperature: str = _quantity("300 K", "temperature")
    friction: str = _quantity("1 /ps", "rate")
    equilibrate_friction: str = _quantity("10 /ps", "rate")
    ensemble: str = "NVT"
    pressure: str = _quantity("1 bar", "pressure")
    platform: str = ""
    threads: int = 0
    ml_threads: int = 1


@dataclass(frozen=True)
class ReportSettings:
    """[report]: steps between rows of the energy table, frames, checkpoints."""

    interval: int = 100
    trajectory_interval: int = 500
    checkpoint_interval: int = 1000


@dataclass(frozen=True)
class RunConfig:
    """A whole file, defaults filled in."""

    system: SystemSettings = field(default_factory=SystemSettings)
    region: RegionSettings = field(default_factory=RegionSettings)
    zones: ZoneSettings = field(default_factory=ZoneSettings)
    potential: PotentialSettings = field(default_factory=PotentialSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    run: RunSettings = field(default_factory=RunSettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The resolved settings, as they are written to the run directory."""
        return dataclasses.asdict(self) | {"zones": self.zones.given()}


_SECTIONS = {f.name: f.default_factory for f in dataclasses.fields(RunConfig)}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run file.

    Parameters
    ----------
    path : path
        TOML file.
    overrides : sequence of str
        ``section.key=value``, as given with ``--set``.

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
    for value, key in ((config.system.pdb, "system.pdb"), (config.region.select, "region.select")):
        if not value:
            raise ConfigError(
                f"{key} in {path}", "nothing", f'add {key.split(".")[1]} = "…" to [{key.split(".")[0]}]'
            )
    zones = _checked_zones(config.zones, content.get("zones", {}), f"{path} [zones]")
    config = dataclasses.replace(config, zones=zones)
    if config.embedding.scheme != "auto":
        check_embedding(config.embedding, config.embedding.scheme)
    return _with_paths(config, path.parent)


def check_embedding(settings: EmbeddingSettings, scheme: str) -> None:
    """Refuse what another scheme than this one would need (ConfigError)."""
    for key, owner in (("levels", "difference"), ("tail", "intra")):
        default = EmbeddingSettings.__dataclass_fields__[key].default
        if getattr(settings, key) != default and scheme != owner:
            raise ConfigError(
                f"embedding.{key} with scheme {owner!r} only",
                f"scheme {scheme!r}",
                f'leave {key} out, or write scheme = "{owner}"',
            )
    if settings.electrostatics == "charges" and scheme not in ("local", "intra"):
        raise ConfigError(
            "embedding.electrostatics = \"charges\" with schemes 'local' and 'intra' only",
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
            'write plateau = "0.4 nm" and width = "0.3 nm"',
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
    kinds = {
        "str": str,
        "int": int,
        "float": (int, float),
        "bool": bool,
        "list[str]": list,
        "list[int]": list,
        "dict[str, float]": dict,
    }
    expected = kinds[spec.type]
    right = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    if right and expected is list:
        item = str if spec.type == "list[str]" else int
        right = all(isinstance(entry, item) and not isinstance(entry, bool) for entry in value)
    if right and expected is dict:
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
            f"{spec.name} = {' | '.join(choices)} in {where.rsplit(' ', 1)[0]}",
            repr(value),
            f'write {spec.name} = "{near[0] if near else choices[0]}"',
        )
    if spec.name == "levels" and value < 1:
        raise ConfigError(f"{where} of at least 1", repr(value), "write levels = 1")
    if spec.name.endswith("interval") and value < 1:
        raise ConfigError(f"{where} of at least 1 step", repr(value), "correct the value")
    if spec.name in ("minimise", "threads", "ml_threads", "seed") and value < 0:
        raise ConfigError(f"{where} not negative", repr(value), "correct the value")
    return value


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
        pdb=str((folder / config.system.pdb).resolve()),
        ligands=[resolve(name) for name in config.system.ligands],
    )
    zones = dataclasses.replace(config.zones, compensation=resolve(config.zones.compensation))
    if config.zones.compensation and not Path(zones.compensation).exists():
        raise ConfigError(
            f"a compensation beside the run file in {folder}",
            f"no file {config.zones.compensation}",
            "write one with mlmm calibrate, or leave compensation out",
        )
    return dataclasses.replace(config, system=system, zones=zones)
