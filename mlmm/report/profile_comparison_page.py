"""Two profiles on one page: both curves, difference of barriers with its error, residues side by side."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlmm.report.free_energy_page import read_profile
from mlmm.report.free_energy_plots import axis_of
from mlmm.report.page import save_page
from mlmm.report.plots import Sketch, lay_out
from mlmm.report.style import SERIES
from mlmm.report.template import render
from mlmm.report.text import as_float, as_list, as_mapping, in_words, with_error
from mlmm.report.verdict import LEVELS, Judgement, Verdict
from mlmm.units import KILOCALORIE

__all__ = ["judge_comparison", "write_profile_comparison"]

_LIKELY, _SURE = 2.0, 3.0  # standard errors
_SHOWN = 12


def judge_comparison(facts: Mapping[str, Any], verdicts: Mapping[str, Verdict]) -> Verdict:
    """Whether both barriers can be told apart, and what speaks against either profile.

    Parameters
    ----------
    facts : mapping
        From `mlmm.reactions.profile_comparison.compare_folders`.
    verdicts : mapping of str to Verdict
        Of both profiles, by name.
    """
    sigmas = as_float(facts.get("sigmas"))
    finding = f"{with_error(*_pair(facts['barrier']))} kJ/mol, {sigmas:.1f} standard errors from nothing"
    if sigmas >= _SURE:
        found = [Judgement("difference", "ok", finding)]
    else:
        word = "likely, not certain" if sigmas >= _LIKELY else "both barriers cannot be told apart"
        advice = f"{word}: sample both longer, four times for half the error"
        found = [Judgement("difference", "look", finding, advice)]
    for name, verdict in verdicts.items():
        found += [
            Judgement(f"{name}: {one.name}", one.level, one.finding, one.advice)
            for one in verdict.judgements
            if one.level in ("bad", "look")
        ]
    return Verdict(tuple(sorted(found, key=lambda judgement: LEVELS.index(judgement.level))))


def write_profile_comparison(
    facts: Mapping[str, Any], page: str | os.PathLike
) -> tuple[pathlib.Path, Verdict]:
    """Write the page of two folders; returns where it is, and the verdict.

    Parameters
    ----------
    facts : mapping
        From `mlmm.reactions.profile_comparison.compare_folders`.
    page : path
    """
    folders = [pathlib.Path(str(facts[which])) for which in ("first", "second")]
    names = [folder.resolve().name for folder in folders]
    if names[0] == names[1]:
        names = [str(folder) for folder in folders]
    read = [read_profile(folder) for folder in folders]
    verdict = judge_comparison(facts, dict(zip(names, (one[2] for one in read), strict=True)))
    tables = []
    if facts.get("residues"):
        tables.append(("Residues, reactant to top", *_residues(facts["residues"], names)))
    if facts.get("settings"):
        tables.append(("Settings that differ", ["Key", *names], [list(row) for row in facts["settings"]]))
    text = render(
        "free_energy.html",
        {},
        title=f"{names[0]} and {names[1]}",
        subtitle=f"two profiles along {read[0][1].get('variable')}, {as_float(facts.get('temperature')):g} K",
        verdict=verdict,
        cards=_cards(facts, [one[1] for one in read], names),
        plots=lay_out([_profiles(folders, read[0][1], names)]),
        tables=tables,
        notes=_notes(facts, names),
        software=[
            (name, in_words(version)) for name, version in as_mapping(read[0][0].get("versions")).items()
        ],
    )
    return save_page(pathlib.Path(page), text), verdict


def _pair(given: Any) -> tuple[float, float]:
    value, error = as_list(given)
    return as_float(value), as_float(error)


def _cards(
    facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[str, str, str, str]]:
    cards = []
    difference, error = _pair(facts["barrier"])
    calories = f"{with_error(difference / KILOCALORIE, error / KILOCALORIE)} kcal/mol"
    label = "Difference of barriers"
    cards.append((label, with_error(difference, error), "kJ/mol", f"{calories}; first less second"))
    ratio, factor = as_float(facts["rate_ratio"]), as_float(facts["rate_factor"])
    remark = f"first by second (Eyring); a standard error is a factor of {factor:.2g}"
    cards.append(("Ratio of rates", f"{ratio:.2g}", "", remark))
    for name, result in zip(names, results, strict=True):
        value = with_error(as_float(as_list(result.get("barrier"))[0]), as_float(result.get("error")))
        cards.append((f"Barrier, {name}", value, "kJ/mol", ""))
    return cards


def _profiles(folders: Sequence[pathlib.Path], result: Mapping[str, Any], names: Sequence[str]) -> Sketch:
    tables = [
        np.genfromtxt(folder / "profile.csv", delimiter=",", skip_header=1, ndmin=2) for folder in folders
    ]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        label, factor = axis_of(result)
        for table, name, (colour, line) in zip(tables, names, SERIES, strict=False):
            x = factor * table[:, 0]
            low, high = (table[:, 1] + sign * 2 * table[:, 2] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(x, table[:, 1], line, color=colour, linewidth=1.6, label=name)
        axes.set(xlabel=label, ylabel="F / (kJ/mol)")
        axes.legend(frameon=False, fontsize=8)

    caption = "Free energies, each relative to its own reactant; bands are two standard errors."
    return Sketch("profiles", "Both profiles", caption, draw, 3.4)


def _residues(
    entries: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    rows = []
    for entry in entries[:_SHOWN]:
        shown = [
            with_error(*_pair(entry[key])) if entry[key] else "–" for key in ("first", "second", "difference")
        ]
        rows.append([str(entry["residue"]), *shown])
    return ["Residue", *(f"{name} / (kJ/mol)" for name in names), "Difference"], rows


def _notes(facts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    found = [
        "Both profiles were sampled independently: errors add in squares. An error of the potential drops "
        "out of the difference as far as both have it in common.",
        f"A difference below nothing means that the reaction is faster in {names[0]}.",
    ]
    if facts.get("residues"):
        found.append(
            "Energies of residues are averages with the region at the reactant and on the top; they do not "
            "add up to the difference of barriers, but tell where to look."
        )
    else:
        found.append("mlmm pmf --residues on both folders adds their residues to this page.")
    return found
