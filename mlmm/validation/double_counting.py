"""Double counting: pairs and bonded terms by zone, and the energy that each leaves to the potential."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlmm.blending.functions import short_range_pair, switching_function
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.check_report import aligned
from mlmm.errors import EmbeddingError
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.forcefield.term_catalogue import TABULATED
from mlmm.hybrid.spec import hybrid_term_weights
from mlmm.hybrid.system import HybridSystem
from mlmm.pair_formulas import lennard_jones
from mlmm.term_weights import TermWeights, cmap_shares
from mlmm.units import COULOMB
from mlmm.validation.boundary_error import neighbours_of

__all__ = ["BondedClass", "DoubleCounting", "PairClass", "check_term_weights", "double_counting"]

_LETTERS = "CTBE"
_ONE_FOUR = "1-4 pairs"


@dataclass(frozen=True)
class PairClass:
    """Non-bonded pairs of two zones within r_off; 1-4 pairs count as bonded, excluded pairs not at all.

    Pairs of which the potential is given neither atom (E–E) belong to the force field and are not listed.

    Parameters
    ----------
    name : str
        C: lambda = 1; T: between; B: lambda = 0 and seen by the potential; E: everything else.
    pairs : int
    share : float
        Mean of W, the part of the short-range energy that the potential owns.
    kept, given_up : float
        Energy of these pairs that the force field still counts, and that it does not, kJ/mol.
    """

    name: str
    pairs: int
    share: float
    kept: float
    given_up: float


@dataclass(frozen=True)
class BondedClass:
    """Bonded terms of one kind.

    Parameters
    ----------
    name : str
    inside, crossing : int
        Terms that the potential owns whole, and in part.
    given_up : float
        kJ/mol.
    """

    name: str
    inside: int
    crossing: int
    given_up: float


@dataclass(frozen=True)
class DoubleCounting:
    """All classes; prints as two tables.

    Parameters
    ----------
    r_off : float
        nm.
    pairs : tuple of PairClass
    bonded : tuple of BondedClass
    """

    r_off: float
    pairs: tuple[PairClass, ...]
    bonded: tuple[BondedClass, ...]

    @property
    def given_up(self) -> float:
        """sum_t W_t f_t V_t over all terms: what the force field counts no longer, kJ/mol."""
        return sum(p.given_up for p in self.pairs) + sum(b.given_up for b in self.bonded)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            (f"pairs within {self.r_off:.2g} nm", "number", "ML share W", "MM keeps", "MM gave up")
        ]
        for p in self.pairs:
            if p.pairs:
                rows.append((p.name, str(p.pairs), f"{p.share:.3f}", f"{p.kept:.1f}", f"{p.given_up:.1f}"))
        terms: list[tuple[str, ...]] = [("bonded terms", "ML", "in part", "", "MM gave up")]
        for b in self.bonded:
            if b.inside or b.crossing:
                terms.append((b.name, str(b.inside), str(b.crossing), "", f"{b.given_up:.1f}"))
        note = "kJ/mol; C lambda = 1, T between, B lambda = 0 seen by the potential, E all else"
        return aligned(rows) + "\n" + note + "\n\n" + aligned(terms)


def double_counting(
    hybrid: HybridSystem, positions: np.ndarray | None = None, box_vectors: np.ndarray | None = None
) -> DoubleCounting:
    """Pairs and bonded terms of a hybrid system by zone, with the energies that the potential takes over.

    Parameters
    ----------
    hybrid : HybridSystem
        Of scheme ``per_atom`` or ``supermolecular``, with a static zone.
    positions : ndarray, shape (N, 3), nm, optional
        The built structure by default.
    box_vectors : ndarray, shape (3, 3), nm, optional

    Raises
    ------
    EmbeddingError
        Another scheme, or a zone that moves.
    """
    term_weights = hybrid_term_weights(hybrid.spec)
    if hybrid.zones.moves or term_weights.switching is None or hybrid.spec.rules.isolated:
        raise EmbeddingError(
            "a static zone under a scheme that hands contacts over (per_atom or supermolecular)",
            hybrid.scheme,
            'use scheme = "per_atom"',
        )
    built = hybrid.built
    where = np.asarray(built.positions if positions is None else positions)
    box = None
    if built.periodic:
        box = np.asarray(built.box_vectors if box_vectors is None else box_vectors)
    tables = read_mm_tables(built.system, keep=hybrid.keep)
    return check_term_weights(tables, term_weights, where, box, hybrid.potential.spec.receptive_field)


def check_term_weights(
    tables: MMTables,
    term_weights: TermWeights,
    positions: np.ndarray,
    box_vectors: np.ndarray | None,
    receptive_field: float,
) -> DoubleCounting:
    """Energies by class from the shares W_t and the energy of every term.

    Parameters
    ----------
    tables : MMTables
    term_weights : TermWeights
        With a switching function.
    positions : ndarray, shape (N, 3), nm
    box_vectors : ndarray, shape (3, 3), nm, optional
    receptive_field : float
        How far the atoms with lambda > 0 see, nm.
    """
    x = torch.tensor(np.asarray(positions), dtype=torch.float64)
    cell = None if box_vectors is None else torch.tensor(box_vectors, dtype=torch.float64)
    zone = np.where(term_weights.weights == 1, 0, np.where(term_weights.weights > 0, 1, 3))
    near = neighbours_of(x, cell, receptive_field, term_weights.active)[1].numpy()
    zone[near[(term_weights.weights[near] == 0) & term_weights.visible[near]]] = 2
    assert term_weights.switching is not None
    pairs = _pair_classes(tables, term_weights, zone, x, cell, *term_weights.switching)
    bonded = _bonded_classes(tables, term_weights, x, cell, *term_weights.switching)
    return DoubleCounting(term_weights.switching[1], pairs, bonded)


def _pair_classes(
    tables: MMTables,
    term_weights: TermWeights,
    zone: np.ndarray,
    x: torch.Tensor,
    cell: torch.Tensor | None,
    r_on: float,
    r_off: float,
) -> tuple[PairClass, ...]:
    box = cell if tables.periodic else None
    first, second, vectors = neighbours_of(x, box, r_off, np.flatnonzero(zone < 3))
    i, j = first.numpy(), second.numpy()
    # Pairs of two atoms that the potential is given were found twice.
    chosen = ((i < j) | (zone[j] == 3)) & (tables.exception_index(i, j) < 0)
    i, j, r = i[chosen], j[chosen], vectors.norm(dim=1)[torch.tensor(chosen)]
    charge, sigma, epsilon = map(torch.tensor, tables.pair_parameters(i, j)[:3])
    wells = lennard_jones(r, sigma, epsilon)
    if tables.switch is not None:
        wells = wells * switching_function(r, tables.switch, tables.cutoff)
    whole = (wells + COULOMB * charge / r).numpy()
    near = short_range_pair(r, wells, charge, r_on, r_off, COULOMB).numpy()
    share = term_weights.pairs(np.stack([i, j], axis=1))
    kind = np.minimum(zone[i], zone[j]) * 4 + np.maximum(zone[i], zone[j])
    classes = []
    for k in (0, 1, 5, 2, 6, 10, 3, 7, 11):
        mine = kind == k
        name = f"{_LETTERS[k // 4]}–{_LETTERS[k % 4]}"
        mean = float(share[mine].mean()) if mine.any() else 0.0
        gone = float((share[mine] * near[mine]).sum())
        classes.append(PairClass(name, int(mine.sum()), mean, float(whole[mine].sum()) - gone, gone))
    return tuple(classes)


def _bonded_classes(
    tables: MMTables,
    term_weights: TermWeights,
    x: torch.Tensor,
    cell: torch.Tensor | None,
    r_on: float,
    r_off: float,
) -> tuple[BondedClass, ...]:
    visible = term_weights.visible
    module = ShortRangeEnergies(tables, np.flatnonzero(visible), visible, r_on, r_off)
    alive = (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
    # In the order of `ShortRangeEnergies.fixed_energies`.
    lists = {columns.label: tables.terms(columns, "atoms") for columns in TABULATED.values()}
    lists[_ONE_FOUR] = tables.exception_atoms[alive]
    lists = {name: atoms[visible[atoms].all(axis=1)] for name, atoms in lists.items()}
    energies = module.fixed_energies(x, cell).numpy()
    ends = np.cumsum([len(atoms) for atoms in lists.values()])
    if ends[-1] != len(energies):
        raise ValueError(f"{ends[-1]} terms in the tables, {len(energies)} energies")
    classes = []
    for (name, atoms), mine in zip(lists.items(), np.split(energies, ends[:-1]), strict=True):
        if name == _ONE_FOUR:
            share = term_weights.one_four(atoms)
        elif atoms.shape[1] == 8:
            # Sums of fifths may miss 1 by a rounding error.
            share = np.round(term_weights.bonded(atoms, cmap_shares(atoms)), 14)
        else:
            share = term_weights.bonded(atoms)
        inside, crossing = int((share == 1).sum()), int(((share > 0) & (share < 1)).sum())
        classes.append(BondedClass(name, inside, crossing, float((share * mine).sum())))
    return tuple(classes)
