"""Did a search on an energy surface go well: a scan, a path, a transition state, an IRC, frequencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlmm.report.search_tables import BARRIER_PARTS
from mlmm.report.text import as_float, as_list, as_mapping, in_digits, look_up
from mlmm.report.verdict import Judgement, Verdict
from mlmm.units import KILOCALORIE

__all__ = ["judge_search"]

#: Hysteresis of a scan that is rounding, and that is another path, kJ/mol.
_SAME, _OTHER = 0.5, 4.0
#: Relative asymmetry of second derivatives that is rounding, and that spoils frequencies.
_FINE, _COARSE = 2e-3, 2e-2
_PAIR = 2  # ends of a path
#: What to do about a part of the error of a barrier.
_BARRIER_ADVICE = {
    "derivatives": "change freq.displacement, or compute in double precision (surface.precision)",
    "stationary": "converge both structures farther: ts.force_tolerance, and freq.relax for the reactant",
    "low_modes": "sample the free energy instead of counting modes: mlmm pmf",
    "potential": "label structures along the path and train again (mlmm learn), or take a reference method",
}


def judge_search(run: Mapping[str, Any]) -> Verdict:
    """Judge a search by its ``run.json``."""
    found: list[Judgement | None] = [_state(run)]
    judge = _JUDGES.get(str(run.get("kind")))
    if judge and run.get("state") == "finished":
        found += judge(as_mapping(run.get("result")))
    return Verdict(tuple(j for j in found if j is not None))


def _state(run: Mapping[str, Any]) -> Judgement | None:
    state = str(run.get("state"))
    if state == "finished":
        return None
    if state == "failed":
        return Judgement("search", "bad", f"failed: {run.get('message')}", "correct the cause, then --resume")
    return Judgement(
        "search", "look", f"{state}: {run.get('message') or 'not at its end'}", "go on with --resume"
    )


def _scan(result: dict) -> list[Judgement | None]:
    left = int(as_float(result.get("unconverged")))
    found: list[Judgement | None] = [
        Judgement(
            "minimisations",
            "bad" if left else "ok",
            f"{left} points have not converged" if left else "all points have converged",
            "give more steps (scan.steps), or finer points" if left else "",
        )
    ]
    if int(as_float(result.get("directions"))) > 1:
        gap, top = as_float(result.get("hysteresis")), as_float(result.get("hysteresis_top"))
        at = ", ".join(in_digits(x) for x in as_list(result.get("hysteresis_at")))
        level = "ok" if gap <= _SAME else "bad" if top > _OTHER else "look"
        found.append(
            Judgement(
                "hysteresis",
                level,
                f"forth and back differ by {gap:.2f} kJ/mol at {at}, by {top:.2f} at the highest point",
                ""
                if level == "ok"
                else "another coordinate changes as well: look at the structures of both ways there, add "
                "it as a second variable, or take a path (mlmm neb)",
            )
        )
    else:
        found.append(
            Judgement("hysteresis", "unknown", "one direction only", 'write directions = "both" to see it')
        )
    inside = bool(result.get("highest_inside"))
    found.append(
        Judgement(
            "highest point",
            "ok" if inside else "look",
            "inside the range" if inside else "at an end of the range",
            "" if inside else "scan farther: there is no barrier between these ends",
        )
    )
    return found


def _path(result: dict) -> list[Judgement | None]:
    force = as_float(result.get("force"))
    converged = bool(result.get("converged"))
    folds = as_list(result.get("folds"))
    top, images = int(as_float(result.get("highest"))), int(as_float(result.get("images")))
    inside = 0 < top < images + 1
    returns = int(as_float(result.get("returns", 0)))
    advice = "go on with --resume --set neb.steps=…, or begin from a scan with --from"
    if returns:
        advice = "begin mlmm ts from the highest point of a scan (--from), which needs no path"
    return [
        Judgement(
            "convergence",
            "ok" if converged else "bad",
            f"largest force across the path {force:.0f} kJ/mol/nm after "
            f"{in_digits(result.get('iterations'))} iterations"
            + (f"; steps ran away {returns} times" if returns else ""),
            "" if converged else advice,
        ),
        Judgement(
            "images",
            "bad" if folds else "ok",
            f"the path turns back on itself at image {', '.join(map(str, folds))}: images cross"
            if folds
            else "in order along the path",
            'begin from a scan along the reaction (--from, interpolation = "given"), or use stiffer springs '
            "(neb.spring and neb.spring_top)"
            if folds
            else "",
        ),
        Judgement(
            "highest image",
            "ok" if inside else "look",
            f"image {top} of {images}" if inside else "at an end: there is no barrier between the ends",
            "" if inside else "look whether the ends are the minima that you meant",
        ),
    ]


def _saddle(result: dict) -> list[Judgement | None]:
    said = as_mapping(result.get("judgement"))
    force = as_float(result.get("force"))
    return [
        Judgement(
            "modes", str(said.get("level", "unknown")), str(said.get("finding")), str(said.get("advice", ""))
        ),
        Judgement(
            "convergence",
            "ok" if result.get("converged") else "bad",
            f"largest force {force:.2f} kJ/mol/nm after {in_digits(result.get('steps'))} steps",
            "" if result.get("converged") else "go on with --resume --set ts.steps=…",
        ),
        _asymmetry(result),
    ]


def _irc(result: dict) -> list[Judgement | None]:
    ends = [as_mapping(end) for end in as_list(result.get("ends"))]
    missing = [str(end.get("direction")) for end in ends if not end.get("arrived")]
    flat = [str(end.get("direction")) for end in ends if end.get("converged") is False]
    rises, monotone = as_float(result.get("rises")), bool(result.get("monotone"))
    return [
        Judgement(
            "descent",
            "ok" if monotone else "bad",
            "the energy falls all the way"
            if monotone
            else f"the energy rises by {rises:.3f} kJ/mol on the way",
            "" if monotone else "take smaller steps (irc.step)",
        ),
        Judgement(
            "ends",
            "look" if missing else "ok",
            f"{' and '.join(missing)} did not come to rest" if missing else "both directions came to rest",
            "give more steps (irc.steps), or look whether the minimum beyond is the one you meant"
            if missing
            else "",
        ),
        Judgement(
            "minima", "look", f"{' and '.join(flat)} not converged", "minimise farther: mlmm freq with relax"
        )
        if flat
        else None,
    ]


def _frequencies(result: dict) -> list[Judgement | None]:
    count = int(as_float(result.get("clear_imaginary")))
    small = len(as_list(result.get("imaginary"))) - count
    words = {0: "a minimum", 1: "a saddle point of first order"}.get(count, "a saddle point of higher order")
    level = "ok" if count < _PAIR and not small else "look" if count < _PAIR else "bad"
    finding = f"{words}: {count} imaginary mode{'' if count == 1 else 's'}"
    if small:
        finding += f", and {small} within the error of differences (below 30i 1/cm)"
    advice = ""
    if count >= _PAIR:
        advice = "search for the transition state again: mlmm ts, down the second mode"
    elif small:
        advice = "minimise farther, or change freq.displacement: low modes are not to be trusted"
    force = as_float(result.get("force"))
    return [
        Judgement("modes", level, finding, advice),
        Judgement(
            "stationary point",
            "ok" if force < 5.0 else "look" if force < 50.0 else "bad",
            f"largest force {force:.2f} kJ/mol/nm",
            ""
            if force < 5.0
            else "minimise first (relax = true), or take the structure of mlmm ts: "
            "frequencies belong to points without force",
        ),
        _asymmetry(result),
        *(_barrier(as_mapping(row)) for row in as_list(result.get("barriers"))[:1]),
    ]


def _barrier(row: dict) -> Judgement:
    """The barrier with its error, and what to do about the largest part of it."""
    value, error = as_float(row.get("quasi_gibbs")), as_float(row.get("error"))
    parts = {name: as_float(x) for name, x in as_mapping(row.get("error_parts")).items()}
    shown = ", ".join(f"{BARRIER_PARTS.get(name, name)} {x:.1f}" for name, x in parts.items())
    kilocalories = f"{value / KILOCALORIE:.2f} ± {error / KILOCALORIE:.2f} kcal/mol"
    at, large = in_digits(row.get("temperature"), "K", 5), error > KILOCALORIE
    worst = max(parts, key=lambda name: parts[name]) if parts else ""
    return Judgement(
        "barrier",
        "look" if large else "ok",
        f"ΔG‡ at {at} {value:.1f} ± {error:.1f} kJ/mol ({kilocalories}): {shown} kJ/mol; without the error "
        "of the method itself",
        _BARRIER_ADVICE.get(worst, "") if large else "",
    )


def _asymmetry(result: dict) -> Judgement:
    value = as_float(look_up(result, "asymmetry"))
    level = "ok" if value <= _FINE else "look" if value <= _COARSE else "bad"
    return Judgement(
        "second derivatives",
        level,
        f"symmetric to {value:.1e}",
        ""
        if level == "ok"
        else "change the displacement, or compute in double precision (surface.precision)",
    )


_JUDGES: dict[str, Callable[[dict], list[Judgement | None]]] = {
    "scan": _scan,
    "neb": _path,
    "ts": _saddle,
    "irc": _irc,
    "freq": _frequencies,
}
