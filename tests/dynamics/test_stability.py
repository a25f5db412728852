"""Runs that explode end with a sentence; matter that fluctuates, reacts or is strained is left alone."""

from __future__ import annotations

import re

import mdtraj
import numpy as np
import pytest
from runs import chain_hybrid, run_in
from toys import SpringPotential

import mlmm
from mlmm.dynamics.beside import Beside
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.stability import StabilityCheck, largest_kinetic_energy
from mlmm.errors import SimulationError
from mlmm.units import GAS_CONSTANT

CARBON = 12.0


def velocities(kinetic: np.ndarray) -> np.ndarray:
    """Velocities of carbon atoms with these kinetic energies, kJ/mol, in directions of their own."""
    directions = np.random.default_rng(2).normal(size=(len(kinetic), 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    return np.sqrt(2 * np.asarray(kinetic) / CARBON)[:, None] * directions


@pytest.fixture(scope="module")
def hybrid():
    return chain_hybrid(n_molecules=6, box=4.0)


def problem(hybrid, kinetic=None, positions=None, temperature=300.0):
    kinetic = np.zeros(hybrid.built.n_atoms) if kinetic is None else kinetic
    positions = hybrid.built.positions if positions is None else positions
    found = StabilityCheck(hybrid)
    return found.problem(positions, velocities(kinetic), hybrid.built.box_vectors, temperature)


def test_a_thermal_fluctuation_stays_below_the_bound():
    """Of a million draws each; a bound of five standard deviations would be passed by small molecules."""
    draws = np.random.default_rng(1)
    for freedom in (3, 6, 66, 6000):
        energies = 0.5 * GAS_CONSTANT * 300.0 * draws.chisquare(freedom, 1_000_000)
        assert energies.max() < largest_kinetic_energy(freedom, 300.0)
        five = 0.5 * GAS_CONSTANT * 300.0 * (freedom + 5 * np.sqrt(2 * freedom))
        assert (energies > five).any() or freedom > 66
    # For many atoms it is close to the mean: 5 % at 66,000 degrees of freedom.
    mean = 0.5 * GAS_CONSTANT * 300.0 * 66000
    assert 1.0 < largest_kinetic_energy(66000, 300.0) / mean < 1.06


def test_reactions_are_no_explosion_and_twice_their_energy_is(hybrid):
    """The strongest bond on one atom, 140 kJ/mol for each atom of the region, bonds of any length in it."""
    kinetic = np.zeros(hybrid.built.n_atoms)
    kinetic[0] = 1077.0
    assert problem(hybrid, kinetic) is None
    kinetic[:4] = 140.0
    assert problem(hybrid, kinetic) is None
    torn = np.array(hybrid.built.positions)
    torn[0] += [0, 0, 1.0]
    assert problem(hybrid, positions=torn) is None
    kinetic[:] = 0.0
    kinetic[0] = 2 * 1077.0
    found = problem(hybrid, kinetic)
    assert "up to 2,154 kJ/mol on CH01:C0" in found
    kinetic[:4] = 2 * (140.0 + 1077.0 / 4)
    assert problem(hybrid, kinetic).startswith("the region at 65,")
    kinetic = np.full(hybrid.built.n_atoms, 0.5 * (150.0 + 25.0))
    assert problem(hybrid, kinetic) is None
    assert "the system at" in problem(hybrid, 4 * kinetic)


def test_bonds_of_the_force_field_do_not_break(hybrid):
    """k = 2e4 kJ/mol/nm²: more than the strongest bond holds beyond 0.15 + 0.33 nm; images are no stretch."""
    apart = np.array(hybrid.built.positions)
    apart[5] += [0, 4.0, 0]
    assert problem(hybrid, positions=apart) is None
    direction = apart[7] - apart[6]
    length = np.linalg.norm(direction)
    for stretched, found in ((0.45, None), (0.55, "bonds of up to 0.55 nm, between CH12:C2 and CH12:C3")):
        moved = np.array(hybrid.built.positions)
        moved[7] = moved[6] + direction / length * stretched
        assert problem(hybrid, positions=moved) == found


@pytest.mark.parametrize(("distance", "close"), [(0.05, False), (0.03, True)])
def test_atoms_upon_each_other(hybrid, distance, close):
    for image in (0.0, 4.0):
        moved = np.array(hybrid.built.positions)
        moved[3] = moved[0] + [distance, image, 0]
        found = problem(hybrid, positions=moved)
        assert ("CH01:C0 and CH01:C3" in found) if close else found is None


@pytest.fixture(scope="module")
def dipeptide(dipeptide_vacuum):
    zones = mlmm.hard_zones(dipeptide_vacuum, mlmm.select_region(dipeptide_vacuum, "all"))
    potential = mlmm.load_potential("ani1x", members=[0])
    return mlmm.hybrid_system(dipeptide_vacuum, zones, potential, scheme="additive")


def dynamics(folder, hybrid, timestep, **changes):
    stages = [mlmm.Minimise(max_iterations=20), mlmm.Equilibrate("0.5 ps"), mlmm.Produce("0.5 ps")]
    options = {"timestep": timestep, "seed": 1, "report_interval": 1000, "platform": "Reference"}
    return mlmm.simulate(hybrid, folder, stages, **options | changes)


def test_steps_that_are_too_long_end_the_run_with_a_frame(tmp_path, dipeptide):
    """ANI-1x at 2.5 fs: 40,000 K, finite all along, and cool again at the end."""
    with pytest.raises(SimulationError, match=r"the region at \d\d,\d\d\d K.* at step \d+ of stage") as ended:
        dynamics(tmp_path / "run", dipeptide, "2.5 fs")
    for named in ("kJ/mol on", "smaller time step", "minimise", "equilibrate", "last_finite_frame.pdb"):
        assert named in str(ended.value)
    run = RunDirectory(tmp_path / "run")
    assert run.state == "failed" and "at step" in run.summary["message"]
    frame = mdtraj.load(str(run.file("last_finite_frame.pdb"))).xyz[0]
    assert np.isfinite(frame).all() and np.abs(frame - dipeptide.built.positions).max() > 0.05


def test_looks_beside_a_run_end_it_with_the_same_words_and_frame(tmp_path, dipeptide, monkeypatch):
    """As on a GPU, where the run goes on meanwhile: step, temperature, atoms and last good frame."""
    ends, frames, calls = [], [], []
    made = Beside.__init__
    monkeypatch.setattr(
        Beside, "__init__", lambda own, threaded: (calls.append(threaded), made(own, threaded))[1]
    )
    for beside in (False, True):
        monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform, own=beside: own)
        with pytest.raises(SimulationError) as ended:
            dynamics(tmp_path / str(beside), dipeptide, "2.5 fs")
        ends.append(re.search(r"the region at .* at step \d+ of stage \w+", str(ended.value)).group())
        frames.append((tmp_path / str(beside) / "last_finite_frame.pdb").read_text())
        run = RunDirectory(tmp_path / str(beside))
        assert run.state == "failed" and run.read_checkpoint().step == 0
        assert set(calls) == {beside}
        calls.clear()
    assert ends[0] == ends[1] and frames[0] == frames[1]


def test_a_key_leaves_it_at_a_warning_once_for_each_stage(tmp_path, dipeptide):
    run = dynamics(tmp_path / "run", dipeptide, "2.5 fs", unstable="warn")
    said = [warning for warning in run.summary["warnings"] if "is not stable" in warning]
    assert run.state == "finished" and 1 <= len(said) <= 2
    assert said[0].startswith("stage equilibrate is not stable: the region at")


def test_tested_steps_raise_no_alarm(tmp_path, dipeptide):
    assert dynamics(tmp_path / "run", dipeptide, "0.5 fs").state == "finished"


def test_no_alarm_for_few_atoms_hot_or_cold_under_any_ensemble(tmp_path):
    """Four atoms in stiff springs, 2,000 steps at 1 and 1500 K; a barostat; no thermostat."""
    four = chain_hybrid(SpringPotential(k=1e5), n_molecules=1)
    for temperature in ("1 K", "1500 K"):
        for friction in ("0.1 /ps", "50 /ps"):
            run = run_in(
                tmp_path / f"{temperature}{friction}",
                four,
                "1 ps",
                temperature=temperature,
                friction=friction,
                report_interval=500,
                checkpoint_interval=5000,
                trajectory_interval=5000,
            )
            assert run.state == "finished" and not run.summary["warnings"]
    boxed = chain_hybrid(box=2.1)
    assert run_in(tmp_path / "npt", boxed, ensemble="NPT").state == "finished"
    assert run_in(tmp_path / "nve", boxed, ensemble="NVE").state == "finished"


def test_what_is_beyond_a_bound_can_be_nan(hybrid):
    kinetic = np.full(hybrid.built.n_atoms, np.nan)
    assert "nan K" in problem(hybrid, kinetic)
