"""Is the hybrid right on a GPU, and what does a step cost there? Run by gpu.sh: ``python -m benchmarks.gpu``.

Forces are compared with those of the Reference platform where the GPU has the atoms, in mixed and double
precision: those of the potential alone, and of all, whose error is that of OpenMM's own forces. Then steps
of the force field and of the hybrids are timed in turn, in mixed precision; on CUDA also with networks on
tensor cores, for which the environment asks when a Context is made.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import openmm
import torch

from benchmarks.systems import dipeptide_in_water, nearest_region, replicated, rigid_outside
from mlmm.bench.measure import Task, interleaved, step_task
from mlmm.build import BuiltSystem
from mlmm.dynamics.platforms import device_name
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.potentials import load_potential
from mlmm.units import FEMTOSECOND
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.static import hard_zones, static_zones

#: Of max|F|: float32 on the GPU, and in double precision that of the networks on the processor.
LIMITS = {"mixed": 1e-5, "double": 1e-6}
_SEED = 3


def cases(quick: bool) -> dict[str, tuple[BuiltSystem, HybridSystem]]:
    """The force field and the hybrid of each row."""
    potential = load_potential("ani1x")
    flexible, rigid = dipeptide_in_water(rigid=False), dipeptide_in_water()
    found = {}
    sizes = (22,) if quick else (22, 301)
    for n in sizes:
        region = nearest_region(flexible, n)
        built = rigid_outside(flexible, rigid, region.atoms)
        name = f"additive, {n} of {built.n_atoms:,} atoms"
        found[name] = built, hybrid_system(built, hard_zones(built, region), potential, scheme="additive")
    region = nearest_region(flexible, 22)
    zones = static_zones(flexible, region, "0.3 nm", "0.3 nm")
    hybrid = hybrid_system(flexible, zones, potential, scheme="per_atom")
    found[f"per_atom, {len(hybrid.zones.active)} of {flexible.n_atoms:,} atoms"] = flexible, hybrid
    hybrid = hybrid_system(flexible, adaptive_zones(flexible, region, "0.35 nm", "0.3 nm"), potential)
    found[f"adaptive, {len(hybrid.zones.core)} of {flexible.n_atoms:,} atoms and 0.65 nm"] = flexible, hybrid
    hybrid = hybrid_system(flexible, hard_zones(flexible, region), potential, scheme="supermolecular")
    found[f"supermolecular, 22 of {flexible.n_atoms:,} atoms"] = flexible, hybrid
    if not quick:
        large_flexible = replicated(flexible, (3, 2, 2))
        large = rigid_outside(large_flexible, replicated(rigid, (3, 2, 2)), region.atoms)
        hybrid = hybrid_system(large, hard_zones(large, region), potential, scheme="additive")
        found[f"additive, 22 of {large.n_atoms:,} atoms"] = large, hybrid
    return found


@contextmanager
def tensor_cores() -> Iterator[None]:
    """Contexts that are made within have their networks on tensor cores."""
    os.environ["MLMM_TENSOR_CORES"] = "1"
    try:
        yield
    finally:
        del os.environ["MLMM_TENSOR_CORES"]


def context_on(system: openmm.System, platform: str, precision: str, positions: np.ndarray) -> openmm.Context:
    """With Langevin steps of 1 fs at 300 K."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, FEMTOSECOND)
    integrator.setRandomNumberSeed(_SEED)
    properties = {"Precision": precision}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300.0, _SEED)
    return context


def force_errors(hybrid: HybridSystem, platform: str, precision: str) -> tuple[float, float]:
    """Largest difference from Reference, of max|F|: of the potential, and of all."""
    context = context_on(hybrid.system, platform, precision, hybrid.built.positions)
    state = context.getState(positions=True)
    reference = openmm.Context(
        hybrid.system, openmm.VerletIntegrator(FEMTOSECOND), openmm.Platform.getPlatformByName("Reference")
    )
    reference.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    reference.setPositions(state.getPositions(asNumpy=True)._value)
    errors = []
    for groups in (1 << hybrid.force_groups["ml"], -1):
        found, expected = (
            c.getState(forces=True, groups=groups).getForces(asNumpy=True)._value
            for c in (context, reference)
        )
        errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
    return errors[0], errors[1]


def start(built: BuiltSystem, platform: str) -> np.ndarray:
    """Positions after a short minimisation of the force field."""
    context = context_on(built.system, platform, "mixed", built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 100)
    return context.getState(positions=True).getPositions(asNumpy=True)._value


def timed(built: BuiltSystem, hybrid: HybridSystem, platform: str, rounds: int) -> list[float]:
    """Of a step: milliseconds of the force field's, the hybrid's in units of it, that with tensor cores."""
    where = start(built, platform)

    def task(system: openmm.System) -> Task:
        return step_task(context_on(system, platform, "mixed", where))

    tasks = {"force field": task(built.system), "hybrid": task(hybrid.system)}
    if platform == "CUDA":
        with tensor_cores():
            tasks["tensor cores"] = task(hybrid.system)
    timings, lost = interleaved(tasks, rounds)
    if lost:
        raise SystemExit(f"lost: {lost}")
    field = timings.pop("force field").wall
    ratios = [float(np.median(own.wall / field)) for own in timings.values()]
    return [float(np.median(field)), *ratios]


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a force is wrong."""
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    gpus = [name for name in ("CUDA", "HIP") if name in names]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("platform", nargs="?", default=gpus[0] if gpus else "CUDA", choices=[*names, "CUDA"])
    parser.add_argument("--quick", action="store_true", help="two small systems, few rounds")
    given = parser.parse_args(arguments)
    if given.platform not in names:
        failures = openmm.Platform.getPluginLoadFailures()
        print(f"Expected OpenMM's platform {given.platform}, but got {', '.join(names)}.", file=sys.stderr)
        print(*(line for line in failures if given.platform in line), sep="\n", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    print(f"{device_name(openmm.Platform.getPlatformByName(given.platform))}, {given.platform}, ANI-1x × 8\n")
    print("| | bridge | F of ML, mixed | double | F of all, mixed | double | ", end="")
    print("F of ML, tensor cores | force field, ms | hybrid / it | with tensor cores |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    wrong = False
    for name, (built, hybrid) in cases(given.quick).items():
        errors = {precision: force_errors(hybrid, given.platform, precision) for precision in LIMITS}
        wrong |= any(not errors[precision][0] < limit for precision, limit in LIMITS.items())
        shown = [f"{errors[precision][i]:.1e}" for i in (0, 1) for precision in LIMITS]
        if given.platform == "CUDA":
            with tensor_cores():
                error = force_errors(hybrid, given.platform, "mixed")[0]
            wrong |= not error < LIMITS["mixed"]
            shown.append(f"{error:.1e}")
        else:
            shown.append("")
        field, *ratios = timed(built, hybrid, given.platform, 3 if given.quick else 15)
        shown += [f"{field:.3f}", *(f"{ratio:.2f}" for ratio in ratios)]
        print(f"| {name} | {hybrid.bridge} | {' | '.join(shown)} |", flush=True)
    if wrong:
        print(f"\nA force of the potential is wrong: more than {LIMITS} of the largest.", file=sys.stderr)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
