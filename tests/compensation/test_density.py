"""Density across an adaptive zone: volumes, ideal gases with exact answers, the refined compensation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from gases import BINS, BOX, CENTRE, EDGES, THERMAL, compensated, gas_zones, hill, ideal_gas

from mlmm.compensation.density import density_profile, refined
from mlmm.errors import ConfigError
from mlmm.zones.adaptive import AdaptiveWeights
from mlmm.zones.compensation import Compensation


def profile_of(energy, n_frames=300, seed=0, n_molecules=400, **arguments):
    zones = gas_zones(n_molecules)
    frames = ideal_gas(zones, CENTRE, energy, n_frames, seed)
    return density_profile(zones, frames, BOX, EDGES, weight_edges=BINS, **arguments)


def test_volumes_of_spheres():
    """Shells of one sphere by the formula; of two, the sum where they are apart, less the lens where not."""
    zones = gas_zones(50)
    frames = ideal_gas(zones, CENTRE, torch.zeros_like, 2, 0)
    volumes = density_profile(zones, frames, BOX, [0.0, 0.3, 1.2]).volumes
    np.testing.assert_allclose(volumes, 4 / 3 * np.pi * np.diff(np.array([0.0, 0.3, 1.2]) ** 3), rtol=1e-14)
    sphere = 4 / 3 * np.pi * 0.5**3
    lens = np.pi / 12 * (4 * 0.5 + 0.6) * (2 * 0.5 - 0.6) ** 2
    two = gas_zones(50, centres=2)
    for distance, exact in ((1.3, 2 * sphere), (0.6, 2 * sphere - lens)):
        centres = [[0.1, 0.1, 0.1], [0.1 - distance, 0.1, 0.1]]
        frames = ideal_gas(two, centres, torch.zeros_like, 40, 1)
        found = density_profile(two, frames, BOX, [0.0, 0.5]).volumes[0]
        # Binomial error of 40 times 20,000 points; a seed, so no chance of failing later.
        error = np.sqrt(exact * (27 - exact) / (40 * 20_000))
        assert abs(found - exact) < 3 * error
        assert error < 0.02 * exact


def test_beyond_half_the_box_only_what_is_in_it_counts():
    zones = gas_zones(400)
    frames = ideal_gas(zones, CENTRE, torch.zeros_like, 40, 3)
    profile = density_profile(zones, frames, BOX, [0.0, 1.4, 1.7, 2.7])
    assert profile.volumes.sum() == pytest.approx(27.0, rel=2e-3)
    assert profile.density == pytest.approx(1.0, abs=0.05)
    assert profile.bulk == pytest.approx(400 / 27, rel=0.02)


def test_a_gas_without_energy_is_flat_within_its_errors():
    """Errors are neither too small nor too large: chi² per shell over many seeds is 1."""
    squares = []
    for seed in range(8):
        profile = profile_of(torch.zeros_like, 100, seed)
        squares += [*((profile.density[2:] - 1) / profile.errors[2:]) ** 2]
        squares += [*((profile.weight_density - 1) / profile.weight_errors) ** 2]
    assert np.mean(squares) == pytest.approx(1.0, abs=0.35)


def test_density_is_the_boltzmann_factor():
    """rho(lambda) = exp(−U(lambda)/kT), shell by shell, with the error of so many molecules."""
    profile = profile_of(hill, 400)
    distances = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    factor = torch.exp(-hill(AdaptiveWeights(gas_zones(1)).at(distances.unsqueeze(1))) / THERMAL).numpy()
    for k in range(1, 10):
        inside = (distances.numpy() >= EDGES[k]) & (distances.numpy() <= EDGES[k + 1])
        r = distances.numpy()[inside]
        exact = (factor[inside] * r**2).sum() / (r**2).sum()
        assert abs(profile.density[k] - exact) < 4 * profile.errors[k]
    assert profile.errors[5] < 0.03
    assert profile.density.min() < 0.7
    np.testing.assert_allclose(profile.weights, [0.1, 0.3, 0.5, 0.7, 0.95], atol=0.05)
    shells = profile.volumes * profile.density * profile.bulk
    poisson = np.sqrt(shells / 400)[1:] / (profile.volumes * profile.bulk)[1:]
    np.testing.assert_allclose(profile.errors[1:], poisson, rtol=0.3)


@pytest.fixture(scope="module")
def first_step():
    """The compensation that the density of a gas under U asks for, from nothing."""
    nothing = Compensation({"GAS": 0.0}, np.linspace(0, 1, 6), {"GAS": np.zeros(6)})
    return refined(nothing, profile_of(hill, 1500, seed=5))


def test_refined_compensation_cancels_the_energy(first_step):
    """Without interactions one step with gain 1 gives G = U."""
    exact = hill(torch.tensor(first_step.knots)).numpy()
    values, errors = first_step.values["GAS"], first_step.errors["GAS"]
    assert values[0] == 0.0 and errors[0] == 0.0
    # Bins have a width: to the second order of U's curvature, 6 kJ/mol, their mean is off by 0.01 kJ/mol.
    assert (np.abs(values - exact)[1:5] < 4 * errors[1:5] + 0.02).all()
    assert errors.max() < 0.05


def test_the_refined_gas_is_flat(first_step):
    after = profile_of(compensated(first_step), 400, seed=6)
    before = profile_of(hill, 400, seed=6)
    deviation = np.abs(after.weight_density - 1)
    assert (deviation < 4 * np.hypot(after.weight_errors, first_step.errors["GAS"].max() / THERMAL)).all()
    assert np.abs(before.weight_density - 1).max() > 10 * after.weight_errors.max()
    again = refined(first_step, after)
    assert again.facts["refinements"] == 2
    wrong = dataclasses.replace(first_step, values={"GAS": -first_step.values["GAS"]})
    assert np.abs(profile_of(compensated(wrong), 100).weight_density - 1).max() > 0.5


def test_against_a_reference(first_step):
    """A profile that equals its reference asks for nothing; gain scales; a reference shifts G by kT ln."""
    profile = profile_of(hill, 100, seed=7)
    same = refined(first_step, profile, profile)
    np.testing.assert_allclose(same.values["GAS"], first_step.values["GAS"], atol=1e-12)
    half, full = (refined(first_step, profile, gain=gain).values["GAS"] for gain in (0.5, 1.0))
    np.testing.assert_allclose(full - half, half - first_step.values["GAS"], atol=1e-12)
    twice = dataclasses.replace(profile, weight_density=2 * profile.weight_density)
    more = refined(first_step, profile, twice).values["GAS"] - first_step.values["GAS"]
    assert more[-1] == pytest.approx(THERMAL * np.log(2.0))
    # The other way round than the density: twice as dense as it should be, G falls.
    less = refined(first_step, twice, profile).values["GAS"] - first_step.values["GAS"]
    assert less[-1] == pytest.approx(-THERMAL * np.log(2.0))


def test_a_broad_excess_is_answered_by_the_compressibility(first_step):
    """Twice as dense everywhere: −kT ln 2 / chi at lambda >= 1/2, nothing at 0; no excess, nothing more."""
    profile = profile_of(hill, 100, seed=7)
    dense = dataclasses.replace(
        profile, density=np.full_like(profile.density, 2.0), weight_density=2 * profile.weight_density
    )
    flat = dataclasses.replace(profile, density=np.ones_like(profile.density))
    for chi in (0.5, 0.1):
        found = refined(first_step, dense, flat, compressibility=chi).values["GAS"] - first_step.values["GAS"]
        local = refined(first_step, dense, flat).values["GAS"] - first_step.values["GAS"]
        upper = first_step.knots >= 0.5
        np.testing.assert_allclose((found - local)[upper], -THERMAL * np.log(2.0) * (1 / chi - 1))
        assert found[0] == 0.0
        same = refined(first_step, flat, flat, compressibility=chi).values["GAS"]
        np.testing.assert_allclose(same, first_step.values["GAS"], atol=1e-12)
    with pytest.raises(ConfigError, match="compressibility above 0"):
        refined(first_step, profile, compressibility=0.0)


def test_errors_say_what_to_do():
    zones = gas_zones(20)
    frames = ideal_gas(zones, CENTRE, torch.zeros_like, 5, 0)
    for arguments, message in (
        ({"frames": frames[0]}, r"frames of shape \(F, 21, 3\)"),
        ({"edges": [0.5, 0.2]}, "edges that rise"),
        ({"weight_edges": (0.1, 1.0)}, "weight_edges that rise from 0 to 1"),
        ({"kind": "HOH"}, "kind = GAS; got 'HOH'"),
        ({"far": 9.0}, "room for a bulk beyond 9 nm"),
    ):
        with pytest.raises(ConfigError, match=message):
            density_profile(**({"zones": zones, "frames": frames, "boxes": BOX, "edges": EDGES} | arguments))
    profile = density_profile(zones, frames, BOX, EDGES, bulk=0.7)
    assert profile.bulk == 0.7 and profile.bulk_error == 0.0
    with pytest.raises(ConfigError, match="molecules in every bin of lambda"):
        refined(
            Compensation({"GAS": 0.0}),
            density_profile(zones, frames[:2], BOX, EDGES, weight_edges=[0, 1e-6, 1]),
        )
    with pytest.raises(ConfigError, match="a compensation for GAS"):
        refined(Compensation({"HOH": 0.0}), profile)
    with pytest.raises(ConfigError, match="the same edges"):
        profile.relative_to(density_profile(zones, frames, BOX, EDGES[:-1]))
