"""Models in the field of charges: small ones that keep the contract, for the engine to be tested with."""

from __future__ import annotations

from typing import Optional

import torch

from mlmm.potentials import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.structures import Structure, minimum_image
from mlmm.units import COULOMB

ELEMENTS = (1, 6, 8)


def field_spec(external: str, **facts) -> PotentialSpec:
    facts = {"charges": True, "per_atom": False, "long_range": True, "external": external} | facts
    if external == "charges":
        facts.setdefault("polarisation_range", 0.5)
    return PotentialSpec("field", ELEMENTS, 0.4, float("inf"), "total", **facts)


def _distances(x: torch.Tensor, cell: Optional[torch.Tensor]) -> torch.Tensor:
    """Distances of all pairs; 1 nm on the diagonal."""
    vectors = minimum_image(x.unsqueeze(0) - x.unsqueeze(1), cell)
    same = torch.eye(x.shape[0], dtype=x.dtype)
    return (vectors.square().sum(2) + same).sqrt()


class EquilibratedModule(torch.nn.Module):
    """min over q, sum q = Q, of sum (chi + phi) q + ½ J q² + ½ sum K/sqrt(r² + w²) q q; less ½ alpha |∇phi|².

    `shown` is a factor on the dipoles that it tells of: 1 for a sound model.
    """

    def __init__(self, numbers: list[int], charge: int = 0, alpha: float = 1e-5, shown: float = 1.0):
        super().__init__()
        z = torch.tensor(numbers, dtype=torch.float64)
        self.register_buffer("chi", -20.0 * z)
        self.register_buffer("hardness", 1000.0 + 100.0 * z)
        self.charge, self.coulomb, self.alpha, self.shown = float(charge), COULOMB, alpha, shown

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        n = positions.shape[0]
        nothing = torch.zeros(n, 3, 3, dtype=torch.float64)
        energies = self.in_potential(positions, cell, nothing[:, 0, 0], nothing[:, 0], nothing)[0]
        return energies if centres is None else energies.index_select(1, centres)

    @torch.jit.export
    def in_potential(
        self,
        positions: torch.Tensor,
        cell: Optional[torch.Tensor],
        potential: torch.Tensor,
        gradient: torch.Tensor,
        curvature: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        n = positions.shape[0]
        r = _distances(positions, cell)
        same = torch.eye(n, dtype=torch.float64)
        matrix = (1.0 - same) * self.coulomb / (r.square() + 0.04).sqrt() + torch.diag(self.hardness)
        given = self.chi + potential
        ones = torch.ones(n, dtype=torch.float64)
        solved = torch.linalg.solve(matrix, torch.stack([given, ones], 1))
        level = (self.charge + solved[:, 0].sum()) / solved[:, 1].sum()
        q = level * solved[:, 1] - solved[:, 0]
        dipoles = -self.alpha * gradient
        springs = 50.0 * ((1.0 - same) * torch.exp(-r.square() / 0.02)).sum(1)
        energies = (given + 0.5 * (matrix @ q)) * q + 0.5 * (dipoles * gradient).sum(1) + springs
        return energies.unsqueeze(0), q, self.shown * dipoles, torch.zeros_like(curvature)


class Equilibrated:
    """Charges by equilibration in the potential of charges around."""

    def __init__(self, **facts):
        self.spec = field_spec("potential", **facts)

    def scriptable(self, numbers, centres=None, charge=0):
        return EquilibratedModule(list(numbers), charge)

    def around(self, structure: Structure):
        """Potential of the charges, its gradient and second derivatives."""
        external = structure.external
        between = external.positions.unsqueeze(0) - structure.positions.unsqueeze(1)
        vectors = minimum_image(between, structure.cell)
        return potential_of_charges(vectors, external.charges, external.width)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        check_state(self.spec, structure)
        module = EquilibratedModule(structure.numbers.tolist(), structure.charge)
        if structure.external is None:
            nothing = torch.zeros(len(structure), 3, 3, dtype=torch.float64)
            around = (nothing[:, 0, 0], nothing[:, 0], nothing)
        else:
            around = self.around(structure)
        members, *multipoles = module.in_potential(structure.positions, structure.cell, *around)
        return AtomEnergies(members[0], None, *multipoles)


class PolarisedModule(torch.nn.Module):
    """Charges that follow the bonds, and dipoles that charges within 0.5 nm induce."""

    def __init__(self, numbers: list[int], charge: int = 0, reach: float = 0.5):
        super().__init__()
        self.register_buffer("strength", 0.02 * torch.tensor(numbers, dtype=torch.float64))
        self.charge, self.reach = float(charge), reach

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        none = torch.zeros(0, dtype=torch.float64)
        energies = self.in_field(positions, cell, positions[:0], none, 0.0)[0]
        return energies if centres is None else energies.index_select(1, centres)

    @torch.jit.export
    def in_field(
        self,
        positions: torch.Tensor,
        cell: Optional[torch.Tensor],
        external_positions: torch.Tensor,
        external_charges: torch.Tensor,
        charge_width: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        n = positions.shape[0]
        near = torch.exp(-_distances(positions, cell).square() / 0.02)
        near = near * (1.0 - torch.eye(n, dtype=torch.float64))
        raw = near @ self.strength
        charges = raw - (raw.sum() - self.charge) / n
        vectors = minimum_image(external_positions.unsqueeze(0) - positions.unsqueeze(1), cell)
        weights = (1.0 - vectors.square().sum(2) / self.reach**2).clamp(min=0.0).pow(3) * external_charges
        dipoles = 0.02 * (vectors * weights.unsqueeze(2)).sum(1)
        energies = 50.0 * near.sum(1) + 3e4 * dipoles.square().sum(1)
        return energies.unsqueeze(0), charges, dipoles, torch.zeros(n, 3, 3, dtype=torch.float64)


class Polarised:
    """A model that sees charges within 0.5 nm."""

    def __init__(self, **facts):
        self.spec = field_spec("charges", **facts)

    def scriptable(self, numbers, centres=None, charge=0):
        return PolarisedModule(list(numbers), charge)

    def coulomb(self, multipoles, vectors, external):
        """Coulomb energy of the atoms with the charges."""
        around = potential_of_charges(vectors, external.charges, external.width)
        return multipole_energies(*multipoles, *around)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        check_state(self.spec, structure)
        module = PolarisedModule(structure.numbers.tolist(), structure.charge)
        x, cell, external = structure.positions, structure.cell, structure.external
        if external is None:
            members, *multipoles = module.in_field(x, cell, x[:0], x.detach()[:0, 0], 0.0)
            return AtomEnergies(members[0], None, *multipoles)
        members, *multipoles = module.in_field(x, cell, external.positions, external.charges, external.width)
        vectors = minimum_image(external.positions.unsqueeze(0) - x.unsqueeze(1), cell)
        return AtomEnergies(members[0] + self.coulomb(multipoles, vectors, external), None, *multipoles)
