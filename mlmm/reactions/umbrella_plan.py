"""From the keys of [umbrella] to windows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.collective_variables.options import Restraint, Variable
from mlmm.collective_variables.rules import force_dimension, is_empty, to_number
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError
from mlmm.options import check_names
from mlmm.reactions.run import RESULT, load_arrays
from mlmm.reactions.sampling_options import UmbrellaOptions
from mlmm.reactions.windows import Window, plan_windows

__all__ = ["planned", "scan_curvatures", "the_variable"]

_NEAR = 5  # points of a scan for a parabola


def the_variable(name: str, variables: Sequence[Variable], section: str = "umbrella") -> Variable:
    """The variable of a name.

    Raises
    ------
    ConfigError
        No name, or none of that name.
    """
    known = {variable.name: variable for variable in variables}
    if not name:
        raise ConfigError(f"variable in [{section}]", "none", 'write variable = "…", the name of one')
    check_names([name], known, "a variable that is defined", f"define [variable.{name}]")
    return known[name]


def planned(options: UmbrellaOptions, variable: Variable, temperature: float) -> list[Window]:
    """The windows that [umbrella] asks for.

    Raises
    ------
    ConfigError
        Neither a range nor centres, both, a value that the variable cannot take, or units of another kind.
    """
    centres = _centres(options, variable)
    constant: float | None = None
    if options.force_constant != "auto":
        dimension = force_dimension(variable.dimension)
        constant = to_number(options.force_constant, dimension, "force_constant in [umbrella]")
        if not constant > 0:
            raise ConfigError("force_constant in [umbrella] above 0", f"{constant:g}", "write a positive one")
    for centre in centres:
        # A restraint knows the range of its variable.
        Restraint(variable, at=float(centre), force_constant=1.0).numbers(variable)
    curvatures = scan_curvatures(options.scan, variable.name, centres) if options.scan else None
    return plan_windows(
        centres.tolist(), constant, temperature, spacing=options.spacing, curvatures=curvatures
    )


def _centres(options: UmbrellaOptions, variable: Variable) -> np.ndarray:
    ends = (options.start, options.end)
    by_range = not all(map(is_empty, ends)) or options.windows > 0
    if by_range == bool(len(options.centres)):
        raise ConfigError(
            "start, end and windows, or centres, in [umbrella]",
            "both" if by_range else "neither",
            'write start = "…", end = "…" and windows = 12',
        )
    if not by_range:
        return np.array([_number(text, variable, "centres") for text in options.centres])
    if any(map(is_empty, ends)) or options.windows < 2:
        raise ConfigError(
            "start, end and two windows or more in [umbrella]",
            f"{options.start!r}, {options.end!r} and {options.windows}",
            'write start = "…", end = "…" and windows = 12',
        )
    first, last = (_number(end, variable, name) for end, name in zip(ends, ("start", "end"), strict=True))
    whole = variable.kind == "torsion" and abs(abs(last - first) - 2 * np.pi) < 1e-6
    # The last window of a circle is the first one.
    return np.linspace(first, last, options.windows, endpoint=not whole)


def _number(value: Any, variable: Variable, key: str) -> float:
    return to_number(value, variable.dimension, f"{key} in [umbrella]")


def scan_curvatures(path: str, name: str, centres: np.ndarray) -> np.ndarray:
    """Second derivative of a scan's energy at some places, from parabolas over the nearest five points.

    Parameters
    ----------
    path : str
        Directory of mlmm scan along the variable alone, or a CSV with a column of the variable in internal
        units and one called energy, kJ/mol.
    name : str
    centres : ndarray, shape (n,)

    Raises
    ------
    ConfigError
        A scan along something else, columns that are not there, or fewer than five points.
    """
    source = Path(path)
    places, energies = _of_run(source, name) if source.is_dir() else _of_table(source, name)
    found = []
    for centre in centres:
        near = np.argsort(np.abs(places - centre))[:_NEAR]
        found.append(2.0 * np.polyfit(places[near] - centre, energies[near], 2)[0])
    return np.array(found)


def _of_run(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and energies of a relaxed scan."""
    summary = RunDirectory(folder).summary
    names = list((summary.get("result") or {}).get("variables", []))
    if names != [name] or not (folder / RESULT).exists():
        raise ConfigError(
            f"a scan along {name} alone in {folder} that has finished",
            f"one along {' and '.join(names) or 'nothing'} that is {summary.get('state')}",
            f"scan along {name}, or leave scan out",
        )
    arrays = load_arrays(folder / RESULT)
    return _enough(arrays["grid"].reshape(-1), arrays["profile"], f"a scan in {folder}")


def _of_table(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and energies of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    energy = next((column for column in columns if column.startswith("energy")), None)
    if name not in columns or energy is None:
        raise ConfigError(
            f"columns {name} and energy in {path}",
            ", ".join(columns) or "no columns",
            "give the table of a scan along this variable",
        )
    values, energies = (np.array([float(row[column]) for row in rows]) for column in (name, energy))
    return _enough(values, energies, str(path))


def _enough(places: np.ndarray, energies: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    if len(places) < _NEAR:
        raise ConfigError(f"{_NEAR} points or more in {where}", str(len(places)), "scan at more points")
    return places, energies
