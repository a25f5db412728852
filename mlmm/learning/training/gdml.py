"""Fit a gradient-domain model: one linear system for all forces of the training structures.

Equations: `mlmm.potentials.kernel_models.gdml`. The block of structures i and j is J_iᵀ (a²/3) exp(−a d) [(1
+ a d) 1 − a² δ δᵀ] J_j with J = dD/dx and δ = D_i − D_j, summed over the permutations of j.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mlmm.errors import ConfigError
from mlmm.learning.training.targets import Sample
from mlmm.potentials.kernel_models.gdml import GDMLParameters, inverse_distances

__all__ = ["fit_gdml", "permutation_group"]

_LENGTHS = (1.0, 2.0, 4.0, 8.0)  # of the median distance of descriptors
_PROBE = 60  # structures on which a length is chosen
_LARGEST = 20_000  # rows of the linear system: 3.2 GB
_MOST_PERMUTATIONS = 2000


def permutation_group(given: Sequence[Sequence[int]], numbers: Sequence[int]) -> np.ndarray:
    """All products of some permutations of equivalent atoms, the identity among them, (Q, N).

    A sum over a whole group makes the energy exactly the same for every one of them.

    Raises
    ------
    ConfigError
        No permutation of these atoms, one that exchanges elements, or a group of more than 2000.
    """
    n = len(numbers)
    for permutation in given:
        if sorted(permutation) != list(range(n)):
            raise ConfigError(
                f"permutations of 0 to {n - 1}", str(list(permutation)), "name each atom once, from 0"
            )
        if any(numbers[a] != numbers[b] for a, b in enumerate(permutation)):
            raise ConfigError(
                "permutations of atoms of one element",
                str(list(permutation)),
                "exchange equivalent atoms only",
            )
    group = {tuple(range(n))}
    new = [tuple(p) for p in given]
    while new:
        group |= set(new)
        if len(group) > _MOST_PERMUTATIONS:
            raise ConfigError(
                f"at most {_MOST_PERMUTATIONS} permutations",
                "a larger group",
                "leave out those of distant groups of atoms",
            )
        pairs = itertools.product(list(group), new)
        products = {tuple(a[k] for k in b) for a, b in pairs}
        new = [p for p in products if p not in group]
    return np.array(sorted(group))


def fit_gdml(
    train: Sequence[Sample],
    validation: Sequence[Sample],
    permutations: Sequence[Sequence[int]] = (),
    *,
    length: float = 0.0,
    noise: float = 1e-9,
    progress: Callable[[str], None] | None = None,
) -> GDMLParameters:
    """Fit a gradient-domain model of one molecule.

    Parameters
    ----------
    train, validation : sequence of (Molecule, Label)
        Of one molecule with forces; the validation chooses the length.
    permutations : sequence of sequence of int
        Of equivalent atoms; their group is made complete.
    length : float
        σ, 1/nm; 0: chosen.
    noise : float
        Ridge, relative to the mean diagonal.
    progress : callable, optional

    Raises
    ------
    ConfigError
        Several molecules, labels without forces, or more of them than memory holds.
    """
    numbers = tuple(int(z) for z in train[0][0].numbers)
    for molecule, label in (*train, *validation):
        if tuple(int(z) for z in molecule.numbers) != numbers:
            raise ConfigError(
                "labels of one molecule, in one order of atoms, for sGDML",
                "several",
                'choose kind = "networks" or "gp" in [model]',
            )
        if label.forces is None:
            raise ConfigError("forces in every label for sGDML", "energies alone", "label with forces")
    rows = 3 * len(numbers) * len(train)
    if rows > _LARGEST:
        most = _LARGEST // (3 * len(numbers))
        raise ConfigError(
            f"at most {most} labels of {len(numbers)} atoms for sGDML",
            f"{len(train)}",
            f"write limit = {most}",
        )
    group = permutation_group(permutations, numbers)
    if not length:
        length = _choose_length(train, validation, numbers, group, noise, progress)
    return _solved(train, numbers, group, length, noise)


def _choose_length(
    train: Sequence[Sample],
    validation: Sequence[Sample],
    numbers: tuple[int, ...],
    group: np.ndarray,
    noise: float,
    progress: Callable[[str], None] | None,
) -> float:
    """The length with the smallest force error on the validation set, by some of the structures."""
    step = max(1, len(train) // _PROBE)
    some = list(train[::step])[:_PROBE]
    points = np.stack([_descriptor(molecule.positions)[0] for molecule, _ in some])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    typical = float(np.median(apart[np.triu_indices(len(points), 1)]))
    errors = {}
    for factor in _LENGTHS:
        parameters = _solved(some, numbers, group, factor * typical, noise)
        found = [_forces(parameters, molecule.positions) for molecule, _ in validation]
        wanted = [np.asarray(label.forces) for _, label in validation]
        errors[factor] = float(np.abs(np.concatenate(found) - np.concatenate(wanted)).mean())
        if progress is not None:
            progress(f"length {factor * typical:.3g} 1/nm: force error {errors[factor]:.1f} kJ/mol/nm")
    return min(errors, key=lambda factor: errors[factor]) * typical


def _descriptor(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1/r of all pairs, (P,), and its Jacobian (P, 3 N)."""
    n = len(positions)
    first, second = np.triu_indices(n, 1)
    vectors = positions[first] - positions[second]
    values = 1.0 / np.linalg.norm(vectors, axis=1)
    slope = -(values**3)[:, None] * vectors
    jacobian = np.zeros((len(values), n, 3))
    rows = np.arange(len(values))
    jacobian[rows, first], jacobian[rows, second] = slope, -slope
    return values, jacobian.reshape(len(values), 3 * n)


def _pair_orders(group: np.ndarray) -> np.ndarray:
    """For each permutation of atoms the permutation of pairs, (Q, P)."""
    n = group.shape[1]
    first, second = np.triu_indices(n, 1)
    place = np.zeros((n, n), dtype=np.int64)
    place[first, second] = place[second, first] = np.arange(len(first))
    return np.stack([place[permutation[first], permutation[second]] for permutation in group])


def _solved(
    train: Sequence[Sample], numbers: tuple[int, ...], group: np.ndarray, length: float, noise: float
) -> GDMLParameters:
    """Solve for the weights of all force components, then set the constant of the energy."""
    made = [_descriptor(molecule.positions) for molecule, _ in train]
    points, jacobians = np.stack([m[0] for m in made]), np.stack([m[1] for m in made])
    orders = _pair_orders(group)
    count, width = len(train), jacobians.shape[2]
    a = 5.0**0.5 / length
    kernel = np.zeros((count * width, count * width))
    for order in orders:
        others, slopes = points[:, order], jacobians[:, order]  # (S, P), (S, P, 3 N)
        flat = slopes.transpose(1, 0, 2).reshape(points.shape[1], -1)
        for i in range(count):
            off = points[i] - others
            scaled = a * np.linalg.norm(off, axis=1)
            decay = (a * a / 3.0) * np.exp(-scaled)
            block = (jacobians[i].T @ flat).reshape(width, count, width)
            along = np.einsum("sp,spx->sx", off, slopes)
            here = off @ jacobians[i]
            block *= (decay * (1.0 + scaled))[None, :, None]
            block -= here.T[:, :, None] * (a * a * decay[:, None] * along)[None]
            kernel[i * width : (i + 1) * width] += block.reshape(width, count * width)
    kernel.flat[:: len(kernel) + 1] += noise * float(np.trace(kernel)) / len(kernel)
    forces = np.concatenate([np.asarray(label.forces).ravel() for _, label in train])
    try:
        weights = cho_solve(cho_factor(kernel, lower=True, overwrite_a=True), forces)
    except LinAlgError as error:
        raise ConfigError(
            "different structures to train sGDML on", "a singular system", "remove duplicates, or raise noise"
        ) from error
    slopes = np.einsum("spx,sx->sp", jacobians, weights.reshape(count, width))
    parameters = GDMLParameters(
        numbers,
        np.concatenate([points[:, order] for order in orders]),
        np.concatenate([slopes[:, order] for order in orders]),
        length,
        0.0,
    )
    energies = np.array([_energy(parameters, torch.as_tensor(m.positions)).item() for m, _ in train])
    offset = float(np.mean([label.energy for _, label in train] - energies))
    return GDMLParameters(numbers, parameters.points, parameters.slopes, length, offset)


def _energy(parameters: GDMLParameters, positions: torch.Tensor) -> torch.Tensor:
    """Energy of one structure, differentiable."""
    off = inverse_distances(positions) - torch.as_tensor(parameters.points)
    scaled = 5.0**0.5 / parameters.length * (off.square().sum(-1) + 1e-30).sqrt()
    weight = 5.0 / 3.0 / parameters.length**2 * (1.0 + scaled) * torch.exp(-scaled)
    return parameters.offset - (weight * (off * torch.as_tensor(parameters.slopes)).sum(-1)).sum()


def _forces(parameters: GDMLParameters, positions: np.ndarray) -> np.ndarray:
    leaf = torch.as_tensor(positions).clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(_energy(parameters, leaf), leaf)
    return -gradient.numpy()
