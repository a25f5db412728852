"""Sampling with exact answers: harmonic modes, dynamics, distortion; choices that cover and span."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from labelled_pairs import WATER, springs
from toys import SpringPotential

from mlmm.errors import ConfigError, SimulationError
from mlmm.learning.acquisition.normal_modes import WAVENUMBER, normal_modes, sample_normal_modes
from mlmm.learning.acquisition.sampling import distorted, minimised, sample_dynamics
from mlmm.learning.acquisition.selection import cur, farthest_points
from mlmm.learning.descriptors import structure_descriptors
from mlmm.reference.labels import Label, Molecule, PointCharges
from mlmm.units import GAS_CONSTANT

MOLECULE = Molecule([8, 1, 1], WATER)
KT = 300.0 * GAS_CONSTANT


@pytest.fixture(scope="module")
def modes():
    return normal_modes(MOLECULE, springs)


def test_diatomic_has_its_one_frequency():
    """omega² = k (1/m1 + 1/m2)."""
    stiffness, masses = 3.0e5, np.array([12.0, 16.0])

    def spring(positions):
        apart = positions[1] - positions[0]
        length = np.linalg.norm(apart)
        pull = stiffness * (length - 0.12) * apart / length
        return 0.5 * stiffness * (length - 0.12) ** 2, np.array([pull, -pull])

    molecule = Molecule([6, 8], [[0.0, 0.0, 0.0], [0.12, 0.0, 0.0]])
    found = normal_modes(molecule, spring, masses)
    expected = stiffness * (1.0 / masses).sum()
    np.testing.assert_allclose(found.squares, [expected], rtol=1e-6)
    np.testing.assert_allclose(found.wavenumbers, np.sqrt(expected) * WAVENUMBER, rtol=1e-6)
    # CO with 1855 N/m is at 2143 1/cm (its measured fundamental); 1 N/m is 602.214 kJ/mol/nm².
    assert abs(np.sqrt(1855 * 602.214 * (1 / 12.0 + 1 / 15.9949)) * WAVENUMBER - 2143) < 5


def test_modes_are_internal(modes):
    """No translation, no rotation; orthonormal in mass-weighted coordinates."""
    assert len(modes.squares) == 3
    flat = modes.directions.reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-10)
    roots = np.sqrt(modes.masses)[:, None]
    for direction in modes.directions:
        np.testing.assert_allclose((roots * direction).sum(axis=0), 0.0, atol=1e-10)
        np.testing.assert_allclose(np.cross(WATER, roots * direction).sum(axis=0), 0.0, atol=1e-9)


def test_thermal_displacements_are_gaussian_of_the_classical_oscillator(modes):
    """Variance kT/omega² along each mode, in sigma of 4,000 draws; the fourth moment is Gaussian."""
    count = 4000
    found = sample_normal_modes(modes, count, temperature="300 K", lowest=0.0, seed=2)
    roots = np.sqrt(modes.masses)[:, None]
    moves = np.array([(roots * (m.positions - WATER)).reshape(-1) for m in found])
    amplitudes = moves @ modes.directions.reshape(3, -1).T
    scaled = np.square(amplitudes) * modes.squares / KT
    error = np.sqrt(2.0 / count)
    assert (np.abs(scaled.mean(axis=0) - 1.0) < 4 * error).all()
    assert (np.abs(np.square(scaled).mean(axis=0) - 3.0) < 4 * np.sqrt(96.0 / count)).all()
    # Energies: half kT a mode, for the true (nearly harmonic) energy too.
    assert abs(scaled.sum(axis=1).mean() / 2 - 1.5) < 4 * np.sqrt(1.5 / count)
    # Negative control: another temperature is told apart.
    hot = sample_normal_modes(modes, count, temperature="330 K", lowest=0.0, seed=2)
    moves = np.array([(roots * (m.positions - WATER)).reshape(-1) for m in hot])
    wide = (np.square(moves @ modes.directions.reshape(3, -1).T) * modes.squares / KT).mean(axis=0)
    assert (wide - 1.0 > 2 * error).all()


def test_recipe_of_ani_1(modes):
    """Energies of modes share a uniform part of 3/2 N RT, N = 3 atoms; control: without N it is a third."""
    count = 3000
    found = sample_normal_modes(modes, count, distribution="ani1", lowest=0.0, seed=3)
    roots = np.sqrt(modes.masses)[:, None]
    moves = np.array([(roots * (m.positions - WATER)).reshape(-1) for m in found])
    energies = 0.5 * np.square(moves @ modes.directions.reshape(3, -1).T) @ modes.squares
    most = 1.5 * 3 * KT
    assert 0.99 * most < energies.max() <= most + 1e-9
    assert abs(energies.mean() - 0.5 * most) < 4 * most / np.sqrt(12.0 * count) < 0.5 * KT
    with pytest.raises(ConfigError, match="thermal"):
        sample_normal_modes(modes, 1, distribution="ani2")


def test_soft_modes_are_held_back(modes):
    soft = sample_normal_modes(modes, 200, lowest=2.0 * modes.wavenumbers[0], seed=1)
    free = sample_normal_modes(modes, 200, lowest=0.0, seed=1)
    roots = np.sqrt(modes.masses)[:, None]

    def spread(molecules):
        return np.std([((roots * (m.positions - WATER)) * modes.directions[0]).sum() for m in molecules])

    np.testing.assert_allclose(spread(soft), 0.5 * spread(free), rtol=1e-9)


def test_saddle_is_no_minimum():
    stretched = WATER.copy()
    stretched[2] = -stretched[1]  # linear: bends away
    with pytest.raises(ConfigError, match="an imaginary mode of"):
        normal_modes(Molecule([8, 1, 1], stretched), springs)


def test_dynamics_samples_the_temperature():
    """Of the springs: 3/2 kT of potential energy for three modes, in standard errors of blocks."""
    found = sample_dynamics(MOLECULE, springs, 200, interval=15, timestep="1 fs", friction="50 /ps", seed=5)
    energies = np.array([springs(m.positions)[0] for m in found]) - springs(WATER)[0]
    blocks = energies.reshape(20, -1).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(20)
    assert abs(energies.mean() - 1.5 * KT) < 4 * error < 0.7 * KT
    assert found[7].origin == {"run": "dynamics", "frame": "7", "seed": "5"}


def test_seed_determines_dynamics():
    first, second, other = (
        sample_dynamics(MOLECULE, springs, 3, equilibration=20, interval=5, seed=seed) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].positions, other[0].positions)


def test_dynamics_that_flies_apart_is_said():
    with pytest.raises(SimulationError, match="stays together"):
        sample_dynamics(MOLECULE, springs, 20, timestep="20 fs", seed=1)


def test_potentials_and_reference_methods_drive_dynamics():
    """The same springs as a potential and as a reference method give the same frames."""

    class Method:
        point_charges = True
        title = "springs"

        def label(self, molecule: Molecule) -> Label:
            assert molecule.external is not None
            energy, forces = surface(molecule.positions)
            return Label(energy, forces, method=self.title)

    from mlmm.learning.acquisition.surfaces import surface_of

    potential = SpringPotential(k=2e5, length=0.1)
    surface = surface_of(potential, MOLECULE)
    charged = Molecule([8, 1, 1], WATER, external=PointCharges([[1.0, 0, 0]], [1.0]))
    options = {"equilibration": 10, "interval": 5, "seed": 3}
    one = sample_dynamics(MOLECULE, potential, 2, **options)
    two = sample_dynamics(charged, Method(), 2, **options)
    np.testing.assert_allclose(one[1].positions, two[1].positions, rtol=1e-12)
    assert two[1].external is charged.external
    with pytest.raises(ConfigError, match="a potential, a reference method"):
        surface_of("ani1x", MOLECULE)


def test_minimum_is_found():
    found = minimised(distorted(MOLECULE, 1, "0.01 nm", seed=1)[0], springs, force=0.01)
    assert np.abs(springs(found.positions)[1]).max() < 0.02


def test_distortion_has_its_size_and_no_clashes():
    found = distorted(MOLECULE, 1000, "0.003 nm", seed=4)
    moves = np.array([m.positions - WATER for m in found])
    assert abs(np.square(moves).mean() / 9e-6 - 1.0) < 4 * np.sqrt(2.0 / moves.size)
    assert len({m.origin["run"] for m in found}) == 1000
    wide = distorted(MOLECULE, 200, "0.02 nm", seed=4, shortest="0.08 nm")
    nearest = [min(np.linalg.norm(a - b) for a, b in itertools.combinations(m.positions, 2)) for m in wide]
    assert min(nearest) >= 0.08
    with pytest.raises(ConfigError, match="Reduce the size"):
        distorted(MOLECULE, 5, "0.5 nm", shortest="3 nm")


def test_farthest_points_cover_within_twice_the_best():
    """All choices of three among eight points: the greedy radius is at most twice the smallest."""
    for seed in range(5):
        points = np.random.default_rng(seed).normal(size=(8, 2))
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)

        def radius(chosen, apart=apart):
            return apart[:, list(chosen)].min(axis=1).max()

        best = min(map(radius, itertools.combinations(range(8), 3)))
        chosen = farthest_points(points, 3)
        assert len(set(chosen)) == 3 and best <= radius(chosen) <= 2 * best
        # Negative control: the three nearest to each other do worse.
        assert radius(chosen) <= radius(np.argsort(apart[0])[:3])


def test_farthest_points_know_what_is_there():
    points = np.arange(10.0)[:, None]
    assert farthest_points(points, 2, known=np.array([[0.0]])) == [9, 4]
    assert farthest_points(points, 3, first=0) == [0, 9, 4]
    # Copies are never chosen twice.
    assert sorted(farthest_points(np.repeat(points[:3], 5, axis=0), 10)) == [0, 5, 10]
    assert farthest_points(points, 0) == []
    with pytest.raises(ConfigError, match="finite descriptors"):
        farthest_points(np.array([[np.nan]]), 1)


def test_cur_spans_the_rows():
    """A matrix of rank five is spanned by five of its rows; four leave something."""
    random = np.random.default_rng(0)
    table = random.normal(size=(40, 5)) @ random.normal(size=(5, 30))
    chosen = [index for index, _ in cur(table, 20)]
    assert len(chosen) == 5

    def left_over(rows):
        basis = np.linalg.qr(table[rows].T)[0]
        return np.linalg.norm(table - table @ basis @ basis.T) / np.linalg.norm(table)

    assert left_over(chosen) < 1e-9 < 1e-3 < left_over(chosen[:4])
    # Beside two known rows three more do.
    more = [index for index, _ in cur(table, 20, known=table[[7, 9]])]
    assert len(more) == 3 and left_over([7, 9, *more]) < 1e-9 < 1e-3 < left_over([7, 9, *more[:2]])
    # Better than rows at random, on average.
    noisy = table + 0.1 * random.normal(size=table.shape)
    picked = [index for index, _ in cur(noisy, 5)]
    basis = np.linalg.qr(noisy[picked].T)[0]
    greedy = np.linalg.norm(noisy - noisy @ basis @ basis.T)
    others = []
    for _ in range(50):
        basis = np.linalg.qr(noisy[random.choice(40, 5, replace=False)].T)[0]
        others.append(np.linalg.norm(noisy - noisy @ basis @ basis.T))
    assert greedy < np.mean(others)


def test_descriptors_do_not_depend_on_place_or_order():
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    twin = Molecule([1, 8, 1], WATER[[1, 0, 2]] @ turn - 3.0)
    carbon = Molecule([6, 1], WATER[:2])
    rows = structure_descriptors([MOLECULE, twin, distorted(MOLECULE, 1)[0], carbon])
    assert np.abs(rows[0] - rows[1]).max() < 1e-5 < np.abs(rows[0] - rows[2]).max()
    assert rows.shape[1] % 3 == 0
