"""The TOML file of a run: every key, its default, its unit; an unknown key is an error.

Only the standard library is imported here: the command line reads the number of threads before the numerical
libraries start.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["RunConfig", "load_config"]


def _quantity(default: Any, dimension: str) -> Any:
    """A field that is written with its unit."""
    return field(default=default, metadata={"dimension": dimension})


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
    """[zones]: "hard" ends at the region; "static" adds a plateau and a smooth zone (scheme "local")."""

    kind: str = "hard"
    plateau: str = _quantity("0.3 nm", "length")
    width: str = _quantity("0.2 nm", "length")
    snap: str = "residue"


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
    """[embedding]: who owns which interaction."""

    scheme: str = "auto"
    keep: list[str] = field(default_factory=list)


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
        return dataclasses.asdict(self)


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
        sections[name] = _section(_SECTIONS[name], values, f"{path} [{name}]")
    config = RunConfig(**sections)
    for value, key in ((config.system.pdb, "system.pdb"), (config.region.select, "region.select")):
        if not value:
            raise ConfigError(
                f"{key} in {path}", "nothing", f'add {key.split(".")[1]} = "…" to [{key.split(".")[0]}]'
            )
    if config.zones.kind not in ("hard", "static"):
        raise ConfigError(
            f"zones.kind = hard | static in {path}", repr(config.zones.kind), 'write kind = "static"'
        )
    return _with_paths(config, path.parent)


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
                f'write it in quotes, such as {spec.name} = "{spec.default}"',
            )
        if value or spec.default:
            parse(value, dimension, where)
        return value
    kinds = {
        "str": str,
        "int": int,
        "float": (int, float),
        "bool": bool,
        "list[str]": list,
        "list[int]": list,
    }
    expected = kinds[spec.type]
    right = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    if right and expected is list:
        item = str if spec.type == "list[str]" else int
        right = all(isinstance(entry, item) and not isinstance(entry, bool) for entry in value)
    if not right:
        raise ConfigError(f"{where} as {spec.type}", repr(value), "correct the value")
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
        return str(beside.resolve()) if beside.exists() else name

    system = dataclasses.replace(
        config.system,
        pdb=str((folder / config.system.pdb).resolve()),
        ligands=[resolve(name) for name in config.system.ligands],
    )
    return dataclasses.replace(config, system=system)
