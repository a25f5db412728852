"""Collective variables as functions of the atoms that move: values, gradients, and holding them in ASE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.constraints import FixConstraint

from mlmm.collective_variables.bind import bind_variable
from mlmm.collective_variables.definitions import BoundVariable
from mlmm.collective_variables.options import Variable
from mlmm.collective_variables.values import value_and_gradient
from mlmm.errors import ConfigError, SimulationError
from mlmm.reactions.surface import ReactionSurface
from mlmm.units import ANGSTROM

__all__ = ["HeldVariables", "SurfaceVariables"]

_TURN = 2.0 * math.pi
#: A held variable is at its value to so many of its units (nm, rad, number).
_HELD = 1e-9
_FLAT = 1e-8  # length of a gradient below which a variable has no direction


class SurfaceVariables:
    """Some collective variables of a surface.

    Parameters
    ----------
    surface : ReactionSurface
    variables : sequence of Variable

    Raises
    ------
    ConfigError, SelectionError
        As `mlmm.collective_variables.bind`, or a variable that no moving atom changes, or one of atoms of an
        environment that relaxes.
    """

    def __init__(self, surface: ReactionSurface, variables: Sequence[Variable]):
        if surface.built is None or surface.indices is None:
            raise ConfigError("a surface with a structure", "a plain function", "leave variables out")
        self._surface = surface
        self.bound: list[BoundVariable] = [bind_variable(surface.built, variable) for variable in variables]
        moving = set(surface.indices.tolist())
        for variable in self.bound:
            inside = moving.intersection(variable.atoms)
            relaxed = surface.facts.get("environment") == "relaxed"
            if not inside or (relaxed and len(inside) < len(variable.atoms)):
                raise ConfigError(
                    f"variable {variable.name} of atoms that move",
                    f"{len(variable.atoms) - len(inside)} of its atoms in the environment",
                    "choose atoms = … in [surface] with all of them",
                )

    @property
    def names(self) -> list[str]:
        """Names of the variables."""
        return [variable.name for variable in self.bound]

    def values(self, positions: np.ndarray) -> np.ndarray:
        """Values (m,) in internal units at positions (n, 3), nm."""
        return self.values_and_gradients(positions)[0]

    def values_and_gradients(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (m,) and gradients (m, n, 3).

        Raises
        ------
        SimulationError
            A variable without value or direction here, such as a torsion of atoms on a line.
        """
        built = self._surface.built
        whole = torch.tensor(self._surface.whole_positions(positions))
        cell = None if built.box_vectors is None else torch.tensor(np.array(built.box_vectors))
        values, gradients = [], []
        for variable in self.bound:
            value, gradient = value_and_gradient(variable, whole, cell)
            own = gradient.numpy()[self._surface.indices]
            if not (math.isfinite(value) and np.isfinite(own).all() and np.abs(own).max() > _FLAT):
                raise SimulationError(
                    f"variable {variable.name} ({variable.kind}) with a value and a gradient everywhere",
                    "a structure where it has none: its atoms lie on a line or on top of each other",
                    "choose a variable that is defined there, such as a distance, or another range",
                )
            values.append(value)
            gradients.append(own)
        return np.array(values), np.array(gradients)

    def difference(self, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Values less targets; torsions on the shorter way around."""
        off = np.asarray(values, dtype=np.float64) - np.asarray(targets, dtype=np.float64)
        turns = np.array([variable.kind == "torsion" for variable in self.bound])
        return np.where(turns, off - _TURN * np.floor(off / _TURN + 0.5), off)


class HeldVariables(FixConstraint):
    """An ASE constraint that holds collective variables at their values, by projection (SHAKE).

    Positions are put back along the gradients J of the variables until these have their values; of a force F
    the part Jᵀ(JJᵀ)⁻¹J F is taken away. Of what is taken away follows the slope of the relaxed energy along
    each variable, by Hellmann and Feynman: dE/dξ = −(JJᵀ)⁻¹J F.

    Parameters
    ----------
    variables : SurfaceVariables
    targets : ndarray, shape (m,)
        Internal units.
    """

    def __init__(self, variables: SurfaceVariables, targets: np.ndarray):
        self.variables, self.targets = variables, np.array(targets, dtype=np.float64)
        self.slopes = np.zeros(len(self.targets))

    def __deepcopy__(self, seen: dict[int, Any]) -> HeldVariables:
        return HeldVariables(self.variables, self.targets)

    def get_removed_dof(self, atoms: Any) -> int:
        """Degrees of freedom that are gone."""
        return len(self.targets)

    def adjust_positions(self, atoms: Any, new: np.ndarray) -> None:
        """Put new positions (Å) back to where the variables have their values."""
        where = new * ANGSTROM
        _, along = self.variables.values_and_gradients(atoms.positions * ANGSTROM)
        old = along.reshape(len(along), -1)
        for _ in range(100):
            values, gradients = self.variables.values_and_gradients(where)
            off = self.variables.difference(values, self.targets)
            if np.abs(off).max() < _HELD:
                new[:] = where / ANGSTROM
                return
            now = gradients.reshape(len(gradients), -1)
            # Along the gradients of the old positions, as SHAKE; far from the target along the new ones.
            guide = old if np.abs(off).max() < 0.01 else now
            shift = guide.T @ np.linalg.lstsq(now @ guide.T, off, rcond=1e-12)[0]
            largest = np.abs(shift).max()
            where = where - (shift * min(1.0, 0.02 / max(largest, 1e-30))).reshape(where.shape)
        names = ", ".join(self.variables.names)
        raise SimulationError(
            f"{names} at {', '.join(f'{target:.4g}' for target in self.targets)} (nm, rad)",
            f"{', '.join(f'{value:.4g}' for value in values)} after 100 corrections",
            "look whether the atoms can have these values at the same time",
        )

    def adjust_forces(self, atoms: Any, forces: np.ndarray) -> None:
        """Take the part along the gradients out of forces; keeps the slopes (kJ/mol per unit)."""
        from mlmm.reactions.surface import FORCE_OF_ASE

        _, gradients = self.variables.values_and_gradients(atoms.positions * ANGSTROM)
        rows = gradients.reshape(len(gradients), -1)
        solved = np.linalg.lstsq(rows @ rows.T, rows @ forces.reshape(-1), rcond=1e-12)[0]
        self.slopes = -solved * FORCE_OF_ASE
        forces -= (rows.T @ solved).reshape(forces.shape)
