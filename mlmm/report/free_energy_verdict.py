"""Can a free-energy profile be trusted? Overlap, independent samples, successive parts of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlmm.report.text import as_float, as_list, as_mapping, with_error
from mlmm.report.verdict import LEVELS, Judgement, Verdict

__all__ = ["judge_error", "judge_halves", "judge_profile", "shown_value"]

_OVERLAP_GOOD, _OVERLAP_LEAST = 0.1, 0.03
_FEW, _ENOUGH = 10, 25
_UNLIKELY, _IMPOSSIBLE = 0.01, 1e-4
_LARGE_ERROR = 2.1  # kJ/mol, half a kcal/mol


def judge_profile(result: Mapping[str, Any], state: str = "finished") -> Verdict:
    """Judge a profile of umbrella windows by its ``result.json``.

    Parameters
    ----------
    result : mapping
    state : str
        Of the sampling.
    """
    found = [
        _state(state),
        _range(result),
        _overlap(result),
        _samples(result),
        _blocks(result),
        judge_halves(result),
    ]
    found.append(judge_error(result))
    return Verdict(tuple(sorted(found, key=lambda judgement: LEVELS.index(judgement.level))))


def shown_value(result: Mapping[str, Any], value: Any) -> str:
    """A value of the variable with its unit, an angle in degrees."""
    number, unit = as_float(value), str(result.get("unit", ""))
    if unit == "rad":
        return f"{math.degrees(number):.4g} degree"
    return f"{number:.4g} {unit}".rstrip()


def _state(state: str) -> Judgement:
    if state == "finished":
        return Judgement("sampling", "ok", "all windows have finished")
    return Judgement("sampling", "look", "not all windows have finished", "go on with mlmm pmf … --resume")


def _range(result: Mapping[str, Any]) -> Judgement:
    empty = as_list(result.get("empty"))
    if not empty:
        return Judgement("range", "ok", "samples in every bin of the profile")
    where = "; ".join(f"from {shown_value(result, a)} to {shown_value(result, b)}" for a, b in empty)
    advice = (
        "windows slide off a barrier that curves more than they do: write a larger force_constant, more "
        "windows, or scan in [umbrella]; add fills gaps step by step"
    )
    return Judgement("range", "bad", f"no samples {where}: both sides are not joined there", advice)


def _overlap(result: Mapping[str, Any]) -> Judgement:
    gaps, missing = as_list(result.get("gaps")), as_list(result.get("missing"))
    if gaps:
        where = "; ".join(
            f"between {shown_value(result, a)} and {shown_value(result, b)} ({as_float(shared):.3f})"
            for a, b, shared in gaps
        )
        unit = str(result.get("unit", ""))
        add = "; ".join(
            f"at {shown_value(result, window['centre'])} with {window['force_constant']:.4g} kJ/mol"
            + (f"/{unit}^2" if unit in ("nm", "rad") else "")
            for window in missing
        )
        advice = f"add windows {add}: write add = {len(missing)} or more in [umbrella] and --resume"
        return Judgement("overlap", "bad", f"neighbours hardly overlap {where}", advice)
    shared = as_float(result.get("least_overlap"))
    finding = f"{shared:.2f} or more between neighbours"
    if shared < _OVERLAP_GOOD:
        advice = f"more windows, or softer ones: {_OVERLAP_GOOD:g} is comfortable"
        return Judgement("overlap", "look", finding, advice)
    return Judgement("overlap", "ok", finding)


def _samples(result: Mapping[str, Any]) -> Judgement:
    windows = [as_mapping(window) for window in as_list(result.get("windows"))]
    fewest = min(windows, key=lambda window: as_float(window.get("independent")))
    count = as_float(fewest.get("independent"))
    where = shown_value(result, fewest.get("centre"))
    finding = f"{count:.0f} independent samples in the window at {where}, the one with fewest"
    if count >= _ENOUGH:
        return Judgement("samples", "ok", finding)
    advice = "make produce in [run] longer, or exchange structures between neighbours (exchange)"
    return Judgement("samples", "bad" if count < _FEW else "look", finding, advice)


def _blocks(result: Mapping[str, Any]) -> Judgement:
    probability, scatter = as_float(result.get("block_probability")), as_float(result.get("block_error"))
    if not math.isfinite(probability):
        advice = "make produce in [run] longer"
        return Judgement("blocks", "unknown", "too few samples to compare successive parts", advice)
    own = as_float((as_list(result.get("barrier")) or as_list(result.get("reaction")))[1])
    finding = f"five successive parts give a standard error of {scatter:.2g} kJ/mol, resampling {own:.2g}"
    if probability >= _UNLIKELY:
        return Judgement("blocks", "ok", finding)
    advice = "something slow is not sampled: run longer; the larger of both errors is reported"
    level = "bad" if probability < _IMPOSSIBLE else "look"
    return Judgement("blocks", level, f"{finding} (probability {probability:.1g})", advice)


def judge_halves(result: Mapping[str, Any]) -> Judgement:
    """The first and the last 60 % of the data share a third; they differ by two errors of the whole or so."""
    forward, backward = as_list(result.get("forward")), as_list(result.get("backward"))
    error = as_float(result.get("error"))
    first, last = as_float(forward[2]), as_float(backward[2])
    if not (math.isfinite(first) and math.isfinite(last) and error > 0):
        return Judgement("convergence", "unknown", "too few samples to compare first and last ones")
    # Of two parts of 60 % that share 20 %: variance 4/3 of a part's, whose own is 1/0.6.
    away = abs(first - last) / (error * math.sqrt(2 / 0.6 * (1 - 1 / 3)))
    finding = (
        f"the first and the last 60 % differ by {abs(first - last):.2g} kJ/mol, {away:.1f} standard errors"
    )
    if away <= 3:
        return Judgement("convergence", "ok", finding)
    return Judgement("convergence", "look", finding, "equilibrate longer: it still drifts")


def judge_error(result: Mapping[str, Any]) -> Judgement:
    """Whether there is a barrier, and how well it is known."""
    barrier, error = as_list(result.get("barrier")), as_float(result.get("error"))
    name = "barrier" if barrier else "reaction free energy"
    value = as_float((barrier or as_list(result.get("reaction")))[0])
    finding = f"{with_error(value, error)} kJ/mol"
    if not barrier:
        advice = "no barrier above kT: the range may be too short"
        return Judgement(name, "look", finding, advice)
    if error > _LARGE_ERROR:
        times = (error / _LARGE_ERROR) ** 2
        advice = f"half a kcal/mol takes about {times:.2g} times the production"
        return Judgement(name, "look", finding, advice)
    return Judgement(name, "ok", finding)
