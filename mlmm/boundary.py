"""How wrong the forces on the region are because a boundary is near, from one backward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlmm.assembly import blend_of
from mlmm.errors import EmbeddingError
from mlmm.hybrid import HybridSystem
from mlmm.mm_tables import read_mm_tables
from mlmm.structures import neighbour_pairs

__all__ = ["BoundaryError", "boundary_error"]

# Force-field terms join atoms up to a 1-4 distance apart, whatever the range of the model.
_BONDED_REACH = 0.6  # nm


@dataclass(frozen=True)
class BoundaryError:
    """Force of the blend minus the force with the model on all atoms, on the atoms of the region.

    Parameters
    ----------
    atoms : tuple of int
    errors : ndarray, shape (n, 3), kJ/mol/nm
    exact : int
        Atoms of the region on which the force is exactly that of the model everywhere (with the same tail).
    """

    atoms: tuple[int, ...]
    errors: np.ndarray
    exact: int

    @property
    def rms(self) -> float:
        """Root mean square over the components, kJ/mol/nm."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def largest(self) -> float:
        """Largest error of one atom, kJ/mol/nm."""
        return float(np.linalg.norm(self.errors, axis=1).max())


def boundary_error(
    hybrid: HybridSystem, positions: np.ndarray | None = None, box_vectors: np.ndarray | None = None
) -> BoundaryError:
    """F_k − F_k(lambda = 1 everywhere) = sum_i (1 − lambda_i) d(eps_i^ML − eps_i^MM,sr)/dr_k.

    The sum runs over all atoms whose energy depends on an atom of the region, so that it is exact for a
    static zone.

    Parameters
    ----------
    hybrid : HybridSystem
        Of scheme ``local``.
    positions : ndarray, shape (N, 3), nm, optional
        The built structure by default.
    box_vectors : ndarray, shape (3, 3), nm, optional

    Raises
    ------
    EmbeddingError
        Another scheme.
    """
    if hybrid.blend is None:
        raise EmbeddingError("a hybrid system of scheme 'local'", hybrid.scheme, 'use scheme = "local"')
    built, region = hybrid.built, hybrid.zones.region.atoms
    x = torch.tensor(built.positions if positions is None else positions, dtype=torch.float64)
    cell = None
    if built.periodic:
        cell = torch.tensor(built.box_vectors if box_vectors is None else box_vectors, dtype=torch.float64)
    reach = max(hybrid.spec.receptive_field, _BONDED_REACH)
    visible = set(hybrid.blend.visible.tolist())
    centre, near, _ = neighbour_pairs(x, cell, reach, torch.tensor(region))
    wide = sorted((set(near.tolist()) | set(region)) & visible)
    weights = hybrid.zones.weights(x)
    missing = [1.0 - float(weights[i]) for i in wide]
    x.requires_grad_(True)
    tables = read_mm_tables(built.system, keep=hybrid.keep)
    (gradient,) = torch.autograd.grad(blend_of(built, tables, hybrid.potential, wide, missing)(x, cell), x)
    outside = centre[weights[near] < 1]
    exact = len(region) - len(set(outside.tolist()))
    return BoundaryError(tuple(region), gradient[list(region)].detach().numpy(), exact)
