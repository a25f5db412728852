"""The TOML file of a loop of active learning. Only the standard library is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlmm.ensembles.options import ExecutorOptions
from mlmm.errors import ConfigError
from mlmm.learning.active.options import ChoiceOptions, ExploreOptions, LoopOptions, StopOptions
from mlmm.learning.training.config import SECTIONS as TRAINING
from mlmm.learning.training.config import TrainConfig, check_sections
from mlmm.options import check_names
from mlmm.options.files import beside, check_is_table, check_table, read_toml, set_value

__all__ = ["SECTIONS", "LearnConfig", "load_learning"]

#: Sections of the file and their schemas; [method] has a name and the keys of that reference method.
SECTIONS: Mapping[str, type] = {
    "explore": ExploreOptions,
    "choice": ChoiceOptions,
    "stop": StopOptions,
    "loop": LoopOptions,
    "executor": ExecutorOptions,
    **{name: schema for name, (schema, _) in TRAINING.items() if name != "data"},
}


@dataclass(frozen=True)
class LearnConfig:
    """A loop of active learning, checked.

    Parameters
    ----------
    explore, choice, stop, loop, executor : options
    method : str
        Reference method.
    method_options : dict
    training : TrainConfig
        Model and fit; its labels are those of the loop.
    validation : float
        Share of the labels that decides when a fit stops.
    """

    explore: ExploreOptions
    choice: ChoiceOptions
    stop: StopOptions
    loop: LoopOptions
    executor: ExecutorOptions
    method: str
    method_options: dict[str, Any] = field(default_factory=dict)
    training: TrainConfig = field(default_factory=TrainConfig)
    validation: float = 0.1

    def settings(self) -> dict[str, Any]:
        """What the results depend on, apart from choice and loop: processes and targets are not among it."""
        training = {name: asdict(getattr(self.training, name)) for _, name in TRAINING.values()}
        return {
            "explore": asdict(self.explore),
            "reference": {"name": self.method, **self.method_options},
            "training": {**training, "validation": self.validation},
        }


def load_learning(path: str | Path, overrides: Sequence[str] = ()) -> LearnConfig:
    """Read and check the file of a loop.

    Parameters
    ----------
    path : path
    overrides : sequence of str
        ``section.key=value``, as given with ``--set``.

    Raises
    ------
    ConfigError
        No such file, no TOML, an unknown section or key, or a value of another type or unit.
    """
    path = Path(path)
    content = read_toml(path, "the file of a loop", "mlmm learn --template > learn.toml")
    written = deepcopy(content)
    for override in overrides:
        set_value(content, override, "choice.by=passive")
    known = [*SECTIONS, "method", "data"]
    check_names(content, known, f"sections {', '.join(f'[{name}]' for name in known)} in {path}")
    tables = {
        name: check_table(schema, content.get(name, {}), str(path), name) for name, schema in SECTIONS.items()
    }
    made: dict[str, Any] = {name: SECTIONS[name](**table) for name, table in tables.items()}
    options = check_is_table(content.get("method", {}), str(path), "method")
    method = options.pop("name", None)
    if not isinstance(method, str):
        raise ConfigError(f"name in {path} [method]", repr(method), 'write name = "xtb"')
    data = check_is_table(content.get("data", {}), str(path), "data")
    check_names(data, ["validation"], f"keys of [data] in {path}")
    validation = data.get("validation", 0.1)
    if not isinstance(validation, float) or not 0.0 < validation <= 0.5:
        raise ConfigError(
            f"validation in {path} [data], above 0 and at most 0.5",
            repr(validation),
            "write validation = 0.1",
        )
    training = TrainConfig(
        **{attribute: made[name] for name, (_, attribute) in TRAINING.items() if name != "data"}
    )
    check_sections(training, written, overrides, path)
    explore = made["explore"]
    explore = replace(
        explore,
        structures=tuple(beside(name, path.parent) for name in explore.structures),
        run=beside(explore.run, path.parent),
    )
    return LearnConfig(
        explore,
        made["choice"],
        made["stop"],
        made["loop"],
        made["executor"],
        method,
        options,
        training,
        validation,
    )
