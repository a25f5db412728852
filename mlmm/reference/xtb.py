"""GFN2-xTB by xtb's library, in a vacuum or among true point charges.

GFN2-xTB: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 2019, 15, 1652, doi:10.1021/acs.jctc.8b01176.
Point charges act on the atoms' monopoles alone, not on the dipoles and quadrupoles of GFN2-xTB: that is xtb's
model of a surrounding. `mlmm.reference.xtb_parameters` tells how the charges are made points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlmm.options import Quantity, check_fields, documented, number, quantity, setting
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import (
    Stopwatch,
    answered,
    check_molecule,
    electrons_in_words,
    failed,
    settings_in_words,
)
from mlmm.reference.xtb_library import XTBError, library_version, single_point
from mlmm.reference.xtb_parameters import POINT_CHARGE, parameter_file
from mlmm.units import BOHR

__all__ = ["XTB"]


@documented
@dataclass(frozen=True)
class XTB:
    """GFN2-xTB by the library of xtb, with energy and forces on both sides among true point charges."""

    point_charges: ClassVar[bool] = True

    dispersion: bool = setting(True, "the D4 term of GFN2-xTB; false leaves it out")
    accuracy: float = number(0.1, "xtb's factor for all thresholds; smaller is tighter", above=0)
    electronic_temperature: Quantity = quantity(
        "300 K", "temperature", "Fermi temperature of the orbitals", least=0
    )
    iterations: int = number(250, "most iterations of the self-consistent charges", least=1)
    parameters: str = setting(
        "", "param_gfn2-xtb.txt of xtb; written from tblite, or found, if empty", path=True
    )
    library: str = setting("", "libxtb.so; that of the wheel, conda or the system if empty", path=True)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """Level of theory."""
        words = "GFN2-xTB (xtb), true point charges" + ("" if self.dispersion else ", without D4")
        return words + electrons_in_words(self.electronic_temperature)

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces, forces on the point charges, Mulliken charges and dipole of one molecule.

        Raises
        ------
        ConfigError
            An element beyond 85 (radon stands for a point charge), or electrons that do not go with the
            multiplicity.
        MissingPackageError
            Without the library, or without parameters for true point charges.
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=POINT_CHARGE - 1)
        parameters, source = parameter_file(self.parameters, self.dispersion)
        record = {
            "program": "xtb",
            "version": library_version(self.library),
            "parameters": f"{source}, point charges as Z = {POINT_CHARGE} with GAM = 99",
            "settings": settings_in_words(self, ("parameters", "library")),
            "charges": "Mulliken",
        }
        external = molecule.external
        try:
            found = single_point(
                molecule.numbers,
                molecule.positions / BOHR,
                molecule.charge,
                molecule.multiplicity - 1,
                parameters=parameters,
                external=None
                if external is None
                else (np.full(len(external), POINT_CHARGE), external.positions / BOHR, external.charges),
                accuracy=self.accuracy,
                temperature=self.electronic_temperature,
                iterations=self.iterations,
                library=self.library,
            )
        except XTBError as failure:
            return failed(self, str(failure), record, watch)
        gradients = found.gradient, found.charge_gradient
        return answered(
            self, record, watch, found.energy, *gradients, charges=found.charges, dipole=found.dipole
        )
