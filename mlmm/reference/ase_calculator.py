"""A reference method as an ASE calculator: for optimisers, paths, normal modes and dynamics of ASE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    SCFError,
    all_changes,
)

from mlmm.reference.labels import Molecule, PointCharges
from mlmm.reference.method import ReferenceMethod
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["ReferenceCalculator"]


class ReferenceCalculator(Calculator):
    """Energy, forces, charges and dipole of a reference method; eV, Å, e.

    After a calculation ``results["external_forces"]`` are those on the point charges, eV/Å.

    Parameters
    ----------
    method : ReferenceMethod
    charge : int, optional
        Net charge, e; ``atoms.info["charge"]`` or 0 by default.
    multiplicity : int, optional
        ``atoms.info["spin"]`` or 1 by default.
    external : PointCharges, optional
        Surroundings that do not move.

    Raises
    ------
    ase.calculators.calculator.SCFError
        While it calculates: a self-consistent field that does not converge.
    """

    name = "mlmm_reference"
    implemented_properties = ["energy", "free_energy", "forces", "charges", "dipole"]  # noqa: RUF012

    def __init__(
        self,
        method: ReferenceMethod,
        *,
        charge: int | None = None,
        multiplicity: int | None = None,
        external: PointCharges | None = None,
    ):
        super().__init__()
        self.method, self.external = method, external
        self._charge, self._multiplicity = charge, multiplicity

    def molecule(self, atoms: ase.Atoms) -> Molecule:
        """The atoms as the method is asked about them."""
        charge = atoms.info.get("charge", 0) if self._charge is None else self._charge
        multiplicity = atoms.info.get("spin", 1) if self._multiplicity is None else self._multiplicity
        return Molecule(
            atoms.numbers,
            np.asarray(atoms.positions) * ANGSTROM,
            int(charge),
            int(multiplicity),
            external=self.external,
        )

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `ase.calculators.calculator.Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        label = self.method.label(self.molecule(self.atoms))
        if not label.converged:
            raise SCFError(f"{label.method}: {label.record.get('failure', 'no convergence')}")
        energy, per_length = label.energy / ELECTRONVOLT, ANGSTROM / ELECTRONVOLT
        found: dict[str, Any] = {"energy": energy, "free_energy": energy}
        if label.forces is not None:
            found["forces"] = label.forces * per_length
        if label.external_forces is not None:
            found["external_forces"] = label.external_forces * per_length
        if label.charges is not None:
            found["charges"] = label.charges
        if label.dipole is not None:
            found["dipole"] = label.dipole / ANGSTROM
        missing = [name for name in properties if name not in found]
        if missing:
            raise PropertyNotImplementedError(f"{label.method} gives no {', '.join(missing)}")
        self.results = found
