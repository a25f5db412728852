"""Collective variables and the energies of restraints in torch, float64, with gradients by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mlmm.collective_variables.definitions import SWITCHING_START, Biases, BoundRestraint, BoundVariable
from mlmm.structures import minimum_image

__all__ = [
    "bias_energy",
    "restraint_energy",
    "squared_deviations",
    "value",
    "value_and_gradient",
    "variable_values",
]


def value(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
    """The value of a collective variable, in internal units.

    Parameters
    ----------
    variable : BoundVariable
    positions : torch.Tensor, shape (N, 3), nm
        Of the whole system.
    cell : torch.Tensor, shape (3, 3), nm, optional
        Box vectors in rows.
    """
    return _VALUES[variable.kind](variable, positions, cell)


def variable_values(
    biases: Biases, positions: torch.Tensor, cell: torch.Tensor | None = None
) -> dict[str, float]:
    """The values of all variables by name; other arguments as for `value`."""
    return {variable.name: float(value(variable, positions, cell)) for variable in biases.variables}


def value_and_gradient(
    variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None = None
) -> tuple[float, torch.Tensor]:
    """The value of a collective variable and its gradient (N, 3); arguments as for `value`."""
    where = positions.detach().clone().requires_grad_()
    found = value(variable, where, cell)
    return float(found.detach()), torch.autograd.grad(found, where)[0]


def restraint_energy(
    restraint: BoundRestraint, positions: torch.Tensor, cell: torch.Tensor | None = None
) -> torch.Tensor:
    """The energy of a restraint, kJ/mol; arguments as for `value`."""
    variable = restraint.variable
    if variable.kind == "position":
        off = _square_root(_squares(variable, positions, cell))
    else:
        off = value(variable, positions, cell) - restraint.at
    if variable.kind == "torsion":
        off = off - 2 * math.pi * torch.floor(off / (2 * math.pi) + 0.5)
    if restraint.shape == "flat_bottom":
        off = (off.abs() - restraint.width).clamp(min=0.0)
    elif restraint.shape != "harmonic":
        off = off.clamp(max=0.0) if restraint.shape == "lower" else off.clamp(min=0.0)
    return 0.5 * restraint.force_constant * off.square().sum()


def squared_deviations(positions: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Mean squared distance from references after superposition (Kabsch, doi 10.1107/S0567739476001873).

    The rotation is the best one: to first order the deviation does not change with it, so that it needs no
    gradient.

    Parameters
    ----------
    positions : torch.Tensor, shape (n, 3), nm
    references : torch.Tensor, shape (K, n, 3), nm

    Returns
    -------
    torch.Tensor, shape (K,), nm^2
    """
    where = positions - positions.mean(dim=0)
    references = references - references.mean(dim=1, keepdim=True)
    with torch.no_grad():
        left, _, right = torch.linalg.svd(where.T @ references)
        proper = torch.ones(len(references), 3, dtype=positions.dtype)
        proper[:, 2] = torch.det(left @ right).sign()
        rotations = left * proper[:, None] @ right
    return (where @ rotations - references).square().sum(dim=2).mean(dim=1)


def bias_energy(
    biases: Biases,
    positions: torch.Tensor,
    cell: torch.Tensor | None = None,
    stage: str | None = None,
) -> torch.Tensor:
    """The energy of all restraints that act in a stage (all for None), kJ/mol; other arguments as `value`."""
    acting = [restraint for restraint in biases if restraint.acts_in(stage)]
    energies = [restraint_energy(restraint, positions, cell) for restraint in acting]
    return torch.stack([positions.new_zeros(()), *energies]).sum()


def _centres(variable: BoundVariable, positions: torch.Tensor) -> list[torch.Tensor]:
    """Centre of mass of each group."""
    return [
        torch.tensor(weights, dtype=positions.dtype) @ positions[list(atoms)]
        for atoms, weights in zip(variable.groups, variable.weights, strict=True)
    ]


def _steps(
    variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None, *pairs: tuple[int, int]
) -> list[torch.Tensor]:
    """Shortest vectors from one group to another, for each pair of groups."""
    centres = _centres(variable, positions)
    return [minimum_image(centres[b] - centres[a], cell) for a, b in pairs]


def _distances(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    """Of the first two groups, of the next two, and so on."""
    pairs = [(k, k + 1) for k in range(0, len(variable.groups), 2)]
    return torch.stack(_steps(variable, positions, cell, *pairs)).norm(dim=1)


def _distance(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    return _distances(variable, positions, cell)[0]


def _difference(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    first, second = _distances(variable, positions, cell)
    return first - second


def _sum(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    factors = torch.tensor(variable.coefficients, dtype=positions.dtype)
    return factors @ _distances(variable, positions, cell)


def _angle(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    first, last = _steps(variable, positions, cell, (1, 0), (1, 2))
    return torch.atan2(torch.linalg.cross(first, last).norm(), first @ last)


def _torsion(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    first, axis, last = _steps(variable, positions, cell, (0, 1), (1, 2), (2, 3))
    one, other = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    return torch.atan2(axis.norm() * (first @ other), one @ other)


def _axis(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    axis, moved, rest = _steps(variable, positions, cell, (0, 1), (0, 2), (1, 2))
    return (moved @ moved + axis @ axis - rest @ rest) / (2 * axis.norm())


def _coordination(
    variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None
) -> torch.Tensor:
    first, second = (positions[list(group)] for group in variable.groups)
    r = minimum_image(first[:, None] - second[None], cell).norm(dim=2)
    begin, end = SWITCHING_START * variable.cutoff, variable.cutoff
    t = ((r - begin) / (end - begin)).clamp(0.0, 1.0)
    smooth = 1 - t**3 * (10 - 15 * t + 6 * t**2)
    return (smooth / (1 + (r / variable.contact_distance) ** variable.exponent)).sum()


def _deviations(variable: BoundVariable, positions: torch.Tensor) -> torch.Tensor:
    references = torch.tensor(variable.references, dtype=positions.dtype)
    return squared_deviations(positions[list(variable.groups[0])], references)


def _rmsd(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    return _square_root(_deviations(variable, positions)[0])


def _path_weights(variable: BoundVariable, positions: torch.Tensor) -> torch.Tensor:
    return -variable.sharpness * _deviations(variable, positions)


def _path_s(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    places = torch.linspace(0, 1, len(variable.references), dtype=positions.dtype)
    return places @ torch.softmax(_path_weights(variable, positions), dim=0)


def _path_z(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    return -torch.logsumexp(_path_weights(variable, positions), dim=0) / variable.sharpness


def _squares(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    """Squared distance of each atom from its place; places move with the box, all together."""
    places = torch.tensor(variable.references[0], dtype=positions.dtype)
    if cell is not None:
        edge = torch.det(cell) ** (1 / 3)
        places = places + (edge / variable.edge - 1) * places.mean(dim=0)
    return minimum_image(positions[list(variable.groups[0])] - places, cell).square().sum(dim=1)


def _position(variable: BoundVariable, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    return _square_root(_squares(variable, positions, cell).mean())


def _square_root(squares: torch.Tensor) -> torch.Tensor:
    """The root, whose gradient at 0 is set to 0."""
    above = squares > 0
    return torch.where(above, torch.where(above, squares, torch.ones_like(squares)).sqrt(), 0.0)


_Value = Callable[[BoundVariable, torch.Tensor, torch.Tensor | None], torch.Tensor]
_VALUES: dict[str, _Value] = {
    "distance": _distance,
    "angle": _angle,
    "torsion": _torsion,
    "difference": _difference,
    "sum": _sum,
    "axis": _axis,
    "coordination": _coordination,
    "rmsd": _rmsd,
    "position": _position,
    "path_s": _path_s,
    "path_z": _path_z,
}
