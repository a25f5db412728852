"""`mlmm bench`: the parts of a step by potentials of known cost, and what the verb prints and refuses."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import numpy as np
import pytest
import torch
from toys import toy_spec

from mlmm import select_region
from mlmm.bench import measure_step
from mlmm.bench.measure import Timing
from mlmm.bench.step_cost import REGION_PAIRS, ZONE_PAIRS
from mlmm.bench.table import cost_rows
from mlmm.cli.program import main
from mlmm.dynamics.imaging import RegionImages
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import choose_platform
from mlmm.dynamics.stages import Produce
from mlmm.errors import MissingPackageError
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import AtomEnergies
from mlmm.zones.static import hard_zones, static_zones

REFERENCE = RunOptions(platform="Reference")


class Costly:
    """No energy, for so many milliseconds of processor time; counts its calls."""

    def __init__(self, milliseconds: float = 0.0, energy: float = 0.0):
        self.spec = toy_spec("costly")
        self.milliseconds, self.energy, self.calls = milliseconds, energy, 0

    def atom_energies(self, structure):
        self.calls += 1
        until = time.process_time() + 1e-3 * self.milliseconds
        while time.process_time() < until:
            pass
        return AtomEnergies((0.0 * structure.positions).sum(dim=1) + self.energy)


class Breaking(Costly):
    """Finite where the hybrid system is made, NaN in every step."""

    def atom_energies(self, structure):
        self.calls += 1
        factor = 0.0 if self.calls < 3 else torch.nan
        return AtomEnergies((factor * structure.positions).sum(dim=1))


def additive(built, potential):
    region = select_region(built, "all")
    return hybrid_system(built, hard_zones(built, region), potential, scheme="additive")


def test_potential_of_known_cost_is_found_in_its_own_row(dipeptide_vacuum):
    hybrid = additive(dipeptide_vacuum, Costly(10.0))
    cost = measure_step(hybrid, Produce("1 ps"), REFERENCE, rounds=3, minimise=5)
    assert cost.row("potential: energy and forces").cpu_ms == pytest.approx(10.0, rel=0.2)
    step, kept = cost.row("hybrid step"), cost.row("force field that stays, integrator")
    assert step.cpu_ms - kept.cpu_ms > 10.0
    assert step.cpu_ms - cost.row("force field alone").cpu_ms > 10.0
    assert step.ns_per_day == pytest.approx(0.0005e-3 * 86_400_000 / step.wall_ms)


def test_steps_without_the_potential_never_call_it(dipeptide_vacuum):
    from mlmm.bench.step_cost import _Bench

    potential = Costly()
    hybrid = additive(dipeptide_vacuum, potential)
    bench = _Bench(hybrid, Produce("1 ps").under(REFERENCE), choose_platform("Reference"), 1)
    bench.settle(0)
    without = bench.steps_without(hybrid.create_system(), 1 << hybrid.force_groups["ml"])
    calls = []
    for task in (without, bench.steps(hybrid.system, bench.single)):
        before = potential.calls
        task.prepare()
        task.run(5)
        calls.append(potential.calls - before)
    assert calls[0] == 0 and calls[1] >= 6


@pytest.mark.parametrize("gpu", [True, False])
def test_rows_and_frames_on_a_gpu_cost_what_keeps_the_steps(dipeptide_vacuum, monkeypatch, tmp_path, gpu):
    """Their thread goes on outside the clock, and has written all at the end of a block."""
    from mlmm.bench.step_cost import _Bench

    monkeypatch.setattr("mlmm.bench.step_cost.leaves_processor_idle", lambda platform: gpu)
    gate, plain = threading.Event(), RegionImages.gather
    monkeypatch.setattr(RegionImages, "gather", lambda own, *frame: gate.wait(60.0) and plain(own, *frame))
    hybrid = additive(dipeptide_vacuum, Costly())
    bench = _Bench(hybrid, Produce("1 ps").under(REFERENCE), choose_platform("Reference"), 1)
    bench.settle(0)
    with contextlib.ExitStack() as files:
        if not gpu:
            gate.set()
        tasks = bench.reporters(REFERENCE, None, tmp_path, files)
        for name in ("energy table", "frame"):
            tasks[name].run(tasks[name].at_most)
        assert gate.is_set() != gpu
        gate.set()
        for name in ("energy table", "frame"):
            tasks[name].check()
        rows = len((tmp_path / "energies.csv").read_text().splitlines()) - 1
        assert rows == tasks["energy table"].at_most
    frames = (tmp_path / "trajectory.dcd").stat().st_size - 276
    assert frames // (3 * (8 + 4 * hybrid.built.n_atoms)) == tasks["frame"].at_most


def test_other_system_that_fails_loses_its_row_with_the_reason(dipeptide_vacuum):
    def out_of_memory():
        raise MemoryError("cannot allocate 1 TB")

    def missing():
        raise MissingPackageError("a model", "none", "pip install model")

    against = {
        "twin": lambda: additive(dipeptide_vacuum, Costly()),
        "nan": lambda: additive(dipeptide_vacuum, Breaking()),
        "memory": out_of_memory,
        "package": missing,
    }
    hybrid = additive(dipeptide_vacuum, Costly())
    cost = measure_step(hybrid, Produce("1 ps"), REFERENCE, rounds=2, minimise=5, against=against)
    text = str(cost)
    assert cost.row("hybrid step with twin").wall_ms > 0
    assert "hybrid step with nan" not in text and "nan is left out: " in text
    assert "memory is left out: MemoryError: cannot allocate 1 TB" in text
    assert "package is left out: " in text and "pip install model" in text


def test_native_pairs_have_a_row_of_their_own(dipeptide_water, ani1x):
    zones = static_zones(dipeptide_water, select_region(dipeptide_water, "resname ALA"))
    hybrid = hybrid_system(dipeptide_water, zones, ani1x, scheme="per_atom")
    names = {force.getName() for force in hybrid.system.getForces()}
    cost = measure_step(hybrid, Produce("1 ps"), rounds=2, minimise=5)
    has_row = any(row.name.startswith("pairs") for row in cost.rows)
    assert has_row == bool(names & {REGION_PAIRS, ZONE_PAIRS})


def test_atoms_without_their_forces_stay_where_they_are(dipeptide_water, ani1x):
    """Hydrogens without bonds and pairs would reach their neighbours within a block."""
    from mlmm.bench.step_cost import _Bench

    class Watched(_Bench):
        def context(self, system, stage, leave_out=0):
            self.latest = super().context(system, stage, leave_out)
            return self.latest

    zones = static_zones(dipeptide_water, select_region(dipeptide_water, "resname ALA"))
    hybrid = hybrid_system(dipeptide_water, zones, ani1x, scheme="per_atom")
    bench = Watched(hybrid, Produce("1 ps").under(RunOptions()), choose_platform("CPU", 1), 1)
    bench.settle(5)
    start = bench.start.getPositions(asNumpy=True)._value
    task = bench.steps_without(hybrid.create_system(), 1 << hybrid.force_groups["ml"])
    task.prepare()
    task.run(100)
    moved = np.abs(bench.latest.getState(positions=True).getPositions(asNumpy=True)._value - start).max(
        axis=1
    )
    held = np.isin(np.arange(len(moved)), hybrid.zones.active)
    assert moved[held].max() < 1e-4
    assert moved[~held].max() > 0.01


def fixed(milliseconds: float) -> Timing:
    """Four blocks on a machine that is busy in one of them."""
    times = milliseconds * np.array([1.0, 1.0, 3.0, 1.0])
    return Timing(times, 2 * times)


def test_parts_add_up_to_the_step_and_reporters_count_per_step():
    timings = {
        "force field alone": fixed(7),
        "without pairs": fixed(6),
        "without potential": fixed(6.5),
        "whole step": fixed(9),
        "potential": fixed(2),
        "energy table": fixed(10),
        "frame": fixed(5),
        "checkpoint": fixed(100),
    }
    options = RunOptions(
        timestep="1 fs", report_interval=10, trajectory_interval=50, checkpoint_interval=1000
    )
    rows = {row.name: row for row in cost_rows(timings, Produce("1 ps").under(options), options, ())}
    parts = [row for row in rows.values() if row.part]
    assert [row.wall_ms for row in parts] == pytest.approx([6, 0.5, 2, 0.5])
    assert [row.wall_ms_min for row in parts] == [6, None, 2, None]
    assert sum(row.cpu_ms for row in parts) == pytest.approx(rows["hybrid step"].cpu_ms) == 18
    assert rows["run: step and reporters"].wall_ms == pytest.approx(9 + 1 + 0.1 + 0.1)
    assert rows["hybrid step"].ns_per_day == pytest.approx(86_400_000 / 9 * 1e-6)


def test_multiple_time_steps_have_a_row_and_the_speed_of_the_long_step():
    timings = {"whole step": fixed(9), "multiple time steps": fixed(11)}
    options = RunOptions(timestep="1 fs", nonbonded_every=2)
    rows = {row.name: row for row in cost_rows(timings, Produce("1 ps").under(options), options, ())}
    assert rows["hybrid step"].ns_per_day == pytest.approx(86.4 / 9)
    assert rows["hybrid step of 2 fs, multiple time steps"].ns_per_day == pytest.approx(2 * 86.4 / 11)
    assert rows["run: step and reporters"].ns_per_day == pytest.approx(2 * 86.4 / 11)


def test_step_of_a_run_file_is_timed_printed_and_written(root, tmp_path, capsys):
    run_file = str(root / "systems/alanine_dipeptide/run.toml")
    settings = ["--set", 'system.padding="0.6 nm"', "--set", "run.nonbonded_every=2"]
    against = ["--against", "potential.kernel=torch", "--against", "potential.name=nonsense"]
    path = tmp_path / "cost.json"
    assert main(["bench", run_file, "--quick", *settings, *against, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(path.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert {
        "force field alone",
        "hybrid step",
        "bridge and caches",
        "hybrid step of 1 fs, multiple time steps",
        "energy table, every 20 steps",
        "frame, every 100 steps",
        "checkpoint, every 500 steps",
        "hybrid step with potential.kernel=torch",
    } <= rows.keys()
    for name in ("hybrid step", "force field alone", "potential: energy and forces"):
        assert 0 < rows[name]["wall_ms_min"] <= rows[name]["wall_ms"] and rows[name]["blocks"] == 3
        assert f"{rows[name]['cpu_ms']:.3g}" in printed
    assert "platform CPU" in printed and "threads for OpenMM" in printed
    assert any("potential.name=nonsense is left out" in note for note in content["notes"])
    assert content["system"]["ml_atoms"] == 22 and content["machine"]["peak_mb"] > 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "system.padding=2"], "system.padding=2"),
        (["--against", "potential.nonsense=1"], "nonsense"),
        (["--json", "no/such/folder/cost.json"], "no/such/folder"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_the_build(root, capsys, options, message):
    run_file = str(root / "systems/alanine_dipeptide/run.toml")
    assert main(["bench", run_file, *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "built" not in printed.out


@pytest.mark.parametrize(
    ("setting", "message"),
    [("run.platform='CUDAA'", "CUDAA"), ("run.produce='0 ps'", "dynamics")],
)
def test_run_file_that_cannot_be_timed_is_refused(root, capsys, setting, message):
    run_file = str(root / "systems/alanine_dipeptide/run.toml")
    quick = ["--set", "system.solvate=false", "--set", "run.equilibrate='0 ps'", "--set", "run.nve='0 ps'"]
    assert main(["bench", run_file, *quick, "--set", setting]) == 2
    assert message in capsys.readouterr().err
