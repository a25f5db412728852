"""Point charges around labelled structures: their potential at the atoms, and forces of multipoles on them.

While weights are fitted geometries stay as they are, so that the energy of charges q, dipoles mu and
traceless quadrupoles Q among point charges c at D = x_m − r_i is linear with constant coefficients,

    E = sum_i (q_i phi_i + mu_i·∇phi_i + Q_i:∇∇phi_i),

and so are the forces: dE/dD = K c [(−q − 3 (mu·D)/D² − 15 (D·Q·D)/D⁴) D + mu + 6 Q·D/D²]/D³. Lengths in
angstrom, energies in kJ/mol, charges in e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlmm.reference.labels import Molecule
from mlmm.units import ANGSTROM, COULOMB

__all__ = ["Surroundings", "surroundings_of"]

_COULOMB = COULOMB / ANGSTROM
#: Angstrom; places of the charges of zero that make rows equally long.
_FAR = 1e4


@dataclass(frozen=True)
class Surroundings:
    """Charges around B structures of N atoms each, in rows of equal length.

    Parameters
    ----------
    positions : torch.Tensor, shape (B, N, 3), float64, angstrom
    sources : torch.Tensor, shape (B, M, 3), float64, angstrom
    charges : torch.Tensor, shape (B, M), float64, e
        Zero where a structure has fewer.
    counts : torch.Tensor, shape (B,), int64
        Charges of each structure.
    potential, gradient, curvature : torch.Tensor, shapes (B, N), (B, N, 3), (B, N, 3, 3), float64
        At the atoms: kJ/mol/e, and per angstrom and angstrom²; the curvature has no trace.
    """

    positions: torch.Tensor
    sources: torch.Tensor
    charges: torch.Tensor
    counts: torch.Tensor
    potential: torch.Tensor
    gradient: torch.Tensor
    curvature: torch.Tensor

    def select(self, rows: torch.Tensor) -> Surroundings:
        """Some of the structures."""
        return Surroundings(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def present(self) -> torch.Tensor:
        """Which of the places (B, M) hold a charge."""
        return torch.arange(self.charges.shape[1]) < self.counts.unsqueeze(1)

    def forces(
        self, charges: torch.Tensor, dipoles: torch.Tensor, quadrupoles: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forces that multipoles and point charges exert on each other, with multipoles that do not answer.

        Parameters
        ----------
        charges, dipoles, quadrupoles : torch.Tensor, shapes (B, N), (B, N, 3), (B, N, 3, 3)
            In their own precision, in which the forces come back; e and angstrom.

        Returns
        -------
        on_atoms, on_sources : torch.Tensor, shapes (B, N, 3) and (B, M, 3), kJ/mol/angstrom
        """
        between = self.sources.unsqueeze(1) - self.positions.unsqueeze(2)
        square = between.square().sum(3)
        strength = (_COULOMB * self.charges.unsqueeze(1) * square.rsqrt() / square).to(charges.dtype)
        between, inverse = between.to(charges.dtype), (1.0 / square).to(charges.dtype)
        along = torch.matmul(between, dipoles.unsqueeze(3)).squeeze(3)
        scale = -3.0 * along * inverse - charges.unsqueeze(2)
        slope = dipoles.unsqueeze(2).expand_as(between)
        if quadrupoles is not None:
            turned = torch.matmul(between, quadrupoles)
            twice = (turned * between).sum(3)
            scale = scale - 15.0 * twice * inverse.square()
            slope = slope + 6.0 * turned * inverse.unsqueeze(3)
        pairs = strength.unsqueeze(3) * (scale.unsqueeze(3) * between + slope)
        return pairs.sum(2), -pairs.sum(1)


def surroundings_of(molecules: Sequence[Molecule]) -> Surroundings:
    """Collect molecules of equally many atoms with the point charges around them.

    Parameters
    ----------
    molecules : sequence of Molecule
        Open boundaries; ones without charges around are in a vacuum.
    """
    counts = [0 if molecule.external is None else len(molecule.external) for molecule in molecules]
    most = max(counts, default=0)
    sources = np.full((len(molecules), most, 3), _FAR)
    charges = np.zeros((len(molecules), most))
    for k, molecule in enumerate(molecules):
        if molecule.external is not None:
            sources[k, : counts[k]] = molecule.external.positions / ANGSTROM
            charges[k, : counts[k]] = molecule.external.charges
    positions = torch.tensor(np.stack([molecule.positions for molecule in molecules]) / ANGSTROM)
    at = [torch.zeros(0)] * 3 if not molecules else _potentials(positions, sources, charges)
    return Surroundings(
        positions, torch.tensor(sources), torch.tensor(charges), torch.tensor(counts), at[0], at[1], at[2]
    )


def _potentials(positions: torch.Tensor, sources: np.ndarray, charges: np.ndarray) -> list[torch.Tensor]:
    """Potential, gradient and traceless second derivatives at the atoms, structure by structure."""
    rows = []
    for x, s, c in zip(positions, torch.tensor(sources), torch.tensor(charges), strict=True):
        between = s.unsqueeze(0) - x.unsqueeze(1)
        square = between.square().sum(2)
        strength = _COULOMB * c * square.rsqrt()
        third = strength / square
        outer = torch.einsum("nmi,nmj,nm->nij", between, between, 3.0 * third / square)
        outer = outer - torch.eye(3, dtype=x.dtype) * (torch.einsum("nii->n", outer) / 3.0)[:, None, None]
        rows.append((strength.sum(1), (third.unsqueeze(2) * between).sum(1), outer))
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]
