"""A hybrid system of a few springs whose runs take a moment, and what the tests of runs do to them."""

from __future__ import annotations

from toys import SpringPotential, chains

from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Minimise, Produce
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

INTERVALS = {"report_interval": 4, "trajectory_interval": 10, "checkpoint_interval": 25, "seed": 4}


class CrashError(Exception):
    """A crash at a chosen moment."""


def chain_hybrid(potential: object = None, **changes: object) -> HybridSystem:
    """Chains of four atoms, the first one under the potential."""
    built = chains(**{"box": None} | changes)
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    return hybrid_system(built, zones, potential or SpringPotential())


def stages(length: str = "40 fs") -> list:
    """Minimise, equilibrate, produce for some time, with steps of 0.5 fs."""
    return [Minimise(max_iterations=5), Equilibrate("10 fs"), Produce(length)]


def crash_at(stage: str, step: int):
    """A progress callable that ends the run at once, as a kill would."""

    def progress(now):
        if now.stage == stage and now.done >= step:
            raise CrashError

    return progress


def run_in(folder, hybrid=None, length="40 fs", **changes) -> RunDirectory:
    """Simulate on the Reference platform."""
    hybrid = hybrid or chain_hybrid()
    return simulate(
        hybrid,
        folder,
        stages(length),
        **{"platform": "Reference", "timestep": "0.5 fs"} | INTERVALS | changes,
    )


def results(run: RunDirectory) -> tuple[bytes, bytes, str]:
    """Energy table, frames (the header before them holds the time of day) and last state of a run."""
    frames = run.file("trajectory.dcd").read_bytes()[276:]
    return run.file("energies.csv").read_bytes(), frames, run.read_checkpoint().state


def columns(run: RunDirectory) -> dict[str, list[str]]:
    """The energy table by column."""
    names, *rows = [line.split(",") for line in run.file("energies.csv").read_text().splitlines()]
    return dict(zip(names, zip(*rows, strict=True), strict=True))
