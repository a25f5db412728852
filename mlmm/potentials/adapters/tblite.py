"""Semiempirical tight binding by tblite as a potential: GFN2-xTB and GFN1-xTB, as a base or by itself.

Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019), doi 10.1021/acs.jctc.8b01176.
"""

from __future__ import annotations

from typing import Any

import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.adapters.ase import ASEPotential, ase_atoms, calculator_energy_and_forces
from mlmm.structures import Structure

__all__ = ["METHODS", "TBLitePotential"]

METHODS = ("GFN2-xTB", "GFN1-xTB")


class TBLitePotential(ASEPotential):
    """A tight-binding method of tblite, total charge and multiplicity included.

    Parameters
    ----------
    method : str
        One of `METHODS`, in any case, also without "-xTB".

    Raises
    ------
    PotentialError
        Another method.
    MissingPackageError
        tblite is not installed.
    """

    def __init__(self, method: str):
        names = {name.lower(): name for name in METHODS}
        found = names.get(method.lower()) or names.get(f"{method.lower()}-xtb")
        if found is None:
            raise PotentialError(
                f"tblite:{' or tblite:'.join(METHODS)}", repr(f"tblite:{method}"), "write tblite:GFN2-xTB"
            )
        try:
            from tblite.ase import TBLite
        except ImportError as error:
            raise MissingPackageError("the package tblite", str(error), "pip install tblite ase") from error
        self._make, self.method = TBLite, found
        self._state: tuple[int, int] | None = None
        super().__init__(
            self._calculator(0, 1),
            name=found,
            elements=range(1, 87),
            charges=True,
            spins=True,
            level_of_theory=found,
            licence="LGPL-3.0-or-later (tblite)",
            citation="C. Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019)",
        )

    def _calculator(self, charge: int, multiplicity: int) -> Any:
        self._state = (charge, multiplicity)
        return self._make(
            method=self.method, charge=charge, multiplicity=multiplicity, verbosity=0, accuracy=0.1
        )

    def own_energy_and_forces(self, structure: Structure) -> tuple[float, torch.Tensor]:
        """Total energy, kJ/mol, and forces (N, 3), kJ/mol/nm."""
        if self._state != (structure.charge, structure.spin):
            self.calculator = self._calculator(structure.charge, structure.spin)
        energy, forces = calculator_energy_and_forces(self.calculator, ase_atoms(structure))
        return energy, forces.to(structure.positions.device)
