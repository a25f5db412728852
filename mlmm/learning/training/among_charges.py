"""Kinds of a training whose models see the charges around: fit, write, write again with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmm.learning.training.amp_bms import fine_tune_amp
from mlmm.learning.training.config import TrainConfig, own_options
from mlmm.learning.training.field_ani import train_field_ani
from mlmm.learning.training.loop import EpochReport
from mlmm.learning.training.targets import Sample
from mlmm.potentials.amp_bms.weights import read_amp_weights, save_amp_weights
from mlmm.potentials.field_ani.parameters import load_field_ani, save_field_ani

__all__ = ["AMONG_CHARGES", "fit_among_charges", "rewrite_among_charges", "start_of"]

#: Kinds of models that take labels among point charges.
AMONG_CHARGES = ("qeq-ani", "amp-bms")


def start_of(config: TrainConfig) -> str:
    """The potential that a training begins with; empty for none."""
    return str(getattr(own_options(config), "start", ""))


def fit_among_charges(
    config: TrainConfig,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    out: Path,
    about: Mapping[str, Any],
    checkpoint: Path | None,
    progress: Callable[[EpochReport], None] | None,
) -> None:
    """Fit a model of one of these kinds and write its file."""
    if config.model.kind == "amp-bms":
        tuned = fine_tune_amp(
            train, validation, config.amp, config.fit, checkpoint=checkpoint, progress=progress
        )
        save_amp_weights(tuned.weights, out, about)
        return
    trained = train_field_ani(
        train, validation, config.among, config.fit, checkpoint=checkpoint, progress=progress
    )
    save_field_ani(trained.parameters, out, about)


def rewrite_among_charges(kind: str, path: Path, about: Mapping[str, Any]) -> None:
    """Write the file again, with what was measured."""
    if kind == "amp-bms":
        save_amp_weights(read_amp_weights(path), path, about)
    else:
        save_field_ani(load_field_ani(path)[0], path, about)
