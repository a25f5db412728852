"""Searches on Müller and Brown's surface, whose minima, saddle points and path are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from model_surfaces import MINIMA, SADDLES, at, mueller_brown, mueller_brown_surface, springs
from scipy.integrate import solve_ivp
from scipy.spatial.transform import Rotation

from mlmm.errors import ConfigError, SimulationError
from mlmm.reactions.band import band_force, folds, spring_constants
from mlmm.reactions.conservation import check_forces
from mlmm.reactions.gaussian_process import GaussianProcess
from mlmm.reactions.hessian import hessian, normal_modes
from mlmm.reactions.irc import follow_reaction_coordinate
from mlmm.reactions.minimise import minimise
from mlmm.reactions.options import IRCOptions, NEBOptions, TransitionStateOptions
from mlmm.reactions.path import along_scan, check_apart, interpolate, nudged_elastic_band, superposed
from mlmm.reactions.results import grid_saddle, path_result
from mlmm.reactions.surface import Evaluation, ReactionSurface
from mlmm.reactions.transition_state import find_saddle, judge_saddle
from mlmm.report.search_verdict import judge_search
from mlmm.units import ANGSTROM


def point(positions: np.ndarray) -> np.ndarray:
    return positions[..., 0, :2] / ANGSTROM


@pytest.mark.parametrize("name", list(MINIMA))
def test_minimisation_finds_the_known_minima(name):
    where, energy = MINIMA[name]
    surface = mueller_brown_surface((where[0] + 0.05, where[1] - 0.05))
    found = minimise(surface, surface.positions, tolerance=1e-4, steps=200)
    assert found.converged and found.energy == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(point(found.positions), where, atol=1e-5)
    assert not minimise(surface, surface.positions, tolerance=1e-4, steps=1).converged


@pytest.mark.parametrize("name", list(SADDLES))
@pytest.mark.parametrize("derivatives", ["full", "iterative"])
def test_search_finds_the_known_saddle_points(name, derivatives):
    where, energy = SADDLES[name]
    surface = mueller_brown_surface((where[0] + 0.04, where[1] + 0.04))
    options = TransitionStateOptions(
        hessian=derivatives, force_tolerance="0.001 kJ/mol/nm", displacement="1e-5 nm"
    )
    found = find_saddle(surface, surface.positions, options)
    assert found.converged and found.energy == pytest.approx(energy, abs=1e-6)
    np.testing.assert_allclose(point(found.positions), where, atol=1e-5)
    assert len(found.modes.imaginary) == 1
    assert judge_saddle(found.modes, {}, True).level == "ok"


def test_a_minimum_and_a_saddle_point_of_higher_order_are_no_transition_states():
    """Modes at a minimum, and on top of a hill, are judged bad, with the next step."""
    surface = mueller_brown_surface()
    low = hessian(surface, at(MINIMA["deep"][0]), 1e-5)
    verdict = judge_saddle(
        normal_modes(low.matrix, surface.masses, low.positions, free=False, dimensions=2), {}, True
    )
    assert verdict.level == "bad" and "a minimum" in verdict.finding
    hill = normal_modes(-low.matrix, surface.masses, low.positions, free=False, dimensions=2)
    verdict = judge_saddle(hill, {}, True)
    assert (
        verdict.level == "bad" and "2 imaginary modes" in verdict.finding and "second mode" in verdict.advice
    )


def test_a_mode_that_leaves_the_variables_as_they_are_is_worth_a_look():
    surface = mueller_brown_surface()
    found = hessian(surface, at(SADDLES["low"][0]), 1e-5)
    modes = normal_modes(found.matrix, surface.masses, found.positions, free=False, dimensions=2)
    assert judge_saddle(modes, {"d": 0.9}, True).level == "ok"
    assert judge_saddle(modes, {"d": 0.05}, True).level == "look"
    assert judge_saddle(modes, {"d": 0.9}, False).level == "bad"


def test_second_derivatives_are_those_of_the_formula():
    """Against differences of the analytic gradient with another step; workers change no bit."""
    where = np.array([0.3, 0.7])
    one = hessian(mueller_brown_surface(), at(where), 1e-5)
    two = hessian(mueller_brown_surface(workers=2), at(where), 1e-5)
    assert (one.matrix == two.matrix).all() and one.asymmetry < 1e-6
    step, exact = 1e-4, np.zeros((2, 2))
    for k in range(2):
        shift = np.eye(2)[k] * step
        exact[k] = (mueller_brown(*(where + shift))[1] - mueller_brown(*(where - shift))[1]) / (2 * step)
    np.testing.assert_allclose(one.matrix[:2, :2] * ANGSTROM**2, exact, rtol=1e-5)
    assert hessian(mueller_brown_surface(wrong=50.0), at(where), 1e-5).asymmetry > 0.01


def test_band_climbs_to_the_saddle_point_along_the_known_path():
    """From the middle to the right minimum; without climbing the highest image stays below the saddle."""
    ends = at(MINIMA["middle"][0]), at(MINIMA["right"][0])
    options = NEBOptions(
        images=7,
        interpolation="linear",
        force_tolerance="0.5 kJ/mol/nm",
        relax_ends=False,
    )
    surface = mueller_brown_surface(workers=2)
    found = nudged_elastic_band(surface, *ends, options)
    assert found.converged and not found.folds
    assert found.energies[found.highest] == pytest.approx(SADDLES["low"][1], abs=2e-3)
    np.testing.assert_allclose(point(found.positions[found.highest]), SADDLES["low"][0], atol=2e-3)
    plain = nudged_elastic_band(surface, *ends, dataclasses.replace(options, climb=False, images=4))
    assert plain.converged and plain.energies.max() < SADDLES["low"][1] - 0.01
    # Images lie on the path of steepest descent, integrated by itself; a straight line does not.
    curve = steepest_descent("low")
    off = [np.linalg.norm(curve - image, axis=1).min() for image in point(found.positions[1:-1])]
    assert max(off) < 0.015
    line = np.linspace(MINIMA["middle"][0], MINIMA["right"][0], 9)[1:-1]
    assert max(np.linalg.norm(curve - image, axis=1).min() for image in line) > 0.05


@pytest.mark.parametrize("foot", ["1 eV/A^2", "3 eV/A^2"])
def test_springs_that_are_stiffer_on_the_top_put_more_images_there(foot):
    """Without climbing, a band at rest has one tension: k L is the same for all springs."""
    ends = at(MINIMA["deep"][0]), at(MINIMA["right"][0])
    options = NEBOptions(
        images=8,
        interpolation="linear",
        force_tolerance="0.1 kJ/mol/nm",
        relax_ends=False,
        climb=False,
        spring=foot,
        spring_top="3 eV/A^2",
    )
    found = nudged_elastic_band(mueller_brown_surface(), *ends, options)
    lengths = np.diff(found.lengths)
    constants = spring_constants(found.energies, options.spring, options.spring_top)
    # The force that is left on an image is at least the difference of its two tensions.
    assert found.converged and np.abs(np.diff(constants * lengths)).max() <= found.force <= 0.1
    if foot == "1 eV/A^2":
        assert constants.max() == pytest.approx(options.spring_top)
        assert lengths.max() > 2.0 * lengths.min()
    else:
        assert lengths.max() < 1.01 * lengths.min()


def test_springs_go_from_foot_to_top_with_the_energy_of_their_higher_image():
    np.testing.assert_allclose(
        spring_constants(np.array([0.0, 10.0, 60.0, 110.0, 35.0, 5.0, 10.0]), 1.0, 3.0),
        [1.0, 2.0, 3.0, 3.0, 1.5, 1.0],
    )
    np.testing.assert_allclose(spring_constants(np.array([5.0, 3.0, 4.0]), 1.0, 3.0), 1.0)


def test_soft_springs_let_a_band_wander_and_the_default_does_not():
    """Over the high barrier, where the path bends; the soft ones are what other programs begin with."""
    ends = at(MINIMA["deep"][0]), at(MINIMA["middle"][0])
    default = NEBOptions(
        images=7, interpolation="linear", force_tolerance="1 kJ/mol/nm", relax_ends=False, steps=100
    )
    found = nudged_elastic_band(mueller_brown_surface(), *ends, default)
    assert found.converged and found.returns == 0
    assert found.energies.max() == pytest.approx(SADDLES["high"][1], abs=2e-3)
    soft = dataclasses.replace(default, spring="0.1 eV/A^2", spring_top="0.1 eV/A^2", steps=200)
    assert not nudged_elastic_band(mueller_brown_surface(), *ends, soft).converged


@pytest.mark.parametrize(("failures", "returns"), [(range(60, 61), 1), (range(60, 10**6), 5)])
def test_steps_that_run_away_go_back_to_the_best_path(failures, returns):
    """An image has no energy, as where a method does not converge: once, or for every new step."""
    ends = at(MINIMA["middle"][0]), at(MINIMA["right"][0])
    options = NEBOptions(images=7, interpolation="linear", force_tolerance="0.5 kJ/mol/nm", relax_ends=False)
    surface = mueller_brown_surface()
    known, make = {}, surface.make

    def failing():
        def evaluate(where, memory):
            if where.tobytes() not in known:
                known[where.tobytes()] = math.nan if len(known) in failures else 1.0
            found = make()(where, memory)
            return dataclasses.replace(found, energy=found.energy * known[where.tobytes()])

        return evaluate

    surface.make = failing
    found = nudged_elastic_band(surface, *ends, options)
    assert found.returns == returns
    assert found.converged == (returns == 1)
    assert np.isfinite(found.energies).all() and not found.folds
    if found.converged:
        assert found.energies[found.highest] == pytest.approx(SADDLES["low"][1], abs=2e-3)
    else:
        run = {"kind": "neb", "state": "finished", "result": path_result(surface, found)[0]}
        said = {one.name: one for one in judge_search(run).judgements}["convergence"]
        assert "steps ran away 5 times" in said.finding and "mlmm ts" in said.advice


def test_a_path_without_any_energy_is_an_error():
    """There is nothing to go back to."""
    surface = mueller_brown_surface()
    surface.make = lambda: lambda where, memory: Evaluation(math.nan, np.zeros((1, 3)))
    ends = at(MINIMA["middle"][0]), at(MINIMA["right"][0])
    with pytest.raises(SimulationError, match="finite energy"):
        nudged_elastic_band(surface, *ends, NEBOptions(interpolation="linear", relax_ends=False))


def steepest_descent(saddle: str) -> np.ndarray:
    """Points (K, 2) of the path of lowest energy through a saddle point, as a differential equation."""
    where = np.array(SADDLES[saddle][0])
    step = 1e-5
    columns = [
        (mueller_brown(*(where + e))[1] - mueller_brown(*(where - e))[1]) / (2 * step)
        for e in np.eye(2) * step
    ]
    mode = np.linalg.eigh(np.array(columns))[1][:, 0]

    def downhill(_, x):
        gradient = mueller_brown(*x)[1]
        return -gradient / max(np.linalg.norm(gradient), 1e-3)

    parts = []
    for sign in (1.0, -1.0):
        solved = solve_ivp(downhill, (0, 1.5), where + sign * 1e-3 * mode, max_step=0.005, rtol=1e-6)
        parts.append(solved.y.T)
    return np.concatenate([parts[0][::-1], parts[1]])


def bent_molecule() -> ReactionSurface:
    """Four atoms without symmetry on springs at rest."""
    where = np.array([[0.0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.3, 0.1, 0.12]])
    pairs = [(a, b) for b in range(4) for a in range(b)]
    lengths = [float(np.linalg.norm(where[a] - where[b])) for a, b in pairs]
    return springs(where, [12.0, 16.0, 14.0, 1.0], pairs, [1e5] * 6, lengths)


def test_structures_are_laid_on_each_other_by_rotation_alone():
    """A turned and shifted molecule comes back; its mirror image does not."""
    surface = bent_molecule()
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    moved = surface.positions @ turn.T + 0.4
    np.testing.assert_allclose(
        superposed(moved, surface.positions, surface.masses), surface.positions, atol=1e-12
    )
    mirrored = superposed(moved * [1, 1, -1], surface.positions, surface.masses)
    assert np.abs(mirrored - surface.positions).max() > 0.01
    pairs = np.triu_indices(4, 1)
    lengths = [np.linalg.norm(x[pairs[0]] - x[pairs[1]], axis=1) for x in (mirrored, surface.positions)]
    np.testing.assert_allclose(*lengths, atol=1e-12)
    path = interpolate(surface, surface.positions, moved, 3, "linear")
    np.testing.assert_allclose(path, np.tile(surface.positions, (5, 1, 1)), atol=1e-12)


@pytest.mark.parametrize(("gain", "jumps"), [(1.0, 0), (60.0, 1)])
def test_a_path_along_a_scan_jumps_only_where_that_pays(gain, jumps):
    """Forth falls into the valley of back halfway; before, it is lower at every other point, or far lower."""
    surface = bent_molecule()
    other = surface.positions.copy()
    other[3] += [0.0, 0.0, -0.12]  # the last atom on the other side
    stretch = np.linspace(0.0, 0.02, 8)[:, None, None] * np.array([1.0, 0.0, 0.0]) * np.arange(4)[:, None]
    back = other + stretch
    forth = np.concatenate([(surface.positions + stretch)[:4], back[4:]])
    turn = Rotation.from_rotvec([0.4, 0.2, -0.9]).as_matrix().T
    energies = np.zeros((2, 8))
    energies[0, :4] = np.array([-1.0, 1.0, -1.0, 1.0]) - (gain - 1.0)
    found = along_scan(surface, np.array([forth @ turn, back]), energies, 1e4)
    steps = np.linalg.norm(np.diff(found, axis=0).reshape(7, -1), axis=1)
    assert (steps > 0.05).sum() == jumps
    # Point by point the lower one goes back and forth between valleys.
    lowest = np.array([forth, back])[energies.argmin(axis=0), np.arange(8)]
    steps = np.linalg.norm(np.diff(lowest, axis=0).reshape(7, -1), axis=1)
    assert (steps > 0.05).sum() == (3 if jumps == 0 else 1)


def test_springs_of_a_band_turn_no_molecule():
    """Images that are one molecule turned by uneven angles feel no force; held in place, springs pull."""
    surface = bent_molecule()
    path = np.array(
        [surface.positions @ Rotation.from_rotvec([0, 0, w]).as_matrix().T for w in (0, 0.02, 0.1)]
    )
    assert band_force(surface, path, (1e4, 1e4), climb=False) < 20.0
    assert band_force(dataclasses.replace(surface, free=False), path, (1e4, 1e4), climb=False) > 60.0


def test_images_that_cross_are_found():
    straight = np.linspace(0.0, 1.0, 5)[:, None, None] * np.ones((1, 3))
    assert folds(straight) == ()
    crossed = straight[[0, 2, 1, 3, 4]]
    assert folds(crossed) == (1, 2)


def test_atoms_that_run_into_each_other_are_refused():
    surface = mueller_brown_surface()
    surface.numbers, surface.labels = np.array([6, 6]), ["C1", "C2"]
    apart = np.array([[[0.0, 0, 0], [0.15, 0, 0]]])
    check_apart(surface, apart)
    with pytest.raises(ConfigError, match=r"C1 and C2 at 0\.050 nm in image 1.*idpp"):
        check_apart(surface, apart / 3)


@pytest.mark.parametrize("name, minima", [("low", ("middle", "right")), ("high", ("deep", "middle"))])
def test_reaction_coordinate_comes_down_to_the_minima_on_both_sides(name, minima):
    surface = mueller_brown_surface()
    options = IRCOptions(step="0.003 nm", force_tolerance="1 kJ/mol/nm", displacement="1e-5 nm")
    found = follow_reaction_coordinate(surface, at(SADDLES[name][0]), options)
    assert found.arrived == (True, True) and found.monotone
    energies = sorted(end[1] for end in found.ends)
    assert energies == pytest.approx(sorted(MINIMA[k][1] for k in minima), abs=1e-4)
    assert found.energies[found.saddle] == found.energies.max()
    # Steepest descent: steps run along the gradient.
    steps = np.diff(point(found.positions), axis=0)
    for k in range(3, len(steps) - 3):
        x, y = point(found.positions)[k : k + 2].mean(axis=0)
        gradient = mueller_brown(x, y)[1]
        cosine = abs(steps[k] @ gradient) / np.linalg.norm(steps[k]) / np.linalg.norm(gradient)
        assert cosine > 0.97 or np.linalg.norm(gradient) < 15.0


def test_reaction_coordinate_is_measured_in_mass_weighted_coordinates():
    """An atom of 4 amu goes the same way: twice as long, with twice the points."""
    paths = []
    for mass in (1.0, 4.0):
        surface = dataclasses.replace(mueller_brown_surface(), masses=np.array([mass]))
        options = IRCOptions(step="0.01 nm", force_tolerance="1 kJ/mol/nm", relax_ends=False)
        found = follow_reaction_coordinate(surface, at(SADDLES["low"][0]), options)
        steps = np.linalg.norm(np.diff(found.positions[:, 0], axis=0), axis=1)
        np.testing.assert_allclose(np.diff(found.coordinate), np.sqrt(mass) * steps, atol=1e-12)
        assert found.coordinate[found.saddle] == 0.0
        paths.append(found)
    assert np.ptp(paths[1].coordinate) == pytest.approx(2 * np.ptp(paths[0].coordinate), rel=0.05)
    assert len(paths[1].energies) > 1.5 * len(paths[0].energies)


def test_no_reaction_coordinate_begins_at_a_minimum():
    with pytest.raises(SimulationError, match=r"imaginary mode.*mlmm ts"):
        follow_reaction_coordinate(mueller_brown_surface(), at(MINIMA["deep"][0]))


def test_forces_with_a_curl_or_another_energy_are_found():
    start = (0.1, 0.5)
    assert check_forces(mueller_brown_surface(start)).conservative
    assert check_forces(mueller_brown_surface(MINIMA["deep"][0])).conservative
    turned = check_forces(mueller_brown_surface(start, wrong=30.0))
    assert not turned.conservative and turned.curl > 0.02
    slow = mueller_brown_surface(start)
    make = slow.make
    slow.make = lambda: lambda p, m: dataclasses.replace(make()(p, m), forces=1.05 * make()(p, m).forces)
    scaled = check_forces(slow)
    assert not scaled.conservative and scaled.slope > 0.02


def test_way_over_a_grid_goes_by_its_lowest_saddle():
    x, y = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21), indexing="ij")
    wall = np.exp(-((x + y) ** 2) / 0.02) * (5.0 + 4.0 * (x - 0.4) ** 2)
    i, j = grid_saddle(wall)
    assert x[i, j] == pytest.approx(0.4, abs=0.11) and x[i, j] + y[i, j] == pytest.approx(0.0, abs=0.11)


@pytest.mark.parametrize(
    "ends, saddle",
    [
        (("middle", "right"), "low"),
        pytest.param(("deep", "right"), "high", marks=pytest.mark.slow),
    ],
)
def test_a_gaussian_process_finds_the_path_with_few_energies(ends, saddle):
    """The same saddle points with a third of the energies or less, judged by true forces on all images."""
    counts = {}
    for optimiser in ("gp", "bfgs"):
        surface = mueller_brown_surface()
        options = NEBOptions(
            images=7,
            interpolation="linear",
            force_tolerance="5 kJ/mol/nm",
            relax_ends=False,
            optimiser=optimiser,
        )
        found = nudged_elastic_band(surface, at(MINIMA[ends[0]][0]), at(MINIMA[ends[1]][0]), options)
        assert found.converged and found.force < 5.0
        assert found.energies[found.highest] == pytest.approx(SADDLES[saddle][1], abs=0.01)
        true = [mueller_brown(*point(image))[0] for image in found.positions]
        np.testing.assert_allclose(found.energies, true, atol=1e-9)
        counts[optimiser] = surface.calls
    assert counts["gp"] < counts["bfgs"] / 3


def test_a_gaussian_process_has_the_data_and_its_own_slopes():
    """Energies and forces at the data, central differences between, no certainty away from the data."""
    random = np.random.default_rng(0)
    process, start = GaussianProcess([6, 6, 8, 1]), random.standard_normal((4, 3)) * 0.15
    surface = springs(start, [1.0] * 4, [(0, 1), (1, 2), (2, 3), (0, 3)], [1e3, 2e3, 3e3, 5e2], [0.15] * 4)
    places = [start + 0.02 * random.standard_normal((4, 3)) for _ in range(6)]
    for place in places:
        found = surface.evaluate(place)
        process.add(place, found.energy, found.forces)
    process.fit()
    for place in places:
        energy, forces = process.predict(place)
        found = surface.evaluate(place)
        assert energy == pytest.approx(found.energy, abs=1e-3)
        np.testing.assert_allclose(forces, found.forces, atol=1e-3 * np.abs(found.forces).max())
        assert process.uncertainty(place) < 1e-2
    _, forces = process.predict(start)
    step = 1e-6
    for atom, axis in ((0, 0), (2, 1), (3, 2)):
        shift = np.zeros((4, 3))
        shift[atom, axis] = step
        slope = (process.predict(start + shift)[0] - process.predict(start - shift)[0]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, rel=1e-5, abs=1e-3)
    assert process.uncertainty(start + 0.1 * random.standard_normal((4, 3))) > 1.0
    turned = np.linalg.qr(random.standard_normal((3, 3)))[0]
    assert process.predict(start @ turned)[0] == pytest.approx(process.predict(start)[0], abs=1e-9)
