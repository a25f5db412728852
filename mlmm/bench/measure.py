"""Time per step of several variants, in turn, in one process; what the machine is and can."""

from __future__ import annotations

import os
import platform as python_platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch

from mlmm.bench.variants import Timed
from mlmm.errors import ConfigError, SimulationError
from mlmm.units import FEMTOSECOND

__all__ = [
    "Timing",
    "device_name",
    "find_platform",
    "interleaved",
    "machine_facts",
    "matrix_peak",
    "peak_resident_mb",
    "resident_mb",
    "stepper",
]

_BLOCK_SECONDS = 0.15
_TEMPERATURE = 300.0


@dataclass(frozen=True, eq=False)
class Timing:
    """Milliseconds per repetition, one value for each block.

    Parameters
    ----------
    wall, cpu : ndarray, shape (blocks,)
        Elapsed; processor time of the whole process, all threads, user and system.
    """

    wall: np.ndarray
    cpu: np.ndarray

    def ratio(self, other: Timing) -> float:
        """Processor time in units of another's: median over rounds, in which both met the same machine."""
        return float(np.median(self.cpu / other.cpu))

    def fastest_ratio(self, other: Timing) -> float:
        """The same between the fastest blocks, which a busy machine disturbs least."""
        return float(np.min(self.cpu) / np.min(other.cpu))

    def excess(self, other: Timing) -> float:
        """Processor time above another's, ms, in the same way."""
        return float(np.median(self.cpu - other.cpu))

    def facts(self) -> dict[str, float | int]:
        """The figures of a row."""
        return {
            "cpu_ms": float(np.median(self.cpu)),
            "cpu_ms_min": float(np.min(self.cpu)),
            "wall_ms": float(np.median(self.wall)),
            "wall_ms_p10": float(np.percentile(self.wall, 10)),
            "blocks": len(self.cpu),
        }


def interleaved(tasks: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, Timing]:
    """Time tasks in blocks, round robin: whatever else the machine does falls on all of them alike.

    Parameters
    ----------
    tasks : mapping of str to callable
        ``task(n)`` does its work n times. Called twice, then in blocks of about 0.15 s.
    rounds : int
        Blocks of each task.
    """
    repetitions = {}
    for name, task in tasks.items():
        task(1)
        task(2)
        started = time.perf_counter()
        task(1)
        each = max(time.perf_counter() - started, 1e-6)
        repetitions[name] = int(np.clip(_BLOCK_SECONDS / each, 1, 1000))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            n = repetitions[name]
            wall, cpu = time.perf_counter(), time.process_time()
            task(n)
            elapsed = (time.perf_counter() - wall, time.process_time() - cpu)
            found[name].append((1e3 * elapsed[0] / n, 1e3 * elapsed[1] / n))
    return {name: Timing(*np.array(blocks).T) for name, blocks in found.items()}


def find_platform(name: str) -> openmm.Platform:
    """OpenMM's platform of that name.

    Raises
    ------
    ConfigError
        One that is not there.
    """
    platforms = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    found = [platform for platform in platforms if platform.getName() == name]
    if not found:
        raise ConfigError(
            f"platform = {' | '.join(platform.getName() for platform in platforms)}",
            repr(name),
            'choose one of these; for CUDA: pip install "mlmm[cuda]" where there is a driver',
        )
    return found[0]


def device_name(platform: openmm.Platform) -> str:
    """What a platform runs on, by its own word; empty for one that has no devices."""
    if "DeviceName" not in platform.getPropertyNames():
        return ""
    system = openmm.System()
    system.addParticle(1.0)
    context = openmm.Context(system, openmm.VerletIntegrator(FEMTOSECOND), platform)
    return platform.getPropertyValue(context, "DeviceName")


def stepper(
    timed: Timed,
    positions: np.ndarray,
    *,
    threads: int | None = None,
    thermostat: bool = True,
    platform: str = "CPU",
) -> Callable[[int], None]:
    """Dynamics of a variant at 1 fs as a task for `interleaved`.

    Parameters
    ----------
    timed : Timed
    positions : ndarray, shape (N, 3), nm
    threads : int, optional
        Of OpenMM's CPU platform.
    thermostat : bool
        Langevin at 300 K, otherwise plain Verlet.
    platform : str
        OpenMM's, at its own precision.

    Raises
    ------
    SimulationError
        By the task: positions that are not finite are not worth timing.
    """
    if thermostat:
        integrator: openmm.Integrator = openmm.LangevinMiddleIntegrator(_TEMPERATURE, 5.0, FEMTOSECOND)
        integrator.setRandomNumberSeed(1)
    else:
        integrator = openmm.VerletIntegrator(FEMTOSECOND)
    properties = {"Threads": str(threads)} if threads is not None and platform == "CPU" else {}
    context = openmm.Context(timed.system, integrator, find_platform(platform), properties)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(_TEMPERATURE, 1)

    def step(n: int) -> None:
        integrator.step(n)
        if platform != "CPU":
            # A GPU has the steps in its queue; who reads positions waits for them.
            context.getState(positions=True)

    def checked() -> None:
        state = context.getState(positions=True)
        if not np.isfinite(state.getPositions(asNumpy=True)._value).all():
            raise SimulationError("finite positions", f"NaN in {timed.variant}", "report this")

    step.checked = checked  # type: ignore[attr-defined]
    return step


def resident_mb() -> float:
    """Memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_resident_mb() -> float:
    """Largest memory of this process so far, MB; getrusage would give that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / 1e6


def matrix_peak(seconds: float = 1.0) -> float:
    """Operations per second of processor time in a large float32 matrix product on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
        out = a @ b
        best, started = np.inf, time.perf_counter()
        while time.perf_counter() - started < seconds:
            cpu = time.process_time()
            for _ in range(4):
                torch.mm(a, b, out=out)
            best = min(best, (time.process_time() - cpu) / 4)
    finally:
        torch.set_num_threads(threads)
    return 2 * 1024**3 / best


def machine_facts(threads: int | None) -> dict[str, str | int | float]:
    """Processor, cores, threads and load, for the head of a table."""
    import importlib.metadata

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
    facts = {}
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name", python_platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
