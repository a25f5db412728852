"""The contract between the engine and a machine-learned potential.

A potential is any object with a `spec` and a method `atom_energies(structure)`. Forces are derived here,
once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from mlmm.elements import element_names
from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.structures import Structure

__all__ = [
    "AtomEnergies",
    "PotentialModel",
    "PotentialSpec",
    "bound_module",
    "check_elements",
    "check_state",
    "energy_and_forces",
    "is_capturable",
    "scriptable_module",
]


@dataclass(frozen=True)
class PotentialSpec:
    """What a potential is, so that the engine can tell where it may be used.

    Parameters
    ----------
    name : str
        As shown in reports and by ``mlmm models``.
    elements : tuple of int
        Atomic numbers that the model knows.
    cutoff : float
        Largest distance of a direct neighbour, nm.
    receptive_field : float
        Distance beyond which no atom can change an atom's energy, nm: layers times cutoff for message
        passing.
    trained_on : {"total", "isolated", "correction"}
        Total energies with intermolecular contacts, isolated molecules, or a correction to a force field.
    per_atom : bool
        Whether the model gives meaningful per-atom energies.
    charges : bool
        Whether the model takes the net charge into account and predicts atomic charges: every atom then
        depends on the charge of the whole, and only whole, capped regions can be described.
    polarisation_range : float
        Distance up to which point charges around a region change its energy and its multipoles, nm; 0 for a
        model that does not see them. A model with a range has ``in_field``, see `PotentialModel`.
    spins : bool
        Whether the model takes the multiplicity into account; without it only closed shells are described.
    long_range : bool
        Whether the model has interactions beyond the receptive field (then none is declared).
    members : int
        Number of members of a committee.
    reference_energies : mapping of int to float
        Isolated-atom energy by atomic number, kJ/mol; removed from every energy that the model returns.
    alignment : mapping of int to float
        Constant for each atomic number that is added to the energies, kJ/mol, so that the members of a
        committee, or the ends of an adaptive zone, have one zero; see `mlmm.potentials.align_energies`.
    precision : {"float32", "float64"}
        Arithmetic of the networks; geometry and sums are float64 always.
    native_units : tuple of (str, str)
        Energy and length of the model itself; converted where it is called, once.
    layers : int
        Message-passing depth, 1 for a strictly local model; the receptive field is at most layers × cutoff.
    deterministic : bool
        Whether two calls with one input give the same bits.
    level_of_theory, licence, citation : str
        For the record.
    """

    name: str
    elements: tuple[int, ...]
    cutoff: float
    receptive_field: float
    trained_on: str
    per_atom: bool = True
    charges: bool = False
    polarisation_range: float = 0.0
    spins: bool = False
    long_range: bool = False
    members: int = 1
    reference_energies: Mapping[int, float] = field(default_factory=dict)
    alignment: Mapping[int, float] = field(default_factory=dict)
    precision: str = "float64"
    native_units: tuple[str, str] = ("kJ/mol", "nm")
    layers: int = 1
    deterministic: bool = True
    level_of_theory: str = "not stated"
    licence: str = "not stated"
    citation: str = "not stated"


@dataclass(frozen=True)
class AtomEnergies:
    """Per-atom energies of a structure, isolated-atom energies removed, kJ/mol.

    Parameters
    ----------
    energies : torch.Tensor, shape (N,), float64
        Mean over the committee, if there is one.
    members : torch.Tensor, shape (K, N), float64, optional
        The same for each member of a committee.
    charges : torch.Tensor, shape (N,), optional
        Predicted charges, e.
    """

    energies: torch.Tensor
    members: torch.Tensor | None = None
    charges: torch.Tensor | None = None

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

    A model with a `polarisation_range` has ``scriptable`` whose module also has ``in_field(positions, cell,
    external_positions, external_charges, charge_width)`` -> energies (N,) within the region, charges (N,),
    dipoles (N, 3) and quadrupoles (N, 3, 3) in e and nm; Coulomb's law with the charges around, Gaussians of
    that width, is the engine's.

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
    positions = structure.positions.detach().clone().requires_grad_(True)
    moved = Structure(structure.numbers, positions, structure.cell, structure.charge, structure.spin)
    energy = model.atom_energies(moved).energies.sum()
    (gradient,) = torch.autograd.grad(energy, positions, allow_unused=True)
    forces = torch.zeros_like(positions) if gradient is None else -gradient
    return float(energy.detach()), forces


def check_elements(spec: PotentialSpec, numbers: Sequence[int]) -> None:
    """Make sure that the model knows every element of the region.

    Raises
    ------
    PotentialError
        Names the elements that are missing and the potential's own.
    """
    unknown = sorted(set(int(n) for n in numbers) - set(spec.elements))
    if unknown:
        raise PotentialError(
            f"only elements that {spec.name} knows ({element_names(spec.elements, ' ')})",
            element_names(unknown),
            "choose a smaller region or another potential (`mlmm models` lists them)",
        )


def check_state(spec: PotentialSpec, structure: Structure) -> None:
    """Make sure that the model can describe these elements with this charge and multiplicity.

    A charge that the model does not take into account is a matter of judgement: `hybrid_system` warns of it.

    Raises
    ------
    PotentialError
        An unknown element, an open shell for a model of closed ones, or a number of electrons that cannot
        have the multiplicity.
    """
    numbers = [int(number) for number in structure.numbers]
    check_elements(spec, numbers)
    if structure.spin != 1 and not spec.spins:
        raise PotentialError(
            f"multiplicity 1 for {spec.name}, which describes closed shells",
            f"multiplicity {structure.spin}",
            "choose a potential with spins (`mlmm models` lists them)",
        )
    electrons = sum(numbers) - structure.charge
    if (spec.charges or spec.spins) and (structure.spin < 1 or (electrons + structure.spin) % 2 == 0):
        raise PotentialError(
            f"a multiplicity that {electrons} electrons can have ({'odd' if electrons % 2 == 0 else 'even'})",
            f"multiplicity {structure.spin} at charge {structure.charge:+d}",
            "correct charge or spin, or look for a missing hydrogen",
        )
