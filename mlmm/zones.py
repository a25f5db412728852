"""Which potential owns which atom: the weight lambda, 1 for machine-learned and 0 for the force field."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mlmm.errors import SelectionError
from mlmm.regions import Region

__all__ = ["ZonePartition", "hard_zones"]


@dataclass(frozen=True)
class ZonePartition:
    """Atoms by zone.

    Parameters
    ----------
    n_atoms : int
        Atoms of the whole system.
    region : Region
        The atoms of the core, and how they were chosen.
    core : tuple of int
        lambda = 1.
    transition : tuple of int
        0 < lambda < 1.
    buffer : tuple of int
        lambda = 0, seen by the model.
    """

    n_atoms: int
    region: Region
    core: tuple[int, ...]
    transition: tuple[int, ...] = ()
    buffer: tuple[int, ...] = ()

    @property
    def environment(self) -> tuple[int, ...]:
        """Atoms that only the force field sees, lambda = 0."""
        others = set(range(self.n_atoms)).difference(self.core, self.transition, self.buffer)
        return tuple(sorted(others))

    def counts(self) -> dict[str, int]:
        """Number of atoms in each zone."""
        inside = {"core": len(self.core), "transition": len(self.transition), "buffer": len(self.buffer)}
        return inside | {"environment": self.n_atoms - sum(inside.values())}

    def weights(self, positions: torch.Tensor) -> torch.Tensor:
        """lambda of every atom, shape (N,), for positions (N, 3) in nm."""
        weights = torch.zeros(self.n_atoms, dtype=torch.float64, device=positions.device)
        weights[list(self.core)] = 1.0
        return weights


def hard_zones(built: object, region: Region) -> ZonePartition:
    """A sharp boundary: lambda = 1 on the region, 0 everywhere else.

    Parameters
    ----------
    built : BuiltSystem
    region : Region

    Raises
    ------
    SelectionError
        A region that was made for a larger system.
    """
    n_atoms = built.topology.getNumAtoms()
    if region.atoms[-1] >= n_atoms:
        raise SelectionError(
            f"a region of a system with {n_atoms} atoms",
            f"atom index {region.atoms[-1]}",
            "select it again here",
        )
    return ZonePartition(n_atoms, region, core=region.atoms)
