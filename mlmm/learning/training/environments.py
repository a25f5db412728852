"""Symmetry functions of labelled structures and their Jacobians, computed once before training.

Forces are linear in the gradient of the energy by the symmetry functions G: F_b = −Σ_i Σ_l (dE/dG_il)
(dG_il/dx_b). G and dG/dx (Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A, eqs. 3
and 4) do not change while networks are trained, which makes a step of training one of the networks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlmm.elements import SYMBOLS, element_names
from mlmm.errors import PotentialError
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.potentials.ani.symmetry_jacobian import jacobian
from mlmm.reference.labels import Molecule
from mlmm.units import ANGSTROM

__all__ = ["Environments", "environments_of"]


@dataclass(frozen=True)
class Environments:
    """Symmetry functions of the atoms of all structures, one after the other.

    Parameters
    ----------
    values : torch.Tensor, shape (A, L), float32
    jacobians : torch.Tensor, shape (A, L, 3 M), float32, 1/nm
        Derivatives in the places of the atom itself and of its neighbours, M in all; zero in empty ones.
    neighbours : torch.Tensor, shape (A, M), int64
        Those atoms, counted from the first of the structure; 0 where there is none.
    species : torch.Tensor, shape (A,), int64
        Places in the elements of the symmetry functions.
    atoms : torch.Tensor, shape (S + 1,), int64
        Where the atoms of each structure begin.
    """

    values: torch.Tensor
    jacobians: torch.Tensor
    neighbours: torch.Tensor
    species: torch.Tensor
    atoms: torch.Tensor

    def __len__(self) -> int:
        return len(self.atoms) - 1

    def to(self, device: torch.device | str) -> Environments:
        """Return the same on a device."""
        return Environments(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def environments_of(molecules: Sequence[Molecule], parameters: ANIParameters) -> Environments:
    """Evaluate symmetry functions and Jacobians of molecules with open boundaries.

    Parameters
    ----------
    molecules : sequence of Molecule
    parameters : ANIParameters
        Constants and elements of the symmetry functions; networks are not looked at.

    Raises
    ------
    PotentialError
        An element that the parameters do not have.
    """
    known = {SYMBOLS.index(symbol): k for k, symbol in enumerate(parameters.elements)}
    lacking = sorted({int(z) for molecule in molecules for z in molecule.numbers} - set(known))
    if lacking:
        raise PotentialError(
            f"only elements of these symmetry functions ({' '.join(parameters.elements)})",
            element_names(lacking),
            'choose start = "ani2x" (H C N O S F Cl), or networks from scratch',
        )
    begins = torch.tensor([0, *map(len, molecules)]).cumsum(0)
    widest = max(_most_neighbours(molecule, parameters) for molecule in molecules)
    values, jacobians, last = torch.empty(0), torch.empty(0), None
    neighbours = torch.zeros(int(begins[-1]), widest, dtype=torch.int64)
    kinds = torch.zeros(int(begins[-1]), dtype=torch.int64)
    for molecule, begin, end in zip(molecules, begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        key = molecule.numbers.tobytes()
        if key != last:
            species = torch.tensor([known[int(z)] for z in molecule.numbers])
            every = torch.arange(len(molecule))
            functions, last = SymmetryFunctions(parameters, species, every, torch.float64), key
        found, derivatives, near = jacobian(functions, torch.as_tensor(molecule.positions) / ANGSTROM)
        if not len(values):
            # By far the largest array, some MB for each structure: its parts are never held twice.
            values = torch.zeros(len(kinds), found.shape[1])
            jacobians = torch.zeros(len(kinds), found.shape[1], 3 * widest)
        values[begin:end], kinds[begin:end] = found, functions.species
        jacobians[begin:end, :, : derivatives.shape[2]] = derivatives / ANGSTROM
        neighbours[begin:end, : near.shape[1]] = near
    return Environments(values, jacobians, neighbours, kinds, begins)


def _most_neighbours(molecule: Molecule, parameters: ANIParameters) -> int:
    """The largest number of atoms in the radial cutoff of an atom, which counts itself."""
    positions = torch.as_tensor(molecule.positions) / ANGSTROM
    apart = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    # A pair at the very cutoff may be left out by the list of neighbours: its place stays empty.
    return int((apart <= float(parameters.constants["Rcr"]) + 1e-9).sum(dim=1).max())
