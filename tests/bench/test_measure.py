"""Blocks in turn: what they find, how a task that fails is left out, where a block begins."""

from __future__ import annotations

import time

import numpy as np
import openmm
import pytest

from mlmm.bench.measure import Task, Timing, interleaved, step_task
from mlmm.errors import MissingPackageError


def busy(milliseconds: float) -> Task:
    def run(n: int) -> None:
        until = time.process_time() + 1e-3 * milliseconds * n
        while time.process_time() < until:
            pass

    return Task(run)


def raising(error: Exception, after: int = 0) -> Task:
    """Fails in the block of that number; 0 is the warm-up."""
    blocks = iter(range(100))

    def prepare() -> None:
        if next(blocks) >= after:
            raise error

    return Task(busy(0.1).run, prepare)


def test_task_of_twice_the_work_takes_twice_the_time():
    found, lost = interleaved({"one": busy(2), "two": busy(4)}, 3)
    assert found["two"].ratio(found["one"]) == pytest.approx(2, rel=0.1)
    assert found["one"].facts()["cpu_ms"] == pytest.approx(2, rel=0.1)
    assert not lost


def test_ratios_and_differences_are_taken_round_by_round():
    """A machine that slows down in the middle changes no ratio."""
    slow = np.array([1.0, 1.0, 5.0, 5.0, 5.0])
    one, two = Timing(slow, slow), Timing(2 * slow, 2 * slow)
    assert two.ratio(one) == 2 and two.minus(one).facts()["cpu_ms"] == 5
    assert two.fastest_ratio(one) == 2
    assert np.array_equal(two.minus(one).plus(one).wall, two.wall)
    assert np.array_equal(two.over(4).cpu, slow / 2)


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("cannot allocate 40 GB\nat line 3"), "MemoryError: cannot allocate 40 GB"),
        (MissingPackageError("a peer", "nothing", "pip install peer"), "pip install peer"),
        (ImportError(), "ImportError: no message"),
    ],
)
def test_task_that_fails_is_left_out_with_its_reason(after, error, reason):
    found, lost = interleaved({"bad": raising(error, after), "good": busy(0.5)}, 3)
    assert found.keys() == {"good"} and len(found["good"].cpu) == 3
    assert reason in lost["bad"] and "\n" not in lost["bad"]


def free_particle(velocity: float) -> openmm.Context:
    system = openmm.System()
    system.addParticle(1.0)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions([[0, 0, 0]])
    context.setVelocities([[velocity, 0, 0]])
    return context


def x_of(context: openmm.Context) -> float:
    return float(context.getState(positions=True).getPositions(asNumpy=True)._value[0, 0])


def test_each_block_begins_one_step_after_the_start():
    context = free_particle(1.0)
    task = step_task(context, restart=lambda: context.setPositions([[0.5, 0, 0]]))
    for _ in range(2):
        task.prepare()
        assert x_of(context) == pytest.approx(0.501)
        task.run(10)
        assert x_of(context) == pytest.approx(0.511)


def test_positions_that_are_not_finite_lose_the_row():
    found, lost = interleaved({"nan": step_task(free_particle(np.nan)), "good": busy(0.5)}, 2)
    assert found.keys() == {"good"} and "NaN" in lost["nan"]
