"""Gradient-domain model of one molecule: energy and forces from a kernel on inverse distances.

Chmiela et al., Sci. Adv. 3, e1603015 (2017), doi 10.1126/sciadv.1603015; with permutations of equivalent
atoms (sGDML) Nat. Commun. 9, 3887 (2018), doi 10.1038/s41467-018-06169-2. Descriptors D_ij = 1/r_ij, Matérn
kernel of order 5/2, trained on forces:

    E(x) = c − Σ_j (a²/3) (1 + a d) exp(−a d) (D(x) − D_j)·g_j,   d = |D(x) − D_j|,   a = √5/σ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.base import AtomEnergies, check_state
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.safetensors_files import read_safetensors, write_safetensors
from mlmm.potentials.spec import PotentialSpec, ShortOfSpec
from mlmm.structures import Structure

__all__ = ["GDMLParameters", "GDMLPotential", "inverse_distances"]

KIND = "gdml"


@dataclass(frozen=True)
class GDMLParameters:
    """Everything that defines a gradient-domain model; nm and kJ/mol.

    Parameters
    ----------
    numbers : tuple of int
        Atomic numbers of the molecule, in order.
    points : ndarray, shape (T, P), 1/nm
        Descriptors of the training structures, P pairs, once for each permutation.
    slopes : ndarray, shape (T, P)
        g_j.
    length : float
        σ, 1/nm.
    offset : float
        c, kJ/mol.
    """

    numbers: tuple[int, ...]
    points: np.ndarray
    slopes: np.ndarray
    length: float
    offset: float


def inverse_distances(positions: torch.Tensor) -> torch.Tensor:
    """1/r of all pairs i < j, (P,), for positions (N, 3)."""
    first, second = torch.triu_indices(positions.shape[0], positions.shape[0], offset=1).unbind(0)
    vectors = positions.index_select(0, first) - positions.index_select(0, second)
    return vectors.square().sum(-1).rsqrt()


class _Energy(Module):
    """The model bound to its molecule: (1, N) equal shares of the energy; TorchScript can compile it."""

    def __init__(self, parameters: GDMLParameters, reference: float):
        super().__init__()
        self.points = torch.nn.Buffer(torch.as_tensor(parameters.points))
        self.slopes = torch.nn.Buffer(torch.as_tensor(parameters.slopes))
        self.rate = float(5.0**0.5 / parameters.length)
        self.constant = float(parameters.offset - reference)
        self.n = len(parameters.numbers)
        first, second = torch.triu_indices(self.n, self.n, offset=1).unbind(0)
        self.first, self.second = torch.nn.Buffer(first), torch.nn.Buffer(second)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        vectors = positions.to(torch.float64).index_select(0, self.first)
        vectors = vectors - positions.to(torch.float64).index_select(0, self.second)
        off = vectors.square().sum(-1).rsqrt() - self.points
        # At a training point the distance is zero; its gradient is, too.
        scaled = self.rate * (off.square().sum(-1) + 1e-30).sqrt()
        weight = (self.rate * self.rate / 3.0) * (1.0 + scaled) * torch.exp(-scaled)
        energy = self.constant - (weight * (off * self.slopes).sum(-1)).sum()
        return (energy / self.n).reshape(1, 1).expand(1, self.n)


class GDMLPotential(ShortOfSpec):
    """A gradient-domain model as a potential: one molecule, alone, with its atoms in their order.

    Parameters
    ----------
    parameters : GDMLParameters
    about : dict
        Facts for the spec: ``name level_of_theory licence trained_charges reference_energies calibration``.
    device : str

    """

    def __init__(self, parameters: GDMLParameters, about: dict[str, Any], device: str = "cpu"):
        self.parameters, self.about = parameters, dict(about)
        self.device = torch.device(device)
        facts = about.get("calibration")
        self.spec = PotentialSpec(
            name=about.get("name", "sGDML"),
            elements=tuple(sorted(set(parameters.numbers))),
            cutoff=float("inf"),
            receptive_field=float("inf"),
            trained_on="isolated",
            per_atom=False,
            trained_charges=tuple(about.get("trained_charges", (0,))),
            long_range=True,
            reference_energies={int(z): float(e) for z, e in about.get("reference_energies", {}).items()},
            calibration=Calibration.from_facts(facts, "a GDML model") if facts else None,
            level_of_theory=about.get("level_of_theory", "not stated"),
            licence=about.get("licence", "not stated"),
            citation="S. Chmiela et al., Nat. Commun. 9, 3887 (2018), doi 10.1038/s41467-018-06169-2",
        )
        reference = sum(self.spec.reference_energies.get(z, 0.0) for z in parameters.numbers)
        self._module = _Energy(parameters, reference).to(self.device)

    def scriptable(self, numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
        """The model bound to its molecule; PotentialError for another one, or for some of its atoms."""
        self._check(list(numbers))
        if centres is not None and list(centres) != list(range(len(self.parameters.numbers))):
            raise PotentialError(
                f"all atoms of the molecule of {self.spec.name}",
                f"{len(centres)} of them",
                'use scheme = "additive" with the whole molecule as the region',
            )
        return self._module

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """The energy in equal shares, kJ/mol.

        Raises
        ------
        PotentialError
            Another molecule than the one it was trained on, or a periodic one.
        """
        check_state(self.spec, structure)
        self._check(structure.numbers.tolist())
        if structure.cell is not None:
            raise PotentialError(
                f"a molecule by itself for {self.spec.name}", "a periodic cell", 'use scheme = "additive"'
            )
        shares = self._module(structure.positions.to(self.device), None)[0]
        return AtomEnergies(shares.to(structure.positions.device))

    def _check(self, numbers: list[int]) -> None:
        if tuple(int(z) for z in numbers) != self.parameters.numbers:
            raise PotentialError(
                f"the molecule of {self.spec.name} ({len(self.parameters.numbers)} atoms, in their order)",
                f"{len(numbers)} atoms, or others, or in another order",
                "choose that molecule as the region, with the same order of atoms as in the labels",
            )

    def save(self, path: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write one safetensors file that `load_potential` reads."""
        p = self.parameters
        arrays = {"points": p.points, "slopes": p.slopes, "numbers": np.array(p.numbers, dtype=np.int64)}
        arrays["scalars"] = np.array([p.length, p.offset])
        write_safetensors(path, KIND, arrays, self.about if about is None else about)

    @classmethod
    def from_file(cls, path: str | Path, device: str = "cpu") -> GDMLPotential:
        """Read a file of `save`; PotentialError for any other."""
        arrays, about = read_safetensors(path, KIND, "a kernel model")
        length, offset = arrays["scalars"].tolist()
        numbers = tuple(int(z) for z in arrays["numbers"])
        return cls(GDMLParameters(numbers, arrays["points"], arrays["slopes"], length, offset), about, device)
