"""Relaxed scans: models with a known answer, slopes, hysteresis, torsions, variables that are undefined."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from model_surfaces import springs

import mlmm
from mlmm.errors import ConfigError, SelectionError, SimulationError
from mlmm.reactions.molecules import molecule_system, read_positions
from mlmm.reactions.options import ScanOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.scan import grid_order, scan
from mlmm.reactions.surface import Evaluation, ReactionSurface
from mlmm.reactions.surfaces import hybrid_surface, potential_surface
from mlmm.reactions.variables import SurfaceVariables

CHAIN = "3\nchain\nC 0 0 0\nC 1.5 0.1 0\nC 3.0 0 0.1\n"
PEROXIDE = "4\nH2O2\nH -0.85 0.80 0.35\nO -0.72 0.0 -0.15\nO 0.72 0.0 -0.15\nH 0.85 -0.70 0.40\n"
TIGHT = ScanOptions(force_tolerance="0.05 kJ/mol/nm", steps=500)


def built_from(text: str, tmp_path):
    path = tmp_path / "molecule.xyz"
    path.write_text(text)
    return molecule_system(path)


def chain_surface(tmp_path, k1: float = 2e5, k2: float = 3e5) -> ReactionSurface:
    built = built_from(CHAIN, tmp_path)
    made = springs(built.positions, [12.0] * 3, [(0, 1), (1, 2)], [k1, k2], [0.15, 0.15])
    return dataclasses.replace(made, built=built, indices=np.arange(3), labels=built.labels)


def ends(surface: ReactionSurface) -> SurfaceVariables:
    return SurfaceVariables(surface, [mlmm.Variable("d", "distance", [[0], [2]])])


def test_a_chain_of_springs_stretches_by_the_springs_in_series(tmp_path):
    surface, values = chain_surface(tmp_path), np.array([0.30, 0.31, 0.32, 0.34])
    found = scan(surface, ends(surface), [values], TIGHT)
    together = 2e5 * 3e5 / 5e5
    assert found.converged.all()
    exact = 0.5 * together * (values - 0.3) ** 2
    np.testing.assert_allclose(found.energies, [exact, exact], atol=1e-5)
    np.testing.assert_allclose(found.slopes[:, :, 0], [together * (values - 0.3)] * 2, atol=0.5)
    assert np.abs(found.values[:, :, 0] - values).max() < 1e-8
    assert np.abs(found.hysteresis).max() < 1e-5
    rigid = 0.5 * (2e5 / 4 + 3e5 / 4) * (values - 0.3) ** 2  # both springs stretched alike
    assert not np.allclose(found.profile, rigid, atol=0.1)


def test_a_restraint_deviates_by_slope_over_force_constant(tmp_path):
    surface, values = chain_surface(tmp_path), np.array([0.31, 0.33])
    stiff = 1e6
    options = dataclasses.replace(TIGHT, hold="restraint", directions="forward")
    found = scan(surface, ends(surface), [values], options, force_constants=np.array([stiff]))
    together = 2e5 * 3e5 / 5e5
    stretched = (values - 0.3) * stiff / (stiff + together)
    np.testing.assert_allclose(found.values[0, :, 0], 0.3 + stretched, atol=1e-7)
    np.testing.assert_allclose(found.energies[0], 0.5 * together * stretched**2, atol=1e-4)
    np.testing.assert_allclose(found.slopes[0, :, 0], together * stretched, rtol=1e-3)


def test_two_variables_on_a_grid(tmp_path):
    surface = chain_surface(tmp_path)
    both = SurfaceVariables(
        surface, [mlmm.Variable("a", "distance", [[0], [1]]), mlmm.Variable("b", "distance", [[1], [2]])]
    )
    first, second = np.array([0.15, 0.16]), np.array([0.14, 0.15, 0.16])
    found = scan(surface, both, [first, second], TIGHT)
    exact = 0.5 * (2e5 * (first[:, None] - 0.15) ** 2 + 3e5 * (second - 0.15) ** 2)
    np.testing.assert_allclose(found.profile.reshape(2, 3), exact, atol=1e-5)
    assert grid_order([2, 3]) == [0, 1, 2, 5, 4, 3]


def test_hysteresis_is_seen_from_both_sides_and_not_from_one(tmp_path):
    """A distance y with two valleys that tilt with the scanned one: each way stays too long in its own."""
    built = built_from("4\n\nC 0 0 0\nC 1.0 0 0\nC 0 5 0\nC 1.8 5 0\n", tmp_path)
    well, depth, tilt = 1e8, 0.03, 5e4

    def evaluate(where, memory):
        pairs = where[1] - where[0], where[3] - where[2]
        (x, y), units = (
            (np.array([np.linalg.norm(p) for p in pairs]) - 0.15),
            [p / np.linalg.norm(p) for p in pairs],
        )
        energy = well * (y**2 - depth**2) ** 2 + tilt * x * y
        forces = np.zeros((4, 3))
        for k, slope in enumerate((tilt * y, 4 * well * y * (y**2 - depth**2) + tilt * x)):
            forces[2 * k], forces[2 * k + 1] = slope * units[k], -slope * units[k]
        return Evaluation(float(energy), forces)

    surface = ReactionSurface(
        numbers=np.full(4, 6),
        positions=np.array(built.positions),
        masses=np.full(4, 12.0),
        make=lambda: evaluate,
        built=built,
        indices=np.arange(4),
    )
    along = SurfaceVariables(surface, [mlmm.Variable("x", "distance", [[0], [1]])])
    values = 0.15 + np.array([-0.10, -0.05, 0.0, 0.05, 0.10])
    found = scan(surface, along, [values], TIGHT)
    assert found.hysteresis[3] == pytest.approx(2 * tilt * 0.05 * depth, rel=0.05)
    assert found.hysteresis[1] == pytest.approx(-2 * tilt * 0.05 * depth, rel=0.05)
    assert np.abs(found.hysteresis[[0, 2, 4]]).max() < 1e-3
    np.testing.assert_allclose(found.profile[[1, 3]], -tilt * 0.05 * depth, rtol=0.1)
    once = scan(surface, along, [values], dataclasses.replace(TIGHT, directions="forward"))
    assert np.abs(once.hysteresis).max() == 0.0 and once.profile[3] > 0


def test_a_scan_goes_on_after_its_last_point_with_the_same_numbers(tmp_path):
    class Broken(Progress):
        def keep(self, text, **arrays):
            super().keep(text, **arrays)
            if np.isfinite(self.arrays["energies"]).sum() == 3:
                raise KeyboardInterrupt

    values = np.linspace(0.29, 0.33, 4)
    whole = chain_surface(tmp_path)
    expected = scan(whole, ends(whole), [values], TIGHT)
    half, kept = chain_surface(tmp_path), Broken()
    with pytest.raises(KeyboardInterrupt):
        scan(half, ends(half), [values], TIGHT, progress=kept)
    rest = chain_surface(tmp_path)
    found = scan(rest, ends(rest), [values], TIGHT, progress=Progress(kept.arrays))
    np.testing.assert_array_equal(found.energies, expected.energies)
    np.testing.assert_array_equal(found.positions, expected.positions)
    assert half.calls + rest.calls == whole.calls and rest.calls < whole.calls


def test_torsion_profile_of_a_molecule_is_the_potentials_own(tmp_path):
    """The potential alone in torch, and as the region of a hybrid in OpenMM; slopes fit the profile."""
    built = built_from(PEROXIDE, tmp_path)
    potential = mlmm.load_potential("ani1x", members=[0], precision="float64")
    zones = mlmm.hard_zones(built, mlmm.select_region(built, "all"))
    hybrid = mlmm.hybrid_system(built, zones, potential, scheme="additive")
    torsion = mlmm.Variable("t", "torsion", ["name H1", "name O1", "name O2", "name H2"])
    options = ScanOptions(force_tolerance="0.2 kJ/mol/nm", directions="forward")
    angles = np.radians([90.0, 110.0, 130.0, 150.0, 170.0])
    direct = potential_surface(potential, built)
    profiles = []
    for surface in (potential_surface(potential, built), hybrid_surface(hybrid)):
        found = scan(surface, SurfaceVariables(surface, [torsion]), [angles], options)
        assert found.converged.all()
        own = np.array([direct.evaluate(where).energy for where in found.positions[0]])
        np.testing.assert_allclose(found.energies[0] - found.energies[0, 0], own - own[0], atol=1e-5)
        slopes = found.slopes[0, :, 0]
        rise = np.diff(angles) * (slopes[1:] + slopes[:-1]) / 2
        np.testing.assert_allclose(rise, np.diff(own), atol=0.1 * np.ptp(own))
        profiles.append(own)
    np.testing.assert_allclose(profiles[0], profiles[1], atol=1e-3)
    assert np.ptp(profiles[0]) > 0.5


def test_variables_that_are_undefined_or_elsewhere_are_refused(tmp_path):
    line = "4\n\nC 0 0 0\nC 1.5 0 0\nC 2.0 1.4 0\nC 3.4 1.4 0.5\n"
    built = built_from(line, tmp_path)
    surface = dataclasses.replace(
        springs(built.positions, [12.0] * 4, [(0, 1)], [1e5], [0.15]), built=built, indices=np.arange(4)
    )
    torsion = SurfaceVariables(surface, [mlmm.Variable("t", "torsion", [[0], [1], [2], [3]])])
    # The shorter way around.
    np.testing.assert_allclose(torsion.difference([3.1], [-3.1]), [6.2 - 2 * np.pi], atol=1e-12)
    np.testing.assert_allclose(ends(surface).difference([3.1], [-3.1]), [6.2], atol=1e-12)
    straight = np.array([[0.0, 0, 0], [0.15, 0, 0], [0.3, 0, 0], [0.45, 0, 0]])
    with pytest.raises(SimulationError, match=r"variable t \(torsion\).*lie on a line.*such as a distance"):
        torsion.values(straight)
    # As the sentence says, a distance is defined there.
    apart = SurfaceVariables(surface, [mlmm.Variable("d", "distance", [[0], [3]])])
    np.testing.assert_allclose(apart.values(straight), [0.45])
    with pytest.raises(SelectionError, match="matches none"):
        SurfaceVariables(surface, [mlmm.Variable("d", "distance", ["name ZZ", "name C1"])])
    part = dataclasses.replace(surface, indices=np.array([2, 3]), facts={"environment": "frozen"})
    with pytest.raises(ConfigError, match="variable d of atoms that move"):
        SurfaceVariables(part, [mlmm.Variable("d", "distance", [[0], [1]])])
    with pytest.raises(ConfigError, match="in their order"):
        surface.check_structure(np.array([6, 6, 8, 6]), "p.xyz")


def test_molecules_are_read_with_names(tmp_path):
    built = built_from(PEROXIDE, tmp_path)
    assert [atom.name for atom in built.topology.atoms()] == ["H1", "O1", "O2", "H2"]
    numbers, positions = read_positions(tmp_path / "molecule.xyz")
    assert numbers.tolist() == [1, 8, 8, 1] and positions[1, 0] == pytest.approx(-0.072)
    (tmp_path / "bad.xyz").write_text("two\n\nC 0 0\n")
    with pytest.raises(mlmm.errors.StructureError, match=r"bad\.xyz"):
        molecule_system(tmp_path / "bad.xyz")
