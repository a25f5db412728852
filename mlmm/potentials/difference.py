"""A base potential plus a learned difference: Δ-learning.

Ramakrishnan et al., J. Chem. Theory Comput. 11, 2087 (2015), doi 10.1021/acs.jctc.5b00099. E = E_base + Σ_i
Δ_i; the file of the difference names its base.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Optional

import torch

from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.base import AtomEnergies, PotentialModel, is_capturable, scriptable_module
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure

__all__ = ["DifferencePotential"]


class _Sum(Module):
    """Two bound models added; TorchScript can compile it if it can compile both."""

    def __init__(self, base: torch.nn.Module, difference: torch.nn.Module):
        super().__init__()
        self.base, self.difference = base, difference
        self.capturable = is_capturable(base) and is_capturable(difference)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        # The spread is that of the difference: the base is one number.
        base = self.base(positions, cell, centres).mean(dim=0, keepdim=True)
        return base + self.difference(positions, cell, centres)


class DifferencePotential(ShortOfSpec):
    """The sum of a base and a difference that was learned from labels minus that base.

    Parameters
    ----------
    base, difference : PotentialModel
        The difference was trained for isolated molecules or total energies; one to a force field needs no
        base
        here, but scheme ``delta``.

    Raises
    ------
    PotentialError
        A base that lacks elements of the difference.
    """

    def __init__(self, base: PotentialModel, difference: PotentialModel):
        lacking = sorted(set(difference.spec.elements) - set(base.spec.elements))
        if lacking:
            raise PotentialError(
                f"a base that knows the elements of {difference.spec.name}",
                f"{base.spec.name} without atomic numbers {lacking}",
                "name the base that the difference was trained with",
            )
        self.base, self.difference = base, difference
        self.device = getattr(difference, "device", torch.device("cpu"))
        a, b = base.spec, difference.spec
        references = {
            z: a.reference_energies.get(z, 0.0) + b.reference_energies.get(z, 0.0) for z in b.elements
        }
        self.spec = dataclasses.replace(
            b,
            cutoff=max(a.cutoff, b.cutoff),
            receptive_field=max(a.receptive_field, b.receptive_field),
            per_atom=a.per_atom and b.per_atom,
            charges=a.charges,
            spins=a.spins,
            # The difference knows the charges of its labels only, whatever the base knows.
            long_range=a.long_range or b.long_range,
            reference_energies=references if a.reference_energies or b.reference_energies else {},
            precision="float32" if "float32" in (a.precision, b.precision) else "float64",
            layers=max(a.layers, b.layers),
            deterministic=a.deterministic and b.deterministic,
            licence=" / ".join(dict.fromkeys([b.licence, a.licence])),
            citation="; ".join(dict.fromkeys([b.citation, a.citation])),
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies of both added, kJ/mol; members are those of the difference."""
        base, found = self.base.atom_energies(structure), self.difference.atom_energies(structure)
        members = None if found.members is None else found.members + base.energies
        return AtomEnergies(found.energies + base.energies, members, base.charges)

    @property
    def scriptable(self) -> Callable[..., torch.nn.Module] | None:
        """Both bound to atomic numbers, or None where one of them has no such form."""
        factories = [scriptable_module(self.base), scriptable_module(self.difference)]
        base, difference = factories
        if base is None or difference is None:
            return None

        def bind(numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
            return _Sum(base(numbers, centres), difference(numbers, centres))

        return bind
