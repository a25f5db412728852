"""Key numbers and tables of the page of a search."""

from __future__ import annotations

import math
from typing import Any

from mlmm.report.text import as_float, as_list, as_mapping, duration, in_digits
from mlmm.units import KILOCALORIE

__all__ = ["BARRIER_PARTS", "search_cards", "search_tables"]

Card = tuple[str, str, str, str]
#: Parts of the error of a barrier, see `mlmm.reactions.barrier_error`, in words.
BARRIER_PARTS = {
    "derivatives": "second derivatives",
    "stationary": "forces that are left",
    "low_modes": "low modes, harmonic or rotors",
    "potential": "members of the committee, at least",
}


def search_cards(kind: str, run: dict, result: dict) -> list[Card]:
    """Label, value, unit and remark of the numbers that are asked for first."""
    cost = as_mapping(run.get("cost"))
    calls = in_digits(cost.get("calls"))
    effort = ("Energies computed", calls, "", f"{duration(cost.get('cpu'))} of processor time")
    if not result:
        return [effort]
    if kind in ("scan", "neb"):
        return [
            _energy("Barrier", result.get("barrier"), "from the first point"),
            _energy("Barrier back", result.get("barrier_back"), "from the last point"),
            _energy("Reaction energy", result.get("reaction_energy"), "last point less first"),
            effort,
        ]
    if kind == "irc":
        ends = [as_mapping(end) for end in as_list(result.get("ends"))]
        depths = [
            _energy(f"Depth, {end.get('direction')}", end.get("depth"), "saddle point above the minimum")
            for end in ends
        ]
        return [
            *depths,
            ("Points", in_digits(result.get("points")), "", "on the reaction coordinate"),
            effort,
        ]
    imaginary = [as_float(x) for x in as_list(result.get("imaginary"))]
    words = ", ".join(f"{abs(x):.0f}i" for x in imaginary) or "none"
    modes = ("Imaginary modes", words, "1/cm" if imaginary else "", f"{len(imaginary)} in all")
    if kind == "ts":
        force = in_digits(result.get("force"))
        return [modes, ("Largest force", force, "kJ/mol/nm", "on an atom"), _along(result), effort]
    rows = [as_mapping(row) for row in as_list(result.get("barriers"))]
    if rows:
        temperature = in_digits(rows[0].get("temperature"), "K", 5)
        rate = as_float(rows[0].get("rate"))
        return [
            _energy(
                "Free energy of activation",
                rows[0].get("quasi_gibbs"),
                f"ΔG‡ at {temperature}, quasi-RRHO",
                rows[0].get("error"),
            ),
            _energy("Barrier", rows[0].get("energy"), "ΔE‡ without vibrations"),
            ("Rate constant", f"{rate:.2e}", "1/s", f"Eyring, {temperature}, transmission 1"),
            modes,
        ]
    thermal = [as_mapping(row) for row in as_list(result.get("thermochemistry"))]
    first = thermal[0] if thermal else {}
    temperature = in_digits(first.get("temperature"), "K", 5)
    return [
        modes,
        _energy("Zero-point energy", first.get("zero_point"), ""),
        _energy("G − E", first.get("quasi_gibbs"), f"at {temperature}, quasi-RRHO"),
        effort,
    ]


def search_tables(kind: str, run: dict, result: dict) -> list[dict[str, Any]]:
    """Tables beside the structure."""
    found: list[dict[str, Any]] = []
    if kind == "scan" and result:
        found.append(_scan(run, result))
    values = {
        name: as_mapping(result.get(name)) for name in ("variables",) if isinstance(result.get(name), dict)
    }
    if kind == "irc":
        names = ("variables_reverse", "variables_saddle", "variables_forward")
        values = {name: as_mapping(result.get(name)) for name in names}
    if any(values.values()):
        found.append(_values(values))
    rows = [as_mapping(row) for row in as_list(result.get("barriers"))]
    if rows:
        found.append(_barriers(rows))
    thermal = [as_mapping(row) for row in as_list(result.get("thermochemistry"))]
    if thermal:
        found.append(_thermal(thermal, bool(result.get("free"))))
    if not found:
        found.append(
            {"title": "Record", "header": [], "rows": [("State", str(run.get("state")))], "note": ""}
        )
    return found


def _energy(label: str, value: Any, remark: str, error: Any = None) -> Card:
    number, off = as_float(value), as_float(error)
    known = math.isfinite(off)
    kilocalories = f"{number / KILOCALORIE:.2f}" if math.isfinite(number) else ""
    text = f"{number:.1f}" if math.isfinite(number) else "not recorded"
    if kilocalories:
        kilocalories += (f" ± {off / KILOCALORIE:.2f}" if known else "") + " kcal/mol"
        text += f" ± {off:.1f}" if known else ""
    return (label, text, "kJ/mol", "; ".join(part for part in (kilocalories, remark) if part))


def _along(result: dict) -> Card:
    overlaps = as_mapping(result.get("overlaps"))
    if not overlaps:
        return ("Along the reaction", "not judged", "", "name variables in ts.expected")
    name, value = max(overlaps.items(), key=lambda item: abs(as_float(item[1])))
    return ("Along the reaction", f"{as_float(value):+.2f}", "", f"cosine of mode and gradient of {name}")


def _scan(run: dict, result: dict) -> dict[str, Any]:
    settings = as_mapping(run.get("settings"))
    held = str(settings.get("scan.hold"))
    units = as_list(result.get("units"))
    errors = [
        f"{name}: {as_float(off):.1e} {unit}".strip()
        for name, off, unit in zip(
            as_list(result.get("variables")), as_list(result.get("deviation")), units, strict=False
        )
    ]
    rows = [
        ("Held by", held),
        ("Largest deviation", "; ".join(errors)),
        ("Points", " × ".join(str(n) for n in as_list(result.get("points")))),
        (
            "Highest at",
            ", ".join(
                f"{in_digits(x, '', 4)} {unit}".strip()
                for x, unit in zip(as_list(result.get("highest")), units, strict=False)
            ),
        ),
        ("Hysteresis", f"{as_float(result.get('hysteresis')):.2f} kJ/mol at most"),
    ]
    return {"title": "Scan", "header": [], "rows": rows, "note": ""}


def _values(values: dict[str, dict]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for table in values.values() for name in table))
    header = ["Variable"]
    header += [key.removeprefix("variables_").capitalize() if len(values) > 1 else "Value" for key in values]
    rows = []
    for name in names:
        cells = [name]
        for table in values.values():
            entry = as_mapping(table.get(name))
            number, unit = as_float(entry.get("value")), str(entry.get("unit", ""))
            cells.append(f"{math.degrees(number):.2f}°" if unit == "rad" else f"{number:.4f} {unit}".strip())
        rows.append(cells)
    return {"title": "Variables of the run file", "header": header, "rows": rows, "note": ""}


def _barriers(rows: list[dict]) -> dict[str, Any]:
    lines = [
        ("ΔE‡", "energy"),
        ("ΔE‡ with zero-point energy", "zero_point"),
        ("ΔH‡", "enthalpy"),
        ("ΔG‡, RRHO", "gibbs"),
        ("ΔG‡, quasi-RRHO", "quasi_gibbs"),
    ]
    cells = [
        [
            name,
            *(f"{as_float(row.get(key)):.1f} ({as_float(row.get(key)) / KILOCALORIE:.2f})" for row in rows),
        ]
        for name, key in lines
    ]
    cells.append(
        [
            "its error",
            *(
                f"{as_float(row.get('error')):.1f} ({as_float(row.get('error')) / KILOCALORIE:.2f})"
                for row in rows
            ),
        ]
    )
    parts = list(dict.fromkeys(name for row in rows for name in as_mapping(row.get("error_parts"))))
    cells += [
        [
            f"– {BARRIER_PARTS.get(name, name)}",
            *(f"{as_float(as_mapping(row.get('error_parts')).get(name)):.2f}" for row in rows),
        ]
        for name in parts
    ]
    cells.append(["Rate constant / (1/s)", *(f"{as_float(row.get('rate')):.2e}" for row in rows)])
    cells.append(["Wigner's factor", *(f"{as_float(row.get('wigner')):.3f}" for row in rows)])
    if any(row.get("isotopes") is not None for row in rows):
        cells.append(["k(light)/k(heavy)", *(f"{as_float(row.get('isotopes')):.4f}" for row in rows)])
    note = (
        "kJ/mol (kcal/mol). The rate is Eyring's with a transmission coefficient of 1; Wigner's factor for "
    )
    note += "tunnelling is not in it. The error of the method itself is not in the error."
    return {"title": "Above the reactant", "header": ["", *map(_kelvin, rows)], "rows": cells, "note": note}


def _thermal(rows: list[dict], free: bool) -> dict[str, Any]:
    lines = [
        ("Zero-point energy", "zero_point", 1.0),
        ("H − E", "enthalpy", 1.0),
        ("S, RRHO / (J/mol/K)", "entropy", 1e3),
        ("S, quasi-RRHO / (J/mol/K)", "quasi_entropy", 1e3),
        ("G − E, RRHO", "gibbs", 1.0),
        ("G − E, quasi-RRHO", "quasi_gibbs", 1.0),
    ]
    cells = [
        [name, *(f"{factor * as_float(row.get(key)):.2f}" for row in rows)] for name, key, factor in lines
    ]
    note = "kJ/mol where nothing else is said. "
    note += "Ideal gas." if free else "Vibrations alone: the environment holds the atoms in place."
    return {"title": "Thermochemistry", "header": ["", *map(_kelvin, rows)], "rows": cells, "note": note}


def _kelvin(row: dict) -> str:
    return in_digits(row.get("temperature"), "K", 5)
