"""The page of an end state, from force field to hybrid: free energy, overlap, convergence, verdict."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.report.free_energy_plots import overlap_sketch
from mlmm.report.free_energy_verdict import judge_halves
from mlmm.report.page import save_page
from mlmm.report.plots import Sketch, lay_out
from mlmm.report.reading import read_run
from mlmm.report.style import ACCENT, MM, SERIES, SOFT
from mlmm.report.switching_page import (
    judge_work,
    switching_cards,
    switching_notes,
    switching_sketches,
    switching_table,
)
from mlmm.report.template import render
from mlmm.report.text import as_float, as_list, as_mapping, duration, in_words, with_error
from mlmm.report.verdict import LEVELS, Judgement, Verdict
from mlmm.units import KILOCALORIE

__all__ = ["is_end_states", "judge_end_states", "read_end_states", "write_end_state_report"]

_RECORD, _RESULT = "endstate.json", "result.json"
_OVERLAP_GOOD, _OVERLAP_LEAST = 0.1, 0.03
_FEW, _ENOUGH = 10, 25
_LARGE_ERROR = 2.1  # kJ/mol, half a kcal/mol


def is_end_states(directory: str | os.PathLike) -> bool:
    """Whether a directory holds states between force field and hybrid."""
    return (pathlib.Path(directory) / _RECORD).exists()


def read_end_states(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], Verdict]:
    """Record, result and verdict of a folder of states.

    Raises
    ------
    ConfigError
        No states there, or none that were analysed.
    """
    folder = pathlib.Path(directory)
    record = read_run(folder / _RECORD)
    if not (folder / _RESULT).exists():
        raise ConfigError(
            f"states that were analysed in {folder}", "none yet", "go on with mlmm endstate … --resume"
        )
    result = read_run(folder / _RESULT)
    return record, result, judge_end_states(result, str(record.get("state")))


def judge_end_states(result: Mapping[str, Any], state: str = "finished") -> Verdict:
    """Judge a free energy from states between, or from switching runs, by its ``result.json``."""
    found = [
        Judgement("sampling", "ok", "all states have finished")
        if state == "finished"
        else Judgement("sampling", "look", "not all states have finished", "go on with --resume")
    ]
    found += judge_work(result) if _switched(result) else _judge_states(result)
    found.append(judge_halves(result))
    value, error = as_float(result.get("value")), as_float(result.get("error"))
    finding = f"{with_error(value, error)} kJ/mol"
    if error <= _LARGE_ERROR:
        found.append(Judgement("free energy", "ok", finding))
    else:
        times = (error / _LARGE_ERROR) ** 2
        advice = f"half a kcal/mol takes about {times:.2g} times the production"
        found.append(Judgement("free energy", "look", finding, advice))
    return Verdict(tuple(sorted(found, key=lambda judgement: LEVELS.index(judgement.level))))


def _switched(result: Mapping[str, Any]) -> bool:
    return result.get("method") == "switching"


def _judge_states(result: Mapping[str, Any]) -> list[Judgement]:
    found = []
    shared = as_float(result.get("least_overlap"))
    finding = f"{shared:.2f} or more between neighbours"
    if shared >= _OVERLAP_GOOD:
        found.append(Judgement("overlap", "ok", finding))
    else:
        level = "look" if shared >= _OVERLAP_LEAST else "bad"
        found.append(Judgement("overlap", level, finding, "write more states in [endstate], in a new folder"))
    fewest = min(as_float(number) for number in as_list(result.get("independent")))
    finding = f"{fewest:.0f} independent samples in the state with fewest"
    if fewest >= _ENOUGH:
        found.append(Judgement("samples", "ok", finding))
    else:
        level = "look" if fewest >= _FEW else "bad"
        found.append(Judgement("samples", level, finding, "make produce in [run] longer and --resume"))
    return found


def write_end_state_report(directory: str | os.PathLike) -> pathlib.Path:
    """Write ``report.html`` into a folder of states; errors as for `read_end_states`."""
    folder = pathlib.Path(directory)
    record, result, verdict = read_end_states(folder)
    facts = as_mapping(record.get("facts"))
    if _switched(result):
        how = f"{len(as_list(result.get('work_forward')))} switching runs in each direction"
        cards, sketches = switching_cards(result), switching_sketches(result)
        tables, notes = [("Work", *switching_table(result))], switching_notes()
    else:
        how, cards = f"{len(as_list(result.get('weights')))} states", _cards(result)
        sketches, tables, notes = [_path(result), _slope(result)], [("States", *_states(result))], []
        sketches.append(overlap_sketch(result, "state"))
    page = render(
        "free_energy.html",
        {},
        title=str(facts.get("title") or folder.resolve().name),
        subtitle=f"from the force field to {facts.get('potential')}, {how}, "
        f"{as_float(result.get('temperature')):g} K · {record.get('written')}",
        verdict=verdict,
        cards=cards,
        plots=lay_out([*sketches[:2], _convergence(result), *sketches[2:]]),
        tables=tables,
        notes=[*notes, *_notes()],
        software=[(name, in_words(text)) for name, text in as_mapping(record.get("versions")).items()],
    )
    return save_page(folder / "report.html", page)


def _cards(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    value, error = as_float(result.get("value")), as_float(result.get("error"))
    calories = f"{with_error(value / KILOCALORIE, error / KILOCALORIE)} kcal/mol"
    integral, its_error = as_float(result.get("integral")), as_float(result.get("integral_error"))
    first, last = as_list(result.get("one_sided"))
    return [
        ("Free energy", with_error(value, error), "kJ/mol", calories),
        ("Integral of the slope", with_error(integral, its_error), "kJ/mol", "a coarse check: trapezia"),
        (
            "From one end alone",
            f"{as_float(first):.1f} and {as_float(last):.1f}",
            "kJ/mol",
            "frames of the force field and of the hybrid: where both agree, two states would do",
        ),
        ("Cost", duration(result.get("cost")), "", "wall time of all states"),
    ]


def _arrays(result: Mapping[str, Any], *names: str) -> list[np.ndarray]:
    return [np.array(as_list(result.get(name)), dtype=float) for name in names]


def _path(result: Mapping[str, Any]) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        weights, values, errors = _arrays(result, "weights", "free_energies", "errors")
        axes.errorbar(weights, values, yerr=2 * errors, color=MM, fmt="o-", markersize=4, capsize=2)
        axes.set(xlabel="weight of the model", ylabel="F / (kJ/mol)")

    caption = "Free energy of each state relative to the force field; bars are two standard errors."
    return Sketch("path", "From the force field to the hybrid", caption, draw, 3.0)


def _slope(result: Mapping[str, Any]) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        weights, slopes, errors = _arrays(result, "weights", "slopes", "slope_errors")
        axes.errorbar(weights, slopes, yerr=2 * errors, color=ACCENT, fmt="o-", markersize=4, capsize=2)
        axes.set(xlabel="weight of the model", ylabel="mean difference / (kJ/mol)")

    caption = "Mean of U(hybrid) − U(MM) in each state: the slope of the free energy. It can only fall."
    return Sketch("slope", "Slope", caption, draw, 3.0)


def _convergence(result: Mapping[str, Any]) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        value, error = as_float(result.get("value")), as_float(result.get("error"))
        axes.axhspan(value - error, value + error, color=SOFT, alpha=0.2, linewidth=0)
        for name, (colour, line) in zip(("forward", "backward"), SERIES, strict=False):
            (values,) = _arrays(result, name)
            parts = 100 * np.arange(1, len(values) + 1) / len(values)
            axes.plot(parts, values, line, color=colour, marker="o", markersize=4, label=name)
        axes.set(xlabel="part of the data / %", ylabel="free energy / (kJ/mol)")
        axes.legend(frameon=False, fontsize=8)

    caption = "From the first and from the last part of every state; the band is the result with its error."
    return Sketch("convergence", "Convergence", caption, draw, 3.0)


def _states(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns = _arrays(result, "weights", "free_energies", "errors", "slopes", "slope_errors", "independent")
    rows = [
        [f"{weight:g}", with_error(value, error), with_error(slope, its), f"{independent:.0f}"]
        for weight, value, error, slope, its, independent in zip(*columns, strict=True)
    ]
    return ["Weight", "F / (kJ/mol)", "Mean difference / (kJ/mol)", "Independent samples"], rows


def _notes() -> list[str]:
    return [
        "Add it to a free energy by the force field at the end point where the region is in this "
        "environment, and subtract it at the other one: ΔG(hybrid) = ΔG(MM) + ΔF(here) − ΔF(there).",
        "A zero of energy of the model that differs from that of the force field is in the number; it is the "
        "same in both environments and drops out of the difference.",
        "Errors are those of sampling. Conformations that no state has visited are in none of them.",
    ]
