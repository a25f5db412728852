"""One self-contained HTML page from a run directory: did it go well, what was run, how does it look.

The page is made from files only (``run.json``, ``energies.csv``, the frames, ``final.pdb`` or
``topology.pdb``), so it can be written for a run that is still going on, was interrupted or failed; the page
names what is missing.
"""

from __future__ import annotations

import logging
import math
import os
import pathlib
from typing import Any

import numpy as np

from mlmm.report.embedding_plots import embedding_sketch
from mlmm.report.energy_plots import energy_sketches, followed_sketches, group_sketch
from mlmm.report.plots import lay_out
from mlmm.report.reading import production_rows
from mlmm.report.record import RunRecord, read_record
from mlmm.report.structure import structure_view, viewer_texts
from mlmm.report.structure_plots import structure_sketches
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
    production_stages,
    sigmas,
    split_citation,
    stage_temperatures,
    with_error,
)
from mlmm.report.uncertainty import uncertainty_section
from mlmm.report.zones import zone_section
from mlmm.statistics import block_standard_error
from mlmm.units import FEMTOSECOND
from mlmm.whole_files import write_whole

__all__ = ["key_results", "save_page", "write_report"]

logger = logging.getLogger(__name__)


def write_report(run_directory: str | os.PathLike | RunRecord) -> pathlib.Path:
    """Write ``report.html``, a page without external files, into a run directory.

    Parameters
    ----------
    run_directory : str, path or RunRecord
        Directory with ``run.json`` and, as far as the run came, the other files; or what was read from it.

    Returns
    -------
    pathlib.Path
        The page that was written.

    Raises
    ------
    ConfigError
        ``run.json`` is missing or is not a JSON object.
    """
    record = run_directory if isinstance(run_directory, RunRecord) else read_record(run_directory)
    run, energies, notes = record.run, record.energies, list(record.notes)
    view = structure_view(record.directory, run, record.frames, notes)
    groups = group_sketch(run, energies)
    surroundings = embedding_sketch(record.directory, notes)
    page = render(
        "report.html",
        run,
        title=record.title,
        seed=UNKNOWN if look_up(run, "seed") is None else run["seed"],
        arithmetic=_arithmetic(run),
        verdict=record.verdict,
        warnings=_warnings(run),
        notes=notes,
        **key_results(run, energies),
        zones=zone_section(run),
        surroundings=None if surroundings is None else surroundings.at(full=True),
        citation=split_citation(in_words(look_up(run, "potential", "citation"))),
        box=_box(as_list(look_up(run, "system", "box_nm"))),
        timing=_timing(look_up(run, "timing")),
        stages=_stages(as_list(look_up(run, "stages"))),
        structure=lay_out([*structure_sketches(record.series), *followed_sketches(run, energies)]),
        energies=[*lay_out(energy_sketches(run, energies)), *([groups.at(full=True)] if groups else [])],
        uncertainty=uncertainty_section(run, energies),
        record=_record(run),
        library=inline_script("3Dmol-min.js"),
        library_licence=inline_script("3Dmol-LICENSE.txt"),
        view=view,
        viewer=viewer_texts(view),
    )
    return save_page(record.directory / "report.html", page)


def save_page(path: pathlib.Path, page: str) -> pathlib.Path:
    """Write a page in one move, so that a reader never meets half of it."""
    write_whole(path, page)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
    return path


def _warnings(run: dict) -> list[str]:
    """Warnings of the build and of the set-up, each once; the verdict has those on the training."""
    decisions = map(as_mapping, as_list(look_up(run, "system", "provenance", "log")))
    build = [decision.get("text") for decision in decisions if decision.get("warning") is True]
    said = [*build, *as_list(run.get("warnings"))]
    judged = as_list(look_up(run, "region", "outside_training"))
    return list(dict.fromkeys(in_words(text) for text in said if text not in judged))


def key_results(run: dict, energies: dict[str, np.ndarray]) -> dict[str, tuple[str, str, str]]:
    """Return value, unit and remark of the four numbers that are asked for first."""
    targets = stage_temperatures(run)
    target = next((targets[name] for name in sorted(production_stages(run)) if name in targets), math.nan)
    samples = production_rows(run, energies, "temperature")
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


def _arithmetic(run: dict) -> str:
    """Precision of a GPU, or the number of threads of the processor."""
    precision = look_up(run, "precision")
    return f"{precision} precision" if precision else f"threads: {in_words(look_up(run, 'threads'))}"


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
    """List what it takes to repeat the run: versions, build decisions, origin of the system."""
    provenance = dict(as_mapping(look_up(run, "system", "provenance")))
    decisions = as_list(provenance.pop("decisions", None))
    provenance.pop("log", None)  # the decisions again
    return {
        "software": [(name, in_words(version)) for name, version in as_mapping(run.get("versions")).items()],
        "decisions": decisions,
        "origin": [(key, in_words(value)) for key, value in provenance.items()],
    }
