"""The TOML file of ``mlmm label``: read, checked against its schemas, its structures found.

Sections: [structures], [method] with the options of the method, [executor], [output].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.ensembles.options import ExecutorOptions
from mlmm.errors import ConfigError
from mlmm.options import Quantity, check_fields, check_names, number, quantity, setting
from mlmm.options.files import beside, check_is_table, check_table, read_toml, set_value
from mlmm.reference.methods import METHODS, method_class
from mlmm.short_repr import counted

if TYPE_CHECKING:
    from mlmm.reference import Molecule

__all__ = ["LabelJob", "OutputOptions", "StructureOptions", "check_job", "load_label_file", "read_molecules"]


@dataclass(frozen=True)
class StructureOptions:
    """Section [structures]: what is to be labelled."""

    files: tuple[str, ...] = setting(
        (), "structure files that ASE reads: xyz, extended xyz, pdb, sdf, ...", example=("frames.xyz",)
    )
    runs: tuple[str, ...] = setting(
        (), "run directories of mlmm: the region with caps, among the charges around it", example=("runs/my",)
    )
    sets: tuple[str, ...] = setting(
        (), "data sets of mlmm, to be labelled by another method, with their point charges", example=("gfn2",)
    )
    first: int = number(0, "first frame of each file, run or set, counted from 0", least=0)
    every: int = number(1, "take each n-th frame from there", least=1)
    most: int = number(0, "most structures in all; 0 for no limit", least=0)
    charge: int = number(
        None, 'net charge of structures from files; their own info["charge"], or 0, if not set', example=-1,
        optional=True,
    )  # fmt: skip
    multiplicity: int = number(
        None, 'multiplicity of structures from files or runs; info["spin"], or 1, if not set', example=2,
        optional=True,
    )  # fmt: skip
    radius: Quantity = quantity(
        None, "length", "of runs: keep molecules within it of the region, 0 for none; all if not set",
        least=0, optional=True, example="1 nm",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.files or self.runs or self.sets):
            raise ConfigError(
                "structures to label", "none", 'write files = ["frames.xyz"], runs or sets in [structures]'
            )
        # A run knows its region's charge, a set its molecules'.
        for name, of in (("charge", self.files), ("multiplicity", self.files or self.runs)):
            if getattr(self, name) is not None and not of:
                raise ConfigError(
                    f"structures from files with a {name}",
                    f"{name} = {getattr(self, name)} for runs or sets, which have their own",
                    f"leave {name} out",
                )


@dataclass(frozen=True)
class OutputOptions:
    """Section [output]: the data set, and how many molecules may fail."""

    dataset: str = setting("labels", "folder of the data set; what is in it already is not labelled again")
    failure_limit: float = number(
        0.1, "share of molecules that may fail to converge before labelling stops", least=0, most=1
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class LabelJob:
    """A checked file."""

    structures: StructureOptions
    method: str
    options: Mapping[str, Any]
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    output: OutputOptions = field(default_factory=OutputOptions)


_SECTIONS: Mapping[str, type] = {
    "structures": StructureOptions,
    "executor": ExecutorOptions,
    "output": OutputOptions,
}


def load_label_file(path: str | Path, overrides: Sequence[str] = ()) -> LabelJob:
    """Read and check a file; paths in it are looked for beside it first.

    Parameters
    ----------
    path : path
    overrides : sequence of str
        ``section.key=value``, as given with ``--set``.

    Raises
    ------
    ConfigError
        No such file, no TOML, an unknown section, key or method, or a value that cannot be.
    """
    path = Path(path)
    content = read_toml(path, "a file for mlmm label", "mlmm label --template xtb, which prints one")
    return check_job(content, overrides, str(path), path.parent)


def check_job(
    content: dict[str, Any],
    overrides: Sequence[str] = (),
    where: str = "the arguments",
    folder: Path = Path("."),
) -> LabelJob:
    """Check the sections of a file; arguments and errors as for `load_label_file`."""
    for override in overrides:
        set_value(content, override, "method.name=xtb")
    known = [*_SECTIONS, "method"]
    check_names(content, known, f"sections {', '.join(f'[{name}]' for name in known)} in {where}")
    tables = {
        section: _located(check_table(schema, content.get(section, {}), where, section), folder)
        for section, schema in _SECTIONS.items()
    }
    method = check_is_table(content.get("method", {}), where, "method")
    name = method.pop("name", "")
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(
            f"name = {' | '.join(METHODS)} in [method] of {where}",
            repr(name),
            "mlmm label --methods, which tells of each",
        )
    listing = f"mlmm label --explain {name}, which lists the keys"
    options = _located(check_table(method_class(name), method, where, "method", listing), folder)
    made = {section: _SECTIONS[section](**table) for section, table in tables.items()}
    return LabelJob(method=name, options=options, **made)


def _located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values of a section, its files found."""
    for key in {"files", "runs", "sets"} & values.keys():
        values[key] = tuple(beside(entry, folder) for entry in values[key])
    for key in {"parameters", "library", "networks", "program", "scheduler", "potential"} & values.keys():
        if isinstance(values[key], str):
            values[key] = beside(values[key], folder)
    return values


def read_molecules(options: StructureOptions) -> list[Molecule]:
    """Structures of [structures], with their origins: file, run or set, and frame.

    Raises
    ------
    ConfigError
        A file that cannot be read, or none left.
    """
    found: list[Molecule] = []
    for name in options.files:
        found += _of_file(Path(name), options)
    if options.runs:
        from mlmm.learning.acquisition.region_frames import frames_of_run

        for name in options.runs:
            found += frames_of_run(
                name,
                radius=options.radius,
                first=options.first,
                every=options.every,
                multiplicity=options.multiplicity,
            )
    for name in options.sets:
        from mlmm.learning.dataset.store import Dataset

        dataset = Dataset(name)
        found += [dataset[k][0] for k in range(options.first, len(dataset), options.every)]
    if not found:
        raise ConfigError(
            "structures to label",
            f"none from frame {options.first} on",
            "correct first in [structures], or the files",
        )
    return found[: options.most] if options.most else found


def _of_file(path: Path, options: StructureOptions) -> list[Molecule]:
    """Frames of a structure file that ASE reads."""
    from ase.io import read

    from mlmm.reference.ase_calculator import molecule_of

    if not path.is_file():
        raise ConfigError("a structure file", f"no {path}", "correct files in [structures]")
    try:
        frames: list[Any] = list(read(path, index=":"))
    except Exception as error:  # readers of ASE raise anything
        raise ConfigError(
            f"a structure file that ASE reads, {path}",
            f"{type(error).__name__}: {error}",
            "write it as extended xyz",
        ) from error
    if not frames:
        raise ConfigError(f"structures in {path}", counted(0, "frame"), "correct files in [structures]")
    chosen = range(options.first, len(frames), options.every)
    return [
        molecule_of(
            frames[k],
            options.charge,
            options.multiplicity,
            origin={"file": path.name, "frame": str(k)},
        )
        for k in chosen
    ]
