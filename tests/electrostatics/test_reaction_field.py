"""Reaction field of the difference of charges: formulas, one energy, no jump, Ewald's sum as limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from electrostatics.test_ewald_insertion import Springs, no_dipoles, system_of
from field_models import EquilibratedModule

from mlmm.electrostatics.embedded_region import EmbeddedRegion
from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.electrostatics.reaction_field import ReactionFieldInsertion
from mlmm.errors import EmbeddingError
from mlmm.units import COULOMB

CUBIC = np.diag([2.6, 2.6, 2.6])


def one_pair(distance: float, width: float = 0.0, permittivity: float = 1.0):
    """Two atoms without charge in the force field, and one charge at a distance of the first."""
    region = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.1]], dtype=torch.float64)
    source = region[:1] + distance * torch.tensor([[0.36, 0.48, -0.8]], dtype=torch.float64)
    field = ReactionFieldInsertion(
        torch.zeros(2), torch.ones(1), torch.tensor(CUBIC), width, permittivity=permittivity
    )
    return field, region, source


@pytest.mark.parametrize("width", [0.0, 0.03])
def test_gradient_and_curvature_are_derivatives_of_the_potential(width):
    """B1 and B2 against automatic differentiation of B0; of the curvature the traceless part."""
    for distance in (0.1, 0.3, 0.8, 1.15):
        field, region, source = one_pair(distance, width)
        x = region.clone().requires_grad_(True)
        _, potential, gradient, curvature = field.potentials(x, source, None)
        (slope,) = torch.autograd.grad(potential[0], x, create_graph=True)
        assert torch.allclose(gradient[0], slope[0], rtol=1e-9, atol=1e-9)
        bend = torch.stack([torch.autograd.grad(slope[0, k], x, retain_graph=True)[0][0] for k in range(3)])
        bend = bend - torch.eye(3, dtype=torch.float64) * bend.trace() / 3
        assert torch.allclose(curvature[0], bend, rtol=1e-8, atol=1e-7)
    # Near a charge it is Coulomb's law and a constant.
    near, far = (float(one_pair(d)[0].potentials(*one_pair(d)[1:], None)[1][0]) for d in (0.05, 0.1))
    assert near - far == pytest.approx(COULOMB * (20.0 - 10.0), rel=2e-3)


def test_nothing_jumps_at_the_cutoff():
    """Potential, gradient and curvature vanish at r_c; truncated Coulomb's law would not."""
    field, region, source = one_pair(1.2 * (1 - 1e-7))
    _, *around = field.potentials(region[:1].repeat(2, 1), source, None)
    limits = (1e-10, 1e-8, 1e-3)
    for part, limit in zip(around, limits, strict=True):
        assert float(part[0].abs().max()) < limit
    assert COULOMB / 1.2 > 100.0


def test_of_charges_that_are_fixed_nothing_is_left():
    """q = q0 without dipoles adds no energy, but for Gaussian charges, which are smaller than points."""
    region, outside, charges, reference, flexible, box = system_of(21, CUBIC)
    field = ReactionFieldInsertion(reference, charges, box)
    assert float(field(region, outside, reference, *no_dipoles(5), box).abs().max()) < 1e-9
    assert float(field(region, outside, flexible, *no_dipoles(5), box).sum().abs()) > 0.1


@pytest.mark.parametrize("takes", ["charges", "potential"])
def test_forces_of_an_embedded_region_are_gradients(takes):
    region, outside, charges, reference, _, box = system_of(22, CUBIC)
    positions, every = torch.cat([region, outside]), torch.cat([reference, charges]).numpy()
    model, reach = (Springs(), 0.8) if takes == "charges" else (EquilibratedModule([1, 6, 8, 1, 1], 1), 0.0)
    module = EmbeddedRegion(model, range(5), every, reach, 1, box, far_field="reaction_field")
    scripted = torch.jit.script(module) if takes == "potential" else module
    x = positions.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(scripted(x, box), x)
    largest = float(gradient.abs().max())
    assert float(gradient.sum(0).abs().max()) < 1e-10 * largest
    for atom, axis in ((0, 0), (3, 2), (8, 1), (30, 2)):
        values = []
        for sign in (1, -1):
            moved = positions.clone()
            moved[atom, axis] += sign * 1e-5
            values.append(float(module(moved, box)))
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(
            float(gradient[atom, axis]), abs=1e-6 * largest
        )
    # Images of any charge are that charge, and a shift of all changes nothing.
    wrapped = positions + torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    wrapped[5:] += torch.tensor([2.6, 0.0, -2.6], dtype=torch.float64)
    assert float(module(wrapped, box)) == pytest.approx(float(module(positions, box)), abs=1e-8)


def dipolar_surroundings(seed: int, width: float):
    """Neutral pairs of charges, 0.1 nm apart, as dense as water, around a region of net charge 1 in a box."""
    generator = np.random.default_rng(seed)
    n = round(20.0 * width**3)
    centres = width * generator.random((n, 3))
    directions = generator.standard_normal((n, 3))
    directions *= 0.05 / np.linalg.norm(directions, axis=1, keepdims=True)
    middle = 0.5 * width * np.ones(3)
    keep = np.linalg.norm(centres - middle, axis=1) > 0.45
    outside = np.concatenate([(centres + directions)[keep], (centres - directions)[keep]])
    charges = np.concatenate([np.full(keep.sum(), 0.4), np.full(keep.sum(), -0.4)])
    region = middle + 0.12 * generator.standard_normal((5, 3))
    reference = np.full(5, 0.2)
    excess = 0.2 * generator.standard_normal(5)
    arrays = (region, outside, charges, reference, reference + excess - excess.mean(), width * np.eye(3))
    return [torch.tensor(array) for array in arrays]


def spread_of_error(far, cutoff: float) -> float:
    """Error of the potential between the atoms against Ewald's sum, rms over five boxes, kJ/mol/e."""
    errors = []
    for seed in range(5):
        region, outside, charges, reference, _, box = dipolar_surroundings(seed, 4.0)
        ewald = EwaldInsertion(reference, charges, box, 1e-6)
        field = far(reference, charges, box, cutoff)
        difference = field.potentials(region, outside, box)[1] - ewald.potentials(region, outside, box)[1]
        errors.append(float((difference - difference.mean()).square().mean()))
    return float(np.sqrt(np.mean(errors)))


def test_it_approaches_ewalds_sum_as_the_range_grows():
    """Among dipoles: differences of the potential; a cutoff of each pair is far worse at any range."""

    class Truncated(ReactionFieldInsertion):
        def potentials(self, positions, external_positions, cell):
            vectors = external_positions.unsqueeze(0) - positions.unsqueeze(1)
            vectors = vectors - torch.round(vectors / cell[0, 0]) * cell[0, 0]
            distance = vectors.norm(dim=2)
            potential = COULOMB * ((distance < self.range) * self.external / distance).sum(1)
            return potential, potential

    def field(reference, charges, box, cutoff, kind=ReactionFieldInsertion):
        return kind(reference, charges, box, 0.0, cutoff)

    errors = [spread_of_error(field, cutoff) for cutoff in (0.9, 1.2, 1.9)]
    # Of dipoles that know nothing of each other: ∫ r² r⁻⁶ dr beyond r_c, so that its root falls as r_c^−1.5.
    assert np.log(errors[0] / errors[2]) / np.log(1.9 / 0.9) == pytest.approx(1.5, abs=0.4)
    assert errors[0] > errors[1] > errors[2]
    truncated = spread_of_error(lambda *a: field(*a, kind=Truncated), 1.2)
    assert truncated > 5.0 * errors[1]


def test_the_far_term_does_not_depend_on_the_origin_and_vanishes_in_vacuum():
    region, outside, _, reference, flexible, box = system_of(23, CUBIC)
    none = outside[:0], torch.zeros(0)
    dipoles, quadrupoles = no_dipoles(5)
    dipoles = dipoles + 0.01

    def far(permittivity: float, order: list[int]) -> float:
        field = ReactionFieldInsertion(reference[order], none[1], box, permittivity=permittivity)
        field.images = False
        arguments = (region[order], none[0], flexible[order], dipoles, quadrupoles, box)
        return float(field(*arguments).sum())

    assert far(1.0, [0, 1, 2, 3, 4]) == 0.0
    # The first atom is the origin.
    assert far(78.4, [0, 1, 2, 3, 4]) == pytest.approx(far(78.4, [3, 1, 4, 0, 2]), rel=1e-10)
    # A dipole and the solvent that it polarises, twice Onsager's free energy: −(1 − 1/eps) d²/r_c³.
    x = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.2]], dtype=torch.float64)
    q = torch.tensor([0.5, -0.5], dtype=torch.float64)
    field = ReactionFieldInsertion(torch.zeros(2), none[1], box, permittivity=78.4)
    field.images = False
    found = float(field(x, none[0], q, *no_dipoles(2), box).sum())
    assert found == pytest.approx(-COULOMB * (1 - 1 / 78.4) * 0.1**2 / 1.2**3, rel=1e-10)


def test_boxes_that_are_too_small_are_refused():
    region, outside, charges, reference, flexible, box = system_of(24, CUBIC)
    with pytest.raises(EmbeddingError, match=r"at least 2\.40 nm wide"):
        ReactionFieldInsertion(reference, charges, 0.9 * box)
    with pytest.raises(EmbeddingError, match="Gaussian charges"):
        ReactionFieldInsertion(reference, charges, box, 0.2)
    field = ReactionFieldInsertion(reference, charges, box)
    with pytest.raises(ValueError, match=r"write far_field = .ewald."):
        field(region, outside, flexible, *no_dipoles(5), 0.9 * box)
