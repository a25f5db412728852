"""One self-contained HTML page from a run directory: what was run, did it hold together, how does it look.

The page is made from files only (``run.json``, ``energies.csv``, ``final.pdb`` or ``topology.pdb``), so it
can be written for a run that is still going on, was interrupted or failed; the page names what is missing.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import pathlib
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.report.plots import draw_plots
from mlmm.report.structure import structure_view, viewer_texts
from mlmm.report.template import inline_script, render
from mlmm.report.text import (
    UNKNOWN,
    as_float,
    as_list,
    as_mapping,
    duration,
    in_digits,
    in_words,
    look_up,
    sigmas,
    split_citation,
    stage_temperatures,
    with_error,
)
from mlmm.report.uncertainty import uncertainty_section
from mlmm.report.zones import zone_section
from mlmm.statistics import block_standard_error
from mlmm.units import FEMTOSECOND

logger = logging.getLogger(__name__)


def write_report(run_directory: str | os.PathLike) -> pathlib.Path:
    """Write ``report.html``, a page without external files, into a run directory.

    Parameters
    ----------
    run_directory : str or path
        Directory with ``run.json`` and, as far as the run came, the other files.

    Returns
    -------
    pathlib.Path
        The page that was written.

    Raises
    ------
    ConfigError
        ``run.json`` is missing or is not a JSON object.
    """
    directory = pathlib.Path(run_directory)
    run = _read_run(directory / "run.json")
    notes: list[str] = []
    energies = _read_energies(directory / "energies.csv", notes)
    view = structure_view(directory, as_list(look_up(run, "region", "atoms")), notes)
    page = render(
        "report.html",
        run,
        title=look_up(run, "title") or directory.resolve().name,
        seed=UNKNOWN if look_up(run, "seed") is None else run["seed"],
        banner=_banner(run),
        notes=notes,
        **_key_results(run, energies),
        zones=zone_section(run),
        citation=split_citation(in_words(look_up(run, "potential", "citation"))),
        box=_box(as_list(look_up(run, "system", "box_nm"))),
        timing=_timing(look_up(run, "timing")),
        stages=_stages(as_list(look_up(run, "stages"))),
        energies=draw_plots(run, energies),
        uncertainty=uncertainty_section(run, energies),
        record=_record(run),
        library=inline_script("3Dmol-min.js"),
        library_licence=inline_script("3Dmol-LICENSE.txt"),
        view=view,
        viewer=viewer_texts(view),
    )
    path = directory / "report.html"
    draft = path.with_suffix(".html.part")
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, path)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
    return path


def _read_run(path: pathlib.Path) -> dict[str, Any]:
    """Read run.json, the one file without which there is nothing to report."""
    expected = "a run directory with a run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            expected, f"{path}: {problem.strerror}", "give the directory that `mlmm run` wrote"
        ) from None
    except ValueError as problem:
        raise ConfigError(expected, f"{path}: {problem}", "restore the file or run again") from None
    if not isinstance(run, dict):
        raise ConfigError(expected, f"{path}: a JSON {type(run).__name__}", "restore the file or run again")
    return run


def _read_energies(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    """Read energies.csv into one array per column; empty cells are NaN, ``stage`` holds text."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        notes.append("energies.csv is missing: there is no temperature, energy or drift to show.")
        return {}
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        lines.pop()  # a line that is still being written may end within a number
    header, *rows = list(csv.reader(lines)) or [[]]
    complete = [row for row in rows if len(row) == len(header)]
    if len(complete) < len(rows):
        notes.append(f"energies.csv: {len(rows) - len(complete)} incomplete rows were left out.")
    if not complete or not {"stage", "time_ps"} <= set(header):
        notes.append("energies.csv has no rows yet: there is no temperature, energy or drift to show.")
        return {}
    columns = list(zip(*complete, strict=True))
    table = {
        name: np.array([as_float(cell) for cell in cells])
        for name, cells in zip(header, columns, strict=True)
    }
    table["stage"] = np.array(columns[header.index("stage")])
    return table


def _banner(run: dict) -> dict[str, Any] | None:
    """Say first what a reader of an unfinished run must know before the numbers."""
    state = str(run.get("state"))
    if state == "finished":
        return None
    what = {
        "running": "This run is not finished: the numbers below are those so far.",
        "interrupted": "This run is not finished: it was interrupted.",
        "failed": "This run failed: do not use its numbers before the cause is understood.",
    }.get(state, "run.json does not say that this run was finished.")
    where = f"Last seen in stage {in_words(run.get('stage'))}, step {in_words(run.get('step'))}."
    reason = run.get("message") or ("" if state == "running" else "No reason was recorded.")
    kind = "failed" if state == "failed" else "open"
    return {"kind": kind, "what": what, "where": where, "reason": reason}


def _key_results(run: dict, energies: dict[str, np.ndarray]) -> dict[str, tuple[str, str, str]]:
    """Return value, unit and remark of the four numbers that are asked for first."""
    target = stage_temperatures(run).get("produce", math.nan)
    samples = np.empty(0)
    if "temperature" in energies:
        samples = energies["temperature"][energies["stage"] == "produce"]
        samples = samples[np.isfinite(samples)]
    temperature, kelvin, temperature_remark = UNKNOWN, "", "no production samples"
    if samples.size:
        mean, error = float(samples.mean()), block_standard_error(samples)
        temperature, kelvin = with_error(mean, error), "K"
        temperature_remark = f"target {in_digits(target, 'K', 4)}; {samples.size:,} samples"
        if not error > 0:
            temperature_remark += ", too few for a standard error"
        elif math.isfinite(target):
            temperature_remark += f", {sigmas(mean - target, error)} away"

    timing = run.get("timing")
    speed = in_digits(look_up(timing, "ns_per_day"))
    drift, error = (
        as_float(look_up(run, "drift", k)) for k in ("kj_per_mol_per_ns_per_dof", "standard_error")
    )
    drift_remark = "no NVE stage was analysed"
    if math.isfinite(drift):
        length = in_digits(look_up(run, "drift", "length_ps"), "ps")
        drift_remark = f"kJ/mol/ns per degree of freedom over {length}; {sigmas(drift, error)} from zero"
    return {
        "temperature": (temperature, kelvin, temperature_remark),
        "speed": (
            speed,
            "" if speed == UNKNOWN else "ns/day",
            in_digits(look_up(timing, "ms_per_step"), "ms per step"),
        ),
        "drift": (with_error(drift, error), "", drift_remark),
        "core": (
            in_digits(look_up(run, "zones", "core")),
            f"of {in_digits(look_up(run, 'system', 'atoms'))} atoms",
            f"described by {in_words(look_up(run, 'potential', 'name'))}",
        ),
    }


def _box(vectors: list) -> str:
    edges = [math.sqrt(sum(as_float(x) ** 2 for x in as_list(vector))) for vector in vectors]
    return " × ".join(f"{edge:.2f}" for edge in edges) + " nm" if edges else "none"


def _timing(timing: Any) -> dict[str, Any] | None:
    """Split milliseconds per step into ML, MM and the rest: start and width (%) of each bar, in words."""
    total = as_float(look_up(timing, "ms_per_step"))
    if not total > 0:
        return None
    costs = [
        ("ML", as_float(look_up(timing, "ml_ms")), "ml"),
        ("MM", as_float(look_up(timing, "mm_ms")), "mm"),
    ]
    costs = [cost for cost in costs if cost[1] >= 0]
    known = sum(milliseconds for _, milliseconds, _ in costs)
    if total - known > 0.01 * total:
        costs.append(("other", total - known, "other"))
    start, parts = 0.0, []
    for name, milliseconds, swatch in costs:
        width = 100 * milliseconds / max(total, known)
        words = f"{name} {in_digits(milliseconds, 'ms')} ({width:.0f}%)"
        parts.append({"swatch": swatch, "start": start, "width": width, "words": words})
        start += width
    whole = f"total {in_digits(total, 'ms')} per step, {in_digits(look_up(timing, 'ns_per_day'), 'ns/day')}"
    label = ", ".join([*(str(part["words"]) for part in parts), whole])
    return {"parts": parts, "total": whole, "label": label}


def _stages(stages: list) -> dict[str, list] | None:
    """Make a table with one row per stage; a column that no stage fills is left out."""
    if not stages:
        return None
    header = ["Stage", "Ensemble", "Steps", "Time step", "Non-bonded MM every", "Reciprocal sum every"]
    header += ["Length", "Temperature", "Energy before", "Energy after", "Wall time"]
    rows = []
    for stage in map(as_mapping, stages):
        keys = ("steps", "timestep_ps", "step_ps", "temperature", "energy_before", "energy_after")
        steps, timestep, whole, temperature, before, after = (as_float(stage.get(key)) for key in keys)
        length = steps * (whole if math.isfinite(whole) else timestep)
        slow = timestep * as_float(stage.get("nonbonded_every"))
        numbers = [(steps, ""), (timestep / FEMTOSECOND, "fs"), (slow / FEMTOSECOND, "fs")]
        numbers += [(whole / FEMTOSECOND if whole > slow else math.nan, "fs")]
        numbers += [(length, "ps"), (temperature, "K")]
        numbers += [(before, "kJ/mol"), (after, "kJ/mol")]
        # Rounding takes off what the division by 0.001 leaves behind.
        cells = [
            in_digits(round(value, 9), unit, 4) if math.isfinite(value) else "" for value, unit in numbers
        ]
        cells = [str(stage.get("ensemble") or ""), *cells, duration(stage.get("seconds"))]
        rows.append([in_words(stage.get("name")), *cells])
    used = [k for k in range(len(header)) if any(row[k] for row in rows)]
    return {"header": [header[k] for k in used], "rows": [[row[k] for k in used] for row in rows]}


def _record(run: dict) -> dict[str, list]:
    """List what it takes to repeat the run: versions, warnings, build decisions, origin of the system."""
    provenance = dict(as_mapping(look_up(run, "system", "provenance")))
    decisions = as_list(provenance.pop("decisions", None))
    return {
        "software": [(name, in_words(version)) for name, version in as_mapping(run.get("versions")).items()],
        "warnings": as_list(run.get("warnings")),
        "decisions": decisions,
        "origin": [(key, in_words(value)) for key, value in provenance.items()],
    }
