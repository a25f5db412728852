"""Train a committee of networks on symmetry functions, from a published start or from scratch.

Energies of isolated atoms are fitted by least squares and removed in float64; the networks learn what is
left, in float32; the zero of each member is set on the training set once its weights are found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlmm.elements import SYMBOLS
from mlmm.learning.offsets import composition, fit_offsets
from mlmm.learning.training.environments import environments_of
from mlmm.learning.training.loop import EpochReport, FitResult, fit
from mlmm.learning.training.loss import Predictions
from mlmm.learning.training.networks import TrainableANI, start_parameters
from mlmm.learning.training.options import FitOptions, NetworkOptions
from mlmm.learning.training.targets import Sample, data_sha256, targets_of
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.units import HARTREE

__all__ = ["TrainedNetworks", "train_networks"]


@dataclass(frozen=True)
class TrainedNetworks:
    """A committee and what it predicts.

    Parameters
    ----------
    parameters : ANIParameters
        For `ANIPotential`, `save_ani_file`; the compiled kernel and the plugin run them.
    fit : FitResult
    """

    parameters: ANIParameters
    fit: FitResult


def train_networks(
    train: Sequence[Sample],
    validation: Sequence[Sample],
    networks: NetworkOptions | None = None,
    options: FitOptions | None = None,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    progress: Callable[[EpochReport], None] | None = None,
) -> TrainedNetworks:
    """Fit a committee of networks to energies and forces of molecules.

    Parameters
    ----------
    train, validation : sequence of (Molecule, Label)
        What `check_samples` lets through; the validation decides when a member stops.
    networks : NetworkOptions, optional
    options : FitOptions, optional
    checkpoint : Path, optional
        See `mlmm.learning.training.loop.fit`.
    device : str
        A torch device; "auto" is a GPU if there is one.
    progress : callable, optional
        Gets an `EpochReport` after each epoch.

    Raises
    ------
    ConfigError, PotentialError, SimulationError
        As `start_parameters`, `environments_of` and `fit`.
    """
    networks, options = networks or NetworkOptions(), options or FitOptions()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    everything = [*train, *validation]
    molecules = [molecule for molecule, _ in everything]
    numbers = sorted({int(z) for molecule in molecules for z in molecule.numbers})
    start = start_parameters(networks, numbers, options.seed)
    environments = environments_of(molecules, start).to(device)
    first, second = range(len(train)), range(len(train), len(everything))
    scratch = networks.start == "scratch"
    model = TrainableANI(start, environments, networks, standardise=first if scratch else None)
    counts = composition(molecules, [SYMBOLS.index(e) for e in start.elements])
    targets = targets_of(everything)
    # Zero of energy: that of the start, moved by what each element is off on the training set.
    own = _predict(model, first, options.batch).energies.mean(dim=0).cpu().double().numpy()
    total = targets.energies.numpy()[: len(train)] - counts[: len(train)] @ start.self_energies * HARTREE
    self_energies = start.self_energies + fit_offsets(counts[: len(train)], total - own) / HARTREE
    targets = targets.shifted(torch.as_tensor(counts @ self_energies * HARTREE))
    result = fit(
        model,
        targets,
        first,
        second,
        options,
        checkpoint=checkpoint,
        fingerprint=f"{data_sha256(everything)} {networks!r}",
        progress=progress,
    )
    found = _predict(model, first, options.batch).energies.cpu().double()
    errors = (targets.energies[: len(train)] - found).numpy() / HARTREE
    parameters = _with_offsets(model.exported(), self_energies, counts[: len(train)], errors)
    return TrainedNetworks(parameters, result)


def _predict(model: TrainableANI, structures: Sequence[int], batch: int) -> Predictions:
    """Predictions without gradients, batch by batch."""
    with torch.no_grad():
        chosen = torch.tensor(list(structures)).split(batch)
        return Predictions.joined([model(part) for part in chosen])


def _with_offsets(
    parameters: ANIParameters, self_energies: np.ndarray, counts: np.ndarray, errors: np.ndarray
) -> ANIParameters:
    """Give each member the constant per element that removes its mean error on the training set."""
    shifts = np.stack([fit_offsets(counts, row) for row in errors])  # (members, elements), hartree
    biases = {}
    for k, element in enumerate(parameters.elements):
        layers = list(parameters.biases[element])
        layers[-1] = (layers[-1].astype(np.float64) + shifts[:, k : k + 1]).astype(np.float32)
        biases[element] = layers
    return dataclasses.replace(parameters, self_energies=self_energies, biases=biases)
