"""Two profiles along one variable: enzyme and water, wild type and mutant. What differs, with its error."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError
from mlmm.reactions.umbrella_record import read_json
from mlmm.units import GAS_CONSTANT

__all__ = ["compare_folders", "compare_profiles", "compare_residues"]


def compare_profiles(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Barrier and reaction free energy of the first profile less those of the second, with their errors.

    Both were sampled independently of each other, so that errors add in squares. The ratio of rates is
    exp(-ddG/kT), with the factor by which one standard error changes it.

    Parameters
    ----------
    first, second : mapping
        ``result.json`` of folders of umbrella windows.

    Raises
    ------
    ConfigError
        Other variables or temperatures, or profiles of which one has no barrier.
    """
    for name in ("variable", "unit", "temperature"):
        if first.get(name) != second.get(name):
            raise ConfigError(
                f"two profiles of one {name}",
                f"{first.get(name)!r} and {second.get(name)!r}",
                "sample both along the same variable at the same temperature",
            )
    without = [which for which, one in (("first", first), ("second", second)) if not one.get("barrier")]
    if without:
        raise ConfigError(
            "two profiles with a barrier",
            f"none in the {' and the '.join(without)}",
            "sample a range with both sides of it",
        )
    thermal = GAS_CONSTANT * float(first["temperature"])
    difference = float(first["barrier"][0]) - float(second["barrier"][0])
    # The larger error of a profile, by resampling or from successive parts, as its page reports it.
    error = math.hypot(*(max(float(one["barrier"][1]), float(one["error"])) for one in (first, second)))
    return {
        "temperature": first["temperature"],
        "barrier": [difference, error],
        "reaction": [
            float(first["reaction"][0]) - float(second["reaction"][0]),
            math.hypot(float(first["reaction"][1]), float(second["reaction"][1])),
        ],
        "rate_ratio": math.exp(-difference / thermal),
        "rate_factor": math.exp(error / thermal),
        "sigmas": abs(difference) / error if error > 0 else float("inf"),
    }


def compare_residues(first: Path, second: Path) -> list[dict[str, Any]]:
    """Energies of residues with the region on the way to the top, largest difference first.

    Parameters
    ----------
    first, second : Path
        ``residues.csv`` of both folders (``mlmm pmf --residues``). A residue that only one of them has, such
        as a mutated one, stands alone; its other value is None.
    """
    tables = [_table(path) for path in (first, second)]
    found = []
    for name in dict.fromkeys([*tables[0], *tables[1]]):
        one, other = (table.get(name) for table in tables)
        entry: dict[str, Any] = {"residue": name, "first": one, "second": other, "difference": None}
        if one and other:
            entry["difference"] = [one[0] - other[0], math.hypot(one[1], other[1])]
        found.append(entry)

    def size(entry: Mapping[str, Any]) -> float:
        shown = entry["difference"] or entry["first"] or entry["second"]
        return -abs(float(shown[0]))

    return sorted(found, key=size)


def _table(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["residue"]: [float(row["difference"]), float(row["difference_error"])]
            for row in csv.DictReader(file)
        }


def compare_folders(first: Path, second: Path) -> dict[str, Any]:
    """Compare two folders of windows; residues as well where both have them.

    Raises
    ------
    ConfigError
        A folder without an analysed profile, or profiles that cannot be compared.
    """
    expected, do = "a folder of mlmm pmf that was analysed", "give its --out, or mlmm pmf --analyse it first"
    results = [read_json(folder / "result.json", expected, do) for folder in (first, second)]
    found = compare_profiles(*results) | {"first": str(first), "second": str(second)}
    tables = [folder / "residues.csv" for folder in (first, second)]
    found["residues"] = compare_residues(*tables) if all(table.exists() for table in tables) else []
    # What was chosen otherwise, such as a mutation.
    found["settings"] = _other_settings(first, second)
    return found


def _other_settings(first: Path, second: Path) -> list[list[str]]:
    import tomllib

    flat = []
    for folder in (first, second):
        path = folder / "resolved.toml"
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        flat.append(dict(_keys(content)))
    names = sorted(flat[0].keys() | flat[1].keys())
    return [
        [name, *(json.dumps(one.get(name, "")) for one in flat)]
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    ]


def _keys(table: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _keys(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", value))
    return found
