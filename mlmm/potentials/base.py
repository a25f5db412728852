"""The contract between the engine and a machine-learned potential.

A potential is any object with a `spec` and a method `atom_energies(structure)`. Forces are derived here,
once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.spec import PotentialSpec
from mlmm.potentials.training import check_electrons, check_elements
from mlmm.short_repr import ShortRepr
from mlmm.structures import ExternalCharges, Structure, minimum_image

__all__ = [
    "ON_TOP",
    "AtomEnergies",
    "PotentialModel",
    "PotentialSpec",
    "bound_module",
    "check_state",
    "energy_and_all_forces",
    "energy_and_forces",
    "field_module",
    "is_capturable",
    "scriptable_module",
]

#: nm; a point charge nearer to an atom is a mistake: its energy has no bound.
ON_TOP = 0.01


@dataclass(frozen=True, repr=False)
class AtomEnergies(ShortRepr):
    """Per-atom energies of a structure, isolated-atom energies removed, kJ/mol.

    Parameters
    ----------
    energies : torch.Tensor, shape (N,), float64
        Mean over the committee, if there is one.
    members : torch.Tensor, shape (K, N), float64, optional
        The same for each member of a committee.
    charges : torch.Tensor, shape (N,), optional
        Predicted charges, e.
    dipoles : torch.Tensor, shape (N, 3), optional
        Predicted, e nm.
    quadrupoles : torch.Tensor, shape (N, 3, 3), optional
        Predicted, traceless, half of a second moment, e nm².
    """

    energies: torch.Tensor
    members: torch.Tensor | None = None
    charges: torch.Tensor | None = None
    dipoles: torch.Tensor | None = None
    quadrupoles: torch.Tensor | None = None

    def _summary(self) -> dict[str, str]:
        return {
            "atoms": f"{len(self.energies):,}",
            "sum": f"{float(self.energies.detach().sum()):.3f} kJ/mol",
            "members": "1" if self.members is None else str(len(self.members)),
            "charges": "" if self.charges is None else f"sum {float(self.charges.detach().sum()):+.3f} e",
        }

    @property
    def spread(self) -> torch.Tensor | None:
        """Standard deviation of each atom's energy over the members (N,); None for a single model."""
        return None if self.members is None or len(self.members) < 2 else self.members.std(dim=0)

    @property
    def total_spread(self) -> torch.Tensor | None:
        """Standard deviation of the total energy over the members; None for a single model."""
        return None if self.members is None or len(self.members) < 2 else self.members.sum(dim=1).std()


@runtime_checkable
class PotentialModel(Protocol):
    """Anything that gives per-atom energies.

    A model may also have ``scriptable(numbers, centres=None) -> torch.nn.Module`` whose
    ``forward(positions, cell, centres=None)`` TorchScript can compile: positions (N, 3) in nm, cell (3, 3) or
    None, result (K, C) in kJ/mol for K members and C centres, the atoms whose energies are wanted. They are
    bound once or, where they change from call to call, given with the positions; all atoms by default. With
    it the model runs inside a TorchForce without Python; without it, through a PythonForce. A model that
    knows the total charge or the multiplicity takes it as a further keyword, ``charge=0`` and
    ``multiplicity=1``.

    A model whose spec declares `external` takes ``structure.external``: its energies are then those in the
    field of these charges, Coulomb's law with them included, and it returns charges, and dipoles and
    quadrupoles where it has them. The TorchScript form of one that takes "charges" has ``in_field(positions,
    cell, external_positions, external_charges, charge_width)``: energies (K, N) *without* Coulomb's law
    between region and charges, Gaussians of that width, which the engine adds for all charges. That of one
    that takes "potential" has ``in_potential(positions, cell, potential, gradient, curvature)`` with the
    potential of all charges at the atoms in kJ/mol/e (N,), its gradient (N, 3) and the traceless part of its
    second derivatives (N, 3, 3) in nm: energies (K, N) *with* the energy in the potential. Both also return
    charges (N,), dipoles (N, 3) and quadrupoles (N, 3, 3) in e and nm, means over the members, zeros where
    there are none; with "potential" they are the derivatives of the energy in what was given.

    A model without it refuses such a structure; `check_state` does so.

    An adapter may have ``own_energy_and_forces(structure) -> (float, (N, 3))``: the original's total energy,
    isolated-atom energies included, and forces, by its own code; `check_potential` compares with them.
    """

    spec: PotentialSpec

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies in kJ/mol, differentiable in ``structure.positions``."""
        ...


def scriptable_module(model: PotentialModel) -> Callable[..., Module] | None:
    """The factory of the model's TorchScript form, or None where it has none.

    A form that cannot be told the charge or the multiplicity that its model takes into account is none.
    """
    factory = getattr(model, "scriptable", None)
    state = {"charge": model.spec.charges, "multiplicity": model.spec.spins}
    if factory is not None and any(state.values()):
        known = inspect.signature(factory).parameters
        if any(needed and word not in known for word, needed in state.items()):
            return None
    return factory


def bound_module(
    model: PotentialModel, numbers: Sequence[int], charge: int = 0, multiplicity: int = 1
) -> Module | None:
    """Bind the model's TorchScript form to the atoms of a whole region; None where it has none.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int
        Atomic numbers.
    charge, multiplicity : int
        Of the region; a model that takes one of them into account gets it.
    """
    scriptable = scriptable_module(model)
    if scriptable is None:
        return None
    state = {"charge": charge} if model.spec.charges else {}
    state |= {"multiplicity": multiplicity} if model.spec.spins else {}
    return scriptable(list(numbers), **state)


def field_module(
    model: PotentialModel, numbers: Sequence[int], charge: int = 0, multiplicity: int = 1
) -> Module:
    """The TorchScript form of a model that takes charges around, bound to the atoms of a region.

    Raises
    ------
    PotentialError
        A model without one, or whose form lacks the method that its spec promises.
    """
    module = bound_module(model, numbers, charge, multiplicity)
    method = {"charges": "in_field", "potential": "in_potential"}.get(model.spec.external, "in_field")
    if module is None or not hasattr(module, method):
        raise PotentialError(
            f"{method}(…) in the TorchScript form of {model.spec.name}, which takes charges around it",
            "none",
            "see mlmm.potentials.PotentialModel for what it returns",
        )
    return module


def is_capturable(module: torch.nn.Module) -> bool:
    """Whether a CUDA graph can hold a module: on a GPU it knows all its shapes and asks the host nothing.

    A module that is so says it by an attribute ``capturable``.
    """
    return bool(getattr(module, "capturable", False))


def energy_and_forces(model: PotentialModel, structure: Structure) -> tuple[float, torch.Tensor]:
    """Energy and its negative gradient by automatic differentiation.

    Returns
    -------
    energy : float
        kJ/mol, isolated-atom energies removed.
    forces : torch.Tensor, shape (N, 3), kJ/mol/nm
        Zero for an atom that the energy does not depend on.
    """
    energy, forces, _ = energy_and_all_forces(model, structure)
    return energy, forces


def energy_and_all_forces(
    model: PotentialModel, structure: Structure
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Energy, forces on the atoms and forces on the charges around them.

    Returns
    -------
    energy : float
        kJ/mol, isolated-atom energies removed.
    forces, external_forces : torch.Tensor, shapes (N, 3) and (M, 3), kJ/mol/nm
        By automatic differentiation; M is 0 without charges around.
    """
    positions = structure.positions.detach().clone().requires_grad_(True)
    external = structure.external
    sources = positions.detach()[:0].clone()
    if external is not None:
        sources = external.positions.detach().clone().requires_grad_(True)
        external = replace(external, positions=sources)
    wanted = [positions] if external is None else [positions, sources]
    energy = model.atom_energies(replace(structure, positions=positions, external=external)).energies.sum()
    found = torch.autograd.grad(energy, wanted, allow_unused=True)
    forces = [torch.zeros_like(x) if g is None else -g for x, g in zip(wanted, found, strict=True)]
    return float(energy.detach()), forces[0], forces[1] if external is not None else sources


def check_state(spec: PotentialSpec, structure: Structure) -> None:
    """Make sure that the model can describe these elements, charge and multiplicity, and charges around.

    A charge that the model does not take into account is a matter of judgement: see
    `mlmm.potentials.training.check_training`.

    Raises
    ------
    PotentialError
        An unknown element, an open shell for a model of closed ones, a number of electrons that cannot have
        the multiplicity, charges around for a model that does not take them, or one on top of an atom.
    """
    numbers = [int(number) for number in structure.numbers]
    check_elements(spec, numbers)
    if structure.spin != 1 and not spec.spins:
        raise PotentialError(
            f"multiplicity 1 for {spec.name}, which describes closed shells",
            f"multiplicity {structure.spin}",
            "choose a potential with spins (`mlmm models` lists them)",
        )
    check_electrons(spec, sum(numbers) - structure.charge, structure.charge, structure.spin)
    if structure.external is not None:
        _check_external(spec, structure, structure.external)


def _check_external(spec: PotentialSpec, structure: Structure, external: ExternalCharges) -> None:
    """Refuse charges that the model would not see, and points on top of an atom."""
    if spec.external == "none":
        raise PotentialError(
            f"no charges around a structure for {spec.name}, which does not take them",
            f"{len(external):,} charges",
            "leave Structure.external out, or choose a potential that sees them, such as amp-bms",
        )
    if external.width > 0.0 or not len(external):
        return
    where, outside = structure.positions.detach(), external.positions.detach()
    between = minimum_image(outside.unsqueeze(0) - where.unsqueeze(1), structure.cell)
    square = between.square().sum(2)
    if bool((square < ON_TOP**2).any()):
        atom, charge = divmod(int(square.argmin()), len(external))
        raise PotentialError(
            f"point charges at least {ON_TOP:g} nm from every atom",
            f"charge {charge} on top of atom {atom}",
            "move it away, or give the charges a width (ExternalCharges.width)",
        )
