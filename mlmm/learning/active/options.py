"""Options of a loop of active learning; no numerical library is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlmm.errors import ConfigError
from mlmm.options import Quantity, check_fields, documented, number, quantity, setting, word

__all__ = ["CRITERIA", "EXPLORATIONS", "ChoiceOptions", "ExploreOptions", "LoopOptions", "StopOptions"]

#: How structures are chosen.
CRITERIA = ("spread", "distance", "determinant", "cur", "passive")


#: Where structures come from.
EXPLORATIONS = ("pool", "dynamics", "modes", "distortion", "run")


@documented
@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """Where the structures come from among which some get a label."""

    kind: str = word(
        "dynamics",
        EXPLORATIONS,
        "pool: the given structures themselves; dynamics: of the molecule by the model of the round before; "
        "modes: normal modes of the given minima; distortion: at random; run: mlmm run with that model",
    )
    structures: tuple[str, ...] = setting(
        (),
        "xyz files, data sets or run directories of mlmm: the pool, or where exploring starts",
        path=True,
        single=True,
        example="molecule.xyz",
    )
    run: str = setting(
        "", "run file of mlmm whose dynamics explores, with kind = run", path=True, example="my/run.toml"
    )
    first: str = setting(
        "method",
        'surface of the first round, when there is no model yet: a potential such as "ani1x", or "method", '
        "the reference method itself",
    )
    count: int = number(200, "structures explored in a round, over all that are given", least=1)
    temperature: Quantity = quantity("400 K", "temperature", "of dynamics and modes", above=0)
    timestep: Quantity = quantity("0.5 fs", "time", "of dynamics", above=0)
    interval: int = number(40, "steps of dynamics between two structures", least=1)
    size: Quantity = quantity("0.005 nm", "length", "of a random distortion, standard deviation", above=0)
    charge: int = number(0, "of a molecule from an xyz file that does not say it", example=-1)
    multiplicity: int = number(1, "of a molecule from an xyz file that does not say it", least=1)
    radius: Quantity = quantity(
        "none",
        "length",
        'molecules of a run within it of the region are its point charges; "none": all of them, "0 nm": none',
        least=0,
        none=True,
    )
    every: int = number(1, "frames of a run of which one is taken", least=1)

    def __post_init__(self) -> None:
        check_fields(self)
        given: Any = self.structures  # one text stands for a list of one
        object.__setattr__(self, "structures", (given,) if isinstance(given, str) else tuple(given))
        if not self.structures and self.kind != "run":
            raise ConfigError(
                "structures to start from", "none", 'write structures = "molecule.xyz" in [explore]'
            )
        if self.kind == "run" and not self.run:
            raise ConfigError(
                'the run file of kind = "run"', "none", 'write run = "my/run.toml" in [explore]'
            )


@documented
@dataclass(frozen=True, kw_only=True)
class ChoiceOptions:
    """Which of the explored structures get a label."""

    by: str = word(
        "spread",
        CRITERIA,
        "spread: largest uncertainty of a force; distance: farthest from the training set; determinant: "
        "largest extrapolation grade (D-optimality); cur: what spans the others best; passive: at "
        "random, the control",
    )
    batch: int = number(20, "labels in each round", least=1)
    start: int = number(40, "labels before the first training", least=4)
    thermal: float = number(
        0.3, "share of each batch drawn at random, so that what is common is learned as well", least=0, most=1
    )
    shortlist: int = number(
        5, "times the batch: so many of the largest spreads, of which the farthest apart are taken", least=1
    )

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True, kw_only=True)
class StopOptions:
    """When the loop ends: all targets met on held-out structures, or the rounds are used up."""

    rounds: int = number(5, "trainings at most", least=1)
    energy: Quantity = quantity(
        "3 kJ/mol", "energy", "mean absolute error of the energy in the worst basin", above=0
    )
    force: Quantity = quantity(
        "60 kJ/mol/nm", "force", "mean absolute error of a force component in the worst basin", above=0
    )
    coverage: float = number(
        0.1, "largest deviation of the coverage of 68 % intervals of forces; 1: any", above=0, most=1
    )
    failures: float = number(0.2, "share of labels that may fail before the loop stops", least=0, most=1)

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """The loop itself."""

    seed: int = number(0, "of exploration, choice and training", least=0)
    held_out: int = number(
        30, "structures explored before the first training that are labelled and never trained on", least=5
    )
    block: int = number(
        10, "consecutive frames that are held out together; 0 for whole windows of a run", least=0
    )
    basin: str = setting("window", "entry of the origin of a structure that names its basin")

    def __post_init__(self) -> None:
        check_fields(self)


def check_choice(choice: ChoiceOptions, has_spread: bool) -> None:
    """Refuse a choice by an uncertainty that the model does not have (ConfigError)."""
    if choice.by == "spread" and not has_spread:
        raise ConfigError(
            'a model that knows its uncertainty for choice.by = "spread"',
            "one that does not",
            'train a committee of two or more, or write by = "distance"',
        )
