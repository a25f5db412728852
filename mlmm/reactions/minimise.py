"""Minimisation on a surface, with variables held or not: BFGS of ASE, its Hessian handed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.reactions.surface import FORCE_OF_ASE, ReactionSurface, force_norm
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["Minimum", "minimise"]

#: Å: longest displacement of an atom in a step.
_LONGEST = 0.15
#: Degrees of freedom above which a quasi-Newton step with a full matrix costs more than most energies.
_DENSE = 900


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation came to.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), nm
    energy : float
        Of the surface alone, kJ/mol.
    force : float
        Largest force on an atom that is left, without what is held, kJ/mol/nm.
    converged : bool
    steps : int
    hessian : ndarray, shape (3n, 3n), optional
        The approximation that the steps built up, eV/Å², to begin another minimisation nearby.
    memory : ndarray, optional
        See `mlmm.reactions.surface.Evaluation`.
    """

    positions: np.ndarray
    energy: float
    force: float
    converged: bool
    steps: int
    hessian: np.ndarray | None = None
    memory: np.ndarray | None = None


def minimise(
    surface: ReactionSurface,
    positions: np.ndarray,
    *,
    tolerance: float,
    steps: int,
    held: Any = None,
    memory: np.ndarray | None = None,
    hessian: np.ndarray | None = None,
) -> Minimum:
    """Go downhill until no atom feels a force above `tolerance`.

    Parameters
    ----------
    surface : ReactionSurface
    positions : ndarray, shape (n, 3), nm
    tolerance : float
        kJ/mol/nm.
    steps : int
    held : ase constraint, optional
        Such as `mlmm.reactions.variables.HeldVariables`; positions are put where it wants them first.
    memory, hessian
        Of a minimum nearby.
    """
    from ase.optimize import BFGS, LBFGS

    atoms = surface.atoms(positions, memory)
    if held is not None:
        atoms.set_constraint([*atoms.constraints, held])
        atoms.set_positions(atoms.positions.copy())
    dense = 3 * len(atoms) <= _DENSE
    kind: Any = BFGS if dense else LBFGS
    optimiser = kind(atoms, logfile=None, maxstep=_LONGEST)
    if dense and hessian is not None:
        optimiser.H0 = hessian
    with optimiser:
        converged = optimiser.run(fmax=tolerance / FORCE_OF_ASE, steps=steps)
    left = force_norm(atoms.get_forces()) * FORCE_OF_ASE
    assert atoms.calc is not None
    return Minimum(
        positions=atoms.positions * ANGSTROM,
        energy=atoms.calc.results["energy"] * ELECTRONVOLT,
        force=left,
        converged=bool(converged),
        steps=int(optimiser.nsteps),
        hessian=getattr(optimiser, "H", None) if dense else None,
        memory=atoms.calc.memory,
    )
