"""Error of the reaction field against Ewald's sum, of a solute embedded in water: the guide's figures.

    python -m benchmarks.reaction_field [SMILES CHARGE]

run in `tests/`: ten frames of molecular dynamics at 300 K (force field, TIP3P), 0.6 ps apart. Norms of the
differences of forces, as shares of what the water does to the solute by Coulomb's law and polarisation, of
the part of it that is inserted beyond the fixed charges, and of the inserted part of the forces on the water.
"""

from __future__ import annotations

import sys

import numpy as np
import openmm
import torch
from openmm import unit

import mlmm
from mlmm.build import build_system
from mlmm.electrostatics.embedded_region import EmbeddedRegion
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.potentials.base import field_module
from mlmm.schemes import FAR_FIELDS

NAMES = (
    "on the solute, % of all from the water",
    "on the solute, % of the inserted part",
    "on the water, % of the inserted part",
    "spread of the potential, kJ/mol/e",
    "energy, kJ/mol",
)


def forces(module: torch.nn.Module, where: torch.Tensor, cell: torch.Tensor | None) -> tuple:
    """Energy, kJ/mol, and forces, kJ/mol/nm."""
    x = where.clone().requires_grad_(True)
    energy = module(x, cell).sum()
    return float(energy.detach()), -torch.autograd.grad(energy, x)[0]


def errors(smiles: str, charge: int, frames: int = 10) -> np.ndarray:
    """Rows of `NAMES` for each frame."""
    built = build_system(smiles=smiles, padding="1.2 nm", constraints="hbonds")
    inside = [atom.index for atom in next(built.topology.residues()).atoms()]
    amp = mlmm.load_potential("amp-bms", precision="float64")
    model, cell = field_module(amp, built.numbers[inside], charge), torch.tensor(built.box_vectors)
    common = (model, inside, read_charges(built.system).charge, amp.spec.polarisation_range, charge, cell)
    ewald, field = (EmbeddedRegion(*common, far_field=kind) for kind in FAR_FIELDS)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.002)
    integrator.setRandomNumberSeed(3)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(built.system, integrator, platform, {"Threads": "1"})
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(300, 3)
    integrator.step(1500)
    rows = []
    for _ in range(frames):
        integrator.step(300)
        where = torch.tensor(context.getState(positions=True).getPositions(asNumpy=True)._value)
        (energy, exact), (other, found) = forces(ewald, where, cell), forces(field, where, cell)
        inserted = exact[inside] - forces(lambda x, _: model(x, None), where[inside], None)[1]
        around = where[inside], where[ewald.outside], cell
        _, potential, slope, _ = (part.detach() for part in ewald.insertion.potentials(*around))
        change = field.insertion.potentials(*around)[1].detach() - potential
        whole = inserted - ewald.insertion.reference.unsqueeze(1) * slope
        off, outside = found - exact, ewald.outside
        shares = [off[inside].norm() / whole.norm(), off[inside].norm() / inserted.norm()]
        shares.append(off[outside].norm() / exact[outside].norm())
        rows.append([*(100 * float(share) for share in shares), float(change.std()), other - energy])
    return np.array(rows)


if __name__ == "__main__":
    chosen = [(sys.argv[1], int(sys.argv[2]))] if sys.argv[1:] else [("CC(=O)[O-]", -1), ("CC(=O)NC", 0)]
    for solute, total in chosen:
        measured = errors(solute, total)
        for name, column in zip(NAMES, measured.T, strict=True):
            print(f"{solute}: {name}: {column.mean():.2g} ± {column.std(ddof=1):.2g}")
