"""Pairs inside molecules of lambda = 1 that stay with the force field beyond the potential's range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlmm.blending.functions import short_range_inverse, switching_function
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.forcefield.term_catalogue import FORMULAS
from mlmm.hybrid.spec import SWITCHING_START, HybridSpec, built_cell, replaceable_atoms
from mlmm.pair_formulas import lennard_jones
from mlmm.structures import minimum_image
from mlmm.units import COULOMB

__all__ = ["TailEnergies", "tail_energies", "tail_warning"]

_SMALLEST = 0.01  # kJ/mol, of all its pairs without sign


@dataclass(frozen=True)
class TailEnergies:
    """Energy of the force field's tail in molecules whose atoms all have lambda = 1, kJ/mol.

    Parameters
    ----------
    coulomb, lennard_jones : float
        By class of term; pairs with parameters of their own (1-4 pairs) included.
    pairs : float
        Sum of the absolute energies of all pairs.
    molecules : tuple of str
        Those that have a tail, by their residues.
    """

    coulomb: float
    lennard_jones: float
    pairs: float
    molecules: tuple[str, ...]

    @property
    def total(self) -> float:
        """Sum of both classes."""
        return self.coulomb + self.lennard_jones


def tail_energies(spec: HybridSpec, positions: np.ndarray | None = None) -> TailEnergies:
    """V − v_sr summed over the pairs inside each molecule of lambda = 1, kJ/mol.

    v_sr is the part of a pair that the potential replaces under ``per_atom`` and ``supermolecular``, see
    `mlmm.pair_formulas`; all bonded terms within such a molecule are replaced whole. The energy between
    molecules, and that with their own periodic images, is no part of it.

    Parameters
    ----------
    spec : HybridSpec
    positions : ndarray, shape (N, 3), nm, optional
        The built structure by default.
    """
    built = spec.built
    where = torch.tensor(built.positions if positions is None else positions, dtype=torch.float64)
    weights = spec.zones.weights(where, built_cell(built)).numpy()
    whole = weights == 1.0
    owned = whole & replaceable_atoms(built, spec.potential.spec)
    # Bonded terms do not matter here, those that are expressions included.
    tables = read_mm_tables(built.system, keep=(*spec.keep, *FORMULAS))
    atoms = list(built.topology.atoms())
    found, names = np.zeros(3), []
    for molecule in built.molecules:
        members = np.array(molecule)
        if len(members) < 2 or not owned[members].all():
            continue
        parts = _inside(spec, tables, members, where)
        if parts[2] > _SMALLEST:
            found += parts
            residues = list(dict.fromkeys(f"{atoms[i].residue.name}{atoms[i].residue.id}" for i in molecule))
            names.append(residues[0] if len(residues) == 1 else f"{residues[0]}–{residues[-1]}")
    return TailEnergies(float(found[0]), float(found[1]), float(found[2]), tuple(names))


def tail_warning(spec: HybridSpec) -> str:
    """What the user should know of the tail; empty where there is none."""
    if not spec.rules.takes_pairs or spec.rules.isolated:
        return ""
    tail = tail_energies(spec)
    if not tail.molecules:
        return ""
    more = f" and {len(tail.molecules) - 3} more molecules" if len(tail.molecules) > 3 else ""
    name, cutoff = spec.potential.spec.name, spec.potential.spec.cutoff
    return (
        f"{tail.total:+.2f} kJ/mol of the force field stay inside molecules of lambda = 1, the tail of "
        f"pairs beyond the range of {name}, {cutoff:g} nm (Coulomb {tail.coulomb:+.2f}, Lennard-Jones "
        f"{tail.lennard_jones:+.2f} kJ/mol in the built structure; {', '.join(tail.molecules[:3])}{more}): "
        f'the energies of their conformers are not those of {name}; scheme = "additive" leaves none'
    )


def _inside(
    spec: HybridSpec, tables: MMTables, members: np.ndarray, positions: torch.Tensor
) -> tuple[float, float, float]:
    """Coulomb, Lennard-Jones, and the sum without signs, of the pairs of one molecule."""
    end = spec.potential.spec.cutoff
    first, second = np.triu_indices(len(members), k=1)
    i, j = members[first], members[second]
    charge, sigma, epsilon, own = (torch.from_numpy(np.array(x)) for x in tables.pair_parameters(i, j))
    vectors = positions[i] - positions[j]
    cell = built_cell(spec.built)
    if cell is not None:
        # Whole molecules: exceptions, which may not be wrapped, have the same length.
        vectors = minimum_image(vectors, cell)
    r = vectors.square().sum(-1).sqrt()
    # As `mlmm.blending.full_pairs`: beyond the cutoff of PME a pair has its reciprocal part alone.
    near = own | (r < tables.cutoff)
    screen = torch.where(near, torch.ones_like(r), torch.erf(tables.alpha * r))
    coulomb = COULOMB * charge * (screen / r - short_range_inverse(r, end))
    wells = lennard_jones(r, sigma, epsilon) * near
    if tables.switch is not None:
        wells = torch.where(own, wells, wells * switching_function(r, tables.switch, tables.cutoff))
    wells = wells * (1.0 - switching_function(r, SWITCHING_START * end, end))
    return float(coulomb.sum()), float(wells.sum()), float(coulomb.abs().sum() + wells.abs().sum())
