"""Text and HTML of the report: facts in words, numbers with sensible digits, tables, escaping."""

from __future__ import annotations

import html
import math
import pathlib
import re
import string
from typing import Any

UNKNOWN = "not recorded"


def look_up(record: Any, *keys: str) -> Any:
    """Follow keys into nested mappings; None where one is missing: an unfinished run may lack any of them."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


class Template(string.Template):
    """A template in which ``${run.potential.name}`` names a fact of run.json."""

    braceidpattern = r"(?a:[a-z][a-z_.]*)"


class Facts(dict):
    """Facts of run.json as text for the template, looked up by their path."""

    def __missing__(self, name: str) -> str:
        root, *keys = name.split(".")
        if root != "run":
            raise KeyError(name)
        return escape(in_words(look_up(dict(self), *keys)))


def asset(name: str) -> str:
    return (pathlib.Path(__file__).parents[1] / "data" / name).read_text(encoding="utf-8")


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


def escape(value: Any) -> str:
    return html.escape(str(value), quote=True)


def inline_script(text: str) -> str:
    """Keep script text from ending, or hiding the end of, the element that holds it."""
    return re.sub(r"<(/script|script|!--)", r"\\x3c\1", text, flags=re.IGNORECASE)


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


def html_table(header: list[str], rows: list[list[str]], kind: str) -> str:
    """Make a table from texts that are HTML already; the first cell of each row heads it."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    body = ""
    for first, *others in rows:
        body += f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
    return f'<table class="{kind}">{head}<tbody>{body}</tbody></table>'


def bullets(texts: list, kind: str = "plain") -> str:
    entries = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{entries or "<li>none</li>"}</ul>'


def details(title: str, count: int, body: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{title} ({count})</summary>{body}</details>"


def citation(text: str) -> str:
    """Escape a citation and turn its DOI, the only kind of link the page makes, into a link."""
    found = re.search(r"(?:https?://(?:dx\.)?doi\.org/)?(10\.\d{4,9}/[^\s\"'<>&]+)", text)
    if not found:
        return escape(text)
    doi = found[1].rstrip(".,;)")
    before, after = text[: found.start()], text[found.start(1) + len(doi) :]
    return f'{escape(before)}<a href="https://doi.org/{escape(doi)}">{escape(doi)}</a>{escape(after)}'


def stage_temperatures(run: dict) -> dict[str, float]:
    stages = as_list(run.get("stages"))
    return {str(look_up(stage, "name")): as_float(look_up(stage, "temperature")) for stage in stages}
