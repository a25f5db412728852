"""Short-range force-field energy of each atom: the eps_i^MM that a machine-learned eps_i^ML replaces.

Every term gives an equal share to each of its atoms. What is left to the force field beyond r_off (the far
part of Lennard-Jones and Coulomb, all periodic images, the mesh) has no place here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch

from mlmm.errors import EmbeddingError
from mlmm.structures import minimum_image
from mlmm.units import COULOMB

if TYPE_CHECKING:  # the tables are plain arrays; their module reads OpenMM, this one never does
    from mlmm.mm_tables import MMTables

__all__ = ["CorePairs", "ShortRangeEnergies", "handover", "lennard_jones", "short_range_inverse"]


def handover(r: torch.Tensor, r_on: float, r_off: float) -> torch.Tensor:
    """f = 1 − x³(10 − 15x + 6x²), x = (r − r_on)/(r_off − r_on): 1 below r_on, 0 above r_off, C2.

    OpenMM's switching function for Lennard-Jones is the same polynomial.

    Parameters
    ----------
    r : torch.Tensor, nm
    r_on, r_off : float
        In nm.
    """
    x = ((r - r_on) / (r_off - r_on)).clamp(0.0, 1.0)
    return 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))


def short_range_inverse(r: torch.Tensor, r_off: float) -> torch.Tensor:
    """1/r without its smooth tail: 1/r − g(r/a)/a for r < a = r_off, zero beyond, C3 (1/nm).

    g = (35 − 35p² + 21p⁴ − 5p⁶)/16 continues 1/p into the origin. The energy is split, not multiplied by a
    switch: f(r)/r would leave the force −f'(r)/r, several times the Coulomb force, inside the region.

    Parameters
    ----------
    r : torch.Tensor, nm
    r_off : float
        In nm.
    """
    square = (r / r_off).square()
    tail = (35.0 - square * (35.0 - square * (21.0 - 5.0 * square))) / (16.0 * r_off)
    return torch.where(r < r_off, 1.0 / r - tail, torch.zeros_like(r))


def lennard_jones(r: torch.Tensor, sigma: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """4 eps [(sigma/r)¹² − (sigma/r)⁶], kJ/mol for r and sigma in nm."""
    sixth = (sigma / r).square()
    sixth = sixth * sixth * sixth
    return 4.0 * epsilon * (sixth * sixth - sixth)


# `line` of the next two (nm⁴): the smallest square of a cross product that still spans a plane. TorchScript
# reads no constants of a module, hence arguments.
def _angles(arms: torch.Tensor, line: float = 1e-24) -> torch.Tensor:
    """Angle between two vectors, shape (A, 2, 3) -> (A,); the gradient stays finite on a line."""
    first, second = arms[:, 0], arms[:, 1]
    sine = torch.linalg.cross(first, second).square().sum(-1).clamp(min=line).sqrt()
    return torch.atan2(sine, (first * second).sum(-1))


def _dihedrals(steps: torch.Tensor, line: float = 1e-24) -> torch.Tensor:
    """Dihedral of three consecutive bonds, shape (D, 3, 3) -> (D,) in (−pi, pi], IUPAC sign.

    On a line, where the angle is not defined, it is zero and its gradient stays finite.
    """
    left = torch.linalg.cross(steps[:, 0], steps[:, 1])
    right = torch.linalg.cross(steps[:, 1], steps[:, 2])
    # |b2| b1·(b2 × b3) is the sine and (b1 × b2)·(b2 × b3) the cosine, up to one common factor.
    sine = (steps[:, 0] * right).sum(-1) * steps[:, 1].square().sum(-1).clamp(min=line).sqrt()
    cosine = (left * right).sum(-1)
    flat = (left.square().sum(-1) < line) | (right.square().sum(-1) < line)
    return torch.atan2(sine, torch.where(flat, torch.ones_like(cosine), cosine))


def _powers(x: torch.Tensor) -> torch.Tensor:
    """1, x, x², x³ along a new last axis."""
    return torch.stack([torch.ones_like(x), x, x * x, x * x * x], dim=-1)


def _checked_atoms(tables: MMTables, atoms: Sequence[int]) -> np.ndarray:
    """Indices as an array, each once and inside the system."""
    wanted = np.array(atoms, dtype=np.int64).reshape(-1)
    inside = (wanted >= 0) & (wanted < tables.n_atoms)
    if not inside.all() or len(np.unique(wanted)) != len(wanted):
        wrong = wanted[~inside][0] if not inside.all() else "an atom twice"
        raise EmbeddingError(
            f"different atom indices from 0 to {tables.n_atoms - 1}", str(wrong), "select the atoms again"
        )
    return wanted


def _checked_visible(tables: MMTables, visible: np.ndarray) -> np.ndarray:
    """The mask, of the right shape and without virtual sites."""
    visible = np.asarray(visible)
    if visible.shape != (tables.n_atoms,) or visible.dtype != bool:
        raise EmbeddingError(
            f"visible as a boolean array of shape ({tables.n_atoms},)",
            f"{visible.dtype} of shape {visible.shape}",
            "pass one True or False per particle",
        )
    if (visible & tables.virtual).any():
        raise EmbeddingError(
            "visible atoms that are real",
            f"the virtual site {np.flatnonzero(visible & tables.virtual)[0]}",
            "set visible = False for virtual sites: no potential knows them",
        )
    return visible


def _candidates(tables: MMTables, slots: np.ndarray, wanted: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Which pairs of a wanted and a visible atom are plain pairs, each once, shape (S, visible atoms)."""
    seen = np.flatnonzero(visible)
    # A partner that nobody asked for has the last slot: it stands after every wanted atom.
    allowed = (np.arange(len(wanted))[:, None] < slots[seen]) & visible[wanted][:, None]
    columns = np.full(tables.n_atoms, -1)
    columns[seen] = np.arange(len(seen))
    for a, b in (tables.exception_atoms.T, tables.exception_atoms[:, ::-1].T):
        here = (slots[a] < len(wanted)) & (columns[b] >= 0)
        allowed[slots[a[here]], columns[b[here]]] = False
    return allowed


def _cmap_shares(atoms: np.ndarray) -> np.ndarray:
    """Shares of the eight places of two dihedrals, (C, 8): 1/5 per atom where they span five atoms."""
    shares = np.full(atoms.shape, 1.0 / 8.0)
    for row, members in zip(shares, atoms, strict=True):
        distinct, first = np.unique(members, return_index=True)
        if len(distinct) == 5:
            row[:] = 0.0
            row[first] = 1.0 / 5.0
    return shares


class ShortRangeEnergies(torch.nn.Module):
    """Force-field energy of each wanted atom within the range of a machine-learned potential, kJ/mol.

    eps_i = sum over the terms t with atom i of (share of i) f_t V_t: bonds 1/2, angles 1/3, torsions 1/4,
    CMAP 1/5 (1/8 per place in its two dihedrals if those do not span five atoms), pairs and 1-4 pairs 1/2.
    f_t V_t of a bonded term is its energy, of a pair K q q `short_range_inverse` + Lennard-Jones times
    `handover`. A term counts only if all its atoms are visible.

    Parameters
    ----------
    tables : MMTables
    atoms : sequence of int
        S, the atoms whose energy is wanted, in the order of the result.
    visible : ndarray, shape (N,), bool
        Atoms that the machine-learned potential sees.
    r_on, r_off : float
        Range of the handover, nm.
    wrap : bool
        Measure every bonded term by minimum image, for a host that hands over atoms wrapped one by one;
        without it, as OpenMM does, only those whose force says so. Whole molecules give the same number.

    Raises
    ------
    EmbeddingError
        Indices or a mask that do not fit the system, a visible virtual site, or r_off beyond the cutoff of
        the force field.
    """

    def __init__(
        self,
        tables: MMTables,
        atoms: Sequence[int],
        visible: np.ndarray,
        r_on: float,
        r_off: float,
        *,
        wrap: bool = False,
    ):
        super().__init__()
        wanted = _checked_atoms(tables, atoms)
        visible = _checked_visible(tables, visible)
        if not 0.0 <= r_on < r_off or not math.isfinite(r_off):
            raise EmbeddingError(
                "0 <= r_on < r_off", f"r_on = {r_on} nm, r_off = {r_off} nm", "change the range"
            )
        if r_off > tables.cutoff:
            raise EmbeddingError(
                f"r_off within the force field's cutoff of {tables.cutoff:g} nm",
                f"r_off = {r_off:g} nm",
                "reduce r_off, or build the system with a longer cutoff",
            )
        self.n_wanted, self.coulomb = len(wanted), COULOMB
        self.r_on, self.r_off = float(r_on), float(r_off)
        self.cutoff, self.periodic = float(tables.cutoff), bool(tables.periodic)
        # A switch that starts beyond r_off is 1 wherever anything is evaluated.
        self.switched = tables.switch is not None and tables.switch < r_off
        self.switch = 0.0 if tables.switch is None else float(tables.switch)
        # The last slot collects the shares of atoms that nobody asked for.
        slots = np.full(tables.n_atoms, self.n_wanted)
        slots[wanted] = np.arange(self.n_wanted)
        self._fixed_terms(tables, slots, visible, wrap)
        seen = np.flatnonzero(visible)
        self._keep(wanted=wanted, slots=slots, seen=seen, charge=tables.charge, half_sigma=tables.sigma / 2)
        self._keep(
            root_epsilon=np.sqrt(tables.epsilon), candidates=_candidates(tables, slots, wanted, visible)
        )

    def _keep(self, **arrays: np.ndarray) -> None:
        """Arrays that move with the module; a copy, since the tables belong to others too."""
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def _fixed_terms(self, tables: MMTables, slots: np.ndarray, visible: np.ndarray, wrap: bool) -> None:
        """Lists of all terms with fixed atoms, in the order bond, angle, torsion, RB, CMAP, 1-4."""

        def chosen(members: np.ndarray) -> np.ndarray:
            return visible[members].all(axis=1) & (slots[members] < self.n_wanted).any(axis=1)

        b, a = chosen(tables.bond_atoms), chosen(tables.angle_atoms)
        t, r, c = chosen(tables.torsion_atoms), chosen(tables.rb_atoms), chosen(tables.cmap_atoms)
        pair = chosen(tables.exception_atoms)
        pair &= (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
        bonds, angles, pairs = tables.bond_atoms[b], tables.angle_atoms[a], tables.exception_atoms[pair]
        torsions, rbs, cmaps = tables.torsion_atoms[t], tables.rb_atoms[r], tables.cmap_atoms[c]
        self.n_bonds, self.n_angles, self.n_pairs = len(bonds), len(angles), len(pairs)
        self.n_torsions, self.n_rb, self.n_cmaps = len(torsions), len(rbs), len(cmaps)
        self._keep(bond_length=tables.bond_length[b], bond_k=tables.bond_k[b])
        self._keep(angle_value=tables.angle_value[a], angle_k=tables.angle_k[a])
        self._keep(torsion_n=tables.torsion_n[t], torsion_phase=tables.torsion_phase[t])
        self._keep(torsion_k=tables.torsion_k[t], rb_coefficients=tables.rb_coefficients[r])
        self._keep(pair_charge=tables.exception_charge[pair], pair_sigma=tables.exception_sigma[pair])
        self._keep(pair_epsilon=tables.exception_epsilon[pair])
        sizes = np.array([len(energies) for energies in tables.cmap_energies], dtype=np.int64)
        starts = np.cumsum(np.concatenate([[0], sizes**2]))
        self._keep(patches=np.concatenate([np.zeros((0, 4, 4)), *tables.cmap_patches()]))
        self._keep(cmap_size=sizes[tables.cmap_map[c]], cmap_start=starts[tables.cmap_map[c]])
        # Shares. CMAP: the five atoms of two dihedrals that overlap in three; any other shape by places.
        shares = [np.full(x.shape, 1.0 / x.shape[1]) for x in (bonds, angles, torsions, rbs)]
        shares += [_cmap_shares(cmaps), np.full(pairs.shape, 0.5)]
        members = (bonds, angles, torsions, rbs, cmaps, pairs)
        numbered = np.split(np.arange(sum(map(len, members))), np.cumsum([len(x) for x in members])[:-1])
        terms = [np.repeat(own, x.shape[1]) for own, x in zip(numbered, members, strict=True)]
        self._keep(share=np.concatenate([x.ravel() for x in shares]), share_term=np.concatenate(terms))
        self._keep(share_slot=slots[np.concatenate([x.ravel() for x in members])])
        # One list of difference vectors for all of them: bonds and pairs one each, angles two arms, dihedrals
        # three steps.
        dihedrals = np.concatenate([torsions, rbs, cmaps.reshape(-1, 4)])
        arms, steps = angles[:, [1, 0, 1, 2]], dihedrals[:, [0, 1, 1, 2, 2, 3]]
        ends = np.concatenate([x.reshape(-1, 2) for x in (bonds, pairs, arms, steps)])
        images = [tables.bond_periodic[b], np.full(len(pairs), tables.exceptions_periodic)]
        images.append(np.repeat(tables.angle_periodic[a], 2))
        images.append(np.repeat(np.concatenate([tables.torsion_periodic[t], tables.rb_periodic[r]]), 3))
        images.append(np.repeat(tables.cmap_periodic[c], 6))
        self._keep(tails=ends[:, 0], heads=ends[:, 1])
        self._keep(wraps=(np.concatenate(images) | wrap)[:, None])

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """eps_i^MM,sr of the wanted atoms.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), nm
            Of the whole system.
        cell : torch.Tensor, shape (3, 3), nm, optional
            Reduced box vectors in rows.

        Returns
        -------
        torch.Tensor, shape (len(atoms),), float64, kJ/mol
        """
        positions = positions.to(torch.float64)
        energies = self.fixed_energies(positions, cell)
        total = torch.zeros(self.n_wanted + 1, dtype=torch.float64, device=positions.device)
        total = total.index_add(0, self.share_slot, self.share * energies.index_select(0, self.share_term))
        first, second, half = self.pair_energies(positions, cell)
        total = total.index_add(0, self.slots.index_select(0, first), half)
        return total.index_add(0, self.slots.index_select(0, second), half)[: self.n_wanted]

    def fixed_energies(self, positions: torch.Tensor, cell: Optional[torch.Tensor]) -> torch.Tensor:
        """f_t V_t of every bonded term and 1-4 pair, in the order bond, angle, torsion, RB, CMAP, 1-4."""
        vectors = positions.index_select(0, self.heads) - positions.index_select(0, self.tails)
        if cell is not None:
            vectors = torch.where(self.wraps, minimum_image(vectors, cell), vectors)
        lengths = vectors[: self.n_bonds + self.n_pairs].square().sum(-1).sqrt()
        bonds = 0.5 * self.bond_k * (lengths[: self.n_bonds] - self.bond_length).square()
        start = self.n_bonds + self.n_pairs
        stop = start + 2 * self.n_angles
        theta = _angles(vectors[start:stop].view(-1, 2, 3))
        angles = 0.5 * self.angle_k * (theta - self.angle_value).square()
        phi = _dihedrals(vectors[stop:].view(-1, 3, 3))
        torsion_phi, rb_phi = phi[: self.n_torsions], phi[self.n_torsions : self.n_torsions + self.n_rb]
        torsions = self.torsion_k * (1.0 + torch.cos(self.torsion_n * torsion_phi - self.torsion_phase))
        cosine = -torch.cos(rb_phi)  # of phi − pi
        rb = self.rb_coefficients[:, 5]
        for m in range(4, -1, -1):
            rb = rb * cosine + self.rb_coefficients[:, m]
        cmaps = self.cmap_spline(phi[self.n_torsions + self.n_rb :].view(-1, 2))
        r = lengths[self.n_bonds :]
        wells = lennard_jones(r, self.pair_sigma, self.pair_epsilon) * handover(r, self.r_on, self.r_off)
        pairs = wells + self.coulomb * self.pair_charge * short_range_inverse(r, self.r_off)
        return torch.cat([bonds, angles, torsions, rb, cmaps, pairs])

    def cmap_spline(self, phi: torch.Tensor) -> torch.Tensor:
        """Bicubic periodic spline through each map at two dihedrals, shape (C, 2) -> (C,)."""
        size, turn = self.cmap_size.unsqueeze(1), 2.0 * math.pi
        knots = torch.remainder(phi, turn) * size.to(phi.dtype) / turn
        # The bounds also keep an index out of NaN, which then stays NaN in the energy.
        patch = torch.minimum(knots.detach().floor().to(torch.int64).clamp(min=0), size - 1)
        x = _powers(knots - patch)
        index = self.cmap_start + patch[:, 0] * self.cmap_size + patch[:, 1]
        coefficients = self.patches.index_select(0, index)
        return (coefficients * x[:, 0].unsqueeze(2) * x[:, 1].unsqueeze(1)).sum(dim=(1, 2))

    def pair_energies(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pairs of a wanted and a visible atom within r_off, each once: two atom indices, half the energy."""
        box: Optional[torch.Tensor] = None
        if self.periodic:
            box = cell
        # Coordinates as planes in memory: several times faster than triples for this largest array of all.
        planes = positions.detach().t().contiguous()
        centres = planes.index_select(1, self.wanted).unsqueeze(2)
        separation = (centres - planes.index_select(1, self.seen).unsqueeze(1)).permute(1, 2, 0)
        squared = minimum_image(separation, box).square().sum(-1)
        found = ((squared < self.r_off * self.r_off) & self.candidates).nonzero()
        first = self.wanted.index_select(0, found[:, 0])
        second = self.seen.index_select(0, found[:, 1])
        vectors = minimum_image(positions.index_select(0, first) - positions.index_select(0, second), box)
        r = vectors.square().sum(-1).sqrt()
        sigma = self.half_sigma.index_select(0, first) + self.half_sigma.index_select(0, second)
        epsilon = self.root_epsilon.index_select(0, first) * self.root_epsilon.index_select(0, second)
        attraction = lennard_jones(r, sigma, epsilon) * handover(r, self.r_on, self.r_off)
        if self.switched:
            attraction = attraction * handover(r, self.switch, self.cutoff)
        product = self.charge.index_select(0, first) * self.charge.index_select(0, second)
        return first, second, 0.5 * (attraction + self.coulomb * product * short_range_inverse(r, self.r_off))


class CorePairs(torch.nn.Module):
    """Full pair energies inside a set of atoms: what leaves OpenMM when exceptions empty all those pairs.

    An exception takes away K q q / r of the nearest image, reciprocal part included, and Lennard-Jones with
    the cutoff and the switch of the force field; beyond the cutoff of PME K q q erf(alpha r) / r, since such
    a pair has no direct part; from a 1-4 pair its own charge product and well, without cutoff; from an
    excluded pair nothing. Each atom of a pair gets one half.

    Parameters
    ----------
    tables : MMTables
    atoms : sequence of int
        The set, in the order of the result.
    wrap : bool
        See `ShortRangeEnergies`; it concerns the 1-4 pairs.
    """

    def __init__(self, tables: MMTables, atoms: Sequence[int], *, wrap: bool = False):
        super().__init__()
        wanted = _checked_atoms(tables, atoms)
        self.n_wanted, self.coulomb, self.cutoff = len(wanted), COULOMB, float(tables.cutoff)
        self.alpha = float(tables.alpha)
        self.switched = tables.switch is not None
        self.switch = 0.0 if tables.switch is None else float(tables.switch)
        first, second = np.triu_indices(self.n_wanted, k=1)
        i, j = wanted[first], wanted[second]
        numbers = np.stack(
            [
                tables.charge[i] * tables.charge[j],
                0.5 * (tables.sigma[i] + tables.sigma[j]),
                np.sqrt(tables.epsilon[i] * tables.epsilon[j]),
            ]
        )
        index = tables.exception_index(i, j)
        special = index >= 0
        own_numbers = np.stack([tables.exception_charge, tables.exception_sigma, tables.exception_epsilon])
        numbers[:, special] = own_numbers[:, index[special]]
        alive = (numbers[0] != 0) | (numbers[2] != 0)
        arrays = {"heads": i[alive], "tails": j[alive], "first": first[alive], "second": second[alive]}
        arrays |= {"charge": numbers[0, alive], "sigma": numbers[1, alive], "epsilon": numbers[2, alive]}
        arrays |= {"special": special[alive]}
        wraps = tables.periodic & (~special[alive] | tables.exceptions_periodic | wrap)
        arrays |= {"wraps": wraps[:, None]}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Half of each pair energy on either atom; arguments as in `ShortRangeEnergies.forward`."""
        positions = positions.to(torch.float64)
        vectors = positions.index_select(0, self.heads) - positions.index_select(0, self.tails)
        if cell is not None:
            vectors = torch.where(self.wraps, minimum_image(vectors, cell), vectors)
        r = vectors.square().sum(-1).sqrt()
        near = self.special | (r < self.cutoff)
        factor = near.to(torch.float64)
        screen = torch.where(near, torch.ones_like(r), torch.erf(self.alpha * r))
        if self.switched:
            factor = torch.where(self.special, factor, handover(r, self.switch, self.cutoff))
        wells = lennard_jones(r, self.sigma, self.epsilon) * factor
        half = 0.5 * (wells + self.coulomb * self.charge * screen / r)
        total = torch.zeros(self.n_wanted, dtype=torch.float64, device=positions.device)
        return total.index_add(0, self.first, half).index_add(0, self.second, half)
