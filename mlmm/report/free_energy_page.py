"""The page of a free-energy profile: verdict, numbers with errors, profile, overlap, convergence, cost."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.rate import eyring_rate
from mlmm.report.free_energy_plots import profile_sketches
from mlmm.report.free_energy_verdict import judge_profile, shown_value
from mlmm.report.page import save_page
from mlmm.report.plots import lay_out
from mlmm.report.reading import read_run
from mlmm.report.template import render
from mlmm.report.text import as_float, as_list, as_mapping, duration, in_words, with_error
from mlmm.report.verdict import Verdict
from mlmm.units import KILOCALORIE

__all__ = ["is_profile", "read_profile", "write_profile_report"]

_RESULT, _RECORD, _TABLE = "result.json", "umbrella.json", "profile.csv"


def is_profile(directory: str | os.PathLike) -> bool:
    """Whether a directory holds umbrella windows."""
    return (pathlib.Path(directory) / _RECORD).exists()


def read_profile(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], Verdict]:
    """Record, result and verdict of a folder of umbrella windows.

    Raises
    ------
    ConfigError
        No windows there, or none that were analysed.
    """
    folder = pathlib.Path(directory)
    record = read_run(folder / _RECORD)
    if not (folder / _RESULT).exists():
        raise ConfigError(
            f"windows that were analysed in {folder}", "none yet", f"mlmm pmf --analyse {folder}"
        )
    result = read_run(folder / _RESULT)
    return record, result, judge_profile(result, str(record.get("state")))


def write_profile_report(directory: str | os.PathLike) -> pathlib.Path:
    """Write ``report.html`` into a folder of umbrella windows; errors as for `read_profile`."""
    folder = pathlib.Path(directory)
    record, result, verdict = read_profile(folder)
    table = np.genfromtxt(folder / _TABLE, delimiter=",", skip_header=1, ndmin=2)
    profile = {"place": table[:, 0], "value": table[:, 1], "error": table[:, 2]}
    facts = as_mapping(record.get("facts"))
    page = render(
        "free_energy.html",
        {},
        title=str(facts.get("title") or folder.resolve().name),
        subtitle=_subtitle(record, result),
        verdict=verdict,
        cards=_cards(result),
        plots=lay_out(profile_sketches(result, profile)),
        tables=[("Windows", *_windows(result))],
        notes=_notes(result),
        software=[(name, in_words(text)) for name, text in as_mapping(record.get("versions")).items()],
    )
    return save_page(folder / "report.html", page)


def _subtitle(record: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    windows = as_list(result.get("windows"))
    method = str(as_mapping(record.get("facts")).get("potential") or "")
    potential = f" · {method}" if method else ""
    return (
        f"umbrella sampling along {result.get('variable')}, {len(windows)} windows, "
        f"{as_float(result.get('temperature')):g} K{potential} · {record.get('written')}"
    )


def _cards(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    barrier, reaction = as_list(result.get("barrier")), as_list(result.get("reaction"))
    cards = []
    if barrier:
        value, error = as_float(barrier[0]), as_float(result.get("error"))
        calories = with_error(value / KILOCALORIE, error / KILOCALORIE)
        cards.append(("Barrier", with_error(value, error), "kJ/mol", f"{calories} kcal/mol"))
        temperature = as_float(result.get("temperature"))
        rate = eyring_rate(value, error, temperature)
        remark = f"Eyring, transmission 1; a standard error is a factor of {rate.factor:.2g}"
        cards.append(("Rate constant", f"{rate.value:.2g}", "1/s", remark))
    value, error = as_float(reaction[0]), as_float(reaction[1])
    calories = with_error(value / KILOCALORIE, error / KILOCALORIE)
    cards.append(("Reaction free energy", with_error(value, error), "kJ/mol", f"{calories} kcal/mol"))
    costs = [as_mapping(cost) for cost in as_list(result.get("cost"))]
    seconds = sum(as_float(cost.get("seconds")) for cost in costs)
    simulated = sum(as_float(cost.get("simulated_ps")) for cost in costs)
    remark = f"{simulated:.4g} ps in {len(costs)} windows"
    cards.append(("Cost of a window", duration(seconds / max(1, len(costs))), "", remark))
    return cards


def _windows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["Window", "Centre", "Force constant", "Mean", "Samples", "Independent", "Left out"]
    header += ["Simulated", "Wall time"]
    costs = {int(cost["number"]): cost for cost in as_list(result.get("cost"))}
    rows = []
    for window in map(as_mapping, as_list(result.get("windows"))):
        cost = as_mapping(costs.get(int(window["number"])))
        rows.append(
            [
                f"{int(window['number']):03d}" + (" (added)" if window.get("added") else ""),
                shown_value(result, window["centre"]),
                f"{as_float(window['force_constant']):.4g}",
                shown_value(result, window["mean"]),
                f"{window['samples']}",
                f"{as_float(window['independent']):.0f}",
                f"{window['dropped']}",
                f"{as_float(cost.get('simulated_ps')):.4g} ps",
                duration(cost.get("seconds")),
            ]
        )
    return header, rows


def _notes(result: Mapping[str, Any]) -> list[str]:
    found = [
        "F(x) = -kT ln p(x) of the variable itself: another variable that tells reactant from product has "
        "another barrier.",
        "The rate constant is kT/h exp(-barrier/kT): every trajectory that reaches the top is taken to go on "
        "(transmission 1), and nuclei are classical (no zero-point energy, no tunnelling).",
        "Errors are those of sampling alone. The error of the potential is not in them: mlmm correct on this "
        "folder reweights its frames to a better method.",
    ]
    exchange = as_mapping(result.get("exchange"))
    if exchange.get("attempts"):
        share = as_float(exchange["accepted"]) / as_float(exchange["attempts"])
        found.append(f"{share:.0%} of {exchange['attempts']} exchanges between neighbours were accepted.")
    if not math.isfinite(as_float(result.get("block_error"))):
        found.append("Some of five successive parts lack samples at the barrier or the reactant.")
    return found
