"""Rows of the benchmarks as table, markdown, JSON and picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmm.bench.table import machine_line
from mlmm.check_report import aligned

__all__ = ["BenchReport", "Target"]


@dataclass(frozen=True)
class Target:
    """A figure that follows from the rows, and what is wanted of it.

    Parameters
    ----------
    name : str
    value, wanted : float
    unit : str
    at_least : bool
        Whether more is better.
    fastest : float, optional
        The same figure from the fastest blocks alone.
    """

    name: str
    value: float
    wanted: float
    unit: str = ""
    at_least: bool = False
    fastest: float | None = None

    @property
    def reached(self) -> bool:
        """Whether it is as good as wanted."""
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def cells(self) -> tuple[str, ...]:
        """Name, value, that of the fastest blocks, limit, verdict."""
        sign = ">=" if self.at_least else "<="
        number = f"{self.value:.3g} {self.unit}".strip()
        fastest = "" if self.fastest is None else f"{self.fastest:.3g} {self.unit}".strip()
        wanted = f"{sign} {self.wanted:g} {self.unit}".strip()
        return self.name, number, fastest, wanted, "yes" if self.reached else "NO"


@dataclass(frozen=True)
class BenchReport:
    """What `run_suites` found; prints as a table.

    Parameters
    ----------
    machine : dict
        Processor, cores, threads, load, versions.
    rows : tuple of dict
        One for each system and variant: ``system variant what members ml_atoms atoms cpu_ms cpu_ms_min
        wall_ms wall_ms_p10 blocks rss_mb rss_of`` and, where measured, ``startup_s growth_mb``.
        ``what`` is "step" for a whole step of 1 fs, "kernel" for energy and forces without OpenMM.
    targets : tuple of Target
    notes : tuple of str
    lost : tuple of (str, str, str)
        System, variant and reason of rows that could not be had.
    """

    machine: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    lost: tuple[tuple[str, str, str], ...] = ()

    @property
    def own_failures(self) -> list[str]:
        """Variants other than the peer that lost a row."""
        return sorted({variant for _, variant, _ in self.lost if variant != "openmm-ml"})

    def _notes(self) -> list[str]:
        left_out = [f"{system}: {variant} is left out: {why}" for system, variant, why in self.lost]
        return [*self.notes, *left_out]

    def __str__(self) -> str:
        parts = [self.machine_line(), aligned(_table(self.rows), left=3)]
        if self.targets:
            parts.append(aligned([_TARGET_HEAD, *self._target_cells()]))
        parts += [f"note   {note}" for note in self._notes()]
        return "\n\n".join(parts)

    def _target_cells(self) -> list[tuple[str, ...]]:
        return [target.cells() for target in self.targets]

    def machine_line(self) -> str:
        """The machine in one line."""
        m = self.machine
        where = m.get("platform", "CPU")
        if where != "CPU":
            where = f"{where} ({m.get('device')})" if m.get("device") else where
            return f"platform {where}, by the clock; host: {self._host()}"
        return self._host()

    def _host(self) -> str:
        m = self.machine
        return f"{machine_line(m)}; {m['potential']}, kernel {m['kernel']}"

    def write_json(self, path: str | Path) -> Path:
        """Write machine, rows and targets; returns the path."""
        targets = [vars(target) | {"reached": target.reached} for target in self.targets]
        content = {"machine": self.machine, "rows": self.rows, "targets": targets, "notes": self._notes()}
        path = Path(path)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path

    def write_markdown(self, path: str | Path, command: str, picture: str | None = None) -> Path:
        """Write the page that goes beside the README of the benchmarks.

        Parameters
        ----------
        path : path
        command : str
            What produced it.
        picture : str, optional
            Name of the picture beside it.
        """
        lines = ["# Benchmarks", "", "```sh", command, "```", "", self.machine_line() + ".", "", _HOW, ""]
        lines += ["Remarks on these figures: [README.md](README.md).", ""]
        if picture is not None:
            lines += [f"![Cost by atoms in the potential and by atoms in all]({picture})", ""]
        if self.targets:
            lines += ["## What is wanted", ""]
            lines += _markdown([_TARGET_HEAD, *self._target_cells()])
        for what, title in (("step", "Whole steps of 1 fs"), ("kernel", "Energy and forces without OpenMM")):
            rows = [row for row in self.rows if row["what"] == what]
            if rows:
                lines += ["", f"## {title}", "", *_markdown(_table(rows))]
        if self._notes():
            lines += ["", *(f"- {note}" for note in self._notes())]
        path = Path(path)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def plot(self, path: str | Path) -> Path:
        """Draw cost by atoms in the potential and by atoms in all; returns the path."""
        import matplotlib

        matplotlib.use("Agg", force=False)
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        kernels = [r for r in self.rows if r["what"] == "kernel" and r["system"].startswith("region_")]
        steps = [r for r in self.rows if r["what"] == "step"]
        time = "cpu_ms" if self.machine.get("platform", "CPU") == "CPU" else "wall_ms"
        for variant, colour in _COLOURS.items():
            _line(
                left, [r for r in kernels if r["variant"] == variant], "ml_atoms", time, variant, colour, "-o"
            )
            whole = [r for r in steps if r["variant"] == variant and r["system"].startswith("region_")]
            if variant != "mm":
                _line(left, whole, "ml_atoms", time, f"{variant}, whole step", colour, "--s")
            sizes = [r for r in steps if r["variant"] == variant and r["system"].startswith("size_")]
            _line(right, sizes, "atoms", time, variant, colour, "-o")
        for axis, label in ((left, "atoms in the potential"), (right, "atoms in all, 22 in the potential")):
            axis.set(xlabel=label, ylabel="processor time / ms" if time == "cpu_ms" else "time / ms")
            if axis.has_data():
                axis.set(xscale="log", yscale="log")
                axis.legend(frameon=False, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        path = Path(path)
        figure.savefig(path, dpi=150)
        return path


_HOW = """Variants run in turn, in blocks of about 0.15 s, in one process. *cpu* is the processor time of
that process per step, all threads, user and system: median over the blocks; *wall* the elapsed time, median
and 10th percentile; ratios are medians over the rounds, those of the fastest blocks beside them. *memory* is
the peak of a process of its own where *start-up*, from the start of Python to the end of the first step, is
given too; elsewhere it is not listed."""
_TARGET_HEAD = ("figure", "measured", "fastest blocks", "wanted", "reached")
_COLOURS = {
    "mm": "0.45",
    "mlmm": "#1b6ca8",
    "mlmm-torch": "#7fb4d8",
    "mlmm-per-atom": "#3a9d5d",
    "mlmm-lists": "#b08cc9",
    "mlmm-graphs": "#6a3d9a",
    "openmm-ml": "#d1603d",
}


def _line(axis: Any, rows: list[dict[str, Any]], x: str, y: str, label: str, colour: str, style: str) -> None:
    if rows:
        rows = sorted(rows, key=lambda row: row[x])
        axis.plot(
            [row[x] for row in rows],
            [row[y] for row in rows],
            style,
            color=colour,
            markersize=4,
            label=label,
        )


def _table(rows: Any) -> list[tuple[str, ...]]:
    """Head and cells."""
    head = ("system", "variant", "what", "members", "ML atoms", "atoms", "cpu ms", "wall ms", "p10 ms")
    cells: list[tuple[str, ...]] = [(*head, "memory MB", "start-up s")]
    for row in rows:
        own = "startup_s" in row
        cells.append(
            (
                row["system"],
                row["variant"],
                row["what"],
                str(row["members"]),
                str(row["ml_atoms"]),
                str(row["atoms"]),
                f"{row['cpu_ms']:.3g}",
                f"{row['wall_ms']:.3g}",
                f"{row['wall_ms_p10']:.3g}",
                f"{row['rss_mb']:.0f}" if own else "",
                f"{row['startup_s']:.1f}" if own else "",
            )
        )
    return cells


def _markdown(rows: list[tuple[str, ...]]) -> list[str]:
    head, *cells = rows
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *cells)]
