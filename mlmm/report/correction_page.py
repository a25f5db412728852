"""The page of a correction: profile before and after, effective samples, and whether they can be believed."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.report.free_energy_plots import axis_of
from mlmm.report.page import save_page
from mlmm.report.plots import Sketch, lay_out
from mlmm.report.reading import read_run
from mlmm.report.style import ACCENT, INK, MM, SOFT
from mlmm.report.template import render
from mlmm.report.text import as_float, as_list, as_mapping, with_error
from mlmm.report.verdict import LEVELS, Judgement, Verdict
from mlmm.units import GAS_CONSTANT, KILOCALORIE

__all__ = ["is_correction", "judge_correction", "read_correction", "write_correction_report"]

_RECORD = "correction.json"
_FEW, _ENOUGH = 10, 30
_NARROW, _BROAD = 2.0, 4.0  # standard deviation of DeltaU, kT
_LARGE_ERROR = 2.1  # kJ/mol, half a kcal/mol
_OVERLAP = 0.03


def is_correction(directory: str | os.PathLike) -> bool:
    """Whether a directory holds a correction."""
    return (pathlib.Path(directory) / _RECORD).exists()


def read_correction(directory: str | os.PathLike) -> dict[str, Any]:
    """Facts of a correction; ConfigError for those of another layout."""
    facts = read_run(pathlib.Path(directory) / _RECORD)
    if facts.get("kind") not in ("profile", "run"):
        raise ConfigError(
            f"a correction in {directory}",
            "a file without kind",
            "run mlmm correct again; frames that are done stay",
        )
    return facts


def judge_correction(facts: Mapping[str, Any]) -> Verdict:
    """Judge a correction by its ``correction.json``."""
    found = [_effective(facts), _spread(facts), _failed(facts), _error(facts)]
    two = as_mapping(facts.get("two_sided"))
    if two:
        overlap = as_float(two.get("overlap"))
        good = overlap >= _OVERLAP
        advice = "" if good else "sample states in between: mlmm endstate"
        finding = f"both descriptions share {overlap:.2f} of their samples"
        found.append(Judgement("overlap", "ok" if good else "bad", finding, advice))
    return Verdict(tuple(sorted(found, key=lambda judgement: LEVELS.index(judgement.level))))


def _effective(facts: Mapping[str, Any]) -> Judgement:
    least = as_float(facts.get("least_effective"))
    where = " or more in each bin" if facts.get("kind") == "profile" else ""
    finding = f"{least:.1f} effective samples{where}, of {facts.get('frames')} frames"
    if least >= _ENOUGH:
        return Judgement("samples", "ok", finding)
    advice = (
        "the two methods favour other structures: sample longer, train the potential on frames of this run, "
        "or sample with the other method"
    )
    # With both sides sampled the answer does not rest on the weights of one.
    level = "look" if least >= _FEW or facts.get("two_sided") else "bad"
    return Judgement("samples", level, finding, advice)


def _spread(facts: Mapping[str, Any]) -> Judgement:
    thermal = GAS_CONSTANT * as_float(facts.get("temperature"))
    widths = as_float(facts.get("spread")) / thermal
    finding = f"differences scatter by {widths:.1f} kT"
    if not math.isfinite(widths):
        return Judgement("spread", "unknown", "too few frames to tell the scatter of differences")
    if widths <= _NARROW:
        return Judgement("spread", "ok", finding)
    advice = f"below {_NARROW:g} kT weights can be believed: a potential closer to the method is needed"
    return Judgement("spread", "look" if widths <= _BROAD else "bad", finding, advice)


def _failed(facts: Mapping[str, Any]) -> Judgement:
    failed = int(as_float(facts.get("failed") or 0))
    if not failed:
        return Judgement("method", "ok", "it came to an end for every frame")
    finding = f"{failed} frames without an energy, which are left out"
    return Judgement("method", "look", finding, "look at them: a bias, if they have something in common")


def _error(facts: Mapping[str, Any]) -> Judgement:
    name, (_, error) = _main(facts)
    finding = f"its standard error is {error:.2g} kJ/mol"
    if not math.isfinite(error):
        return Judgement(name, "unknown", "too few frames for an error", "take more frames")
    if error <= _LARGE_ERROR:
        return Judgement(name, "ok", finding)
    times = (error / _LARGE_ERROR) ** 2
    return Judgement(name, "look", finding, f"half a kcal/mol takes about {times:.2g} times the frames")


def _main(facts: Mapping[str, Any]) -> tuple[str, tuple[float, float]]:
    """Name, value and error of what was wanted."""
    if facts.get("kind") == "profile":
        name = "barrier" if facts.get("barrier") else "reaction"
        value, error = as_list(as_mapping(facts.get(name)).get("change"))
        return f"change of the {name}", (as_float(value), as_float(error))
    best = as_mapping(facts.get("two_sided") or facts.get("one_sided"))
    return "free energy", (as_float(best.get("value")), as_float(best.get("error")))


def write_correction_report(directory: str | os.PathLike) -> pathlib.Path:
    """Write ``report.html`` into the folder of a correction; errors as for `read_correction`."""
    folder = pathlib.Path(directory)
    facts = read_correction(folder)
    whole = facts["kind"] == "profile"
    page = render(
        "free_energy.html",
        {},
        title=f"{pathlib.Path(str(facts.get('run'))).name} by {_short(facts)}",
        subtitle=f"{facts.get('frames')} frames reweighted to {facts.get('method') or facts.get('to')}, "
        f"{as_float(facts.get('temperature')):g} K",
        verdict=judge_correction(facts),
        cards=_cards(facts),
        plots=lay_out([_profiles(facts), _samples(facts)] if whole else [_histogram(facts)]),
        tables=[("Bins", *_bins(facts))] if whole else [],
        notes=_notes(facts),
        software=[(name, str(text)) for name, text in as_mapping(facts.get("versions")).items()],
    )
    return save_page(folder / "report.html", page)


def _short(facts: Mapping[str, Any]) -> str:
    """What was typed, without options and folders."""
    return pathlib.Path(str(facts.get("to")).partition(":")[0]).name


def _card(name: str, pair: Sequence[Any], remark: str = "") -> tuple[str, str, str, str]:
    value, error = (as_float(number) for number in pair)
    calories = f"{with_error(value / KILOCALORIE, error / KILOCALORIE)} kcal/mol"
    return name, with_error(value, error), "kJ/mol", f"{calories}{remark and ': ' + remark}"


def _cards(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    cards = []
    if facts.get("kind") == "profile":
        for name, label in (("barrier", "Barrier"), ("reaction", "Reaction free energy")):
            own = as_mapping(facts.get(name))
            if own:
                cards.append(_card(f"{label}, sampled", own["sampled"]))
                cards.append(_card(f"{label}, corrected", own["corrected"]))
    else:
        name, pair = _main(facts)
        how = "from both sides" if facts.get("two_sided") else "from one side"
        cards.append(_card(name.capitalize(), pair, how))
    cards.append(
        (
            "Effective samples",
            f"{as_float(facts.get('least_effective')):.1f}",
            "",
            f"of {facts.get('frames')} frames"
            + (", the fewest in a bin" if facts["kind"] == "profile" else ""),
        )
    )
    return cards


def _profiles(facts: Mapping[str, Any]) -> Sketch:
    own = {name: np.array(values, dtype=float) for name, values in as_mapping(facts.get("profile")).items()}
    places, corrected, errors = (
        np.array(as_list(facts.get(name)), dtype=float)
        for name in ("places", "corrected", "corrected_errors")
    )

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        label, factor = axis_of(facts)
        x = factor * own["place"]
        axes.fill_between(
            x, own["value"] - 2 * own["error"], own["value"] + 2 * own["error"], color=MM, alpha=0.25, lw=0
        )
        axes.plot(x, own["value"], color=MM, linewidth=1.6, label="as sampled")
        axes.errorbar(
            factor * places, corrected, yerr=2 * errors, color=ACCENT, fmt="o--", markersize=4, capsize=2,
            linewidth=1.2, label=f"by {_short(facts)}",
        )  # fmt: skip
        axes.set(xlabel=label, ylabel="F / (kJ/mol)")
        axes.legend(frameon=False, fontsize=8)

    caption = (
        "Free energy as it was sampled and with the other method; band and bars are two standard errors."
    )
    return Sketch("profiles", "Before and after", caption, draw, 3.4)


def _samples(facts: Mapping[str, Any]) -> Sketch:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        label, factor = axis_of(facts)
        places = factor * np.array(as_list(facts.get("places")), dtype=float)
        effective = np.array(as_list(facts.get("effective")), dtype=float)
        axes.bar(places, effective, width=0.8 * float(np.diff(places).min()), color=SOFT)
        axes.axhline(_FEW, color=ACCENT, linestyle="--", linewidth=1, label=f"{_FEW}: fewer are too few")
        axes.axhline(_ENOUGH, color=INK, linestyle=":", linewidth=1, label=f"{_ENOUGH}: comfortable")
        axes.set(xlabel=label, ylabel="effective samples", yscale="log", ylim=(0.5, None))
        # Powers of ten would be written in TeX, which the page shows as it stands.
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=8)

    caption = "Independent frames in each bin that have weight in the other description."
    return Sketch("samples", "Effective samples", caption, draw, 3.0)


def _histogram(facts: Mapping[str, Any]) -> Sketch:
    shown = as_mapping(facts.get("histogram"))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        edges = np.array(as_list(shown.get("edges")), dtype=float)
        for name, colour in (("sampled", MM), ("reweighted", ACCENT)):
            axes.stairs(np.array(as_list(shown.get(name)), dtype=float), edges, color=colour, label=name)
        axes.set(xlabel="difference of energies / (kJ/mol)", ylabel="share of frames")
        axes.legend(frameon=False, fontsize=8)

    caption = (
        "Differences of energies in the frames as they were sampled and with the weights of the other "
        "method. Where the second curve stands on the edge of the first, frames that count were not sampled."
    )
    return Sketch("differences", "Differences of energies", caption, draw, 3.0)


def _bins(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    label, factor = axis_of(facts)
    rows = []
    columns = ("places", "shifts", "shift_errors", "corrected", "corrected_errors", "effective")
    for place, shift, error, value, whole, effective in zip(*(facts[name] for name in columns), strict=True):
        rows.append(
            [
                f"{factor * as_float(place):.4g}",
                with_error(as_float(shift), as_float(error)),
                with_error(as_float(value), as_float(whole)),
                f"{as_float(effective):.1f}",
            ]
        )
    return [label, "Change / (kJ/mol)", "Corrected / (kJ/mol)", "Effective samples"], rows


def _notes(facts: Mapping[str, Any]) -> list[str]:
    found = [
        "Frames get the weight exp(−ΔU/kT) of the difference of both energies. Structures that only "
        "the other method favours were never visited: no weight brings them back, and no error bar knows it.",
        "The error of a corrected value joins that of the sampling with that of the weights.",
    ]
    if facts.get("kind") == "profile":
        found.append(
            "The change is the error of the potential that was sampled, as far as the other method is right."
        )
    return found
