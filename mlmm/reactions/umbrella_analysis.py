"""From samples of umbrella windows to a profile with honest errors, and to what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import chi2

from mlmm.errors import ConfigError
from mlmm.reactions.mbar import log_mixture, overlap_matrix, resampled, solve_mbar
from mlmm.reactions.profile import Profile, bin_edges, find_landmarks, free_energies
from mlmm.reactions.samples import WindowSamples, sampled_neighbours
from mlmm.reactions.windows import Coordinate, Sampled, Window, neighbours, windows_between
from mlmm.units import GAS_CONSTANT

__all__ = [
    "LEAST_OVERLAP",
    "UmbrellaResult",
    "analyse_windows",
    "result_facts",
    "unbiased_log_weights",
]

#: Below it the error of a free-energy difference cannot be trusted (doi 10.1007/s10822-015-9840-9).
LEAST_OVERLAP = 0.03
_BLOCKS = 5
_FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class UmbrellaResult:
    """A profile and how far it can be trusted.

    Parameters
    ----------
    coordinate : Coordinate
    samples : tuple of WindowSamples
        In the order of their centres.
    profile : Profile
    overlap : ndarray, shape (K, K)
    missing : tuple of Window
        Windows that would close the gaps; numbers go on from the highest one.
    gaps : tuple of (float, float, float)
        Centres of the neighbours between them, and their overlap.
    forward, backward : ndarray, shape (5,)
        Barrier (or reaction free energy) from growing parts of the data, first and last ones, kJ/mol.
    fractions : tuple of float
    blocks : ndarray, shape (5,)
        The same from five successive parts.
    block_error : float
        Standard error from their scatter, kJ/mol.
    block_probability : float
        Of a scatter as large as this if the bootstrap's error is right.
    """

    coordinate: Coordinate
    samples: tuple[WindowSamples, ...]
    profile: Profile
    overlap: np.ndarray
    missing: tuple[Window, ...]
    gaps: tuple[tuple[float, float, float], ...]
    forward: np.ndarray
    backward: np.ndarray
    blocks: np.ndarray
    block_error: float
    block_probability: float
    fractions: tuple[float, ...] = field(default=_FRACTIONS)

    @property
    def least_overlap(self) -> float:
        """Of all neighbours."""
        pairs = sampled_neighbours(self.samples, self.coordinate)
        return min(
            _shared(
                self.samples[a],
                self.samples[b],
                min(self.overlap[a, b], self.overlap[b, a]),
                self.coordinate,
            )
            for a, b in pairs
        )

    @property
    def error(self) -> float:
        """Standard error of the barrier (or the reaction free energy): the larger of both estimates."""
        found = self.profile.barrier or self.profile.reaction
        return max(found[1], self.block_error) if math.isfinite(self.block_error) else found[1]


def analyse_windows(
    samples: Sequence[WindowSamples],
    coordinate: Coordinate,
    temperature: float,
    *,
    bins: int = 0,
    limits: tuple[float, float] | None = None,
    bootstraps: int = 200,
    seed: int = 0,
    least_overlap: float = LEAST_OVERLAP,
) -> UmbrellaResult:
    """Free-energy profile of umbrella windows by MBAR, with everything that its error depends on.

    MBAR joins all samples, correlated ones with less weight. Errors are those of drawing as many samples of
    every window, with replacement, as are independent. Parts of the data one after the other show whether
    these errors are enough.

    Parameters
    ----------
    samples : sequence of WindowSamples
    coordinate : Coordinate
    temperature : float
        K, at which all windows were sampled.
    bins : int
        Three for each window by default.
    limits : tuple of float, optional
        Range of the profile; from the first centre to the last, or the whole circle, by default.
    bootstraps : int
    seed : int
        Of the resampling.
    least_overlap : float
        Of neighbours; with less, the profile has a gap there.

    Raises
    ------
    ConfigError
        Fewer than two windows, or a profile without samples in it.
    """
    if len(samples) < 2:
        raise ConfigError("samples of two windows or more", str(len(samples)), "let more of them run")
    ordered = sorted(samples, key=lambda entry: entry.window.centre)
    windows = [entry.window for entry in ordered]
    data = _Data(ordered, coordinate, temperature)
    start = solve_mbar(data.reduced, data.lengths)
    free, logs = resampled(data.reduced, data.counts, data.shares, start)
    pairs = neighbours(windows, coordinate)
    low, high = limits or _range(windows, coordinate, pairs)
    edges = bin_edges(low, high, bins or min(200, max(15, 3 * len(windows))))
    places = data.places(low)
    found = free_energies(places, logs, edges, temperature)
    if np.isfinite(found).sum() < 3:
        raise ConfigError(
            f"samples between {coordinate.shown(low)} and {coordinate.shown(high)}",
            f"some in {int(np.isfinite(found).sum())} of {len(found)} bins",
            "correct the range of the profile, or let the windows run longer",
        )
    landmarks = find_landmarks(found, temperature)

    def of_part(drawn: np.ndarray, counts: np.ndarray) -> np.ndarray:
        _, logs = resampled(data.reduced, counts, drawn, free)
        return free_energies(places, logs, edges, temperature)

    generator = np.random.default_rng(seed)
    replicates = np.array([of_part(*data.drawn(generator)) for _ in range(bootstraps)])
    replicates = replicates - replicates[:, [landmarks.reactant]]
    found = found - found[landmarks.reactant]
    errors = np.full(len(found), np.nan)
    known = np.isfinite(replicates).sum(axis=0) > 1
    errors[known] = np.nanstd(replicates[:, known], axis=0, ddof=1)
    errors = _at_least_counted(errors, places, data.shares, edges, landmarks.reactant, temperature)
    profile = Profile(edges, found, errors, temperature, landmarks, replicates)
    overlap = overlap_matrix(data.reduced, data.counts, free, data.shares)
    pairs = sampled_neighbours(ordered, coordinate)
    gaps, missing = _gaps(ordered, pairs, overlap, coordinate, temperature, least_overlap)

    def step_of(begin: float, end: float) -> float:
        try:
            return profile.step(of_part(*data.part(begin, end)))
        except ConfigError:
            return math.nan

    forward = np.array([step_of(0.0, fraction) for fraction in _FRACTIONS])
    backward = np.array([step_of(1.0 - fraction, 1.0) for fraction in _FRACTIONS])
    blocks = np.array([step_of(k / _BLOCKS, (k + 1) / _BLOCKS) for k in range(_BLOCKS)])
    block_error, probability = _block_test(blocks, (profile.barrier or profile.reaction)[1])
    parts = (forward, backward, blocks, block_error, probability)
    return UmbrellaResult(coordinate, tuple(ordered), profile, overlap, missing, gaps, *parts)


def unbiased_log_weights(
    samples: Sequence[WindowSamples],
    coordinate: Coordinate,
    temperature: float,
    values: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """ln of the weight without bias of further samples, such as frames.

    Parameters
    ----------
    samples : sequence of WindowSamples
        All that windows have sampled.
    coordinate : Coordinate
    temperature : float
        K.
    values : ndarray, shape (n,)
        Of the variable in the further samples.
    counts : ndarray, shape (K,)
        How many of these are from each window; for samples that count in part, the sum of their parts.
    """
    data = _Data(samples, coordinate, temperature)
    start = solve_mbar(data.reduced, data.lengths)
    free, _ = resampled(data.reduced, data.counts, data.shares, start)
    thermal = GAS_CONSTANT * temperature
    bias = np.array([entry.window.energies(values, coordinate) / thermal for entry in samples])
    return -log_mixture(bias, counts, free)


class _Data:
    """Samples of all windows in a row, with the bias of every window at each.

    A sample of a window with the inefficiency g counts 1/g; `counts` are independent samples.
    """

    def __init__(self, samples: Sequence[WindowSamples], coordinate: Coordinate, temperature: float):
        self._period = coordinate.period
        chosen = [entry.spaced for entry in samples]
        self.lengths = np.array([len(values) for values in chosen])
        self.counts = np.array([entry.independent for entry in samples])
        self.shares = np.repeat(self.counts / self.lengths, self.lengths)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.values = np.concatenate(chosen)
        thermal = GAS_CONSTANT * temperature
        self.reduced = np.array(
            [entry.window.energies(self.values, coordinate) / thermal for entry in samples]
        )

    def places(self, low: float) -> np.ndarray:
        """Values, those of a circle from its beginning on."""
        if not self._period:
            return self.values
        return low + np.mod(self.values - low, self._period)

    def drawn(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """How often each sample is drawn, as many of each window as are independent."""
        counts = np.maximum(1, np.round(self.counts)).astype(int)
        parts = [
            generator.multinomial(count, np.full(length, 1.0 / length))
            for count, length in zip(counts, self.lengths, strict=True)
        ]
        return np.concatenate(parts), counts

    def part(self, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Samples between two fractions of each window's time, and the sum of what they count in each."""
        inside = np.zeros(len(self.values))
        counts = np.zeros(len(self.counts))
        for k, length in enumerate(self.lengths):
            first, last = self._starts[k] + round(begin * length), self._starts[k] + round(end * length)
            inside[first:last] = self.shares[first:last]
            counts[k] = inside[first:last].sum()
        if not counts.all():
            raise ConfigError("samples of every window in each part", "none in one", "run longer")
        return inside, counts


def _at_least_counted(
    errors: np.ndarray,
    places: np.ndarray,
    shares: np.ndarray,
    edges: np.ndarray,
    reference: int,
    temperature: float,
) -> np.ndarray:
    """Errors no smaller than those of counting, kT sqrt(1/n + 1/n_0): few samples resample to few values."""
    counts, _ = np.histogram(places, edges, weights=shares)
    with np.errstate(divide="ignore"):
        least = GAS_CONSTANT * temperature * np.sqrt(1 / counts + 1 / counts[reference])
    least[reference] = 0.0
    return np.where(np.isfinite(errors), np.maximum(errors, least), errors)


def _range(
    windows: Sequence[Window], coordinate: Coordinate, pairs: Sequence[tuple[int, int]]
) -> tuple[float, float]:
    if len(pairs) == len(windows):
        half = 0.5 * coordinate.period
        return -half, half
    return windows[0].centre, windows[-1].centre


def _gaps(
    samples: Sequence[WindowSamples],
    pairs: Sequence[tuple[int, int]],
    overlap: np.ndarray,
    coordinate: Coordinate,
    temperature: float,
    least: float,
) -> tuple[tuple[tuple[float, float, float], ...], tuple[Window, ...]]:
    """Neighbours that hardly overlap, and a window for each such pair."""
    gaps: list[tuple[float, float, float]] = []
    missing: list[Window] = []
    number = 1 + max(entry.window.number for entry in samples)
    for first, last in pairs:
        mutual = min(overlap[first, last], overlap[last, first])
        shared = _shared(samples[first], samples[last], mutual, coordinate)
        if shared >= least:
            continue
        left, right = samples[first], samples[last]
        gaps.append((left.window.centre, right.window.centre, shared))
        sides = [
            Sampled(side.window, float(side.values.mean()), float(side.values.std()))
            for side in (left, right)
        ]
        missing += windows_between(sides[0], sides[1], coordinate, temperature, number + len(missing))
    return tuple(gaps), tuple(missing)


def _shared(left: WindowSamples, right: WindowSamples, overlap: float, coordinate: Coordinate) -> float:
    """Overlap of two neighbours: by their biases, or as far as their samples reach, whichever is less.

    Windows that have slid off a barrier to different sides have biases alike and no samples in common: to
    MBAR they are one state that jumps.
    """
    apart = abs(float(coordinate.apart(right.values.mean(), left.values.mean())))
    reach = float(left.values.std() + right.values.std())
    # Of two Gaussians whose means are this many widths apart.
    return min(float(overlap), math.erfc(apart / (math.sqrt(2) * reach)) if reach > 0 else 0.0)


def _block_test(blocks: np.ndarray, error: float) -> tuple[float, float]:
    """Standard error of the whole from the scatter of its parts, and how likely that is for a known error."""
    known = blocks[np.isfinite(blocks)]
    if len(known) < len(blocks) or not error > 0:
        return math.nan, math.nan
    variance = float(known.var(ddof=1)) / len(known)
    return math.sqrt(variance), float(chi2.sf((len(known) - 1) * variance / error**2, len(known) - 1))


def _empty(profile: Profile) -> list[list[float]]:
    """Ranges of the profile without a sample: first and last place of each."""
    found = []
    start = None
    for k, value in enumerate([*profile.values, 0.0]):
        if not math.isfinite(value) and start is None:
            start = k
        elif math.isfinite(value) and start is not None:
            found.append([float(profile.edges[start]), float(profile.edges[k])])
            start = None
    return found


def result_facts(result: UmbrellaResult) -> dict[str, Any]:
    """All numbers of a result but the samples, for a record."""
    profile = result.profile
    barrier = profile.barrier
    places = profile.centres
    marks = profile.landmarks
    return {
        "variable": result.coordinate.name,
        "unit": result.coordinate.unit,
        "temperature": profile.temperature,
        "barrier": None if barrier is None else list(barrier),
        "reaction": list(profile.reaction),
        "error": result.error,
        "reactant": places[marks.reactant],
        "product": places[marks.product],
        "transition_state": None if marks.transition_state is None else places[marks.transition_state],
        "forward": result.forward.tolist(),
        "backward": result.backward.tolist(),
        "fractions": list(result.fractions),
        "empty": _empty(profile),
        "blocks": result.blocks.tolist(),
        "block_error": result.block_error,
        "block_probability": result.block_probability,
        "overlap": result.overlap.tolist(),
        "least_overlap": result.least_overlap,
        "gaps": [list(gap) for gap in result.gaps],
        "missing": [window.facts() for window in result.missing],
        "windows": [
            entry.window.facts()
            | {
                "samples": len(entry.values),
                "independent": entry.independent,
                "dropped": entry.dropped,
                "inefficiency": entry.inefficiency,
                "mean": float(entry.values.mean()),
                "deviation": float(entry.values.std()),
            }
            for entry in result.samples
        ],
    }
