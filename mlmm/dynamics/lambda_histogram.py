"""Atoms by lambda, and the energy by which the potential differs from the force field on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlmm.check_report import aligned
from mlmm.dynamics.frames import as_tensors, device_of
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.assemble import blend_of
from mlmm.hybrid.system import HybridSystem

__all__ = ["LambdaHistogram", "lambda_histogram"]


@dataclass(frozen=True)
class LambdaHistogram:
    """Atoms by lambda, and what the potential changes on them.

    Parameters
    ----------
    edges : ndarray, shape (B + 1,)
        Bins (edges[b], edges[b + 1]] for 0 < lambda < 1; one more bin stands for lambda = 1.
    atoms, residues : ndarray, shape (B + 1,)
        Numbers; a residue counts in each bin that holds atoms of it.
    mean, deviation : ndarray, shape (B + 1,), kJ/mol
        Of Delta = eps^ML − eps^MM,sr summed over the atoms of each residue in the bin; NaN for an empty bin.
    per_atom : ndarray, shape (B + 1,), kJ/mol
        Mean of Delta over the atoms.
    """

    edges: np.ndarray
    atoms: np.ndarray
    residues: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    per_atom: np.ndarray

    @property
    def names(self) -> list[str]:
        """Of the bins."""
        pairs = zip(self.edges[:-1], self.edges[1:], strict=True)
        return [f"{a:.2g} – {b:.2g}" for a, b in pairs] + ["1"]

    def __str__(self) -> str:
        known = bool(np.isfinite(self.mean).any())
        rows = [("lambda", "atoms", "residues", *(("Delta per atom", "per residue", "std") if known else ()))]
        for k in reversed(range(len(self.names))):
            if self.atoms[k]:
                energies = (self.per_atom[k], self.mean[k], self.deviation[k]) if known else ()
                numbers = (str(self.atoms[k]), str(self.residues[k]), *(f"{e:.1f}" for e in energies))
                rows.append((self.names[k], *numbers))
        if not known:
            return aligned(rows)
        return aligned(rows) + "\nDelta = eps^ML − eps^MM,sr, kJ/mol, isolated-atom energies removed"


def lambda_histogram(hybrid: HybridSystem, *, bins: int = 5) -> LambdaHistogram:
    """Numbers of atoms and mean Delta by lambda, on the atoms of the built structure with lambda > 0.

    Parameters
    ----------
    hybrid : HybridSystem
        Under other schemes than ``per_atom`` Delta is not what the potential changes, and NaN.
    bins : int
        Between 0 and 1, of equal width.
    """
    built = hybrid.built
    x, cell = as_tensors(built.positions, built.box_vectors)
    every = hybrid.zones.weights(x, cell)
    active = (every > 0).nonzero().squeeze(1).tolist()
    delta = np.full(len(active), np.nan)
    if hybrid.scheme == "per_atom":
        tables = read_mm_tables(built.system, keep=hybrid.keep)
        blend = blend_of(built, tables, hybrid.potential, active, [1.0] * len(active))
        with torch.no_grad():
            found = blend.differences(*as_tensors(built.positions, built.box_vectors, device_of(blend)))
        delta = found.cpu().numpy()
    weights = every[active].numpy()
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.where(weights == 1.0, bins, np.clip(np.searchsorted(edges, weights) - 1, 0, bins - 1))
    residues_of_atoms = [atom.residue.index for atom in built.topology.atoms()]
    residue = np.array([residues_of_atoms[atom] for atom in active])
    columns = np.full((3, bins + 1), np.nan)
    atoms, residues = np.zeros(bins + 1, dtype=int), np.zeros(bins + 1, dtype=int)
    for b in np.unique(place):
        chosen = place == b
        names, group = np.unique(residue[chosen], return_inverse=True)
        sums = np.bincount(group, weights=delta[chosen])
        atoms[b], residues[b] = chosen.sum(), len(names)
        columns[:, b] = sums.mean(), sums.std(), delta[chosen].mean()
    return LambdaHistogram(edges, atoms, residues, *columns)
