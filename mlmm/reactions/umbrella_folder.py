"""Umbrella windows of a folder, read and analysed as far as they have come."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from mlmm.dynamics.run_directory import RunDirectory
from mlmm.reactions.samples import WindowSamples, window_samples
from mlmm.reactions.sampling_options import UmbrellaOptions
from mlmm.reactions.umbrella_analysis import UmbrellaResult, analyse_windows, result_facts
from mlmm.reactions.umbrella_record import UmbrellaRecord
from mlmm.reactions.window_runs import production_values
from mlmm.whole_files import write_json

__all__ = ["analyse_folder", "costs", "folder_samples"]


def analyse_folder(
    folder: str | Path,
    options: UmbrellaOptions | None = None,
    *,
    seed: int = 0,
    record: UmbrellaRecord | None = None,
) -> UmbrellaResult:
    """Analyse the windows of a folder as far as they have come, and write profile.csv and result.json.

    Parameters
    ----------
    folder : path
    options : UmbrellaOptions, optional
        Bins, resampled sets, least overlap.
    seed : int
        Of the resampling.
    record : UmbrellaRecord, optional
        Of the folder, where it is read already.
    """
    path = Path(folder)
    options = options or UmbrellaOptions()
    record = record or UmbrellaRecord.read(path)
    found = folder_samples(record)
    result = analyse_windows(
        found,
        record.coordinate,
        record.temperature,
        bins=options.bins,
        bootstraps=options.bootstraps,
        seed=seed,
        least_overlap=options.least_overlap,
    )
    facts = result_facts(result) | {"cost": costs(record), "exchange": _accepted(record)}
    write_json(path / "result.json", facts, nan=True)
    write_profile(path / "profile.csv", result)
    return result


def folder_samples(record: UmbrellaRecord) -> list[WindowSamples]:
    """Samples of every window that has been sampled."""
    return [
        window_samples(window, production_values(runs, record.coordinate.name), record.coordinate)
        for window in record.windows
        if (runs := [run for run in record.productions(window) if (run / "energies.csv").exists()])
    ]


def costs(record: UmbrellaRecord) -> list[dict[str, Any]]:
    """Simulated time (ps) and wall time (s) of every window, equilibration included."""
    found = []
    for window in record.windows:
        seconds = simulated = 0.0
        for folder in [record.equilibration(window), *record.productions(window)]:
            if (folder / "run.json").exists():
                summary = RunDirectory(folder).summary
                seconds += sum(summary.get("seconds", {}).values())
                for stage in summary.get("stages", []):
                    step = stage.get("step_ps", stage.get("timestep_ps", 0.0))
                    simulated += stage.get("steps", 0) * step
        found.append({"number": window.number, "seconds": seconds, "simulated_ps": simulated})
    return found


def _accepted(record: UmbrellaRecord) -> dict[str, int]:
    attempts = [attempt for entry in record.exchanges for attempt in entry["attempts"]]
    return {"attempts": len(attempts), "accepted": sum(attempt["accepted"] for attempt in attempts)}


def write_profile(path: Path, result: UmbrellaResult) -> None:
    """Write the profile as CSV: place, free energy and its standard error."""
    profile = result.profile
    name = result.coordinate.name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([name, "free_energy_kj_per_mol", "standard_error"])
        for row in zip(profile.centres, profile.values, profile.errors, strict=True):
            writer.writerow([repr(float(number)) if math.isfinite(number) else "" for number in row])
