"""What is measured while a run goes on on a GPU: the same rows, and nothing waits for them or is lost."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext

import openmm
import pytest
from runs import CrashError, chain_hybrid, columns, crash_at, results, run_in

from mlmm.dynamics.beside import Beside, quick_switches
from mlmm.dynamics.platforms import leaves_processor_idle
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.uncertainty import UncertaintyLimits, UncertaintyMonitor
from mlmm.errors import PotentialError
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import load_potential
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones


@pytest.fixture(scope="module")
def committee(dipeptide_vacuum):
    """Two members, so that there is a spread to measure."""
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", members=[0, 1])
    return hybrid_system(dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A run takes its platform for a GPU, and tells with what it opened its table."""
    opened = []

    class Watched(EnergyTable):
        def __init__(self, *given, **options):
            opened.append(options["beside"])
            super().__init__(*given, **options)

    monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform: True)
    monkeypatch.setattr("mlmm.dynamics.runner.EnergyTable", Watched)
    return opened


def table_with(tmp_path, measure, *, beside=True) -> tuple[EnergyTable, openmm.Context]:
    """A table whose monitor does something else."""
    hybrid = chain_hybrid()
    monitor = UncertaintyMonitor(hybrid)
    plain = monitor.measure
    monitor.measure = lambda positions, box: measure(plain, positions, box)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(hybrid.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(hybrid.built.positions)
    return EnergyTable(tmp_path / "energies.csv", hybrid, None, monitor, beside=beside), context


def lines(tmp_path) -> int:
    return len((tmp_path / "energies.csv").read_text().splitlines())


#: Found from positions and velocities on the processor, where a run without GPU has them from its Context.
FOUND_ANEW = ("E_bonds", "E_angles", "E_torsions", "potential", "kinetic", "total", "temperature")


def test_a_run_has_the_same_rows_killed_or_not(tmp_path, committee, on_a_gpu):
    """Energies, spreads, frames and last state: the same bytes, killed or not; sums to 1e-9."""
    platform = {"platform": "CPU", "threads": 1}
    whole = run_in(tmp_path / "whole", committee, **platform)
    with pytest.raises(CrashError):
        run_in(tmp_path / "killed", committee, progress=crash_at("produce", 60), **platform)
    killed = run_in(tmp_path / "killed", committee, resume=True, **platform)
    assert on_a_gpu == [True, True, True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlmm.dynamics.runner.leaves_processor_idle", leaves_processor_idle)
        usual = run_in(tmp_path / "usual", committee, **platform)
    assert on_a_gpu[3] is False
    assert results(whole) == results(killed)
    assert results(whole)[1:] == results(usual)[1:]
    beside, alone = columns(whole), columns(usual)
    assert list(beside) == list(alone) and set(FOUND_ANEW) <= set(alone)
    for name, values in alone.items():
        if name in FOUND_ANEW:
            found, expected = ([float(value) for value in row] for row in (beside[name], values))
            assert found == pytest.approx(expected, rel=1e-9), name
            # Those of the next row are others.
            assert found[1:] != pytest.approx(expected[:-1], rel=1e-9) or not any(expected)
        else:
            assert beside[name] == values, name
    assert len(set(alone["committee_spread"])) > 5


@pytest.mark.parametrize("ensemble", ["NPT", "NVE"])
def test_killed_runs_of_a_force_field_in_a_box_too(tmp_path, on_a_gpu, ensemble):
    """Bonded terms, a barostat or leapfrog velocities, frames at steps without a row: the same bytes."""
    boxed = chain_hybrid(box=2.1)
    whole = run_in(tmp_path / "whole", boxed, ensemble=ensemble)
    with pytest.raises(CrashError):
        run_in(tmp_path / "killed", boxed, ensemble=ensemble, progress=crash_at("produce", 60))
    killed = run_in(tmp_path / "killed", boxed, ensemble=ensemble, resume=True)
    assert results(whole) == results(killed)
    assert on_a_gpu == [True, True, True]
    assert len(set(columns(whole)["E_torsions"])) > 5


def test_python_lets_go_of_its_lock_sooner_beside_a_run(tmp_path, monkeypatch):
    """And as before without a thread beside it, after the run, and after one that failed."""
    before = sys.getswitchinterval()
    with pytest.raises(KeyError), quick_switches():
        assert sys.getswitchinterval() < 0.1 * before
        raise KeyError
    assert sys.getswitchinterval() == before
    for gpu in (True, False):
        monkeypatch.setattr("mlmm.dynamics.runner.leaves_processor_idle", lambda platform, own=gpu: own)
        seen = set()
        run_in(tmp_path / str(gpu), progress=lambda now, seen=seen: seen.add(sys.getswitchinterval()))
        assert sys.getswitchinterval() == before and (min(seen) < before) == gpu


def test_limits_are_held_against_a_row_before_the_next_step(tmp_path, committee, on_a_gpu):
    """With them nothing is measured beside the run."""
    run_in(
        tmp_path / "run",
        committee,
        "5 fs",
        monitor=UncertaintyMonitor(committee, UncertaintyLimits(100.0)),
    )
    assert on_a_gpu == [False]


def test_steps_do_not_wait_for_a_row(tmp_path):
    """Rows are there when somebody asks for the size; without a thread of its own each would wait."""
    gate = threading.Event()

    def slow(plain, positions, box):
        assert gate.wait(60.0)
        return plain(positions, box)

    table, context = table_with(tmp_path, slow)
    for step in range(5):
        table.write("produce", step, 0.0, table.moment(context))
    assert lines(tmp_path) == 1
    gate.set()
    assert table.size == (tmp_path / "energies.csv").stat().st_size
    assert lines(tmp_path) == 6
    table.close()
    gate.clear()
    waiting, context = table_with(tmp_path, slow, beside=False)
    threading.Timer(0.3, gate.set).start()
    waiting.write("produce", 0, 0.0, waiting.moment(context))
    assert gate.is_set() and lines(tmp_path) == 2
    waiting.close()


def test_a_failure_ends_the_run_and_keeps_the_rows_before_it(tmp_path):
    count = iter(range(10))

    def failing(plain, positions, box):
        if next(count) == 2:
            raise PotentialError("a number", "none", "look at it")
        return plain(positions, box)

    table, context = table_with(tmp_path, failing)
    with pytest.raises(PotentialError, match="Expected a number"):
        for step in range(4):
            table.write("produce", step, 0.0, table.moment(context))
        assert table.size
    assert lines(tmp_path) == 3
    table.close()


def test_results_come_in_order_and_no_more_than_some_wait():
    """A further call waits for the oldest one."""
    gate, taken = threading.Event(), []
    beside: Beside[int] = Beside(most=3)
    for k in range(3):
        beside.submit(lambda k=k: gate.wait(60.0) and k, taken.append)
    assert taken == []
    threading.Timer(0.2, gate.set).start()
    beside.submit(lambda: 3, taken.append)
    assert gate.is_set() and taken[0] == 0
    beside.finish()
    beside.close()
    assert taken == [0, 1, 2, 3]


def test_nothing_is_handed_on_after_a_call_that_failed():
    """Also where its result was there before anybody asked: a table has no row after a gap."""
    gate, taken = threading.Event(), []
    beside: Beside[float] = Beside()
    for k in (2, 1, 0, 5):
        beside.submit(lambda k=k: gate.wait(60.0) and 4 / k, taken.append)
    assert taken == []
    gate.set()
    for raises in (True, False):
        with pytest.raises(ZeroDivisionError) if raises else nullcontext():
            beside.finish()
        assert taken == [2.0, 4.0]
    beside.submit(lambda: 3.0, taken.append)
    beside.finish()
    beside.close()
    assert taken == [2.0, 4.0, 3.0]


def test_which_platforms_leave_the_processor_idle():
    platforms = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    idle = {platform.getName() for platform in platforms if leaves_processor_idle(platform)}
    assert idle.isdisjoint({"Reference", "CPU"}) and idle == {"CUDA", "HIP", "OpenCL"} & {
        platform.getName() for platform in platforms
    }
