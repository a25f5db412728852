"""What `mlmm bench` times, and the figures that follow from it."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.bench.measure import (
    Timing,
    device_name,
    find_platform,
    interleaved,
    machine_facts,
    matrix_peak,
    resident_mb,
    stepper,
)
from mlmm.bench.peers import missing_peer
from mlmm.bench.process import in_own_process
from mlmm.bench.report import BenchReport, Target
from mlmm.bench.systems import dipeptide_alone, dipeptide_in_water, nearest_region, relaxed, replicated
from mlmm.bench.variants import (
    ON_A_GPU,
    VARIANTS,
    Timed,
    bare_call,
    load,
    make,
    network_flops,
    trivial_system,
)
from mlmm.build import BuiltSystem
from mlmm.errors import ConfigError
from mlmm.hybrid.bridge import torchforce_problem
from mlmm.potentials.ani.native import instruction_set
from mlmm.zones.region import Region

__all__ = ["SUITES", "run_bench"]

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


@dataclass
class _Bench:
    """What the suites share, and what they have found."""

    quick: bool
    variants: tuple[str, ...]
    potential: str
    threads: int | None
    growth_steps: int
    progress: Callable[[str], None]
    built: BuiltSystem
    platform: str = "CPU"
    peak: float = 0.0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    targets: list[Target] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    potentials: dict[str, Any] = dataclasses.field(default_factory=dict)

    def loaded(self, variant: str) -> Any:
        """The potential as a variant evaluates it, loaded once."""
        if variant not in self.potentials:
            self.potentials[variant] = load(variant, self.potential)
        return self.potentials[variant]

    def chosen(self, *names: str) -> list[str]:
        """Those of some variants that were asked for and can run."""
        return [name for name in names if name in self.variants]

    @property
    def on_cpu(self) -> bool:
        """Whether processor time is what counts."""
        return self.platform == "CPU"

    def stepper(self, timed: Timed, positions: np.ndarray) -> Callable[[int], None]:
        """Steps of a variant on the platform of this bench."""
        return stepper(timed, positions, threads=self.threads, platform=self.platform)

    def rounds(self, usual: int) -> int:
        """Blocks of each variant."""
        return 3 if self.quick else usual

    def flops(self, region: Region) -> float:
        """Of the networks for a region, per step."""
        return network_flops(self.loaded("mlmm"), self.built, region)

    def row(self, system: str, kind: str, timed: Timed, atoms: int, timing: Timing, limit: float | None):
        """Add a row and return it."""
        row = {
            "system": system,
            "variant": timed.variant,
            "what": kind,
            "members": timed.members,
            "ml_atoms": timed.ml_atoms,
            "atoms": atoms,
            **timing.facts(),
            "limit_cpu_ms": limit if self.on_cpu else None,
            "rss_mb": resident_mb(),
            "rss_of": "the whole bench so far",
        }
        self.rows.append(row)
        return row

    def target(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """Compare a figure that should be small with what is wanted of it."""
        if self.on_cpu:
            self.targets.append(Target(name, value, limit, unit))

    def ratio(self, name: str, timings: dict[str, Timing], over: str, under: str, wanted: float) -> None:
        """Compare the processor time of a variant in units of another's with what is wanted of it."""
        if self.on_cpu and {over, under} <= timings.keys():
            a, b = timings[over], timings[under]
            self.targets.append(Target(name, a.ratio(b), wanted, "x", under == "mlmm", a.fastest_ratio(b)))


def run_bench(
    *,
    suites: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    potential: str = "ani1x",
    platform: str = "CPU",
    quick: bool = False,
    threads: int | None = None,
    growth_steps: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BenchReport:
    """Time steps of the hybrid, of the force field alone and of OpenMM-ML, in turn in this process.

    Parameters
    ----------
    suites : sequence of str
        Keys of `SUITES`; all by default, on another platform than the CPU those of whole steps.
    variants : sequence of str
        Keys of `VARIANTS`; a peer that is not installed is left out with a note. All by default, those of
        `ON_A_GPU` on another platform than the CPU only.
    potential : str
        ``ani1x`` or ``ani2x``: the same weights in every variant.
    platform : str
        OpenMM's.
    quick : bool
        Few blocks and the smallest systems only: seconds, for a first look.
    threads : int, optional
        Of OpenMM's CPU platform; its own default otherwise.
    growth_steps : int
        Steps of a run of its own over which the growth of memory is measured; 0: not.
    progress : callable, optional
        Called with a line of text.

    Raises
    ------
    ConfigError
        An unknown suite, variant or platform, or a suite that is for the CPU platform only.
    """
    device = device_name(find_platform(platform))
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
    notes = []
    problem = missing_peer()
    if problem is not None and "openmm-ml" in variants:
        variants = [name for name in variants if name != "openmm-ml"]
        notes.append(f"openmm-ml left out: {problem}")
        progress(notes[-1])
    facts = machine_facts(threads)
    progress("system")
    built = relaxed(
        dipeptide_in_water(padding=0.995), 0.05 if quick else 2.0, iterations=30 if quick else 200
    )
    bench = _Bench(
        quick, tuple(variants), potential, threads, growth_steps, progress, built, platform, notes=notes
    )
    bench.peak = matrix_peak(0.2 if quick else 1.0)
    with warnings.catch_warnings():
        # OpenMM-ML returns its energy as a tensor, at every step.
        warnings.filterwarnings("ignore", message="Converting a tensor", category=UserWarning)
        for name in suites:
            progress(SUITES[name])
            _SUITES[name](bench)
    ours = bench.loaded("mlmm")
    level = f" ({instruction_set()})" if ours.kernel == "native" else ""
    facts |= {"matrix_gflops": bench.peak / 1e9, "potential": ours.spec.name, "kernel": ours.kernel + level}
    facts |= {"platform": platform, "device": device}
    return BenchReport(facts, tuple(bench.rows), tuple(bench.targets), tuple(bench.notes))


def _steps(bench: _Bench, names: list[str], region: Region, system: str, rounds: int) -> dict[str, Timing]:
    """Whole steps of some variants in the box of the dipeptide, as rows."""
    flexible = None
    if "mlmm-local" in names:
        flexible = dipeptide_in_water(padding=0.995, rigid=False)
    timed = {n: make(n, bench.built, region, bench.loaded(n), flexible) for n in names}
    tasks = {n: bench.stepper(t, bench.built.positions) for n, t in timed.items()}
    timings = interleaved(tasks, bench.rounds(rounds))
    for task in tasks.values():
        task.checked()
    flops = bench.flops(region)
    mm = timings["mm"].facts()["cpu_ms"] if "mm" in timings else None
    for name in names:
        # Another number of atoms in the potential has another limit.
        own = 0.0 if name == "mm" else flops * timed[name].ml_atoms / len(region)
        limit = None if mm is None else mm + 1e3 * own / bench.peak
        bench.row(system, "step", timed[name], bench.built.n_atoms, timings[name], limit)
    return timings


def _dipeptide(bench: _Bench) -> None:
    region = nearest_region(bench.built, 22)
    names = bench.chosen("mm", "mlmm", "mlmm-torch", "mlmm-local", *ON_A_GPU, "openmm-ml")
    timings = _steps(bench, names, region, "alanine_dipeptide", 24)
    bench.ratio("dipeptide, whole step / pure MM", timings, "mlmm", "mm", 1.5)
    bench.ratio("dipeptide, OpenMM-ML / whole step", timings, "openmm-ml", "mlmm", 3.5)
    if not bench.on_cpu or (bench.quick and not bench.growth_steps):
        return
    rows = {row["variant"]: row for row in bench.rows if row["system"] == "alanine_dipeptide"}
    with tempfile.TemporaryDirectory() as folder:
        bench.built.save(folder)
        dipeptide_in_water(padding=0.995, rigid=False).save(Path(folder) / "flexible")
        for name in names:
            bench.progress(f"{name} in a process of its own")
            rows[name] |= in_own_process(name, bench.potential, Path(folder), 22, 200, threads=bench.threads)
            rows[name]["rss_of"] = "a process of its own"
            # 200 steps say nothing of growth.
            for key in ("growth_mb", "growth_error", "growth_steps"):
                rows[name].pop(key, None)
        if "mlmm" in names:
            bench.target("dipeptide, start-up", rows["mlmm"]["startup_s"], 6.0, "s")
            bench.target("dipeptide, peak memory", rows["mlmm"]["rss_mb"] / 1e3, 1.2, "GB")
    if "mlmm" in names and bench.growth_steps:
        _growth(bench, rows["mlmm"])


def _growth(bench: _Bench, row: dict[str, Any]) -> None:
    """Memory over many steps of the dipeptide alone: what could leak is the potential and its bridge."""
    bench.progress(f"memory over {bench.growth_steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        dipeptide_alone().save(folder)
        grown = in_own_process(
            "mlmm", bench.potential, Path(folder), 22, bench.growth_steps, threads=bench.threads
        )
    row |= {key: grown[key] for key in ("growth_mb", "growth_error", "growth_steps")}
    # Pages come and go: what two standard errors cover is no growth.
    change = (grown["growth_mb"] - 2 * grown["growth_error"]) * bench.growth_steps / 1e5
    name = f"dipeptide alone, growth of memory over {bench.growth_steps} steps"
    bench.target(f"{name}, less two standard errors", change, 5.0, "MB")


def _water(bench: _Bench) -> None:
    region = nearest_region(bench.built, 300)
    names = bench.chosen("mm", "mlmm", "mlmm-torch", *ON_A_GPU, "openmm-ml")
    timings = _steps(bench, names, region, "water_300", 12)
    bench.ratio("300 ML atoms, OpenMM-ML / whole step", timings, "openmm-ml", "mlmm", 9.0)


def _bare(bench: _Bench, names: list[str], region: Region, system: str, rounds: int) -> dict[str, Timing]:
    """Energy and forces of the potential alone, as rows."""
    tasks = {}
    for name in names:
        call = bare_call(name, bench.built, region, bench.loaded(name))
        tasks[name] = lambda n, call=call: [call() for _ in range(n)]
    timings = interleaved(tasks, bench.rounds(rounds))
    limit = 1e3 * bench.flops(region) / bench.peak
    for name in names:
        timed = Timed(name, None, len(region), bench.loaded(name).spec.members)
        bench.row(system, "kernel", timed, len(region), timings[name], limit)
    return timings


def _kernel(bench: _Bench) -> None:
    for n_atoms, wanted in ((22, 12.0), (300, 8.0)):
        region = nearest_region(bench.built, n_atoms)
        names = bench.chosen("mlmm", "mlmm-torch", "openmm-ml")
        timings = _bare(bench, names, region, f"kernel_{n_atoms}", 16)
        name = f"kernel, {n_atoms} atoms, OpenMM-ML / mlmm"
        bench.ratio(name, timings, "openmm-ml", "mlmm", wanted)


def _regions(bench: _Bench) -> None:
    sizes = (22, 100) if bench.quick else (22, 100, 300, 1000, 2000)
    found = []
    for size in sizes:
        bench.progress(f"{size} atoms in the potential")
        region = nearest_region(bench.built, size)
        names = bench.chosen("mlmm", "mlmm-torch", "openmm-ml")
        if len(region) > _LARGEST_PEER:
            names = [name for name in names if name != "openmm-ml"]
        if bench.on_cpu:
            timings = _bare(bench, names, region, f"region_{size}", 6)
            if "mlmm" in timings:
                found.append((len(region), timings["mlmm"].facts()["cpu_ms"]))
        names = bench.chosen("mm", "mlmm", *([] if bench.on_cpu else ON_A_GPU))
        if "mlmm" in names and len(region) <= _LARGEST_STEP:
            _steps(bench, names, region, f"region_{size}", 4)
    long = np.log([pair for pair in found if pair[0] >= 100])
    if len(long) >= 3:
        exponent = float(np.polyfit(long[:, 0], long[:, 1], 1)[0])
        bench.target("kernel, exponent of cost by atoms, 100 to 2,000", exponent, 1.1)
    if "openmm-ml" in bench.variants and not bench.quick:
        bench.notes.append(
            f"openmm-ml not timed above {_LARGEST_PEER} atoms in the potential: its list of all pairs in all "
            "images grows with their square"
        )


def _sizes(bench: _Bench) -> None:
    copies = ((1, 1, 1), (2, 2, 1)) if bench.quick else ((1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 4, 3))
    names = bench.chosen("mm", "mlmm", *([] if bench.on_cpu else ON_A_GPU), "openmm-ml")
    for times in copies:
        built = replicated(bench.built, times)
        bench.progress(f"{built.n_atoms} atoms in all")
        region = nearest_region(built, 22)
        timed = {n: make(n, built, region, bench.loaded(n)) for n in names}
        tasks = {n: bench.stepper(t, built.positions) for n, t in timed.items()}
        timings = interleaved(tasks, bench.rounds(8 if built.n_atoms < 30000 else 4))
        mm = timings["mm"].facts()["cpu_ms"] if "mm" in timings else None
        own = 1e3 * bench.flops(region) / bench.peak
        for name in names:
            limit = None if mm is None else mm + (0.0 if name == "mm" else own)
            bench.row(
                f"size_{round(built.n_atoms / 1e3)}k",
                "step",
                timed[name],
                built.n_atoms,
                timings[name],
                limit,
            )


def _bridge(bench: _Bench) -> None:
    for times, wanted in (((1, 1, 1), 0.15), ((3, 2, 2), 0.5)):
        built = replicated(bench.built, times)
        region = nearest_region(built, 22)
        bridges = [None, "native"] if torchforce_problem() else [None, "torchforce", "native"]
        compared = [trivial_system(built, region, bridge=bridge) for bridge in bridges]
        tasks = {
            t.variant: stepper(t, built.positions, threads=bench.threads, thermostat=False) for t in compared
        }
        timings = interleaved(tasks, bench.rounds(16))
        for timed in compared:
            bench.row(
                f"bridge_{round(built.n_atoms / 1e3)}k",
                "step",
                timed,
                built.n_atoms,
                timings[timed.variant],
                None,
            )
        for bridge in bridges[1:]:
            excess = timings[bridge].excess(timings["no force"])
            bench.target(f"bridge {bridge}, {built.n_atoms} atoms, cost per step", excess, wanted, "ms")


_SUITES: dict[str, Callable[[_Bench], None]] = {
    "dipeptide": _dipeptide,
    "water": _water,
    "kernel": _kernel,
    "regions": _regions,
    "sizes": _sizes,
    "bridge": _bridge,
}
