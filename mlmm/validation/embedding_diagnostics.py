"""Whether an embedded region is what its sums are made for, in one structure: figures with limits.

The error of an embedding is one of the response: a wrong difference of the potential between atoms gives
wrong forces even where the energy is right. So the potential at the atoms is compared with that of a sum ten
times as accurate, beside the energy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mlmm.build import BuiltSystem
from mlmm.check_report import CheckReport, CheckResult
from mlmm.electrostatics.embedded_region import CHARGE_WIDTH, EmbeddedRegion
from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.electrostatics.reaction_field import WATER_PERMITTIVITY
from mlmm.hybrid.region_checks import check_embedding, net_charge
from mlmm.hybrid.spec import atomic_numbers, built_cell
from mlmm.potentials.base import PotentialModel, field_module
from mlmm.zones.region import Region
from mlmm.zones.static import hard_zones

__all__ = ["embedding_diagnostics"]

_POTENTIAL_ERROR = 0.42  # kJ/mol/e: 0.1 kcal/mol, times charges that follow the atoms it is a force of 1 %
_REACTION_FIELD_ERROR = 8.4  # kJ/mol/e: 2 kcal/mol; in equilibrated water it is 2 to 3
_FAR_CHARGE, _FAR_DIPOLE = 0.3, 0.2  # e and e nm: q far from q0, a region that reacted


def embedding_diagnostics(
    built: BuiltSystem,
    region: Region,
    potential: PotentialModel,
    positions: np.ndarray | None = None,
    *,
    charge: int | None = None,
    charge_width: float = CHARGE_WIDTH,
    far_field: str = "ewald",
    far_permittivity: float | None = None,
) -> CheckReport:
    """Figures of an embedded region in one structure.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
        Whole molecules.
    potential : PotentialModel
        One that takes charges around it.
    positions : ndarray, shape (N, 3), nm, optional
        Those that were built by default.
    charge : int, optional
        Of the region, e; that of the force field by default.
    charge_width : float
        Of the Gaussian charges, nm.
    far_field : {"ewald", "reaction_field"}
        The latter is compared with Ewald's sum.
    far_permittivity : float, optional
        Of the medium beyond a reaction field; that of water by default.

    Raises
    ------
    EmbeddingError, PotentialError
        A region or a potential that cannot be embedded.
    """
    zones = hard_zones(built, region)
    total = net_charge(built, zones, None) if charge is None else charge
    check_embedding(built, zones, potential, total)
    inside, cell = list(zones.core), built_cell(built)
    model = field_module(potential, atomic_numbers(built, inside), total)
    module = EmbeddedRegion(
        model,
        inside,
        read_charges(built.system).charge,
        potential.spec.polarisation_range,
        total,
        cell,
        charge_width=charge_width,
        far_field=far_field,
        far_permittivity=WATER_PERMITTIVITY if far_permittivity is None else far_permittivity,
    )
    where = torch.tensor(built.positions if positions is None else np.asarray(positions, dtype=np.float64))
    return CheckReport((*_charges(module, where, cell), *_sums(module, where, cell)))


def _charges(module: EmbeddedRegion, where: torch.Tensor, cell: torch.Tensor | None) -> list[CheckResult]:
    """What the model's charges are beside the fixed ones that PME carries."""
    with torch.no_grad():
        charges, dipoles, _ = module.multipoles(where, cell)
    excess = charges - module.reference
    r = where[module.atoms] - where[module.atoms[0]]
    dipole = float(((excess.unsqueeze(1) * r) + dipoles).sum(0).norm())
    error = abs(float(excess.sum()))
    limit = 1e-6 if module.reference.dtype == torch.float64 else 1e-5
    largest = float(excess.abs().max())
    return [
        CheckResult("sum of q − q0", error, "e", limit=limit, passed=error <= limit),
        CheckResult("rms of q − q0", float(excess.square().mean().sqrt()), "e"),
        _judged("largest |q − q0|", largest, "e", _FAR_CHARGE, "harmless for Ewald insertion; a reaction?"),
        _judged("dipole of q − q0 and mu", dipole, "e nm", _FAR_DIPOLE, "harmless for Ewald insertion"),
    ]


def _sums(module: EmbeddedRegion, where: torch.Tensor, cell: torch.Tensor | None) -> list[CheckResult]:
    """The potential at the atoms, the sum that gives it, and its errors."""
    x = where.clone().requires_grad_(True)
    energy = module(x, cell)
    (gradient,) = torch.autograd.grad(energy, x)
    forces = gradient.norm(dim=1)
    net = float(gradient.sum(0).norm()) / max(float(forces.max()), 1e-12)
    sum_ = module.insertion
    region, sources = where[module.atoms], where[module.outside]
    with torch.no_grad():
        potential = sum_.potentials(region, sources, cell)[1]
    rows = [
        CheckResult("spread of the potential over the atoms", float(potential.std()), "kJ/mol/e"),
        CheckResult("net force / largest force", net, "", limit=1e-4, passed=net <= 1e-4),
    ]
    if cell is None:
        return rows
    ewald = isinstance(sum_, EwaldInsertion)
    tolerance = 0.1 * sum_.tolerance if ewald else 1e-4
    fine = EwaldInsertion(sum_.reference, sum_.external, cell, tolerance, width=sum_.width)
    with torch.no_grad():
        change = fine.potentials(region, sources, cell)[1] - potential
        multipoles = module.multipoles(where, cell)
        finer = fine(region, sources, *multipoles, cell) - sum_(region, sources, *multipoles, cell)
    error, step = float(change.std()), abs(float(finer.sum()))
    better = "at a tenth of the tolerance" if ewald else "by Ewald's sum"
    limit = _POTENTIAL_ERROR if ewald else _REACTION_FIELD_ERROR
    if ewald:
        cutoff = sum_.cutoff(cell)
        rows += [
            CheckResult("cutoff of the direct sum", cutoff, "nm"),
            CheckResult("longest wave vector", sum_.bandwidth / cutoff, "1/nm"),
            CheckResult("waves of the reciprocal sum", float(len(sum_.waves(cell))), ""),
        ]
    else:
        rows.append(CheckResult("range of the reaction field", sum_.range, "nm"))
    return [
        *rows,
        CheckResult(
            f"spread of the potential {better} less that",
            error,
            "kJ/mol/e",
            limit=limit,
            passed=error <= limit,
        ),
        CheckResult(f"energy {better} less that", step, "kJ/mol"),
    ]


def _judged(name: str, value: float, unit: str, usual: float, remark: str) -> CheckResult:
    """A figure that is no fault, with a remark where it is unusual."""
    row = CheckResult(name, value, unit)
    return replace(row, detail=f"above {usual:g} {unit}, {remark}") if value > usual else row
