"""Molecules with values by the original programs, and forces by differences, for reference methods.

The values (`reference/reference_values.npz`): GFN2-xTB by libxtb 6.5.1 among true point charges; AIQM2 in its
parts by mlatom's weights, libxtb 6.5.1 and dftd4 4.3.1; interactions by pyscf 2.14.0, RKS
wB97X-D3BJ/6-31+G*, density fitting, grid level 2. Hartree, bohr, coordinates in angstrom.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mlmm.reference.labels import Molecule, PointCharges
from mlmm.units import ANGSTROM

VALUES = np.load(Path(__file__).parent / "reference" / "reference_values.npz")


def molecule(name: str, charges: bool = True) -> Molecule:
    """A molecule of the file, among its TIP3P charges or alone; "aiqm2/…" are alone."""
    external = None
    if charges:
        external = PointCharges(VALUES[f"{name}/px"] * ANGSTROM, VALUES[f"{name}/pq"])
    return Molecule(
        VALUES[f"{name}/numbers"],
        VALUES[f"{name}/x"] * ANGSTROM,
        int(VALUES[f"{name}/charge"]),
        external=external,
    )


def water_among_charges(distance: float = 0.25) -> Molecule:
    """Water with three charges near it, without symmetry."""
    positions = np.array([[0.0, 0.01, 0.0], [0.076, 0.06, 0.003], [-0.075, 0.059, 0.0]])
    near = np.array([[1.0, 0.4, 0.2], [-0.3, -1.0, 0.4], [0.1, 0.5, 1.0]])
    external = PointCharges(distance * near, [0.5, -0.7, 0.3])
    return Molecule([8, 1, 1], positions, external=external)


def moved(start: Molecule, atom: int, axis: int, by: float, external: bool = False) -> Molecule:
    """The molecule with one coordinate of an atom, or of a point charge, changed; nm."""
    if external:
        positions = start.external.positions.copy()
        positions[atom, axis] += by
        return dataclasses.replace(start, external=PointCharges(positions, start.external.charges))
    positions = start.positions.copy()
    positions[atom, axis] += by
    return dataclasses.replace(start, positions=positions)


def force_by_differences(
    method, start: Molecule, atom: int, axis: int, external: bool = False, step: float = 2e-4
) -> float:
    """Minus the central difference of the energy, fourth order; kJ/mol/nm."""

    def energy(by: float) -> float:
        return method.label(moved(start, atom, axis, by, external)).energy

    near, far = energy(step) - energy(-step), energy(2 * step) - energy(-2 * step)
    return -(8 * near - far) / (12 * step)


def worst_difference(method, start: Molecule, atoms, charges=(), step: float = 2e-4) -> float:
    """Largest deviation of the forces of `method` from differences, over axes in turn; kJ/mol/nm."""
    label, worst = method.label(start), 0.0
    for external, which in ((False, atoms), (True, charges)):
        forces = label.external_forces if external else label.forces
        for turn, index in enumerate(which):
            axis = turn % 3
            found = force_by_differences(method, start, index, axis, external, step)
            worst = max(worst, abs(found - forces[index, axis]))
    return worst
