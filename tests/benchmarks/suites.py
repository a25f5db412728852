"""Suites of systems and variants, and the figures that follow from them."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import missing_peer
from benchmarks.process import in_own_process
from benchmarks.report import BenchReport
from benchmarks.session import Session
from benchmarks.systems import dipeptide_alone, dipeptide_in_water, nearest_region, relaxed, replicated
from benchmarks.variants import ON_A_GPU, VARIANTS, Timed, bare_call, make, stepper, trivial_system
from mlmm.bench.measure import (
    Task,
    Timing,
    machine_facts,
    reason,
)
from mlmm.build import BuiltSystem
from mlmm.dynamics.platforms import choose_platform, device_name
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.bridge import torchforce_problem
from mlmm.potentials.ani.native import instruction_set
from mlmm.zones.region import Region

__all__ = ["SUITES", "run_suites"]

logger = logging.getLogger(__name__)
#: name -> what it times
SUITES = {
    "dipeptide": "alanine dipeptide in water: every variant, memory and start-up",
    "water": "300 atoms in the potential, the dipeptide and its nearest waters, in the same box",
    "kernel": "energy and forces of 22 and 300 atoms without OpenMM",
    "regions": "22 to 2,000 atoms in the potential: the kernel, and whole steps",
    "sizes": "2,000 to 100,000 atoms in all, 22 of them in the potential",
    "bridge": "a potential that costs nothing, in 2,000 and 25,000 atoms",
}
# On another platform than the CPU only whole steps are timed, by the clock.
_WHOLE_STEPS = ("dipeptide", "water", "regions", "sizes")
# Beyond these sizes a variant takes minutes or all memory: torchani's periodic list looks at all pairs.
_LARGEST_PEER = 400
_LARGEST_STEP = 1100


def run_suites(
    *,
    suites: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    potential: str = "ani1x",
    platform: str = "CPU",
    quick: bool = False,
    threads: int = 0,
    growth_steps: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BenchReport:
    """Time steps of the hybrid, of the force field alone and of OpenMM-ML, in turn in this process.

    Parameters
    ----------
    suites : sequence of str
        Keys of `SUITES`; all by default, on another platform than the CPU those of whole steps.
    variants : sequence of str
        Keys of `VARIANTS`; one that is missing or fails is left out with the reason. All by default, those of
        `ON_A_GPU` on another platform than the CPU only.
    potential : str
        ``ani1x`` or ``ani2x``: the same weights in every variant.
    platform : str
        OpenMM's.
    quick : bool
        Few blocks and the smallest systems only: seconds, for a first look.
    threads : int
        Of OpenMM's CPU platform; 0 for its own choice.
    growth_steps : int
        Steps of a run of its own over which the growth of memory is measured; 0: not.
    progress : callable, optional
        Called with a line of text.

    Raises
    ------
    ConfigError
        An unknown suite, variant or platform, or a suite that is for the CPU platform only.
    """
    device = device_name(choose_platform(platform)[0])
    possible = tuple(SUITES) if platform == "CPU" else _WHOLE_STEPS
    suites = possible if suites is None else suites
    if variants is None:
        variants = [name for name in VARIANTS if platform != "CPU" or name not in ON_A_GPU]
    for names, known, what in ((suites, SUITES, "--systems"), (variants, VARIANTS, "--variants")):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(f"{what} from {', '.join(known)}", ", ".join(unknown), "correct the names")
    if not set(suites) <= set(possible):
        raise ConfigError(
            f"--systems from {', '.join(possible)} on platform {platform}",
            ", ".join(suites),
            "time the others on platform CPU",
        )
    progress = progress or (lambda text: None)
    lost = []
    problem = missing_peer()
    if problem is not None and "openmm-ml" in variants:
        variants = [name for name in variants if name != "openmm-ml"]
        lost.append(("every system", "openmm-ml", problem))
        progress(f"openmm-ml is left out: {problem}")
    facts = machine_facts(threads)
    progress("system")
    built = relaxed(
        dipeptide_in_water(padding=0.995), 0.05 if quick else 2.0, iterations=30 if quick else 200
    )
    session = Session(
        quick, tuple(variants), potential, threads, growth_steps, progress, built, platform, lost=lost
    )
    with warnings.catch_warnings():
        # OpenMM-ML returns its energy as a tensor, at every step.
        warnings.filterwarnings("ignore", message="Converting a tensor", category=UserWarning)
        for name in suites:
            progress(SUITES[name])
            _SUITES[name](session)
    ours = session.loaded("mlmm")
    level = f" ({instruction_set()})" if ours.kernel == "native" else ""
    facts |= {"potential": ours.spec.name, "kernel": ours.kernel + level}
    facts |= {"platform": platform, "device": device}
    return BenchReport(
        facts, tuple(session.rows), tuple(session.targets), tuple(session.notes), tuple(session.lost)
    )


def _steps(session: Session, names: list[str], region: Region, system: str, rounds: int) -> dict[str, Timing]:
    """Whole steps of some variants in the box of the dipeptide, as rows."""
    flexible = None
    if "mlmm-per-atom" in names:
        flexible = dipeptide_in_water(padding=0.995, rigid=False)
    return _whole_steps(session, names, session.built, region, system, rounds, flexible)


def _whole_steps(
    session: Session,
    names: Sequence[str],
    built: BuiltSystem,
    region: Region,
    system: str,
    rounds: int,
    flexible: BuiltSystem | None = None,
) -> dict[str, Timing]:
    """Whole steps of some variants in any box, as rows."""
    timed: dict[str, Timed] = {}

    def task(name: str) -> Task:
        timed[name] = make(name, built, region, session.loaded(name), flexible)
        return session.stepper(timed[name], built.positions)

    timings = session.time(system, {name: lambda name=name: task(name) for name in names}, rounds)
    for name, timing in timings.items():
        session.row(system, "step", timed[name], built.n_atoms, timing)
    return timings


def _dipeptide(session: Session) -> None:
    region = nearest_region(session.built, 22)
    names = session.chosen("mm", "mlmm", "mlmm-torch", "mlmm-per-atom", *ON_A_GPU, "openmm-ml")
    timings = _steps(session, names, region, "alanine_dipeptide", 24)
    session.ratio("dipeptide, whole step / pure MM", timings, "mlmm", "mm", 1.2)
    session.ratio("dipeptide, OpenMM-ML / whole step", timings, "openmm-ml", "mlmm", 3.5)
    if not session.on_cpu or (session.quick and not session.growth_steps):
        return
    rows = {row["variant"]: row for row in session.rows if row["system"] == "alanine_dipeptide"}
    names = list(rows)
    with tempfile.TemporaryDirectory() as folder:
        session.built.save(folder)
        dipeptide_in_water(padding=0.995, rigid=False).save(Path(folder) / "flexible")
        for name in names:
            session.progress(f"{name} in a process of its own")
            try:
                found = in_own_process(
                    name, session.potential, Path(folder), 22, 200, threads=session.threads
                )
            except SimulationError as error:
                session.lost.append(("alanine_dipeptide, a process of its own", name, reason(error)))
                continue
            rows[name] |= found
            rows[name]["rss_of"] = "a process of its own"
            # 200 steps say nothing of growth.
            for key in ("growth_mb", "growth_error", "growth_steps"):
                rows[name].pop(key, None)
        if "startup_s" in rows.get("mlmm", ()):
            session.target("dipeptide, start-up", rows["mlmm"]["startup_s"], 6.0, "s")
            session.target("dipeptide, peak memory", rows["mlmm"]["rss_mb"] / 1e3, 1.2, "GB")
    if "mlmm" in names and session.growth_steps:
        _growth(session, rows["mlmm"])


def _growth(session: Session, row: dict[str, Any]) -> None:
    """Memory over many steps of the dipeptide alone: what could leak is the potential and its bridge."""
    session.progress(f"memory over {session.growth_steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        dipeptide_alone().save(folder)
        grown = in_own_process(
            "mlmm", session.potential, Path(folder), 22, session.growth_steps, threads=session.threads
        )
    row |= {key: grown[key] for key in ("growth_mb", "growth_error", "growth_steps")}
    # Pages come and go: what two standard errors cover is no growth.
    change = (grown["growth_mb"] - 2 * grown["growth_error"]) * session.growth_steps / 1e5
    name = f"dipeptide alone, growth of memory over {session.growth_steps} steps"
    session.target(f"{name}, less two standard errors", change, 5.0, "MB")


def _water(session: Session) -> None:
    region = nearest_region(session.built, 300)
    names = session.chosen("mm", "mlmm", "mlmm-torch", *ON_A_GPU, "openmm-ml")
    timings = _steps(session, names, region, "water_300", 12)
    session.ratio("300 ML atoms, OpenMM-ML / whole step", timings, "openmm-ml", "mlmm", 9.0)


def _bare(session: Session, names: list[str], region: Region, system: str, rounds: int) -> dict[str, Timing]:
    """Energy and forces of the potential alone, as rows."""

    def task(name: str) -> Task:
        return bare_call(name, session.built, region, session.loaded(name))

    timings = session.time(system, {name: lambda name=name: task(name) for name in names}, rounds)
    for name, timing in timings.items():
        timed = Timed(name, None, len(region), session.loaded(name).spec.members)
        session.row(system, "kernel", timed, len(region), timing)
    return timings


def _kernel(session: Session) -> None:
    for n_atoms, wanted in ((22, 12.0), (300, 8.0)):
        region = nearest_region(session.built, n_atoms)
        names = session.chosen("mlmm", "mlmm-torch", "openmm-ml")
        timings = _bare(session, names, region, f"kernel_{n_atoms}", 16)
        name = f"kernel, {n_atoms} atoms, OpenMM-ML / mlmm"
        session.ratio(name, timings, "openmm-ml", "mlmm", wanted)


def _regions(session: Session) -> None:
    sizes = (22, 100) if session.quick else (22, 100, 300, 1000, 2000)
    found = []
    for size in sizes:
        session.progress(f"{size} atoms in the potential")
        region = nearest_region(session.built, size)
        names = session.chosen("mlmm", "mlmm-torch", "openmm-ml")
        if len(region) > _LARGEST_PEER:
            names = [name for name in names if name != "openmm-ml"]
        if session.on_cpu:
            timings = _bare(session, names, region, f"region_{size}", 6)
            if "mlmm" in timings:
                found.append((len(region), timings["mlmm"].facts()["cpu_ms"]))
        names = session.chosen("mm", "mlmm", *([] if session.on_cpu else ON_A_GPU))
        if "mlmm" in names and len(region) <= _LARGEST_STEP:
            _steps(session, names, region, f"region_{size}", 4)
    long = np.log([pair for pair in found if pair[0] >= 100])
    if len(long) >= 3:
        exponent = float(np.polyfit(long[:, 0], long[:, 1], 1)[0])
        session.target("kernel, exponent of cost by atoms, 100 to 2,000", exponent, 1.1)
    if "openmm-ml" in session.variants and not session.quick:
        session.notes.append(
            f"openmm-ml not timed above {_LARGEST_PEER} atoms in the potential: its list of all pairs in all "
            "images grows with their square"
        )


def _sizes(session: Session) -> None:
    copies = ((1, 1, 1), (2, 2, 1)) if session.quick else ((1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 4, 3))
    names = session.chosen("mm", "mlmm", *([] if session.on_cpu else ON_A_GPU), "openmm-ml")
    for times in copies:
        built = replicated(session.built, times)
        session.progress(f"{built.n_atoms} atoms in all")
        region = nearest_region(built, 22)
        system = f"size_{round(built.n_atoms / 1e3)}k"
        _whole_steps(session, names, built, region, system, 8 if built.n_atoms < 30000 else 4)


def _bridge(session: Session) -> None:
    for times, wanted in (((1, 1, 1), {"torchforce": 0.15, "native": 0.03}), ((3, 2, 2), {})):
        built = replicated(session.built, times)
        region = nearest_region(built, 22)
        bridges = [None, "native"] if torchforce_problem() else [None, "torchforce", "native"]
        compared = {t.variant: t for t in (trivial_system(built, region, bridge=b) for b in bridges)}
        tasks = {
            name: lambda t=t, where=built.positions: stepper(
                t, where, threads=session.threads, thermostat=False
            )
            for name, t in compared.items()
        }
        timings = session.time(f"bridge_{round(built.n_atoms / 1e3)}k", tasks, 16)
        for name, timing in timings.items():
            session.row(
                f"bridge_{round(built.n_atoms / 1e3)}k", "step", compared[name], built.n_atoms, timing
            )
        for bridge in bridges[1:]:
            if {bridge, "no force"} <= timings.keys():
                excess = timings[bridge].minus(timings["no force"]).facts()["cpu_ms"]
                name = f"bridge {bridge}, {built.n_atoms} atoms, cost per step"
                session.target(name, excess, wanted.get(bridge, 0.5), "ms")


_SUITES: dict[str, Callable[[Session], None]] = {
    "dipeptide": _dipeptide,
    "water": _water,
    "kernel": _kernel,
    "regions": _regions,
    "sizes": _sizes,
    "bridge": _bridge,
}
