"""One variant in a process of its own: start-up, peak memory, growth. ``python -m benchmarks.process …``"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["in_own_process"]


def in_own_process(
    variant: str,
    potential: str,
    folder: Path,
    region: int,
    steps: int,
    *,
    samples: int = 20,
    threads: int = 0,
) -> dict[str, float]:
    """Start Python anew, load, make a context, evaluate forces, run.

    Parameters
    ----------
    variant, potential : str
    folder : Path
        Of `BuiltSystem.save`; ``flexible`` inside it holds the same atoms without constraints.
    region : int
        Atoms of the region.
    steps : int
    samples : int
        Of the memory, along the steps.
    threads : int

    Returns
    -------
    dict
        ``startup_s``, from the start of the process to the end of the first step, and its processor
        time ``startup_cpu_s``; ``rss_mb``, the peak;
        ``growth_mb``, slope of the memory in MB per 10^5 steps with ``growth_error``; ``growth_steps``.
    """
    arguments = [variant, potential, str(folder), str(region), str(steps), str(samples), str(threads)]
    command = [sys.executable, "-m", "benchmarks.process", *arguments, repr(time.time())]
    found = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        from mlmm.errors import SimulationError

        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise SimulationError(f"{variant} to run in a process of its own", last, f"run {' '.join(command)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _main(arguments: list[str]) -> dict[str, float]:
    variant, name, folder = arguments[0], arguments[1], Path(arguments[2])
    n_region, steps, samples, threads = map(int, arguments[3:7])
    started = float(arguments[7])

    import numpy as np
    import torch

    from benchmarks.systems import nearest_region
    from benchmarks.variants import load, make, stepper
    from mlmm.bench.measure import peak_resident_mb, resident_mb
    from mlmm.build import BuiltSystem

    torch.set_num_threads(1)
    built = BuiltSystem.load(folder)
    flexible = BuiltSystem.load(folder / "flexible") if variant == "mlmm-per-atom" else None
    potential = load(variant, name)
    timed = make(variant, built, nearest_region(built, n_region), potential, flexible)
    task = stepper(timed, built.positions, threads=threads)
    step = task.run
    step(1)
    startup, startup_cpu = time.time() - started, time.process_time()
    at, memory = [], []
    chunk = max(1, steps // samples)
    for k in range(steps // chunk):
        step(chunk)
        at.append((k + 1) * chunk)
        memory.append(resident_mb())
    task.check()
    # The first half is warm-up: TorchScript's second graph, the allocator's pools.
    half = len(at) // 2
    facts = {
        "startup_s": startup,
        "startup_cpu_s": startup_cpu,
        "rss_mb": peak_resident_mb(),
        "growth_steps": steps,
    }
    if len(at) - half >= 3:
        (slope, _), covariance = np.polyfit(at[half:], memory[half:], 1, cov="unscaled")
        residuals = np.asarray(memory[half:]) - np.polyval(np.polyfit(at[half:], memory[half:], 1), at[half:])
        error = np.sqrt(covariance[0, 0] * np.sum(residuals**2) / (len(residuals) - 2))
        facts |= {"growth_mb": 1e5 * float(slope), "growth_error": 1e5 * float(error)}
    return facts


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_main(sys.argv[1:])) + "\n")
