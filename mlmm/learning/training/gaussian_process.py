"""Fit a sparse Gaussian process to energies and forces; length and noise by the marginal likelihood.

Equations: `mlmm.potentials.kernel_models.sparse_gp`. With rows y of energies and forces of noise Λ and
covariances A with the M inducing environments, S = (K + Aᵀ Λ⁻¹ A)⁻¹ and α = S Aᵀ Λ⁻¹ y. The amplitude is
found with the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError
from mlmm.learning.training.offsets import composition, fit_offsets
from mlmm.learning.training.options import KernelOptions
from mlmm.learning.training.targets import Sample
from mlmm.potentials.kernel_models.descriptors import AtomDescriptor, descriptor_of, symmetry_constants
from mlmm.potentials.kernel_models.sparse_gp import GPParameters, SparseGPPotential, kernel_rows

__all__ = ["fit_gaussian_process", "inducing_covariance"]

_JITTER = 1e-8  # of the inducing covariance, relative
_PROBE = 25  # structures whose likelihood is maximised
_PROBE_POINTS = 350
_FARTHEST_FROM = 4000  # environments among which the inducing ones are chosen


@dataclass(frozen=True)
class _Described:
    """One structure: numbers, values, slopes, neighbours, energy without references, forces."""

    numbers: np.ndarray
    values: torch.Tensor
    slopes: torch.Tensor
    near: torch.Tensor
    energy: float
    forces: np.ndarray


def fit_gaussian_process(
    train: Sequence[Sample],
    options: KernelOptions | None = None,
    about: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> SparseGPPotential:
    """Fit a sparse process on the descriptors of atoms.

    Parameters
    ----------
    train : sequence of (Molecule, Label)
        With forces.
    options : KernelOptions, optional
    about : dict, optional
        Facts for the spec.
    seed : int
        Of the choice of inducing environments.
    progress : callable, optional

    Raises
    ------
    ConfigError
        Labels without forces.
    MissingPackageError
        SOAP without dscribe.
    """
    options, about = options or KernelOptions(), dict(about or {})
    if any(label.forces is None for _, label in train):
        raise ConfigError(
            "forces in every label for a Gaussian process", "energies alone", "label with forces"
        )
    elements = sorted({int(z) for molecule, _ in train for z in molecule.numbers})
    facts: dict[str, Any] = {"elements": elements, "kind": "soap"}
    if options.descriptor != "soap":
        facts |= {"kind": "symmetry", "constants": symmetry_constants(options.descriptor)}
    descriptor = descriptor_of(facts)
    counts = composition([molecule for molecule, _ in train], elements)
    energies = np.array([label.energy for _, label in train])
    references = fit_offsets(counts, energies)
    described = _describe(train, descriptor, energies - counts @ references)
    points, widths = _inducing(described, elements, options.inducing, seed)
    start = GPParameters(points, widths, np.zeros(0), np.zeros((0, 0)), options.length or 1.0, 1.0)
    found, noise = _maximise(described, start, options, seed, progress)
    parameters = _posterior(described, found, noise)
    about["reference_energies"] = {str(z): float(e) for z, e in zip(elements, references, strict=True)}
    about["noise"] = {"energy": noise[0], "force": noise[1]}
    about["descriptor_name"] = options.descriptor
    about.setdefault("name", f"sparse GP of {' '.join(SYMBOLS[z] for z in elements)}")
    return SparseGPPotential(parameters, descriptor, about)


def _describe(
    samples: Sequence[Sample], descriptor: AtomDescriptor, energies: np.ndarray
) -> list[_Described]:
    found = []
    for (molecule, label), energy in zip(samples, energies, strict=True):
        values, slopes, near = descriptor(molecule.numbers.tolist(), torch.as_tensor(molecule.positions))
        forces = np.asarray(label.forces, dtype=np.float64).ravel()
        found.append(_Described(molecule.numbers, values, slopes, near, float(energy), forces))
    return found


def _inducing(
    described: Sequence[_Described], elements: Sequence[int], total: int, seed: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Farthest points of each element, as many as its share of the atoms, and one width for each element."""
    random = np.random.default_rng(seed)
    atoms = sum(len(d.numbers) for d in described)
    points, widths = {}, {}
    for z in elements:
        rows = torch.cat([d.values[torch.as_tensor(d.numbers == z)] for d in described]).numpy()
        if len(rows) > _FARTHEST_FROM:
            rows = rows[np.sort(random.permutation(len(rows))[:_FARTHEST_FROM])]
        # One number: distances keep their proportions, and columns that hardly vary count little.
        spread = math.sqrt(max(float(rows.var(axis=0).sum()), 1e-12))
        widths[z] = np.full(rows.shape[1], spread)
        scaled = rows / spread
        count = min(len(scaled), max(5, round(total * len(rows) / atoms)))
        chosen = [0]
        nearest = np.linalg.norm(scaled - scaled[0], axis=1)
        while len(chosen) < count and nearest.max() > 1e-6:
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        points[z] = scaled[chosen]
    return points, widths


def _rows(
    described: Sequence[_Described], parameters: GPParameters
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariances (rows, M), labels (rows,) and whether a row is an energy."""
    blocks, labels, kinds = [], [], []
    for d in described:
        energy, forces = kernel_rows(parameters, d.numbers, d.values, d.slopes, d.near)
        blocks += [energy.unsqueeze(0).numpy(), forces.numpy()]
        labels += [np.array([d.energy]), d.forces]
        kinds += [np.array([True]), np.zeros(len(d.forces), dtype=bool)]
    return np.concatenate(blocks), np.concatenate(labels), np.concatenate(kinds)


def inducing_covariance(parameters: GPParameters) -> np.ndarray:
    """Covariance of the energies of the inducing environments, (M, M); zero between elements."""
    blocks = []
    for z in sorted(parameters.points):
        points = torch.as_tensor(parameters.points[z])
        squares = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()
        blocks.append((parameters.amplitude**2 * torch.exp(-0.5 * squares / parameters.length**2)).numpy())
    total = sum(len(b) for b in blocks)
    covariance, at = np.zeros((total, total)), 0
    for block in blocks:
        covariance[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    covariance.flat[:: total + 1] += _JITTER * parameters.amplitude**2
    return covariance


def _minus_log_likelihood(
    rows: np.ndarray, labels: np.ndarray, noise: np.ndarray, covariance: np.ndarray
) -> float:
    """Of the deterministic training conditional, per row; `noise` is the variance of each row."""
    weighted = rows / noise[:, None]
    factor = cho_factor(covariance, lower=True)
    inner = cho_factor(covariance + rows.T @ weighted, lower=True)
    projected = weighted.T @ labels
    fit = float((np.square(labels) / noise).sum() - projected @ cho_solve(inner, projected))
    determinant = 2.0 * (np.log(np.diag(inner[0])).sum() - np.log(np.diag(factor[0])).sum())
    return 0.5 * (fit + determinant + float(np.log(noise).sum())) / len(labels)


def _maximise(
    described: Sequence[_Described],
    start: GPParameters,
    options: KernelOptions,
    seed: int,
    progress: Callable[[str], None] | None,
) -> tuple[GPParameters, tuple[float, float]]:
    """Length, amplitude and noise of energies and forces, by the likelihood of some structures."""
    random = np.random.default_rng(seed + 1)
    some = [described[k] for k in sorted(random.permutation(len(described))[:_PROBE])]
    total = sum(len(p) for p in start.points.values())
    share = min(1.0, _PROBE_POINTS / total)
    # Farthest points come in order: the first of them represent all.
    fewer = replace(start, points={z: p[: max(3, round(share * len(p)))] for z, p in start.points.items()})
    size_e = max(float(np.std([d.energy for d in described])), 1e-3)
    size_f = float(np.sqrt(np.mean(np.concatenate([np.square(d.forces) for d in described]))))

    def unpacked(logs: np.ndarray) -> tuple[float, float, float, float]:
        length = options.length or math.exp(logs[0])
        return length, size_e * math.exp(logs[1]), size_e * math.exp(logs[2]), size_f * math.exp(logs[3])

    cached: dict[float, tuple] = {}

    def objective(logs: np.ndarray) -> float:
        if np.abs(logs).max() > 14.0:
            return 1e6
        length, amplitude, noise_e, noise_f = unpacked(logs)
        key = round(length, 12)
        if key not in cached:
            cached.clear()
            unit = replace(fewer, length=length, amplitude=1.0)
            cached[key] = (*_rows(some, unit), inducing_covariance(unit))
        rows, labels, is_energy, covariance = cached[key]
        noise = np.where(is_energy, noise_e**2, noise_f**2)
        try:
            value = _minus_log_likelihood(amplitude**2 * rows, labels, noise, amplitude**2 * covariance)
        except np.linalg.LinAlgError:
            return 1e6
        return value

    best = np.array([math.log(1.5), math.log(1.0), math.log(0.02), math.log(0.05)])
    if options.optimise:
        if not options.length:  # the rows are made anew for each length: few of them
            trials = {}
            for length in (0.7, 1.5, 3.0, 6.0):
                rest = minimize(
                    lambda x, length=length: objective(np.array([math.log(length), *x])),
                    best[1:],
                    method="Nelder-Mead",
                    options={"maxiter": 2 * options.optimise},
                )
                trials[length] = (float(rest.fun), np.array([math.log(length), *rest.x]))
                if progress is not None:
                    progress(f"length {length:g}: likelihood per label {-rest.fun:.3f}")
            best = min(trials.values(), key=lambda trial: trial[0])[1]
        else:
            rest = minimize(
                lambda x: objective(np.array([0.0, *x])),
                best[1:],
                method="Nelder-Mead",
                options={"maxiter": 2 * options.optimise},
            )
            best = np.array([0.0, *rest.x])
    length, amplitude, noise_e, noise_f = unpacked(best)
    if progress is not None:
        progress(
            f"length {length:.3g}, amplitude {amplitude:.3g} kJ/mol, noise {noise_e:.3g} kJ/mol and "
            f"{noise_f:.3g} kJ/mol/nm"
        )
    return replace(start, length=length, amplitude=amplitude), (noise_e, noise_f)


def _posterior(
    described: Sequence[_Described], parameters: GPParameters, noise: tuple[float, float]
) -> GPParameters:
    """Weights and the covariance that the labels explain."""
    rows, labels, is_energy = _rows(described, parameters)
    variance = np.where(is_energy, noise[0] ** 2, noise[1] ** 2)
    covariance = inducing_covariance(parameters)
    weighted = rows / variance[:, None]
    inner = cho_factor(covariance + rows.T @ weighted, lower=True)
    identity = np.eye(len(covariance))
    explained = cho_solve(cho_factor(covariance, lower=True), identity) - cho_solve(inner, identity)
    weights = cho_solve(inner, weighted.T @ labels)
    return replace(parameters, weights=weights, explained=0.5 * (explained + explained.T))
