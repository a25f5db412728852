"""Field-aware ANI: charges at the minimum of their energy, exact limits, forces on both sides, one file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from field_networks import field_parameters, field_potential

import mlmm
from mlmm.errors import PotentialError
from mlmm.potentials.base import energy_and_all_forces
from mlmm.potentials.contract.check import check_potential
from mlmm.potentials.contract.external import charges_around
from mlmm.potentials.field_ani.equilibration import equilibrate, interaction_matrix
from mlmm.potentials.field_ani.parameters import save_field_ani
from mlmm.structures import ExternalCharges, Structure
from mlmm.units import ANGSTROM, COULOMB

METHANOL = (6, 8, 1, 1, 1, 1)
PLACES = [
    *([-0.0047, 0.0665, 0.0], [-0.0047, -0.0758, 0.0], [-0.1087, 0.0976, 0.0]),
    *([0.0437, 0.1070, 0.0890], [0.0437, 0.1070, -0.0890], [0.0863, -0.1058, 0.0]),
]


def methanol(charge: int = 0, external: ExternalCharges | None = None) -> Structure:
    positions = torch.tensor(PLACES, dtype=torch.float64)
    return Structure(torch.tensor(METHANOL), positions, None, charge, external=external)


def random_problem(seed: int = 0, n: int = 7):
    generator = torch.Generator().manual_seed(seed)
    x = 2.0 * torch.randn(1, n, 3, dtype=torch.float64, generator=generator)
    square = (x.unsqueeze(1) - x.unsqueeze(2)).square().sum(3)
    widths = 0.3 + torch.rand(n, dtype=torch.float64, generator=generator)
    hardness = 300.0 * torch.rand(1, n, dtype=torch.float64, generator=generator)
    slopes = 500.0 * torch.randn(1, n, dtype=torch.float64, generator=generator)
    return interaction_matrix(square, widths, hardness, COULOMB / ANGSTROM), slopes


def test_charges_are_stationary_and_a_minimum():
    """All slopes are equal, and every displacement that keeps the total raises the energy."""
    matrix, slopes = random_problem()
    charges = equilibrate(matrix, slopes, -2.0)
    assert float(charges.sum()) == pytest.approx(-2.0, abs=1e-12)
    level = slopes[0] + matrix[0] @ charges[0]
    assert float(level.max() - level.min()) < 1e-9 * float(slopes.abs().max())
    assert float(torch.linalg.eigvalsh(matrix[0]).min()) > 0.0

    def energy(q: torch.Tensor) -> float:
        return float(slopes[0] @ q + 0.5 * q @ matrix[0] @ q)

    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        step = torch.randn(7, dtype=torch.float64, generator=generator)
        step = 1e-2 * (step - step.mean())
        assert energy(charges[0] + step) > energy(charges[0])
    # Control: from equal charges some displacement of that kind lowers it.
    equal = torch.full((7,), -2.0 / 7.0, dtype=torch.float64)
    downhill = -(slopes[0] + matrix[0] @ equal)
    downhill = 1e-3 * (downhill - downhill.mean()) / downhill.norm()
    assert energy(equal + downhill) < energy(equal)


def test_the_matrix_is_coulombs_law_of_clouds():
    """k/sqrt(r² + w_i² + w_j²) and k/(sqrt(2) w) + J, by hand; Coulomb's law far away, in nm."""
    widths, hardness = np.array([0.4, 0.7, 1.1]), np.array([50.0, 0.0, 200.0])
    x = np.array([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [0.0, 5000.0, 0.0]])
    square = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    given = (torch.tensor(square)[None], torch.tensor(widths), torch.tensor(hardness)[None])
    a = interaction_matrix(*given, COULOMB / ANGSTROM)[0].numpy()
    k = 1389.35457644382  # kJ angstrom/mol/e², CODATA 2018
    assert a[0, 1] == pytest.approx(k / np.sqrt(1.44 + 0.16 + 0.49), rel=1e-6)
    assert a[0, 2] == pytest.approx(COULOMB / 500.0, rel=1e-6) and a == pytest.approx(a.T)
    assert np.diag(a) == pytest.approx(k / (np.sqrt(2) * widths) + hardness, rel=1e-6)
    # Control: points, without widths.
    assert abs(a[0, 1] - k / 1.2) > 0.1 * a[0, 1]


def test_two_atoms_have_the_closed_solution():
    """q_1 = [Q (A_22 − A_12) + s_2 − s_1]/(A_11 + A_22 − 2 A_12); without coupling it is another number."""
    matrix, slopes = random_problem(5, 2)
    a, s = matrix[0], slopes[0]
    charges = equilibrate(matrix, slopes, 1.0)[0]
    expected = (a[1, 1] - a[0, 1] + s[1] - s[0]) / (a[0, 0] + a[1, 1] - 2.0 * a[0, 1])
    assert float(charges[0]) == pytest.approx(float(expected), abs=1e-12)
    uncoupled = (a[1, 1] + s[1] - s[0]) / (a[0, 0] + a[1, 1])
    assert abs(float(charges[0]) - float(uncoupled)) > 1e-3


@pytest.mark.parametrize("charge", [0, -2])
def test_keeps_the_contract_among_charges(charge):
    """Forces on both sides by finite differences, no net force, charge conserved, distant charge, vacuum."""
    structure = methanol(charge)
    report = check_potential(field_potential(METHANOL), structure)
    assert report.passed, str(report)


def test_charges_that_do_not_answer_break_the_contract():
    """Control: dipoles of another sign than the energy has."""
    potential = field_potential(METHANOL)

    class Wrong:
        spec = potential.spec

        def atom_energies(self, structure):
            found = potential.atom_energies(structure)
            return dataclasses.replace(found, charges=found.charges.detach() * 1.01)

    assert not check_potential(Wrong(), methanol()).passed


def test_forces_and_net_force_among_charges():
    """Central differences 1e-6 of the largest force, net force 1e-9; frozen charges would miss far more."""
    potential = field_potential(METHANOL)
    structure = methanol(-2, charges_around(methanol()))
    _, forces, outer = energy_and_all_forces(potential, structure)
    largest = float(torch.cat([forces, outer]).abs().max())
    assert float((forces.sum(0) + outer.sum(0)).abs().max()) < 1e-9 * largest
    step, external = 1e-5, structure.external
    for side, atom, axis in ((0, 1, 2), (0, 5, 0), (1, 0, 1), (1, 3, 2)):
        values = []
        for sign in (1.0, -1.0):
            both = [structure.positions.clone(), external.positions.clone()]
            both[side][atom, axis] += sign * step
            moved = dataclasses.replace(
                structure, positions=both[0], external=ExternalCharges(both[1], external.charges)
            )
            values.append(float(potential.atom_energies(moved).energies.sum()))
        slope = (values[1] - values[0]) / (2.0 * step)
        assert slope == pytest.approx(float((forces, outer)[side][atom, axis]), abs=1e-6 * largest)
    # Control: an energy in which vacuum charges meet the field lacks what they answer.
    frozen = potential.atom_energies(methanol(-2)).charges.detach()
    answered = potential.atom_energies(structure).charges.detach()
    assert float((frozen - answered).abs().max()) > 1e-2


def test_a_distant_charge_and_none():
    """k Q c/r far away; without charges, and with a charge of zero, it is the vacuum."""
    potential = field_potential(METHANOL)
    vacuum = float(potential.atom_energies(methanol(-2)).energies.sum())
    one = torch.ones(1, dtype=torch.float64)
    near = torch.tensor([[0.3, 0.0, 0.0]], dtype=torch.float64)
    silent = potential.atom_energies(methanol(-2, ExternalCharges(near, 0.0 * one)))
    assert float(silent.energies.sum()) == pytest.approx(vacuum, abs=1e-9)
    far = torch.tensor([[400.0, 0.0, 0.0]], dtype=torch.float64)
    shift = float(potential.atom_energies(methanol(-2, ExternalCharges(far, one))).energies.sum()) - vacuum
    assert shift == pytest.approx(-2.0 * COULOMB / 400.0, rel=1e-2)
    # Control: a charge beside it does more than that.
    shift = float(potential.atom_energies(methanol(-2, ExternalCharges(near, one))).energies.sum()) - vacuum
    assert abs(shift) > 10.0


def test_torchscript_gives_the_same_numbers():
    potential = field_potential(METHANOL)
    structure = methanol(-2)
    module = torch.jit.script(potential.scriptable(METHANOL, charge=-2))
    generator = torch.Generator().manual_seed(2)
    phi = 50.0 * torch.randn(6, dtype=torch.float64, generator=generator)
    slope = 100.0 * torch.randn(6, 3, dtype=torch.float64, generator=generator)
    bend = torch.zeros(6, 3, 3, dtype=torch.float64)
    positions = structure.positions.clone().requires_grad_(True)
    energies, charges, _, _ = module.in_potential(positions, None, phi, slope, bend)
    plain = potential.scriptable(METHANOL, charge=-2).in_potential(
        structure.positions, None, phi, slope, bend
    )
    assert torch.allclose(energies, plain[0], atol=1e-9)
    assert torch.allclose(charges, plain[1], atol=1e-12)
    (gradient,) = torch.autograd.grad(energies.sum(), positions)
    assert bool(torch.isfinite(gradient).all())
    vacuum = potential.atom_energies(structure).energies
    assert torch.allclose(module(structure.positions, None)[0], vacuum, atol=1e-9)


def test_single_precision_agrees():
    exact = field_potential(METHANOL).atom_energies(methanol(-2, charges_around(methanol()))).energies
    single = field_potential(METHANOL, precision="float32")
    found = single.atom_energies(methanol(-2, charges_around(methanol()))).energies
    assert float((found - exact).abs().max()) < 1e-2
    assert float((found - exact).abs().max()) > 0.0


def test_one_file_holds_all_of_it(tmp_path):
    parameters = field_parameters(METHANOL)
    file = tmp_path / "methanol.safetensors"
    save_field_ani(parameters, file, {"name": "methanol", "level_of_theory": "made up", "licence": "MIT"})
    potential = mlmm.load_potential(str(file), precision="float64")
    assert potential.spec.name == "methanol" and potential.spec.level_of_theory == "made up"
    structure = methanol(-2, charges_around(methanol()))
    found = potential.atom_energies(structure).energies
    expected = field_potential(METHANOL).atom_energies(structure).energies
    assert torch.equal(found, expected)
    broken = dataclasses.replace(parameters, constants={e: np.full(4, np.nan) for e in parameters.constants})
    save_field_ani(broken, file, {"name": "methanol"})
    with pytest.raises(PotentialError, match="finite weights"):
        mlmm.load_potential(str(file))
    with pytest.raises(PotentialError, match="Br"):
        potential.atom_energies(Structure(torch.tensor([35, 1]), torch.eye(3).double()[:2] * 0.2))
