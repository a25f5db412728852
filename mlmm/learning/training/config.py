"""The TOML file of a training: sections, keys, checks. Only the standard library is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError
from mlmm.learning.training.field_options import AMPOptions, FieldANIOptions
from mlmm.learning.training.options import FitOptions, GraphOptions, KernelOptions, NetworkOptions
from mlmm.options import check_fields, check_names, documented, number, setting, word
from mlmm.options.files import beside, check_table, read_toml, set_value

__all__ = [
    "SECTIONS",
    "DataOptions",
    "ModelOptions",
    "TrainConfig",
    "check_sections",
    "load_training",
    "own_options",
]

#: What can be trained, and the section that it reads beside [data], [model] and [fit].
KINDS = {
    "networks": "networks",
    "message-passing": "graph",
    "gp": "kernel",
    "gdml": "kernel",
    "qeq-ani": "field",
    "amp-bms": "amp",
}


@documented
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Labels and how they are divided."""

    labels: tuple[str, ...] = setting(
        (),
        "files in extended XYZ (eV, Å) or folders of a data set",
        path=True,
        single=True,
        example="set.xyz",
    )
    validation: float = number(0.1, "share that decides when to stop, by block", above=0, most=0.5)
    held_out: float = number(0.2, "share that measures the error, by block; 0 for none", least=0, most=0.8)
    held_out_by: str = word(
        "last frames",
        ("last frames", "windows"),
        "last frames of each window, or whole windows at random: the error where nothing was sampled",
    )
    held_out_labels: tuple[str, ...] = setting(
        (), "files that measure the error, instead of a share", path=True, single=True, example="later.xyz"
    )
    block: str = setting("window", "entry of the origin of a structure that names its block, beside run")
    inspect: str = word(
        "stop",
        ("stop", "warn", "off"),
        "look for duplicates, outliers, contradictions and forces that do not add up; stop: what would be "
        "wrong to train on stops the training",
    )
    limit: int = number(0, "use so many labels of those left for training; 0: all", least=0)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("labels", "held_out_labels"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))


@documented
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is trained, and what its file says of it."""

    kind: str = word(
        "networks",
        tuple(KINDS),
        "networks on symmetry functions, message passing (graph-pes), sparse Gaussian process, sGDML; "
        "qeq-ani, amp-bms: among charges",
    )
    name: str = setting("", "of the potential; by default that of the file")
    base: str = setting(
        "", "potential whose difference to the labels is learned, such as ani1x; empty: the labels themselves"
    )
    trained_on: str = word(
        "isolated",
        ("isolated", "total"),
        "isolated: molecules by themselves (scheme additive); total: with contacts between molecules",
    )
    licence: str = setting("not stated", "of the trained model; that of a published start is added")
    device: str = setting("auto", "of the training: cpu, cuda, or auto for a GPU if there is one")

    def __post_init__(self) -> None:
        check_fields(self)


#: Sections of the file: schema and attribute of `TrainConfig`.
SECTIONS: Mapping[str, tuple[type, str]] = {
    "data": (DataOptions, "data"),
    "model": (ModelOptions, "model"),
    "networks": (NetworkOptions, "networks"),
    "graph": (GraphOptions, "graph"),
    "kernel": (KernelOptions, "kernel"),
    "field": (FieldANIOptions, "among"),
    "amp": (AMPOptions, "amp"),
    "fit": (FitOptions, "fit"),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training, checked."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    graph: GraphOptions = field(default_factory=GraphOptions)
    kernel: KernelOptions = field(default_factory=KernelOptions)
    among: FieldANIOptions = field(default_factory=FieldANIOptions)
    amp: AMPOptions = field(default_factory=AMPOptions)
    fit: FitOptions = field(default_factory=FitOptions)


def load_training(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check the file of a training.

    Parameters
    ----------
    path : path
    overrides : sequence of str
        ``section.key=value``, as given with ``--set``.

    Raises
    ------
    ConfigError
        No such file, no TOML, an unknown section or key, a value of another type or unit, or no labels.
    """
    path = Path(path)
    content = read_toml(path, "the file of a training", "see `mlmm train --help` for one")
    written = deepcopy(content)
    for override in overrides:
        set_value(content, override, "fit.epochs=100")
    check_names(content, SECTIONS, f"sections {', '.join(f'[{name}]' for name in SECTIONS)} in {path}")
    made = {
        attribute: schema(**check_table(schema, content.get(name, {}), str(path), name))
        for name, (schema, attribute) in SECTIONS.items()
    }
    config = TrainConfig(**made)
    check_sections(config, written, overrides, path)
    if not config.data.labels:
        raise ConfigError(f"labels in {path} [data]", "none", 'write labels = "set.xyz"')
    return _beside(config, path.parent)


def check_sections(
    config: TrainConfig, content: Mapping[str, Any], overrides: Sequence[str], path: Path
) -> None:
    """Refuse a section of another kind of model, which nothing would read.

    A kind that an override has put in the place of the file's own leaves the file its section, so that one
    file serves several kinds.

    Parameters
    ----------
    config : TrainConfig
        The outcome.
    content : mapping
        The file before its overrides.
    overrides : sequence of str
        ``section.key=value``.
    path : Path

    Raises
    ------
    ConfigError
        There is one.
    """
    kind = config.model.kind
    own = KINDS[kind]
    of_file = KINDS.get(str(content.get("model", {}).get("kind", ModelOptions.kind)), own)
    unread = [section for section in content if section not in (own, of_file)]
    unread += [section for section in (text.split(".")[0] for text in overrides) if section != own]
    for section in unread:
        if section in KINDS.values():
            rename = "leave it out" if own in content else f"write [{own}]"
            others = " or ".join(f'"{name}"' for name, read in KINDS.items() if read == section)
            raise ConfigError(
                f'the section [{own}] for kind = "{kind}" in {path}',
                f"[{section}]",
                f"{rename}, or write kind = {others} in [model]",
            )


def own_options(config: TrainConfig) -> Any:
    """Options of the section that the kind of model reads."""
    return getattr(config, SECTIONS[KINDS[config.model.kind]][1])


def _beside(config: TrainConfig, folder: Path) -> TrainConfig:
    """Files are looked for beside the file of the training first."""
    located = partial(beside, folder=folder)
    data = replace(
        config.data,
        labels=tuple(map(located, config.data.labels)),
        held_out_labels=tuple(map(located, config.data.held_out_labels)),
    )
    networks = replace(config.networks, start=located(config.networks.start))
    graph = replace(config.graph, start=located(config.graph.start))
    among = replace(config.among, start=located(config.among.start))
    amp = replace(config.amp, start=located(config.amp.start))
    model = replace(config.model, base=located(config.model.base))
    return replace(config, data=data, networks=networks, graph=graph, model=model, among=among, amp=amp)
