"""The mean force of lambda on molecules of an adaptive zone: what drives them across it, bin by bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlmm.blending.adaptive import AdaptiveBlend
from mlmm.check_report import aligned
from mlmm.dynamics.frames import as_tensors, device_of
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem
from mlmm.statistics import statistical_inefficiency
from mlmm.units import BAR_NM3
from mlmm.zones.adaptive import AdaptiveZones
from mlmm.zones.compensation import Compensation, natural_spline

__all__ = ["MeanForce", "mean_and_error", "mean_force"]

_BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True, eq=False)
class MeanForce:
    """Mean force of lambda on one kind of molecule in bins of lambda; NaN where no molecule was.

    Parameters
    ----------
    kind : str
    edges : ndarray, shape (n + 1,)
        Of the bins of lambda, rising from 0 to 1.
    weights : ndarray, shape (n,)
        Mean lambda of the molecules in each bin.
    molecules : ndarray, shape (n,)
        Mean number of them in a frame.
    slope, slope_error : ndarray, shape (n,), kJ/mol
        <Delta − a − G'(lambda)>: what a molecule's energy gains per unit of lambda.
    force, force_error : ndarray, shape (n,), kJ/mol/nm
        The force that this exerts along the way out of the zone; above 0, molecules are driven out.
    expected, expected_error : ndarray, shape (n,), kJ/mol
        What `slope` is in the bulk by the calibration: 0, or what the pressure balances, see `mean_force`.
        The error is that with which `slope` may differ from it.
    n_frames : int
    """

    kind: str
    edges: np.ndarray
    weights: np.ndarray
    molecules: np.ndarray
    slope: np.ndarray
    slope_error: np.ndarray
    force: np.ndarray
    force_error: np.ndarray
    expected: np.ndarray
    expected_error: np.ndarray
    n_frames: int

    @property
    def sigmas(self) -> np.ndarray:
        """`slope` less `expected` in standard errors, (n,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.slope - self.expected) / np.hypot(self.slope_error, self.expected_error)

    @property
    def work(self) -> tuple[float, float]:
        """Integral of `slope` over lambda with its standard error: what drives a molecule out, kJ/mol.

        Bins are taken as independent; one without molecules makes it NaN.
        """
        widths = np.diff(self.edges)
        return float(widths @ self.slope), float(np.sqrt(widths**2 @ self.slope_error**2))

    def __str__(self) -> str:
        balanced = bool((self.expected != 0).any())
        head = ("in frames", "kJ/mol", "± s.e.", "kJ/mol/nm", "± s.e.", "expected", "sigma")
        rows: list[tuple[str, ...]] = [(f"drift force by lambda, {self.kind}", *head)]
        for k, sigma in enumerate(self.sigmas):
            name = f"{self.edges[k]:.2g} – {self.edges[k + 1]:.2g}"
            found = (self.slope[k], self.slope_error[k], self.force[k], self.force_error[k])
            numbers = (*found, self.expected[k], sigma)
            known = [f"{x:.2f}" if np.isfinite(x) else "" for x in numbers]
            rows.append((name, f"{self.molecules[k]:.2f}", *known))
        work, error = self.work
        text = (
            f"{aligned(rows)}\n{self.n_frames} frames; out of the zone in all {work:.2f} ± {error:.2f} kJ/mol"
        )
        return text + ("; expected: what balances the pressure of the bulk" if balanced else "")


def mean_force(
    hybrid: HybridSystem,
    frames: np.ndarray,
    boxes: np.ndarray | None = None,
    *,
    weight_edges: Sequence[float] = _BINS,
    kind: str | None = None,
) -> MeanForce:
    """Mean of −(Delta_m − a − G'(lambda_m)) d lambda_m/dr_m along the way out, in bins of lambda.

    The force of lambda on whole molecules with 0 < lambda < 1 (H-AdResS: Potestio et al., Phys. Rev. Lett.
    110, 108301 (2013), doi 10.1103/PhysRevLett.110.108301). It vanishes on average if G' = <Delta> − a,
    calibrated at constant pressure. Calibrated at constant density, G' also holds p'(lambda)/rho:
    <Delta − a − G'> is then −p'/rho, against the pressure that would drive molecules to where it is lower.
    This `expected` value is taken from the pressures that the compensation keeps; their errors are in G' as
    well and drop out of `slope` − `expected` = <Delta> here less <Delta> in the bulk, whose error is that of
    the calibration's <Delta>. It is 0 for a compensation without samples, and NaN for a refined one.

    Means are those over molecules, sum over frames divided by number over frames; errors those of a ratio
    of correlated series, one sample per frame.

    Parameters
    ----------
    hybrid : HybridSystem
        With an adaptive zone.
    frames : ndarray, shape (F, N, 3)
        Equally spaced in time, sampled with this system, nm.
    boxes : ndarray, shape (3, 3) or (F, 3, 3), optional
        Box vectors, nm; the built system's by default.
    weight_edges : sequence of float
        Rising, from 0 to 1; a bin includes its upper edge, but lambda = 1 has no force and is in none.
    kind : str, optional
        Residue name of the molecules; needed where several kinds may enter.

    Raises
    ------
    ConfigError
        A zone that does not move, charges that the potential predicts, no frames, edges that do not rise, or
        a kind that is not there or not clear.
    """
    frames, edges = np.asarray(frames), np.asarray(weight_edges, dtype=np.float64)
    zones, blend, kind = _checked(hybrid, frames, edges, kind)
    mine = np.array([name == kind for name in zones.kinds])
    cells = None
    if hybrid.built.periodic:
        vectors = hybrid.built.box_vectors if boxes is None else boxes
        cells = np.broadcast_to(np.asarray(vectors, dtype=np.float64), (len(frames), 3, 3))
    n = len(edges) - 1
    # By frame and bin: number, sum of lambda, of Delta − a − G', of the force.
    sums = np.zeros((4, len(frames), n))
    for k, positions in enumerate(frames):
        weights, slopes, forces = _of_frame(
            blend, zones.molecules, positions, None if cells is None else cells[k]
        )
        inside = mine & (weights > 0) & (weights < 1)
        place = np.searchsorted(edges, weights[inside], side="left") - 1
        for row, values in enumerate((np.ones(len(weights)), weights, slopes, forces)):
            sums[row, k] = np.bincount(place, weights=values[inside], minlength=n)
    counts = sums[0]
    slope, slope_error = mean_and_error(sums[2], counts)
    force, force_error = mean_and_error(sums[3], counts)
    middles = mean_and_error(sums[1], counts)[0]
    return MeanForce(
        kind,
        edges,
        middles,
        counts.mean(axis=0),
        slope,
        slope_error,
        force,
        force_error,
        *_expected(hybrid.spec.compensation, middles),
        len(frames),
    )


def _checked(
    hybrid: HybridSystem, frames: np.ndarray, edges: np.ndarray, kind: str | None
) -> tuple[AdaptiveZones, AdaptiveBlend, str]:
    """The zone, the energy that knows its lambda, and the kind of molecule that is meant."""
    zones, blend = hybrid.zones, hybrid.blend
    if not isinstance(zones, AdaptiveZones):
        raise ConfigError("a zone that moves", "one that stays with its atoms", 'use kind = "adaptive"')
    if not isinstance(blend, AdaptiveBlend):
        raise ConfigError(
            "fixed charges", "charges that the potential predicts", 'write electrostatics = "mechanical"'
        )
    if frames.ndim != 3 or frames.shape[1:] != (zones.n_atoms, 3) or len(frames) < 2:
        raise ConfigError(
            f"frames of shape (F, {zones.n_atoms}, 3), two at least", str(frames.shape), "pass a trajectory"
        )
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or (np.diff(edges) <= 0).any():
        raise ConfigError("weight_edges that rise from 0 to 1", str(edges.tolist()), "write (0, 0.5, 1)")
    kinds = sorted(set(zones.kinds))
    if kind is None and len(kinds) == 1:
        return zones, blend, kinds[0]
    if kind is None or kind not in kinds:
        raise ConfigError(f"kind = {' | '.join(kinds)}", repr(kind), "name one kind of molecule")
    return zones, blend, kind


def _of_frame(
    blend: AdaptiveBlend,
    molecules: Sequence[Sequence[int]],
    positions: np.ndarray,
    cell: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """lambda, Delta − a − G'(lambda), and this times |d lambda/dr|, of every molecule, (M,) each."""
    device = device_of(blend)
    x, box = as_tensors(positions, cell, device)
    x.requires_grad_(True)
    weights = blend.zone_weights(x, box)
    (gradient,) = torch.autograd.grad(weights.sum(), x)
    # Only its own atoms and the centres, which belong to none, change the lambda of a molecule.
    owner = torch.tensor([m for m, atoms in enumerate(molecules) for _ in atoms], device=device)
    atoms = torch.tensor([atom for molecule in molecules for atom in molecule], device=device)
    whole = torch.zeros(len(molecules), 3, dtype=torch.float64, device=device)
    steepness = whole.index_add(0, owner, gradient[atoms]).norm(dim=1)
    lam = weights.detach().requires_grad_(True)
    (compensated,) = torch.autograd.grad(blend.compensation(lam).sum(), lam)
    with torch.no_grad():
        _, differences = blend.molecule_differences(x, box)
        slopes = differences + compensated
        found = (lam, slopes, slopes * steepness)
    first, second, third = (values.detach().cpu().numpy() for values in found)
    return first, second, third


def mean_and_error(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over sum for each bin, NaN without molecules, and its standard error from the correlated frames.

    Parameters
    ----------
    sums, counts : ndarray, shape (F, n)
        Of a quantity over the molecules of each frame and bin, and their number.
    """
    number = counts.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.mean(axis=0) / number
    errors = np.full(len(number), np.nan)
    for k in np.flatnonzero(number > 0):
        series = sums[:, k] - mean[k] * counts[:, k]
        errors[k] = series.std(ddof=1) * np.sqrt(statistical_inefficiency(series) / len(series)) / number[k]
    return mean, errors


def _expected(compensation: Compensation | None, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """−p'(lambda)/rho of a calibration at constant density, else 0; error of its <Delta> at these lambda."""
    facts = {} if compensation is None else compensation.facts
    if facts.get("refinements"):
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    samples = facts.get("samples")
    if not samples:
        return np.zeros(len(weights)), np.zeros(len(weights))
    knots = np.array([sample["weight"] for sample in samples])
    # A spline and its slope are linear in its values.
    unit = natural_spline(knots, np.eye(len(knots)))
    values, slopes = unit(weights).T, unit(weights, 1).T
    errors = np.sqrt(np.array([sample["difference_error"] for sample in samples]) ** 2 @ values**2)
    if facts.get("mode") != "density":
        return np.zeros(len(weights)), errors
    pressures = np.array([sample["pressure"] for sample in samples])
    return -BAR_NM3 / samples[0]["density"] * (pressures @ slopes), errors
