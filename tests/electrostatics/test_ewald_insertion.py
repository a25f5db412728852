"""Flexible multipoles among fixed charges under PME: equal to OpenMM's sums, one energy, no jump."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from field_models import EquilibratedModule
from numpy.polynomial import legendre
from openmm import unit

from mlmm.electrostatics.boxes import box_widths, half_space
from mlmm.electrostatics.embedded_region import EmbeddedRegion
from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.electrostatics.prolate_splitting import prolate_function
from mlmm.errors import EmbeddingError
from mlmm.potentials.multipoles import multipole_energies
from mlmm.units import COULOMB

CUBIC = np.diag([2.6, 2.6, 2.6])
LEANING = np.array([[2.8, 0.0, 0.0], [0.6, 2.7, 0.0], [-0.7, 0.5, 2.9]])


def system_of(seed: int, cell: np.ndarray, n_region: int = 5, n_outside: int = 40):
    """A small region in the middle, charges around it; its own charges whole, the excess neutral."""
    generator = np.random.default_rng(seed)
    centre = 0.5 * cell.sum(0)
    region = centre + 0.15 * generator.standard_normal((n_region, 3))
    outside = generator.random((4 * n_outside, 3)) @ cell
    apart = np.linalg.norm(outside[:, None] - region[None], axis=2).min(1) > 0.25
    outside = outside[apart][:n_outside]
    charges = generator.standard_normal(len(outside))
    charges -= charges.mean()
    excess = 0.3 * generator.standard_normal(n_region)
    excess -= excess.mean()
    reference = generator.standard_normal(n_region)
    reference += (1.0 - reference.sum()) / n_region
    tensors = [torch.tensor(array) for array in (region, outside, charges, reference, reference + excess)]
    return [*tensors, torch.tensor(cell)]


def no_dipoles(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(n, 3, dtype=torch.float64), torch.zeros(n, 3, 3, dtype=torch.float64)


def openmm_energy(positions: np.ndarray, charges: np.ndarray, cell: np.ndarray) -> float:
    """All pairs of all images by OpenMM's PME on the Reference platform."""
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*cell)
    for charge in charges:
        system.addParticle(1.0)
        force.addParticle(charge, 1.0, 0.0)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    cutoff = 0.49 * float(box_widths(torch.tensor(cell)).min())
    force.setCutoffDistance(cutoff)
    force.setPMEParameters(4.5 / cutoff, 120, 120, 120)
    system.addForce(force)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


@pytest.mark.parametrize("cell", [CUBIC, LEANING], ids=["cube", "leaning"])
def test_charges_among_charges_are_openmms_ewald_sum(cell):
    """E(excess + c) − E(excess) − E(c) of three systems; with another potential it is not that."""
    region, outside, charges, reference, flexible, box = system_of(1, cell)
    insertion = EwaldInsertion(reference, charges, box, tolerance=1e-8)
    insertion.images = False
    found = insertion(region, outside, flexible, *no_dipoles(5), box).sum()
    where = np.concatenate([region.numpy(), outside.numpy()])
    excess, around = (flexible - reference).numpy(), charges.numpy()
    nothing = (np.zeros_like(excess), np.zeros_like(around))
    exact = openmm_energy(where, np.concatenate([excess, around]), cell)
    exact -= openmm_energy(where, np.concatenate([excess, nothing[1]]), cell)
    exact -= openmm_energy(where, np.concatenate([nothing[0], around]), cell)
    assert float(found) == pytest.approx(exact, abs=1e-6 * max(1.0, abs(exact)))
    # Control: the plain sum over shortest images is another number.
    vectors = torch.tensor(outside.numpy()[None] - region.numpy()[:, None])
    plain = COULOMB * ((flexible - reference) @ (charges / vectors.norm(dim=2)).sum(1))
    assert abs(float(plain) - exact) > 1.0


@pytest.mark.parametrize("cell", [CUBIC, LEANING], ids=["cube", "leaning"])
def test_dipoles_and_quadrupoles_are_limits_of_charges(cell):
    """mu·grad and Q:grad grad of the potential, by central differences of a charge that is moved."""
    region, outside, charges, reference, _, box = system_of(2, cell)
    insertion = EwaldInsertion(reference, charges, box, tolerance=1e-9)
    insertion.images = False
    unit_charge = reference + torch.eye(5, dtype=torch.float64)[0]

    def potential(shift: torch.Tensor) -> float:
        moved = region.clone()
        moved[0] = moved[0] + shift
        return float(insertion(moved, outside, unit_charge, *no_dipoles(5), box)[0])

    step = 1e-3
    generator = torch.Generator().manual_seed(1)
    mu = torch.randn(3, generator=generator, dtype=torch.float64)
    q = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    q = 0.5 * (q + q.T)
    q = q - torch.eye(3) * q.trace() / 3
    slope = (potential(step * mu) - potential(-step * mu)) / (2 * step)
    eigenvalues, axes = torch.linalg.eigh(q)
    curvature = sum(
        float(value) * (potential(step * axis) - 2 * potential(0 * axis) + potential(-step * axis)) / step**2
        for value, axis in zip(eigenvalues, axes.T, strict=True)
    )
    dipoles, quadrupoles = no_dipoles(5)
    dipoles[0], quadrupoles[0] = mu, q
    first = float(insertion(region, outside, reference, dipoles, no_dipoles(5)[1], box)[0])
    second = float(insertion(region, outside, reference, no_dipoles(5)[0], quadrupoles, box)[0])
    assert first == pytest.approx(slope, rel=1e-4)
    assert second == pytest.approx(curvature, rel=1e-3)


def test_splitting_and_cutoff_do_not_matter():
    region, outside, charges, reference, flexible, box = system_of(3, LEANING)
    generator = torch.Generator().manual_seed(3)
    dipoles = 0.01 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    quadrupoles = no_dipoles(5)[1]
    found = [
        float(
            EwaldInsertion(reference, charges, box, tolerance, cutoff)(
                region, outside, flexible, dipoles, quadrupoles, box
            ).sum()
        )
        for tolerance, cutoff in ((1e-9, 1.2), (1e-9, 0.9), (1e-7, 1.2), (1e-4, 1.2))
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert found[2] == pytest.approx(found[0], abs=1e-4)
    assert 1e-6 < abs(found[3] - found[0]) < 0.3


def test_images_of_atoms_and_a_shift_of_all_change_nothing():
    region, outside, charges, reference, flexible, box = system_of(4, CUBIC)
    insertion = EwaldInsertion(reference, charges, box)
    arguments = (flexible, *no_dipoles(5), box)
    whole = float(insertion(region, outside, *arguments).sum())
    wrapped = outside + torch.tensor(np.random.default_rng(0).integers(-1, 2, outside.shape)).double() @ box
    assert float(insertion(region, wrapped, *arguments).sum()) == pytest.approx(whole, abs=1e-9)
    shift = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    assert float(insertion(region + shift, outside + shift, *arguments).sum()) == pytest.approx(
        whole, abs=1e-9
    )
    assert abs(float(insertion(region + shift, outside, *arguments).sum()) - whole) > 0.1


def test_energy_has_no_step_where_a_charge_crosses_the_cutoff():
    """Second differences across r_c are those of a smooth function; a bare end would leave a step."""
    region, outside, charges, reference, flexible, box = system_of(5, CUBIC)
    insertion = EwaldInsertion(reference, charges, box, tolerance=1e-3)
    direction, cutoff = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64), insertion.cutoff(box)

    def energies(taper: float) -> np.ndarray:
        insertion.taper = taper
        values = []
        for distance in np.arange(cutoff - 2e-4, cutoff + 2e-4, 1e-5):
            moved = outside.clone()
            moved[0] = region[0] + distance * direction
            values.append(float(insertion(region, moved, flexible, *no_dipoles(5), box).sum()))
        return np.array(values)

    smooth, cut = np.abs(np.diff(energies(0.9), 2)).max(), np.abs(np.diff(energies(1 - 1e-9), 2)).max()
    assert smooth < 1e-7 and cut > 100 * smooth


def test_reference_charges_drop_out_up_to_the_images():
    """PME with q0 and insertion of q − q0 is one energy for any q0 of the same sum, to leading order."""
    region, outside, charges, reference, flexible, box = system_of(6, CUBIC)
    where, n = np.concatenate([region.numpy(), outside.numpy()]), len(reference)

    def spread(images: bool) -> float:
        totals = []
        for q0 in (reference, torch.full((n,), 1.0 / n, dtype=torch.float64)):
            insertion = EwaldInsertion(q0, charges, box, tolerance=1e-8)
            insertion.images = images
            added = float(insertion(region, outside, flexible, *no_dipoles(n), box).sum())
            fixed = openmm_energy(where, np.concatenate([q0.numpy(), charges.numpy()]), CUBIC)
            distances = (region.unsqueeze(0) - region.unsqueeze(1)).norm(dim=2)
            inside = torch.outer(q0, q0) / (distances + torch.eye(n))
            inside = 0.5 * COULOMB * float(inside.sum() - inside.diagonal().sum())
            totals.append(added + fixed - inside)
        return abs(totals[0] - totals[1])

    assert spread(True) < 0.1 * spread(False)
    assert spread(False) > 0.1


def test_bad_settings_are_refused():
    _, _, charges, reference, _, box = system_of(7, CUBIC)
    with pytest.raises(EmbeddingError, match="half of the box"):
        EwaldInsertion(reference, charges, box, cutoff=1.4)
    with pytest.raises(EmbeddingError, match="tolerance"):
        EwaldInsertion(reference, charges, box, tolerance=0.5)
    for width in (-0.01, 0.2, float("nan")):
        with pytest.raises(EmbeddingError, match="Gaussian charges"):
            EwaldInsertion(reference, charges, box, width=width)


def test_a_box_that_shrinks_below_the_range_of_polarisation_is_refused():
    region, outside, charges, reference, _, box = system_of(13, CUBIC)
    module = EmbeddedRegion(Springs(), range(5), torch.cat([reference, charges]).numpy(), 0.8, 1, box)
    positions = torch.cat([region, outside])
    assert bool(torch.isfinite(module(positions, box)))
    with pytest.raises(ValueError, match=r"at least 1.6 nm wide.*got 1.56"):
        module(positions, 0.6 * box)


def expected_error(insertion: EwaldInsertion, region, outside, excess, box) -> float:
    """Standard deviation of the error over all signs of the charges around, by the terms that are left out.

    The potential of the region that is missing at a charge around: what the taper takes of pairs, and all
    waves beyond c/r_c, whose weights are the cosine transform of psi_0. For independent signs, the variance
    of E is K² times the sum of squares of charge and missing potential.
    """
    cutoff = insertion.cutoff(box)
    psi = prolate_function(insertion.bandwidth)
    integral = legendre.legint(psi, lbnd=0.0)
    whole = legendre.legval(1.0, integral)
    shifts = torch.cartesian_prod(*[torch.arange(-2, 3, dtype=torch.float64)] * 3) @ box
    distance = (outside.reshape(1, -1, 1, 3) - region.reshape(-1, 1, 1, 3) + shifts).norm(dim=3)
    near = (distance / cutoff).clamp(max=1.0)
    t = ((near - insertion.taper) / (1.0 - insertion.taper)).clamp(min=0.0)
    left = 1.0 - torch.tensor(legendre.legval(near.numpy(), integral)) / whole
    missing = excess @ (left / distance * (t**3 * (10.0 - t * (15.0 - 6.0 * t)))).sum(2)
    most = insertion.bandwidth / cutoff
    k = 2.0 * np.pi * half_space(box, 2.0 * most) @ torch.linalg.inv(box).t()
    square = k.square().sum(1)
    k, square = k[square > most**2], square[square > most**2]
    node, weight = legendre.leggauss(100)
    density = 0.5 * weight * legendre.legval(node, psi) / whole
    transform = torch.tensor(np.cos(np.multiply.outer(square.sqrt().numpy() * cutoff, node)) @ density)
    weights = 8.0 * np.pi / torch.linalg.det(box) * transform / square
    own = excess.to(torch.complex128) @ torch.exp(1j * (region @ k.t()))
    missing = missing + ((own * weights).conj() * torch.exp(1j * (outside @ k.t()))).real.sum(1)
    return COULOMB * float((insertion.external * missing).norm())


@pytest.mark.parametrize("factors", [[0.7, 0.7, 0.7], [1.1, 0.9, 0.8], [1.0, 1.0, 0.75]])
@pytest.mark.parametrize("cell", [CUBIC, LEANING], ids=["cube", "leaning"])
def test_the_sum_follows_a_box_that_is_scaled(cell, factors):
    """As a barostat does it, one axis or all: the error in the new box is that of the terms left out."""
    region, outside, charges, reference, flexible, box = system_of(10, cell)
    insertion = EwaldInsertion(reference, charges, box)
    insertion.images = False
    scale = torch.tensor(factors, dtype=torch.float64)
    new, moved = box * scale, region + region.mean(0) * (scale - 1.0)
    arguments = (moved, outside * scale, flexible, *no_dipoles(5), new)
    converged = EwaldInsertion(reference, charges, new, tolerance=1e-9)
    converged.images = False
    exact = float(converged(*arguments).sum())
    assert insertion.cutoff(new) <= 0.5 * float(box_widths(new).min())
    error = expected_error(insertion, moved, outside * scale, flexible - reference, new)
    assert abs(float(insertion(*arguments).sum()) - exact) < 4.0 * error < 0.2
    # Controls: in the old box it is another energy; so it is with the waves of the old box, one axis scaled.
    assert abs(float(insertion(*arguments[:-1], box).sum() - exact)) > 1.0
    if cell is CUBIC and len(set(factors)) > 1:
        insertion.built = new
        assert abs(float(insertion(*arguments).sum()) - exact) > 6.0 * error


def test_strain_of_the_energy_is_the_slope_that_a_barostat_meets(monkeypatch):
    """dE/dL of box and positions scaled together: central differences against the gradient by the box."""
    region, outside, charges, reference, flexible, box = system_of(11, LEANING)
    compiled = EwaldInsertion(reference, charges, box, tolerance=1e-9)
    monkeypatch.setenv("MLMM_KERNEL", "torch")
    in_torch = EwaldInsertion(reference, charges, box, tolerance=1e-9)
    dipoles, quadrupoles = no_dipoles(5)
    dipoles = dipoles + 0.02

    def energy(insertion: EwaldInsertion, scale: torch.Tensor) -> torch.Tensor:
        x = region + region.mean(0) * (scale - 1.0)
        return insertion(x, outside * scale, flexible, dipoles, quadrupoles, box * scale).sum()

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(in_torch, scale), scale)
    step = 1e-4
    scales = [torch.tensor(1.0 + sign * step, dtype=torch.float64) for sign in (1, -1)]
    found = [float(energy(compiled, moved)) for moved in scales]
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(float(slope), rel=1e-6)
    # Control: positions alone have another slope.
    x = (region + region.mean(0) * (scale - 1.0), outside * scale)
    (wrong,) = torch.autograd.grad(in_torch(*x, flexible, dipoles, quadrupoles, box).sum(), scale)
    assert abs(float(wrong - slope)) > 0.01 * abs(float(slope))


def test_gaussian_charges_are_points_beyond_a_bond_and_finite_on_top():
    """Energy and force of a charge that is drawn onto an atom, with K q0 c/r of the force field."""
    _, _, _, reference, flexible, box = system_of(12, CUBIC)
    region = torch.tensor(np.random.default_rng(12).standard_normal((5, 3)) * 0.15 + 1.3)
    one = torch.tensor([0.5], dtype=torch.float64)
    dipoles, quadrupoles = no_dipoles(5)
    dipoles[0, 0], quadrupoles[0, 0, 0], quadrupoles[0, 1, 1] = 0.02, 0.003, -0.003

    def whole(width: float, distance: float) -> tuple[float, float]:
        source = region[:1] + distance * torch.tensor([[0.36, 0.48, 0.8]]).double()
        source.requires_grad_(True)
        insertion = EwaldInsertion(reference, one, box, width=width)
        energy = insertion(region, source, flexible, dipoles, quadrupoles, box)[0]
        energy = energy + COULOMB * reference[0] * one[0] / (source - region[0]).norm()
        (gradient,) = torch.autograd.grad(energy, source)
        return float(energy.detach()), float(gradient.norm())

    near = [whole(0.03, distance) for distance in (0.02, 0.01, 1e-3, 1e-4, 1e-5)]
    assert max(abs(energy) for energy, _ in near) < 2e4 and max(force for _, force in near) < 1e6
    assert near[-1][0] == pytest.approx(near[-2][0], abs=2.0)
    assert abs(whole(0.0, 1e-4)[0]) > 50 * max(abs(energy) for energy, _ in near)
    # The charge is whole: beyond 8.5 widths no digit differs, at a hydrogen bond hardly one.
    assert whole(0.03, 0.27) == pytest.approx(whole(0.0, 0.27), rel=1e-12)
    assert whole(0.03, 0.16)[0] == pytest.approx(whole(0.0, 0.16)[0], rel=1e-5)


class Springs(torch.nn.Module):
    """Charges and dipoles that answer to the field, with an energy that is known."""

    def in_field(self, positions, cell, external_positions, external_charges, charge_width):
        d = positions - positions.mean(0)
        charges = 0.2 * (d[:, 0] - d[:, 0].mean())
        return (
            d.square().sum(1).unsqueeze(0),
            charges + 1.0 / len(d),
            0.05 * d,
            0.0 * d.unsqueeze(2) * d.unsqueeze(1),
        )


@pytest.mark.parametrize("takes", ["charges", "potential"])
@pytest.mark.parametrize("cell", [None, CUBIC, LEANING], ids=["open", "cube", "leaning"])
def test_forces_of_an_embedded_region_are_gradients(cell, takes):
    """Of multipoles that charges around induce, and of charges that a model finds in the potential."""
    region, outside, charges, reference, _, box = system_of(8, CUBIC if cell is None else cell)
    positions = torch.cat([outside[:10], region, outside[10:]])
    atoms = list(range(10, 15))
    every = torch.cat([charges[:10], reference, charges[10:]])
    model, reach = (Springs(), 0.8) if takes == "charges" else (EquilibratedModule([1, 6, 8, 1, 1], 1), 0.0)
    module = EmbeddedRegion(model, atoms, every.numpy(), reach, 1, None if cell is None else box)
    cellular = None if cell is None else box
    x = positions.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(x, cellular), x)
    assert float(gradient.sum(0).abs().max()) < 1e-9 * float(gradient.abs().max())
    for atom, axis in ((11, 0), (13, 2), (0, 1), (30, 2)):
        values = []
        for sign in (1, -1):
            moved = positions.clone()
            moved[atom, axis] += sign * 1e-5
            values.append(float(module(moved, cellular)))
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(float(gradient[atom, axis]), abs=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize("far_field", ["ewald", "reaction_field"])
def test_torchscript_loses_no_gradient(far_field, monkeypatch):
    """Compiled without the kernel, as on a GPU: forces of the eager module, call after call."""
    monkeypatch.setenv("MLMM_KERNEL", "torch")
    region, outside, charges, reference, _, box = system_of(15, CUBIC)
    every, positions = torch.cat([reference, charges]).numpy(), torch.cat([region, outside])
    model = EquilibratedModule([1, 6, 8, 1, 1], 1)
    module = EmbeddedRegion(model, range(5), every, 0.0, 1, box, far_field=far_field)
    forces = []
    for call in (module, *[torch.jit.script(module)] * 3):
        x = positions.clone().requires_grad_(True)
        forces.append(torch.autograd.grad(call(x, box), x)[0])
    for other in forces[1:]:
        assert float((other - forces[0]).abs().max()) < 1e-9 * float(forces[0].abs().max())


def test_a_model_that_takes_the_potential_sees_what_one_with_its_charges_sees():
    """The energy of equilibrated charges is that of the same charges held, and the price of moving them."""
    region, outside, charges, reference, _, box = system_of(14, CUBIC)
    model = EquilibratedModule([1, 6, 8, 1, 1], 1)
    every = torch.cat([reference, charges]).numpy()
    module = EmbeddedRegion(model, range(5), every, 0.0, 1, box)
    found = module(torch.cat([region, outside]), box)
    _, *around = module.insertion.potentials(region, outside, box)
    energies, q, dipoles, quadrupoles = model.in_potential(region, box, *around)
    within = energies[0] - multipole_energies(q, dipoles, quadrupoles, *around)
    outer = module.insertion(region, outside, q, dipoles, quadrupoles, box)
    assert float(found) == pytest.approx(float((within + outer).sum()), abs=1e-8)
    # Control: in half of the potential it has other charges.
    other = model.in_potential(region, box, *(0.5 * part for part in around))[1]
    assert float((q - other).abs().max()) > 0.01


def test_charge_of_the_region_and_its_fixed_charges_belong_together():
    _, _, charges, reference, _, box = system_of(9, CUBIC)
    with pytest.raises(EmbeddingError, match="add up to its charge"):
        EmbeddedRegion(Springs(), range(5), torch.cat([reference, charges]).numpy(), 0.8, 0, box)
