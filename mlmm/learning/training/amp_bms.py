"""Fine-tune AMP-BMS on labels of one molecule among point charges.

The model: Thürlemann et al., J. Am. Chem. Soc. 148, 28133 (2026), doi 10.1021/jacs.6c00217. Its response to
point charges is taken whole (polarisation_scaling 1), since labels of quantum chemistry have it so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlmm.errors import ConfigError
from mlmm.learning.training.amp_model import AMPModel
from mlmm.learning.training.field_options import AMPOptions
from mlmm.learning.training.loop import EpochReport, FitResult, Trainable, fit
from mlmm.learning.training.loss import Predictions
from mlmm.learning.training.offsets import composition, fit_offsets
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Sample, data_sha256, targets_of
from mlmm.potentials.amp_bms.weights import AMPWeights, read_amp_weights
from mlmm.potentials.known import existing_file, installed_file, known_by_name

__all__ = ["TunedAMP", "check_one_molecule", "fine_tune_amp", "predict_in_batches"]


@dataclass(frozen=True)
class TunedAMP:
    """AMP-BMS with other weights.

    Parameters
    ----------
    weights : AMPWeights
        For `AMPPotential` and `save_amp_weights`; the compiled kernel runs them.
    fit : FitResult
    """

    weights: AMPWeights
    fit: FitResult


def fine_tune_amp(
    train: Sequence[Sample],
    validation: Sequence[Sample],
    amp: AMPOptions | None = None,
    options: FitOptions | None = None,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
) -> TunedAMP:
    """Fit weights of AMP-BMS to energies, forces, and forces on the point charges around.

    Parameters
    ----------
    train, validation : sequence of (Molecule, Label)
        What `check_samples` lets through: one molecule, its atoms in one order.
    amp : AMPOptions, optional
        Start, and which weights change.
    options : FitOptions, optional
    checkpoint : Path, optional
        See `mlmm.learning.training.loop.fit`.
    progress : callable, optional
        Gets an `EpochReport` after each epoch.

    Raises
    ------
    ConfigError
        Several molecules in one set.
    PotentialError, SimulationError
        A start that cannot be read; a loss that is not finite.
    """
    amp, options = amp or AMPOptions(), options or FitOptions()
    everything = [*train, *validation]
    molecules = [molecule for molecule, _ in everything]
    check_one_molecule(train, validation)
    known = known_by_name(amp.start)
    start = read_amp_weights(existing_file(amp.start) if known is None else installed_file(known))
    model = AMPModel(start, molecules, amp.trained)
    first, second = range(len(train)), range(len(train), len(everything))
    targets = targets_of(everything)
    elements = sorted({int(z) for z in molecules[0].numbers})
    counts = composition(molecules, elements)

    def references() -> np.ndarray:
        """Energies per element that make up for the mean error on the training set."""
        own = predict_in_batches(model, first, options.batch).energies[0].numpy()
        return fit_offsets(counts[: len(train)], targets.energies.numpy()[: len(train)] - own)

    before = references()
    result = fit(
        model,
        targets.shifted(torch.as_tensor(counts @ before)),
        first,
        second,
        options,
        checkpoint=checkpoint,
        fingerprint=f"{data_sha256(everything)} {amp!r}",
        progress=progress,
    )
    model.zero.data.zero_()
    after = references()
    known_references = {str(z): float(e) for z, e in zip(elements, after, strict=True)}
    about = {
        "bohr_angstrom": start.about["bohr_angstrom"],
        "origin": f"{start.about.get('origin', amp.start)}, weights fitted ({amp.trained})",
        "citation": start.about.get("citation", "not stated"),
        "licence": start.about.get("licence", "MIT"),
        "polarisation_scaling": 1.0,
        "level_of_theory": everything[0][1].method,
        "reference_energies": known_references,
        "data_sha256": data_sha256(everything),
    }
    return TunedAMP(AMPWeights(model.tensors(), about), result)


def check_one_molecule(*parts: Sequence[Sample]) -> None:
    """Refuse sets of several molecules.

    Raises
    ------
    ConfigError
    """
    molecules = [molecule for part in parts for molecule, _ in part]
    one = molecules[0]
    for k, molecule in enumerate(molecules):
        if not np.array_equal(molecule.numbers, one.numbers) or molecule.charge != one.charge:
            raise ConfigError(
                "labels of one molecule, with its atoms in one order and one charge",
                f"structure {k + 1}, which differs from the first in elements, order or charge",
                "train on each molecule by itself",
            )


def predict_in_batches(model: Trainable, structures: Sequence[int], batch: int) -> Predictions:
    """Predictions without gradients by the weights."""
    with torch.no_grad():
        chosen = torch.tensor(list(structures)).split(batch)
        return Predictions.joined([model(part) for part in chosen])
