"""Several models as one potential: their mean is the energy, their spread says where not to believe it.

Schran, Brezina, Marsalek, J. Chem. Phys. 153, 104105 (2020), doi 10.1063/5.0016004.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import torch

from mlmm.elements import element_names
from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.potential import ANIPotential
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec, is_capturable, scriptable_module
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure

__all__ = ["Committee", "Spread", "committee_of", "committee_spread", "member_forces"]


@dataclass(frozen=True)
class Spread:
    """Standard deviations over the members of a committee.

    Parameters
    ----------
    energy : float
        Of the total energy, kJ/mol.
    atoms : torch.Tensor, shape (N,), kJ/mol
        Of the per-atom energies.
    forces : torch.Tensor, shape (N,), kJ/mol/nm, optional
        Of the force on each atom: root of the mean square of |F_k − mean F|.
    """

    energy: float
    atoms: torch.Tensor
    forces: torch.Tensor | None = None


class _Members(Module):
    """Bound models one after the other; TorchScript can compile it if it can compile each of them."""

    def __init__(self, models: Sequence[torch.nn.Module], whole: bool):
        super().__init__()
        self.models = torch.nn.ModuleList(models)
        self.whole = whole
        self.capturable = all(is_capturable(model) for model in models)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        rows: list[torch.Tensor] = []
        for model in self.models:
            found = model(positions, cell, centres)
            rows.append(found.mean(dim=0, keepdim=True) if self.whole else found)
        return torch.cat(rows)


class Committee(ShortOfSpec):
    """Several potentials as one, for instance of different training or different architecture.

    Every member of every model counts the same if the models have as many members each, else every model.
    Energies are compared: align models of different origin first (`align_energies`).

    Parameters
    ----------
    models : sequence of PotentialModel
        Two or more, trained on the same kind of energies.
    name : str, optional

    Raises
    ------
    PotentialError
        Fewer than two models, or some that cannot be mixed.
    """

    def __init__(self, models: Sequence[PotentialModel], name: str | None = None):
        self.models = tuple(models)
        self.whole = len({model.spec.members for model in self.models}) > 1
        self.spec = _joined([model.spec for model in self.models], name, self.whole)
        self.device = getattr(self.models[0], "device", torch.device("cpu"))

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Mean and members, kJ/mol."""
        results = [model.atom_energies(structure) for model in self.models]
        members = torch.cat(
            [r.energies.unsqueeze(0) if r.members is None or self.whole else r.members for r in results]
        )
        multipoles = [
            _mean([getattr(r, name) for r in results]) for name in ("charges", "dipoles", "quadrupoles")
        ]
        return AtomEnergies(members.mean(dim=0), members, *multipoles)

    @property
    def scriptable(self) -> Callable[..., torch.nn.Module] | None:
        """The members bound to atomic numbers, or None where one of them has no TorchScript form."""
        found = [scriptable_module(model) for model in self.models]
        factories = [factory for factory in found if factory is not None]
        if len(factories) < len(found):
            return None

        def bind(numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
            return _Members([factory(numbers, centres) for factory in factories], self.whole)

        return bind


def _mean(values: list[torch.Tensor | None]) -> torch.Tensor | None:
    """Mean of what all members predict; None where one of them does not."""
    found = [value for value in values if value is not None]
    return torch.stack(found).mean(dim=0) if len(found) == len(values) else None


def _joined(specs: list[PotentialSpec], name: str | None, whole: bool) -> PotentialSpec:
    """What a committee knows is what all its members know; it sees as far as the farthest of them."""
    if len(specs) < 2:
        raise PotentialError("two models or more in a committee", f"{len(specs)}", "use the model alone")
    for key in ("trained_on", "per_atom", "charges", "external", "spins", "long_range"):
        values = {getattr(spec, key) for spec in specs}
        if len(values) > 1:
            raise PotentialError(
                f"models of one {key} in a committee",
                ", ".join(f"{spec.name}: {getattr(spec, key)!r}" for spec in specs),
                "leave out those that differ",
            )
    elements = tuple(z for z in specs[0].elements if all(z in spec.elements for spec in specs))
    if not elements:
        raise PotentialError("models with elements in common", "none", "choose other models")

    def mean(tables: list) -> dict[int, float]:
        return {
            z: float(np.mean([table[z] for table in tables])) for z in elements if all(z in t for t in tables)
        }

    alignments = [{z: spec.alignment.get(z, 0.0) for z in elements} for spec in specs]
    levels = dict.fromkeys(spec.level_of_theory for spec in specs)
    return PotentialSpec(
        name=name or " + ".join(spec.name for spec in specs),
        elements=elements,
        cutoff=max(spec.cutoff for spec in specs),
        receptive_field=max(spec.receptive_field for spec in specs),
        trained_on=specs[0].trained_on,
        per_atom=specs[0].per_atom,
        charges=specs[0].charges,
        external=specs[0].external,
        polarisation_range=max(spec.polarisation_range for spec in specs),
        spins=specs[0].spins,
        trained_charges=_common_charges(specs),
        long_range=specs[0].long_range,
        members=len(specs) if whole else sum(spec.members for spec in specs),
        reference_energies=mean([spec.reference_energies for spec in specs]),
        alignment=mean(alignments) if any(spec.alignment for spec in specs) else {},
        precision="float32" if any(spec.precision == "float32" for spec in specs) else "float64",
        native_units=specs[0].native_units,
        layers=max(spec.layers for spec in specs),
        deterministic=all(spec.deterministic for spec in specs),
        level_of_theory=" / ".join(levels),
        licence=" / ".join(dict.fromkeys(spec.licence for spec in specs)),
        citation="; ".join(dict.fromkeys(spec.citation for spec in specs)),
    )


def _common_charges(specs: list[PotentialSpec]) -> tuple[int, ...]:
    """Charges that all members were trained on, of those whose charges are known."""
    known = [set(spec.trained_charges) for spec in specs if spec.trained_charges]
    if not known:
        return ()
    common = set.intersection(*known)
    if not common:
        raise PotentialError(
            "models trained on a common net charge in a committee",
            "; ".join(f"{spec.name}: {spec.trained_charges}" for spec in specs),
            "leave out those that differ",
        )
    return tuple(sorted(common))


def committee_of(models: Sequence[PotentialModel], name: str | None = None) -> PotentialModel:
    """Several potentials as one; ANI models of one kind share their symmetry functions and one network pass.

    Parameters
    ----------
    models : sequence of PotentialModel
    name : str, optional

    Raises
    ------
    PotentialError
        As `Committee`.
    """
    committee = Committee(models, name)
    alike = [model for model in models if type(model) is ANIPotential]
    if len(alike) == len(models) and not committee.whole:
        joined = _joined_parameters([model.parameters for model in alike])
        if joined is not None and len({_setting(model) for model in alike}) == 1:
            spec = committee.spec
            return ANIPotential(
                joined,
                name=spec.name,
                trained_on=spec.trained_on,
                level_of_theory=spec.level_of_theory,
                licence=spec.licence,
                citation=spec.citation,
                trained_charges=spec.trained_charges,
                precision=spec.precision,
                device=str(committee.device),
                kernel=alike[0].kernel,
                shapes=alike[0].shapes,
                neighbour_density=alike[0].neighbour_density,
            )
    return committee


def _setting(model: ANIPotential) -> tuple:
    """What ANI models that share one pass have in common."""
    return (model.spec.precision, model.device, model.kernel, model.shapes, model.neighbour_density)


def _joined_parameters(parts: list[ANIParameters]) -> ANIParameters | None:
    """One set of members; None where symmetry functions or network shapes differ."""
    first = parts[0]
    for other in parts[1:]:
        if other.elements != first.elements or other.constants.keys() != first.constants.keys():
            return None
        if any(not np.array_equal(first.constants[key], other.constants[key]) for key in first.constants):
            return None
        for e in first.elements:
            shapes = [[layer.shape[1:] for layer in part.weights[e]] for part in (first, other)]
            if shapes[0] != shapes[1]:
                return None

    def stacked(tables: list[dict[str, list[np.ndarray]]]) -> dict[str, list[np.ndarray]]:
        return {
            e: [np.concatenate(layers) for layers in zip(*(table[e] for table in tables), strict=True)]
            for e in first.elements
        }

    return ANIParameters(
        first.elements,
        first.constants,
        np.mean([part.self_energies for part in parts], axis=0),
        stacked([part.weights for part in parts]),
        stacked([part.biases for part in parts]),
    )


def member_forces(totals: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Force of each member, (K, N, 3), from their total energies (K,): one backward pass each.

    Parameters
    ----------
    totals : torch.Tensor, shape (K,), kJ/mol
        Attached to `positions`.
    positions : torch.Tensor, shape (N, 3), nm
        That requires gradients.
    """
    forces = []
    for k in range(len(totals)):
        more = k + 1 < len(totals)
        (gradient,) = torch.autograd.grad(totals[k], positions, retain_graph=more, allow_unused=True)
        forces.append(torch.zeros_like(positions) if gradient is None else -gradient)
    return torch.stack(forces)


def force_spread(forces: torch.Tensor) -> torch.Tensor:
    """sqrt(sum_k |F_k − mean F|² / (K − 1)) of every atom, (N,), from forces (K, N, 3)."""
    spread = forces.new_zeros(forces.shape[1])
    # Of a whole system few atoms feel the potential.
    acting = (forces != 0).any(dim=0).any(dim=1)
    spread[acting] = forces[:, acting].std(dim=0).square().sum(dim=1).sqrt()
    return spread


def committee_spread(model: PotentialModel, structure: Structure, *, forces: bool = True) -> Spread:
    """How much the members of a committee disagree about a structure.

    Energies cost nothing beyond the energy itself; forces one backward pass for each member.

    Parameters
    ----------
    model : PotentialModel
        With two members or more.
    structure : Structure
    forces : bool

    Raises
    ------
    PotentialError
        A model with a single member, or an element that it does not know.
    """
    positions = structure.positions.detach().clone().requires_grad_(forces)
    moved = replace(structure, positions=positions)
    with torch.set_grad_enabled(forces):
        result = model.atom_energies(moved)
    if result.members is None or len(result.members) < 2:
        symbols = element_names(model.spec.elements[:6], " ")
        raise PotentialError(
            "a committee of two members or more",
            f"{model.spec.name} ({symbols} …) with one",
            "join several models with mlmm.potentials.committee_of",
        )
    members = result.members
    spread = force_spread(member_forces(members.sum(dim=1), positions)) if forces else None
    members = members.detach()
    return Spread(float(members.sum(dim=1).std()), members.std(dim=0), spread)
