"""One training from labels to a potential in a file: divide, fit, measure, calibrate, write."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.elements import SYMBOLS, element_names
from mlmm.errors import ConfigError
from mlmm.learning.dataset.imports import import_labels
from mlmm.learning.dataset.splits import split_by_block
from mlmm.learning.offsets import composition, fit_offsets
from mlmm.learning.training.among_charges import (
    AMONG_CHARGES,
    fit_among_charges,
    rewrite_among_charges,
    start_of,
)
from mlmm.learning.training.ani import train_networks
from mlmm.learning.training.base import minus_base
from mlmm.learning.training.config import ModelOptions, TrainConfig, own_options
from mlmm.learning.training.gaussian_process import fit_gaussian_process
from mlmm.learning.training.gdml import fit_gdml
from mlmm.learning.training.loop import EpochReport
from mlmm.learning.training.message_passing import train_message_passing
from mlmm.learning.training.metrics import Errors, errors_of
from mlmm.learning.training.targets import Sample, check_samples, check_split, data_sha256
from mlmm.learning.uncertainty.calibrate import LEAST, calibrate_forces, with_coverage
from mlmm.learning.uncertainty.predict import Predicted, predict
from mlmm.potentials.adapters.graph_pes import read_graph_file, save_graph_file
from mlmm.potentials.ani.files import load_ani_file, save_ani_file
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.kernel_models.gdml import GDMLPotential
from mlmm.potentials.kernel_models.sparse_gp import SparseGPPotential
from mlmm.potentials.known import known_by_name
from mlmm.potentials.registry import load_potential

__all__ = ["Divided", "Trained", "divide", "train_model"]


@dataclass(frozen=True)
class Divided:
    """Labels by what they are for."""

    train: list[Sample]
    validation: list[Sample]
    held_out: list[Sample]


@dataclass(frozen=True)
class Trained:
    """A trained potential and how good it is.

    Parameters
    ----------
    path : Path
        Of its file.
    model : PotentialModel
        As `load_potential` reads it.
    errors : dict of str to Errors
        On the training, validation and held-out labels, and by block of the held-out ones.
    blocks : dict of str to Errors
        Of the held-out labels.
    calibration : Calibration, optional
    predicted : Predicted
        For training, validation and held-out labels one after the other.
    divided : Divided
    seconds : float
        Processor time of the fit.
    """

    path: Path
    model: PotentialModel
    errors: dict[str, Errors]
    blocks: dict[str, Errors]
    calibration: Calibration | None
    predicted: Predicted
    divided: Divided
    seconds: float


def divide(config: TrainConfig) -> Divided:
    """Read, check and divide the labels of a training.

    Raises
    ------
    ConfigError
        As `import_labels`, `check_samples` and `check_split`.
    """
    data = config.data
    samples = check_samples([sample for path in data.labels for sample in import_labels(path)])
    held_out: list[Sample] = []
    if data.held_out_labels:
        held_out = check_samples([s for path in data.held_out_labels for s in import_labels(path)], least=1)
        methods = {held_out[0][1].method, samples[0][1].method}
        if len(methods) > 1:
            raise ConfigError(
                "held-out labels of the level of theory of the others",
                " and ".join(sorted(methods)),
                "label them again",
            )
    elif data.held_out:
        whole = data.held_out_by == "windows"
        rest, kept = split_by_block(samples, data.held_out, config.fit.seed, data.block, whole=whole)
        samples, held_out = [samples[k] for k in rest], [samples[k] for k in kept]
    if data.limit and data.limit < len(samples):
        order = np.random.default_rng(config.fit.seed).permutation(len(samples))[: data.limit]
        samples = [samples[k] for k in sorted(order)]
    first, second = split_by_block(samples, data.validation, config.fit.seed, data.block)
    parts: dict[str, list[Sample]] = {
        "training": [samples[k] for k in first],
        "validation": [samples[k] for k in second],
    }
    check_split(parts | ({"held_out": held_out} if held_out else {}))
    return Divided(parts["training"], parts["validation"], held_out)


def train_model(
    config: TrainConfig,
    divided: Divided,
    out: str | Path,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Trained:
    """Train, measure and write a potential.

    Parameters
    ----------
    config : TrainConfig
    divided : Divided
        Of `divide`, or made from lists.
    out : path
        The file, FILE.safetensors.
    checkpoint : Path, optional
        Where the state of the fit is kept after each epoch; a killed training goes on from there.
    progress : callable, optional
        Gets an `EpochReport` after each epoch of networks.
    say : callable, optional
        Gets sentences.

    Raises
    ------
    ConfigError, PotentialError, SimulationError
        As the parts.
    """
    out, begin = Path(out), time.process_time()
    samples = [*divided.train, *divided.validation, *divided.held_out]
    targets, base = samples, None
    if config.model.base:
        targets, base = minus_base(samples, config.model.base)
    n, m = len(divided.train), len(divided.train) + len(divided.validation)
    about = _about(config, divided, out)
    if config.model.kind == "networks":
        fitted = train_networks(
            targets[:n],
            targets[n:m],
            config.networks,
            config.fit,
            checkpoint=checkpoint,
            device=config.model.device,
            progress=progress,
        )
        save_ani_file(fitted.parameters, out, about)
    elif config.model.kind == "message-passing":
        passing = train_message_passing(
            targets[:n],
            targets[n:m],
            config.graph,
            config.fit,
            checkpoint=checkpoint,
            device=config.model.device,
            progress=progress,
        )
        about |= {"elements": passing.elements, "reference_energies": passing.references}
        save_graph_file(out, passing.architecture, passing.weights, about)
    elif config.model.kind == "gp":
        process = fit_gaussian_process(targets[:n], config.kernel, about, seed=config.fit.seed, progress=say)
        process.save(out)
    elif config.model.kind in AMONG_CHARGES:
        fit_among_charges(config, targets[:n], targets[n:m], out, about, checkpoint, progress)
    else:
        _train_gdml(config, targets[:n], targets[n:m], about, say).save(out)
    seconds = time.process_time() - begin
    # With a correction to a force field the file alone gives the correction.
    labels = [label for _, label in (targets if about["trained_on"] == "correction" else samples)]
    model = load_potential(str(out))
    predicted = predict(model, [molecule for molecule, _ in samples])
    calibration = _calibrated(config, predicted, labels, (n, m, len(samples)))
    parts = {"training": range(n), "validation": range(n, m), "held out": range(m, len(samples))}
    errors = {name: _errors(predicted, labels, rows) for name, rows in parts.items() if len(rows)}
    blocks = _blocks(predicted, labels, samples, range(m, len(samples)), config.data.block)
    about["training"] |= {"seconds": round(seconds, 1), "base_of": base or ""}
    about["metrics"] = {name: found.as_facts() for name, found in errors.items()}
    if calibration is not None:
        about["calibration"] = calibration.as_facts()
    _rewrite(config.model.kind, out, about)
    model = load_potential(str(out))
    return Trained(out, model, errors, blocks, calibration, predicted, divided, seconds)


def _train_gdml(
    config: TrainConfig,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    about: dict[str, Any],
    say: Callable[[str], None] | None,
) -> GDMLPotential:
    """A gradient-domain model with the energies of isolated atoms that its labels imply."""
    try:
        permutations = [[int(k) for k in text.split()] for text in config.kernel.permutations]
    except ValueError as error:
        raise ConfigError(
            "permutations as lists of numbers", str(error), 'write permutations = ["0 2 1"]'
        ) from error
    parameters = fit_gdml(
        train, validation, permutations, length=config.kernel.length, noise=config.kernel.noise, progress=say
    )
    elements = sorted(set(parameters.numbers))
    counts = composition([molecule for molecule, _ in train], elements)
    references = fit_offsets(counts, np.array([label.energy for _, label in train]))
    about["reference_energies"] = {str(z): float(e) for z, e in zip(elements, references, strict=True)}
    return GDMLPotential(parameters, about)


def _about(config: TrainConfig, divided: Divided, out: Path) -> dict[str, Any]:
    """Facts of the file that are known before the fit."""
    samples = [*divided.train, *divided.validation]
    numbers = sorted({int(z) for molecule, _ in samples for z in molecule.numbers})
    model = config.model
    start = known_by_name(start_of(config))
    licence, citation = model.licence, "trained by the user"
    if start is not None:
        licence = f"{model.licence} (start: {start.about['name']}, {start.about['licence']})"
        citation = start.about["citation"]
    external = any(molecule.external is not None for molecule, _ in samples)
    if external and model.kind not in AMONG_CHARGES:
        raise ConfigError(
            "labels of molecules by themselves for this kind of model",
            "labels among point charges, which it would not see",
            'label in a vacuum, or write kind = "qeq-ani" or "amp-bms"',
        )
    _check_base(model)
    networks = None if model.kind in ("gp", "gdml") else own_options(config)
    correction = model.base.endswith(".xml")
    return {
        "name": model.name or out.stem,
        "trained_on": "correction" if correction else model.trained_on,
        "level_of_theory": samples[0][1].method,
        "licence": licence,
        "citation": citation,
        "base": model.base,
        "trained_charges": sorted({int(molecule.charge) for molecule, _ in samples}),
        "training": {
            "kind": model.kind,
            "elements": element_names(numbers, " "),
            "labels": len(divided.train),
            "validation_labels": len(divided.validation),
            "held_out_labels": len(divided.held_out),
            "data_sha256": data_sha256(samples),
            "start": start_of(config),
            "options": repr(config.kernel if model.kind in ("gp", "gdml") else config.fit),
            "networks": repr(networks) if networks is not None else "",
            "molecules": len({molecule.numbers.tobytes() for molecule, _ in samples}),
        },
    }


def _check_base(model: ModelOptions) -> None:
    """Refuse a base that the file of this kind could not be added to when it is used."""
    if model.base and model.kind in AMONG_CHARGES:
        raise ConfigError(
            f'no base for kind = "{model.kind}"',
            repr(model.base),
            "learn the labels themselves: leave base out",
        )
    if model.base.endswith(".xml") and model.kind == "gdml":
        raise ConfigError(
            'a potential as the base of kind = "gdml", which has no energies of atoms for scheme "delta"',
            f"the force field {model.base}",
            'choose kind = "networks" or "gp", or a base such as "tblite:GFN2-xTB"',
        )


def _calibrated(
    config: TrainConfig, predicted: Predicted, labels: Sequence[Any], ends: tuple[int, int, int]
) -> Calibration | None:
    """Constants from the validation, tested on held-out labels; None without a spread or enough labels."""
    n, m, total = ends
    first, second = predicted.against(labels, range(n, m)), predicted.against(labels, range(m, total))
    if first is None or first.structures < LEAST:
        return None
    measure = "force spread of the committee" if config.model.kind == "networks" else "predictive deviation"
    found = calibrate_forces(first, measure)
    return with_coverage(found, second) if second is not None else found


def _errors(predicted: Predicted, labels: Sequence[Any], rows: Sequence[int]) -> Errors:
    wanted = [_forces(labels[k], predicted.forces[k]) for k in rows]
    energies = np.array([labels[k].energy for k in rows])
    found = np.concatenate([predicted.forces[k] for k in rows])
    errors = errors_of(predicted.energies[list(rows)], found, energies, np.concatenate(wanted))
    outside = [
        np.abs(predicted.external_forces[k] - labels[k].external_forces).ravel()
        for k in rows
        if k in predicted.external_forces and labels[k].external_forces is not None
    ]
    if outside:
        errors = dataclasses.replace(errors, external_force=float(np.concatenate(outside).mean()))
    return errors


def _blocks(
    predicted: Predicted, labels: Sequence[Any], samples: Sequence[Sample], rows: Sequence[int], key: str
) -> dict[str, Errors]:
    names = {k: samples[k][0].origin.get(key, "") for k in rows}
    blocks = dict.fromkeys(names.values())
    if len(blocks) < 2:
        return {}
    return {
        block: _errors(predicted, labels, [k for k, name in names.items() if name == block])
        for block in blocks
    }


def _forces(label: Any, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, np.nan) if label.forces is None else np.asarray(label.forces)


def _rewrite(kind: str, path: Path, about: dict[str, Any]) -> None:
    """Write the file again, with what was measured."""
    if kind == "networks":
        parameters = load_ani_file(path)[0]
        about["training"]["range"] = f"{float(parameters.constants['Rcr']) / 10:.2f}"
        numbers = {SYMBOLS.index(symbol) for symbol in parameters.elements}
        about["training"]["elements"] = element_names(sorted(numbers), " ")
        save_ani_file(parameters, path, about)
        return
    if kind in AMONG_CHARGES:
        rewrite_among_charges(kind, path, about)
        return
    if kind == "message-passing":
        architecture, weights, _ = read_graph_file(path)
        about["training"]["range"] = f"{architecture.receptive_field:.2f}"
        save_graph_file(path, architecture, weights, about)
        return
    model: Any = GDMLPotential.from_file(path) if kind == "gdml" else SparseGPPotential.from_file(path)
    about["training"]["range"] = "" if kind == "gdml" else f"{model.descriptor.cutoff:.2f}"
    kept = {key: model.about[key] for key in ("reference_energies", "noise") if key in model.about}
    model.save(path, {**about, **kept})
