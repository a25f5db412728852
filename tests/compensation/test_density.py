"""Density around the centre of an adaptive zone: ideal gases with exact answers, one step to a flat one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from gases import BINS, BOX, CENTRE, EDGES, THERMAL, compensated, gas_zones, hill, ideal_gas

from mlmm.compensation.density import distance_profile
from mlmm.compensation.linear_response import DensityResponse, corrected
from mlmm.errors import ConfigError
from mlmm.zones.adaptive import AdaptiveWeights
from mlmm.zones.compensation import Compensation

# Molecules that do not feel each other answer to an energy each for itself.
INDEPENDENT = DensityResponse(np.eye(len(BINS) - 1), np.eye(len(BINS) - 1))


def distances_of(zones, frames):
    """From the centre, (F, M)."""
    weights_of, cell = AdaptiveWeights(zones), torch.tensor(BOX)
    return np.array([weights_of.distances(torch.tensor(frame), cell)[:, 0].numpy() for frame in frames])


def profile_of(energy, n_frames=300, seed=0, n_molecules=400):
    zones = gas_zones(n_molecules)
    frames = ideal_gas(zones, CENTRE, energy, n_frames, seed)
    return distance_profile(zones, distances_of(zones, frames), BOX, EDGES, BINS)


def test_volumes_of_spheres():
    """Shells by the formula; bins of lambda by that of the radii where lambda passes their edges."""
    zones = gas_zones(50)
    distances = distances_of(zones, ideal_gas(zones, CENTRE, torch.zeros_like, 2, 0))
    volumes = distance_profile(zones, distances, BOX, [0.0, 0.3, 1.2]).volumes
    np.testing.assert_allclose(volumes, 4 / 3 * np.pi * np.diff(np.array([0.0, 0.3, 1.2]) ** 3), rtol=1e-14)
    # One bin of lambda: its volume is that of the sphere up to the end of the zone, less nothing.
    everywhere = np.linspace(0.0, 1.5, 50)[None].repeat(2, axis=0)
    whole = distance_profile(zones, everywhere, BOX, EDGES, (0.0, 1.0))
    inside, beyond = (everywhere[0] < 0.9).sum(), (everywhere[0] > 0.9).sum()
    sphere = 4 / 3 * np.pi * 0.9**3
    exact = inside / sphere / (beyond / (27 - sphere))
    assert whole.weight_density[0] == pytest.approx(exact, rel=1e-3)


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
    return corrected(nothing, profile_of(hill, 1500, seed=5), INDEPENDENT)


def test_the_corrected_compensation_cancels_the_energy(first_step):
    """Without interactions one step with gain 1 gives G = U."""
    exact = hill(torch.tensor(first_step.knots)).numpy()
    values, errors = first_step.values["GAS"], first_step.errors["GAS"]
    assert values[0] == 0.0 and errors[0] == 0.0
    # Bins have a width: to the second order of U's curvature, 6 kJ/mol, their mean is off by 0.01 kJ/mol.
    assert (np.abs(values - exact)[1:5] < 4 * errors[1:5] + 0.02).all()
    assert errors.max() < 0.05


def test_the_corrected_gas_is_flat(first_step):
    after = profile_of(compensated(first_step), 400, seed=6)
    before = profile_of(hill, 400, seed=6)
    deviation = np.abs(after.weight_density - 1)
    assert (deviation < 4 * np.hypot(after.weight_errors, first_step.errors["GAS"].max() / THERMAL)).all()
    assert np.abs(before.weight_density - 1).max() > 10 * after.weight_errors.max()
    assert corrected(first_step, after, INDEPENDENT).facts["refinements"] == 2
    wrong = dataclasses.replace(first_step, values={"GAS": -first_step.values["GAS"]})
    assert np.abs(profile_of(compensated(wrong), 100).weight_density - 1).max() > 0.5


def test_errors_say_what_to_do():
    zones = gas_zones(20)
    distances = distances_of(zones, ideal_gas(zones, CENTRE, torch.zeros_like, 5, 0))
    for arguments, message in (
        ({"distances": distances[:, 1:]}, r"distances of shape \(F, 20\)"),
        ({"distances": distances[:1]}, "two frames at least"),
        ({"edges": [0.5, 0.2]}, "edges that rise"),
        ({"weight_edges": (0.1, 1.0)}, "weight_edges that rise from 0 to 1"),
        ({"edges": [0.0, 1.6]}, "up to 1.5 nm, half of the box, but got 1.6 nm"),
        ({"zones": gas_zones(19, centres=2)}, "one centre, for one kind of molecule, but got 2 centres"),
        ({"zones": dataclasses.replace(zones, kinds=("GAS",) * 19 + ("HOH",))}, "kinds GAS, HOH"),
    ):
        valid = {"zones": zones, "distances": distances, "box": BOX, "edges": EDGES}
        with pytest.raises(ConfigError, match=message):
            distance_profile(**(valid | arguments))
    profile = distance_profile(zones, distances, BOX, EDGES, [0, 1e-6, 1])
    with pytest.raises(ConfigError, match="molecules in every bin of lambda"):
        corrected(Compensation({"GAS": 0.0}), profile, INDEPENDENT)
    with pytest.raises(ConfigError, match="a compensation for GAS"):
        corrected(Compensation({"HOH": 0.0}), profile, INDEPENDENT)
