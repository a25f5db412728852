"""Multiple time steps and the search for the largest stable one: exact limits of oscillators."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from chain_hybrids import chain_hybrid
from openmm import unit
from toys import SpringPotential, chains

from mlmm.dynamics.integrators import (
    RECIPROCAL,
    beyond_tested,
    make_integrator,
    multiple_time_steps,
    separate_reciprocal,
)
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.reporters import energy_groups
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import NVECheck, Produce
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.report import write_report
from mlmm.units import FEMTOSECOND, GAS_CONSTANT
from mlmm.validation.options import TimeStepOptions
from mlmm.validation.time_steps import judge_settings, scan_time_steps
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

MASS = 10.0
GROUPS = {"nonbonded": 0, "ml": 5}
REFERENCE = openmm.Platform.getPlatformByName("Reference")


def oscillators(fast: float, slow: float = 0.0, count: int = 40) -> tuple[openmm.System, np.ndarray]:
    """Independent particles in two harmonic wells around the origin, of angular frequencies in 1/ps."""
    system = openmm.System()
    for group, frequency in ((5, fast), (0, slow)):
        well = openmm.CustomExternalForce(f"{0.5 * MASS * frequency**2!r}*(x^2+y^2+z^2)")
        well.setForceGroup(group)
        for i in range(count):
            well.addParticle(i)
        system.addForce(well)
    for _ in range(count):
        system.addParticle(MASS)
    width = np.sqrt(GAS_CONSTANT * 300 / MASS / (fast**2 + slow**2))
    return system, np.random.default_rng(2).normal(0, width, (count, 3))


def trajectory(system, integrator, positions, velocities, steps: int) -> np.ndarray:
    context = openmm.Context(system, integrator, REFERENCE)
    context.setPositions(positions)
    context.setVelocities(velocities)
    frames = []
    for _ in range(steps):
        integrator.step(1)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    return np.array(frames)


@pytest.mark.parametrize("reciprocal_every", [1, 2])
def test_one_force_rate_is_plain_verlet(reciprocal_every):
    """nonbonded_every = 1 is OpenMM's leapfrog, its velocities half a step behind; so are n steps in one."""
    hybrid = chain_hybrid(box=None)
    positions = hybrid.built.positions
    h = 0.5 * FEMTOSECOND
    velocities = np.random.default_rng(0).normal(0, 0.3, positions.shape)
    fast = [group for name, group in hybrid.force_groups.items() if name != "nonbonded"]
    ours = multiple_time_steps(h, 1, fast=fast, slow=0, constrained=False)
    context = openmm.Context(hybrid.system, openmm.VerletIntegrator(h), REFERENCE)
    context.setPositions(positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    masses = np.array([hybrid.system.getParticleMass(i)._value for i in range(len(positions))])[:, None]
    behind = velocities - 0.5 * h * forces / masses
    expected = trajectory(hybrid.system, openmm.VerletIntegrator(h), positions, behind, 40)
    found = trajectory(hybrid.system, ours, positions, velocities, 40)
    moved = np.abs(expected[-1] - positions).max()
    assert moved > 1e-3 and np.abs(found - expected).max() < 1e-10
    if reciprocal_every > 1:
        # Negative control: forces at half the rate give another path.
        other = multiple_time_steps(h, reciprocal_every, fast=fast, slow=0, constrained=False)
        coarse = trajectory(hybrid.system, other, positions, velocities, 40 // reciprocal_every)
        assert np.abs(coarse - expected[reciprocal_every - 1 :: reciprocal_every]).max() > 1e-9


def test_plain_stages_keep_openmms_own_integrators():
    for stage, kind in (
        (NVECheck("1 ps"), openmm.VerletIntegrator),
        (Produce("1 ps"), openmm.LangevinMiddleIntegrator),
        (Produce("1 ps", nonbonded_every=2), openmm.CustomIntegrator),
    ):
        assert isinstance(make_integrator(stage.under(RunOptions()), GROUPS, 1), kind)


def test_same_path_as_openmms_rrespa():
    hybrid = chain_hybrid()
    system = hybrid.create_system()
    separate_reciprocal(system)
    fast = [group for name, group in hybrid.force_groups.items() if name != "nonbonded"]
    velocities = np.random.default_rng(0).normal(0, 0.3, hybrid.built.positions.shape)
    h = 0.5 * FEMTOSECOND
    ours = multiple_time_steps(h, 2, 3, fast=fast, slow=0, constrained=False)
    theirs = openmm.MTSIntegrator(6 * h, [(RECIPROCAL, 1), (0, 3), *((group, 6) for group in fast)])
    paths = [
        trajectory(system, integrator, hybrid.built.positions, velocities, 8) for integrator in (ours, theirs)
    ]
    assert np.abs(paths[0] - paths[1]).max() < 1e-12


def test_no_force_is_evaluated_twice():
    """Counted: for each step of nonbonded_every = 2 two fast evaluations and a slow one; one more each."""
    counts = {"fast": 0, "slow": 0}

    def force(name):
        def compute(state):
            counts[name] += 1
            positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            return 0.5 * float((positions**2).sum()), -positions

        return compute

    system = openmm.System()
    system.addParticle(MASS)
    for name, group in (("fast", 5), ("slow", 0)):
        added = openmm.PythonForce(force(name))
        added.setForceGroup(group)
        system.addForce(added)
    integrator = multiple_time_steps(0.001, 2, fast=[5], slow=0, constrained=False)
    context = openmm.Context(system, integrator, REFERENCE)
    context.setPositions([[0.1, 0.0, 0.0]])
    integrator.step(10)
    assert counts == {"fast": 21, "slow": 11}


def test_energy_error_of_multiple_steps_is_of_second_order():
    system, positions = oscillators(fast=300.0, slow=60.0)
    noise = []
    for h in (0.001, 0.0005):
        integrator = multiple_time_steps(h, 2, fast=[5], slow=0, constrained=False)
        context = openmm.Context(system, integrator, REFERENCE)
        context.setPositions(positions)
        context.setVelocitiesToTemperature(300, 1)
        energies = []
        for _ in range(round(0.2 / (2 * h))):
            integrator.step(1)
            state = context.getState(energy=True)
            energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
        noise.append(np.std(energies))
    assert noise[0] / noise[1] == pytest.approx(4.0, abs=0.5)


@pytest.mark.parametrize("nonbonded_every", [1, 3])
def test_thermostat_gives_the_width_of_the_well(nonbonded_every):
    """BAOAB has no error of the step in the positions of one well: <x^2> = k_B T / (m omega^2)."""
    fast, slow = (200.0, 0.0) if nonbonded_every == 1 else (200.0, 20.0)
    system, positions = oscillators(fast, slow, count=300)
    integrator = multiple_time_steps(
        0.002, nonbonded_every, fast=[5], slow=0, temperature=300.0, friction=20.0, constrained=False
    )
    integrator.setRandomNumberSeed(4)
    context = openmm.Context(system, integrator, REFERENCE)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(300)
    squares = []
    for _ in range(40):
        integrator.step(20)
        squares.append(np.mean(context.getState(positions=True).getPositions(asNumpy=True)._value ** 2))
    exact = GAS_CONSTANT * 300 / (MASS * (fast**2 + slow**2))
    error = np.std(squares, ddof=1) / np.sqrt(len(squares))
    # The slow kick of 6 fs changes the shadow of the well by less than (slow h)^2 = 1.4 %.
    allowed = 4 * error + (0.0 if nonbonded_every == 1 else 0.005 * exact)
    assert abs(np.mean(squares) - exact) < allowed and error < 0.01 * exact


def limits(fast: float, timesteps, nonbonded_every_values=(1,), slow: float = 0.0):
    """Verdicts of settings for oscillators, by time step (fs) and nonbonded_every."""
    system, positions = oscillators(fast, slow)
    scan = judge_settings(
        lambda _: system,
        GROUPS,
        positions,
        range(40),
        TimeStepOptions(
            timesteps=[FEMTOSECOND * step for step in timesteps],
            nonbonded_every_values=nonbonded_every_values,
            length=0.5,
            equilibration=0.05,
        ),
        RunOptions(platform="Reference"),
        minimise=False,
    )
    return scan, {(round(t.timestep / FEMTOSECOND, 3), t.nonbonded_every): t.verdict for t in scan.tests}


def test_limit_of_an_oscillator_is_found():
    """Verlet follows an oscillator up to omega dt = 2, here 4 fs, with an error that grows on the way."""
    scan, verdicts = limits(500.0, (0.5, 1, 3.9))
    assert list(verdicts.values()) == ["stable", "stable", "unstable"]
    assert scan.largest().timestep == FEMTOSECOND and scan.largest() in scan.tests
    # Bounded below the limit, though useless; beyond it there is nothing to measure.
    assert np.isfinite(scan.tests[2].drift) and scan.tests[2].fluctuation > 20 * scan.tests[1].fluctuation
    beyond, verdicts = limits(500.0, (0.5, 4.1))
    assert verdicts[4.1, 1] == "unstable" and np.isnan(beyond.tests[1].drift)
    assert str(beyond).count("unstable") == 1


def test_a_slow_force_beyond_its_own_limit_is_found_unstable():
    """Negative control: omega = 700/ps in the slow loop breaks at 2.86 fs, though the inner step is fine."""
    _, verdicts = limits(50.0, (0.5,), (1, 2, 4, 8), slow=700.0)
    assert verdicts[0.5, 1] == verdicts[0.5, 2] == "stable"
    assert verdicts[0.5, 8] == "unstable"
    _, gentle = limits(700.0, (0.5,), (1, 2, 4), slow=50.0)
    assert set(gentle.values()) == {"stable"}


def test_nothing_is_recommended_that_was_not_run():
    scan, verdicts = limits(50.0, (0.5, 1), (1, 8, 20), slow=700.0)
    assert (1, 20) not in verdicts and verdicts[0.5, 8] == "unstable"
    chosen = scan.cheapest()
    assert chosen in scan.tests and chosen.verdict == "stable"


def test_settings_without_a_reference_are_refused():
    with pytest.raises(ConfigError, match="1 among them"):
        limits(50.0, (0.5,), (2, 4))
    with pytest.raises(ConfigError, match="20 whole steps"):
        limits(50.0, (0.5,), (1, 200))


def test_hybrid_is_scanned_with_a_reciprocal_sum_of_its_own():
    multiples = {"nonbonded_every_values": (1, 2), "reciprocal_every_values": (1, 2)}
    lengths = {"length": "0.1 ps", "equilibration": "0.05 ps"}
    scan = scan_time_steps(chain_hybrid(), timesteps="0.5 fs", platform="CPU", **multiples, **lengths)
    assert [(t.nonbonded_every, t.reciprocal_every) for t in scan.tests] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(np.isfinite(t.drift) for t in scan.tests)
    assert scan.tests[0].toml() == 'timestep = "0.5 fs"'
    assert scan.tests[-1].toml() == 'timestep = "0.5 fs"\nnonbonded_every = 2\nreciprocal_every = 2'


def test_energies_by_kind_add_up_with_a_reciprocal_sum_of_its_own():
    hybrid = chain_hybrid()
    system = hybrid.create_system()
    separate_reciprocal(system)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), REFERENCE)
    context.setPositions(hybrid.built.positions)
    parts = [
        context.getState(energy=True, groups=energy_groups(name, group)).getPotentialEnergy()._value
        for name, group in hybrid.force_groups.items()
    ]
    alone = context.getState(energy=True, groups={RECIPROCAL}).getPotentialEnergy()._value
    assert abs(alone) > 1
    assert sum(parts) == pytest.approx(context.getState(energy=True).getPotentialEnergy()._value, abs=1e-9)


def test_run_with_multiple_steps_resumes_to_the_same_bytes(tmp_path):
    hybrid = chain_hybrid()
    stages = [
        Produce("40 fs", timestep="0.5 fs", nonbonded_every=2, reciprocal_every=2),
        NVECheck("10 fs", timestep="0.5 fs", nonbonded_every=2),
    ]
    intervals = {"report_interval": 3, "trajectory_interval": 5, "checkpoint_interval": 4}
    options = {"seed": 4, "platform": "Reference", **intervals}
    whole = simulate(hybrid, tmp_path / "whole", stages, **options)

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.stage == "produce" and progress.done >= 11:
            raise StopError

    with pytest.raises(StopError):
        simulate(hybrid, tmp_path / "part", stages, progress=stop, **options)
    with pytest.raises(ConfigError, match="stages"):
        simulate(hybrid, tmp_path / "part", [Produce("40 fs", timestep="0.5 fs")], resume=True, **options)
    part = simulate(hybrid, tmp_path / "part", stages, resume=True, **options)
    assert part.file("energies.csv").read_bytes() == whole.file("energies.csv").read_bytes()
    facts = whole.summary["stages"]
    assert (facts[0]["nonbonded_every"], facts[0]["reciprocal_every"], facts[0]["steps"]) == (2, 2, 20)
    assert facts[0]["step_ps"] == pytest.approx(0.002) and facts[1]["steps"] == 10
    last = whole.file("energies.csv").read_text().splitlines()[-1].split(",")
    assert float(last[2]) == pytest.approx(0.05)
    page = write_report(whole.path).read_text()
    assert "Non-bonded MM every" in page and "1 fs" in page and "0.04 ps" in page


def test_forces_are_taken_anew_after_a_barostat():
    """A box that has shrunk between two steps: the kick of the next one has to know it."""
    hybrid = chain_hybrid()
    fast = [group for name, group in hybrid.force_groups.items() if name != "nonbonded"]
    found = {}
    for anew in (True, False):
        integrator = multiple_time_steps(
            0.0005, 2, fast=fast, slow=0, constrained=False, moved_between_steps=anew
        )
        context = openmm.Context(hybrid.system, integrator, REFERENCE)
        context.setPositions(hybrid.built.positions)
        integrator.step(1)
        context.setPositions(1.05 * hybrid.built.positions)
        context.setVelocities(np.zeros_like(hybrid.built.positions))
        before = context.getState(forces=True).getForces(asNumpy=True)._value
        integrator.step(1)
        velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
        masses = np.array([hybrid.system.getParticleMass(i)._value for i in range(len(before))])[:, None]
        found[anew] = np.abs(velocities * masses / 0.001 - before).max() / np.abs(before).max()
    assert found[True] < 0.05 and found[False] > 5 * found[True]


def test_multiple_steps_need_something_slow():
    with pytest.raises(ConfigError, match="non-bonded"):
        make_integrator(Produce("1 ps", nonbonded_every=2).under(RunOptions()), {"ml": 5}, 1)
    with pytest.raises(ConfigError, match="PME"):
        separate_reciprocal(chains(box=None).system)
    with pytest.raises(ConfigError, match="nonbonded_every"):
        Produce("1 ps", nonbonded_every=0)
    with pytest.raises(ConfigError, match="every 20 fs"):
        Produce("1 ps", timestep="1 fs", nonbonded_every=20)


@pytest.mark.parametrize(
    ("stage", "mass", "held", "said"),
    [
        ({"timestep": "1 fs"}, 1.008, False, ()),
        ({"timestep": "0.5 fs", "nonbonded_every": 4}, 1.008, False, ()),
        ({"timestep": "1.5 fs"}, 1.008, False, ("time step of 1.5 fs (tested up to 1)",)),
        (
            {"timestep": "1 fs", "nonbonded_every": 3},
            1.008,
            False,
            ("forces only every 3 fs (tested up to 2)",),
        ),
        ({"timestep": "1 fs", "nonbonded_every": 2, "reciprocal_every": 2}, 1.008, False, ("every 4 fs",)),
        ({"timestep": "2 fs", "nonbonded_every": 2}, 1.008, False, ("time step of 2 fs", "every 4 fs")),
        ({"timestep": "1.5 fs", "nonbonded_every": 2}, 3.0, False, ()),
        ({"timestep": "1.5 fs", "nonbonded_every": 2}, 2.0, False, ("tested up to 1)", "every 3 fs")),
        ({"timestep": "2 fs"}, 3.0, False, ("tested up to 1.5",)),
        ({"timestep": "4 fs"}, 1.008, True, ()),
    ],
)
def test_steps_beyond_those_tested_are_named(stage, mass, held, said):
    """By the lightest atom that vibrates freely: not one with constraints, nor one without mass."""
    system = openmm.System()
    for m in (0.0, mass, 16.0):
        system.addParticle(m)
    if held:
        system.addConstraint(1, 2, 0.1)
    text = beyond_tested(Produce("1 ps").under(RunOptions(**stage)), system)
    assert (text is None) == (not said)
    assert all(part in text for part in said)


def test_less_was_tested_where_lambda_moves():
    system = openmm.System()
    system.addParticle(1.008)
    stage = Produce("1 ps", timestep="1 fs").under(RunOptions())
    assert beyond_tested(stage, system) is None
    assert "time step of 1 fs (tested up to 0.5)" in beyond_tested(stage, system, adaptive=True)


def test_a_run_with_untested_steps_says_so_in_its_report(tmp_path, caplog):
    built = chains(n_molecules=2, box=None)
    built.system.setParticleMass(4, 1.0)
    hybrid = hybrid_system(
        built, hard_zones(built, region_from_atoms(built.topology, range(4))), SpringPotential()
    )
    for nonbonded_every, warned in ((2, False), (6, True)):
        run = simulate(
            hybrid,
            tmp_path / str(nonbonded_every),
            [Produce("6 fs", timestep="0.5 fs", nonbonded_every=nonbonded_every)],
            platform="Reference",
        )
        assert any("every 3 fs" in said for said in run.summary["warnings"]) is warned
        assert ("every 3 fs" in caplog.text) is warned
    assert "every 3 fs" in write_report(run.path).read_text()
