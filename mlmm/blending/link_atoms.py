"""Hydrogen caps on cut bonds: r_cap = r_A + d (r_B − r_A)/|r_B − r_A|, a function of two atoms of the system.

Automatic differentiation carries the force on a cap to the atom A that keeps it and to the atom B that it
replaces. No virtual site, no change of the topology: caps exist inside the potential's input alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Optional

import torch

from mlmm.elements import element_names
from mlmm.errors import EmbeddingError
from mlmm.modules import Module
from mlmm.potentials.base import PotentialModel, PotentialSpec, bound_module, is_capturable
from mlmm.structures import Structure, minimum_image

__all__ = ["CAP_LENGTHS", "CappedAtoms", "CappedModel", "cap_lengths", "check_cap_distances"]

#: Atomic number of A -> length of a single bond A–H, nm. CRC Handbook of Chemistry and Physics, 86th edition
#: (2005), section 9, "Characteristic bond lengths in free molecules", table A.
CAP_LENGTHS: Mapping[int, float] = {
    6: 0.109,
    7: 0.102,
    8: 0.096,
    14: 0.148,
    15: 0.142,
    16: 0.134,
    32: 0.153,
    33: 0.151,
    34: 0.147,
}
#: Caps nearer than this would be bonded to each other (H2: 0.074 nm; two hydrogens of CH2: 0.178 nm).
SMALLEST_CAP_DISTANCE = 0.1  # nm


class CappedAtoms(Module):
    """Some atoms of the system and a hydrogen on each bond that they lost; TorchScript can compile it.

    Parameters
    ----------
    atoms : sequence of int
        Of the system, in the order wanted.
    caps : sequence of (int, int)
        Cut bonds: the atom A that stays and keeps the cap, and the atom B that the cap replaces.
    lengths : sequence of float
        A–H for each cap, nm; see `cap_lengths`.
    """

    def __init__(self, atoms: Sequence[int], caps: Sequence[tuple[int, int]], lengths: Sequence[float]):
        super().__init__()
        self.register_buffer("atoms", torch.tensor(list(atoms), dtype=torch.int64))
        self.register_buffer("outer", torch.tensor([outer for outer, _ in caps], dtype=torch.int64))
        self.register_buffer("inner", torch.tensor([inner for _, inner in caps], dtype=torch.int64))
        self.register_buffer("lengths", torch.tensor(list(lengths), dtype=torch.float64))

    def forward(self, positions: torch.Tensor, cell: Optional[torch.Tensor]) -> torch.Tensor:
        """Positions (n + caps, 3), caps last, from those of the whole system (N, 3) and its cell, nm."""
        outer = positions.index_select(0, self.outer)
        bonds = minimum_image(positions.index_select(0, self.inner) - outer, cell)
        hydrogens = outer + self.lengths.unsqueeze(1) * bonds / bonds.square().sum(1, keepdim=True).sqrt()
        return torch.cat([positions.index_select(0, self.atoms), hydrogens])


class CappedModel(Module):
    """The potential's energy of a capped region, kJ/mol: link-atom mechanical embedding.

    TorchScript can compile it if it can compile the model.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int
        Atomic numbers of the region's atoms.
    atoms, caps, lengths
        As for `CappedAtoms`.
    charge, multiplicity : int
        Of the capped region, for a model that asks.
    """

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        atoms: Sequence[int],
        caps: Sequence[tuple[int, int]],
        lengths: Sequence[float],
        charge: int = 0,
        multiplicity: int = 1,
    ):
        super().__init__()
        capped_numbers = [*numbers, *[1] * len(caps)]
        self.capped = CappedAtoms(atoms, caps, lengths)
        bound = bound_module(model, capped_numbers, charge, multiplicity)
        self.model = _WholeEnergies(model, capped_numbers, charge, multiplicity) if bound is None else bound
        self.capturable = is_capturable(self.model)
        self.to(getattr(model, "device", "cpu"))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For the positions (N, 3) of the whole system and its box vectors (3, 3), nm; mean over members."""
        return self.members(positions, box).mean(dim=0).sum()

    def members(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """Energies of the atoms and then of the caps by each member of the model, (members, n + caps)."""
        return self.model(self.capped(positions, box), box)

    @property
    def visible(self) -> torch.Tensor:
        """Atoms that the model sees."""
        return self.capped.atoms

    @torch.jit.unused
    def contributions(self, positions: torch.Tensor, box: Optional[torch.Tensor]) -> torch.Tensor:
        """As `members`."""
        return self.members(positions, box)


class _WholeEnergies(Module):
    """A model without TorchScript form, bound to atomic numbers.

    With `keeps_charges`, `charges` holds what it predicted at the last call.
    """

    def __init__(self, model: PotentialModel, numbers: Sequence[int], charge: int, multiplicity: int):
        super().__init__()
        self.potential, self.charge, self.multiplicity = model, charge, multiplicity
        self.keeps_charges = False
        self.charges: torch.Tensor | None = None
        self.register_buffer("numbers", torch.tensor(list(numbers), dtype=torch.int64))

    def forward(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        structure = Structure(self.numbers, positions, cell, self.charge, self.multiplicity)
        result = self.potential.atom_energies(structure)
        if self.keeps_charges:
            self.charges = result.charges
        return result.energies.unsqueeze(0) if result.members is None else result.members


def cap_lengths(
    caps: Sequence[tuple[int, int]],
    numbers: Sequence[int] | Mapping[int, int],
    spec: PotentialSpec,
    *,
    is_single: Callable[[int, int], bool] | None = None,
    label: Callable[[int], str] = str,
) -> tuple[float, ...]:
    """A–H bond length of every cap, nm, once it is clear that hydrogens can stand in for what was cut.

    Parameters
    ----------
    caps : sequence of (int, int)
        As for `CappedAtoms`.
    numbers : sequence or mapping
        Atomic number of each atom of the system.
    spec : PotentialSpec
    is_single : callable, optional
        Whether the bond between two atoms is a single bond; not asked without.
    label : callable, optional
        Name of an atom in messages.

    Raises
    ------
    EmbeddingError
        A potential without hydrogen, a bond that is no single bond, or an atom whose bond to hydrogen is not
        tabulated.
    """
    if caps and 1 not in spec.elements:
        raise EmbeddingError(
            "a potential that knows hydrogen, for caps",
            f"{spec.name}, which does not",
            "choose whole molecules or another potential",
        )
    for outer, inner in caps:
        if is_single is not None and not is_single(outer, inner):
            raise EmbeddingError(
                "a single bond under every cap",
                f"{label(outer)}–{label(inner)}, which is none",
                "move the boundary, if possible to a bond between two sp3 carbons",
            )
        if int(numbers[outer]) not in CAP_LENGTHS:
            known = element_names(CAP_LENGTHS, " ")
            raise EmbeddingError(
                f"caps on {known}",
                f"{label(outer)} of the cut bond to {label(inner)}",
                "move the boundary to another bond",
            )
    return tuple(CAP_LENGTHS[int(numbers[outer])] for outer, _ in caps)


def check_cap_distances(
    caps: Sequence[tuple[int, int]],
    lengths: Sequence[float],
    positions: torch.Tensor,
    cell: torch.Tensor | None = None,
    *,
    label: Callable[[int], str] = str,
) -> None:
    """Make sure that no two caps stand where they would form a bond, as around a single replaced atom.

    Parameters
    ----------
    caps, lengths
        As for `CappedAtoms`.
    positions : torch.Tensor, shape (N, 3), nm
    cell : torch.Tensor, shape (3, 3), nm, optional
    label : callable, optional
        Name of an atom in messages.

    Raises
    ------
    EmbeddingError
        Names both cut bonds.
    """
    hydrogens = CappedAtoms([], caps, lengths)(positions.detach(), cell)
    distances = minimum_image(hydrogens.unsqueeze(0) - hydrogens.unsqueeze(1), cell).norm(dim=-1)
    close = torch.triu(distances < SMALLEST_CAP_DISTANCE, diagonal=1).nonzero().tolist()
    if close:
        i, j = close[0]
        bonds = " and ".join(f"{label(caps[k][0])}–{label(caps[k][1])}" for k in (i, j))
        raise EmbeddingError(
            f"caps at least {SMALLEST_CAP_DISTANCE:g} nm apart",
            f"{float(distances[i, j]):.3f} nm between those on {bonds}",
            "take more atoms into the region, or fewer",
        )
