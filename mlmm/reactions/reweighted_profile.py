"""Profile from samples of a bias that is held: weights exp(V/kT), errors by blocks of correlated samples."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.profile import Profile, find_landmarks, free_energies
from mlmm.statistics import statistical_inefficiency
from mlmm.units import GAS_CONSTANT
from mlmm.whole_files import write_json

__all__ = ["HeldBias", "analyse_held", "analyse_metadynamics"]

_FEWEST_BLOCKS = 5
_BLOCK = 4  # times the number of samples that count as one


@dataclass(frozen=True, eq=False)
class HeldBias:
    """A profile from samples under a bias that does not change.

    Parameters
    ----------
    profile : Profile
    blocks : float
        Number of independent blocks.
    crossings : int
        How often the samples went from reactant to product or back; 0 without a barrier.
    samples : int
    """

    profile: Profile
    blocks: float
    crossings: int
    samples: int


def analyse_held(
    values: np.ndarray,
    bias: np.ndarray,
    edges: np.ndarray,
    temperature: float,
    *,
    period: float = 0.0,
    bootstraps: int = 200,
    seed: int = 0,
) -> HeldBias:
    """Free-energy profile of samples under a constant bias V: p(x) ~ <delta(x - x_n) exp(V_n/kT)>.

    Blocks of four times the number g of samples that count as one are drawn with replacement. Blocks of
    length L miss what is correlated across their ends, a part g/2L of the variance, which is added.

    Parameters
    ----------
    values, bias : ndarray, shape (n,)
        Of the variable, and V in kJ/mol, in the order of time.
    edges : ndarray, shape (B + 1,)
        Of the bins.
    temperature : float
        K.
    period : float
    bootstraps, seed : int

    Raises
    ------
    ConfigError
        Fewer than five independent blocks.
    """
    x = edges[0] + np.mod(values - edges[0], period) if period else np.asarray(values, dtype=float)
    logs = np.asarray(bias, dtype=float) / (GAS_CONSTANT * temperature)
    # On a circle both parts remember.
    series = [np.cos(x * 2 * math.pi / period), np.sin(x * 2 * math.pi / period)] if period else [x]
    inefficiency = max(statistical_inefficiency(part) for part in series)
    length = math.ceil(_BLOCK * inefficiency)
    count = len(x) // length
    if count < _FEWEST_BLOCKS:
        raise ConfigError(
            f"{_FEWEST_BLOCKS} independent blocks of the variable under the bias that is held",
            f"{count} of {length} samples each",
            "make produce in [run] longer",
        )
    x, logs = x[len(x) - count * length :], logs[len(logs) - count * length :]
    found = free_energies(x, logs, edges, temperature)
    landmarks = find_landmarks(found, temperature)
    generator = np.random.default_rng(seed)
    places, weights = x.reshape(count, length), logs.reshape(count, length)
    replicates = []
    for _ in range(bootstraps):
        drawn = generator.integers(count, size=count)
        replicates.append(free_energies(places[drawn].ravel(), weights[drawn].ravel(), edges, temperature))
    spread = np.array(replicates)
    spread -= spread[:, [landmarks.reactant]]
    # A mean over n blocks that are drawn from n has a variance smaller by (n - 1)/n.
    widened = math.sqrt(count / (count - 1) / (1 - inefficiency / (2 * length)))
    middle = np.full(len(found), np.nan)
    known = np.isfinite(spread).sum(axis=0) > 1
    middle[known] = np.nanmean(spread[:, known], axis=0)
    spread = middle + widened * (spread - middle)
    errors = np.full(len(found), np.nan)
    errors[known] = np.nanstd(spread[:, known], axis=0, ddof=1)
    profile = Profile(edges, found - found[landmarks.reactant], errors, temperature, landmarks, spread)
    return HeldBias(profile, float(count), _crossings(x, profile), len(x))


def _crossings(x: np.ndarray, profile: Profile) -> int:
    """Passages from the bin of the reactant to that of the product and back."""
    marks, edges = profile.landmarks, profile.edges
    if marks.transition_state is None:
        return 0
    place = np.digitize(x, edges) - 1
    sides = place[np.isin(place, (marks.reactant, marks.product))]
    return int((np.diff(sides) != 0).sum())


def analyse_metadynamics(folder: str | Path, *, bins: int, bootstraps: int, seed: int = 0) -> HeldBias:
    """Analyse the held part of a folder; writes ``profile.csv``, ``result.json`` and for two variables a map.

    Parameters
    ----------
    folder : path
    bins, bootstraps, seed : int

    Raises
    ------
    ConfigError
        No samples under a held bias yet.
    """
    path = Path(folder)
    record = json.loads((path / "metadynamics.json").read_text(encoding="utf-8"))
    with (path / "variables.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["held"] == "1"]
    axes = record["axes"]
    temperature = float(record["settings"]["temperature"])
    if len(rows) < 2 * _FEWEST_BLOCKS:
        raise ConfigError("samples under a bias that is held", f"{len(rows)} in {path}", "let the run go on")
    bias = np.array([float(row["bias"]) for row in rows])
    columns = [np.array([float(row[axis["variable"]]) for row in rows]) for axis in axes]
    edges = [np.linspace(axis["low"], axis["high"], bins + 1) for axis in axes]
    found = analyse_held(
        columns[0],
        bias,
        edges[0],
        temperature,
        period=axes[0]["period"],
        bootstraps=bootstraps,
        seed=seed,
    )
    _write(path, record, found)
    if len(axes) == 2:
        _write_map(path / "map.csv", axes, columns, bias, edges, temperature)
    return found


def _write(path: Path, record: dict[str, Any], found: HeldBias) -> None:
    profile, axis = found.profile, record["axes"][0]
    marks, places = profile.landmarks, profile.centres
    write_json(
        path / "result.json",
        {
            "variable": axis["variable"],
            "unit": axis["unit"],
            "temperature": profile.temperature,
            "barrier": None if profile.barrier is None else list(profile.barrier),
            "reaction": list(profile.reaction),
            "error": (profile.barrier or profile.reaction)[1],
            "reactant": places[marks.reactant],
            "product": places[marks.product],
            "transition_state": None if marks.transition_state is None else places[marks.transition_state],
            "blocks": found.blocks,
            "crossings": found.crossings,
            "samples": found.samples,
            "method": record["settings"]["options"]["method"],
        },
        nan=True,
    )
    with (path / "profile.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([axis["variable"], "free_energy_kj_per_mol", "standard_error"])
        for row in zip(places, profile.values, profile.errors, strict=True):
            writer.writerow([repr(float(number)) if math.isfinite(number) else "" for number in row])


def _write_map(
    path: Path,
    axes: list[dict[str, Any]],
    columns: list[np.ndarray],
    bias: np.ndarray,
    edges: list[np.ndarray],
    temperature: float,
) -> None:
    """Free energy over both variables, kJ/mol above its lowest value; empty where nothing was sampled."""
    thermal = GAS_CONSTANT * temperature
    weights = np.exp((bias - bias.max()) / thermal)
    mass, _, _ = np.histogram2d(columns[0], columns[1], bins=edges, weights=weights)
    with np.errstate(divide="ignore"):
        surface = -thermal * np.log(mass)
    surface -= surface.min()
    middles = [0.5 * (one[1:] + one[:-1]) for one in edges]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([axes[0]["variable"], axes[1]["variable"], "free_energy_kj_per_mol"])
        for i, first in enumerate(middles[0]):
            for j, second in enumerate(middles[1]):
                number = float(surface[i, j])
                writer.writerow(
                    [repr(float(first)), repr(float(second)), repr(number) if math.isfinite(number) else ""]
                )
