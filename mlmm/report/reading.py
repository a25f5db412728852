"""What a run directory says about itself: ``run.json`` and ``energies.csv``, also of an unfinished run."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.report.text import as_float, production_stages

__all__ = ["production_rows", "read_energies", "read_run"]


def read_run(path: pathlib.Path) -> dict[str, Any]:
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


def read_energies(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
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


def production_rows(run: dict, energies: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Finite values of a column in the stages that are kept."""
    if name not in energies or "stage" not in energies:
        return np.empty(0)
    values = energies[name][np.isin(energies["stage"], sorted(production_stages(run)))]
    return values[np.isfinite(values)]
