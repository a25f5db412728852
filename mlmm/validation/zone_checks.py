"""Checks of zones: boundary error, tail force of the pairs, double counting, atoms by lambda."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mlmm.blending.functions import short_range_inverse, switching_function
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.check_report import CheckReport, CheckResult, aligned
from mlmm.dynamics.lambda_histogram import lambda_histogram
from mlmm.electrostatics.predicted_charges import ChargedBlend
from mlmm.forcefield.reference_platform import forces_of, potential_of, reference_context
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.spec import SWITCHING_START, built_cell, visible_atoms
from mlmm.hybrid.system import HybridSystem
from mlmm.pair_formulas import lennard_jones
from mlmm.units import COULOMB
from mlmm.validation.boundary_error import BONDED_REACH, BoundaryError, boundary_error, neighbours_of
from mlmm.validation.double_counting import DoubleCounting, double_counting

__all__ = ["TailForce", "check_zones", "tail_force"]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@dataclass(frozen=True)
class TailForce:
    """Force of the pairs within the range of the potential that the force field keeps there.

    Parameters
    ----------
    atoms : tuple of int
        lambda = 1.
    tail : ndarray, shape (n, 3), kJ/mol/nm
    remaining : ndarray, shape (n, 3), kJ/mol/nm
        The same with all that lies beyond that range: the whole force of the force field where the potential
        owns everything. In a polar solvent the two parts cancel for the larger part.
    forces : ndarray, shape (n, 3), kJ/mol/nm
        All forces on the same atoms.
    """

    atoms: tuple[int, ...]
    tail: np.ndarray
    remaining: np.ndarray
    forces: np.ndarray

    @property
    def rms(self) -> float:
        """Root mean square of `tail` over the components, kJ/mol/nm."""
        return _rms(self.tail)

    @property
    def rms_remaining(self) -> float:
        """Of `remaining`, kJ/mol/nm."""
        return _rms(self.remaining)

    @property
    def percent(self) -> float:
        """`rms` in per cent of the rms force on the same atoms."""
        return 100.0 * self.rms / _rms(self.forces)

    @property
    def percent_remaining(self) -> float:
        """`rms_remaining` in per cent of the rms force on the same atoms."""
        return 100.0 * self.rms_remaining / _rms(self.forces)


def tail_force(
    hybrid: HybridSystem,
    positions: np.ndarray | None = None,
    box_vectors: np.ndarray | None = None,
    *,
    short_range: Callable[[torch.Tensor, float], torch.Tensor] = short_range_inverse,
) -> TailForce:
    """Force of what remains of the pairs within r_off where the potential owns everything.

    V_tail = K q q (1/r − s(r)) + (1 − f) V_LJ, over all pairs of an atom with lambda = 1 and a visible
    one. No identity of the blend sees it: every one of them holds for any switching function, also for one
    that pushes atoms apart.

    Parameters
    ----------
    hybrid : HybridSystem
        Of scheme ``per_atom``.
    positions : ndarray, shape (N, 3), nm, optional
        The built structure by default.
    box_vectors : ndarray, shape (3, 3), nm, optional
    short_range : callable
        s(r, r_off), what the potential takes of 1/r.
    """
    built = hybrid.built
    where = np.asarray(built.positions if positions is None else positions)
    x, cell = torch.tensor(where), None
    if built.periodic:
        cell = torch.tensor(np.asarray(built.box_vectors if box_vectors is None else box_vectors))
    tables = read_mm_tables(built.system, keep=hybrid.keep)
    r_off = float(hybrid.potential.spec.cutoff)
    core = list(hybrid.zones.core)
    visible = visible_atoms(built, hybrid.potential.spec)
    first, second, vectors = neighbours_of(x, cell, r_off, core)
    seen = torch.tensor(visible)[second]
    first, second, vectors = first[seen], second[seen], vectors[seen]
    i, j = first.numpy(), second.numpy()
    charge, sigma, epsilon, own = tables.pair_parameters(i, j)
    r = vectors.norm(dim=1).requires_grad_(True)
    wells = lennard_jones(r, torch.tensor(sigma), torch.tensor(epsilon))
    wells = wells * (1.0 - switching_function(r, SWITCHING_START * r_off, r_off))
    if tables.switch is not None and tables.switch < r_off:
        wells = wells * torch.where(
            torch.tensor(own), 1.0, switching_function(r, tables.switch, tables.cutoff)
        )

    def tail_of(taken: torch.Tensor) -> np.ndarray:
        energies = wells + COULOMB * torch.tensor(charge) * (1.0 / r - taken)
        (slope,) = torch.autograd.grad(energies.sum(), r, retain_graph=True)
        tail = torch.zeros(built.n_atoms, 3, dtype=torch.float64)
        return tail.index_add(0, first, (slope / r.detach()).unsqueeze(1) * vectors)[core].numpy()

    tail, split = tail_of(short_range(r, r_off)), tail_of(short_range_inverse(r, r_off))
    mm_forces = forces_of(reference_context(built.system, box_vectors), where)
    near = set(neighbours_of(x, cell, max(r_off, BONDED_REACH), core)[1].tolist()) | set(core)
    wide = [atom for atom in sorted(near) if visible[atom]]
    energies = ShortRangeEnergies(tables, wide, visible, SWITCHING_START * r_off, r_off)
    (gradient,) = torch.autograd.grad(energies(x.requires_grad_(True), cell).sum(), x)
    remaining = mm_forces[core] + gradient[core].numpy() + tail - split
    forces = forces_of(reference_context(hybrid.system, box_vectors), where)
    return TailForce(hybrid.zones.core, tail, remaining, forces[core])


def check_zones(
    hybrid: HybridSystem, *, images: float = 1e-8, progress: Callable[[str], None] | None = None
) -> CheckReport:
    """Boundary error, tail force, double counting and atoms by lambda, where they have a meaning.

    Static zones under scheme ``per_atom``:

    - boundary error: how much the forces on the region differ from those with the potential on all atoms,
      in all and by depth, see `boundary_error`; shown, without a limit;
    - tail force: see `tail_force`; shown, without a limit: a built structure may have next to no force to
      compare with. At 300 K it is some 5 % in all; in water the pairs within the range alone have twice as
      much, most of which what lies beyond cancels.

    Static zones under ``per_atom`` and ``supermolecular``:

    - energy balance: E − [E_MM − sum of W_t f_t V_t + energy of the model], zero if no interaction is counted
      twice or left out, see `double_counting`.

    Atoms by lambda are listed wherever there is a smooth zone.

    Parameters
    ----------
    hybrid : HybridSystem
    images : float
        kJ/mol, rounding of an energy of 1e5 kJ/mol.
    progress : callable, optional
        Called with a line of text at the start of each part.
    """
    progress = progress or (lambda text: None)
    moving = hybrid.zones.moves
    results: list[CheckResult] = []
    tables: list[str] = []
    if hybrid.scheme == "per_atom" and not moving:
        progress("boundary error")
        error = boundary_error(hybrid)
        detail = f"largest {error.largest:.3g} kJ/mol/nm; exact on {error.exact} of {len(error.atoms)} atoms"
        results.append(
            CheckResult("boundary error on the region", error.percent, "% of rms F", detail=detail)
        )
        tables.append(_depth_table(error))
        if hybrid.zones.core:
            progress("tail force")
            results += _tail_results(hybrid)
    if hybrid.scheme in ("per_atom", "supermolecular") and not moving:
        progress("double counting")
        classes = double_counting(hybrid)
        tables.append(str(classes))
        results.append(_energy_balance(hybrid, classes, images))
    if moving or hybrid.zones.transition or hybrid.scheme == "per_atom":
        progress("atoms by lambda")
        tables.append(str(lambda_histogram(hybrid)))
    return CheckReport(tuple(results), tuple(tables))


def _tail_results(hybrid: HybridSystem) -> list[CheckResult]:
    tail = tail_force(hybrid)
    near = f"pairs within {hybrid.potential.spec.cutoff:.2g} nm that stay MM, {tail.rms:.3g} kJ/mol/nm"
    far = f"all MM where the potential owns everything, {tail.rms_remaining:.3g} kJ/mol/nm"
    return [
        CheckResult("tail force on lambda = 1", tail.percent, "% of rms F", detail=near),
        CheckResult("with what lies beyond", tail.percent_remaining, "% of rms F", detail=far),
    ]


def _energy_balance(hybrid: HybridSystem, classes: DoubleCounting, images: float) -> CheckResult:
    """E − [E_MM − sum of W_t f_t V_t + energy of the model and of its charges], against a limit."""
    positions = hybrid.built.positions
    whole = potential_of(reference_context(hybrid.built.system), positions)
    blended = potential_of(reference_context(hybrid.system), positions)
    model = float(hybrid.region_energies(positions).energies.sum())
    if isinstance(hybrid.blend, ChargedBlend):
        device, box = hybrid.blend.visible.device, built_cell(hybrid.built)
        box = None if box is None else box.to(device)
        with torch.no_grad():
            model += float(hybrid.blend.charge_energy(torch.tensor(positions, device=device), box))
    missing = abs(blended - (whole - classes.given_up + model))
    limit = images * max(1.0, abs(whole) / 1e5, abs(model) / 1e5)
    return CheckResult("energy counted twice or lost", missing, "kJ/mol", limit, passed=missing < limit)


def _depth_table(error: BoundaryError) -> str:
    """Boundary error by distance from the boundary."""
    rows: list[tuple[str, ...]] = [("boundary error by depth / nm", "atoms", "rms", "largest atom")]
    for c in error.by_depth():
        name = f"> {c.low:g}" if c.high == np.inf else f"{c.low:g} – {c.high:g}" if c.low else f"< {c.high:g}"
        values = (f"{c.rms:.3g}", f"{c.largest:.3g}") if c.atoms else ("", "")
        rows.append((name, str(c.atoms), *values))
    return (
        aligned(rows)
        + "\nkJ/mol/nm on the built structure; depth: distance from the nearest atom with lambda < 1"
    )
