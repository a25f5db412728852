"""Upper bounds of a finished system: bond lengths, contacts, forces."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app

from mlmm.build.joints import name_of
from mlmm.errors import StructureError
from mlmm.neighbours import pairs_within

__all__ = ["check_bounds"]

_STRETCH = 0.06  # nm from the length of the force field; 400 times k_B T for a C-C bond
_CONTACT = 0.16  # nm between heavy atoms that are neither bonded nor bonded to one atom
_FORCE = 2e6  # kJ/mol/nm; boxes of water that OpenMM makes reach 2e5 before they are minimised
_NEXT = "correct the coordinates there, or let the atoms move apart: relax = 500"


def check_bounds(
    topology: app.Topology, positions: np.ndarray, system: openmm.System, forces: np.ndarray
) -> None:
    """Refuse a system whose geometry is not that of its own molecules.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    system : openmm.System
    forces : ndarray, shape (N,)
        Magnitudes, kJ/mol/nm.

    Raises
    ------
    StructureError
        Names the bond, the contact or the atom.
    """
    atoms = list(topology.atoms())
    _check_bonds(atoms, positions, system)
    _check_contacts(atoms, positions, system)
    worst = int(forces.argmax())
    if forces[worst] > _FORCE:
        raise StructureError(
            f"forces below {_FORCE:g} kJ/mol/nm", f"{forces[worst]:.3g} on {name_of(atoms[worst])}", _NEXT
        )


def _check_bonds(atoms: list, positions: np.ndarray, system: openmm.System) -> None:
    rows = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            rows += [force.getBondParameters(i)[:3] for i in range(force.getNumBonds())]
    if not rows:
        return
    pairs = np.array([row[:2] for row in rows], dtype=int)
    expected = np.array([row[2]._value for row in rows])
    found = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    # Urey-Bradley terms of CHARMM join atoms two bonds apart, by the same force.
    worst = int(np.argmax(np.abs(found - expected)))
    if abs(found[worst] - expected[worst]) > _STRETCH:
        one, other = (atoms[i] for i in pairs[worst])
        raise StructureError(
            f"bonds within {_STRETCH} nm of the force field's length",
            f"{found[worst]:.3f} nm, not {expected[worst]:.3f} nm, from {name_of(one)} to {name_of(other)}",
            _NEXT,
        )


def _check_contacts(atoms: list, positions: np.ndarray, system: openmm.System) -> None:
    heavy = np.array([a.index for a in atoms if a.element not in (None, app.element.hydrogen)], dtype=int)
    close = pairs_within(positions[heavy], positions[heavy], _CONTACT)
    close = heavy[close[close[:, 0] < close[:, 1]]]
    if not len(close):
        return
    joined = {
        frozenset(force.getExceptionParameters(i)[:2])
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce)
        for i in range(force.getNumExceptions())
    }
    free = [pair for pair in close.tolist() if frozenset(pair) not in joined]
    if free:
        lengths = [float(np.linalg.norm(positions[i] - positions[j])) for i, j in free]
        shortest = int(np.argmin(lengths))
        one, other = (atoms[i] for i in free[shortest])
        raise StructureError(
            f"atoms that are not bonded at least {_CONTACT} nm apart",
            f"{lengths[shortest]:.3f} nm between {name_of(one)} and {name_of(other)}",
            _NEXT,
        )
