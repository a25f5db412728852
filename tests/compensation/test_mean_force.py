"""Mean force of lambda by bin (V16): exact for a gas of springs, zero under its exact compensation only."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from toys import ForceFieldPotential

import mlmm
from mlmm.compensation.mean_force import MeanForce, mean_and_error, mean_force
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.units import BAR_NM3, GAS_CONSTANT
from mlmm.zones.adaptive import AdaptiveWeights, adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms

THERMAL = GAS_CONSTANT * 300.0
BOX, MOLECULES, SPRING = 2.0, 150, 4000.0  # nm, kJ/mol/nm²
#: The model is the force field times SCALE: the spring of a molecule at lambda is stiffer by 1 + lambda GAIN.
SCALE = 2.5
GAIN = SCALE - 1.0
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
KNOTS = np.linspace(0.0, 1.0, 41)


def exact_slope(weights):
    """<Delta> = 3/2 kT g/(1 + lambda g): equipartition of a harmonic spring in three dimensions."""
    return 1.5 * THERMAL * GAIN / (1.0 + weights * GAIN)


#: Its integral, 3/2 kT ln(1 + lambda g): the free energy that the stiffer spring costs.
EXACT = Compensation({"GAS": 0.0}, KNOTS, {"GAS": 1.5 * THERMAL * np.log(1.0 + KNOTS * GAIN)})
NOTHING = Compensation({"GAS": 0.0})


@pytest.fixture(scope="module")
def gas():
    """Molecules of two atoms on a spring without length, which do not feel each other, around a point."""
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    nonbonded, springs = openmm.NonbondedForce(), openmm.HarmonicBondForce()
    topology.addAtom("He", app.element.helium, topology.addResidue("PNT", chain))
    system.addParticle(0.0)
    pairs = []
    for _ in range(MOLECULES):
        residue = topology.addResidue("GAS", chain)
        atoms = [topology.addAtom(e.symbol, e, residue) for e in (app.element.oxygen, app.element.hydrogen)]
        topology.addBond(*atoms)
        for mass in (16.0, 1.0):
            system.addParticle(mass)
        pairs.append((atoms[0].index, atoms[1].index))
        springs.addBond(*pairs[-1], 0.0, SPRING)
    for _ in range(system.getNumParticles()):
        nonbonded.addParticle(0.0, 0.1, 0.0)
    nonbonded.createExceptionsFromBonds(pairs, 1.0, 1.0)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(0.9)
    vectors = [openmm.Vec3(*row) for row in (BOX * np.eye(3)).tolist()]
    system.setDefaultPeriodicBoxVectors(*vectors)
    topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    system.addForce(springs)
    system.addForce(nonbonded)
    positions = np.random.default_rng(0).uniform(0, BOX, (1 + 2 * MOLECULES, 3))
    positions[2::2] = positions[1::2] + 0.03
    return mlmm.BuiltSystem.from_openmm(topology, system, positions)


def hybrid_of(gas, compensation):
    region = region_from_atoms(gas.topology, [0], "molecule")
    zones = adaptive_zones(gas, region, "0.2 nm", "0.5 nm", molecules=["GAS"], walls=None)
    potential = ForceFieldPotential(gas, SCALE)
    return hybrid_system(
        gas, zones, potential, scheme="per_atom", bridge="pythonforce", compensation=compensation
    )


@pytest.fixture(scope="module")
def hybrids(gas):
    return {name: hybrid_of(gas, c) for name, c in (("exact", EXACT), ("nothing", NOTHING))}


def anchors(hybrid, n_frames, generator, power):
    """Oxygens with the density (1 + lambda g)^power, by rejection, (F, M, 3), and their lambda."""
    weights_of, found = AdaptiveWeights(hybrid.zones), []
    wanted, centre = n_frames * MOLECULES, torch.tensor(hybrid.built.positions[0])
    while sum(map(len, found)) < wanted:
        trial = torch.tensor(generator.uniform(0, BOX, (wanted, 3)))
        vectors = trial - centre
        distances = (vectors - BOX * torch.round(vectors / BOX)).norm(dim=1, keepdim=True)
        factor = (1.0 + GAIN * weights_of.at(distances).numpy()) ** power
        found.append(trial.numpy()[generator.uniform(size=wanted) < factor])
    places = np.concatenate(found)[:wanted]
    vectors = places - centre.numpy()
    distances = np.linalg.norm(vectors - BOX * np.round(vectors / BOX), axis=1)
    weights = weights_of.at(torch.tensor(distances[:, None])).numpy()
    return places.reshape(n_frames, MOLECULES, 3), weights.reshape(n_frames, MOLECULES)


def assembled(hybrid, oxygens, arms):
    frames = np.empty((len(arms), 1 + 2 * MOLECULES, 3))
    frames[:, 0] = hybrid.built.positions[0]
    frames[:, 1::2], frames[:, 2::2] = oxygens, oxygens + arms
    return frames


def independent_frames(hybrid, n_frames, seed, power=0.0):
    """The exact ensemble: springs with the variance kT/k(1 + lambda g) of the oxygen's lambda.

    Without compensation the density of oxygens is that of the springs' partition function, power −3/2.
    """
    generator = np.random.default_rng(seed)
    oxygens, weights = anchors(hybrid, n_frames, generator, power)
    spread = np.sqrt(THERMAL / (SPRING * (1.0 + GAIN * weights)))[..., None]
    return assembled(hybrid, oxygens, spread * generator.normal(size=oxygens.shape))


def exact_means(hybrid, power, values):
    """Means over r in the bins of lambda of values(lambda, |d lambda/dr|), by quadrature."""
    r = np.linspace(0.2, 0.7, 200_001)[1:-1]
    x = (r - 0.2) / 0.5
    weights = 1.0 - x**3 * (10 - 15 * x + 6 * x**2)
    steepness = 30.0 * x**2 * (1 - x) ** 2 / 0.5
    density = r**2 * (1.0 + GAIN * weights) ** power
    wanted = density * values(weights, steepness)
    inside = np.searchsorted(BINS, weights) - 1
    return np.bincount(inside, wanted, len(BINS) - 1) / np.bincount(inside, density, len(BINS) - 1)


def test_no_drift_under_the_exact_compensation(hybrids):
    """Zero in every bin, within errors that are neither too small nor too large: chi² over seeds is 1."""
    squares, work = [], []
    for seed in range(6):
        found = mean_force(hybrids["exact"], independent_frames(hybrids["exact"], 30, seed))
        assert (found.expected == 0).all()
        squares += [*found.sigmas**2, *(found.force / found.force_error) ** 2]
        work.append(found.work[0] / found.work[1])
        assert np.abs(found.sigmas).max() < 4
        # What is found to be zero would show: the force without compensation is many times the error.
        assert (exact_slope(found.weights) > 5 * found.slope_error).all()
    assert np.mean(squares) == pytest.approx(1.0, abs=0.45)
    assert np.abs(work).max() < 4


def test_without_compensation_it_is_what_the_theory_says(hybrids):
    """3/2 kT g/(1 + lambda g) d lambda/dr, outwards, bin by bin; tens of errors away from zero."""
    hybrid = hybrids["nothing"]
    found = mean_force(hybrid, independent_frames(hybrid, 120, 11, power=-1.5))
    slope = exact_means(hybrid, -1.5, lambda weights, _: exact_slope(weights))
    force = exact_means(hybrid, -1.5, lambda weights, steepness: exact_slope(weights) * steepness)
    assert (np.abs(found.slope - slope) < 4 * found.slope_error).all()
    assert (np.abs(found.force - force) < 4 * found.force_error).all()
    assert np.abs(found.sigmas).max() > 20 and (found.sigmas > 8).all()
    work, error = found.work
    # Bins have a width: their means stand for the integral to 2 %.
    assert work == pytest.approx(1.5 * THERMAL * np.log(SCALE), abs=4 * error + 0.02 * work)
    assert work > 30 * error
    expected = _numbers()
    assert (np.abs(found.molecules - expected) < 4 * np.sqrt(expected / found.n_frames)).all()


def _numbers():
    """Molecules in each bin without compensation: shells of the density (1 + lambda g)^(−3/2)."""
    axis = (np.arange(80) + 0.5) / 80 * BOX - BOX / 2
    r = np.sqrt(sum(np.meshgrid(*3 * [axis**2])))
    x = np.clip((r - 0.2) / 0.5, 0, 1)
    weights = 1.0 - x**3 * (10 - 15 * x + 6 * x**2)
    density = (1.0 + GAIN * weights) ** -1.5
    inside = (weights > 0) & (weights < 1)
    place = np.searchsorted(BINS, weights[inside]) - 1
    return MOLECULES * np.bincount(place, density[inside], len(BINS) - 1) / density.sum()


def test_the_wrong_sign_of_the_compensation_doubles_the_force(gas, hybrids):
    """Negative control: a compensation that pushes the wrong way is not taken for none."""
    wrong = dataclasses.replace(EXACT, values={"GAS": -EXACT.values["GAS"]})
    frames = independent_frames(hybrids["exact"], 30, 3)
    ratio = mean_force(hybrid_of(gas, wrong), frames).slope / mean_force(hybrids["nothing"], frames).slope
    np.testing.assert_allclose(ratio, 2.0, atol=0.3)


def test_the_force_is_that_of_the_engine(gas, hybrids):
    """Slope times |d lambda/dr| against central differences of lambda and the engine's own force."""
    hybrid = hybrids["nothing"]
    positions = independent_frames(hybrid, 2, 5)[0]
    weights = hybrid.zones.weights(torch.tensor(positions), torch.tensor(gas.box_vectors)).numpy()
    oxygen = next(i for i in range(1, len(weights), 2) if 0.2 < weights[i] < 0.8)
    # Only this molecule in the zone: the others are put far away.
    alone = positions.copy()
    alone[1:] = positions[0] + 0.95 * np.array([1.0, 1.0, 1.0])
    alone[oxygen : oxygen + 2] = positions[oxygen : oxygen + 2]
    found = mean_force(hybrid, np.array([alone, alone]), weight_edges=(0.0, 1.0))
    context = openmm.Context(
        hybrid.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(alone)
    state = context.getState(forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    outwards = alone[oxygen] - alone[0]
    outwards -= BOX * np.round(outwards / BOX)
    outwards /= np.linalg.norm(outwards)
    # The spring pulls its two ends in opposite directions: of the whole molecule lambda's force is left.
    assert forces[oxygen : oxygen + 2].sum(axis=0) @ outwards == pytest.approx(found.force[0], rel=1e-9)
    assert found.molecules[0] == 1.0


def test_errors_of_correlated_frames():
    """Frames that repeat each other: chi² is 1; with as many independent ones as frames, several times 1."""
    memory, squares, naive = 0.9, [], []
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2000, 2, 300))
    for k in range(1, len(noise)):
        noise[k] = memory * noise[k - 1] + np.sqrt(1 - memory**2) * noise[k]
    # Numbers that fluctuate, and sums that fluctuate with them: what is left over is the mean's error.
    counts = 20.0 + 4.0 * noise[:, 0]
    sums = counts * (1.5 + 0.3 * noise[:, 1])
    for frames, found in ((slice(None), squares), (generator.permutation(len(noise)), naive)):
        mean, error = mean_and_error(sums[frames], counts[frames])
        found += [*((mean - 1.5) / error) ** 2]
    assert np.mean(squares) == pytest.approx(1.0, abs=0.25)
    assert np.mean(naive) > 10.0


def test_at_constant_density_it_balances_the_pressure(gas):
    """expected = −p'(lambda)/rho from the pressures of the calibration; the error is that of its <Delta>."""

    def of(mode, pressures, **facts):
        samples = [
            {"weight": w, "pressure": p, "difference_error": 0.1, "density": 30.0}
            for w, p in zip(np.linspace(0, 1, len(pressures)), pressures, strict=True)
        ]
        compensation = dataclasses.replace(EXACT, facts={"mode": mode, "samples": samples, **facts})
        hybrid = hybrid_of(gas, compensation)
        return mean_force(hybrid, independent_frames(hybrid, 4, 1))

    line = of("density", (1.0, 501.0, 1001.0))
    np.testing.assert_allclose(line.expected, -1000.0 * BAR_NM3 / 30.0)
    assert "balances the pressure" in str(line)
    two = of("density", (1.0, 1001.0))
    # Straight between two knots: errors of 0.1 weighted with 1 − lambda and lambda.
    np.testing.assert_allclose(two.expected_error, 0.1 * np.hypot(1 - two.weights, two.weights))
    sine = of("density", 100.0 * np.sin(np.pi * np.linspace(0, 1, 21)))
    exact = -100.0 * np.pi * np.cos(np.pi * sine.weights) * BAR_NM3 / 30.0
    np.testing.assert_allclose(sine.expected, exact, atol=1e-3)
    still = of("pressure", (1.0, 1001.0))
    assert (still.expected == 0).all() and "pressure" not in str(still)
    refined = of("density", (1.0, 1001.0), refinements=1)
    assert np.isnan(refined.expected).all() and np.isfinite(refined.slope).all()


def test_bad_arguments_are_rejected(gas, hybrids):
    frames = independent_frames(hybrids["exact"], 2, 0)
    for arguments, message in (
        ({"frames": frames[0]}, r"frames of shape \(F, 301, 3\)"),
        ({"weight_edges": (0.1, 1.0)}, "weight_edges that rise from 0 to 1"),
        ({"kind": "HOH"}, "kind = GAS, but got 'HOH'"),
    ):
        with pytest.raises(ConfigError, match=message):
            mean_force(**({"hybrid": hybrids["exact"], "frames": frames} | arguments))
    region = region_from_atoms(gas.topology, range(1, 3), "molecule")
    still = hybrid_system(gas, mlmm.hard_zones(gas, region), ForceFieldPotential(gas), scheme="per_atom")
    with pytest.raises(ConfigError, match="a zone that moves, but got one that stays"):
        mean_force(still, frames)


def test_empty_bins_are_empty(hybrids):
    """No molecule, no mean; the table leaves it blank."""
    hybrid = hybrids["exact"]
    frames = independent_frames(hybrid, 2, 0)
    frames[:, 1:] = frames[:, :1] + 0.9
    found = mean_force(hybrid, frames)
    assert isinstance(found, MeanForce)
    assert (found.molecules == 0).all() and np.isnan(found.slope).all() and np.isnan(found.work[0])
    assert "nan" not in str(found).splitlines()[1]
