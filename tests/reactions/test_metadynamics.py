"""Metadynamics and OPES: exact profiles within their errors, resumed to the same bytes, bad input."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import openmm
import pytest
from bonded_pair import HALF, HEIGHT, MIDDLE, Well, distance, exact_profile, pair_hybrid
from openmm import app
from wells import KT, TEMPERATURE, double_well, exact_bins, metropolis

import mlmm
from mlmm.collective_variables.bind import bind_variable
from mlmm.dynamics import graph_choice
from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.growing_bias import axes_of, make_bias
from mlmm.reactions.metadynamics import Metadynamics
from mlmm.reactions.reweighted_profile import analyse_held, analyse_metadynamics
from mlmm.reactions.run import load_arrays, save_arrays
from mlmm.reactions.sampling_options import MetadynamicsOptions
from mlmm.reactions.windows import Window

OPTIONS = {
    "variables": "d",
    "low": "0.18 nm",
    "high": "0.42 nm",
    "width": "0.012 nm",
    "height": "0.8 kJ/mol",
    "bias_factor": 8.0,
    "barrier": "20 kJ/mol",
    "every": 50,
    "bins": 24,
    "bootstraps": 50,
}
EDGES = np.linspace(0.22, 0.38, 17)


def plain_pair() -> tuple[app.Topology, openmm.System]:
    """The pair of `bonded_pair` as a force of OpenMM, which is fast."""
    built = pair_hybrid().built
    system = openmm.System()
    for _ in range(2):
        system.addParticle(12.0)
    force = openmm.CustomBondForce(f"{HEIGHT}*(((r-{MIDDLE})/{HALF})^2-1)^2")
    force.addBond(0, 1, [])
    system.addForce(force)
    return built.topology, system


def held_samples(method: str, seed: int, growing: int, held: int) -> tuple[np.ndarray, np.ndarray]:
    """Let a bias grow in a plain System, hold it, and sample."""
    topology, system = plain_pair()
    options = MetadynamicsOptions(**OPTIONS | {"method": method})
    built = pair_hybrid().built
    axes = axes_of(options, [distance()], [bind_variable(built, distance())])
    bias = make_bias(system, axes, options, TEMPERATURE)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 10.0, 0.004)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions([[0.0, 0.0, 0.0], [0.24, 0.0, 0.0]])
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    for _ in range(growing):
        simulation.step(options.every)
        bias.deposit(simulation)
    found = []
    for _ in range(held):
        simulation.step(20)
        found.append((bias.values(simulation)[0], bias.energy(simulation.context)))
    values, energies = np.array(found).T
    return values, energies


def deviation(method: str, seed: int, growing: int = 600, held: int = 1500) -> float:
    """Of the barrier from the exact one, in standard errors."""
    values, energies = held_samples(method, seed, growing, held)
    found = analyse_held(values, energies, EDGES, TEMPERATURE, bootstraps=60)
    profile = found.profile
    exact = exact_profile(EDGES)
    assert found.crossings > 2
    assert profile.barrier is not None
    step, error = profile.barrier
    assert error < 2.5
    return (step - profile.step(exact)) / error


@pytest.mark.parametrize("method", ["well_tempered", "opes"])
def test_a_held_bias_gives_the_exact_profile_within_its_error(method):
    assert abs(deviation(method, 1)) < 3


def test_gaussians_become_lower_where_the_bias_is_high():
    """Deposited in one place, V grows by h exp(-V/k(T' - T)), far below the sum of the first heights."""
    topology, system = plain_pair()
    options = MetadynamicsOptions(**OPTIONS)
    axes = axes_of(options, [distance()], [bind_variable(pair_hybrid().built, distance())])
    bias = make_bias(system, axes, options, TEMPERATURE)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, system, openmm.VerletIntegrator(0.001), platform)
    simulation.context.setPositions([[0.0, 0.0, 0.0], [0.24, 0.0, 0.0]])
    expected = 0.0
    for _ in range(60):
        bias.deposit(simulation)
        expected += options.height * np.exp(-expected / (KT * (options.bias_factor - 1)))
    assert bias.energy(simulation.context) == pytest.approx(expected, rel=5e-3)
    assert expected < 0.6 * 60 * options.height


@pytest.mark.slow
@pytest.mark.parametrize("method", ["well_tempered", "opes"])
def test_errors_are_honest(method):
    """95 % of 20 seeds inside 2 sigma."""
    off = np.array([deviation(method, seed, held=4000) for seed in range(10, 30)])
    assert (np.abs(off) < 2).mean() >= 0.95
    assert 0.4 < np.sqrt(np.mean(off**2)) < 1.3


def test_weights_of_a_static_bias_are_exact():
    """Known bias: 40 seeds, 95 % inside 2 sigma as far as 40 can tell; without weights far off."""
    bias = Window(0.0, 3600.0)
    edges = np.linspace(-0.13, 0.13, 14)
    exact = exact_bins(double_well, edges)
    samples = metropolis(double_well, [bias], range(40), 2000, step=0.06)[:, 0]
    off, wrong = [], []
    for x in samples:
        energy = 0.5 * bias.force_constant * x**2
        found = analyse_held(x, energy, edges, TEMPERATURE, bootstraps=40).profile
        height, error = found.barrier
        off.append((height - found.step(exact)) / error)
        unweighted = analyse_held(x, np.zeros_like(x), edges, TEMPERATURE, bootstraps=40).profile
        wrong.append((unweighted.step(unweighted.values) - unweighted.step(exact)) / error)
    assert (np.abs(off) < 2).mean() >= 0.9
    assert 0.7 < np.sqrt(np.mean(np.square(off))) < 1.3
    assert abs(np.sum(wrong)) / np.sqrt(40) > 10


def run(folder, method: str = "well_tempered", **changes) -> Metadynamics:
    options = MetadynamicsOptions(**OPTIONS | {"method": method} | changes)
    protocol = ProtocolOptions(minimise=20, equilibrate="0.1 ps", produce="6 ps")
    settings = RunOptions(
        timestep="4 fs",
        friction="10 /ps",
        platform="Reference",
        seed=5,
        checkpoint_interval=200,
        trajectory_interval=100,
        report_interval=25,
    )
    return Metadynamics(pair_hybrid(), folder, options, protocol, settings, [distance()])


@pytest.mark.parametrize("method", ["well_tempered", "opes"])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, method):
    """Killed while the bias grows and while it is held."""
    whole = tmp_path / "whole"
    run(whole, method).sample()
    killed = tmp_path / "killed"
    calls, values = [0], app.Simulation.step

    def dying(self, steps):
        calls[0] += 1
        if calls[0] in (11, 30):
            raise KeyboardInterrupt
        return values(self, steps)

    monkeypatch.setattr(app.Simulation, "step", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(killed, method).sample()
    run(killed, method).sample()
    table = (whole / "variables.csv").read_bytes()
    assert (killed / "variables.csv").read_bytes() == table
    assert (killed / "trajectory.dcd").stat().st_size == (whole / "trajectory.dcd").stat().st_size
    rows = np.genfromtxt(whole / "variables.csv", delimiter=",", names=True)
    assert len(rows) == 30
    assert rows["held"].sum() == 15
    # The bias has grown from nothing.
    assert rows["bias"][0] == pytest.approx(0.0 if method == "well_tempered" else -20.0, abs=1e-6)
    assert rows["bias"].max() > rows["bias"][0] + 1.0


def test_a_run_goes_on_where_the_platform_has_changed(tmp_path, monkeypatch, caplog):
    """From the same place with the bias that it had; not from a checkpoint without positions."""
    calls, step = [0], app.Simulation.step

    def dying(self, steps):
        calls[0] += 1
        if calls[0] == 12:
            raise KeyboardInterrupt
        return step(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(app.Simulation, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path).sample()
    other = run(tmp_path)
    other.run = dataclasses.replace(other.run, platform="CPU")
    file = tmp_path / "bias.npz"
    there = load_arrays(file)
    save_arrays(file, {name: value for name, value in there.items() if name != "positions"})
    with pytest.raises(ConfigError, match="a checkpoint of this platform and precision"):
        other.sample()
    save_arrays(file, there)
    begun = []

    def watched(self, steps):
        begun.append(self.context.getState(positions=True).getPositions(asNumpy=True)._value)
        step(self, steps)

    monkeypatch.setattr(app.Simulation, "step", watched)
    other.sample()
    assert "positions and velocities only" in caplog.text
    assert begun[0] == pytest.approx(there["positions"], abs=1e-9)
    rows = np.genfromtxt(tmp_path / "variables.csv", delimiter=",", names=True)
    assert list(np.diff(rows["step"])) == [50] * 29 and rows["bias"].max() > 1.0


@pytest.mark.parametrize("times", [[2.0, 1.0], [1.0, 2.0]])
def test_the_choice_of_the_equilibration_about_cuda_graphs_is_kept(tmp_path, monkeypatch, times):
    """Also by a run that goes on, whatever is remembered or would be measured by then."""
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(graph_choice, "GRAPH_PLATFORM", "Reference")
    monkeypatch.setattr(graph_choice, "evaluation_times", lambda sides: times)
    monkeypatch.setattr(Well, "capturable", True, raising=False)
    used, create = [], HybridSystem.create_system

    def watched(self, *arguments, **changes):
        used.append(self.cuda_graphs)
        return create(self, *arguments, **changes)

    def dying(self, steps):
        raise KeyboardInterrupt

    monkeypatch.setattr(HybridSystem, "create_system", watched)
    with monkeypatch.context() as patch:
        patch.setattr(app.Simulation, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run").sample()
    (remembered,) = (tmp_path / "cache/graphs").iterdir()
    remembered.unlink()
    monkeypatch.setattr(graph_choice, "evaluation_times", lambda sides: times[::-1])
    run(tmp_path / "run").sample()
    assert used == [times[1] < times[0]] * 2
    assert not list((tmp_path / "cache/graphs").iterdir())


def test_frames_are_written_when_the_trajectory_says(tmp_path):
    """Every 30 steps beside Gaussians every 50: frame k belongs to step 30 k, as the file's header says."""
    made = run(tmp_path)
    made.run = dataclasses.replace(made.run, trajectory_interval=30)
    made.sample()
    frames = DCDFrames(tmp_path / "trajectory.dcd", 2)
    header = (tmp_path / "trajectory.dcd").read_bytes()[:24]
    assert struct.unpack("<i", header[16:20])[0] == 30
    assert len(frames) == made.stage.steps // 30
    rows = np.genfromtxt(tmp_path / "variables.csv", delimiter=",", names=True)
    assert rows["step"][:3].tolist() == [50, 100, 150]
    for step in (150, 300, 450):
        positions, _ = frames[step // 30 - 1]
        found = float(np.linalg.norm(positions[0] - positions[1]))
        assert found == pytest.approx(rows["d"][rows["step"] == step][0], abs=1e-5)
    first = float(np.linalg.norm(np.subtract(*frames[0][0])))
    assert abs(first - rows["d"][0]) > 1e-5


def test_a_folder_is_analysed(tmp_path):
    """A table as a run writes it, for two variables: profile, result and a map."""
    generator = np.random.default_rng(0)
    record = {
        "axes": [
            {"variable": name, "unit": "nm", "low": -0.3, "high": 0.3, "period": 0.0} for name in ("x", "y")
        ],
        "settings": {"options": {"method": "opes"}, "temperature": TEMPERATURE},
    }
    (tmp_path / "metadynamics.json").write_text(json.dumps(record))
    rows = ["step,time_ps,x,y,bias,held"]
    for k in range(2000):
        x, y = generator.normal(0, 0.08, 2)
        rows.append(f"{k},{k},{x},{y},{0.5 * KT / 0.08**2 * x**2},{int(k > 99)}")
    (tmp_path / "variables.csv").write_text("\n".join(rows) + "\n")
    found = analyse_metadynamics(tmp_path, bins=10, bootstraps=30)
    assert found.samples == pytest.approx(1900, abs=3)
    middle = np.abs(found.profile.centres) < 0.15
    # The bias undoes the well of x altogether.
    flat = found.profile.values[middle] - found.profile.values[middle].mean()
    assert np.abs(flat / found.profile.errors[middle].clip(0.3)).max() < 4
    assert json.loads((tmp_path / "result.json").read_text())["variable"] == "x"
    assert (tmp_path / "map.csv").read_text().count("\n") == 101


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variables": ()}, "one or two variables"),
        ({"low": ()}, "1 in low"),
        ({"low": "0.5 nm"}, "low below high"),
        ({"width": "1 degree"}, "length"),
        ({"variables": "e"}, "a variable that is defined"),
        ({"every": 1000}, "20 times"),
        ({"bias_factor": 1.0}, "above 1"),
    ],
)
def test_bad_input_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **changes)


def test_other_settings_are_refused(tmp_path):
    run(tmp_path / "there").sample()
    with pytest.raises(ConfigError, match="others in"):
        run(tmp_path / "there", height="2 kJ/mol").sample()


def test_torsions_and_lengths_do_not_go_together():
    options = MetadynamicsOptions(
        variables=["phi", "d"],
        low=["-180 degree", "0.1 nm"],
        high=["180 degree", "0.3 nm"],
        width=["20 degree", "0.01 nm"],
    )
    phi = mlmm.Variable("phi", "torsion", [[0], [1], [2], [3]])
    from toys import chains

    own = chains(box=None)
    with pytest.raises(ConfigError, match="go around a circle"):
        axes_of(options, [phi, distance()], [bind_variable(own, phi), bind_variable(own, distance())])
