"""What a correction leaves on disk: differences that failed are taken out, facts and a table are made."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.correction import ProfileCorrection
from mlmm.reactions.reweighting import Correction
from mlmm.reactions.umbrella_analysis import UmbrellaResult
from mlmm.units import GAS_CONSTANT

__all__ = ["profile_facts", "run_facts", "without_failures", "write_corrected"]

_MOST_FAILED = 0.1
_BINS = 24  # of a histogram of differences


def without_failures(
    differences: Sequence[np.ndarray], values: Sequence[np.ndarray] | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Differences and values of the frames for which the other method came to an end; how many did not.

    Parameters
    ----------
    differences : sequence of ndarray
        Of each window or run, kJ/mol; NaN where the method failed.
    values : sequence of ndarray, optional
        Of the variable in the same frames.

    Raises
    ------
    ConfigError
        More than a tenth of all frames failed: those that are left are no fair sample any more.
    """
    kept = [np.isfinite(own) for own in differences]
    total, failed = sum(map(len, kept)), sum(int((~one).sum()) for one in kept)
    if failed > _MOST_FAILED * total:
        raise ConfigError(
            f"a method that converges for nine frames in ten of {total}",
            f"{failed} frames for which it does not",
            "correct its settings, charge or multiplicity, and delete the folder differences",
        )
    places = [np.zeros(len(own)) for own in differences] if values is None else values
    return (
        [own[one] for own, one in zip(differences, kept, strict=True)],
        [own[one] for own, one in zip(places, kept, strict=True)],
        failed,
    )


def run_facts(found: Correction, differences: np.ndarray, temperature: float) -> dict[str, Any]:
    """Facts of a single run: free energy, effective samples, DeltaU as sampled and reweighted."""
    edges = np.histogram_bin_edges(differences, _BINS)
    logs = -differences / (GAS_CONSTANT * temperature)
    weights = np.exp(logs - logs.max())
    return {
        "kind": "run",
        "temperature": temperature,
        "one_sided": asdict(found),
        "frames": found.samples,
        "least_effective": found.effective,
        "spread": found.spread,
        "histogram": {
            "edges": edges.tolist(),
            "sampled": (np.histogram(differences, edges)[0] / len(differences)).tolist(),
            "reweighted": (np.histogram(differences, edges, weights=weights)[0] / weights.sum()).tolist(),
        },
    }


def profile_facts(
    result: UmbrellaResult, found: ProfileCorrection, differences: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Facts of the corrected profile of umbrella windows: both profiles with errors, barrier, samples."""
    profile, marks = result.profile, result.profile.landmarks
    sampled, own = (np.interp(found.places, profile.centres, of) for of in (profile.values, profile.errors))
    facts: dict[str, Any] = {
        "kind": "profile",
        "variable": result.coordinate.name,
        "unit": result.coordinate.unit,
        "temperature": profile.temperature,
        "frames": found.frames,
        "effective": found.effective.tolist(),
        "least_effective": float(found.effective.min()),
        "spread": _within(differences),
        "profile": {
            "place": profile.centres.tolist(),
            "value": profile.values.tolist(),
            "error": profile.errors.tolist(),
        },
        "places": found.places.tolist(),
        "shifts": found.shifts.tolist(),
        "shift_errors": found.errors.tolist(),
        "corrected": (sampled + found.shifts).tolist(),
        "corrected_errors": np.hypot(own, found.errors).tolist(),
    }
    for name in ("reactant", "transition_state", "product"):
        place = getattr(marks, name)
        facts[name] = None if place is None else float(profile.centres[place])
    for name, before, change in (
        ("barrier", profile.barrier, found.barrier),
        ("reaction", profile.reaction, found.reaction),
    ):
        if before is None:
            continue
        error = max(before[1], result.error)
        facts[name] = {
            "sampled": [before[0], error],
            "change": list(change),
            "corrected": [before[0] + change[0], math.hypot(error, change[1])],
        }
    return facts


def write_corrected(path: Path, facts: dict[str, Any]) -> None:
    """Write the change and the corrected profile as CSV, a row for each bin."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                facts["variable"],
                "change_kj_per_mol",
                "change_standard_error",
                "corrected_kj_per_mol",
                "corrected_standard_error",
                "effective_samples",
            ]
        )
        columns = ("places", "shifts", "shift_errors", "corrected", "corrected_errors", "effective")
        for row in zip(*(facts[column] for column in columns), strict=True):
            writer.writerow([repr(float(number)) for number in row])


def _within(differences: Sequence[np.ndarray]) -> float:
    """Standard deviation of DeltaU inside windows, kJ/mol."""
    found = [(len(own), float(own.var(ddof=1))) for own in differences if len(own) > 1]
    total = sum(count for count, _ in found)
    return math.sqrt(sum(count * one for count, one in found) / total) if total else float("nan")
