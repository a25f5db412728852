"""Descriptors of atoms with their Jacobians: symmetry functions of ANI, or SOAP by dscribe.

One form for both: values (N, L), derivatives (N, L, 3 M) in the places of M neighbours, and which atoms
those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.ani.files import find_parameters
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.potentials.ani.symmetry_jacobian import jacobian
from mlmm.units import ANGSTROM

__all__ = ["AtomDescriptor", "descriptor_of", "symmetry_constants"]

_SOAP = {"r_cut": 4.0, "n_max": 6, "l_max": 5, "sigma": 0.5}  # angstrom


class AtomDescriptor(Protocol):
    """What a Gaussian process sees of an atom.

    Attributes
    ----------
    elements : tuple of int
    cutoff : float
        nm.
    facts : dict
        From which `descriptor_of` makes it again.
    """

    elements: tuple[int, ...]
    cutoff: float
    facts: dict[str, Any]

    def __call__(
        self, numbers: Sequence[int], positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values (N, L), derivatives (N, L, 3 M), 1/nm, and neighbours (N, M), for an open boundary."""
        ...


def descriptor_of(facts: dict[str, Any]) -> AtomDescriptor:
    """Make a descriptor: ``kind`` "symmetry" with the constants, or "soap"; ``elements`` by number."""
    return _Symmetry(facts) if facts["kind"] == "symmetry" else _SOAP_by_dscribe(facts)


def symmetry_constants(name: str) -> dict[str, list[float]]:
    """Constants of the symmetry functions of a published committee, for `descriptor_of`."""
    constants = find_parameters(name).constants
    return {key: np.atleast_1d(value).tolist() for key, value in constants.items()}


class _Symmetry:
    """Symmetry functions of ANI."""

    def __init__(self, facts: dict[str, Any]):
        self.facts = facts
        self.elements = tuple(int(z) for z in facts["elements"])
        constants = {
            key: np.array(value if key not in ("Rcr", "Rca") else value[0])
            for key, value in facts["constants"].items()
        }
        symbols = tuple(SYMBOLS[z] for z in self.elements)
        self._parameters = ANIParameters(symbols, constants, np.zeros(len(symbols)), {}, {})
        self.cutoff = float(constants["Rcr"]) * ANGSTROM
        self._bound: tuple[tuple[int, ...], SymmetryFunctions] | None = None

    def __call__(
        self, numbers: Sequence[int], positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        key = tuple(int(z) for z in numbers)
        if self._bound is None or self._bound[0] != key:
            species = torch.tensor([self.elements.index(z) for z in key])
            functions = SymmetryFunctions(self._parameters, species, torch.arange(len(key)), torch.float64)
            self._bound = (key, functions)
        values, derivatives, near = jacobian(self._bound[1], positions.to(torch.float64) / ANGSTROM)
        return values, derivatives / ANGSTROM, near


class _SOAP_by_dscribe:  # noqa: N801
    """Smooth overlap of atomic positions, Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013)."""

    def __init__(self, facts: dict[str, Any]):
        try:
            from dscribe.descriptors import SOAP
        except ImportError as error:
            raise MissingPackageError(
                "the package dscribe for SOAP descriptors", str(error), "pip install dscribe"
            ) from error
        settings = {**_SOAP, **{key: facts[key] for key in _SOAP if key in facts}}
        self.facts = {**facts, **settings}
        self.elements = tuple(int(z) for z in facts["elements"])
        # dscribe looks for neighbours to where the smeared density has decayed.
        self.cutoff = float(settings["r_cut"]) * ANGSTROM
        self._soap = SOAP(species=[SYMBOLS[z] for z in self.elements], periodic=False, **settings)

    def __call__(
        self, numbers: Sequence[int], positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from ase import Atoms

        n = len(numbers)
        atoms = Atoms(numbers=list(numbers), positions=positions.detach().cpu().numpy() / ANGSTROM)
        centres = list(range(n))
        # attach: a centre moves with its atom.
        slopes, values = self._soap.derivatives(atoms, centers=centres, attach=True, method="numerical")
        derivatives = torch.as_tensor(np.asarray(slopes, dtype=np.float64)).permute(0, 3, 1, 2)
        near = torch.arange(n).expand(n, n)
        return (
            torch.as_tensor(np.asarray(values, dtype=np.float64)),
            derivatives.reshape(n, derivatives.shape[1], 3 * n) / ANGSTROM,
            near,
        )


def check_open(cell: torch.Tensor | None, name: str) -> None:
    """Refuse a periodic cell: neighbours are looked for without images."""
    if cell is not None:
        raise PotentialError(f"atoms without a cell for {name}", "a periodic cell", 'use scheme = "additive"')
