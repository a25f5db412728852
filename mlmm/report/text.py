"""Text of the report: facts of run.json in words, numbers with sensible digits."""

from __future__ import annotations

import math
import re
from typing import Any

UNKNOWN = "not recorded"


def look_up(record: Any, *keys: str) -> Any:
    """Follow keys into nested mappings; None where one is missing: an unfinished run may lack any of them."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def as_mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else []


def as_float(value: Any) -> float:
    """Read a number; NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def in_digits(value: Any, unit: str = "", digits: int = 3) -> str:
    """Write a number with sensible digits: whole above a thousand, significant digits below."""
    number = as_float(value)
    if not math.isfinite(number):
        return UNKNOWN
    text = f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.{digits}g}"
    return f"{text} {unit}".strip()


def with_error(value: float, error: float) -> str:
    """Write a value and its standard error, both to two significant digits of the error."""
    if not math.isfinite(error) or error <= 0:
        return in_digits(value, digits=4)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{decimals}f} ± {error:,.{decimals}f}"


def duration(seconds: Any) -> str:
    seconds = as_float(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return in_digits(seconds, "s")


def sigmas(difference: float, error: float) -> str:
    return f"{abs(difference) / error:.1f} standard errors" if error > 0 else "error unknown"


def in_words(value: Any) -> str:
    """Write a fact of run.json in words; what is missing or empty is said to be so."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return in_digits(value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {in_words(entry)}" for key, entry in value.items()) or "nothing"
    if isinstance(value, list):
        return ", ".join(in_words(entry) for entry in value) or "none"
    return str(value) if value else UNKNOWN


def split_citation(text: str) -> dict[str, str]:
    """Split a citation into the text before its DOI, the DOI and the text after it; no DOI: all is before."""
    found = re.search(r"(?:https?://(?:dx\.)?doi\.org/)?(10\.\d{4,9}/[^\s\"'<>&]+)", text)
    if not found:
        return {"before": text, "doi": "", "after": ""}
    doi = found[1].rstrip(".,;)")
    return {"before": text[: found.start()], "doi": doi, "after": text[found.start(1) + len(doi) :]}


def planned_stages(run: dict) -> dict[str, dict]:
    """Facts of each stage by name: as it was planned and, where it is done, as it was carried out."""
    stages = [*map(as_mapping, as_list(run.get("plan"))), *map(as_mapping, as_list(run.get("stages")))]
    found: dict[str, dict] = {}
    for stage in stages:
        name = str(stage.get("name"))
        found[name] = found.get(name, {}) | stage
    return found


def stage_temperatures(run: dict) -> dict[str, float]:
    return {name: as_float(stage.get("temperature")) for name, stage in planned_stages(run).items()}


def production_stages(run: dict) -> set[str]:
    """Names of the stages that are kept: those that write frames; the others prepare or check."""
    return {name for name, stage in planned_stages(run).items() if stage.get("trajectory") is True} or {
        "produce"
    }
