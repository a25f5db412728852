"""Charges of the region: neutral, conservative, exact in the limit; what is fixed at set-up is PME's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import tolerances
import torch
from charged_models import charges_of, first_molecule, quick, small, state_of
from energy_noise import energy_noise
from scipy.spatial.transform import Rotation
from toys import ChargedContacts, PlainSprings, energy_and_forces, random_zones, zones_with

from mlmm.electrostatics.predicted_charges import ChargeCorrection
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.system import hybrid_system
from mlmm.units import COULOMB
from mlmm.validation.check import check_energy, finite_difference_error
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import molecules_of, region_from_atoms
from mlmm.zones.static import hard_zones


@pytest.mark.parametrize("seed", range(4))
def test_total_charge_stays_whole_for_random_lambda(seed):
    """sum(q^0 + d) = 0 to 1e-10 e for any lambda, although the zone's own predicted charges do not add up."""
    built = quick(n_molecules=3, n_atoms=5, seed=seed)
    zones = random_zones(built, 9, seed)
    potential = ChargedContacts(charges_of(built), flow=0.1)
    hybrid = hybrid_system(
        built, zones, potential, scheme="per_atom", electrostatics="charges", charge_range=1.2
    )
    d, atoms, weights, _ = state_of(hybrid)
    assert abs(charges_of(hybrid.built).sum() + d.sum()) < 1e-10
    everything = potential.charges(torch.tensor(built.positions), torch.tensor(built.box_vectors)).numpy()
    assert abs((weights * (everything - charges_of(built))[atoms]).sum()) > 1e-4
    assert np.abs(d).max() > 1e-3


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
@pytest.mark.parametrize("box", [None, 3.0])
def test_forces_are_the_gradient_with_that_of_the_charges(scheme, box):
    """Central differences of the whole energy, dq/dR included (V17); without it they fail by far."""
    right = small(scheme, box)
    assert abs(state_of(right)[3]) > 0.05
    assert finite_difference_error(right) < tolerances.FINITE_DIFFERENCE
    wrong = small(scheme, box, attached=False)
    assert finite_difference_error(wrong) > 1e-5


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_charges_of_the_force_field_change_no_bit(scheme):
    """d = 0 is mechanical embedding: energy and forces to the last bit."""
    with_charges = small(scheme, flow=0.0)
    without = small(scheme, flow=0.0, electrostatics="mechanical", bridge="pythonforce")
    energy, forces = energy_and_forces(with_charges.system, with_charges.built.positions)
    expected, same = energy_and_forces(without.system, with_charges.built.positions)
    assert energy == expected
    assert np.array_equal(forces, same)


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_truncation_error_falls_with_the_third_power_of_the_range(scheme):
    """Against E[q^0 + d] − E[q^0] by OpenMM with changed charges, full lattice sums.

    The charges of one geometry, written into OpenMM as reference charges, are that difference. What is left
    out is the energy of two neutral distributions smeared over r_q: to leading order −(35/8) K p·mu/r_q³ with
    the dipoles p of d and mu of all that acts on it. The exponent is that of the root mean square over four
    pairs of chains.
    """
    ranges = (4.0, 5.5, 7.5, 10.0)
    errors, without_own, sizes, leading = [], [], [], []
    for seed in (1, 5, 7, 8):
        built = quick(1e-9, n_molecules=2, n_atoms=4, box=60.0, cutoff=10.0, seed=seed)
        zones, own = first_molecule(built, 4), charges_of(built)
        potential = ChargedContacts(own[:4] if scheme == "additive" else own, 0.2)
        seen = torch.tensor(built.positions[: len(potential.own)])
        predicted = potential.charges(seen, torch.tensor(built.box_vectors)).numpy()[:4]
        written, mechanical = (
            hybrid_system(built, zones, potential, scheme=scheme, charges=charges)
            for charges in (predicted, None)
        )
        expected = (
            energy_and_forces(written.system, built.positions)[0]
            - energy_and_forces(mechanical.system, built.positions)[0]
        )
        sizes.append(expected)
        for charge_range in ranges:
            hybrid = hybrid_system(
                built, zones, potential, scheme=scheme, electrostatics="charges", charge_range=charge_range
            )
            d, atoms, _, correction = state_of(hybrid)
            errors.append(correction - expected)
            own_tail = COULOMB * 35 / (16 * charge_range) * (d * (own[atoms] + d / 2)).sum()
            without_own.append(errors[-1] + own_tail)
        dipole = d @ built.positions[atoms]
        acting = own[4:] @ built.positions[4:]
        if scheme == "per_atom":
            acting = own @ built.positions + dipole / 2
        leading.append(-35 / 8 * COULOMB * dipole @ acting)
    errors, without_own = (np.reshape(values, (4, 4)) for values in (errors, without_own))
    assert np.abs(errors[:, -1]).max() < 1e-3 * np.abs(sizes).max()
    np.testing.assert_allclose(errors[:, -1] * ranges[-1] ** 3, leading, atol=0.05 * np.abs(leading).max())

    def exponent(values) -> float:
        return float(np.polyfit(np.log(ranges), 0.5 * np.log((values**2).mean(axis=0)), 1)[0])

    assert exponent(errors) == pytest.approx(-3.0, abs=0.15)
    if scheme == "per_atom":
        # Negative control: without the tail of an atom with itself the error is of first order.
        assert exponent(without_own) == pytest.approx(-1.0, abs=0.1)


def test_kernel_ends_with_two_derivatives():
    """k, k' and k'' vanish at r_q, also for a pair that the model owns in part."""
    correction = ChargeCorrection(
        np.zeros(2),
        np.zeros((0, 2), dtype=np.int64),
        np.zeros(0),
        np.ones(2, bool),
        rule="share",
        charge_range=1.1,
        switching_end=0.5,
    )
    r = torch.tensor([1.1 - 1e-6, 0.3, 0.5 - 1e-6, 0.5 + 1e-6], dtype=torch.float64, requires_grad=True)
    value = correction.kernel(r, torch.ones(4, dtype=torch.float64), torch.full((4,), 0.6))
    slope = torch.autograd.grad(value.sum(), r, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), r)[0]
    for derivative in (value, slope, curvature):
        derivative = derivative.detach().numpy()
        assert abs(derivative[0]) < 1e-5 * abs(derivative[1])
        # And nothing happens where the switching function ends.
        assert derivative[2] == pytest.approx(derivative[3], rel=1e-4)


def smooth_tail(r: float, end: float) -> float:
    """T(r): 1/r beyond the end, a polynomial inside."""
    if r >= end:
        return 1 / r
    p = r / end
    return (35 - 35 * p**2 + 21 * p**4 - 5 * p**6) / (16 * end)


@pytest.mark.parametrize(("scheme", "tail"), [("additive", False), ("additive", True), ("per_atom", False)])
def test_energy_by_a_double_loop_over_pairs(scheme, tail):
    """sum d_i q_j k_ij + sum_pairs d_i d_j k_ij with exclusions and 1-4 factors, pair by pair."""
    options = {"mm_tail": True} if tail else {}
    hybrid = small(scheme, **options)
    built = hybrid.built
    d, atoms, weights, energy = state_of(hybrid)
    force = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    charge = [force.getParticleParameters(i)[0]._value for i in range(built.n_atoms)]
    factor = {}
    for i in range(force.getNumExceptions()):
        a, b, product, *_ = force.getExceptionParameters(i)
        factor[min(a, b), max(a, b)] = product._value / (charge[a] * charge[b])
    assert {round(value, 4) for value in factor.values()} == {0.0, 0.8333}
    change, lam = np.zeros(built.n_atoms), np.zeros(built.n_atoms)
    change[atoms], lam[atoms] = d, weights
    box, end, own_range = np.diag(built.box_vectors), hybrid.spec.charge_range, hybrid.potential.spec.cutoff
    inside_counts = scheme == "per_atom" or tail
    total = 0.0
    for a in range(built.n_atoms):
        if inside_counts and lam[a] > 0:
            total -= COULOMB * smooth_tail(0, end) * change[a] * (charge[a] + change[a] / 2)
        for b in range(a + 1, built.n_atoms):
            vector = built.positions[a] - built.positions[b]
            r = np.linalg.norm(vector - np.round(vector / box) * box)
            both = lam[a] > 0 and lam[b] > 0
            if (both and not inside_counts) or r >= end:
                continue
            s = factor.get((a, b), 1.0)
            w = (lam[a] + lam[b]) / 2 if scheme == "per_atom" else min(lam[a], lam[b])
            kernel = s / r - smooth_tail(r, end) - w * s * (1 / r - smooth_tail(r, own_range))
            products = change[a] * charge[b] + charge[a] * change[b] + change[a] * change[b]
            total += COULOMB * kernel * products
    assert abs(total) > 0.05
    assert energy == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_translation_rotation_and_momentum(scheme):
    hybrid = small(scheme, box=None)
    _, _, _, energy = state_of(hybrid)
    turn = Rotation.from_rotvec([0.3, -1.0, 0.7]).as_matrix()
    moved = hybrid.built.positions @ turn.T + np.array([0.3, -2.0, 5.0])
    assert state_of(hybrid, moved)[3] == pytest.approx(energy, abs=1e-10)
    group = 1 << hybrid.force_groups["ml"]
    _, forces = energy_and_forces(hybrid.system, hybrid.built.positions, groups=group)
    assert np.abs(forces.sum(axis=0)).max() < 1e-9
    assert np.abs(forces).max() > 10


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_moving_molecules_by_box_vectors_changes_nothing(scheme):
    hybrid = small(scheme)
    built, group = hybrid.built, 1 << hybrid.force_groups["ml"]
    generator = np.random.default_rng(7)
    moved = np.array(built.positions)
    for molecule in molecules_of(built.topology):
        moved[list(molecule)] += generator.integers(-2, 3, 3) @ built.box_vectors
    before, forces = energy_and_forces(hybrid.system, built.positions, groups=group)
    after, other = energy_and_forces(hybrid.system, moved, groups=group)
    assert after == pytest.approx(before, abs=tolerances.IMAGES)
    assert np.abs(forces - other).max() < 1e-8


@pytest.mark.parametrize("scheme", ["per_atom", pytest.param("additive", marks=pytest.mark.slow)])
def test_energy_error_is_of_second_order(scheme):
    """NVE through the end of the charges' range: halving the step quarters the error of the energy."""
    hybrid = small(scheme, charge_range=0.6, n_molecules=2, n_zone=5)
    coarse, fine = (
        energy_noise(hybrid.system, hybrid.built.positions, step, 0.2) for step in (0.001, 0.0005)
    )
    assert coarse / fine == pytest.approx(4.0, abs=0.8)


def test_a_capped_region(dipeptide_vacuum):
    """A cap's charge goes to the atoms of the region; exclusions hold across the cuts; forces are right."""
    built = dipeptide_vacuum
    zones = hard_zones(built, region_from_atoms(built.topology, range(6, 16), "atoms"))
    own = charges_of(built)[6:16]
    potential = ChargedContacts([*own, 0.1, -0.1], 0.03)
    hybrid = hybrid_system(built, zones, potential, scheme="additive", electrostatics="charges")
    d, atoms, _, energy = state_of(hybrid)
    assert atoms.tolist() == list(range(6, 16))
    assert abs(d.sum()) < 1e-15 and abs(energy) > 0.1
    force = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    charge = charges_of(built)
    factor = {}
    for i in range(force.getNumExceptions()):
        a, b, product, *_ = force.getExceptionParameters(i)
        factor[min(a, b), max(a, b)] = product._value / (charge[a] * charge[b])
    total = 0.0
    for change, a in zip(d, atoms.tolist(), strict=True):
        for b in set(range(22)).difference(range(6, 16)):
            r = np.linalg.norm(built.positions[a] - built.positions[b])
            total += COULOMB * factor.get((min(a, b), max(a, b)), 1.0) * change * charge[b] / r
    assert energy == pytest.approx(total, abs=1e-9)
    assert finite_difference_error(hybrid) < tolerances.FINITE_DIFFERENCE


def test_checks_account_for_the_energy_of_the_charges():
    """Energy by its parts, finite differences and images of `mlmm check`; the correction is no small part."""
    hybrid = small("per_atom")
    report = check_energy(hybrid)
    names = [result.name for result in report.results]
    assert "energy counted twice or lost" in names and "TorchForce vs PythonForce" not in names
    assert all(result.passed for result in report.results)
    assert abs(state_of(hybrid)[3]) > 0.1


@pytest.fixture(scope="module")
def moving():
    """A zone that molecules of one chain kind enter, its first chain the core."""
    built = quick(n_molecules=4, n_atoms=3, seed=6, cutoff=1.4)
    for residue in built.topology.residues():
        residue.name = "CHN"
    region = region_from_atoms(built.topology, range(3), "molecule")
    zones = adaptive_zones(built, region, "0.3 nm", "0.9 nm", molecules=("CHN",), walls=None)
    return built, zones


def moving_hybrid(moving, attached=True, **options):
    built, zones = moving
    potential = ChargedContacts(charges_of(built), 0.1, attached)
    levels = {"electrostatics": "charges", "charge_range": 1.0} | options
    nothing = Compensation({"CHN": 0.0})
    return hybrid_system(built, zones, potential, scheme="per_atom", compensation=nothing, **levels)


def test_an_adaptive_zone(moving):
    """Neutral for lambda(r), forces of lambda and of q included, nothing where the charges are q^0."""
    hybrid = moving_hybrid(moving)
    d, atoms, weights, energy = state_of(hybrid)
    assert ((weights > 0) & (weights < 1)).any() and len(atoms) > 3
    assert abs(charges_of(hybrid.built).sum() + d.sum()) < 1e-10
    assert abs(energy) > 1e-2
    assert finite_difference_error(hybrid) < tolerances.FINITE_DIFFERENCE
    assert finite_difference_error(moving_hybrid(moving, attached=False)) > 1e-5
    hybrid.blend.blend.weight_forces = False
    assert finite_difference_error(hybrid) > 1e-5


def test_an_adaptive_zone_with_reference_charges(moving):
    """On the core alone, which is the zone's for good."""
    built, _ = moving
    wanted = charges_of(built)[:3] + np.array([0.05, -0.08, 0.03])
    hybrid = moving_hybrid(moving, electrostatics="mechanical", charges=wanted)
    np.testing.assert_allclose(charges_of(hybrid.built)[:3], wanted, atol=1e-14)
    assert np.array_equal(charges_of(hybrid.built)[3:], charges_of(built)[3:])


def test_impossible_charges_are_rejected(moving):
    built = quick(n_molecules=3, n_atoms=5, seed=2)
    zones, own = first_molecule(built, 5), charges_of(built)
    charged = ChargedContacts(own[:5])

    def made(potential=charged, scheme="additive", **options):
        return hybrid_system(built, zones, potential, scheme=scheme, **options)

    with pytest.raises(PotentialError, match="plain springs, which predicts none"):
        made(PlainSprings(), electrostatics="charges")
    with pytest.raises(PotentialError, match="plain springs, which predicts none"):
        made(PlainSprings(), charges="model")
    with pytest.raises(ConfigError, match="a TorchForce gets energies alone"):
        made(electrostatics="charges", bridge="torchforce")
    with pytest.raises(ConfigError, match=r"add up to \+0\.00 e.*, but got \+1\.00 e of charged contacts"):
        made(ChargedContacts(own[:5] + 0.2), electrostatics="charges")
    with pytest.raises(ConfigError, match=r"got \+1\.00 e of the given ones"):
        made(charges=own[:5] + 0.2)
    with pytest.raises(ConfigError, match=r"electrostatics = mechanical \| charges"):
        made(electrostatics="magic")
    with pytest.raises(EmbeddingError, match=r"'per_atom' or 'additive' .*got scheme 'supermolecular'"):
        made(ChargedContacts(own), scheme="supermolecular", electrostatics="charges")
    with pytest.raises(EmbeddingError, match=r"a box at least 3\.20 nm wide"):
        made(electrostatics="charges", charge_range="16 angstrom")
    with pytest.raises(ConfigError, match=r"charge_range of at least 0\.4 nm"):
        made(electrostatics="charges", charge_range=0.3)
    with pytest.raises(ConfigError, match=r"atoms with lambda > 0, but got charges of CH1"):
        made(charges={0: 0.1, 7: -0.1})
    with pytest.raises(ConfigError, match="one charge for each of the 5 atoms"):
        made(charges=[0.1, -0.1])
    with pytest.raises(ConfigError, match='charges as values, or "model"'):
        made(charges="better")


def test_bridge_is_chosen_and_the_level_described():
    from mlmm.config.objects import describe
    from mlmm.dynamics.records import embedding_facts

    hybrid = small("additive")
    assert hybrid.bridge == "pythonforce"
    assert "charges predicted by charged contacts on top, within 1 nm" in describe(hybrid)
    assert embedding_facts(hybrid)["electrostatics"] == "charges"
    fixed = small("additive", electrostatics="mechanical", charges="model")
    assert "fixed reference charges on 5 atoms" in describe(fixed)
    assert len(embedding_facts(fixed)["reference_charges"]) == 5
    plain = dataclasses.replace(fixed.spec, reference_charges={})
    assert "fixed charges of the force field" in describe(dataclasses.replace(fixed, spec=plain))


def test_zones_with_any_weight_agree_with_their_hard_limit():
    """lambda = 1 on one molecule as a hard zone and as given weights: the same correction."""
    built = quick(n_molecules=3, n_atoms=5, seed=2)
    energies = []
    for zones in (first_molecule(built, 5), zones_with(built, dict.fromkeys(range(5), 1.0))):
        potential = ChargedContacts(charges_of(built))
        options = {"scheme": "per_atom", "electrostatics": "charges"}
        energies += [
            state_of(hybrid_system(built, zones, potential, **options).reassembled(mm_side=mm_side))[3]
            for mm_side in ("openmm", "torch")
        ]
    assert max(energies) - min(energies) < 1e-10
