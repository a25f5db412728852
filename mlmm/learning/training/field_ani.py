"""Train field-aware ANI, from ANI or an earlier training, on labels of one molecule among point charges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.learning.training.field_model import TrainableFieldANI, start_field_parameters
from mlmm.learning.training.field_options import FieldANIOptions
from mlmm.learning.training.loop import EpochReport, FitResult
from mlmm.learning.training.networks import select_elements
from mlmm.learning.training.one_molecule import check_one_molecule, fit_with_zero
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import Sample
from mlmm.potentials.ani.files import find_parameters
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.field_ani.parameters import FieldANIParameters, load_field_ani
from mlmm.potentials.trained_files import learned_facts
from mlmm.units import HARTREE

__all__ = ["TrainedFieldANI", "train_field_ani"]


@dataclass(frozen=True)
class TrainedFieldANI:
    """Networks and constants.

    Parameters
    ----------
    parameters : FieldANIParameters
        For `FieldANIPotential` and `save_field_ani`.
    fit : FitResult
    """

    parameters: FieldANIParameters
    fit: FitResult


def train_field_ani(
    train: Sequence[Sample],
    validation: Sequence[Sample],
    networks: FieldANIOptions | None = None,
    options: FitOptions | None = None,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
) -> TrainedFieldANI:
    """Fit field-aware ANI to energies, forces, and forces on the point charges around.

    Parameters
    ----------
    train, validation : sequence of (Molecule, Label)
        What `check_samples` lets through: one molecule, its atoms in one order.
    networks : FieldANIOptions, optional
    options : FitOptions, optional
    checkpoint : Path, optional
        See `mlmm.learning.training.loop.fit`.
    progress : callable, optional
        Gets an `EpochReport` after each epoch.

    Raises
    ------
    ConfigError, PotentialError, SimulationError
        Several molecules; elements that the start does not know; a loss that is not finite.
    """
    networks, options = networks or FieldANIOptions(), options or FitOptions()
    everything = [*train, *validation]
    check_one_molecule(everything)
    molecules = [molecule for molecule, _ in everything]
    numbers = sorted({int(z) for z in molecules[0].numbers})
    start = _start(networks, numbers, options.seed)
    model = TrainableFieldANI(start, molecules)
    result, energies = fit_with_zero(
        model,
        everything,
        len(train),
        [SYMBOLS.index(element) for element in start.ani.elements],
        options,
        settings=networks,
        checkpoint=checkpoint,
        progress=progress,
    )
    parameters = model.exported()
    networks_of_energy = dataclasses.replace(parameters.ani, self_energies=energies / HARTREE)
    return TrainedFieldANI(dataclasses.replace(parameters, ani=networks_of_energy), result)


def _start(networks: FieldANIOptions, numbers: Sequence[int], seed: int) -> FieldANIParameters:
    """Everything from a file of field-aware ANI, or the networks of the energy from ANI."""
    if "field_ani" not in learned_facts(Path(networks.start)):
        ani = _member(select_elements(find_parameters(networks.start), numbers), seed)
        return start_field_parameters(ani, networks.hidden, seed)
    found = load_field_ani(networks.start)[0]
    lacking = sorted({SYMBOLS[z] for z in numbers} - set(found.ani.elements))
    if lacking:
        raise PotentialError(
            f"elements of {networks.start} ({' '.join(found.ani.elements)})",
            ", ".join(lacking),
            'start from networks that know them, such as start = "ani2x"',
        )
    return found


def _member(parameters: ANIParameters, seed: int) -> ANIParameters:
    """One of the networks of the start: trainings of different seeds make a committee."""
    k = seed % parameters.members
    weights = {e: [layer[k : k + 1] for layer in layers] for e, layers in parameters.weights.items()}
    biases = {e: [layer[k : k + 1] for layer in layers] for e, layers in parameters.biases.items()}
    return dataclasses.replace(parameters, weights=weights, biases=biases)
