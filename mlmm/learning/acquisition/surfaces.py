"""Energy and forces of one molecule by a potential or a reference method, and as an ASE calculator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mlmm.errors import ConfigError, MissingPackageError
from mlmm.learning.descriptors import structure_of
from mlmm.potentials.base import PotentialModel, energy_and_forces
from mlmm.reference.labels import Molecule
from mlmm.reference.method import ReferenceMethod
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["Surface", "ase_atoms", "surface_of"]

#: Positions (N, 3) in nm to energy in kJ/mol and forces (N, 3) in kJ/mol/nm.
Surface = Callable[[np.ndarray], tuple[float, np.ndarray]]


def surface_of(method: PotentialModel | ReferenceMethod | Surface, molecule: Molecule) -> Surface:
    """Energy and forces of a molecule as a function of its positions.

    Parameters
    ----------
    method : PotentialModel, ReferenceMethod or callable
        A potential sees the molecule alone; a reference method sees its point charges, which stay.
    molecule : Molecule

    Raises
    ------
    ConfigError
        An object of another class; later, a calculation that does not converge or has no forces.
    """
    if isinstance(method, ReferenceMethod):
        reference = method

        def by_reference(positions: np.ndarray) -> tuple[float, np.ndarray]:
            label = reference.label(replace(molecule, positions=positions))
            if not label.converged or label.forces is None:
                raise ConfigError(
                    f"energy and forces by {label.method}",
                    "a calculation that did not converge" if not label.converged else "no forces",
                    "lower the temperature or the size of the distortion, or choose another method",
                )
            return label.energy, np.asarray(label.forces)

        return by_reference
    if isinstance(method, PotentialModel):
        model = method

        def by_potential(positions: np.ndarray) -> tuple[float, np.ndarray]:
            energy, forces = energy_and_forces(model, structure_of(replace(molecule, positions=positions)))
            return float(energy), np.asarray(forces)

        return by_potential
    if callable(method):
        return method
    raise ConfigError(
        "a potential, a reference method or a function of positions", repr(method), "see mlmm.load_potential"
    )


def ase_atoms(molecule: Molecule, surface: Surface) -> Any:
    """`ase.Atoms` of a molecule with a calculator of its surface (MissingPackageError without ASE)."""
    try:
        import ase
        from ase.calculators.calculator import Calculator, all_changes
    except ImportError as error:
        raise MissingPackageError("ASE", str(error), "pip install 'mlmm[ase]'") from error

    class SurfaceCalculator(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = tuple(all_changes)
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            assert self.atoms is not None
            energy, forces = surface(self.atoms.positions * ANGSTROM)
            self.results = {
                "energy": energy / ELECTRONVOLT,
                "forces": forces * (ANGSTROM / ELECTRONVOLT),
            }

    return ase.Atoms(
        numbers=molecule.numbers, positions=molecule.positions / ANGSTROM, calculator=SurfaceCalculator()
    )
