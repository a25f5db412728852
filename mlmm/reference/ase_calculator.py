"""A reference method as an ASE calculator: for optimisers, paths, normal modes and dynamics of ASE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    SCFError,
    all_changes,
)

from mlmm.errors import ConfigError
from mlmm.reference.labels import Molecule, PointCharges
from mlmm.reference.method import ReferenceMethod
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["ReferenceCalculator", "molecule_of"]


def molecule_of(
    atoms: ase.Atoms,
    charge: int | None = None,
    multiplicity: int | None = None,
    external: PointCharges | None = None,
    origin: Mapping[str, str] | None = None,
) -> Molecule:
    """Atoms of ASE as a molecule.

    Parameters
    ----------
    atoms : ase.Atoms
        Without periodic boundaries.
    charge, multiplicity : int, optional
        ``atoms.info["charge"]`` and ``atoms.info["spin"]`` by default, or 0 and 1.
    external : PointCharges, optional
    origin : mapping of str to str, optional

    Raises
    ------
    ConfigError
        A periodic structure, or a charge that is no whole number.
    """
    if atoms.pbc.any():
        raise ConfigError(
            "a molecule without periodic boundaries",
            f"pbc = {atoms.pbc.tolist()}",
            "take the cell out of the file, or write atoms.pbc = False",
        )
    found = atoms.info.get("charge", 0) if charge is None else charge
    spin = atoms.info.get("spin", 1) if multiplicity is None else multiplicity
    if float(found) != round(float(found)) or float(spin) != round(float(spin)):
        raise ConfigError(
            "whole numbers for charge and multiplicity", f"{found} and {spin}", "correct atoms.info"
        )
    positions = np.asarray(atoms.positions) * ANGSTROM
    return Molecule(
        atoms.numbers, positions, round(float(found)), round(float(spin)), external, dict(origin or {})
    )


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
        return molecule_of(atoms, self._charge, self._multiplicity, self.external)

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
