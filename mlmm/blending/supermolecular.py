"""Scheme ``supermolecular``: whole energies with and without the region, so that no atom's share is needed.

E = E_MM + [E_ML(V) − E_ML(V∖S)] − (force-field terms that touch S); here is the part in brackets. V are the
atoms that the model sees, S those of the region; V∖S has hydrogen caps where S cuts bonds. No atom of S but
the inner end of a cut bond occurs in V∖S: the model's force on all others is exactly that of E_ML(V).

Let R be the model's receptive field and eps_i its per-atom energies. eps_i is the same in both passes unless
an atom of S or a cap is within R of i. With C the kept atoms and caps that are within R of either,

E_ML(V) − E_ML(V∖S) = sum_S eps_i(V) + sum_{C without caps} eps_i(V) − sum_C eps_i(V∖S)

however the model shares an energy between atoms. C has its neighbours within 2 R of S and caps; any larger
set of atoms gives the same energy, so that they come and go without a step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import torch

from mlmm.blending.link_atoms import CappedAtoms, cap_lengths, check_cap_distances
from mlmm.blending.static import zone_energies
from mlmm.errors import EmbeddingError
from mlmm.modules import Module
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.training import check_elements
from mlmm.structures import Structure, minimum_image, possible_neighbours
from mlmm.term_weights import CappedRegion

__all__ = ["SupermolecularBlend", "SupermolecularTotal", "capped_region", "supermolecular_blend"]

logger = logging.getLogger(__name__)


class _Remainder(Module):
    """V∖S with caps, and which of its atoms have another energy in V."""

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        visible: Sequence[int],
        region: CappedRegion,
        lengths: Sequence[float],
    ):
        super().__init__()
        kept = [place for place, atom in enumerate(visible) if atom not in region.atoms]
        kept_atoms = [visible[place] for place in kept]
        self.n_kept = len(kept)
        self.reach = float(model.spec.receptive_field)
        self.capped = CappedAtoms(kept_atoms, region.caps, lengths)
        self.model = zone_energies(model, [numbers[atom] for atom in kept_atoms] + [1] * len(region.caps))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.int64))
        removed = [atom for atom in visible if atom in region.atoms]
        self.register_buffer("removed", torch.tensor(removed, dtype=torch.int64))

    def centres(
        self, remaining: torch.Tensor, positions: torch.Tensor, box: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """C, places among the kept atoms and caps (n_kept + caps, 3)."""
        sources = torch.cat([positions.index_select(0, self.removed), remaining[self.n_kept :]]).detach()
        return _near(remaining.detach(), sources, box, self.reach).nonzero().squeeze(1)

    def forward(
        self, remaining: torch.Tensor, box: Optional[torch.Tensor], centres: torch.Tensor
    ) -> torch.Tensor:
        """sum_{i in C} eps_i(V∖S) by each member, (members,)."""
        return self.model(remaining, box, centres).sum(dim=1)


class SupermolecularBlend(Module):
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
    region : CappedRegion
    lengths : sequence of float
        A–H for each cap of the region, nm.
    """

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        visible: Sequence[int],
        region: CappedRegion,
        lengths: Sequence[float],
    ):
        super().__init__()
        self.model = zone_energies(model, [numbers[atom] for atom in visible])
        # Nothing remains of a system that is all inside: its energy is the first pass.
        rest = [] if region.atoms.issuperset(visible) else [region]
        self.remainders: Any = torch.nn.ModuleList(
            _Remainder(model, numbers, visible, removed, lengths) for removed in rest
        )
        inside = [float(atom in region.atoms) for atom in visible]
        self.register_buffer("visible", torch.tensor(list(visible), dtype=torch.int64))
        self.register_buffer("inside", torch.tensor(inside, dtype=torch.float64))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.members(positions, box).mean()

    def members(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """The same energy by each member of the model, (members,)."""
        weights = self.inside
        without: list[torch.Tensor] = []
        for remainder in self.remainders:
            remaining = remainder.capped(positions, box)
            centres = remainder.centres(remaining, positions, box)
            if centres.shape[0] > 0:
                without.append(remainder(remaining, box, centres))
                shared = remainder.kept.index_select(0, centres[centres < remainder.n_kept])
                weights = weights.index_add(0, shared, torch.ones_like(weights[shared]))
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


class SupermolecularTotal(Module):
    """The same from total energies of both passes, each over all atoms within a buffer around the region.

    For a model that gives no per-atom energies. It runs through a PythonForce: the atoms change from call to
    call, and a model bound to atomic numbers cannot follow.

    Parameters
    ----------
    model, numbers, visible, region, lengths
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
        region: CappedRegion,
        lengths: Sequence[float],
        buffer: float,
    ):
        super().__init__()
        self.potential, self.buffer = model, buffer
        self.region = CappedAtoms([atom for atom in visible if atom in region.atoms], region.caps, lengths)
        self.hydrogens = CappedAtoms([], region.caps, lengths)
        self.register_buffer("numbers", torch.tensor(list(numbers), dtype=torch.int64))
        self.register_buffer("visible", torch.tensor(list(visible), dtype=torch.int64))
        outside = [atom not in region.atoms for atom in range(len(numbers))]
        self.register_buffer("outside", torch.tensor(outside))

    def forward(self, positions: torch.Tensor, box: torch.Tensor | None = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm."""
        return self.members(positions, box).mean()

    def members(self, positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
        """The same energy by each member of the model, (members,)."""
        seen = self.seen(positions, box)
        difference = self._total(seen, positions, None, box)
        remaining = seen[self.outside[seen]]
        if len(remaining):
            difference = difference - self._total(remaining, positions, self.hydrogens(positions, box), box)
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
    region: CappedRegion,
    *,
    buffer: float | None = None,
    positions: torch.Tensor | None = None,
    cell: torch.Tensor | None = None,
    is_single: Callable[[int, int], bool] | None = None,
    label: Callable[[int], str] = str,
) -> SupermolecularBlend | SupermolecularTotal:
    """E_ML(V) − E_ML(V∖S, capped) as a module of the positions of the whole system.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int, shape (N,)
        Atomic numbers of the whole system.
    visible : sequence of int
        Atoms that the model sees: of known elements, no virtual sites. The others do not exist for it.
    region : CappedRegion
        S, see `capped_region`.
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
        A model with interactions of unlimited range, a region without visible atoms, a cap that cannot be
        (see `cap_lengths`, `check_cap_distances`) or on an atom that the model does not see.
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
    if region.atoms.isdisjoint(visible):
        raise EmbeddingError(
            "atoms that the potential knows in the region",
            "none",
            "choose a larger region or another potential",
        )
    check_elements(spec, [numbers[atom] for atom in visible])
    seen = frozenset(visible)
    for outer, inner in region.caps:
        if outer not in seen or inner not in seen:
            raise EmbeddingError(
                f"cut bonds between atoms that {spec.name} knows",
                f"{label(outer)}–{label(inner)}",
                "move the boundary to another bond",
            )
    lengths = cap_lengths(region.caps, numbers, spec, is_single=is_single, label=label)
    if positions is not None:
        check_cap_distances(region.caps, lengths, positions, cell, label=label)
    if spec.per_atom and buffer is None:
        blend: SupermolecularBlend | SupermolecularTotal = SupermolecularBlend(
            model, numbers, visible, region, lengths
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
        blend = SupermolecularTotal(model, numbers, visible, region, lengths, thickness)
    return blend.to(getattr(model, "device", "cpu"))


def capped_region(weights: Sequence[float] | np.ndarray, bonds: Sequence[tuple[int, int]]) -> CappedRegion:
    """Atoms with lambda > 1/2, and the bonds that they cut.

    Parameters
    ----------
    weights : sequence of float, shape (N,)
        lambda of every atom.
    bonds : sequence of (int, int)
        Of the whole system; those that are cut get a cap.

    Raises
    ------
    EmbeddingError
        No such atom.
    """
    values = np.asarray(weights, dtype=np.float64)
    atoms = frozenset(np.flatnonzero(values > 0.5).tolist())
    if not atoms:
        raise EmbeddingError(
            "atoms with lambda above 1/2", f"a largest lambda of {values.max():g}", "set a region with a core"
        )
    return CappedRegion(atoms, _cut_bonds(atoms, bonds))


def _cut_bonds(atoms: frozenset[int], bonds: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Bonds with one end inside, the outer end first, sorted."""
    ends = [(b, a) if a in atoms else (a, b) for a, b in bonds if (a in atoms) != (b in atoms)]
    return tuple(sorted((int(outer), int(inner)) for outer, inner in ends))
