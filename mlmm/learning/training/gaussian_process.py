"""Fit a sparse Gaussian process to energies and forces; length and noise by structures left out.

Equations: `mlmm.potentials.kernel_models.sparse_gp`. With rows y of energies and forces of noise Λ and
covariances A with the M inducing environments, S = (K + Aᵀ Λ⁻¹ A)⁻¹ and α = S Aᵀ Λ⁻¹ y. The amplitude
comes from the left-out errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import cholesky, qr, solve_triangular

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError
from mlmm.learning.offsets import composition, fit_offsets
from mlmm.learning.training.options import KernelOptions
from mlmm.learning.training.targets import Sample
from mlmm.potentials.kernel_models.descriptors import AtomDescriptor, descriptor_of, symmetry_constants
from mlmm.potentials.kernel_models.sparse_gp import (
    GPParameters,
    SparseGPPotential,
    kernel_rows,
    prior_variances,
)

__all__ = ["fit_gaussian_process", "inducing_covariance"]

_JITTER = 1e-8  # of the inducing covariance, relative
_PROBE = 60  # structures by which length and noise are chosen
_PROBE_POINTS = 600
_LENGTHS = (4.0, 10.0, 25.0, 60.0)  # in widths of the descriptors of an element
_NOISES = ((0.5, 20.0), (0.5, 60.0))  # kJ/mol, kJ/mol/nm
_AMPLITUDE = 200.0  # kJ/mol, times length^1.5: long kernels need large amplitudes for the same slopes
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
    found, noise = _choose(described, start, options, seed, progress)
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


def _choose(
    described: Sequence[_Described],
    start: GPParameters,
    options: KernelOptions,
    seed: int,
    progress: Callable[[str], None] | None,
) -> tuple[GPParameters, tuple[float, float]]:
    """Length and noise with the smallest error on structures left out, the amplitude by those errors.

    Amplitude and noise in a fixed ratio give the same energies; their size is that which makes the mean
    square
    of the left-out errors, in units of the predicted deviations, one.
    """
    random = np.random.default_rng(seed + 1)
    some = [described[k] for k in random.permutation(len(described))[:_PROBE]]
    count = max(1, len(some) // 5)
    tests, learned = some[:count], some[count:]
    # Farthest points come in order: the first of them represent all.
    share = min(1.0, _PROBE_POINTS / sum(len(p) for p in start.points.values()))
    fewer = replace(start, points={z: p[: max(3, round(share * len(p)))] for z, p in start.points.items()})
    best: tuple[float, GPParameters, tuple[float, float], float] | None = None
    for length in (options.length,) if options.length else _LENGTHS:
        trial = replace(fewer, length=length, amplitude=_AMPLITUDE * length**1.5)
        rows, labels, is_energy = _rows(learned, trial)
        wanted, truth, of_energy = _rows(tests, trial)
        for noise in _NOISES:
            fitted = _solved(trial, rows, labels, np.where(is_energy, noise[0] ** 2, noise[1] ** 2))
            errors = (wanted @ fitted.weights - truth)[~of_energy]
            size = float(np.abs(errors).mean())
            if best is None or size < best[0]:
                variance = np.concatenate(
                    [prior_variances(trial, d.numbers, d.values, d.slopes, d.near)[1].numpy() for d in tests]
                )
                forces = wanted[~of_energy]
                variance = variance - np.einsum("rm,mn,rn->r", forces, fitted.explained, forces)
                square = float(np.mean(np.square(errors) / (np.maximum(variance, 0.0) + noise[1] ** 2)))
                best = (size, trial, noise, math.sqrt(square))
            if progress is not None:
                progress(f"length {length:g}, noise {noise[1]:g} kJ/mol/nm: left-out force error {size:.1f}")
    assert best is not None
    _, trial, noise, factor = best
    found = replace(start, length=trial.length, amplitude=factor * trial.amplitude)
    return found, (factor * noise[0], factor * noise[1])


def _posterior(
    described: Sequence[_Described], parameters: GPParameters, noise: tuple[float, float]
) -> GPParameters:
    """Weights and the covariance that the labels explain."""
    rows, labels, is_energy = _rows(described, parameters)
    return _solved(parameters, rows, labels, np.where(is_energy, noise[0] ** 2, noise[1] ** 2))


def _solved(
    parameters: GPParameters, rows: np.ndarray, labels: np.ndarray, variance: np.ndarray
) -> GPParameters:
    """Solve for weights and explained covariance; `variance` is the noise of each row."""
    covariance = inducing_covariance(parameters)
    lower = cholesky(covariance, lower=True)
    # By QR: the normal equations would square a condition number that is large already.
    scale = 1.0 / np.sqrt(variance)
    stacked = np.concatenate([rows * scale[:, None], lower.T])
    orthogonal, upper = qr(stacked, mode="economic", overwrite_a=True, check_finite=False)
    weights = solve_triangular(upper, orthogonal[: len(rows)].T @ (labels * scale))
    identity = np.eye(len(covariance))
    inverse = solve_triangular(lower, identity, lower=True)
    root = solve_triangular(upper, identity)
    explained = inverse.T @ inverse - root @ root.T
    return replace(parameters, weights=weights, explained=0.5 * (explained + explained.T))
