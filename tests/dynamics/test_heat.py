"""Regions that stay hot under a thermostat end a run; fluctuations and the heat of reactions do not."""

from __future__ import annotations

import re

import numpy as np
import openmm
import pytest
from runs import chain_hybrid, run_in

import mlmm.dynamics.runner as runner
from mlmm.dynamics.heat import HeatBalance, HotGroup, largest_mean_kinetic_energy
from mlmm.dynamics.stability import StabilityCheck
from mlmm.errors import SimulationError
from mlmm.units import GAS_CONSTANT

THERMAL = 0.5 * GAS_CONSTANT * 300.0
#: What the check grants to 22 atoms: the strongest bond, and 150 kJ/mol for each.
RELEASED = 1077.0 + 150.0 * 22


def velocities(freedom: int, steps: int, spacing: float, copies: int, start: float = 1.0) -> np.ndarray:
    """Exact Langevin velocities (kT/m = 1, gamma = 1), as kinetic energies over those of one freedom.

    Shape (steps, copies); all begin with `start` times the thermal velocity.
    """
    draws = np.random.default_rng(3)
    keep = np.exp(-spacing)
    now = start * draws.normal(size=(copies, freedom))
    found = np.empty((steps, copies))
    for k in range(steps):
        now = keep * now + np.sqrt(1 - keep**2) * draws.normal(size=now.shape)
        found[k] = (now**2).sum(axis=1)
    return found


def followed(energies, freedom: int, released: float, spacing: float = 0.25, friction: float = 1.0):
    """What is said of kinetic energies, kJ/mol, one every `spacing` ps, and after how many ps."""
    balance = HeatBalance([HotGroup("the region", freedom, released)])
    balance.begin(300.0, friction, 0.0)
    for k, energy in enumerate(energies, 1):
        said = balance.look([float(energy)], k * spacing)
        if said:
            return said, k * spacing
    return None


@pytest.mark.parametrize("freedom", [3, 12, 66])
def test_means_under_a_thermostat_stay_below_their_bound(freedom):
    """Of 2 x 10⁴ averages over five relaxation times; a bound of 4.5 standard errors is passed by some."""
    energies = THERMAL * velocities(freedom, 20, 0.25, 20_000).mean(axis=0)
    assert energies.max() < largest_mean_kinetic_energy(freedom, 300.0, 5.0)
    sigma = THERMAL * np.sqrt(2 * freedom / 5)
    assert energies.max() > freedom * THERMAL + 4.5 * sigma or freedom > 12
    # The definition: n gamma t (y − 1)² / (4 y) = 40.
    for relaxations in (5.0, 300.0):
        y = largest_mean_kinetic_energy(freedom, 300.0, relaxations) / (freedom * THERMAL)
        assert y > 1 and freedom * relaxations * (y - 1) ** 2 / (4 * y) == pytest.approx(40.0)
    # Long averages leave no room: 6 % for 66 degrees of freedom in 10 ns.
    mean = freedom * THERMAL
    assert largest_mean_kinetic_energy(freedom, 300.0, 1e4) < (1 + 8 / np.sqrt(freedom * 10)) * mean


@pytest.mark.parametrize("spacing", [0.25, 1.0, 10.0])
def test_equilibrium_is_never_hot(spacing):
    """80,000 looks at one atom, and at 22: no block is beyond its bound, so that nothing adds up."""
    for freedom in (3, 66):
        energies = THERMAL * velocities(freedom, 400, spacing, 200).T.ravel()
        assert followed(energies, freedom, 0.0, spacing) is None


def test_heat_is_what_a_thermostat_takes():
    """2 gamma of the excess in each ps where looks are dense; no more than the excess where they are rare."""
    excess = 3.0 * 66 * THERMAL - largest_mean_kinetic_energy(66, 300.0, 5.0)
    for spacing, per_look in ((0.01, 0.02 * np.exp(-0.01)), (20.0, 1.0)):
        # Blocks of five relaxation times, or of five looks.
        looks = 5 if spacing > 1 else 500
        said, after = followed(np.full(10**5, 3.0 * 66 * THERMAL), 66, 10 * RELEASED, spacing)
        blocks = np.ceil(10 * RELEASED / (looks * excess * per_look))
        assert after == pytest.approx(blocks * looks * spacing, rel=2e-2)
        taken = float(re.search(r"took ([\d,]+) kJ/mol", said)[1].replace(",", ""))
        assert taken == pytest.approx(blocks * looks * excess * per_look, rel=2e-2)


def test_heat_of_reactions_ends():
    """All that may be released at once, and half of it again and again; the thermostat takes it away."""
    decay = np.exp(-2 * 0.25 * np.arange(200))
    thermal = 66 * THERMAL
    assert followed(thermal + RELEASED * decay, 66, RELEASED) is None
    # In a molecule half of the energy is potential: it lasts twice as long.
    assert followed(thermal + 0.5 * RELEASED * np.sqrt(decay), 66, RELEASED) is None
    again = np.tile(0.5 * RELEASED * decay[:80], 20)
    assert followed(thermal + again, 66, RELEASED) is None
    # Negative control: the same heat every ps has no source.
    without_end = np.tile(0.5 * RELEASED * decay[:4], 400)
    assert followed(thermal + without_end, 66, RELEASED) is not None


@pytest.mark.parametrize(
    ("temperature", "friction", "latest"), [(6000.0, 1.0, 5.0), (1000.0, 1.0, 25.0), (6000.0, 10.0, 1.5)]
)
def test_a_region_that_stays_hot_is_found(temperature, friction, latest):
    """Every 0.05 ps; below the bound of a single look, which is 17,000 K for 22 atoms."""
    energies = np.full(4000, 0.5 * 66 * GAS_CONSTANT * temperature)
    said, after = followed(energies, 66, RELEASED, 0.05, friction)
    assert after <= latest
    assert said.startswith(f"the region at {temperature:,.0f} K in the mean of ")
    assert "kJ/mol from it in" in said
    # Without a thermostat nobody knows where heat goes.
    assert followed(energies, 66, RELEASED, 0.05, friction=0.0) is None


def test_looks_of_any_spacing_and_a_new_stage():
    """Looks come when something else is due; what one stage found does not count in the next."""
    balance = HeatBalance([HotGroup("the region", 66, RELEASED)])
    hot = 0.5 * 66 * GAS_CONSTANT * 1000.0
    times = np.cumsum(np.random.default_rng(2).uniform(0.001, 0.1, size=4000))
    balance.begin(300.0, 1.0, 0.0)
    first = next(time for time in times if balance.look([hot], time))
    even = followed(np.full(4000, hot), 66, RELEASED, 0.05)[1]
    assert first == pytest.approx(even, abs=6.0)
    balance.begin(300.0, 1.0, 0.0)
    assert not any(balance.look([hot], time) for time in times[times < 0.6 * first])
    balance.begin(300.0, 1.0, 7.0)
    assert not any(balance.look([hot], 7.0 + time) for time in times[times < 0.6 * first])


def test_a_run_that_stays_hot_ends(tmp_path, monkeypatch):
    """A bath of 6,000 K where the run says 300 K; without this check it comes to its end."""

    def hot(*arguments, **options):
        made = openmm.LangevinMiddleIntegrator(6000.0, 50.0, 0.0005)
        made.setRandomNumberSeed(arguments[2])
        return made

    monkeypatch.setattr(runner, "make_integrator", hot)
    hybrid = chain_hybrid()
    options = dict.fromkeys(("report_interval", "trajectory_interval", "checkpoint_interval"), 1000)
    options |= {"friction": "50 /ps"}
    with pytest.raises(
        SimulationError, match=r"the (region|system) at \d,\d\d\d K in the mean of 0\.\d+ ps, while"
    ):
        run_in(tmp_path / "run", hybrid, "0.4 ps", **options)
    monkeypatch.setattr(StabilityCheck, "begin", lambda *_: None)
    assert run_in(tmp_path / "control", hybrid, "0.4 ps", **options).state == "finished"
