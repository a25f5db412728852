"""Refinement of G(lambda), without simulations: answer, gains, verdicts, knots, boxes, the kept state."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from gases import BINS, BOX, CENTRE, EDGES, THERMAL, compensated, gas_zones, hill, ideal_gas

from mlmm.build.surroundings.bulk import around_a_point, build_bulk_water, scaled_to
from mlmm.compensation.density import distance_profile
from mlmm.compensation.linear_response import DensityResponse, corrected, density_response
from mlmm.compensation.refine_state import (
    Iteration,
    KeptRefinement,
    RefinementState,
    flatness,
    gain_of,
    iteration_table,
    profile_of,
    zone_shells,
)
from mlmm.errors import ConfigError
from mlmm.report.compensation_plot import draw_refinement
from mlmm.zones.adaptive import AdaptiveWeights
from mlmm.zones.compensation import Compensation, CompensationEnergy

NOTHING = Compensation({"GAS": 0.0}, np.linspace(0, 1, 6), {"GAS": np.zeros(6)})


def gas_distances(energy, n_frames, seed):
    """Distances of 400 independent molecules from a fixed centre, (F, M)."""
    zones = gas_zones(400)
    frames = ideal_gas(zones, CENTRE, energy, n_frames, seed)
    weights_of = AdaptiveWeights(zones)
    rows = [weights_of.distances(torch.tensor(frame), torch.tensor(BOX))[:, 0].numpy() for frame in frames]
    return zones, frames, np.array(rows)


@pytest.fixture(scope="module")
def gas():
    return gas_distances(hill, 200, 11)


@pytest.fixture(scope="module")
def profile(gas):
    zones, _, distances = gas
    return profile_of(zones, distances, BOX, EDGES, BINS)


def with_densities(profile, densities, error):
    """The same with other densities by lambda, all with one error; flat by distance."""
    return dataclasses.replace(
        profile,
        weight_density=np.array(densities, dtype=float),
        weight_errors=np.full(len(densities), float(error)),
        density=np.ones_like(profile.density),
        errors=np.zeros_like(profile.errors),
    )


def test_the_error_of_the_excess_is_that_of_independent_molecules(gas):
    """Molecules in the sphere: binomial against those outside, within the noise of 200 frames' variance."""
    zones, _, distances = gas
    found = distance_profile(zones, distances, BOX, EDGES, BINS)
    share = 4 / 3 * np.pi * 0.9**3 / 27
    inside = (1 + found.excess) * found.bulk * 27 * share
    outside = 400 - inside
    # d(ratio)/ratio for N inside of 400: dN (1/N + 1/(400 − N)), with the binomial variance of N.
    spread = np.sqrt(inside * outside / 400 / 200) * (1 / inside + 1 / outside) * (1 + found.excess)
    assert found.zone_error == pytest.approx(spread, rel=0.25)


def answer(matrix):
    return DensityResponse(np.asarray(matrix, dtype=float), np.eye(len(matrix)))


def at_bins(compensation, profile):
    """G where the corrections are made, by the straight lines between the knots, kJ/mol."""
    return np.interp(profile.weights, compensation.knots, compensation.values["GAS"])


@pytest.fixture
def knotted(profile):
    """No G, with its knots at the bins: then a correction is what was asked for."""
    knots = np.array([0.0, *profile.weights, 1.0])
    return Compensation({"GAS": 0.0}, knots, {"GAS": np.zeros(len(knots))})


def test_the_correction_is_newtons_step_where_the_density_is_known(profile, knotted):
    """R step = −ln rho: with the answer R, the density is flat after it; the gain scales."""
    generator = np.random.default_rng(2)
    matrix = np.eye(5) + 0.2 * generator.normal(size=(5, 5))
    known = with_densities(profile, [0.9, 1.1, 1.05, 0.8, 1.2], 1e-6)
    step = at_bins(corrected(knotted, known, answer(matrix)), profile) / THERMAL
    np.testing.assert_allclose(matrix @ step, -np.log(known.weight_density), atol=1e-6)
    half = at_bins(corrected(knotted, known, answer(matrix), gain=0.5), profile) / THERMAL
    np.testing.assert_allclose(half, 0.5 * step)
    gas = at_bins(corrected(knotted, known, answer(np.eye(5))), profile)
    np.testing.assert_allclose(gas, -THERMAL * np.log(known.weight_density), atol=1e-6)


def test_statistical_noise_is_not_corrected(profile, knotted):
    """For one bin by itself: x p/(p + sigma²/R²), p = 1/4, and what is left of p is the new error."""
    matrix = np.diag([1.0, 1.0, 0.1, 0.1, 1.0])
    errors = np.array([0.01, 0.5, 0.01, 0.05, 10.0])
    noisy = with_densities(profile, np.exp([0.1, 0.1, 0.1, 0.1, 0.1]), 0.0)
    noisy = dataclasses.replace(noisy, weight_errors=errors * noisy.weight_density)
    found = corrected(knotted, noisy, answer(matrix))
    diagonal = np.diag(matrix)
    share = 0.25 / (0.25 + (errors / diagonal) ** 2)
    assert share == pytest.approx([0.9996, 0.5, 0.9615, 0.5, 0.0025], abs=1e-3)
    np.testing.assert_allclose(at_bins(found, profile), -THERMAL * 0.1 / diagonal * share, rtol=1e-9)
    np.testing.assert_allclose(found.errors["GAS"][1:-1], THERMAL * np.sqrt(0.25 * (1 - share)), rtol=1e-6)


def test_density_response_of_an_ideal_gas_is_one(gas, profile):
    """Molecules that do not feel each other: R = 1, within the noise of covariances of 200 frames."""
    zones, _, distances = gas
    response = density_response(zones, distances, profile, BOX, compressibility=1e-6)
    # Independent molecules: var(N) = N, and 2/F for the variance of a variance; the bulk adds V_a/V_out.
    outside = profile.volumes[-1]
    assert np.abs(response.matrix - np.eye(5)).max() < 5 * np.sqrt(2 / 200) + outside / 27
    assert np.abs(np.diag(response.matrix) - 1).max() < 0.45
    floored = density_response(zones, distances, profile, BOX, compressibility=3.0)
    np.testing.assert_allclose(floored.matrix, 3.0 * np.eye(5), atol=1e-9)


def test_density_response_predicts_the_change_of_a_crowded_gas():
    """Ten pairs of places, a place in either bin, one taken at most: numbers rise at each other's cost.

    What the fluctuations say of G in one bin is what two simulations with other G differ by.
    """
    generator = np.random.default_rng(4)

    def sampled(g, n_frames):
        """Distances with a place in the inner bin lower by g, in kT."""
        rows = np.full((n_frames, 60), 5.0)
        radii = {0: 0.85, 1: 0.55}
        weights = np.array([1.0, 1.0, np.exp(g)])
        for pair in range(10):
            state = generator.choice(3, n_frames, p=weights / weights.sum())
            rows[state == 1, pair] = radii[0]
            rows[state == 2, pair] = radii[1]
        rows[:, 10:] = 1.2
        return rows

    zones = gas_zones(60)
    bins, edges = (0.0, 0.5, 1.0), [0.4, 0.9]
    rows = sampled(0.3, 2000)
    middle = distance_profile(zones, rows, BOX, edges, weight_edges=bins)
    response = density_response(zones, rows, middle, BOX, compressibility=1e-6)
    low, high = (
        distance_profile(zones, sampled(g, 2000), BOX, edges, weight_edges=bins).weight_density
        for g in (0.0, 0.6)
    )
    measured = np.log(high / low) / 0.6
    assert measured[0] < -0.3 and measured[1] > 0.5
    np.testing.assert_allclose(response.matrix[:, 1], measured, atol=0.1)


def test_one_step_flattens_an_ideal_gas(gas, profile):
    """Molecules that do not feel each other: after one step with gain 1 the density is flat within errors."""
    zones, _, distances = gas
    step = corrected(NOTHING, profile, density_response(zones, distances, profile, BOX))
    _, _, after = gas_distances(compensated(step), 200, 12)
    after = profile_of(zones, after, BOX, EDGES, BINS)
    allowed = 4 * np.hypot(after.weight_errors, step.errors["GAS"].max() / THERMAL)
    assert (np.abs(after.weight_density - 1) < allowed).all()
    assert np.abs(profile.weight_density - 1).max() > 1.4 * allowed.max()


def test_a_correction_without_molecules_or_kind_is_refused(gas, profile, knotted):
    zones, _, distances = gas
    empty = with_densities(profile, [1.0, 1.0, 0.0, 1.0, 1.0], 0.1)
    with pytest.raises(ConfigError, match="molecules in every bin of lambda"):
        corrected(knotted, empty, answer(np.eye(5)))
    with pytest.raises(ConfigError, match="a compensation for GAS"):
        corrected(Compensation({"HOH": 0.0}), profile, answer(np.eye(5)))
    with pytest.raises(ConfigError, match="a compressibility above 0"):
        density_response(zones, distances, profile, BOX, compressibility=0.0)
    with pytest.raises(ConfigError, match="molecules in every bin of lambda"):
        density_response(zones, np.full_like(distances, 0.1), profile, BOX)


def test_gain_falls_with_the_iterations():
    """A density that answers by 1: targets from the third iteration on weigh the same in the end."""
    assert [gain_of(0.5, n) for n in (1, 2, 3, 4, 8)] == pytest.approx([0.5, 0.5, 1 / 3, 0.25, 0.125])
    weights = np.zeros(10)
    for n in range(1, 11):
        gain = gain_of(0.5, n)
        weights *= 1 - gain
        weights[n - 1] = gain
    np.testing.assert_allclose(weights[2:], weights[-1])
    assert np.sqrt((weights**2).sum()) < 0.33


@pytest.mark.parametrize(
    ("densities", "error", "verdict"),
    [
        ((1.0, 1.04, 0.96, 1.0, 1.0), 0.02, "flat"),
        ((1.0, 1.069, 1.0, 1.0, 1.0), 0.02, "flat"),
        ((1.0, 1.071, 1.0, 1.0, 1.0), 0.02, "not flat"),
        ((1.0, 1.0, 1.0, 1.0, 0.92), 0.02, "not flat"),
        ((1.0, 1.0, 1.0, 1.0, 1.0), 0.06, "too noisy"),
        ((1.0, 1.3, 1.0, 1.0, 1.0), 0.06, "not flat"),
    ],
)
def test_flat_profile_needs_deviation_and_error_within_tolerance(profile, densities, error, verdict):
    assert flatness(with_densities(profile, densities, error), 0.05) == verdict


def test_shells_of_the_zone_count_and_those_outside_do_not(profile):
    flat = with_densities(profile, np.ones(5), 0.01)
    for shell, verdict in ((0, "flat"), (4, "not flat"), (8, "not flat"), (9, "flat")):
        density = np.ones(10)
        density[shell] = 1.2
        assert flatness(dataclasses.replace(flat, density=density), 0.05) == verdict


def test_shells_end_where_plateau_and_zone_do():
    np.testing.assert_allclose(
        zone_shells(0.5, 0.5, 1.126), [0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.126]
    )
    np.testing.assert_allclose(zone_shells(0.25, 0.2, 0.45), [0, 0.25, 0.35, 0.45])
    for plateau, width, end in ((0.35, 0.3, 0.93), (0.3, 0.25, 0.6), (0.62, 0.17, 1.4)):
        edges = zone_shells(plateau, width, end)
        assert (np.diff(edges) > 0.03).all() and edges[-1] == pytest.approx(end)
        assert any(np.isclose(edges, plateau)) and any(np.isclose(edges, plateau + width))


def test_errors_are_wider_where_halves_disagree(gas):
    """A density that jumps half way: errors as large as half of the jump; none of it without a jump."""
    zones, _, distances = gas
    profile = profile_of(zones, distances, BOX, EDGES, BINS)
    plain = distance_profile(zones, distances, BOX, EDGES, weight_edges=BINS)
    assert 1 <= profile.weight_errors[0] / plain.weight_errors[0] < 1.8
    _, _, other = gas_distances(torch.zeros_like, 200, 13)
    jumped = np.concatenate([distances, other])
    wide, narrow = (
        profile_of(zones, jumped, BOX, EDGES, BINS),
        distance_profile(zones, jumped, BOX, EDGES, weight_edges=BINS),
    )
    jump = 0.5 * np.abs(
        distance_profile(zones, other, BOX, EDGES, weight_edges=BINS).weight_density - plain.weight_density
    )
    factor = wide.weight_errors / narrow.weight_errors
    np.testing.assert_allclose(factor, factor[0])
    assert wide.zone_error / narrow.zone_error == pytest.approx(factor[0])
    assert factor[0] == pytest.approx(
        max(1.0, np.sqrt(np.mean((jump / narrow.weight_errors) ** 2))), rel=1e-9
    )


def test_other_knots_keep_the_curve():
    """Exact at the new knots, the alignment as it was; old knots among the new keep their values, too."""
    old = Compensation(
        {"HOH": -3.0, "MOH": 1.0},
        np.array([0.0, 0.3, 1.0]),
        {"HOH": np.array([0.0, 1.5, -2.0])},
        {"HOH": np.array([0.0, 0.1, 0.3])},
        {"mode": "density"},
    )
    grid = [0.0, 0.1, 0.3, 0.65, 1.0]
    new = old.at_knots(grid)
    weights = torch.tensor(grid)
    for kind in ("HOH", "MOH"):
        curves = [CompensationEnergy(c, [kind] * 5)(weights).numpy() for c in (old, new)]
        np.testing.assert_allclose(curves[1], curves[0], atol=1e-13)
    np.testing.assert_allclose(new.values["HOH"][[0, 2, 4]], old.values["HOH"], atol=1e-14)
    np.testing.assert_allclose(new.errors["HOH"], [0.0, 0.1 / 3, 0.1, 0.2, 0.3])
    assert new.alignment == old.alignment and new.facts == old.facts
    # Knots that leave out the middle do not keep it.
    assert abs(old.at_knots([0, 1]).at_knots([0, 0.3, 1]).values["HOH"][1] - 1.5) > 1
    with pytest.raises(ConfigError, match="knots rising from 0 to 1"):
        old.at_knots([0.0, 0.5])


def test_a_box_at_another_density_has_the_same_molecules():
    bulk = build_bulk_water("1.2 nm", nonbonded_cutoff="0.5 nm")
    scaled = scaled_to(bulk, 30.0)
    assert len(scaled.positions) / 3 / np.linalg.det(scaled.box_vectors) == pytest.approx(30.0, rel=1e-12)
    waters, moved = bulk.positions.reshape(-1, 3, 3), scaled.positions.reshape(-1, 3, 3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_allclose(moved[:, a] - moved[:, b], waters[:, a] - waters[:, b], atol=1e-12)
    ratio = scaled.box_vectors[0, 0] / bulk.box_vectors[0, 0]
    np.testing.assert_allclose(moved.mean(axis=1), ratio * waters.mean(axis=1), atol=1e-12)
    assert scaled.provenance["source"] == "bulk tip3p"
    with pytest.raises(ConfigError, match="a density above 0"):
        scaled_to(bulk, 0.0)


def test_the_point_has_a_mass_and_no_forces():
    """The force field neither feels nor moves it."""
    bulk = build_bulk_water("1.2 nm", nonbonded_cutoff="0.5 nm")
    built = around_a_point(bulk)
    assert built.n_atoms == bulk.n_atoms + 1 and built.system.getParticleMass(bulk.n_atoms)._value == 18
    forces = []
    for one in (bulk, built):
        context = openmm.Context(
            one.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(one.positions)
        forces.append(context.getState(forces=True).getForces(asNumpy=True)._value)
    np.testing.assert_allclose(forces[1][:-1], forces[0], atol=1e-8)
    np.testing.assert_array_equal(forces[1][-1], np.zeros(3))


def a_state(profile):
    done = Iteration(NOTHING, profile, 5.0, False)
    step = corrected(NOTHING, profile, answer(np.eye(5)))
    positions = np.random.default_rng(1).normal(size=(7, 3))
    return RefinementState(
        [done], step, 250, positions, 2 * positions, [np.float32([1, 2]), np.float32([3, 4])]
    )


def test_the_state_comes_back_from_its_file(tmp_path, profile):
    state, kept = a_state(profile), KeptRefinement(tmp_path / "a.partial.npz")
    assert kept.read() is None and kept.setting("seed") is None
    kept.settings = {"seed": 3, "gain": 0.5}
    kept.write(state)
    assert not list(tmp_path.glob("*.tmp")) and kept.setting("seed") == 3
    found = kept.read()
    for name in ("positions", "velocities", "distances"):
        np.testing.assert_array_equal(getattr(found, name), getattr(state, name))
    assert found.steps == 250 and found.compensation.facts == state.compensation.facts
    np.testing.assert_array_equal(found.compensation.values["GAS"], state.compensation.values["GAS"])
    (done,) = found.done
    assert (done.length, done.check) == (5.0, False)
    for name, value in vars(profile).items():
        np.testing.assert_array_equal(getattr(done.profile, name), value)
    kept.settings = {"seed": 3, "gain": 0.1}
    assert kept.read().steps == 250
    kept.settings = {"seed": 4, "gain": 0.5}
    with pytest.raises(ConfigError, match=r"other seed\. Refine with the same settings, or remove that file"):
        kept.read()
    kept.path.write_bytes(kept.path.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="as the beginning of this refinement"):
        kept.read()


def test_table_and_picture_show_what_was_measured(tmp_path, profile):
    from matplotlib.image import imread

    done = Iteration(NOTHING, profile, 5.0, False)
    text = iteration_table(done, "iteration 1", "not flat", 0.05)
    assert text.startswith("iteration 1: 5 ps, not flat to 0.05\n")
    for weight, density, error in zip(
        profile.weights, profile.weight_density, profile.weight_errors, strict=True
    ):
        assert f"{weight:8.3f} {density:8.3f} ± {error:.3f}" in text
    assert f"excess of the whole zone {profile.excess:+.4f}" in text
    step = corrected(NOTHING, profile, answer(np.eye(5)))
    check = Iteration(step, with_densities(profile, np.ones(5), 0.01), 15.0, True)
    image = imread(draw_refinement(step, [done, check], tmp_path / "a.png"))[..., :3]
    assert image.shape[1] == 2400
    for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
        assert (np.abs(image - np.array(colour) / 255).max(axis=-1) < 0.02).sum() > 500


def test_a_curve_whose_error_is_not_known_is_kept(tmp_path):
    """One seed has no error: NaN comes back as NaN, and nothing is lost at the end of a calibration."""
    knots = np.linspace(0, 1, 3)
    given = {"HOH": np.array([0.0, 1.0, 3.0])}
    unknown = {"HOH": np.full(3, np.nan)}
    Compensation({"HOH": 1.0}, knots, given, unknown).save(tmp_path / "curve.json")
    found = Compensation.load(tmp_path / "curve.json")
    assert np.isnan(found.errors["HOH"]).all() and np.array_equal(found.values["HOH"], given["HOH"])
