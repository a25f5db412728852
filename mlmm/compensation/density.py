"""Is the density flat across an adaptive zone? Its profile, and the compensation that it asks for."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mlmm.compensation.shells import binned, shell_volumes, volume_points
from mlmm.errors import ConfigError
from mlmm.statistics import statistical_inefficiency
from mlmm.units import GAS_CONSTANT, parse
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones
from mlmm.zones.compensation import Compensation

__all__ = ["DensityProfile", "density_profile", "distance_profile", "refined"]

logger = logging.getLogger(__name__)
_ROUNDING = 1e-9  # nm


@dataclass(frozen=True, eq=False)
class DensityProfile:
    """Number density of one kind of molecule, relative to its bulk, by distance and by lambda.

    Parameters
    ----------
    kind : str
    edges : ndarray, shape (n + 1,)
        Of the shells: distance from the nearest centre, nm.
    volumes : ndarray, shape (n,)
        nm³, mean over the frames.
    density, errors : ndarray, shape (n,)
        Relative to `bulk`, with standard errors.
    weight_edges : ndarray, shape (m + 1,)
        Of the bins of lambda: from an edge (excluded) to the next.
    weights : ndarray, shape (m,)
        Mean lambda in the volume of each bin.
    weight_density, weight_errors : ndarray, shape (m,)
        Density relative to `bulk` in the bins of lambda.
    bulk, bulk_error : float
        Molecules per nm³; the error is 0 where it was given.
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
        """Molecules up to the zone's outer end beyond those of the bulk or reference, as a share of them.

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

    def relative_to(self, reference: DensityProfile) -> DensityProfile:
        """Divided by another profile, that of the force field alone say; NaN where it is empty.

        Raises
        ------
        ConfigError
            Other shells, bins or molecules.
        """
        same = len(self.edges) == len(reference.edges) and len(self.weights) == len(reference.weights)
        same = same and np.allclose(self.edges, reference.edges) and self.kind == reference.kind
        if not same or not np.allclose(self.weight_edges, reference.weight_edges):
            raise ConfigError(
                "two profiles of the same molecules with the same edges",
                f"{len(self.weights)} shells of {self.kind} and others of {reference.kind}"
                if self.kind != reference.kind
                else f"{len(self.edges) - 1} and {len(reference.edges) - 1} shells",
                "compute both with the same arguments",
            )
        density, errors = _ratio(self.density, self.errors, reference.density, reference.errors)
        by_weight, spread = _ratio(
            self.weight_density, self.weight_errors, reference.weight_density, reference.weight_errors
        )
        return dataclasses.replace(
            self,
            density=density,
            errors=errors,
            weight_density=by_weight,
            weight_errors=spread,
            zone_error=float(np.hypot(self.zone_error, reference.zone_error)),
        )


def density_profile(
    zones: AdaptiveZones,
    frames: np.ndarray,
    boxes: np.ndarray,
    edges: Sequence[float],
    *,
    weight_edges: Sequence[float] = (0.0, 0.1, 0.5, 0.9, 1.0),
    kind: str | None = None,
    bulk: float | None = None,
    far: float | None = None,
    seed: int = 0,
) -> DensityProfile:
    """Number density of the molecules' anchors by their distance from the nearest centre, and by lambda.

    A shell is what lies between two unions of spheres. Around one centre and within half of the box its
    volume is 4/3 pi (b³ − a³); any other one is measured with seeded random points, in every frame anew since
    centres move. Standard errors are those of the mean of a correlated series, of the shell and the bulk
    together: in a closed box one has what the other lacks.

    Parameters
    ----------
    zones : AdaptiveZones
    frames : ndarray, shape (F, N, 3)
        Equally spaced in time, nm.
    boxes : ndarray, shape (3, 3) or (F, 3, 3)
        Box vectors, nm.
    edges : sequence of float
        Rising distances, nm.
    weight_edges : sequence of float
        Rising, from 0 to 1. A bin excludes its lower edge: molecules with lambda = 0 are in none.
    kind : str, optional
        Residue name of the molecules; needed where several kinds may enter.
    bulk : float, optional
        Molecules per nm³ to compare with; the density beyond `far` by default.
    far : float, optional
        nm; the outer end of the zone by default.
    seed : int
        Of the random points.

    Raises
    ------
    ConfigError
        No frames, edges that do not rise, a kind that is not there or not clear, or no room beyond `far`.
    """
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.shape[1:] != (zones.n_atoms, 3) or len(frames) < 2:
        raise ConfigError(
            f"frames of shape (F, {zones.n_atoms}, 3), two at least", str(frames.shape), "pass a trajectory"
        )
    cells = np.broadcast_to(np.asarray(boxes, dtype=np.float64), (len(frames), 3, 3))
    weights_of = AdaptiveWeights(zones)

    def measured() -> Iterable[tuple[torch.Tensor, torch.Tensor, np.ndarray]]:
        for positions, cell in zip(frames, cells, strict=True):
            where = torch.tensor(positions, dtype=torch.float64)
            yield weights_of.distances(where, torch.tensor(cell)), where[list(zones.centres)], cell

    return _profile(zones, measured(), len(frames), edges, weight_edges, kind, bulk, far, seed)


def distance_profile(
    zones: AdaptiveZones,
    distances: np.ndarray,
    box: np.ndarray,
    edges: Sequence[float],
    *,
    weight_edges: Sequence[float] = (0.0, 0.1, 0.5, 0.9, 1.0),
    kind: str | None = None,
    bulk: float | None = None,
    far: float | None = None,
    seed: int = 0,
) -> DensityProfile:
    """As `density_profile`, from the distances of the anchors alone: all that a zone around one centre needs.

    Parameters
    ----------
    zones : AdaptiveZones
        With one centre.
    distances : ndarray, shape (F, M)
        Of every molecule's anchor from the centre, nm; equally spaced in time.
    box : ndarray, shape (3, 3)
        Box vectors, nm, the same in all frames.
    edges, weight_edges, kind, bulk, far, seed
        As there; so are the errors, and a ConfigError for several centres.
    """
    distances = np.asarray(distances)
    if len(zones.centres) != 1:
        raise ConfigError("a zone around one centre", f"{len(zones.centres)} centres", "use density_profile")
    if distances.ndim != 2 or distances.shape[1] != len(zones.molecules) or len(distances) < 2:
        raise ConfigError(
            f"distances of shape (F, {len(zones.molecules)}), two frames at least",
            str(distances.shape),
            "pass those of all molecules of the zones",
        )
    cell, centre = np.asarray(box, dtype=np.float64), torch.zeros(1, 3, dtype=torch.float64)
    rows = ((torch.tensor(row, dtype=torch.float64).unsqueeze(1), centre, cell) for row in distances)
    return _profile(zones, rows, len(distances), edges, weight_edges, kind, bulk, far, seed)


def _profile(
    zones: AdaptiveZones,
    frames: Iterable[tuple[torch.Tensor, torch.Tensor, np.ndarray]],
    n_frames: int,
    edges: Sequence[float],
    weight_edges: Sequence[float],
    kind: str | None,
    bulk: float | None,
    far: float | None,
    seed: int,
) -> DensityProfile:
    """From the distances (M, centres), the centres (C, 3) and the box vectors of every frame."""
    shells, bins = np.asarray(edges, dtype=np.float64), np.asarray(weight_edges, dtype=np.float64)
    kind = _checked(zones, shells, bins, kind)
    far = zones.plateau + zones.width if far is None else float(far)
    weights_of = AdaptiveWeights(zones)
    mine = torch.tensor([m for m, name in enumerate(zones.kinds) if name == kind])
    generator = np.random.default_rng(seed)
    counts, spaces, moments = [], [], []
    measured: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    with torch.no_grad():
        for found, centres, cell in frames:
            distances, box = found.index_select(0, mine), torch.tensor(cell)
            counts.append(binned(weights_of, distances, None, shells, bins, far)[0])
            # Around one centre only the box can change the volumes.
            if measured is None or len(zones.centres) > 1 or (measured[0] != cell).any():
                points, volumes = volume_points(centres, box, shells, far, generator)
                measured = cell, *binned(weights_of, points, volumes, shells, bins, far)
                if len(zones.centres) == 1:
                    own = measured[1][: len(shells) - 1]
                    own[:] = shell_volumes(own, shells, box)
            spaces.append(measured[1])
            moments.append(measured[2])
    volumes, number = np.mean(spaces, axis=0), np.array(counts)
    if bulk is None and volumes[-1] <= 0:
        raise ConfigError(
            f"room for a bulk beyond {far:g} nm",
            "none in this box",
            "give bulk=…, or far=… nearer to the zone",
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        series = number / volumes
    reference = series[:, -1] if bulk is None else np.full(n_frames, float(bulk))
    level = float(reference.mean())
    relative = series.mean(axis=0) / level
    errors = [_error(series[:, k] - relative[k] * reference) / level for k in range(len(relative) - 1)]
    n = len(shells) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_weights = np.mean(moments, axis=0)[n:-1] / volumes[n:-1]
    inside = np.flatnonzero(shells[1:] <= zones.plateau + zones.width + _ROUNDING)
    whole_error = float("nan")
    if volumes[inside].sum() > 0:
        whole = number[:, inside].sum(axis=1) / volumes[inside].sum()
        whole_error = _error(whole - whole.mean() / level * reference) / level
    return DensityProfile(
        kind,
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
        n_frames,
        whole_error,
    )


def refined(
    compensation: Compensation,
    profile: DensityProfile,
    reference: DensityProfile | None = None,
    *,
    temperature: Any = "300 K",
    gain: float = 1.0,
    compressibility: float = 1.0,
) -> Compensation:
    """G_new(lambda) = G − gain·kT {ln[rho(lambda)/rho_ref(lambda)] + (1/chi − 1) s(lambda) ln(1 + excess)}.

    A molecule at lambda has the free energy W(lambda) = −kT ln(rho/rho_ref) beyond what it should have. Since
    it gets −G, adding W to G makes up for it: where the solvent is too dense G falls, and its energy rises.
    This is the thermodynamic force of AdResS in the form of an energy (Fritsch et al., Phys. Rev. Lett. 108,
    170602 (2012), doi 10.1103/PhysRevLett.108.170602). For molecules that do not feel each other, one
    step with gain 1 is exact. A dense liquid answers an energy by its structure factor: by about 1 over the
    distance of two molecules, by its reduced compressibility chi = rho kT kappa over longer ones. `excess`
    is that of the whole zone; its part of G rises where lambda does, from 0 to 1/2: s = y²(3 − 2y) with
    y = min(2 lambda, 1). Where trajectories are at hand,
    `mlmm.compensation.linear_response` measures the answer instead.

    The density is that of whole bins: G gets its correction at the mean lambda of each, straight in between,
    none at lambda = 0. Errors are those of the densities: W was measured under the old G, whose own error it
    takes back.

    Parameters
    ----------
    compensation : Compensation
        Under which the profile was sampled.
    profile : DensityProfile
    reference : DensityProfile, optional
        With the same edges, of a force field alone around the same solute, whose structure is no error of the
        zone; flat by default.
    temperature : str or float
        K.
    gain : float
        Share of the correction that is added.
    compressibility : float
        chi of the solvent: 1 for a gas, 0.06 to 0.09 for water.

    Raises
    ------
    ConfigError
        A kind without compensation, a bin of lambda without molecules, or a compressibility not above 0.
    """
    thermal = GAS_CONSTANT * parse(temperature, "temperature", "temperature")
    against = profile if reference is None else profile.relative_to(reference)
    ratio, error = against.weight_density, against.weight_errors
    if profile.kind not in compensation.alignment:
        raise ConfigError(
            f"a compensation for {profile.kind}",
            f"one for {', '.join(compensation.alignment)}",
            "choose another",
        )
    if not (np.isfinite(ratio).all() and np.isfinite(error).all() and (ratio > 0).all()):
        raise ConfigError(
            "molecules in every bin of lambda",
            f"relative densities {np.round(ratio, 2).tolist()}",
            "sample longer, or give wider weight_edges",
        )
    if not compressibility > 0:
        raise ConfigError("a compressibility above 0", str(compressibility), "write 0.06 for water")
    knots = np.asarray(compensation.knots, dtype=np.float64)
    places = np.array([0.0, *against.weights])
    correction = np.interp(knots, places, np.array([0.0, *(-gain * thermal * np.log(ratio))]))
    if compressibility != 1.0:
        rise = np.minimum(2 * knots, 1.0)
        broad = (1 / compressibility - 1) * rise**2 * (3 - 2 * rise)
        correction = correction - gain * thermal * np.log(1 + against.excess) * broad
    spread = np.interp(knots, places, np.array([0.0, *(thermal * error / ratio)]))
    old = np.asarray(compensation.values.get(profile.kind, np.zeros(len(knots))), dtype=np.float64)
    steps = int(compensation.facts.get("refinements", 0)) + 1
    return dataclasses.replace(
        compensation,
        values={**compensation.values, profile.kind: old + correction},
        errors={**compensation.errors, profile.kind: spread},
        facts={**compensation.facts, "refinements": steps},
    )


def _checked(zones: AdaptiveZones, shells: np.ndarray, bins: np.ndarray, kind: str | None) -> str:
    """The kind of molecule that is meant."""
    if len(shells) < 2 or shells[0] < 0 or (np.diff(shells) <= 0).any():
        raise ConfigError("edges that rise from 0 or more", str(shells.tolist()), "sort them")
    if len(bins) < 2 or bins[0] != 0 or bins[-1] != 1 or (np.diff(bins) <= 0).any():
        raise ConfigError("weight_edges that rise from 0 to 1", str(bins.tolist()), "write (0, 0.5, 1)")
    kinds = sorted(set(zones.kinds))
    if kind is None and len(kinds) == 1:
        return kinds[0]
    if kind not in kinds:
        raise ConfigError(f"kind = {' | '.join(kinds)}", repr(kind), "name one kind of molecule")
    return kind


def _error(series: np.ndarray) -> float:
    """Standard error of the mean of a correlated series."""
    if not np.isfinite(series).all():
        return float("nan")
    return float(series.std(ddof=1) * np.sqrt(statistical_inefficiency(series) / len(series)))


def _ratio(
    a: np.ndarray, a_error: np.ndarray, b: np.ndarray, b_error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """a/b and its standard error for independent a and b; an error where a is 0 stays."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(b > 0, a / b, np.nan)
        return ratio, np.hypot(a_error / b, ratio * b_error / b)
