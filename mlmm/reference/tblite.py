"""GFN2-xTB and GFN1-xTB by tblite, in a vacuum or in the continuum solvent ALPB.

GFN2-xTB: doi:10.1021/acs.jctc.8b01176; GFN1-xTB: doi:10.1021/acs.jctc.7b00118; ALPB: Ehlert, Stahn, Spicher,
Grimme, J. Chem. Theory Comput. 2021, 17, 4250, doi:10.1021/acs.jctc.1c00471. tblite takes no point charges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlmm.errors import ConfigError, MissingPackageError
from mlmm.options import Quantity, check_fields, documented, number, quantity, setting, word
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import (
    Stopwatch,
    answered,
    check_molecule,
    electrons_in_words,
    failed,
    settings_in_words,
)
from mlmm.units import BOHR, GAS_CONSTANT, HARTREE

__all__ = ["TBLite"]


@documented
@dataclass(frozen=True)
class TBLite:
    """GFN2-xTB or GFN1-xTB by tblite, in a vacuum or in ALPB."""

    point_charges: ClassVar[bool] = False

    hamiltonian: str = word("GFN2-xTB", ("GFN2-xTB", "GFN1-xTB"), "parametrisation")
    solvent: str = setting("", "solvent of ALPB by name; a vacuum if empty", example="water")
    accuracy: float = number(0.1, "factor for all thresholds; smaller is tighter", above=0)
    electronic_temperature: Quantity = quantity(
        "300 K", "temperature", "Fermi temperature of the orbitals", least=0
    )
    iterations: int = number(250, "most iterations of the self-consistent charges", least=1)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """Level of theory."""
        words = f"{self.hamiltonian} (tblite)" + (f", ALPB {self.solvent}" if self.solvent else "")
        return words + electrons_in_words(self.electronic_temperature)

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces, atomic charges and dipole of one molecule.

        Raises
        ------
        ConfigError
            Point charges, an element beyond radon, or a solvent that tblite does not know.
        MissingPackageError
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=86)
        try:
            from tblite import exceptions, interface, library
        except ImportError as error:
            raise MissingPackageError("the package tblite", "none", "pip install tblite") from error
        record = {
            "program": "tblite",
            "version": ".".join(str(part) for part in library.get_version()),
            "settings": settings_in_words(self),
            "charges": "Mulliken",
        }
        try:
            calculator = interface.Calculator(
                self.hamiltonian,
                molecule.numbers,
                molecule.positions / BOHR,
                float(molecule.charge),
                molecule.multiplicity - 1,
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", self.accuracy)
            calculator.set("temperature", self.electronic_temperature * GAS_CONSTANT / HARTREE)
            calculator.set("max-iter", self.iterations)
            if self.solvent:
                self._add_solvent(calculator, exceptions.TBLiteRuntimeError)
            found = calculator.singlepoint()
            energy, gradient = float(found.get("energy")), np.array(found.get("gradient"))
        except exceptions.TBLiteRuntimeError as failure:
            return failed(self, str(failure), record, watch)
        charges, dipole = np.array(found.get("charges")), np.array(found.get("dipole"))
        return answered(self, record, watch, energy, gradient, charges=charges, dipole=dipole)

    def _add_solvent(self, calculator: object, refusal: type[Exception]) -> None:
        try:
            calculator.add("alpb-solvation", self.solvent)  # type: ignore[attr-defined]
        except refusal as error:
            raise ConfigError(
                "a solvent that ALPB of tblite knows, such as water, acetone or toluene",
                repr(self.solvent),
                "correct solvent, or leave it out for a vacuum",
            ) from error
