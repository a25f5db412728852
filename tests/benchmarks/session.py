"""State that the suites of a benchmark share: what to time, and the rows found so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report import Target
from benchmarks.variants import Timed, load, stepper
from mlmm.bench.measure import Task, Timing, interleaved, reason, resident_mb
from mlmm.build import BuiltSystem

__all__ = ["Session"]


@dataclass
class Session:
    """Choices of one call of the program, and the rows, figures and losses found so far."""

    quick: bool
    variants: tuple[str, ...]
    potential: str
    threads: int
    growth_steps: int
    progress: Callable[[str], None]
    built: BuiltSystem
    platform: str = "CPU"
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    targets: list[Target] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    #: system, variant and reason of rows that could not be had
    lost: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
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

    def stepper(self, timed: Timed, positions: np.ndarray) -> Task:
        """Steps of a variant on the platform of this session."""
        return stepper(timed, positions, threads=self.threads, platform=self.platform)

    def rounds(self, usual: int) -> int:
        """Blocks of each variant."""
        return 3 if self.quick else usual

    def time(
        self, system: str, make_task: Mapping[str, Callable[[], Task]], rounds: int
    ) -> dict[str, Timing]:
        """Timings of the variants that can be made and run; a variant that fails leaves its reason."""
        tasks, lost = {}, {}
        for name, one in make_task.items():
            try:
                tasks[name] = one()
            # A peer may raise anything, from a missing package to a lack of memory.
            except Exception as error:
                lost[name] = reason(error)
        timings, failed = interleaved(tasks, self.rounds(rounds))
        for name, why in (lost | failed).items():
            self.lost.append((system, name, why))
            self.progress(f"{system}, {name} is left out: {why}")
        return timings

    def row(self, system: str, kind: str, timed: Timed, atoms: int, timing: Timing) -> dict[str, Any]:
        """Add a row and return it."""
        row = {
            "system": system,
            "variant": timed.variant,
            "what": kind,
            "members": timed.members,
            "ml_atoms": timed.ml_atoms,
            "atoms": atoms,
            **timing.facts(),
            "rss_mb": resident_mb(),
            "rss_of": "the whole program so far",
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
