"""Switching by work: harmonic springs, exact in standard errors; Crooks' theorem; the engine's own work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from toys import toy_spec

from mlmm.build import BuiltSystem
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.errors import ConfigError
from mlmm.forcefield.reference_platform import reference_context
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.potentials import AtomEnergies
from mlmm.reactions.end_states import weighted
from mlmm.reactions.reweighting import two_sided
from mlmm.reactions.sampling_options import EndStateOptions
from mlmm.reactions.switching import SwitchedEnds, switch
from mlmm.reactions.switching_analysis import (
    analyse_switching,
    bennett_error,
    crooks_slope,
    works_of,
)
from mlmm.reactions.window_runs import task_runner
from mlmm.report.end_state_page import judge_end_states
from mlmm.structures import Structure
from mlmm.units import GAS_CONSTANT
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

TEMPERATURE = 300.0
KT = GAS_CONSTANT * TEMPERATURE
SOFT, STIFF, SHIFT, ZERO = 1000.0, 4000.0, 0.1, 40.0
EXACT = ZERO + 0.5 * KT * np.log(STIFF / SOFT)


def energies(weight: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of a spring that becomes stiffer and moves."""
    return 0.5 * SOFT * x**2, ZERO + 0.5 * STIFF * (x - SHIFT) ** 2


def runs(
    seed: int, backward: bool, count: int = 60, changes: int = 40, force_field: bool = True
) -> np.ndarray:
    """D at each change of `count` runs, from w = 0 to 1; between them overdamped motion, exact in time.

    Under U(w) the spring has k = (1-w) k0 + w k1 around w k1 shift/k: x goes there as exp(-k t), exactly.
    Without `force_field` the part of the derivative of U(w) by w that belongs to the force field is left out.
    """
    generator = np.random.default_rng([seed, int(backward)])

    def place(weight: float) -> tuple[float, float]:
        constant = (1 - weight) * SOFT + weight * STIFF
        return constant, weight * STIFF * SHIFT / constant

    weights = np.linspace(0, 1, changes + 1)[:: -1 if backward else 1]
    constant, middle = place(weights[0])
    x = generator.normal(middle, np.sqrt(KT / constant), count)
    found = []
    for weight in weights[1:]:
        first, last = energies(weight, x)
        found.append(last - first if force_field else last)
        constant, middle = place(weight)
        kept = np.exp(-constant * 2e-5)
        width = np.sqrt(KT / constant * (1 - kept**2))
        x = middle + kept * (x - middle) + generator.normal(0, width, count)
    return np.array(found[:: -1 if backward else 1]).T


def test_the_free_energy_of_springs_is_exact_within_its_error():
    """20 seeds: 18 or more inside two standard errors, which are neither too small nor too large.

    The controls: the work backward with the wrong sign, and work without the force field's part of the
    derivative, are far off. The mean work of each direction is a bound, and Crooks' slope is 1.
    """
    away, slopes, wrong = [], [], []
    for seed in range(20):
        forward, backward = runs(seed, False), runs(seed, True)
        found = analyse_switching(forward, backward, TEMPERATURE, bootstraps=40, seed=seed)
        away.append((found.free_energies[-1] - EXACT) / found.errors[-1])
        slopes.append((found.crooks[0] - 1.0) / found.crooks[1])
        assert found.slopes[0] > EXACT > found.slopes[1]
        assert found.dissipated[0] > 2.0 * KT
        if seed < 3:
            for own in (
                (forward, -backward),
                [runs(seed, backward, force_field=False) for backward in (False, True)],
            ):
                control = analyse_switching(*own, TEMPERATURE, bootstraps=20)
                wrong.append(abs(control.free_energies[-1] - EXACT) / found.errors[-1])
    assert (np.abs(away) < 2).sum() >= 18
    assert 0.6 < np.std(away) < 1.5
    assert 0.5 < np.sqrt(np.mean(np.square(slopes))) < 1.5
    assert min(wrong) > 5


def test_it_is_bennetts_acceptance_ratio_with_its_error():
    """Value and error of many runs are those of pymbar; twice as many changes dissipate less."""
    forward, backward = runs(0, False, 400), runs(0, True, 400)
    found = analyse_switching(forward, backward, TEMPERATURE, bootstraps=40)
    works = found.work_forward, found.work_backward
    value, error, _ = two_sided(*works, TEMPERATURE)
    assert found.free_energies[-1] == pytest.approx(value, abs=1e-3)
    assert bennett_error(*works, value, TEMPERATURE) == pytest.approx(error, rel=1e-3)
    slow = [runs(0, direction, 400, changes=160) for direction in (False, True)]
    assert analyse_switching(*slow, TEMPERATURE, bootstraps=20).dissipated[0] < 0.6 * found.dissipated[0]


def test_ends_that_are_not_in_equilibrium_break_crooks_theorem():
    """The verdict is bad where works of one end are too narrow, though they overlap; fine as they are."""
    forward, backward = runs(1, False, 400), runs(1, True, 400)
    good = analyse_switching(forward, backward, TEMPERATURE, bootstraps=20)
    levels = {one.name: one.level for one in judge_end_states(good.facts()).judgements}
    assert levels["Crooks' theorem"] == levels["overlap"] == "ok"
    narrow = [EXACT + 0.4 * (one - EXACT) for one in (forward, backward)]
    bad = analyse_switching(*narrow, TEMPERATURE, bootstraps=20)
    levels = {one.name: one.level for one in judge_end_states(bad.facts()).judgements}
    assert bad.crooks[0] > 1 + 5 * bad.crooks[1]
    assert levels["Crooks' theorem"] == "bad"
    assert levels["overlap"] == "ok"


def test_work_that_does_not_overlap_is_said_to_be_bad():
    apart = [EXACT + direction * (runs(2, False) ** 2).mean() for direction in (1, -1)]
    generator = np.random.default_rng(0)
    works = [generator.normal(middle, KT, (40, 1)) for middle in apart]
    found = analyse_switching(*works, TEMPERATURE, bootstraps=10)
    verdict = judge_end_states(found.facts())
    (overlap,) = [one for one in verdict.judgements if one.name == "overlap"]
    assert overlap.level == "bad"
    assert "switch_length" in overlap.advice
    assert not np.isfinite(crooks_slope(works[0][:, 0], -works[1][:, 0], TEMPERATURE)[0])


class Spring(torch.nn.Module):
    """E(r) = k/2 (r - r0)^2 + c."""

    def forward(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        r = (positions[1] - positions[0]).norm()
        return (0.5 * (0.5 * STIFF * (r - 0.3 - SHIFT).square() + ZERO)).expand(1, 2)


class SpringPotential:
    """`Spring` as a potential."""

    def __init__(self):
        self.spec = toy_spec("spring")

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        return AtomEnergies(Spring()(structure.positions, structure.cell)[0])


def pair() -> HybridSystem:
    """Two atoms, held by a spring of the force field and by a stiffer and longer one of the model."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("C2", topology.addChain())
    atoms = [topology.addAtom(name, app.element.carbon, residue) for name in ("C1", "C2")]
    topology.addBond(*atoms)
    bonds = openmm.HarmonicBondForce()
    for _ in atoms:
        system.addParticle(12.0)
    bonds.addBond(0, 1, 0.3, SOFT)
    system.addForce(bonds)
    built = BuiltSystem.from_openmm(topology, system, np.array([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0]]))
    zones = hard_zones(built, region_from_atoms(built.topology, range(2)))
    return hybrid_system(built, zones, SpringPotential(), scheme="additive")


def exact_pair() -> float:
    """-kT ln of the ratio of both integrals of r^2 exp(-E/kT), kJ/mol."""
    r = np.linspace(0.0, 1.2, 20001)
    ends = energies(0.0, r - 0.3)
    parts = [np.log(np.trapezoid(r**2 * np.exp(-(one - ZERO * k) / KT), r)) for k, one in enumerate(ends)]
    return float(ZERO - KT * (parts[1] - parts[0]))


def ends(folder: Path, **changes) -> SwitchedEnds:
    options = {"method": "switching", "switches": 20, "switch_length": "0.2 ps", "update_every": 2}
    run = RunOptions(timestep="2 fs", friction="20 /ps", trajectory_interval=40, platform="Reference", seed=3)
    protocol = ProtocolOptions(minimise=0, equilibrate="0.4 ps", produce=changes.pop("produce", "2 ps"))
    end_states = EndStateOptions(**options | changes)
    return SwitchedEnds(pair, lambda: None, folder, end_states, protocol, run)


def sampled(folder: Path, **changes):
    with task_runner(1) as tasks:
        return ends(folder, **changes).sample(tasks, 2, lambda _: None)


def test_the_engine_switches_between_two_springs(tmp_path):
    """Exact in standard errors through the engine; runs that are lost come again with the same numbers.

    More runs from a longer production keep those that are there; another length is refused.
    """
    found = sampled(tmp_path)
    assert abs(found.free_energies[-1] - exact_pair()) < 4 * found.errors[-1]
    assert found.errors[-1] < 2.5
    assert abs(found.slopes[0] - exact_pair()) > 5 * found.errors[-1]
    files = sorted((tmp_path / "switches").glob("*.npz"))
    assert len(files) == 40
    for lost in files[::7]:
        lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files if file.exists()}
    again = sampled(tmp_path)
    np.testing.assert_array_equal(again.work_forward, found.work_forward)
    np.testing.assert_array_equal(again.work_backward, found.work_backward)
    longer = sampled(tmp_path, switches=30, produce="3 ps")
    np.testing.assert_array_equal(longer.work_forward[:20], found.work_forward)
    assert len(longer.work_backward) == 30
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    with pytest.raises(ConfigError, match=r"others \(switch_length\)"):
        sampled(tmp_path, switch_length="0.1 ps")
    with pytest.raises(ConfigError, match="50 frames or more"):
        sampled(tmp_path, switches=50)


def test_the_work_of_a_run_is_that_of_its_energies():
    """One change all at once is the difference of both energies in place; the weight ends where it should."""
    hybrid = weighted(pair(), 0.0)
    context = reference_context(hybrid.system)
    positions = np.array([[0.0, 0.0, 0.0], [0.2, 0.2, 0.1]])
    context.setPositions(positions)
    found = switch(context, hybrid.force_groups["ml"], [0.0, 1.0], 5)
    first, last = energies(0.0, np.array(0.3) - 0.3)
    assert found == pytest.approx([float(last - first)])
    assert context.getParameter("model_weight") == 1.0
    np.testing.assert_allclose(works_of(np.array([[1.0, 3.0], [2.0, 2.0]])), [2.0, 2.0])


def test_runs_that_are_too_short_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two changes of the weight"):
        ends(tmp_path, update_every=60)
    with pytest.raises(ConfigError, match="switches"):
        EndStateOptions(switches=5)
