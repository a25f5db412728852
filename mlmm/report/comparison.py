"""Several runs on one page: verdicts, key numbers, what differs in their settings, curves on each other."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.report.page import key_results, save_page
from mlmm.report.plots import Plot, Sketch, draw_series, lay_out
from mlmm.report.reading import production_rows
from mlmm.report.record import RunRecord, read_record
from mlmm.report.style import SERIES
from mlmm.report.template import render
from mlmm.report.text import (
    as_float,
    as_mapping,
    in_digits,
    in_words,
    look_up,
    planned_stages,
    production_stages,
    with_error,
)
from mlmm.statistics import block_standard_error
from mlmm.units import AMU_PER_NM3, FEMTOSECOND

__all__ = ["write_comparison"]

_GENERATOR = '<meta name="generator" content="mlmm'
_ROWS = 40  # settings that are seen at once; the others are folded away


def write_comparison(
    runs: Sequence[str | os.PathLike | RunRecord], path: str | os.PathLike = "comparison.html"
) -> pathlib.Path:
    """Write a page that shows runs side by side; it links to the report of each.

    Parameters
    ----------
    runs : sequence of str, path or RunRecord
        Two or more run directories, or what was read from them.
    path : str or path
        Where the page goes; one that is there is replaced.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ConfigError
        Fewer than two runs, one of them twice, a directory without ``run.json``, or a file at `path` that is
        no page of this package.
    """
    path = pathlib.Path(path)
    records = [run if isinstance(run, RunRecord) else read_record(run) for run in runs]
    places = [record.directory.resolve() for record in records]
    if len(set(places)) < len(places) or len(places) < 2:
        found = ", ".join(str(record.directory) for record in records) or "none"
        raise ConfigError("two or more different runs to compare", found, "give each run directory once")
    _check_replaceable(path)
    names, settings = _names(records), _differences(records)
    page = render(
        "comparison.html",
        {},
        title=f"{len(records)} runs",
        runs=[
            {"name": name, "verdict": record.verdict, "link": _link(record, path), "title": record.title}
            for name, record in zip(names, records, strict=True)
        ],
        header=["", *names],
        numbers=_numbers(records),
        settings=settings[:_ROWS],
        further=settings[_ROWS:],
        plots=_plots(names, records),
    )
    return save_page(path, page)


def _check_replaceable(path: pathlib.Path) -> None:
    if path.is_dir():
        raise ConfigError("a file for the page", f"the folder {path}", f"write --out {path}/comparison.html")
    if path.exists() and _GENERATOR not in path.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise ConfigError(
            "a new file for the page, or one that a comparison may replace",
            f"{path}, which is something else",
            "choose another --out",
        )
    if not path.absolute().parent.is_dir():
        raise ConfigError(
            "a folder for the page", f"none at {path.absolute().parent}", "choose another --out"
        )


def _names(records: Sequence[RunRecord]) -> list[str]:
    """A short name for each run: its title, or its directory where titles are the same."""
    titles = [record.title for record in records]
    if len(set(titles)) == len(titles):
        return titles
    folders = [record.directory.resolve() for record in records]
    last = [folder.name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def _link(record: RunRecord, page: pathlib.Path) -> str:
    """Relative address of a run's own report; empty where there is none."""
    report = record.directory.resolve() / "report.html"
    if not report.is_file():
        return ""
    try:
        relative = os.path.relpath(report, page.absolute().parent)
    except ValueError:  # another drive
        return report.as_uri()
    return pathlib.PurePath(relative).as_posix()


def _numbers(records: Sequence[RunRecord]) -> list[list[str]]:
    """One row for each quantity that some run has: its name, then its value in each run."""
    rows: dict[str, Callable[[RunRecord], str]] = {
        "State": lambda record: in_words(record.run.get("state")),
        "Potential": lambda record: in_words(look_up(record.run, "potential", "name")),
        "Scheme": lambda record: in_words(look_up(record.run, "embedding", "scheme")),
        "Atoms": lambda record: in_words(look_up(record.run, "system", "atoms")),
        "Atoms with λ = 1": lambda record: in_words(look_up(record.run, "zones", "core")),
        "Time step": lambda record: _of_production(record, "timestep_ps", FEMTOSECOND, "fs"),
        "Production": _length,
        "Temperature": lambda record: " ".join(key_results(record.run, record.energies)["temperature"][:2]),
        "Density": lambda record: _mean(_density(record), "g/cm³"),
        "Energy drift": lambda record: key_results(record.run, record.energies)["drift"][0],
        "Committee spread": lambda record: _mean(_column(record, "committee_spread"), "kJ/mol"),
        "RMSD of the backbone": lambda record: _mean(_series(record, "polymer"), "nm"),
        "RMSD of the region": lambda record: _mean(_series(record, "region"), "nm"),
        **{name: _distance(name) for name in _distance_names(records)},
        "Speed": lambda record: " ".join(key_results(record.run, record.energies)["speed"][:2]),
    }
    table = [[name, *(value(record).strip() for record in records)] for name, value in rows.items()]
    return [row for row in table if any(cell not in ("", "not recorded") for cell in row[1:])]


def _of_production(record: RunRecord, key: str, unit: float, name: str) -> str:
    stages = planned_stages(record.run)
    found = [as_float(stages[stage].get(key)) for stage in production_stages(record.run) if stage in stages]
    return in_digits(round(found[0] / unit, 9), name) if found and math.isfinite(found[0]) else ""


def _length(record: RunRecord) -> str:
    """Time that the rows of the production span, as far as the run came."""
    times, since = _times(record), _since(record)
    return in_digits(float(times.max() - since), "ps") if times.size else "none yet"


def _times(record: RunRecord) -> np.ndarray:
    return production_rows(record.run, record.energies, "time_ps")


def _since(record: RunRecord) -> float:
    """When the production began, ps."""
    kept, start = production_stages(record.run), 0.0
    for name, stage in planned_stages(record.run).items():
        steps, step = as_float(stage.get("steps")), as_float(stage.get("step_ps", stage.get("timestep_ps")))
        if name in kept:
            return start
        start += steps * step if math.isfinite(steps * step) else 0.0
    times = _times(record)
    return float(times.min()) if times.size else 0.0


def _column(record: RunRecord, name: str) -> np.ndarray:
    return production_rows(record.run, record.energies, name)


def _density(record: RunRecord) -> np.ndarray:
    """Where the volume changes, and the mass is known."""
    volumes, mass = _column(record, "volume"), as_float(look_up(record.run, "system", "mass_amu"))
    if not volumes.size or not mass > 0 or volumes.max() == volumes.min():
        return np.empty(0)
    return mass * AMU_PER_NM3 / volumes


def _series(record: RunRecord, name: str) -> np.ndarray:
    values = np.empty(0) if record.series is None else getattr(record.series, name)
    return values[np.isfinite(values)]


def _distance_names(records: Sequence[RunRecord]) -> list[str]:
    names = [name for record in records if record.series for name in record.series.distances]
    return list(dict.fromkeys(names))


def _distance(name: str) -> Callable[[RunRecord], str]:
    def value(record: RunRecord) -> str:
        found = record.series.distances.get(name) if record.series else None
        return "" if found is None else _mean(found, "nm")

    return value


def _mean(values: np.ndarray, unit: str) -> str:
    if not values.size:
        return ""
    return f"{with_error(float(values.mean()), block_standard_error(values))} {unit}"


def _differences(records: Sequence[RunRecord]) -> list[list[str]]:
    """Settings that are not the same in all runs."""
    tables = [as_mapping(record.run.get("settings")) for record in records]
    rows = []
    for name in dict.fromkeys(name for table in tables for name in table):
        cells = [_setting(table[name]) if name in table else "" for table in tables]
        if len({in_words(table.get(name)) for table in tables}) > 1:
            rows.append([name, *cells])
    return rows


def _setting(value: Any) -> str:
    """A setting in a few words."""
    if value is None or value == "":
        return "none"
    if isinstance(value, list | dict) and len(value) > 6:
        return f"{len(value)} values"
    words = in_words(value)
    return words if len(words) < 80 else f"{words[:77]}…"


def _plots(names: list[str], records: Sequence[RunRecord]) -> list[Plot]:
    """Curves of all runs on each other, over the time since the production began."""
    found = [
        _overlay("temperature", "Temperature", "temperature / K", names, _over_rows(records, "temperature")),
        _overlay("density", "Density", "density / (g/cm³)", names, _over_rows(records, "density")),
        _overlay("polymer", "RMSD of the backbone", "RMSD / nm", names, _over_frames(records, "polymer")),
        _overlay("region", "RMSD of the region", "RMSD / nm", names, _over_frames(records, "region")),
        _overlay(
            "spread", "Committee spread", "spread / (kJ/mol)", names, _over_rows(records, "committee_spread")
        ),
    ]
    for k, name in enumerate(_distance_names(records)):
        found.append(_overlay(f"distance-{k}", name, "distance / nm", names, _over_frames(records, name)))
    return lay_out(found)


_Curves = list[tuple[np.ndarray, np.ndarray]]


def _over_rows(records: Sequence[RunRecord], name: str) -> _Curves:
    curves = []
    for record in records:
        times = _times(record)
        values = _density(record) if name == "density" else _column(record, name)
        fits = len(values) == len(times)
        curves.append((times - _since(record), values) if fits else (np.empty(0), np.empty(0)))
    return curves


def _over_frames(records: Sequence[RunRecord], name: str) -> _Curves:
    curves = []
    for record in records:
        series = record.series
        values = None
        if series is not None and series.timed:
            values = series.distances.get(name, getattr(series, name, None))
        if series is None or values is None or not np.isfinite(values).any():
            curves.append((np.empty(0), np.empty(0)))
        else:
            curves.append((series.times - _since(record), values))
    return curves


def _overlay(name: str, title: str, label: str, names: list[str], curves: _Curves) -> Sketch | None:
    if not any(len(values) for _, values in curves):
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for k, (run, (times, values)) in enumerate(zip(names, curves, strict=True)):
            if len(values):
                colour, line = SERIES[k % len(SERIES)]
                draw_series(axes, times, values, colour, linestyle=line, label=_short(run))
        axes.set(xlabel="time in production / ps", ylabel=label)
        columns = 1 if figure.get_figwidth() < 4.5 else 2
        axes.legend(frameon=False, fontsize=8.5, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1))

    missing = [run for run, (_, values) in zip(names, curves, strict=True) if not len(values)]
    caption = f"Not recorded: {', '.join(missing)}." if missing else ""
    return Sketch(name, title, caption, draw, 2.4 + 0.17 * len(names))


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:33]}…"
