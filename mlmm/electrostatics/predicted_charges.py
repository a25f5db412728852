"""Charges that a model predicts at every step, as a short-range correction to fixed charges under PME.

OpenMM's PME carries fixed charges q^0. What the predicted charges q(R) change is added here as

    E = sum_{i in S} d_i [ k_ii (q_i^0 + d_i/2) + sum_{j != i} k_ij (q_j^0 + d_j/2) ],
    d_i = lambda_i (q_i(R) − q_i^0) − u_i sum_j lambda_j (q_j(R) − q_j^0),  u_i = lambda_i²/sum lambda²,

the difference of two Coulomb sums with charges q^0 + d and q^0. It is one function of the positions, so that
automatic differentiation includes dq/dR. With T(r) the smooth tail of 1/r beyond r_q (`inverse_tail`),
s_ij the force field's factor (0 of an exclusion, 1/1.2 of an Amber 1-4 pair, else 1) and a the end of the
switching function,

    k_ij = K [ s_ij/r − T(r) − w_ij s_ij (1/r − T_a(r)) ],   k_ii = −K T(0).

T belongs to every pair of atoms, excluded ones and an atom with itself too: then what the truncation leaves
out is sum d_i q_j T(r_ij), the interaction of neutral distributions smeared over r_q: −(35/8) K p·mu/r_q³ to
leading order, with their dipoles p and mu. Without these terms it would be of order 1/r_q. In a polar liquid
the dipoles within r_q grow in number, and the error falls about as r_q⁻².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mlmm.blending.functions import short_range_inverse
from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.pair_formulas import inverse_tail
from mlmm.potentials.base import AtomEnergies, PotentialModel
from mlmm.structures import Structure, neighbour_pairs
from mlmm.units import COULOMB

__all__ = ["ChargeCorrection", "ChargedBlend", "EagerModel", "FixedZone"]


class ChargeCorrection(Module):
    """Energy of predicted charges less that of fixed ones, kJ/mol; see the head of this file.

    Parameters
    ----------
    charge : ndarray, shape (N,)
        q^0, e.
    special, factors : ndarray, shapes (X, 2) and (X,)
        Pairs with a factor s of their own.
    owned : ndarray, shape (N,), bool
        Atoms whose pairs the model may own.
    rule : {"share", "all"}
        w_ij = (lambda_i + lambda_j)/2, or the smaller of the two; zero for a pair that is not owned.
    charge_range : float
        r_q, nm: k and its first three derivatives vanish there. Infinite for the exact sum of an open system.
    switching_end : float, optional
        a, nm, at most r_q. Without it the pairs inside the zone belong to the model at every distance: k = 0.
    """

    def __init__(
        self,
        charge: np.ndarray,
        special: np.ndarray,
        factors: np.ndarray,
        owned: np.ndarray,
        *,
        rule: str,
        charge_range: float,
        switching_end: float | None,
    ):
        super().__init__()
        self.rule, self.coulomb, self.n_atoms = rule, COULOMB, len(charge)
        self.charge_range, self.switching_end = float(charge_range), switching_end
        keys = np.sort(special, axis=1).astype(np.int64) @ np.array([self.n_atoms, 1])
        order = np.argsort(keys)
        # The last key stands behind every pair, so that a search always finds a place.
        keys, factors = np.append(keys[order], self.n_atoms**2), np.append(factors[order], 1.0)
        arrays = {"charge": charge, "owned": owned, "keys": keys, "factors": factors}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array)))

    def changes(self, atoms: torch.Tensor, weights: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """d of some atoms, (S,), from their lambda and predicted charges; adds up to zero."""
        changes = weights * (predicted.to(torch.float64) - self.charge.index_select(0, atoms))
        shares = weights.square() / weights.square().sum()
        return changes - shares * changes.sum()

    def kernel(self, r: torch.Tensor, factors: torch.Tensor, owned: torch.Tensor) -> torch.Tensor:
        """k of pairs at distances r with factors s and fractions w, kJ/mol/e²."""
        return self.coulomb * (short_range_inverse(r, self.charge_range) - self._lacking(r, factors, owned))

    def _lacking(self, r: torch.Tensor, factors: torch.Tensor, owned: torch.Tensor) -> torch.Tensor:
        """What k/K lacks against a pair with s = 1 and w = 0, 1/nm."""
        lacking = (1.0 - factors) / r
        if self.switching_end is not None:
            lacking = lacking + owned * factors * short_range_inverse(r, self.switching_end)
        return lacking

    def forward(
        self,
        positions: torch.Tensor,
        box: torch.Tensor | None,
        atoms: torch.Tensor,
        weights: torch.Tensor,
        predicted: torch.Tensor,
    ) -> torch.Tensor:
        """The energy, a scalar.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), float64, nm
        box : torch.Tensor, shape (3, 3), nm, optional
        atoms : torch.Tensor, shape (S,), int64
            With lambda > 0.
        weights, predicted : torch.Tensor, shape (S,)
            Their lambda and predicted charges, e.
        """
        d = self.changes(atoms, weights, predicted)
        everywhere = torch.zeros(self.n_atoms, dtype=torch.float64, device=positions.device)
        lam, change = everywhere.index_copy(0, atoms, weights), everywhere.index_copy(0, atoms, d)
        where = positions.detach()
        first, second, images = neighbour_pairs(where, box, self.charge_range, atoms)
        if self.switching_end is None:
            outside = (lam.detach().index_select(0, second) == 0).nonzero().squeeze(1)
            first, second = first.index_select(0, outside), second.index_select(0, outside)
            images = images.index_select(0, outside)
        i = atoms.index_select(0, first)
        # The choice of images is no function to be differentiated: a third of the time of this energy.
        shifts = images - (where.index_select(0, second) - where.index_select(0, i))
        vectors = positions.index_select(0, second) - positions.index_select(0, i) + shifts
        r = vectors.square().sum(-1).sqrt()
        key = torch.minimum(i, second) * self.n_atoms + torch.maximum(i, second)
        place = torch.searchsorted(self.keys, key)
        special = self.keys.index_select(0, place) == key
        kernel = short_range_inverse(r, self.charge_range)
        near = special if self.switching_end is None else special | (r.detach() < self.switching_end)
        near = near.nonzero().squeeze(1)
        one, two, r_near = i.index_select(0, near), second.index_select(0, near), r.index_select(0, near)
        factors = torch.where(
            special[near], self.factors.index_select(0, place[near]), torch.ones_like(r_near)
        )
        own, other = lam.index_select(0, one), lam.index_select(0, two)
        fractions = 0.5 * (own + other) if self.rule == "share" else torch.minimum(own, other)
        both = self.owned.index_select(0, one) & self.owned.index_select(0, two)
        fractions = torch.where(both, fractions, torch.zeros_like(fractions))
        kernel = self.coulomb * kernel.index_add(0, near, -self._lacking(r_near, factors, fractions))
        sources = (self.charge + 0.5 * change).index_select(0, second)
        energy = (d.index_select(0, first) * sources * kernel).sum()
        if self.switching_end is not None:
            own_tail = inverse_tail(0.0, self.charge_range)
            energy = (
                energy - self.coulomb * own_tail * (d * (self.charge.index_select(0, atoms) + 0.5 * d)).sum()
            )
        return energy


class EagerModel:
    """A potential without its TorchScript form, which gives energies but no charges."""

    def __init__(self, potential: PotentialModel):
        self.potential, self.spec = potential, potential.spec
        self.device = getattr(potential, "device", "cpu")

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """As the potential itself."""
        return self.potential.atom_energies(structure)


class FixedZone(Module):
    """Atoms and lambda that stay: ``forward(positions, box) -> (atoms, weights)``."""

    def __init__(self, atoms: Sequence[int], weights: Sequence[float]):
        super().__init__()
        self.register_buffer("atoms", torch.tensor(list(atoms), dtype=torch.int64))
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64))

    def forward(self, positions: torch.Tensor, box: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The same at any positions."""
        return self.atoms, self.weights


class ChargedBlend(Module):
    """Any blend, and the correction for the charges that its model predicted on the way, kJ/mol.

    Parameters
    ----------
    blend : torch.nn.Module
        What is evaluated without charges.
    model : torch.nn.Module
        The blend's own module around the potential; after a call, `charges` holds those of the atoms asked
        for, and of caps behind them.
    zone : callable
        ``zone(positions, box) -> (atoms, weights)``: those atoms, in the same order.
    correction : ChargeCorrection
    name : str
        Of the potential, for messages.
    """

    # Any blend of `mlmm.blending` with its model; what they have in common is no class.
    blend: Any
    model: Any
    zone: Callable[..., tuple[torch.Tensor, torch.Tensor]]

    def __init__(
        self,
        blend: torch.nn.Module,
        model: torch.nn.Module,
        zone: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        correction: ChargeCorrection,
        name: str,
    ):
        super().__init__()
        self.blend, self.correction, self.name = blend, correction, name
        # No second owner of submodules of the blend.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "zone", zone)

    @property
    def visible(self) -> torch.Tensor:
        """Atoms that the model sees."""
        visible: torch.Tensor = self.blend.visible
        return visible

    def forward(self, positions: torch.Tensor, box: torch.Tensor | None = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        energy = self.blend(positions, box)
        atoms, weights = self.zone(positions, box)
        return energy + self.correction(positions, box, atoms, weights, self._taken()[: len(atoms)])

    def contributions(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """Those of the blend: the correction belongs to no single atom."""
        return self.blend.contributions(positions, box)

    def predicted(
        self, positions: torch.Tensor, box: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Atoms of the zone, their lambda, and the charges of these atoms and then of caps, e."""
        self.blend.contributions(positions, box)
        return (*self.zone(positions, box), self._taken())

    def charge_energy(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """The correction alone, kJ/mol."""
        atoms, weights, predicted = self.predicted(positions, box)
        return self.correction(positions, box, atoms, weights, predicted[: len(atoms)])

    def _taken(self) -> torch.Tensor:
        """The charges of the last call, which are then forgotten with all that hangs on them."""
        charges, self.model.charges = self.model.charges, None
        if charges is None:
            raise PotentialError(
                'a potential that predicts charges (AtomEnergies.charges) for electrostatics = "charges"',
                f"{self.name}, which predicts none",
                'write electrostatics = "mechanical", or choose another potential',
            )
        on_device: torch.Tensor = charges.to(self.visible.device)
        return on_device
