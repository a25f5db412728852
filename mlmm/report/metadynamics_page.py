"""The page of a run with a growing bias: profile of the part in which it is held, time series, map."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlmm.report.free_energy_plots import axis_of, profile_sketch
from mlmm.report.free_energy_verdict import judge_error
from mlmm.report.page import save_page
from mlmm.report.plots import Sketch, draw_series, lay_out
from mlmm.report.reading import read_run
from mlmm.report.style import ACCENT, MM
from mlmm.report.template import render
from mlmm.report.text import as_float, as_list, as_mapping, in_words, with_error
from mlmm.report.verdict import LEVELS, Judgement, Verdict
from mlmm.units import KILOCALORIE

__all__ = ["is_metadynamics", "judge_held", "write_metadynamics_report"]

_RECORD = "metadynamics.json"
_FEW, _ENOUGH, _CROSSINGS = 10, 20, 10


def is_metadynamics(directory: str | os.PathLike) -> bool:
    """Whether a directory holds a run with a growing bias."""
    return (pathlib.Path(directory) / _RECORD).exists()


def judge_held(result: Mapping[str, Any]) -> Verdict:
    """Judge a profile from samples under a bias that is held."""
    blocks, crossings = as_float(result.get("blocks")), as_float(result.get("crossings"))
    found = [judge_error(result)]
    finding = f"{blocks:.0f} independent blocks"
    longer = "make produce in [run] longer, or take umbrella windows along the same variable"
    if blocks < _ENOUGH:
        found.append(Judgement("samples", "bad" if blocks < _FEW else "look", finding, longer))
    else:
        found.append(Judgement("samples", "ok", finding))
    if result.get("barrier"):
        finding = f"{crossings:.0f} passages between reactant and product"
        level = "ok" if crossings >= _CROSSINGS else "look"
        found.append(Judgement("passages", level, finding, "" if level == "ok" else longer))
    return Verdict(tuple(sorted(found, key=lambda judgement: LEVELS.index(judgement.level))))


def write_metadynamics_report(directory: str | os.PathLike) -> pathlib.Path:
    """Write ``report.html`` into the folder of a run with a growing bias that was analysed.

    Raises
    ------
    ConfigError
        Files that are not there or cannot be read.
    """
    folder = pathlib.Path(directory)
    record, result = read_run(folder / _RECORD), read_run(folder / "result.json")
    table = np.genfromtxt(folder / "profile.csv", delimiter=",", skip_header=1, ndmin=2)
    profile = {"place": table[:, 0], "value": table[:, 1], "error": table[:, 2]}
    sketches = [profile_sketch(result, profile), *_series(folder, record)]
    if (folder / "map.csv").exists():
        sketches.append(_map(folder, record))
    facts, settings = as_mapping(record.get("facts")), as_mapping(record.get("settings"))
    page = render(
        "free_energy.html",
        {},
        title=str(facts.get("title") or folder.resolve().name),
        subtitle=f"{result.get('method')} along {result.get('variable')}, "
        f"{as_float(result.get('temperature')):g} K · {record.get('written')}",
        verdict=judge_held(result),
        cards=_cards(result),
        plots=lay_out(sketches),
        tables=[
            (
                "Settings",
                ["Key", "Value"],
                [[key, in_words(value)] for key, value in as_mapping(settings.get("options")).items()],
            )
        ],
        notes=[
            "The bias grows in the first part of the run and is held in the second. The profile is that of "
            "the second part, whose samples get the weight exp(V/kT).",
            "Errors are those of sampling alone; the error of the potential is not in them.",
        ],
        software=[(name, in_words(text)) for name, text in as_mapping(record.get("versions")).items()],
    )
    return save_page(folder / "report.html", page)


def _cards(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    cards = []
    for name, key in (("Barrier", "barrier"), ("Reaction free energy", "reaction")):
        pair = as_list(result.get(key))
        if pair:
            value, error = map(as_float, pair)
            calories = with_error(value / KILOCALORIE, error / KILOCALORIE)
            cards.append((name, with_error(value, error), "kJ/mol", f"{calories} kcal/mol"))
    return cards


def _series(folder: pathlib.Path, record: Mapping[str, Any]) -> list[Sketch]:
    """Each variable over time; the part in which the bias is held in another colour."""
    with (folder / "variables.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    times = np.array([float(row["time_ps"]) for row in rows])
    held = np.array([row["held"] == "1" for row in rows])
    found = []
    for axis in map(as_mapping, as_list(record.get("axes"))):
        name = str(axis["variable"])
        label, factor = axis_of(axis)
        values = factor * np.array([float(row[name]) for row in rows])

        def draw(figure: Any, values: np.ndarray = values, label: str = label) -> None:
            axes = figure.add_subplot()
            for part, colour in ((~held, MM), (held, ACCENT)):
                draw_series(axes, times[part], values[part], colour, linewidth=0, marker=".", markersize=2)
            axes.set(xlabel="time / ps", ylabel=label)

        caption = "Blue while the bias grows, orange while it is held."
        found.append(Sketch(f"series-{name}", f"{name} over time", caption, draw, 3.0))
    return found


def _map(folder: pathlib.Path, record: Mapping[str, Any]) -> Sketch:
    table = np.genfromtxt(folder / "map.csv", delimiter=",", skip_header=1)
    first, second = (np.unique(table[:, k]) for k in (0, 1))
    surface = table[:, 2].reshape(len(first), len(second))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        labels = [axis_of(as_mapping(axis)) for axis in as_list(record.get("axes"))]
        highest = np.nanmin([np.nanmax(surface), 60.0])
        levels = np.linspace(0, max(float(highest), 1.0), 13)
        places = (labels[0][1] * first, labels[1][1] * second)
        image = axes.contourf(*places, surface.T, levels=levels, cmap="viridis", extend="max")
        axes.set(xlabel=labels[0][0], ylabel=labels[1][0])
        figure.colorbar(image, ax=axes, label="F / (kJ/mol)")

    return Sketch("map", "Free energy of both variables", "White: never there.", draw, 3.6)
