"""Short-range force-field energy of each atom: the eps_i^MM that a machine-learned eps_i^ML replaces.

Every term gives an equal share to each of its atoms. The energy beyond r_off (the far part of Lennard-Jones
and Coulomb, all periodic images, the mesh) stays in the force field and is not evaluated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch

from mlmm.blending.functions import (
    bond_angles,
    cubic_powers,
    dihedral_angles,
    short_range_pair,
    switching_function,
)
from mlmm.errors import EmbeddingError
from mlmm.kernels.torch_pairs import native_pairs_wanted, partners
from mlmm.pair_formulas import lennard_jones
from mlmm.structures import minimum_image, near_squares, possible_neighbours
from mlmm.term_weights import cmap_shares
from mlmm.units import COULOMB

if TYPE_CHECKING:  # the tables are plain arrays; their module reads OpenMM, this one must not
    from mlmm.forcefield.tables import MMTables

__all__ = ["ShortRangeEnergies", "checked_atoms"]


def checked_atoms(tables: MMTables, atoms: Sequence[int] | np.ndarray) -> np.ndarray:
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
    """The mask, of the right shape."""
    visible = np.asarray(visible)
    if visible.shape != (tables.n_atoms,) or visible.dtype != bool:
        raise EmbeddingError(
            f"visible as a boolean array of shape ({tables.n_atoms},)",
            f"{visible.dtype} of shape {visible.shape}",
            "pass one True or False per particle",
        )
    return visible


class ShortRangeEnergies(torch.nn.Module):
    """Force-field energy of each wanted atom within the range of a machine-learned potential, kJ/mol.

    eps_i = sum over the terms t with atom i of (share of i) f_t V_t: bonds 1/2, angles 1/3, torsions 1/4,
    CMAP 1/5 (1/8 per place in its two dihedrals if those do not span five atoms), pairs and 1-4 pairs 1/2.
    f_t V_t of a bonded term is its energy, of a pair K q q `short_range_inverse` + Lennard-Jones times
    `switching_function`. A term counts only if all its atoms are visible.

    Parameters
    ----------
    tables : MMTables
    atoms : sequence of int
        S, the atoms whose energy is wanted, in the order of the result.
    visible : ndarray, shape (N,), bool
        Atoms that the machine-learned potential describes, virtual sites on them included.
    r_on, r_off : float
        Range of the switching function, nm.
    wrap : bool
        Measure every bonded term by minimum image, for a host that hands over atoms wrapped one by one;
        without it, as OpenMM does, only those whose force says so. Whole molecules give the same number.

    Raises
    ------
    EmbeddingError
        Indices or a mask that do not fit the system, or r_off beyond the cutoff of
        the force field.
    """

    if TYPE_CHECKING:  # TorchScript reads no annotations of buffers

        def __getattr__(self, name: str) -> torch.Tensor: ...

    def __init__(
        self,
        tables: MMTables,
        atoms: Sequence[int] | np.ndarray,
        visible: np.ndarray,
        r_on: float,
        r_off: float,
        *,
        wrap: bool = False,
    ):
        super().__init__()
        wanted = checked_atoms(tables, atoms)
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
        # The last slot collects the shares of atoms that are not wanted.
        slots = np.full(tables.n_atoms, self.n_wanted)
        slots[wanted] = np.arange(self.n_wanted)
        self._fixed_terms(tables, slots, visible, wrap)
        seen = np.flatnonzero(visible)
        self._keep(slots=slots, seen=seen, charge=tables.charge, half_sigma=tables.sigma / 2)
        self._keep(root_epsilon=np.sqrt(tables.epsilon), pair_atoms=wanted[visible[wanted]])
        # Pairs with parameters of their own, as sorted numbers; the last one stands behind every pair.
        own = np.sort(tables.exception_atoms, axis=1) @ np.array([tables.n_atoms, 1])
        self._keep(own_pairs=np.append(np.unique(own), tables.n_atoms**2))
        # The same pairs and parameters as the native kernel reads them.
        self.compiled = native_pairs_wanted()
        start, other = partners(tables.exception_atoms, tables.n_atoms)
        self._keep(own_start=start, own_other=other)
        self._keep(
            pair_parameters=np.stack([tables.charge, tables.sigma / 2, np.sqrt(tables.epsilon)], axis=1)
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
        shares += [cmap_shares(cmaps), np.full(pairs.shape, 0.5)]
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

    def forward(
        self,
        positions: torch.Tensor,
        cell: Optional[torch.Tensor] = None,
        active: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """eps_i^MM,sr of the wanted atoms.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), nm
            Of the whole system.
        cell : torch.Tensor, shape (3, 3), nm, optional
            Reduced box vectors in rows.
        active : torch.Tensor, shape (A,), int64, optional
            Visible atoms among the wanted ones that count this time; the energies of the others lack pairs.
            All by default.

        Returns
        -------
        torch.Tensor, shape (len(atoms),), float64, kJ/mol
        """
        positions = positions.to(torch.float64)
        energies = self.fixed_energies(positions, cell)
        total = torch.zeros(self.n_wanted + 1, dtype=torch.float64, device=positions.device)
        total = total.index_add(0, self.share_slot, self.share * energies.index_select(0, self.share_term))
        first, second, half = self.pair_energies(positions, cell, active)
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
        theta = bond_angles(vectors[start:stop].view(-1, 2, 3))
        angles = 0.5 * self.angle_k * (theta - self.angle_value).square()
        phi = dihedral_angles(vectors[stop:].view(-1, 3, 3))
        torsion_phi, rb_phi = phi[: self.n_torsions], phi[self.n_torsions : self.n_torsions + self.n_rb]
        torsions = self.torsion_k * (1.0 + torch.cos(self.torsion_n * torsion_phi - self.torsion_phase))
        cosine = -torch.cos(rb_phi)  # of phi − pi
        rb = self.rb_coefficients[:, 5]
        for m in range(4, -1, -1):
            rb = rb * cosine + self.rb_coefficients[:, m]
        cmaps = phi[self.n_torsions + self.n_rb :]
        if self.n_cmaps > 0:
            cmaps = self.cmap_spline(cmaps.view(-1, 2))
        r = lengths[self.n_bonds :]
        wells = lennard_jones(r, self.pair_sigma, self.pair_epsilon)
        pairs = short_range_pair(r, wells, self.pair_charge, self.r_on, self.r_off, self.coulomb)
        return torch.cat([bonds, angles, torsions, rb, cmaps, pairs])

    def cmap_spline(self, phi: torch.Tensor) -> torch.Tensor:
        """Bicubic periodic spline through each map at two dihedrals, shape (C, 2) -> (C,)."""
        size, turn = self.cmap_size.unsqueeze(1), 2.0 * math.pi
        knots = torch.remainder(phi, turn) * size.to(phi.dtype) / turn
        # The bounds also keep an index out of NaN, which then stays NaN in the energy.
        patch = torch.minimum(knots.detach().floor().to(torch.int64).clamp(min=0), size - 1)
        x = cubic_powers(knots - patch)
        index = self.cmap_start + patch[:, 0] * self.cmap_size + patch[:, 1]
        coefficients = self.patches.index_select(0, index)
        return (coefficients * x[:, 0].unsqueeze(2) * x[:, 1].unsqueeze(1)).sum(dim=(1, 2))

    def pair_energies(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], active: Optional[torch.Tensor] = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pairs of a wanted and a visible atom within r_off, each once: two atom indices, half the energy."""
        box: Optional[torch.Tensor] = None
        if self.periodic:
            box = cell
        wanted = self.pair_atoms if active is None else active
        if self.compiled and positions.device.type == "cpu" and (box is None or not box.requires_grad):
            return torch.ops.mlmm.short_range_pairs(
                positions,
                box,
                wanted,
                self.seen,
                self.pair_parameters,
                self.own_start,
                self.own_other,
                [self.r_on, self.r_off, float(self.switched), self.switch, self.cutoff, self.coulomb],
            )
        return self.searched_pairs(positions, box, wanted)

    def searched_pairs(
        self, positions: torch.Tensor, box: Optional[torch.Tensor], wanted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pairs found and evaluated in torch, on any device; the reference for the native kernel."""
        where = positions.detach()
        points, around = where.index_select(0, wanted), where.index_select(0, self.seen)
        possible = possible_neighbours(around, points, box, self.r_off)
        in_block = possible.shape[0] < around.shape[0]
        squared = near_squares(around.index_select(0, possible), points, box, in_block)
        found = (squared < self.r_off * self.r_off).nonzero()
        first = wanted.index_select(0, found[:, 0])
        second = self.seen.index_select(0, possible.index_select(0, found[:, 1]))
        # Pairs of two wanted atoms were found twice; an atom and itself, and 1-4 pairs, are no pairs here.
        listed = torch.zeros(positions.shape[0], dtype=torch.bool, device=positions.device)
        listed[wanted] = True
        key = torch.minimum(first, second) * positions.shape[0] + torch.maximum(first, second)
        special = self.own_pairs.index_select(0, torch.searchsorted(self.own_pairs, key)) == key
        once = ((first < second) | ~listed.index_select(0, second)) & (first != second) & ~special
        kept = once.nonzero().squeeze(1)
        first, second = first.index_select(0, kept), second.index_select(0, kept)
        vectors = minimum_image(positions.index_select(0, first) - positions.index_select(0, second), box)
        r = vectors.square().sum(-1).sqrt()
        sigma = self.half_sigma.index_select(0, first) + self.half_sigma.index_select(0, second)
        epsilon = self.root_epsilon.index_select(0, first) * self.root_epsilon.index_select(0, second)
        wells = lennard_jones(r, sigma, epsilon)
        if self.switched:
            wells = wells * switching_function(r, self.switch, self.cutoff)
        charge = self.charge.index_select(0, first) * self.charge.index_select(0, second)
        energy = short_range_pair(r, wells, charge, self.r_on, self.r_off, self.coulomb)
        return first, second, 0.5 * energy
