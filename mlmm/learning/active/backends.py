"""The steps of a loop with real methods: exploration, electronic structure, training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.ensembles.executors import Executor
from mlmm.ensembles.tasks import TaskFailure
from mlmm.errors import ConfigError
from mlmm.learning.acquisition.normal_modes import normal_modes, sample_normal_modes
from mlmm.learning.acquisition.region_frames import frames_of_run
from mlmm.learning.acquisition.sampling import distorted, minimised, sample_dynamics
from mlmm.learning.active.config import LearnConfig
from mlmm.learning.active.loop import Steps
from mlmm.learning.active.measure import Answers
from mlmm.learning.dataset.splits import split_by_block
from mlmm.learning.dataset.store import Dataset
from mlmm.learning.training.config import DataOptions
from mlmm.learning.training.targets import check_samples
from mlmm.learning.training.train import Divided, train_model
from mlmm.learning.uncertainty.predict import predict
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.registry import load_potential
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import ReferenceMethod

__all__ = ["RunExplorer", "learning_steps", "read_structures"]

#: (file of the model or None, seed, folder) -> frames of dynamics in ML/MM, with their point charges.
RunExplorer = Callable[[Path | None, int, Path], Sequence[Molecule]]
_MODEL = "model.safetensors"


class TrainedModel:
    """A potential in a file, as the loop asks it."""

    def __init__(self, folder: Path):
        self.potential = load_potential(str(folder / _MODEL))

    def predict(self, molecules: Sequence[Molecule]) -> Answers:
        """Energies, forces and the calibrated standard deviation of a force component on each atom."""
        found = predict(self.potential, molecules)
        deviations = None
        if found.spreads is not None:
            calibration = self.potential.spec.calibration
            scaled = [s if calibration is None else calibration.deviation(s) for s in found.spreads]
            deviations = [np.asarray(spread) / math.sqrt(3.0) for spread in scaled]
        return Answers(found.energies, found.forces, deviations)


def learning_steps(
    config: LearnConfig,
    method: ReferenceMethod,
    executor: Executor,
    explore_run: RunExplorer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Steps:
    """Make the steps of a loop.

    Parameters
    ----------
    config : LearnConfig
    method : ReferenceMethod
        Of the labels.
    executor : Executor
        Labels run on it.
    explore_run : callable, optional
        Dynamics in ML/MM, for ``kind = "run"``.
    progress : callable, optional
        Called with the number of labels done and of all.

    Raises
    ------
    ConfigError
        Structures that cannot be read, or point charges that the method does not take.
    """
    known = read_structures(config) if config.explore.structures else []
    if not method.point_charges and any(molecule.external is not None for molecule in known):
        raise ConfigError(
            "a reference method that takes point charges, for structures that have some",
            f"{method.title}, which does not",
            'choose name = "xtb" in [method], or write radius = "0 nm" in [explore]',
        )

    def explore(number: int, model: Path | None, seed: int, folder: Path) -> Sequence[Molecule]:
        if config.explore.kind == "run":
            assert explore_run is not None
            return explore_run(None if model is None else model / _MODEL, seed, folder)
        return _explored(config, method, known, number, model, seed)

    def label(molecules: Sequence[Molecule]) -> Iterator[tuple[int, Label | TaskFailure]]:
        yield from executor.run(_Labels(method), molecules, progress=progress)

    def train(pairs: Sequence[tuple[Molecule, Label]], seed: int, folder: Path) -> None:
        samples = check_samples(pairs)
        first, second = split_by_block(samples, config.validation, seed)
        divided = Divided([samples[k] for k in first], [samples[k] for k in second], [])
        training = replace(
            config.training,
            data=DataOptions(validation=config.validation, held_out=0.0),
            fit=replace(config.training.fit, seed=seed % 2**31),
        )
        train_model(training, divided, folder / _MODEL, checkpoint=folder / "fit.safetensors")
        (folder / "fit.safetensors").unlink(missing_ok=True)

    return Steps(method.title, explore, label, train, TrainedModel)


class _Labels:
    """A reference method as a task; refusals of a molecule are failures of its label alone."""

    def __init__(self, method: ReferenceMethod):
        self.method = method

    def __call__(self, molecule: Molecule) -> Label:
        return self.method.label(molecule)


def read_structures(config: LearnConfig) -> list[Molecule]:
    """Structures that a loop starts from: xyz files, data sets, run directories.

    Raises
    ------
    ConfigError
        A file that cannot be read, or an empty one.
    """
    options = config.explore
    found: list[Molecule] = []
    for name in options.structures:
        path = Path(name)
        if (path / "set.json").exists():
            found += [molecule for molecule, _ in Dataset(path)]
        elif (path / "run.json").exists():
            found += frames_of_run(path, radius=options.radius, every=options.every, window=path.name)
        else:
            found += _xyz(path, options.charge, options.multiplicity)
    if not found:
        raise ConfigError(f"structures in {', '.join(options.structures)}", "none", "look at these files")
    return found


def _xyz(path: Path, charge: int, multiplicity: int) -> list[Molecule]:
    import ase.io

    try:
        frames: Any = ase.io.read(path, ":")
    except Exception as error:  # each format of ASE has errors of its own
        raise ConfigError(
            "a file with structures, a data set or a run directory",
            f"{path} ({type(error).__name__}: {error})",
            "give structures in xyz format",
        ) from error
    return [
        Molecule(
            atoms.numbers,
            atoms.positions * 0.1,
            int(atoms.info.get("charge", charge)),
            int(atoms.info.get("multiplicity", multiplicity)),
            origin={"run": path.name, "frame": str(k)}
            | {key[7:]: str(value) for key, value in atoms.info.items() if key.startswith("origin_")},
        )
        for k, atoms in enumerate(frames)
    ]


def _explored(
    config: LearnConfig,
    method: ReferenceMethod,
    known: Sequence[Molecule],
    number: int,
    model: Path | None,
    seed: int,
) -> list[Molecule]:
    """Structures of one round."""
    options = config.explore
    if options.kind == "pool":
        return list(known)
    surface: PotentialModel | ReferenceMethod = method
    if model is not None:
        surface = load_potential(str(model / _MODEL))
    elif options.first != "method":
        surface = load_potential(options.first)
    seeds = np.random.SeedSequence(seed).generate_state(len(known)).tolist()
    shares = [len(part) for part in np.array_split(np.arange(options.count), len(known))]
    found: list[Molecule] = []
    for k, (molecule, own, share) in enumerate(zip(known, seeds, shares, strict=True)):
        if not share:
            continue
        molecule = replace(molecule, origin=dict(molecule.origin) | {"window": _basin(molecule, k)})
        run = f"round {number} start {k}"
        if options.kind == "dynamics":
            found += sample_dynamics(
                molecule,
                surface,
                share,
                temperature=options.temperature,
                timestep=options.timestep,
                interval=options.interval,
                seed=own,
                run=run,
                tolerant=True,
            )
        elif options.kind == "modes":
            modes = normal_modes(minimised(molecule, surface), surface)
            found += sample_normal_modes(modes, share, temperature=options.temperature, seed=own, run=run)
        else:
            found += distorted(molecule, share, options.size, seed=own, run=run)
    return found


def _basin(molecule: Molecule, number: int) -> str:
    """Basin of the structures from one start: the one that it says, or its number."""
    return molecule.origin.get("window", str(number))
