"""Dynamics: energy conserved to second order, resumed runs identical, temperature right."""

from __future__ import annotations

import signal

import numpy as np
import openmm
import pytest
from energy_noise import energy_noise
from openmm import unit
from toys import PlainSprings, SpringPotential, Swirl, WrongForces, chains

import mlmm
from mlmm.dynamics.drift import energy_drift
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Minimise, NVECheck, Produce
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.units import GAS_CONSTANT
from mlmm.validation.check import check_drift
from mlmm.zones.region import region_from_atoms, select_region
from mlmm.zones.static import hard_zones


def chain_hybrid(potential=None, **changes):
    built = chains(**changes)
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    return hybrid_system(built, zones, potential or SpringPotential())


def test_energy_error_is_of_second_order_in_the_time_step(dipeptide_vacuum, ani1x):
    """Halving the step quarters the energy error of Verlet, if the force is the gradient of the energy."""
    region = select_region(dipeptide_vacuum, "all")
    hybrid = hybrid_system(dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), ani1x, scheme="additive")
    coarse, fine = (
        energy_noise(hybrid.system, dipeptide_vacuum.positions, timestep, 0.2)
        for timestep in (0.0005, 0.00025)
    )
    assert coarse / fine == pytest.approx(4.0, abs=0.8)


def test_energy_error_of_a_wrong_force_is_not():
    """Negative control: a force that misses a tenth of the energy's gradient."""
    hybrid = chain_hybrid(WrongForces(), n_molecules=1, box=None)
    right = chain_hybrid(PlainSprings(), n_molecules=1, box=None)
    noise = {}
    for name, system in (("wrong", hybrid), ("right", right)):
        noise[name] = [energy_noise(system.system, system.built.positions, dt, 0.4) for dt in (0.001, 0.0005)]
    assert noise["right"][0] / noise["right"][1] == pytest.approx(4.0, abs=0.8)
    assert noise["wrong"][0] / noise["wrong"][1] < 2.0


@pytest.mark.parametrize("bridge", ["torchforce", "pythonforce"])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, dipeptide_vacuum, bridge):
    """Bit for bit on the Reference platform: energies, frames, last state; crashed in every stage."""
    region = select_region(dipeptide_vacuum, "all")
    potential = mlmm.load_potential("ani1x", members=[0, 1])
    zones = hard_zones(dipeptide_vacuum, region)
    hybrid = hybrid_system(dipeptide_vacuum, zones, potential, scheme="additive", bridge=bridge)
    stages = [
        Minimise(max_iterations=5),
        Equilibrate("20 fs", timestep="0.5 fs"),
        Produce("30 fs", timestep="0.5 fs"),
        NVECheck("10 fs", timestep="0.5 fs"),
    ]
    intervals = {
        "report_interval": 5,
        "trajectory_interval": 10,
        "checkpoint_interval": 7,
        "platform": "Reference",
    }
    whole = simulate(hybrid, tmp_path / "whole", stages, seed=4, **intervals)
    part = tmp_path / "part"
    # Stop after the first progress report beyond these points, then go on; the checkpoint may lie in between.
    stops = [("equilibrate", 11), ("produce", 0), ("produce", 33), ("nve", 8)]
    resume = False
    for stage, step in stops:
        with pytest.raises(CrashError):
            simulate(hybrid, part, stages, seed=4, resume=resume, progress=stop_at(stage, step), **intervals)
        resume = True
    resumed = simulate(hybrid, part, stages, seed=4, resume=True, **intervals)
    assert resumed.state == whole.state == "finished"
    assert resumed.file("energies.csv").read_bytes() == whole.file("energies.csv").read_bytes()
    # The header holds the time of day; the frames follow it.
    frames = [run.file("trajectory.dcd").read_bytes()[276:] for run in (whole, resumed)]
    assert frames[0] == frames[1] and len(frames[0]) > 6 * 22 * 12
    states = [run.read_checkpoint().state for run in (whole, resumed)]
    assert states[0] == states[1]
    other = simulate(hybrid, tmp_path / "other", stages, seed=5, **intervals)
    assert other.file("energies.csv").read_bytes() != whole.file("energies.csv").read_bytes()


def test_options_of_a_run_reach_its_stages_and_its_record(tmp_path):
    hybrid = chain_hybrid(box=None)
    stages = [Equilibrate("2 fs"), Produce("4 fs", temperature="280 K")]
    options = RunOptions(timestep="1 fs", temperature="310 K", platform="reference", seed=3)
    settings = {"run": {"seed": 3}}
    run = simulate(
        hybrid, RunDirectory(tmp_path / "run", settings), stages, options, title="A", report_interval=2
    )
    summary = run.summary
    assert (summary["seed"], summary["title"], summary["platform"]) == (3, "A", "Reference")
    found = [(stage["timestep_ps"], stage["temperature"], stage["steps"]) for stage in summary["stages"]]
    assert found == [(0.001, 310.0, 2), (0.001, 280.0, 4)]
    assert len(run.file("energies.csv").read_text().splitlines()) == 1 + 1 + 2
    assert run.file("resolved.toml").read_text() == "[run]\nseed = 3\n"
    for change, message in (
        ({"report_intervall": 2}, "Did you mean 'report_interval'"),
        ({"trajectory_interval": 0}, "trajectory_interval of 1 or more"),
        ({"checkpoint_interval": -1}, "checkpoint_interval of 0 or more"),
        ({"platform": "CUDA9"}, "Choose one of these"),
        ({"ensemble": "NPT"}, "a periodic system"),
    ):
        with pytest.raises(ConfigError, match=message):
            simulate(hybrid, tmp_path / "other", stages, options, **change)
    # Nothing was made, nor replaced, for a run that cannot begin.
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match="a periodic system"):
        simulate(hybrid, run, stages, options, ensemble="NPT", overwrite=True)
    assert run.state == "finished"


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_every_signal_leaves_a_resumable_run(tmp_path, scheme):
    """SIGTERM while minimising, after the last step of a stage, within one: each resumes to the same end."""
    hybrid = chain_hybrid(box=None)
    if scheme == "per_atom":
        from toys import ForceFieldPotential, random_zones

        built = hybrid.built
        hybrid = hybrid_system(
            built, random_zones(built, 5), ForceFieldPotential(built, 1.2), scheme="per_atom"
        )
    stages = [Minimise(max_iterations=60), Equilibrate("30 fs"), Produce("30 fs"), NVECheck("20 fs")]
    intervals = {
        "report_interval": 4,
        "trajectory_interval": 10,
        "checkpoint_interval": 25,
        "platform": "Reference",
    }
    whole = simulate(hybrid, tmp_path / "whole", stages, **intervals)
    part = tmp_path / "part"
    for k, (stage, step) in enumerate([("minimise", 1), ("equilibrate", 60), ("produce", 1), ("nve", 4)]):

        def ask(now, stage=stage, step=step):
            if now.stage == stage and now.done >= step:
                signal.raise_signal(signal.SIGTERM)

        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit):
            simulate(hybrid, part, stages, resume=k > 0, progress=ask, **intervals)
        run = RunDirectory(part)
        assert run.state == "interrupted" and "SIGTERM" in run.summary["message"]
        assert signal.getsignal(signal.SIGTERM) is handler
        assert [done["name"] for done in run.summary["stages"]] == ["minimise", "equilibrate", "produce"][
            : k + (k == 1)
        ]
    run = simulate(hybrid, part, stages, resume=True, **intervals)
    assert run.state == "finished"
    assert run.file("energies.csv").read_bytes() == whole.file("energies.csv").read_bytes()
    assert run.read_checkpoint().state == whole.read_checkpoint().state
    assert len(run.summary["stages"]) == 4


class CrashError(Exception):
    """A crash at a chosen moment."""


def stop_at(stage: str, step: int):
    def progress(now):
        if now.stage == stage and now.done >= step:
            raise CrashError

    return progress


def test_temperature_of_the_thermostat():
    """Mean kinetic energy of a Langevin run is that of its temperature, within four standard errors."""
    hybrid = chain_hybrid(n_molecules=8, box=None)
    integrator = openmm.LangevinMiddleIntegrator(300, 20.0, 0.001)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(hybrid.built.positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(500)
    temperatures = []
    for _ in range(400):
        integrator.step(5)
        kinetic = context.getState(energy=True).getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        temperatures.append(2 * kinetic / (3 * 32 * GAS_CONSTANT))
    blocks = np.array(temperatures).reshape(20, 20).mean(axis=1)
    assert blocks.mean() == pytest.approx(300, abs=4 * blocks.std(ddof=1) / np.sqrt(20))
    assert blocks.std(ddof=1) / np.sqrt(20) < 10


@pytest.mark.parametrize(
    ("potential", "passes"), [(PlainSprings(), True), (Swirl(20.0), False), (Swirl(3000.0), False)]
)
def test_drift_check_tells_a_conserved_energy_from_one_that_is_not(potential, passes):
    hybrid = chain_hybrid(potential, box=None, n_molecules=3)
    report = check_drift(hybrid, nve_length="2 ps", timestep="0.5 fs", platform="Reference")
    assert report.passed is passes
    assert ("FAILED" in str(report)) is not passes


@pytest.mark.slow
def test_drift_of_the_hybrid_is_not_that_of_a_broken_one(dipeptide_water, ani1x):
    """NVE of the flexible dipeptide in water: hybrid at most twice pure MM, within two standard errors."""
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), ani1x, scheme="additive")
    run = {"equilibration": 0.5, "length": 2.0, "timestep": 0.0005}
    mm, mm_error, _ = energy_drift(dipeptide_water.system, dipeptide_water.positions, **run)
    ml, ml_error, _ = energy_drift(hybrid.system, dipeptide_water.positions, **run)
    assert abs(ml) <= 2 * abs(mm) + 2 * np.hypot(ml_error, 2 * mm_error)
