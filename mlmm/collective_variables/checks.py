"""What makes a collective variable undefined, told before a run instead of by NaN within it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mlmm.build import BuiltSystem
from mlmm.collective_variables.definitions import BoundRestraint, BoundVariable
from mlmm.collective_variables.values import value
from mlmm.errors import ConfigError
from mlmm.neighbours import minimum_images
from mlmm.units import GAS_CONSTANT

__all__ = ["check_groups", "check_start", "check_start_energy"]

_CLOSEST = 1e-6  # nm: centres that coincide
_STRAIGHT = 1e-4  # sine of an angle that counts as 0 or 180 degrees
_LARGE = 1000 * GAS_CONSTANT * 300  # kJ/mol


def check_groups(variable: BoundVariable, built: BuiltSystem) -> None:
    """Refuse groups that are empty of mass, overlap, or are spread over periodic images.

    Raises
    ------
    ConfigError
    """
    where = f"variable {variable.name}"
    by_atoms = variable.superposed or variable.kind in ("position", "coordination")
    for group, weights in zip(variable.groups, variable.weights, strict=True):
        massless = [atom for atom, weight in zip(group, weights.tolist(), strict=True) if not weight]
        if len(massless) == len(group) or (massless and by_atoms):
            raise ConfigError(
                f"groups of atoms with mass in {where}",
                f"{built.label(massless[0])}, a virtual site or a particle without mass",
                "select the atoms themselves",
            )
    shared = (
        set(variable.groups[0]).intersection(*variable.groups[1:]) if len(variable.groups) == 2 else set()
    )
    if variable.kind == "coordination" and shared:
        raise ConfigError(
            f"two groups without common atoms in {where}",
            f"{built.label(min(shared))} in both",
            "leave it out of one of the selections",
        )
    if variable.superposed and len(variable.groups[0]) < 3:
        raise ConfigError(
            f"three atoms or more to superpose in {where}",
            str(len(variable.groups[0])),
            "select more, or take a distance",
        )
    if variable.periodic:
        _check_images(variable, built, where)


def _check_images(variable: BoundVariable, built: BuiltSystem, where: str) -> None:
    box = np.array(built.box_vectors)
    if variable.kind == "coordination":
        half = 0.5 * float(np.diag(box).min())
        if variable.cutoff > half:
            raise ConfigError(
                f"a cutoff of {where} below half the box, {half:.3g} nm",
                f"{variable.cutoff:.3g} nm",
                "write a shorter cutoff or contact_distance, or make the box larger",
            )
        return
    if variable.kind == "position":
        return
    molecule = {atom: k for k, atoms in enumerate(built.molecules) for atom in atoms}
    for group in variable.groups:
        # Atoms of one molecule are whole; others may stand in another image of the box.
        others = [atom for atom in group if molecule[atom] != molecule[group[0]]]
        apart = built.positions[others] - built.positions[group[0]]
        split = np.abs(minimum_images(apart, box) - apart).max(axis=-1, initial=0.0) > _CLOSEST
        if split.any():
            raise ConfigError(
                f"a group whose molecules stand in one periodic image in {where}",
                f"{built.label(others[int(np.argmax(split))])} and {built.label(group[0])} in two",
                "select atoms of one molecule, or move the molecules together in the structure",
            )


def check_start(variable: BoundVariable, built: BuiltSystem) -> None:
    """Refuse a variable whose value or gradient does not exist in the built structure.

    Raises
    ------
    ConfigError
    """
    positions, cell = _start(built)
    centres = [
        np.asarray(weights) @ built.positions[list(group)]
        for group, weights in zip(variable.groups, variable.weights, strict=True)
    ]
    n = len(centres)
    rows = {"angle": n - 1, "torsion": n - 1, "axis": 1}
    pairs = [(k, k + 1) for k in range(rows.get(variable.kind, 0))]
    if variable.kind in ("distance", "difference", "sum"):
        pairs = [(k, k + 1) for k in range(0, n, 2)]
    steps = [minimum_images(centres[b] - centres[a], built.box_vectors) for a, b in pairs]
    lengths = [float(np.linalg.norm(step)) for step in steps]
    for (a, b), length in zip(pairs, lengths, strict=True):
        if length < _CLOSEST:
            raise _undefined(variable, f"groups {a + 1} and {b + 1} with the same centre")
    if variable.kind in ("angle", "torsion"):
        for k in range(len(steps) - 1):
            sine = np.linalg.norm(np.cross(steps[k], steps[k + 1])) / (lengths[k] * lengths[k + 1])
            if sine < _STRAIGHT:
                raise _undefined(variable, f"groups {k + 1}, {k + 2} and {k + 3} on a straight line")
    if not torch.isfinite(value(variable, positions, cell)):
        raise _undefined(variable, "a value that is not finite")


def _undefined(variable: BoundVariable, got: str) -> ConfigError:
    return ConfigError(
        f"a structure in which the {variable.kind} of variable {variable.name} is defined",
        got,
        "choose other atoms, or start from another structure",
    )


def check_start_energy(restraints: Sequence[BoundRestraint], built: BuiltSystem) -> None:
    """Refuse a restraint that pulls at an rmsd of 0, where no direction leads away.

    Raises
    ------
    ConfigError
    """
    positions, cell = _start(built)
    for restraint in restraints:
        variable = restraint.variable
        flat = restraint.at - restraint.width <= 0 or restraint.shape == "upper"
        if variable.kind != "rmsd" or flat:
            continue
        if float(value(variable, positions, cell)) < _CLOSEST:
            raise ConfigError(
                f"a start away from the reference for a restraint on {variable.name} at {restraint.at:g} nm",
                "an rmsd of 0, from which no force leads away",
                "give another reference, write at = 0, or a shape that is flat there",
            )


def _start(built: BuiltSystem) -> tuple[torch.Tensor, torch.Tensor | None]:
    cell = None if built.box_vectors is None else torch.tensor(np.array(built.box_vectors))
    return torch.tensor(np.array(built.positions)), cell
