"""Fine-tune AMP-BMS on labels of one molecule among point charges.

The model: Thürlemann et al., J. Am. Chem. Soc. 148, 28133 (2026), doi 10.1021/jacs.6c00217. Its response to
point charges is taken whole (polarisation_scaling 1), since labels of quantum chemistry have it so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmm.learning.training.amp_model import AMPModel
from mlmm.learning.training.field_options import AMPOptions
from mlmm.learning.training.loop import EpochReport, FitResult
from mlmm.learning.training.one_molecule import check_one_molecule, fit_with_zero
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Sample, data_sha256
from mlmm.potentials.amp_bms.weights import AMPWeights, read_amp_weights
from mlmm.potentials.known import existing_file, installed_file, known_by_name

__all__ = ["TunedAMP", "fine_tune_amp"]


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
    check_one_molecule(everything)
    known = known_by_name(amp.start)
    start = read_amp_weights(existing_file(amp.start) if known is None else installed_file(known))
    model = AMPModel(start, [molecule for molecule, _ in everything], amp.trained)
    elements = sorted({int(z) for z in everything[0][0].numbers})
    result, energies = fit_with_zero(
        model,
        everything,
        len(train),
        elements,
        options,
        settings=amp,
        checkpoint=checkpoint,
        progress=progress,
    )
    about = {
        "bohr_angstrom": start.about["bohr_angstrom"],
        "origin": f"{start.about.get('origin', amp.start)}, weights fitted ({amp.trained})",
        "citation": start.about.get("citation", "not stated"),
        "licence": start.about.get("licence", "MIT"),
        "polarisation_scaling": 1.0,
        "level_of_theory": everything[0][1].method,
        "reference_energies": {str(z): float(e) for z, e in zip(elements, energies, strict=True)},
        "data_sha256": data_sha256(everything),
    }
    return TunedAMP(AMPWeights(model.tensors(), about), result)
