"""What fits of a model with one constant share: check, fit, the zero of energy before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mlmm.errors import ConfigError
from mlmm.learning.offsets import composition, fit_offsets
from mlmm.learning.training.loop import EpochReport, FitResult, Trainable, fit
from mlmm.learning.training.loss import Predictions
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Sample, data_sha256, targets_of

__all__ = ["check_one_molecule", "fit_with_zero"]


def check_one_molecule(samples: Sequence[Sample]) -> None:
    """Refuse sets of several molecules.

    Raises
    ------
    ConfigError
        Elements, order of the atoms or charge that differ.
    """
    one = samples[0][0]
    for k, (molecule, _) in enumerate(samples):
        if not np.array_equal(molecule.numbers, one.numbers) or molecule.charge != one.charge:
            raise ConfigError(
                "labels of one molecule, with its atoms in one order and one charge",
                f"structure {k + 1}, which differs from the first in elements, order or charge",
                "train on each molecule by itself",
            )


def fit_with_zero(
    model: Trainable,
    samples: Sequence[Sample],
    training: int,
    elements: Sequence[int],
    options: FitOptions,
    *,
    settings: object,
    checkpoint: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
) -> tuple[FitResult, np.ndarray]:
    """Fit a model with a constant ``zero``, and set its zero of energy by the training set alone, afterwards.

    Parameters
    ----------
    model : Trainable
        Made for the structures of `samples`; its ``zero`` is 0 at the end.
    samples : sequence of (Molecule, Label)
        Those to train on, then those to validate.
    training : int
        How many of them are to train on.
    elements : sequence of int
        Atomic numbers that get an energy.
    options : FitOptions
    settings : object
        What the checkpoint belongs to, beside the labels.
    checkpoint : Path, optional
    progress : callable, optional

    Returns
    -------
    FitResult
    ndarray, shape (elements,)
        Energies per element, kJ/mol, that the labels have beside the model.
    """
    first, second = range(training), range(training, len(samples))
    targets, counts = targets_of(samples), composition([molecule for molecule, _ in samples], list(elements))

    def references() -> np.ndarray:
        own = _energies(model, first, options.batch)
        return fit_offsets(counts[:training], targets.energies.numpy()[:training] - own)

    result = fit(
        model,
        targets.shifted(torch.as_tensor(counts @ references())),
        first,
        second,
        options,
        checkpoint=checkpoint,
        fingerprint=f"{data_sha256(samples)} {settings!r}",
        progress=progress,
    )
    model.zero.data.zero_()  # type: ignore[attr-defined]
    return result, references()


def _energies(model: Trainable, structures: Sequence[int], batch: int) -> np.ndarray:
    """Energies of structures by a model of one member, kJ/mol, without gradients by its weights."""
    with torch.no_grad():
        parts = torch.tensor(list(structures)).split(batch)
        return Predictions.joined([model(part) for part in parts]).energies[0].double().numpy()
