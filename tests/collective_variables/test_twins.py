"""OpenMM and torch give one value and one gradient of each collective variable."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import BOXES, cell_of, context_of, disturbed, system_of, variables
from toys import evaluate

from mlmm.collective_variables.bind import bind_variable
from mlmm.collective_variables.definitions import BoundVariable
from mlmm.collective_variables.openmm_forces import variable_force
from mlmm.collective_variables.rules import KINDS
from mlmm.collective_variables.values import _VALUES, value, value_and_gradient

PLACES = {variable.kind: k for k, variable in enumerate(variables(system_of(None)))}


def bound(kind: str, box: str) -> tuple:
    built = system_of(BOXES[box])
    return built, bind_variable(built, variables(built)[PLACES[kind]])


def by_openmm(built, variable: BoundVariable, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and gradient."""
    energy, forces = evaluate(context_of(built, variable_force(variable)), positions)
    return energy, -forces


def test_every_kind_has_both_twins_and_a_test():
    assert set(KINDS) == set(_VALUES) == set(PLACES)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("kind", KINDS)
def test_openmm_and_torch_agree(kind, box):
    """Values to 1e-10, gradients to 1e-8, in ten structures; a box has the second chain in another image."""
    built, variable = bound(kind, box)
    found = set()
    for seed in range(10):
        positions = disturbed(built, seed)
        energy, gradient = by_openmm(built, variable, positions)
        x, slope = value_and_gradient(variable, torch.tensor(positions), cell_of(built))
        assert energy == pytest.approx(x, abs=1e-10)
        assert np.abs(gradient - slope.numpy()).max() < 1e-8
        assert np.abs(gradient).max() > 1e-4
        found.add(round(x, 12))
    assert len(found) == 10


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_slope(kind, box):
    built, variable = bound(kind, box)
    positions = disturbed(built)
    _, gradient = value_and_gradient(variable, torch.tensor(positions), cell_of(built))
    for atom in variable.atoms:
        for k in range(3):
            ends = []
            for sign in (1, -1):
                moved = torch.tensor(positions)
                moved[atom, k] += sign * 1e-5
                ends.append(float(value(variable, moved, cell_of(built))))
            assert float(gradient[atom, k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=2e-6)


#: A change that a test of the twins has to see; None where the kind has nothing but its groups.
WRONG = {
    "sum": {"coefficients": (0.5, -2.001)},
    "coordination": {"exponent": 7},
    "path_s": {"sharpness": 100.0},
    "path_z": {"sharpness": 100.0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_definition_is_another_number(kind):
    """Control: other weights, atoms, parameters or references fail the comparison above."""
    built, variable = bound(kind, "open")
    positions = disturbed(built)
    changes = WRONG.get(kind)
    if changes is None and variable.references.size:
        changes = {
            "references": variable.references + np.random.default_rng(0).normal(0, 1e-3, (4, 3))[:3][:1]
        }
        if kind == "rmsd":  # a shift of all atoms is superposed away
            changes = {"references": variable.references * 1.001}
    if changes is None:
        changes = {
            "groups": (*variable.groups[1:], variable.groups[0]),
            "weights": variable.weights[1:] + variable.weights[:1],
        }
        if kind == "distance":  # symmetric
            changes = {"weights": (np.array([0.6, 0.4]), variable.weights[1])}
    wrong = dataclasses.replace(variable, **changes)
    energy, gradient = by_openmm(built, wrong, positions)
    x, slope = value_and_gradient(variable, torch.tensor(positions))
    assert abs(energy - x) > 1e-7 and np.abs(gradient - slope.numpy()).max() > 1e-6


def test_nearest_images_are_needed():
    """Control: without the box the second chain is far away."""
    built, variable = bound("distance", "periodic")
    positions = disturbed(built)
    near, far = (float(value(variable, torch.tensor(positions), cell)) for cell in (cell_of(built), None))
    assert near < 0.75 < far


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"position"}))
def test_values_do_not_change_when_everything_moves_and_turns(kind):
    built, variable = bound(kind, "open")
    positions = torch.tensor(disturbed(built))
    turn = torch.linalg.qr(torch.tensor(np.random.default_rng(3).normal(size=(3, 3))))[0]
    turn = turn * torch.det(turn).sign()
    x = float(value(variable, positions))
    assert float(value(variable, positions @ turn + 0.7)) == pytest.approx(x, abs=1e-10)
    # A mirror image is another molecule: torsions change sign, and it cannot be superposed.
    mirrored = float(value(variable, positions * torch.tensor([1.0, 1.0, -1.0])))
    assert (abs(mirrored - x) > 1e-3) is (kind in ("torsion", "rmsd", "path_s", "path_z"))
