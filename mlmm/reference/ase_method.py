"""Any calculator of ASE as a reference method, by its name in ASE or by where it is imported from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError, MissingPackageError
from mlmm.options import check_fields, documented, setting
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import Stopwatch, check_molecule, failed, settings_in_words
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["ASEMethod"]


@documented
@dataclass(frozen=True)
class ASEMethod:
    """A calculator of ASE, made anew for each molecule, so that no answer depends on the one before."""

    point_charges: ClassVar[bool] = False

    calculator: str = setting(
        "", 'name in ASE, such as "emt", or "package.module:Class"', example="tblite.ase:TBLite"
    )
    arguments: Mapping[str, Any] = setting(
        {}, "keywords of the calculator", example={"method": "GFN2-xTB"}, entries="values"
    )
    charge_argument: str = setting(
        "", 'keyword that takes the net charge; "info" for atoms.info["charge"]; ions are refused if empty',
        example="charge",
    )  # fmt: skip
    multiplicity_argument: str = setting(
        "", 'keyword that takes the multiplicity; "info" for atoms.info["spin"]; refused if empty',
        example="multiplicity",
    )  # fmt: skip
    level: str = setting("", "level of theory in words; calculator and keywords if empty", example="EMT")

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.calculator:
            raise ConfigError(
                "a calculator of ASE", "none", 'write calculator = "package.module:Class", or its name in ASE'
            )

    @property
    def title(self) -> str:
        """Level of theory."""
        words = ", ".join(f"{key} {value}" for key, value in self.arguments.items())
        return self.level or f"{self.calculator}{': ' if words else ''}{words} (ASE)"

    def label(self, molecule: Molecule) -> Label:
        """Energy and, as far as the calculator has them, forces, charges and dipole of one molecule.

        Raises
        ------
        ConfigError
            A calculator that cannot be imported or made, or a charge or multiplicity that it is not told.
        MissingPackageError
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=len(SYMBOLS) - 1)
        try:
            import ase
            from ase.calculators.calculator import CalculationFailed, SCFError
        except ImportError as error:
            raise MissingPackageError("the package ase", "none", "pip install ase") from error
        atoms = ase.Atoms(molecule.numbers, molecule.positions / ANGSTROM)
        atoms.calc = self._calculator(molecule, atoms.info)
        record = {
            "program": f"ASE calculator {self.calculator}",
            "version": f"ase {ase.__version__}{_version_of(self.calculator)}",
            "settings": settings_in_words(self, ("calculator", "level")),
            "charges": "the calculator's",
        }
        known = set(getattr(atoms.calc, "implemented_properties", ()))
        try:
            # Forces belong to the free energy of the electrons, where a calculator tells it from the energy.
            electronvolt = atoms.get_potential_energy(force_consistent="free_energy" in known)
            energy = float(electronvolt) * ELECTRONVOLT
            forces = atoms.get_forces() * (ELECTRONVOLT / ANGSTROM) if "forces" in known else None
            charges = np.array(atoms.get_charges()) if "charges" in known else None
            dipole = np.array(atoms.get_dipole_moment()) * ANGSTROM if "dipole" in known else None
        except (SCFError, CalculationFailed) as failure:
            return failed(self, str(failure), record, watch)
        if not (np.isfinite(energy) and (forces is None or np.isfinite(forces).all())):
            return failed(self, "energy or forces that are not finite", record, watch)
        facts = {**record, "seconds": str(watch)}
        return Label(energy, forces, None, charges, dipole, True, self.title, facts)

    def _calculator(self, molecule: Molecule, info: dict[str, Any]) -> Any:
        arguments = dict(self.arguments)
        for value, usual, argument, key, what in (
            (molecule.charge, 0, self.charge_argument, "charge", "charge"),
            (molecule.multiplicity, 1, self.multiplicity_argument, "spin", "multiplicity"),
        ):
            if argument == "info":
                info[key] = value
            elif argument:
                arguments[argument] = value
            elif value != usual:
                raise ConfigError(
                    f"a calculator that is told the {what}",
                    f"{what} {value:+d} and an empty {what}_argument",
                    f'write {what}_argument = "{what}" or as the calculator names it',
                )
        kind = _calculator_class(self.calculator)
        try:
            return kind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"keywords that {self.calculator} takes", str(error), "correct arguments"
            ) from error


def _calculator_class(name: str) -> Any:
    """The class of a calculator, by import path or by its name in ASE."""
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            return getattr(importlib.import_module(module), attribute)
        from ase.calculators.calculator import get_calculator_class

        return get_calculator_class(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "a calculator that can be imported",
            f"{name!r} ({error})",
            'correct calculator, such as "tblite.ase:TBLite" or "emt", or install its package',
        ) from error


def _version_of(name: str) -> str:
    """Version of the package that an import path begins with, where it is another than ASE."""
    package = name.partition(":")[0].partition(".")[0]
    if ":" not in name or package == "ase":
        return ""
    try:
        return f", {package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""
