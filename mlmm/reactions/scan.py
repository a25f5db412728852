"""Relaxed scans: the minimum of all other coordinates at each value of one variable, or of two.

A path that jumps, since the other coordinates fall into another valley, looks smooth from one side. The scan
goes back from where it ended: where both ways differ, there is hysteresis, and the variable alone does not
describe the reaction there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.constraints import FixConstraint

from mlmm.reactions.minimise import Minimum, minimise
from mlmm.reactions.options import ScanOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import FORCE_OF_ASE, ReactionSurface
from mlmm.reactions.variables import HeldVariables, SurfaceVariables
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["RestrainedVariables", "ScanResult", "grid_order", "scan"]

#: Steps with which the start comes to the first point: no longer than this (nm, rad), each relaxed a little.
_APPROACH, _APPROACH_STEPS = 0.02, 8


@dataclass(frozen=True)
class ScanResult:
    """A relaxed scan; D directions, P points in the order of the grid, m variables.

    Parameters
    ----------
    grid : ndarray, shape (P, m)
        Values that were asked for, internal units.
    values : ndarray, shape (D, P, m)
        Values that the structures have.
    energies : ndarray, shape (D, P), kJ/mol
        Of the surface alone.
    slopes : ndarray, shape (D, P, m)
        dE/dξ along each variable, from what holds it.
    positions : ndarray, shape (D, P, n, 3), nm
    forces : ndarray, shape (D, P), kJ/mol/nm
        Largest force that is left.
    converged : ndarray of bool, shape (D, P)
    """

    grid: np.ndarray
    values: np.ndarray
    energies: np.ndarray
    slopes: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    converged: np.ndarray

    @property
    def lowest(self) -> np.ndarray:
        """Which direction is lower at each point (P,)."""
        return np.argmin(self.energies, axis=0)

    @property
    def profile(self) -> np.ndarray:
        """Energy of the lower direction at each point (P,), kJ/mol."""
        return self.energies.min(axis=0)

    @property
    def path(self) -> np.ndarray:
        """Structures of the lower direction (P, n, 3), nm."""
        return self.positions[self.lowest, np.arange(len(self.grid))]

    @property
    def hysteresis(self) -> np.ndarray:
        """Energy forth less energy back at each point (P,), kJ/mol; zero for one direction."""
        return self.energies[0] - self.energies[-1]


class RestrainedVariables(FixConstraint):
    """Stiff harmonic restraints on variables, as an ASE constraint: E = Σ k/2 (ξ − ξ₀)².

    Parameters
    ----------
    variables : SurfaceVariables
    targets : ndarray, shape (m,)
    constants : ndarray, shape (m,)
        kJ/mol per squared unit.
    """

    def __init__(self, variables: SurfaceVariables, targets: np.ndarray, constants: np.ndarray):
        self.variables, self.targets, self.constants = variables, np.array(targets), np.array(constants)
        self.slopes = np.zeros(len(self.targets))

    def __deepcopy__(self, seen: dict) -> RestrainedVariables:
        return RestrainedVariables(self.variables, self.targets, self.constants)

    def get_removed_dof(self, atoms: Any) -> int:
        """None: a restraint is an energy."""
        return 0

    def adjust_positions(self, atoms: Any, new: np.ndarray) -> None:
        """Nothing."""

    def adjust_forces(self, atoms: Any, forces: np.ndarray) -> None:
        """Add the force of the restraints; keeps the slopes k (ξ₀ − ξ) of the surface."""
        values, gradients = self.variables.values_and_gradients(atoms.positions * ANGSTROM)
        pull = self.constants * self.variables.difference(values, self.targets)
        self.slopes = -pull
        forces -= np.tensordot(pull, gradients, 1) / FORCE_OF_ASE

    def adjust_potential_energy(self, atoms: Any) -> float:
        """The energy of the restraints, eV."""
        off = self.variables.difference(
            self.variables.values(atoms.positions * ANGSTROM),
            self.targets,
        )
        return float(0.5 * (self.constants * off**2).sum() / ELECTRONVOLT)


def grid_order(counts: Sequence[int]) -> list[int]:
    """Order in which the points of a grid are visited: along rows, every other row backwards."""
    if len(counts) == 1:
        return list(range(counts[0]))
    rows, columns = counts
    found = []
    for row in range(rows):
        line = [row * columns + column for column in range(columns)]
        found += line[::-1] if row % 2 else line
    return found


def scan(
    surface: ReactionSurface,
    variables: SurfaceVariables,
    axes: Sequence[np.ndarray],
    options: ScanOptions | None = None,
    *,
    force_constants: np.ndarray | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Relax a surface at each point of a grid of variables.

    Parameters
    ----------
    surface : ReactionSurface
    variables : SurfaceVariables
    axes : sequence of ndarray
        Values of each variable, internal units.
    options : ScanOptions, optional
        `directions`, `hold`, `force_tolerance` and `steps` are used.
    force_constants : ndarray, shape (m,), optional
        Of restraints.
    progress : Progress, optional
        Kept after each point; a scan goes on after the last one.
    """
    options, progress = options or ScanOptions(), progress or Progress()
    grid = np.stack([part.reshape(-1) for part in np.meshgrid(*axes, indexing="ij")], axis=1)
    order = grid_order([len(axis) for axis in axes])
    ways = [order, order[::-1]] if options.directions == "both" else [order]
    shape = (len(ways), len(grid))
    empty = {
        "values": np.full((*shape, grid.shape[1]), np.nan),
        "energies": np.full(shape, np.nan),
        "slopes": np.full((*shape, grid.shape[1]), np.nan),
        "positions": np.full((*shape, len(surface), 3), np.nan),
        "forces": np.full(shape, np.nan),
        "converged": np.zeros(shape, dtype=bool),
    }
    kept = {name: progress.get(name) for name in empty}
    arrays = {name: value if (was := kept[name]) is None else was.copy() for name, value in empty.items()}

    def hold(target: np.ndarray) -> HeldVariables | RestrainedVariables:
        if options.hold == "constraint":
            return HeldVariables(variables, target)
        assert force_constants is not None
        return RestrainedVariables(variables, target, force_constants)

    where, hessian, memory = progress.get("last"), progress.get("hessian"), progress.get("memory")
    if where is None:
        where, memory = _approach(surface, variables, grid[order[0]])
    for way, points in enumerate(ways):
        for place in points:
            if np.isfinite(arrays["energies"][way, place]):
                continue
            held = hold(grid[place])
            if options.hold == "restraint":
                where = _placed(surface, HeldVariables(variables, grid[place]), where)
            found: Minimum = minimise(
                surface,
                where,
                tolerance=options.force_tolerance,
                steps=options.steps,
                held=held,
                memory=memory,
                hessian=hessian,
            )
            where, hessian, memory = found.positions, found.hessian, found.memory
            arrays["values"][way, place] = variables.values(where)
            arrays["energies"][way, place] = found.energy
            arrays["slopes"][way, place] = held.slopes
            arrays["positions"][way, place] = where
            arrays["forces"][way, place] = found.force
            arrays["converged"][way, place] = found.converged
            at = ", ".join(f"{value:.4g}" for value in grid[place])
            text = f"{'back' if way else 'forth'}: {', '.join(variables.names)} = {at}, {found.steps} steps"
            progress.keep(text, **arrays, last=where, hessian=hessian, memory=memory)
    return ScanResult(grid=grid, **arrays)


def _placed(surface: ReactionSurface, held: HeldVariables, where: np.ndarray) -> np.ndarray:
    """Positions with the variables at their targets, by the shortest way."""
    atoms = surface.atoms(where)
    new = atoms.positions.copy()
    held.adjust_positions(atoms, new)
    return new * ANGSTROM


def _approach(
    surface: ReactionSurface, variables: SurfaceVariables, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Come from the start to the first point in small steps."""
    where, memory, hessian = surface.positions, None, None
    begin = variables.values(where)
    off = variables.difference(target, begin)
    count = int(np.ceil(np.abs(off).max() / _APPROACH))
    for k in range(1, count):
        held = HeldVariables(variables, begin + off * k / count)
        found = minimise(
            surface, where, tolerance=1.0, steps=_APPROACH_STEPS, held=held, memory=memory, hessian=hessian
        )
        where, memory, hessian = found.positions, found.memory, found.hessian
    return where, memory
