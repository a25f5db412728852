"""Scheme ``supermolecular``: whole energies with and without the region, so that no atom's share is needed.

E = E_MM + sum_l w_l {[E_ML(V) − E_ML(V∖S_l)] − (force-field terms that touch S_l)}; here is the part in
brackets. V are the atoms that the model sees; V∖S_l has hydrogen caps where S_l cuts bonds. No atom of S_l
but the inner end of a cut bond occurs in V∖S_l: the model's force on all others is exactly that of E_ML(V).

Let R be the model's receptive field and eps_i its per-atom energies. eps_i is the same in both passes unless
an atom of S_l or a cap is within R of i. With C_l the kept atoms and caps that are within R of either,

E_ML(V) − E_ML(V∖S_l) = sum_{S_l} eps_i(V) + sum_{C_l without caps} eps_i(V) − sum_{C_l} eps_i(V∖S_l)

however the model shares an energy between atoms. C_l has its neighbours within 2 R of S_l and caps; any
larger set of atoms gives the same energy, so that they come and go without a step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Optional

import numpy as np
import torch

from mlmm.blending.link_atoms import CappedAtoms, cap_lengths, check_cap_distances
from mlmm.blending.static import zone_energies
from mlmm.errors import EmbeddingError
from mlmm.potentials.base import PotentialModel, check_elements
from mlmm.structures import Structure, minimum_image, possible_neighbours
from mlmm.term_weights import Level

__all__ = ["SupermolecularBlend", "SupermolecularTotal", "levels_of", "supermolecular_blend"]

logger = logging.getLogger(__name__)


class _Remainder(torch.nn.Module):
    """V∖S_l with caps, and which of its atoms have another energy in V."""

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        visible: Sequence[int],
        level: Level,
        lengths: Sequence[float],
    ):
        super().__init__()
        kept = [place for place, atom in enumerate(visible) if atom not in level.atoms]
        kept_atoms = [visible[place] for place in kept]
        self.n_kept = len(kept)
        self.reach = float(model.spec.receptive_field)
        self.weight = float(level.weight)
        self.capped = CappedAtoms(kept_atoms, level.caps, lengths)
        self.model = zone_energies(model, [numbers[atom] for atom in kept_atoms] + [1] * len(level.caps))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.int64))
        removed = [atom for atom in visible if atom in level.atoms]
        self.register_buffer("removed", torch.tensor(removed, dtype=torch.int64))

    def centres(
        self, remaining: torch.Tensor, positions: torch.Tensor, box: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """C_l, places among the kept atoms and caps (n_kept + caps, 3)."""
        sources = torch.cat([positions.index_select(0, self.removed), remaining[self.n_kept :]]).detach()
        return _near(remaining.detach(), sources, box, self.reach).nonzero().squeeze(1)

    def forward(
        self, remaining: torch.Tensor, box: Optional[torch.Tensor], centres: torch.Tensor
    ) -> torch.Tensor:
        """sum_{i in C_l} eps_i(V∖S_l) by each member, (members,)."""
        return self.model(remaining, box, centres).sum(dim=1)


class SupermolecularBlend(torch.nn.Module):
    """What is added to OpenMM's energy, kJ/mol; TorchScript can compile it if it can compile the model.

    Only atoms whose energy differs between the passes are evaluated. Made by `supermolecular_blend`.

    Parameters
    ----------
    model : PotentialModel
        With per-atom energies that depend on nothing beyond the receptive field.
    numbers : sequence of int, shape (N,)
        Atomic numbers of the whole system.
    visible : sequence of int
        Atoms that the model sees, by their index in the system, sorted.
    levels : sequence of Level
    lengths : sequence of sequence of float
        For each level, A–H for each of its caps, nm.
    """

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        visible: Sequence[int],
        levels: Sequence[Level],
        lengths: Sequence[Sequence[float]],
    ):
        super().__init__()
        self.model = zone_energies(model, [numbers[atom] for atom in visible])
        self.remainders = torch.nn.ModuleList(
            _Remainder(model, numbers, visible, level, level_lengths)
            for level, level_lengths in zip(levels, lengths, strict=True)
            # Nothing remains of a system that is all inside: its energy is the first pass.
            if not level.atoms.issuperset(visible)
        )
        inside = [sum(level.weight for level in levels if atom in level.atoms) for atom in visible]
        self.register_buffer("visible", torch.tensor(list(visible), dtype=torch.int64))
        self.register_buffer("inside", torch.tensor(inside, dtype=torch.float64))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.members(positions, box).mean()

    def members(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """The same energy by each member of the model, (members,)."""
        # The host's device is the module's own in a TorchForce, the processor's in a PythonForce.
        positions = positions.to(self.inside.device, torch.float64)
        if box is not None:
            box = box.to(self.inside.device, torch.float64)
        weights = self.inside
        without: list[torch.Tensor] = []
        for remainder in self.remainders:
            remaining = remainder.capped(positions, box)
            centres = remainder.centres(remaining, positions, box)
            if centres.shape[0] > 0:
                without.append(remainder.weight * remainder(remaining, box, centres))
                shared = remainder.kept.index_select(0, centres[centres < remainder.n_kept])
                weights = weights.index_add(0, shared, torch.full_like(weights[shared], remainder.weight))
        wanted = (weights > 0).nonzero().squeeze(1)
        energies = self.model(positions.index_select(0, self.visible), box, wanted)
        difference = (energies * weights.index_select(0, wanted)).sum(dim=1)
        for energy in without:
            difference = difference - energy
        return difference

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """The same as (members, 1): what a committee disagrees about."""
        return self.members(positions, box).unsqueeze(1)


class SupermolecularTotal(torch.nn.Module):
    """The same from total energies of both passes, each over all atoms within a buffer around the region.

    For a model that gives no per-atom energies. It runs through a PythonForce: the atoms change from call to
    call, and a model bound to atomic numbers cannot follow.

    Parameters
    ----------
    model, numbers, visible, levels, lengths
        As for `SupermolecularBlend`.
    buffer : float
        Thickness, nm. From twice the receptive field on, the energy is that of infinite thickness; below, it
        has a step wherever an atom enters or leaves.
    """

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        visible: Sequence[int],
        levels: Sequence[Level],
        lengths: Sequence[Sequence[float]],
        buffer: float,
    ):
        super().__init__()
        self.potential, self.buffer, self.levels = model, buffer, tuple(levels)
        inside = frozenset().union(*(level.atoms for level in levels))
        region = [atom for atom in visible if atom in inside]
        caps = [cap for level in levels for cap in level.caps]
        self.region = CappedAtoms(region, caps, [length for each in lengths for length in each])
        self.hydrogens = torch.nn.ModuleList(
            CappedAtoms([], level.caps, each) for level, each in zip(levels, lengths, strict=True)
        )
        self.register_buffer("numbers", torch.tensor(list(numbers), dtype=torch.int64))
        self.register_buffer("visible", torch.tensor(list(visible), dtype=torch.int64))
        outside = [[atom not in level.atoms for atom in range(len(numbers))] for level in levels]
        self.register_buffer("outside", torch.tensor(outside))

    def forward(self, positions: torch.Tensor, box: torch.Tensor | None = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.members(positions, box).mean()

    def members(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """The same energy by each member of the model, (members,)."""
        positions = positions.to(self.visible.device, torch.float64)
        if box is not None:
            box = box.to(self.visible.device, torch.float64)
        seen = self.seen(positions, box)
        difference = self._total(seen, positions, None, box)
        for level, outside, hydrogens in zip(self.levels, self.outside, self.hydrogens, strict=True):
            remaining = seen[outside[seen]]
            caps = hydrogens(positions, box)
            if len(remaining):
                difference = difference - level.weight * self._total(remaining, positions, caps, box)
        return difference

    def contributions(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """The same as (members, 1): what a committee disagrees about."""
        return self.members(positions, box).unsqueeze(1)

    def seen(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """Atoms of the first pass, by their index in the system."""
        # Minimum image finds distances below half of the box only; with all atoms nothing is missed.
        if box is not None and self.buffer >= 0.5 * float(torch.diagonal(box).min()):
            return self.visible
        where = positions.detach()
        near = _near(where[self.visible], self.region(where, box), box, self.buffer)
        return self.visible[near]

    def _total(
        self,
        atoms: torch.Tensor,
        positions: torch.Tensor,
        caps: torch.Tensor | None,
        box: torch.Tensor | None,
    ) -> torch.Tensor:
        numbers, where = self.numbers[atoms], positions[atoms]
        if caps is not None:
            numbers = torch.cat([numbers, torch.ones(len(caps), dtype=torch.int64, device=numbers.device)])
            where = torch.cat([where, caps])
        result = self.potential.atom_energies(Structure(numbers, where, box))
        members = result.energies.unsqueeze(0) if result.members is None else result.members
        return members.sum(dim=1)


def _near(
    positions: torch.Tensor, sources: torch.Tensor, cell: Optional[torch.Tensor], reach: float
) -> torch.Tensor:
    """Which positions (n, 3) are within reach of a source (m, 3), by minimum image; (n,)."""
    possible = possible_neighbours(positions, sources, cell, reach)
    where = positions.index_select(0, possible)
    found = torch.zeros(possible.shape[0], dtype=torch.bool, device=positions.device)
    # In blocks: all pairs of a large region and its surroundings do not fit into memory.
    for start in range(0, sources.shape[0], 64):
        block = sources[start : start + 64].unsqueeze(1)
        squared = minimum_image(where.unsqueeze(0) - block, cell).square().sum(-1)
        found = found.logical_or((squared <= reach * reach).any(dim=0))
    near = torch.zeros(positions.shape[0], dtype=torch.bool, device=positions.device)
    near[possible] = found
    return near


def supermolecular_blend(
    model: PotentialModel,
    numbers: Sequence[int],
    visible: Sequence[int],
    levels: Sequence[Level],
    *,
    buffer: float | None = None,
    positions: torch.Tensor | None = None,
    cell: torch.Tensor | None = None,
    is_single: Callable[[int, int], bool] | None = None,
    label: Callable[[int], str] = str,
) -> SupermolecularBlend | SupermolecularTotal:
    """sum_l w_l [E_ML(V) − E_ML(V∖S_l, capped)] as a module of the positions of the whole system.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int, shape (N,)
        Atomic numbers of the whole system.
    visible : sequence of int
        Atoms that the model sees: of known elements, no virtual sites. The others do not exist for it.
    levels : sequence of Level
        Weights that add up to 1, see `levels_of`.
    buffer : float, optional
        Whole energies of all atoms within this distance, nm, instead of exact sums over atoms; twice the
        receptive field by default for a model without per-atom energies.
    positions : torch.Tensor, shape (N, 3), nm, optional
        Where to see whether caps collide; `cell` (3, 3) belongs to it.
    is_single, label
        As for `mlmm.blending.link_atoms.cap_lengths`.

    Returns
    -------
    SupermolecularBlend or SupermolecularTotal
        The second for a model without per-atom energies or with a `buffer`; it runs through a PythonForce.

    Raises
    ------
    EmbeddingError
        A model with interactions of unlimited range, no level, a level without visible atoms, a cap that
        cannot be (see `cap_lengths`, `check_cap_distances`) or on an atom that the model does not see.
    PotentialError
        A visible atom whose element the model does not know.
    """
    spec = model.spec
    numbers = [int(number) for number in numbers]
    visible = sorted(int(atom) for atom in visible)
    if spec.long_range:
        raise EmbeddingError(
            "a potential with a finite range for scheme 'supermolecular'",
            f"{spec.name}, whose interactions have no limit",
            'use scheme = "additive"',
        )
    if not levels or any(level.atoms.isdisjoint(visible) for level in levels):
        raise EmbeddingError(
            "atoms that the potential knows in every level",
            "none",
            "choose a larger region or another potential",
        )
    check_elements(spec, [numbers[atom] for atom in visible])
    seen = frozenset(visible)
    for level in levels:
        for outer, inner in level.caps:
            if outer not in seen or inner not in seen:
                raise EmbeddingError(
                    f"cut bonds between atoms that {spec.name} knows",
                    f"{label(outer)}–{label(inner)}",
                    "move the boundary to another bond",
                )
    lengths = [cap_lengths(level.caps, numbers, spec, is_single=is_single, label=label) for level in levels]
    if positions is not None:
        for level, each in zip(levels, lengths, strict=True):
            check_cap_distances(level.caps, each, positions, cell, label=label)
    if spec.per_atom and buffer is None:
        blend: SupermolecularBlend | SupermolecularTotal = SupermolecularBlend(
            model, numbers, visible, levels, lengths
        )
    else:
        exact = 2 * spec.receptive_field
        if buffer is not None and buffer < exact:
            logger.warning(
                "buffer %.3g nm is below twice the receptive field of %s (%.3g nm): the energy has steps",
                buffer,
                spec.name,
                exact,
            )
        thickness = exact if buffer is None else float(buffer)
        blend = SupermolecularTotal(model, numbers, visible, levels, lengths, thickness)
    return blend.to(getattr(model, "device", "cpu"))


def levels_of(
    weights: Sequence[float] | np.ndarray, bonds: Sequence[tuple[int, int]], n_levels: int = 1
) -> tuple[Level, ...]:
    """Nested sets S_1 < S_2 < … that stand for smooth weights: S of threshold t holds all lambda > t.

    The thresholds are (l − 1/2)/n with weight 1/n each, so that the weights of the sets that hold an atom add
    up to its lambda rounded to n steps. Equal sets become one.

    Parameters
    ----------
    weights : sequence of float, shape (N,)
        lambda of every atom.
    bonds : sequence of (int, int)
        Of the whole system; those that a set cuts get a cap.
    n_levels : int
        At most so many sets, each with one more pass of the model.

    Returns
    -------
    tuple of Level
        Smallest set first.

    Raises
    ------
    EmbeddingError
        No level at all, or no atom with lambda above the highest threshold.
    """
    if n_levels < 1:
        raise EmbeddingError("at least one level", str(n_levels), "set levels = 1 or more")
    values = np.asarray(weights, dtype=np.float64)
    shares: dict[frozenset[int], float] = {}
    for k in reversed(range(n_levels)):
        atoms = frozenset(np.flatnonzero(values > (k + 0.5) / n_levels).tolist())
        if not atoms:
            raise EmbeddingError(
                "a core of lambda = 1", f"a largest lambda of {values.max():g}", "set a region with a core"
            )
        shares[atoms] = shares.get(atoms, 0.0) + 1.0 / n_levels
    return tuple(Level(share, atoms, _cut_bonds(atoms, bonds)) for atoms, share in shares.items())


def _cut_bonds(atoms: frozenset[int], bonds: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Bonds with one end inside, the outer end first, sorted."""
    ends = [(b, a) if a in atoms else (a, b) for a, b in bonds if (a in atoms) != (b in atoms)]
    return tuple(sorted((int(outer), int(inner)) for outer, inner in ends))
