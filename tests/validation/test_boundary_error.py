"""Scheme `per_atom` near a boundary: errors of the forces on the region, and what the pairs leave behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ForceFieldPotential, chains, energy_and_forces, random_zones, toy_spec, zones_with

from mlmm.blending.functions import switching_function
from mlmm.dynamics.lambda_histogram import lambda_histogram
from mlmm.errors import EmbeddingError
from mlmm.hybrid.spec import SWITCHING_START, visible_atoms
from mlmm.hybrid.system import hybrid_system
from mlmm.units import COULOMB
from mlmm.validation.boundary_error import Surroundings, boundary_error
from mlmm.validation.scan_zones import draw_frames
from mlmm.validation.zone_checks import check_zones, tail_force
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones


def force_with_the_model_everywhere(built, potential) -> np.ndarray:
    zones = zones_with(built, dict.fromkeys(range(built.n_atoms), 1.0))
    hybrid = hybrid_system(built, zones, potential, scheme="per_atom", bridge="pythonforce")
    return energy_and_forces(hybrid.create_system(mm_side="torch"), built.positions)[1]


@pytest.mark.parametrize("plateau", ["0.0 nm", "0.15 nm", "0.3 nm"])
def test_boundary_error_is_the_difference_to_the_model_everywhere(dipeptide_water, ani1x, plateau):
    """One backward pass gives what two force evaluations give: forces of the blend minus those of all-ML."""
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, plateau=plateau, width="0.1 nm", snap="hydrogen")
    hybrid = hybrid_system(dipeptide_water, zones, ani1x, scheme="per_atom")
    _, forces = energy_and_forces(hybrid.system, dipeptide_water.positions)
    whole = force_with_the_model_everywhere(dipeptide_water, ani1x)
    error = boundary_error(hybrid)
    atoms = list(error.atoms)
    expected = forces[atoms] - whole[atoms]
    assert np.abs(error.errors - expected).max() < 1e-6 * np.abs(whole).max()
    assert error.rms > 0.1  # there is something to see


def test_deep_atoms_have_the_exact_force(dipeptide_water, ani1x):
    """Every atom within the receptive field has lambda = 1: the force is the model's exactly (T5)."""
    region = select_region(dipeptide_water, "resname ALA and name CA", complete="atoms")
    for plateau, exact in (("0.6 nm", 1), ("0.3 nm", 0)):
        zones = static_zones(dipeptide_water, region, plateau=plateau, width="0 nm", snap="hydrogen")
        error = boundary_error(hybrid_system(dipeptide_water, zones, ani1x, scheme="per_atom"))
        assert error.exact == exact
        assert (error.largest < 1e-9) is bool(exact)


def test_boundary_error_needs_the_scheme(dipeptide_water, ani1x):
    zones = hard_zones(dipeptide_water, select_region(dipeptide_water, "resname ACE ALA NME"))
    with pytest.raises(EmbeddingError, match="a hybrid system of scheme 'per_atom', but got additive"):
        boundary_error(hybrid_system(dipeptide_water, zones, ani1x, scheme="additive"))


@pytest.fixture(scope="module")
def field(dipeptide_water, ani1x):
    """Alanine of the dipeptide with everything that it depends on."""
    region = select_region(dipeptide_water, "resname ALA")
    positions = dipeptide_water.positions
    return Surroundings(dipeptide_water, region.atoms, ani1x, [positions]).at(positions)


def test_reference_force_is_the_one_of_the_model_everywhere(field, dipeptide_water, ani1x):
    """F_MM − d/dr sum Delta over the surroundings: the force with lambda = 1 on every atom of the system."""
    whole = force_with_the_model_everywhere(dipeptide_water, ani1x)[list(field.region)]
    assert np.abs(field.forces - whole).max() < 1e-6 * np.abs(whole).max()


def test_without_any_zone_the_error_is_that_of_the_force_field(field, dipeptide_water):
    _, mm = energy_and_forces(dipeptide_water.system, dipeptide_water.positions)
    error = field.error(np.zeros(dipeptide_water.n_atoms))
    assert np.abs(error.errors - (mm[list(field.region)] - field.forces)).max() < 1e-8 * np.abs(mm).max()
    assert error.exact == 0 and error.depths.max() == 0


def test_errors_are_linear_in_the_weights(field, dipeptide_water):
    """One forward pass serves all weights: the error is linear in 1 − lambda."""
    generator = np.random.default_rng(4)
    one, two = generator.uniform(size=(2, dipeptide_water.n_atoms))
    mixed = field.error(0.3 * one + 0.7 * two).errors
    expected = 0.3 * field.error(one).errors + 0.7 * field.error(two).errors
    np.testing.assert_allclose(mixed, expected, atol=1e-8 * np.abs(expected).max())
    assert np.abs(field.error(one).errors - field.error(two).errors).max() > 1.0


def test_surroundings_of_several_frames_give_the_error_of_each(dipeptide_water, ani1x):
    """More atoms than one frame needs change nothing."""
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, "0.1 nm", "0.1 nm")
    moved = dipeptide_water.positions + 0.01 * np.sin(np.arange(dipeptide_water.n_atoms))[:, None]
    moved[22:] *= 1.02  # other waters are near
    surroundings = Surroundings(dipeptide_water, region.atoms, ani1x, [dipeptide_water.positions, moved])
    alone = boundary_error(hybrid_system(dipeptide_water, zones, ani1x, scheme="per_atom"), moved)
    found = surroundings.at(moved).error(zones.weights(torch.zeros(1, 3)).numpy())
    np.testing.assert_allclose(found.errors, alone.errors, atol=1e-7)
    np.testing.assert_allclose(found.forces, alone.forces, atol=1e-7)


def test_errors_by_depth(field, dipeptide_water):
    """Depth is the distance to the nearest atom with lambda < 1; each atom stands in one class."""
    weights = np.zeros(dipeptide_water.n_atoms)
    weights[:22] = 1.0
    error = field.error(weights)
    box, x = np.diag(dipeptide_water.box_vectors), dipeptide_water.positions
    separation = x[None, 22:] - x[list(field.region)][:, None]
    separation -= np.round(separation / box) * box
    np.testing.assert_allclose(error.depths, np.linalg.norm(separation, axis=2).min(axis=1), atol=1e-12)
    classes = error.by_depth()
    assert sum(c.atoms for c in classes) == len(field.region)
    assert sum(c.atoms > 0 for c in classes) > 1
    total = sum(c.atoms * c.rms**2 for c in classes)
    assert np.sqrt(total / len(field.region)) == pytest.approx(error.rms)
    assert max(c.largest for c in classes) == pytest.approx(error.largest)
    # Nothing outside: every atom is deep.
    whole = field.error(np.ones(dipeptide_water.n_atoms))
    assert whole.by_depth()[-1].atoms == whole.exact == len(field.region) and whole.rms == 0


def test_visible_atoms_are_of_known_elements(dipeptide_water):
    visible = visible_atoms(dipeptide_water, toy_spec(elements=(1, 6, 7)))
    for atom in dipeptide_water.topology.atoms():
        assert visible[atom.index] == (atom.element.symbol in "HCN")


def tail_energy(built, atom: int, others: np.ndarray, r_off: float) -> float:
    """Tail of the pairs of one atom, pair by pair from the parameters of the force: g(p)/a and (1 − f) LJ."""
    import openmm

    force = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    special = {}
    for k in range(force.getNumExceptions()):
        a, b, *numbers = force.getExceptionParameters(k)
        special[frozenset((a, b))] = [n._value for n in numbers]
    energy = 0.0
    for other, place in enumerate(others):
        r = np.linalg.norm(place - others[atom])
        if other == atom or r >= r_off:
            continue
        (q1, s1, e1), (q2, s2, e2) = (
            [n._value for n in force.getParticleParameters(i)] for i in (atom, other)
        )
        product, sigma, epsilon = special.get(
            frozenset((atom, other)), (q1 * q2, 0.5 * (s1 + s2), np.sqrt(e1 * e2))
        )
        p = r / r_off
        x = np.clip((p - SWITCHING_START) / (1 - SWITCHING_START), 0, 1)
        well = 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
        energy += COULOMB * product * (35 - 35 * p**2 + 21 * p**4 - 5 * p**6) / (16 * r_off)
        energy += well * x**3 * (10 - 15 * x + 6 * x**2)
    return energy


def test_tail_force_is_the_gradient_of_the_tail():
    """Central differences of the tail summed pair by pair, 1-4 pairs with their own parameters."""
    built = chains(n_molecules=3, n_atoms=6, box=None)
    zones = zones_with(built, {0: 1.0, 1: 1.0, 2: 0.5, 7: 1.0, 10: 0.3})
    hybrid = hybrid_system(built, zones, ForceFieldPotential(built), scheme="per_atom")
    found = tail_force(hybrid)
    assert found.atoms == hybrid.zones.core and len(found.atoms) == 3
    for atom, force in zip(found.atoms, found.tail, strict=True):
        for k in range(3):
            energies = []
            for step in (1e-5, -1e-5):
                moved = np.array(built.positions)
                moved[atom, k] += step
                energies.append(tail_energy(built, atom, moved, hybrid.potential.spec.cutoff))
            assert force[k] == pytest.approx(-(energies[0] - energies[1]) / 2e-5, abs=1e-5)
    assert found.rms > 0.1


def test_remaining_force_equals_that_of_a_model_without_energy():
    """F_MM − F_sr on atoms with lambda = 1, against the hybrid system of a potential that is zero, in PME."""
    built = chains(n_molecules=3, n_atoms=6)
    everywhere = zones_with(built, dict.fromkeys(range(built.n_atoms), 1.0))
    silent = ForceFieldPotential(built, scale=0.0)
    _, forces = energy_and_forces(
        hybrid_system(built, everywhere, silent, scheme="per_atom").system, built.positions
    )
    zones = zones_with(built, {0: 1.0, 1: 1.0, 2: 0.5, 7: 1.0, 10: 0.3})
    found = tail_force(hybrid_system(built, zones, ForceFieldPotential(built), scheme="per_atom"))
    np.testing.assert_allclose(found.remaining, forces[[0, 1, 7]], atol=1e-7)
    assert np.abs(found.remaining - found.tail).max() > 0.1


def switched(r: torch.Tensor, r_off: float) -> torch.Tensor:
    """The switching function that must not be: a switch times the whole Coulomb energy."""
    return switching_function(r, SWITCHING_START * r_off, r_off) / r


def test_tail_force_is_small_where_energies_are_split(dipeptide_vacuum, ani1x):
    """Below 10 % of the rms force at 300 K; f(r) K q q/r would leave several times as much."""
    region = select_region(dipeptide_vacuum, "resname ACE ALA NME")
    hybrid = hybrid_system(dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), ani1x, scheme="per_atom")
    for frame in draw_frames(dipeptide_vacuum, 3, platform="Reference"):
        tail = tail_force(hybrid, frame)
        assert 0.0 < tail.percent < 10.0 and 0.0 < tail.percent_remaining < 10.0
        wrong = tail_force(hybrid, frame, short_range=switched)
        assert wrong.rms > 3 * tail.rms and wrong.rms_remaining > 3 * tail.rms_remaining


def test_the_force_field_screens_its_tail_in_water(dipeptide_water, ani1x):
    """What lies beyond the range cancels much of the tail of the water within it; together below 10 %."""
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), ani1x, scheme="per_atom")
    (frame,) = draw_frames(dipeptide_water, 1, length="0.3 ps")
    tail = tail_force(hybrid, frame)
    assert 0.0 < tail.percent_remaining < 10.0
    assert tail.rms_remaining < 0.8 * tail.rms
    assert tail_force(hybrid, frame, short_range=switched).rms_remaining > 3 * tail.rms_remaining


@pytest.mark.slow
def test_tail_force_in_a_protein(root, models_folder):
    """The same for p-xylene and the residues around it in T4 lysozyme, with ANI-2x."""
    import mlmm

    built = mlmm.build_system(
        root / "systems/lysozyme_xylene/input.pdb",
        ligands=["p-xylene.xml"],
        solvate=False,
        constraints="none",
        rigid_water=False,
    )
    ligand = select_region(built, "resname TMP")
    zones = static_zones(built, ligand, "0.4 nm", "0 nm")
    hybrid = hybrid_system(built, zones, mlmm.load_potential("ani2x", precision="float64"), scheme="per_atom")
    frame = draw_frames(built, 1)[0]
    tail = tail_force(hybrid, frame)
    assert len(tail.atoms) > 200
    assert 0.0 < tail.percent < 10.0 and 0.0 < tail.percent_remaining < 10.0
    assert tail_force(hybrid, frame, short_range=switched).rms > 3 * tail.rms


def test_histogram_adds_up_to_the_blend():
    """sum over the bins of atoms times mean Delta is sum Delta; each atom of the zone is in one bin."""
    built = chains(n_molecules=4, n_atoms=6)
    potential = ForceFieldPotential(built, scale=1.3)
    hybrid = hybrid_system(built, random_zones(built, 14), potential, scheme="per_atom")
    hybrid = hybrid.reassembled(mm_side="torch")
    histogram = lambda_histogram(hybrid, bins=4)
    assert histogram.atoms.sum() == 14 and histogram.atoms[-1] == len(hybrid.zones.core)
    blend = hybrid.blend
    x, box = torch.tensor(built.positions), torch.tensor(built.box_vectors)
    # The model is 1.3 times the force field.
    delta = 0.3 * blend.short_range(x, box).numpy()
    assert np.nansum(histogram.per_atom * histogram.atoms) == pytest.approx(delta.sum(), abs=1e-9)
    assert np.nansum(histogram.mean * histogram.residues) == pytest.approx(delta.sum(), abs=1e-9)
    weights = np.array(hybrid.zones.active_weights)
    for b in range(4):
        inside = (weights > histogram.edges[b]) & (weights <= histogram.edges[b + 1]) & (weights < 1)
        assert histogram.atoms[b] == inside.sum()
    text = str(histogram)
    assert str(histogram.atoms[-1]) in text.splitlines()[1].split()


def test_zone_checks_find_energy_that_is_counted_twice(dipeptide_vacuum, ani1x):
    """The energy balance holds for the hybrid system as it is, not for one with a term in excess."""
    region = select_region(dipeptide_vacuum, "resname ALA")
    zones = static_zones(dipeptide_vacuum, region, "0 nm", "0.2 nm", snap="hydrogen")
    hybrid = hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="per_atom", bridge="pythonforce")
    report = check_zones(hybrid)
    assert report.passed
    text = str(report)
    for line in (
        "boundary error on the region",
        "tail force",
        "energy counted twice or lost",
        "C–T",
        "lambda",
    ):
        assert line in text
    # Negative control: one angle stronger than the force field has it.
    force = next(f for f in hybrid.system.getForces() if f.getName() == "HarmonicAngleForce")
    a, b, c, angle, k = force.getAngleParameters(0)
    force.setAngleParameters(0, a, b, c, angle, 1.5 * k)
    wrong = check_zones(hybrid)
    assert not wrong.passed
