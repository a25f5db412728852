"""Constant pressure: volumes of an ideal gas, whole molecules, and a state that a checkpoint holds."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from chain_hybrids import chain_hybrid
from openmm import app
from toys import SpringPotential, chains

from mlmm.build import BuiltSystem
from mlmm.cli.program import main
from mlmm.collective_variables.bind import bind
from mlmm.collective_variables.openmm_forces import bias_forces
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.dynamics.barostat import INTERVAL, Barostat
from mlmm.dynamics.integrators import multiple_time_steps
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Minimise, NVECheck, Produce
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.units import BAR_NM3, GAS_CONSTANT
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

REFERENCE = openmm.Platform.getPlatformByName("Reference")
EDGE = 3.0


def gas(atoms: int, joined: bool = False, stiffness: float = 0.0) -> openmm.Context:
    """Atoms without interactions, in pairs if `joined`; energy of stiffness (kJ/mol/nm^3) times volume."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors([EDGE, 0, 0], [0, EDGE, 0], [0, 0, EDGE])
    for _ in range(atoms):
        system.addParticle(10.0)
    if joined:
        bonds = openmm.HarmonicBondForce()
        for i in range(0, atoms, 2):
            bonds.addBond(i, i + 1, 0.1, 1e5)
        bonds.setUsesPeriodicBoundaryConditions(True)
        system.addForce(bonds)
    system.addForce(openmm.CustomVolumeForce(f"{stiffness}*v"))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), REFERENCE)
    positions = np.random.default_rng(1).uniform(0, EDGE, (atoms, 3))
    if joined:
        positions[1::2] = positions[::2] + np.array([0.1, 0, 0])
    context.setPositions(positions)
    return context


@pytest.mark.parametrize(
    ("atoms", "joined", "stiffness"), [(6, False, 0.0), (12, True, 0.0), (6, False, 0.6)]
)
def test_volume_of_an_ideal_gas(atoms, joined, stiffness):
    """p(V) ~ V^n exp(-(p + a) V / k_B T): <V> = (n + 1) k_B T / (p + a), n counts molecules."""
    pressure, temperature = 10.0, 300.0
    context = gas(atoms, joined, stiffness)
    # Large moves from the start; some of them would leave no volume at all.
    facts = {"scale": 25.0, "attempted": 0, "accepted": 0, "moves": 0, "changes": 0}
    barostat = Barostat(context, context.getIntegrator(), pressure, temperature, seed=7, facts=facts)
    volumes = []
    for k in range(4000):
        barostat.move(k * INTERVAL)
        volumes.append(context.getState().getPeriodicBoxVolume()._value)
    blocks = np.array(volumes).reshape(25, -1).mean(axis=1)
    error = blocks.std(ddof=1) / 5
    molecules = atoms // 2 if joined else atoms
    exact = (molecules + 1) * GAS_CONSTANT * temperature / (BAR_NM3 * pressure + stiffness)
    assert blocks.mean() == pytest.approx(exact, abs=4 * error)
    assert 4 * error < exact / (molecules + 1)  # n in place of n + 1 would show
    assert 0.2 < barostat.facts["changes"] / barostat.facts["moves"] < 0.8


def test_a_restraint_joins_no_molecules_under_pressure():
    """A wall that nothing touches, on the centre of atoms of an ideal gas: <V> stays that of six molecules.

    OpenMM takes the four for one molecule; with that (control) it would be that of three.
    """
    built = BuiltSystem.from_openmm(*ideal_gas(6))
    far = Restraint(Variable("d", "distance", [[0, 1, 2], [3]]), 50.0, 1.0, "upper")
    biases = bind(built, [far])
    for molecules in ([[k] for k in range(6)], None):
        system = copy.deepcopy(built.system)
        for force in bias_forces(biases):
            system.addForce(force)
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), REFERENCE)
        context.setPositions(built.positions)
        facts = {"scale": 25.0, "attempted": 0, "accepted": 0, "moves": 0, "changes": 0}
        barostat = Barostat(context, context.getIntegrator(), 10.0, 300.0, 7, facts, molecules)
        volumes = []
        for k in range(4000):
            barostat.move(k * INTERVAL)
            volumes.append(context.getState().getPeriodicBoxVolume()._value)
        blocks = np.array(volumes).reshape(25, -1).mean(axis=1)
        count = 6 if molecules else 3
        exact = (count + 1) * GAS_CONSTANT * 300 / (BAR_NM3 * 10.0)
        assert blocks.mean() == pytest.approx(exact, abs=4 * blocks.std(ddof=1) / 5)


def ideal_gas(atoms: int) -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Carbon atoms in a box, with a force that is always 0."""
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    for k in range(atoms):
        topology.addAtom("C", app.element.carbon, topology.addResidue(f"C{k}", chain))
        system.addParticle(12.011)
    system.setDefaultPeriodicBoxVectors([EDGE, 0, 0], [0, EDGE, 0], [0, 0, EDGE])
    nothing = openmm.NonbondedForce()
    nothing.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nothing.setCutoffDistance(0.01)
    for _ in range(atoms):
        nothing.addParticle(0.0, 1.0, 0.0)
    system.addForce(nothing)
    # Inside one image of the box, as the centre of some of them asks for.
    return topology, system, np.random.default_rng(1).uniform(0, 0.49 * EDGE, (atoms, 3))


def test_molecules_move_whole_with_their_centres():
    context = gas(8, joined=True, stiffness=0.0)
    before = context.getState(positions=True).getPositions(asNumpy=True)._value
    barostat = Barostat(context, context.getIntegrator(), 1.0, 300.0, seed=1)
    assert not barostat.move(INTERVAL - 1)
    assert next(barostat.move(k * INTERVAL) for k in range(1, 20))
    state = context.getState(positions=True)
    after = state.getPositions(asNumpy=True)._value
    length = state.getPeriodicBoxVectors(asNumpy=True)._value[0, 0] / EDGE
    assert abs(length - 1) > 1e-5
    assert np.abs((after[1::2] - after[::2]) - (before[1::2] - before[::2])).max() < 1e-14
    assert np.abs((after[1::2] + after[::2]) - length * (before[1::2] + before[::2])).max() < 1e-14


def test_a_rejected_move_leaves_no_trace():
    """An energy that forbids any other volume: box and positions keep their bits, moves get smaller."""
    context = gas(6, stiffness=0.0)
    stiff = openmm.CustomVolumeForce(f"1e12*(v-{EDGE**3})^2")
    context.getSystem().addForce(stiff)
    context.reinitialize(preserveState=True)
    barostat = Barostat(context, context.getIntegrator(), 1.0, 300.0, seed=1)
    state = context.getState(positions=True)
    assert not any(barostat.move(k * INTERVAL) for k in range(40))
    after = context.getState(positions=True)
    assert np.array_equal(after.getPositions(asNumpy=True)._value, state.getPositions(asNumpy=True)._value)
    assert after.getPeriodicBoxVolume() == state.getPeriodicBoxVolume()
    assert barostat.facts["scale"] == pytest.approx(0.01 * EDGE**3 / 1.1**4)


@pytest.mark.parametrize(
    ("nonbonded_every", "reciprocal_every", "stop_at"), [(1, 1, 33), (1, 1, 290), (2, 1, 130), (2, 2, 290)]
)
def test_resumed_run_at_constant_pressure_equals_an_uninterrupted_one(
    tmp_path, nonbonded_every, reciprocal_every, stop_at
):
    """Bit for bit on Reference, from checkpoints between moves and after the size of moves has changed."""
    stage = {
        "timestep": "0.5 fs",
        "ensemble": "NPT",
        "nonbonded_every": nonbonded_every,
        "reciprocal_every": reciprocal_every,
    }
    hybrid = chain_hybrid()
    stages = [
        Minimise(max_iterations=5),
        Produce(0.0005 * nonbonded_every * reciprocal_every * 20, name="first", **stage),
        Produce(0.0005 * nonbonded_every * reciprocal_every * 300, **stage),
        NVECheck("5 fs"),
    ]
    options = {"seed": 4, "platform": "Reference", "report_interval": 10, "checkpoint_interval": 40}
    whole = simulate(hybrid, tmp_path / "whole", stages, **options)

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.stage == "produce" and progress.done >= stop_at:
            raise StopError

    with pytest.raises(StopError):
        simulate(hybrid, tmp_path / "part", stages, progress=stop, **options)
    part = simulate(hybrid, tmp_path / "part", stages, resume=True, **options)
    assert part.file("energies.csv").read_bytes() == whole.file("energies.csv").read_bytes()
    assert part.read_checkpoint().state == whole.read_checkpoint().state
    facts = whole.summary["barostat"]
    assert part.summary["barostat"] == facts
    # On so few molecules nearly all moves are accepted, and they grow.
    assert facts["moves"] == 12 and facts["changes"] > 0 and facts["scale"] > 0.0105 * 1.6**3


def test_openmms_barostat_leaves_the_path_after_a_checkpoint():
    """Why there is one of our own: of OpenMM's, a checkpoint does not hold when its next move is due."""

    def run(steps, checkpoint=None):
        owner = gas(8)  # it has to outlive its System
        system = owner.getSystem()
        barostat = openmm.MonteCarloBarostat(10.0, 300.0)
        barostat.setRandomNumberSeed(3)
        system.addForce(barostat)
        integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
        integrator.setRandomNumberSeed(5)
        context = openmm.Context(system, integrator, REFERENCE)
        context.setPositions(np.random.default_rng(1).uniform(0, EDGE, (8, 3)))
        if checkpoint is not None:
            context.loadCheckpoint(checkpoint)
        integrator.step(steps)
        return context

    whole = run(40)
    part = run(20, run(20).createCheckpoint())
    volumes = [context.getState().getPeriodicBoxVolume()._value for context in (whole, part)]
    assert volumes[0] != EDGE**3 and volumes[1] == EDGE**3


@pytest.mark.parametrize("nonbonded_every", [1, 2])
def test_multiple_steps_know_of_a_move(nonbonded_every):
    """The path after an accepted move is that of an integrator that starts there, and no other."""
    hybrid = chain_hybrid()
    fast = [group for name, group in hybrid.force_groups.items() if name != "nonbonded"]
    paths = {}
    for kind in ("told", "new", "untold"):
        integrator = multiple_time_steps(0.0005, nonbonded_every, fast=fast, slow=0, constrained=False)
        context = openmm.Context(hybrid.system, integrator, REFERENCE)
        context.setPositions(hybrid.built.positions)
        integrator.step(1)
        barostat = Barostat(context, integrator, 1.0, 300.0, seed=1)
        assert next(k for k in range(1, 50) if barostat.move(k * INTERVAL))
        if kind == "new":
            state = context.getState(positions=True, velocities=True)
            integrator = multiple_time_steps(0.0005, nonbonded_every, fast=fast, slow=0, constrained=False)
            context = openmm.Context(hybrid.system, integrator, REFERENCE)
            context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
            context.setPositions(state.getPositions())
            context.setVelocities(state.getVelocities())
        elif kind == "untold":
            integrator.setGlobalVariableByName("ready", 1)
        integrator.step(3)
        paths[kind] = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert np.array_equal(paths["told"], paths["new"])
    assert not np.array_equal(paths["untold"], paths["new"])


def test_pressure_without_a_box_or_twice_is_refused(tmp_path):
    stages = [Produce("1 ps", ensemble="NPT")]
    with pytest.raises(ConfigError, match="periodic system for ensemble NPT"):
        simulate(chain_hybrid(box=None), tmp_path / "a", stages, platform="Reference")
    built = chains()
    built.system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    hybrid = hybrid_system(
        built, hard_zones(built, region_from_atoms(built.topology, range(4))), SpringPotential()
    )
    with pytest.raises(ConfigError, match="without a barostat"):
        simulate(hybrid, tmp_path / "b", stages, platform="Reference")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize("ensemble", ["NVT", "NPT", "NVE"])
def test_a_thermostat_in_the_system_is_refused(tmp_path, ensemble):
    built = chains()
    built.system.addForce(openmm.AndersenThermostat(300.0, 1.0))
    region = region_from_atoms(built.topology, range(4))
    hybrid = hybrid_system(built, hard_zones(built, region), SpringPotential())
    with pytest.raises(ConfigError, match=r"System without a thermostat.*AndersenThermostat.*[Rr]emove it"):
        simulate(hybrid, tmp_path / "a", [Produce("1 ps")], ensemble=ensemble, platform="Reference")
    assert not (tmp_path / "a").exists()


def test_a_pressure_that_nothing_holds_constant_is_refused(tmp_path, capsys):
    """Also the one that would be the default; in a run file before anything is built."""
    hybrid = chain_hybrid()
    for stages, options in (
        ([Produce("1 ps")], {"pressure": "1 bar"}),
        ([Produce("1 ps"), NVECheck("1 ps")], {"pressure": "2 bar", "ensemble": "NVT"}),
        ([Produce("1 ps", pressure="1 bar"), Produce("1 ps", ensemble="NPT")], {}),
    ):
        with pytest.raises(
            ConfigError, match=r"ensemble = .NPT. only.*pressure = \d bar.*leave the pressure"
        ):
            simulate(hybrid, tmp_path / "a", stages, platform="Reference", **options)
    assert not (tmp_path / "a").exists()
    file = tmp_path / "run.toml"
    file.write_text('[system]\npdb = "absent.pdb"\n[region]\nselect = "all"\n[run]\npressure = "1 bar"\n')
    assert main(["run", str(file), "--out", str(tmp_path / "a")]) == 2
    assert "pressure = 1 bar for a run under NVT" in capsys.readouterr().err
    assert main(["run", str(file), "--out", str(tmp_path / "a"), "--set", 'run.ensemble="NPT"']) == 2
    assert "absent.pdb" in capsys.readouterr().err
    filled = Produce("1 ps", ensemble="NPT").under(RunOptions(pressure="3 bar"))
    assert filled.pressure == 3.0 and filled.under(RunOptions()).pressure == 3.0
    assert Produce("1 ps", ensemble="NPT").under(RunOptions()).pressure == 1.0
