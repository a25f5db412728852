"""Labels that cannot be right: numbers that are not finite, arrays of another shape."""

from __future__ import annotations

import math

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reference.labels import Label, Molecule

__all__ = ["check_label"]


def check_label(molecule: Molecule, label: Label, where: str) -> None:
    """Refuse a label that cannot be that of the molecule.

    Parameters
    ----------
    molecule : Molecule
    label : Label
        One that did not converge may have any numbers, of the right shapes.
    where : str
        Of the message, such as "structure 7".

    Raises
    ------
    ConfigError
        Names the quantity, and the first atom.
    """
    atoms, around = len(molecule), 0 if molecule.external is None else len(molecule.external)
    arrays = {
        "forces": (label.forces, (atoms, 3)),
        "forces on the point charges": (label.external_forces, (around, 3)),
        "charges": (label.charges, (atoms,)),
        "dipole": (label.dipole, (3,)),
    }
    for name, (value, shape) in arrays.items():
        if value is None:
            continue
        found = np.asarray(value, dtype=float)
        if found.shape != shape:
            raise ConfigError(
                f"{name} of shape {shape} in {where}",
                f"the shape {found.shape}",
                "give one row for each atom or charge, in their order",
            )
        if label.converged and not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found.reshape(shape[0], -1)).all(axis=1))[0])
            raise ConfigError(
                f"finite {name} in {where}",
                f"NaN or infinity at place {row}",
                "say converged = False for a calculation that failed: it is kept and never used",
            )
    if label.converged and not math.isfinite(label.energy):
        raise ConfigError(
            f"a finite energy in {where}",
            f"{label.energy}",
            "say converged = False for a calculation that failed: it is kept and never used",
        )
