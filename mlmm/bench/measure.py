"""Time of several tasks in turn, in one process, and facts about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform as python_platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch

from mlmm.errors import MLMMError, SimulationError

__all__ = [
    "Task",
    "Timing",
    "interleaved",
    "machine_facts",
    "peak_resident_mb",
    "reason",
    "resident_mb",
    "step_task",
]

_BLOCK_SECONDS = 0.15


def _nothing() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Task:
    """Work that can be repeated and timed.

    Parameters
    ----------
    run : callable
        ``run(n)`` does the work n times.
    prepare : callable
        Called before each block of repetitions, outside the clock.
    check : callable
        Called after each block, outside the clock; raises if the block was not worth timing.
    at_most : int
        Repetitions in a block.
    """

    run: Callable[[int], object]
    prepare: Callable[[], object] = _nothing
    check: Callable[[], object] = _nothing
    at_most: int = 1000


@dataclass(frozen=True, eq=False)
class Timing:
    """Milliseconds per repetition, one value for each block.

    Parameters
    ----------
    wall : ndarray, shape (blocks,)
        Elapsed time.
    cpu : ndarray, shape (blocks,)
        Processor time of the whole process, all threads, user and system.
    """

    wall: np.ndarray
    cpu: np.ndarray

    def ratio(self, other: Timing) -> float:
        """Processor time in units of another's: median over rounds, in which both met the same machine."""
        return float(np.median(self.cpu / other.cpu))

    def fastest_ratio(self, other: Timing) -> float:
        """Ratio between the fastest blocks, which a busy machine disturbs least."""
        return float(np.min(self.cpu) / np.min(other.cpu))

    def minus(self, other: Timing) -> Timing:
        """Difference round by round."""
        return Timing(self.wall - other.wall, self.cpu - other.cpu)

    def plus(self, other: Timing) -> Timing:
        """Sum round by round."""
        return Timing(self.wall + other.wall, self.cpu + other.cpu)

    def over(self, n: float) -> Timing:
        """Cost per step of something that is done every n steps."""
        return Timing(self.wall / n, self.cpu / n)

    def facts(self) -> dict[str, float | int]:
        """Medians over the blocks, the least processor time, and the tenth percentile of the elapsed time."""
        return {
            "cpu_ms": float(np.median(self.cpu)),
            "cpu_ms_min": float(np.min(self.cpu)),
            "wall_ms": float(np.median(self.wall)),
            "wall_ms_p10": float(np.percentile(self.wall, 10)),
            "blocks": len(self.cpu),
        }


def interleaved(tasks: Mapping[str, Task], rounds: int) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time tasks in blocks, round robin: whatever else the machine does falls on all of them alike.

    Parameters
    ----------
    tasks : mapping of str to Task
        Each runs three times as a warm-up, then in blocks of about 0.15 s.
    rounds : int
        Blocks of each task.

    Returns
    -------
    timings : dict of str to Timing
    lost : dict of str to str
        Tasks that failed, with the reason. They take no further part, and the others go on.
    """
    running, lost = dict(tasks), {}
    repetitions = {}
    blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in list(running.items()):
            try:
                if turn == 0:
                    repetitions[name] = _warmed_up(task)
                    continue
                n = repetitions[name]
                task.prepare()
                wall, cpu = time.perf_counter(), time.process_time()
                task.run(n)
                elapsed = (time.perf_counter() - wall, time.process_time() - cpu)
                task.check()
            # Whatever a task raises, and peers raise anything, must not take the other rows with it.
            except Exception as error:
                lost[name] = reason(error)
                del running[name]
            else:
                blocks[name].append((1e3 * elapsed[0] / n, 1e3 * elapsed[1] / n))
    return {name: Timing(*np.array(blocks[name]).T) for name in running}, lost


def _warmed_up(task: Task) -> int:
    """Run a task three times; returns how often it fits into a block."""
    task.prepare()
    task.run(1)
    task.run(2)
    started = time.perf_counter()
    task.run(1)
    each = max(time.perf_counter() - started, 1e-6)
    task.check()
    return int(np.clip(_BLOCK_SECONDS / each, 1, task.at_most))


def reason(error: BaseException) -> str:
    """The first line of an error, with its type where that is not the project's own."""
    text = (str(error).strip() or "no message").splitlines()[0]
    return text if isinstance(error, MLMMError) else f"{type(error).__name__}: {text}"


def step_task(
    context: openmm.Context,
    *,
    restart: Callable[[], object] = _nothing,
    at_most: int = 1000,
) -> Task:
    """Steps of a context's integrator as a task.

    Parameters
    ----------
    context : openmm.Context
        With positions and velocities.
    restart : callable
        Puts the context back to where a block begins; forces and neighbour lists are then made anew by one
        step outside the clock.
    at_most : int
        Steps in a block.
    """
    integrator = context.getIntegrator()
    # A GPU has the steps in its queue; whoever reads positions waits for them.
    waits = context.getPlatform().getName() not in ("CPU", "Reference")

    def run(n: int) -> None:
        integrator.step(n)
        if waits:
            context.getState(positions=True)

    def prepare() -> None:
        if restart is not _nothing:
            restart()
            run(1)

    def check() -> None:
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value
        if not np.isfinite(positions).all():
            raise SimulationError("finite positions", "NaN", "reduce the time step or minimise longer")

    return Task(run, prepare, check, at_most)


def resident_mb() -> float:
    """Memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_resident_mb() -> float:
    """Largest memory of this process so far, MB; getrusage would give that of the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / 1e6


def machine_facts(threads: int) -> dict[str, str | int | float]:
    """Processor, cores, threads, load and versions, for the head of a table.

    Parameters
    ----------
    threads : int
        Of OpenMM's CPU platform; 0 for its own choice.
    """
    default = openmm.Platform.getPlatformByName("CPU").getPropertyDefaultValue("Threads")
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "openmm_threads": int(threads or default),
        "torch_threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "openmm": openmm.version.short_version,
        "torch": torch.__version__,
        "mlmm": importlib.metadata.version("mlmm"),
        "python": python_platform.python_version(),
    }


def _processor() -> str:
    """Vendor's name of the processor; hypervisors often hide more than that, so family and model follow."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return python_platform.processor() or python_platform.machine()
    facts: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name", python_platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
