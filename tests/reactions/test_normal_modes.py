"""Normal modes against formulas of two and three atoms; translation and rotation only of a free molecule."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from model_surfaces import springs

import mlmm
from mlmm.reactions.hessian import hessian, normal_modes, rigid_motions
from mlmm.reactions.molecules import molecule_system
from mlmm.reactions.transition_state import mode_overlaps, oriented
from mlmm.reactions.variables import SurfaceVariables
from mlmm.units import LIGHT_SPEED


def wavenumber(square: float) -> float:
    return math.sqrt(square) / (2 * math.pi * LIGHT_SPEED)


def turned(positions: np.ndarray, seed: int = 3) -> np.ndarray:
    matrix = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return positions @ matrix.T + 0.7


def modes_of(surface, free: bool = True):
    found = hessian(surface, surface.positions, 1e-5)
    return normal_modes(found.matrix, surface.masses, surface.positions, free=free)


def test_two_atoms_vibrate_with_the_reduced_mass():
    masses, k = np.array([1.008, 34.969]), 3.1e5
    surface = springs(turned(np.array([[0, 0, 0], [0.13, 0, 0]])), masses, [(0, 1)], [k], [0.13])
    modes = modes_of(surface)
    reduced = masses.prod() / masses.sum()
    assert modes.removed == 5 and len(modes.wavenumbers) == 1
    assert modes.wavenumbers[0] == pytest.approx(wavenumber(k / reduced), rel=1e-8)
    assert modes.wavenumbers[0] != pytest.approx(wavenumber(k / masses[0]), rel=1e-3)
    # The reduced mass of a normalised Cartesian displacement.
    shape = np.array([1 / masses[0], 1 / masses[1]])
    assert modes.reduced_masses[0] == pytest.approx(
        1 / ((shape**2).sum() / (shape**2 * masses).sum()), rel=1e-6
    )


def test_stretching_is_motion_along_the_distance_in_mass_weighted_coordinates(tmp_path):
    """The mode of a diatomic is the gradient of its distance; the Cartesian gradient is at an angle to it."""
    path = tmp_path / "hcl.xyz"
    path.write_text("2\n\nH 0 0 0\nCl 1.2 0.3 0.4\n")
    built = molecule_system(path)
    masses = np.array([1.008, 34.969])
    length = float(np.linalg.norm(np.diff(built.positions, axis=0)))
    surface = springs(built.positions, masses, [(0, 1)], [3e5], [length])
    surface = dataclasses.replace(surface, built=built, indices=np.arange(2))
    along = SurfaceVariables(surface, [mlmm.Variable("d", "distance", [[0], [1]])])
    modes = modes_of(surface)
    (cosine,) = mode_overlaps(modes, along, surface.positions, masses).values()
    assert abs(cosine) == pytest.approx(1.0, abs=1e-9)
    (plain,) = mode_overlaps(modes, along, surface.positions, np.ones(2)).values()
    assert abs(plain) < 0.9
    # Whichever direction a mode was given in, it becomes the one in which the distance grows.
    for given in (modes, modes.turned()):
        found, cosines = oriented(given, along, surface.positions, masses)
        assert cosines["d"] == pytest.approx(1.0, abs=1e-9)
        assert (found.vectors[0][1] - found.vectors[0][0]) @ np.diff(surface.positions, axis=0)[0] > 0
    assert modes.vectors[0].flat[np.abs(modes.vectors[0]).argmax()] > 0


def test_a_linear_triatomic_has_the_frequencies_of_the_textbook():
    """A-B-A: symmetric k/m_A, antisymmetric k (1/m_A + 2/m_B); bending has no spring and is 0."""
    a, b, k = 15.995, 12.0, 9e5
    where = turned(np.array([[-0.116, 0, 0], [0, 0, 0], [0.116, 0, 0]]))
    surface = springs(where, [a, b, a], [(0, 1), (1, 2)], [k, k], [0.116, 0.116])
    modes = modes_of(surface)
    assert modes.removed == 5 and len(modes.wavenumbers) == 4
    np.testing.assert_allclose(
        modes.wavenumbers[2:], [wavenumber(k / a), wavenumber(k * (1 / a + 2 / b))], rtol=1e-7
    )
    assert np.abs(modes.wavenumbers[:2]).max() < 1.0


def test_a_triangle_has_the_frequencies_of_the_textbook():
    """Three equal masses and springs: breathing 3k/m once, 3k/2m twice."""
    m, k, r = 12.0, 2e5, 0.15
    corners = (
        np.array([[math.cos(w), math.sin(w), 0] for w in (0, 2 * math.pi / 3, 4 * math.pi / 3)])
        * r
        / math.sqrt(3)
    )
    surface = springs(turned(corners), [m] * 3, [(0, 1), (1, 2), (0, 2)], [k] * 3, [r] * 3)
    modes = modes_of(surface)
    assert modes.removed == 6
    expected = [wavenumber(1.5 * k / m), wavenumber(1.5 * k / m), wavenumber(3 * k / m)]
    np.testing.assert_allclose(modes.wavenumbers, expected, rtol=1e-7)
    overlaps = modes.mass_weighted.reshape(3, -1) @ modes.mass_weighted.reshape(3, -1).T
    np.testing.assert_allclose(overlaps, np.eye(3), atol=1e-10)


def test_nothing_is_projected_out_where_an_environment_holds_the_atoms():
    """Two atoms, each tied to a wall: six real modes, none of them removed; projected, five would be lost."""
    masses, k, wall = np.array([1.0, 4.0]), 1e5, 4e4
    start = np.array([[0, 0, 0], [0.1, 0, 0]])

    surface = springs(start, masses, [(0, 1)], [k], [0.1])
    inner = surface.make

    def make():
        evaluate = inner()

        def tied(where, memory):
            found = evaluate(where, memory)
            off = where - start
            energy = found.energy + 0.5 * wall * (off**2).sum()
            return type(found)(energy, found.forces - wall * off)

        return tied

    surface.make, surface.free = make, False
    modes = modes_of(surface, free=False)
    assert modes.removed == 0 and len(modes.wavenumbers) == 6 and modes.wavenumbers.min() > 100
    # Across the axis each atom is a spring of its own.
    across = sorted([wavenumber(wall / 1.0)] * 2 + [wavenumber(wall / 4.0)] * 2)
    for value in across:
        assert np.abs(modes.wavenumbers - value).min() < 1e-3
    assert len(modes_of(surface, free=True).wavenumbers) == 1


def test_rigid_motions_are_six_of_a_bent_and_five_of_a_linear_molecule():
    random = np.random.default_rng(0)
    masses = random.uniform(1, 20, 4)
    assert len(rigid_motions(random.standard_normal((4, 3)), masses)) == 6
    line = np.linspace(0, 1, 4)[:, None] * random.standard_normal(3)
    found = rigid_motions(line, masses)
    assert len(found) == 5
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-12)


def test_derivatives_go_on_after_an_interruption_without_computing_anything_twice():
    from mlmm.reactions.progress import Progress

    class Broken(Progress):
        def keep(self, text, **arrays):
            super().keep(text, **arrays)
            if len(self.arrays) and np.isfinite(self.arrays["forces"]).all(axis=(1, 2, 3)).sum() >= 3:
                raise KeyboardInterrupt

    masses = np.array([1.0, 2.0, 3.0])
    where = np.random.default_rng(1).standard_normal((3, 3)) * 0.1
    arguments = (where, masses, [(0, 1), (1, 2)], [1e5, 2e5], [0.1, 0.12])
    whole = springs(*arguments)
    expected = hessian(whole, where, 1e-5)
    half, kept = springs(*arguments), Broken()
    with pytest.raises(KeyboardInterrupt):
        hessian(half, where, 1e-5, progress=kept)
    rest = springs(*arguments)
    found = hessian(rest, where, 1e-5, progress=Progress(kept.arrays))
    assert (found.matrix == expected.matrix).all() and found.energy == expected.energy
    assert half.calls + rest.calls == whole.calls and 0 < rest.calls < whole.calls
