"""Sparse Gaussian process on descriptors of atoms: energy, forces and the variance of both.

E = Σ_i Σ_m k(G_i, g_m) α_m with inducing environments g_m of the same element and k(g, h) = s² exp(−|g −
h|²/2ℓ²). The variance is that of the deterministic training conditional (Quiñonero-Candela, Rasmussen, J.
Mach. Learn. Res. 6, 1939 (2005)): k(x, x) − k_m(x)ᵀ (K⁻¹ − S) k_m(x), S the covariance of the weights given
the labels; it grows to that of the prior far from all of them. Descriptors are divided by one width for each
element.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.potentials.base import AtomEnergies, check_state
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.kernel_models.descriptors import AtomDescriptor, check_open, descriptor_of
from mlmm.potentials.safetensors_files import read_safetensors, write_safetensors
from mlmm.potentials.spec import PotentialSpec, ShortOfSpec
from mlmm.structures import Structure

__all__ = ["GPParameters", "SparseGPPotential", "kernel_rows", "prior_variances"]

KIND = "sparse_gp"


@dataclass(frozen=True)
class GPParameters:
    """Everything that a trained process is; kJ/mol.

    Parameters
    ----------
    points : dict of int to ndarray, (M_Z, L)
        Inducing environments by atomic number.
    widths : dict of int to ndarray, (L,)
        By which descriptors are divided.
    weights : ndarray, shape (M,)
        α, elements in order of their numbers.
    explained : ndarray, shape (M, M)
        K⁻¹ − S.
    length, amplitude : float
        ℓ, without dimension, and s.
    """

    points: dict[int, np.ndarray]
    widths: dict[int, np.ndarray]
    weights: np.ndarray
    explained: np.ndarray
    length: float
    amplitude: float

    @property
    def sizes(self) -> dict[int, slice]:
        """Where the inducing environments of each element stand among all."""
        places, at = {}, 0
        for z in sorted(self.points):
            places[z] = slice(at, at + len(self.points[z]))
            at += len(self.points[z])
        return places


class _Descriptors(torch.autograd.Function):
    """Descriptors as a function of positions whose Jacobian is known."""

    @staticmethod
    def forward(
        ctx: Any, positions: torch.Tensor, values: torch.Tensor, slopes: torch.Tensor, near: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(slopes, near)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        slopes, near = ctx.saved_tensors
        pull = torch.einsum("nl,nlx->nx", outer, slopes).reshape(-1, 3)
        gradient = torch.zeros(len(near), 3, dtype=pull.dtype).index_add(0, near.flatten(), pull)
        return gradient, None, None, None


def kernel_rows(
    parameters: GPParameters,
    numbers: np.ndarray,
    values: torch.Tensor,
    slopes: torch.Tensor,
    near: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance of the energy, (M,), and the forces, (3 N, M), with inducing environments' energies."""
    n = len(numbers)
    places = parameters.sizes
    total = sum(len(points) for points in parameters.points.values())
    energy, forces = torch.zeros(total, dtype=torch.float64), torch.zeros(3 * n, total, dtype=torch.float64)
    for z, points, width in _by_element(parameters):
        atoms = torch.as_tensor(np.flatnonzero(numbers == z))
        if not len(atoms):
            continue
        x, scaled = values[atoms] / width, slopes[atoms] / width.unsqueeze(1)
        covariance = _squared_exponential(x, points, parameters)
        energy[places[z]] = covariance.sum(dim=0)
        # −dk/dx = k (x − g)/ℓ² · dx/dr
        along = torch.einsum("al,alx->ax", x, scaled).unsqueeze(2) - torch.einsum(
            "ml,alx->axm", points, scaled
        )
        pull = covariance.unsqueeze(1) / parameters.length**2 * along
        rows = (3 * near[atoms].unsqueeze(2) + torch.arange(3)).flatten()
        forces[:, places[z]] += torch.zeros(3 * n, len(points), dtype=torch.float64).index_add(
            0, rows, pull.flatten(0, 1)
        )
    return energy, forces


def prior_variances(
    parameters: GPParameters,
    numbers: np.ndarray,
    values: torch.Tensor,
    slopes: torch.Tensor,
    near: torch.Tensor,
) -> tuple[float, torch.Tensor]:
    """Variance of the energy and of each component of the forces, (3 N,), before any label."""
    n = len(numbers)
    energy, forces = 0.0, torch.zeros(3 * n, dtype=torch.float64)
    for z, _, width in _by_element(parameters):
        atoms = torch.as_tensor(np.flatnonzero(numbers == z))
        if not len(atoms):
            continue
        x = values[atoms] / width
        dense = torch.zeros(len(atoms), 3 * n, x.shape[1], dtype=torch.float64)  # (a, 3 N, L)
        scaled = (slopes[atoms] / width.unsqueeze(1)).transpose(1, 2)
        for a in range(len(atoms)):
            rows = (3 * near[atoms[a]].unsqueeze(1) + torch.arange(3)).flatten()
            dense[a].index_add_(0, rows, scaled[a])
        covariance = _squared_exponential(x, x, parameters)
        energy += float(covariance.sum())
        off = x.unsqueeze(1) - x.unsqueeze(0)
        both = torch.einsum("axl,bxl->abx", dense, dense)
        first = torch.einsum("axl,abl->abx", dense, off)
        second = torch.einsum("bxl,abl->abx", dense, off)
        inner = both / parameters.length**2 - first * second / parameters.length**4
        forces += (covariance.unsqueeze(2) * inner).sum(dim=(0, 1))
    return energy, forces


def _by_element(parameters: GPParameters) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    return [
        (z, torch.as_tensor(parameters.points[z]), torch.as_tensor(parameters.widths[z]))
        for z in sorted(parameters.points)
    ]


def _squared_exponential(x: torch.Tensor, y: torch.Tensor, parameters: GPParameters) -> torch.Tensor:
    squares = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    return parameters.amplitude**2 * torch.exp(-0.5 * squares / parameters.length**2)


class SparseGPPotential(ShortOfSpec):
    """A trained process as a potential with per-atom energies and a predictive standard deviation.

    Parameters
    ----------
    parameters : GPParameters
    descriptor : AtomDescriptor
    about : dict
        Facts for the spec, as for `mlmm.potentials.kernel_models.gdml.GDMLPotential`, and ``trained_on``.
    """

    def __init__(self, parameters: GPParameters, descriptor: AtomDescriptor, about: dict[str, Any]):
        self.parameters, self.descriptor, self.about = parameters, descriptor, dict(about)
        facts = about.get("calibration")
        self.spec = PotentialSpec(
            name=about.get("name", "sparse GP"),
            elements=tuple(sorted(parameters.points)),
            cutoff=descriptor.cutoff,
            receptive_field=descriptor.cutoff,
            trained_on=about.get("trained_on", "isolated"),
            trained_charges=tuple(about.get("trained_charges", (0,))),
            reference_energies={int(z): float(e) for z, e in about.get("reference_energies", {}).items()},
            calibration=Calibration.from_facts(facts, "a Gaussian process") if facts else None,
            level_of_theory=about.get("level_of_theory", "not stated"),
            licence=about.get("licence", "not stated"),
            citation="J. Quiñonero-Candela, C. E. Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005)",
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol, isolated atoms removed; errors for unknown elements or a cell."""
        check_state(self.spec, structure)
        check_open(structure.cell, self.spec.name)
        numbers = structure.numbers.tolist()
        values, slopes, near = self.descriptor(numbers, structure.positions.detach())
        x: torch.Tensor = _Descriptors.apply(structure.positions.cpu().double(), values, slopes, near)
        energies = torch.zeros(len(numbers), dtype=torch.float64)
        places = self.parameters.sizes
        for z, points, width in _by_element(self.parameters):
            atoms = torch.as_tensor([k for k, number in enumerate(numbers) if number == z])
            if len(atoms):
                covariance = _squared_exponential(x[atoms] / width, points, self.parameters)
                weights = torch.as_tensor(self.parameters.weights[places[z]])
                energies = energies.index_add(0, atoms, covariance @ weights)
        return AtomEnergies(energies.to(structure.positions.device))

    def deviations(self, structure: Structure) -> tuple[float, np.ndarray]:
        """Predictive standard deviations of the energy, kJ/mol, and of components of forces, (N, 3)."""
        check_state(self.spec, structure)
        check_open(structure.cell, self.spec.name)
        numbers = structure.numbers.cpu().numpy()
        described = self.descriptor(numbers.tolist(), structure.positions.detach())
        energy, forces = kernel_rows(self.parameters, numbers, *described)
        prior, prior_forces = prior_variances(self.parameters, numbers, *described)
        explained = torch.as_tensor(self.parameters.explained)
        variance = prior - float(energy @ explained @ energy)
        of_forces = prior_forces - ((forces @ explained) * forces).sum(dim=1)
        return float(max(variance, 0.0) ** 0.5), of_forces.clamp(min=0.0).sqrt().reshape(-1, 3).numpy()

    def force_spread(self, structure: Structure) -> np.ndarray:
        """Standard deviation of the force on each atom, (N,), kJ/mol/nm: sqrt of the sum over components."""
        return np.asarray(np.sqrt(np.square(self.deviations(structure)[1]).sum(axis=1)))

    def save(self, path: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write one safetensors file that `load_potential` reads."""
        p = self.parameters
        arrays = {
            "weights": p.weights,
            "explained": p.explained,
            "scalars": np.array([p.length, p.amplitude]),
        }
        for z in p.points:
            arrays |= {f"points.{z}": p.points[z], f"widths.{z}": p.widths[z]}
        facts = {**(self.about if about is None else about), "descriptor": self.descriptor.facts}
        write_safetensors(path, KIND, arrays, facts)

    @classmethod
    def from_file(cls, path: str | Path) -> SparseGPPotential:
        """Read a file of `save`; PotentialError for any other, MissingPackageError without dscribe."""
        arrays, about = read_safetensors(path, KIND, "a kernel model")
        elements = sorted(int(name[7:]) for name in arrays if name.startswith("points."))
        length, amplitude = arrays["scalars"].tolist()
        parameters = GPParameters(
            {z: arrays[f"points.{z}"] for z in elements},
            {z: arrays[f"widths.{z}"] for z in elements},
            arrays["weights"],
            arrays["explained"],
            length,
            amplitude,
        )
        return cls(parameters, descriptor_of(about.pop("descriptor")), about)
