"""Density of a solvent around one point: its profile by distance and by lambda, with errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlmm.errors import ConfigError
from mlmm.statistics import statistical_inefficiency
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones

__all__ = ["DensityProfile", "distance_profile"]

_ROUNDING = 1e-9  # nm
_RADIAL_POINTS = 20_000


@dataclass(frozen=True, eq=False)
class DensityProfile:
    """Number density of one kind of molecule, relative to its bulk, by distance and by lambda.

    Parameters
    ----------
    kind : str
    edges : ndarray, shape (n + 1,)
        Of the shells: distance from the nearest centre, nm.
    volumes : ndarray, shape (n,)
        nm³.
    density, errors : ndarray, shape (n,)
        Relative to `bulk`, with standard errors.
    weight_edges : ndarray, shape (m + 1,)
        Of the bins of lambda: from an edge (excluded) to the next.
    weights : ndarray, shape (m,)
        Mean lambda in the volume of each bin.
    weight_density, weight_errors : ndarray, shape (m,)
        Density relative to `bulk` in the bins of lambda.
    bulk, bulk_error : float
        Molecules per nm³ beyond the zone.
    plateau, width : float
        Of the zone, nm.
    n_frames : int
    zone_error : float
        Standard error of the mean relative density of the shells up to plateau + width; NaN where unknown.
    """

    kind: str
    edges: np.ndarray
    volumes: np.ndarray
    density: np.ndarray
    errors: np.ndarray
    weight_edges: np.ndarray
    weights: np.ndarray
    weight_density: np.ndarray
    weight_errors: np.ndarray
    bulk: float
    bulk_error: float
    plateau: float
    width: float
    n_frames: int
    zone_error: float = float("nan")

    @property
    def middles(self) -> np.ndarray:
        """Middles of the shells, nm."""
        return 0.5 * (self.edges[:-1] + self.edges[1:])

    @property
    def excess(self) -> float:
        """Molecules up to the zone's outer end beyond those of the bulk, as a share of them.

        Raises
        ------
        ConfigError
            No shells there.
        """
        inside = (self.edges[1:] <= self.plateau + self.width + _ROUNDING) & np.isfinite(self.density)
        if not inside.any():
            raise ConfigError(
                "shells inside the zone", f"edges {self.edges.tolist()}", "give edges up to plateau + width"
            )
        volumes = self.volumes[inside]
        return float((volumes * self.density[inside]).sum() / volumes.sum()) - 1.0


def distance_profile(
    zones: AdaptiveZones,
    distances: np.ndarray,
    box: np.ndarray,
    edges: Sequence[float] | np.ndarray,
    weight_edges: Sequence[float] = (0.0, 0.1, 0.5, 0.9, 1.0),
) -> DensityProfile:
    """Number density of the molecules' anchors by their distance from the one centre, and by lambda.

    Relative to the density beyond the zone. Standard errors are those of the mean of a correlated series, of
    the shell and the bulk together: in a closed box one has what the other lacks.

    Parameters
    ----------
    zones : AdaptiveZones
        Around one centre, for one kind of molecule.
    distances : ndarray, shape (F, M)
        Of every molecule's anchor from the centre, nm; equally spaced in time.
    box : ndarray, shape (3, 3)
        Box vectors, nm, the same in all frames.
    edges : sequence of float
        Rising distances, nm, up to half of the box.
    weight_edges : sequence of float
        Rising, from 0 to 1. A bin excludes its lower edge: molecules with lambda = 0 are in none.

    Raises
    ------
    ConfigError
        Several centres or kinds, distances of other molecules or of one frame, edges that do not rise or
        leave the sphere that the box holds.
    """
    distances, cell = np.asarray(distances), np.asarray(box, dtype=np.float64)
    shells, bins = np.asarray(edges, dtype=np.float64), np.asarray(weight_edges, dtype=np.float64)
    _check(zones, distances, shells, bins, 0.5 * float(np.diag(cell).min()))
    far, weights_of = zones.plateau + zones.width, AdaptiveWeights(zones)
    points, amounts = _radial_points(cell)
    volumes, moments = _binned(weights_of, points, amounts, shells, bins, far)
    n = len(shells) - 1
    volumes[:n] = 4 / 3 * np.pi * np.diff(shells**3)
    once = np.ones(distances.shape[1])
    number = np.array([_binned(weights_of, row, once, shells, bins, far)[0] for row in distances])
    with np.errstate(divide="ignore", invalid="ignore"):
        series = number / volumes
        mean_weights = moments[n:-1] / volumes[n:-1]
    reference = series[:, -1]
    level = float(reference.mean())
    relative = series.mean(axis=0) / level
    errors = [_error(series[:, k] - relative[k] * reference) / level for k in range(len(relative) - 1)]
    inside = np.flatnonzero(shells[1:] <= far + _ROUNDING)
    whole_error = float("nan")
    if volumes[inside].sum() > 0:
        whole = number[:, inside].sum(axis=1) / volumes[inside].sum()
        whole_error = _error(whole - whole.mean() / level * reference) / level
    return DensityProfile(
        zones.kinds[0],
        shells,
        volumes[:n],
        relative[:n],
        np.array(errors[:n]),
        bins,
        mean_weights,
        relative[n:-1],
        np.array(errors[n:]),
        level,
        _error(reference),
        zones.plateau,
        zones.width,
        len(distances),
        whole_error,
    )


def _check(
    zones: AdaptiveZones, distances: np.ndarray, shells: np.ndarray, bins: np.ndarray, half: float
) -> None:
    """Refuse what has no profile; `half` of the box in nm."""
    kinds = sorted(set(zones.kinds))
    if len(zones.centres) != 1 or len(kinds) != 1:
        raise ConfigError(
            "a zone around one centre, for one kind of molecule",
            f"{len(zones.centres)} centres, kinds {', '.join(kinds)}",
            "measure the density around a point in a pure liquid",
        )
    if distances.ndim != 2 or distances.shape[1] != len(zones.molecules) or len(distances) < 2:
        raise ConfigError(
            f"distances of shape (F, {len(zones.molecules)}), two frames at least",
            str(distances.shape),
            "pass those of all molecules of the zones",
        )
    if len(shells) < 2 or shells[0] < 0 or (np.diff(shells) <= 0).any():
        raise ConfigError("edges that rise from 0 or more", str(shells.tolist()), "sort them")
    if len(bins) < 2 or bins[0] != 0 or bins[-1] != 1 or (np.diff(bins) <= 0).any():
        raise ConfigError("weight_edges that rise from 0 to 1", str(bins.tolist()), "write (0, 0.5, 1)")
    end = max(float(shells[-1]), zones.plateau + zones.width)
    if end > half + _ROUNDING:
        raise ConfigError(
            f"edges and zone up to {half:g} nm, half of the box", f"{end:g} nm", "give a larger box"
        )


def _radial_points(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of thin shells in the sphere that the box holds, and their volumes; the rest in one point."""
    total, half = abs(float(np.linalg.det(cell))), 0.5 * float(np.diag(cell).min())
    radii = np.linspace(0.0, half, _RADIAL_POINTS + 1)
    volumes = 4 / 3 * np.pi * np.diff(radii**3)
    return (
        np.append(0.5 * (radii[:-1] + radii[1:]), 2 * half),
        np.append(volumes, total - volumes.sum()),
    )


def _binned(
    weights_of: AdaptiveWeights,
    distances: np.ndarray,
    amounts: np.ndarray,
    shells: np.ndarray,
    bins: np.ndarray,
    far: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Amounts in shells, bins of lambda and beyond `far`, one after the other; the same times lambda."""
    nearest = np.asarray(distances, dtype=np.float64)
    weights = weights_of.at(torch.tensor(nearest).unsqueeze(1)).numpy()

    def sums(amounts: np.ndarray) -> np.ndarray:
        by_shell, _ = np.histogram(nearest, shells, weights=amounts)
        # Bins of lambda are closed above: turned round, lambda = 1 belongs to the last and 0 to none.
        inside = weights > 0
        by_weight, _ = np.histogram(-weights[inside], -bins[::-1], weights=amounts[inside])
        return np.concatenate([by_shell, by_weight[::-1], [amounts[nearest > far].sum()]])

    return sums(amounts), sums(amounts * weights)


def _error(series: np.ndarray) -> float:
    """Standard error of the mean of a correlated series."""
    if not np.isfinite(series).all():
        return float("nan")
    return float(series.std(ddof=1) * np.sqrt(statistical_inefficiency(series) / len(series)))
