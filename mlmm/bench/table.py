"""Cost of a step: from timings to rows, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.bench.measure import Timing
from mlmm.check_report import aligned
from mlmm.dynamics.options import CHECKPOINT_SHARE, RunOptions
from mlmm.dynamics.stages import Dynamics
from mlmm.units import NANOSECOND

__all__ = ["CostRow", "StepCost", "cost_rows", "machine_line"]

_HEAD = ("", "cpu ms", "wall ms", "fastest wall", "of the step", "ns/day")


@dataclass(frozen=True)
class CostRow:
    """Cost of a step or of a part of it.

    Parameters
    ----------
    name : str
    part : bool
        Whether it is a part of the row "hybrid step" above it.
    cpu_ms, wall_ms : float
        Processor time of all threads and elapsed time: medians over the blocks.
    cpu_ms_min, wall_ms_min : float or None
        In the fastest block; None for a difference, whose least value means nothing.
    blocks : int
    ns_per_day : float or None
        From `wall_ms` and the length of the step; None for a part.
    """

    name: str
    part: bool
    cpu_ms: float
    wall_ms: float
    cpu_ms_min: float | None
    wall_ms_min: float | None
    blocks: int
    ns_per_day: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        timing: Timing,
        length: float | None,
        *,
        part: bool = False,
        difference: bool = False,
    ) -> CostRow:
        """From a timing and the time that a step advances, ps; None for what is no step."""
        wall, cpu = float(np.median(timing.wall)), float(np.median(timing.cpu))
        speed = None if length is None or wall <= 0 else length / NANOSECOND * 86_400_000 / wall
        cpu_min = None if difference else float(timing.cpu.min())
        wall_min = None if difference else float(timing.wall.min())
        return cls(name, part, cpu, wall, cpu_min, wall_min, len(timing.cpu), speed)


@dataclass(frozen=True)
class StepCost:
    """Result of `measure_step`; prints as a table.

    Parameters
    ----------
    machine : dict
        Processor, cores, platform, threads, load, versions, peak memory.
    system : dict
        Atoms, potential, scheme, bridge, time step.
    rows : tuple of CostRow
    notes : tuple of str
        Rows that were lost, with the reason, and what was not timed.
    """

    machine: dict[str, Any]
    system: dict[str, Any]
    rows: tuple[CostRow, ...]
    notes: tuple[str, ...] = ()

    def row(self, name: str) -> CostRow:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        s = self.system
        graphs = " with CUDA graphs" if s.get("cuda_graphs") else ""
        what = (
            f"{s['atoms']:,} atoms, {s['ml_atoms']} of them in {s['potential']} ({s['members']} members, "
            f"kernel {s['kernel']}); scheme {s['scheme']}, force field in {s['mm_side']}, "
            f"bridge {s['bridge']}{graphs}; steps of {s['timestep_fs']:g} fs"
        )
        where = f"platform {self.machine['platform']}"
        if self.machine.get("device"):
            where += f" ({self.machine['device']})"
        lines = [what, f"{where}; {machine_line(self.machine)}", "", aligned(self._cells())]
        lines += ["", f"peak memory {self.machine['peak_mb']:.0f} MB", *(f"note   {n}" for n in self.notes)]
        return "\n".join(lines)

    def _cells(self) -> list[tuple[str, ...]]:
        # Elapsed time on a device, which does the work; processor time is steadier where it is the processor.
        on_cpu = self.machine["platform"] in ("CPU", "Reference")
        whole = [row for row in self.rows if row.name == "hybrid step"]
        cells: list[tuple[str, ...]] = [_HEAD]
        for row in self.rows:
            share = ""
            if whole and (row.part or row is whole[0]):
                cost, all_of_it = (row.cpu_ms, whole[0].cpu_ms) if on_cpu else (row.wall_ms, whole[0].wall_ms)
                share = f"{100 * cost / all_of_it:.0f} %"
            speed = "" if row.ns_per_day is None else f"{row.ns_per_day:.3g}"
            times = (_digits(row.cpu_ms), _digits(row.wall_ms), _digits(row.wall_ms_min))
            cells.append((("  " if row.part else "") + row.name, *times, share, speed))
        return cells

    def write_json(self, path: str | Path) -> Path:
        """Write machine, system, rows and notes; returns the path."""
        content = {
            "machine": self.machine,
            "system": self.system,
            "rows": [asdict(row) for row in self.rows],
            "notes": self.notes,
        }
        path = Path(path)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path


def machine_line(machine: dict[str, Any]) -> str:
    """Processor, load, threads and versions in one line."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, load average {machine['load_average']} at the "
        f"start; {machine['openmm_threads']} threads for OpenMM, {machine['torch_threads']} for torch; "
        f"openmm {machine['openmm']}, torch {machine['torch']}"
    )


def cost_rows(
    timings: Mapping[str, Timing], stage: Dynamics, options: RunOptions, against: tuple[str, ...]
) -> list[CostRow]:
    """From timings to the rows of the table, those that can be made."""
    rows = []

    def add(name: str, timing: Timing | None, length: float | None = None, **kind: bool) -> None:
        if timing is not None:
            rows.append(CostRow.of(name, timing, length, **kind))

    length = single = float(stage.timestep)
    whole, bare = timings.get("whole step"), timings.get("without potential")
    potential = timings.get("potential")
    add("force field alone", timings.get("force field alone"), length)
    add("hybrid step", whole, length)
    kept = timings.get("without pairs", bare)
    add("force field that stays, integrator", kept, part=True)
    if kept is not bare and kept is not None and bare is not None:
        add("pairs that the potential replaces", bare.minus(kept), part=True, difference=True)
    add("potential: energy and forces", potential, part=True)
    if whole is not None and bare is not None and potential is not None:
        add("bridge and caches", whole.minus(bare).minus(potential), part=True, difference=True)
    step = timings.get("multiple time steps", whole)
    if "multiple time steps" in timings:
        length = stage.step_length
        add(f"hybrid step of {length * 1e3:g} fs, multiple time steps", step, length)
    total = step
    for name, every in (
        ("energy table", options.report_interval),
        ("frame", options.trajectory_interval),
        ("checkpoint", _steps_between_checkpoints(options, timings)),
    ):
        if name in timings:
            each = timings[name].over(every)
            add(f"{name}, every {every} steps", each)
            total = None if total is None else total.plus(each)
    add("run: step and reporters", total, length)
    for name in against:
        add(f"hybrid step with {name}", timings.get(name), single)
    return rows


def _steps_between_checkpoints(options: RunOptions, timings: Mapping[str, Timing]) -> int:
    """As a run would have them: by their share of the time where no interval is given."""
    every, step = options.checkpoint_every, timings.get("multiple time steps", timings.get("whole step"))
    if options.checkpoint_interval or step is None or "checkpoint" not in timings:
        return every
    cost = float(np.median(timings["checkpoint"].wall)) / CHECKPOINT_SHARE / float(np.median(step.wall))
    return every * max(1, math.ceil(cost / every))


def _digits(value: float | None) -> str:
    """Three significant digits, and no more than a microsecond; nothing for what was not measured."""
    if value is None:
        return ""
    return "0" if abs(value) < 5e-4 else f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.3f}"
