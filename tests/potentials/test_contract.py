"""The contract between potentials and engine: kept by every entry; every clause of it catches its breach."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from toys import toy_spec

import mlmm
from mlmm.errors import PotentialError
from mlmm.potentials import AtomEnergies, check_potential, check_state
from mlmm.structures import Structure, minimum_image

CUTOFF = 0.4
ELEMENTS = (1, 6, 8)


class Pairs(torch.nn.Module):
    """eps_i = sum_j s_ij (1 − (r/cutoff)²)³, smooth at the cutoff; keeps every clause."""

    def __init__(self, numbers: torch.Tensor, strength: float = 300.0):
        super().__init__()
        self.cutoff, self.strength = CUTOFF, strength
        self.register_buffer("numbers", numbers)

    def forward(
        self, positions: torch.Tensor, cell: torch.Tensor | None, centres: torch.Tensor | None = None
    ) -> torch.Tensor:
        separation = minimum_image(positions.unsqueeze(0) - positions.unsqueeze(1), cell)
        same = torch.eye(positions.shape[0], dtype=positions.dtype)
        squared = separation.square().sum(-1) / self.cutoff**2 + 2.0 * same
        scale = torch.sqrt(self.numbers.to(torch.float64))
        terms = (
            self.strength * (1.0 - squared).clamp(min=0.0).pow(3) * scale.unsqueeze(0) * scale.unsqueeze(1)
        )
        energies = terms.sum(dim=1).unsqueeze(0)
        return energies if centres is None else energies[:, centres]


class Sound:
    """A potential that keeps the contract; every other one below breaks one clause of it."""

    def __init__(self, **facts):
        self.spec = toy_spec(
            "pairs", **({"cutoff": CUTOFF, "receptive_field": CUTOFF, "elements": ELEMENTS} | facts)
        )

    def pairs(self, structure):
        check_state(self.spec, structure)
        return Pairs(structure.numbers)(structure.positions, structure.cell)[0]

    def atom_energies(self, structure):
        return AtomEnergies(self.pairs(structure))


class Compiled(Sound):
    def scriptable(self, numbers, centres=None):
        return _Bound(Pairs(torch.tensor(numbers)), centres)


class _Bound(torch.nn.Module):
    def __init__(self, pairs, centres):
        super().__init__()
        self.pairs = pairs
        self.register_buffer(
            "centres", torch.tensor(centres if centres is not None else range(len(pairs.numbers)))
        )

    def forward(
        self, positions: torch.Tensor, cell: torch.Tensor | None, centres: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.pairs(positions, cell, self.centres if centres is None else centres)


class CompiledOtherwise(Compiled):
    def scriptable(self, numbers, centres=None):
        return _Bound(Pairs(torch.tensor(numbers), 301.0), centres)


def _apart(structure):
    separation = minimum_image(
        structure.positions.unsqueeze(0) - structure.positions.unsqueeze(1), structure.cell
    )
    return (separation.square().sum(-1) + torch.eye(len(structure))).sqrt() - torch.eye(len(structure))


class TwoLayers(Sound):
    """Neighbours of neighbours count: the range is twice the cutoff."""

    def atom_energies(self, structure):
        squared = _apart(structure).square() / CUTOFF**2
        weights = (1 - squared).clamp(min=0).pow(3) * (1 - torch.eye(len(structure), dtype=torch.float64))
        return AtomEnergies(weights @ self.pairs(structure))


class Truncated(Sound):
    def atom_energies(self, structure):
        apart = _apart(structure) + 9 * torch.eye(len(structure))
        return AtomEnergies(self.pairs(structure) + torch.where(apart < 0.9 * CUTOFF, 0.1, 0.0).sum(dim=1))


class Kinked(Sound):
    def atom_energies(self, structure):
        apart = _apart(structure) + 9 * torch.eye(len(structure))
        return AtomEnergies(self.pairs(structure) + 20 * (CUTOFF - apart).clamp(min=0).sum(dim=1))


class Mutating(Sound):
    def atom_energies(self, structure):
        energies = self.pairs(structure)
        with torch.no_grad():
            structure.positions.add_(1.0)
        return AtomEnergies(energies)


class Unfaithful(Sound):
    """The energy depends on positions in a way that its gradient does not see."""

    def atom_energies(self, structure):
        energies = self.pairs(structure)
        return AtomEnergies(energies + 0.01 * energies.detach())


class WrongTotal(Sound):
    def own_energy_and_forces(self, structure):
        energy, forces = mlmm.energy_and_forces(Sound(), structure)
        return energy + 1.0, forces


class WrongMean(Sound):
    def atom_energies(self, structure):
        energies = self.pairs(structure)
        return AtomEnergies(energies, torch.stack([energies, energies + 1.0]))


class WrongMembers(Sound):
    def atom_energies(self, structure):
        energies = self.pairs(structure)
        return AtomEnergies(energies, torch.stack([energies, energies]))


class Ordered(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(self.pairs(structure) * torch.arange(1, len(structure) + 1))


class Oriented(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(
            self.pairs(structure) + 5 * (structure.positions[:, 2] - structure.positions[0, 2])
        )


class Anchored(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(self.pairs(structure) + structure.positions.square().sum(dim=1))


class Averaged(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(self.pairs(structure) / len(structure))


class Noisy(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(self.pairs(structure) + 1e-3 * torch.rand(1, dtype=torch.float64))


class Unwrapped(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(Pairs(structure.numbers)(structure.positions, None)[0])


class Deaf(Sound):
    """Takes charges around and does nothing with them."""

    def pairs(self, structure):
        return Pairs(structure.numbers)(structure.positions, structure.cell)[0]


class Single(Sound):
    def atom_energies(self, structure):
        return AtomEnergies(self.pairs(structure).to(torch.float32))


def failures(report):
    return " | ".join(result.name for result in report.results if not result.passed)


@pytest.mark.parametrize("model", [Sound(), Compiled(), TwoLayers(receptive_field=2 * CUTOFF, layers=2)])
def test_a_sound_potential_keeps_the_contract(model):
    report = check_potential(model, reload=lambda: model)
    assert report.passed, str(report)
    assert len(report.results) >= 15
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.results = ()


@pytest.mark.parametrize(
    ("model", "clause"),
    [
        (Sound(receptive_field=0.3, cutoff=0.4), "receptive field, measured"),
        (Sound(receptive_field=0.3, cutoff=0.3), "force on a pair beyond the cutoff"),
        (Sound(receptive_field=0.8), "receptive field less layers times cutoff"),
        (TwoLayers(), "receptive field, measured"),
        (Truncated(), "step in the energy"),
        (Kinked(), "step in the force"),
        (Mutating(), "inputs that a call changes"),
        (Unfaithful(), "finite differences"),
        (WrongTotal(), "sum of atoms and references"),
        (WrongMean(members=2), "mean of the members"),
        (WrongMembers(members=3), "number of members"),
        (Sound(members=2), "number of members"),
        (Ordered(), "permutation: energies"),
        (Oriented(), "rotation: forces"),
        (Anchored(), "translation: energies"),
        (Averaged(), "three molecules in one call"),
        (Noisy(), "repeated call"),
        (Unwrapped(), "atoms moved by box vectors"),
        (Single(), "shapes, types"),
        (Deaf(), "passed over in silence"),
        (CompiledOtherwise(), "TorchScript less eager"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_clause_catches_its_breach(model, clause):
    report = check_potential(model)
    assert not report.passed and clause in failures(report)


def test_contract_check_finds_a_model_that_changes_when_reloaded():
    report = check_potential(Sound(), reload=lambda: Sound(licence="another"))
    assert "declared otherwise when loaded again" in failures(report)
    report = check_potential(Sound(), reload=lambda: Unfaithful())
    assert "loaded again less as it was" in failures(report)


def test_noise_that_is_declared_must_still_be_small():
    report = check_potential(Noisy(deterministic=False))
    assert "repeated call (not deterministic, by its spec)" in failures(report)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_ani1x_keeps_the_contract(precision):
    def load():
        return mlmm.load_potential("ani1x", precision=precision)

    report = check_potential(load(), reload=load)
    assert report.passed, str(report)


def test_ani2x_keeps_the_contract(models_folder):
    def load():
        return mlmm.load_potential("ani2x", precision="float64", members=[0, 5])

    report = check_potential(load(), elements=(1, 6, 8, 16, 9, 17), reload=load)
    assert report.passed, str(report)


def test_objects_that_are_no_potential_are_rejected():
    class Wrong(Sound):
        def atom_energies(self, structure):
            return AtomEnergies(torch.zeros(2, dtype=torch.float64))

    class Broken(Sound):
        def atom_energies(self, structure):
            return AtomEnergies(self.pairs(structure) * float("nan"))

    with pytest.raises(PotentialError, match=r"energies of shape \(10,\)"):
        check_potential(Wrong())
    with pytest.raises(PotentialError, match="finite energies from pairs, but got NaN"):
        check_potential(Broken())
    strange = Structure(torch.tensor([79, 79]), torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(PotentialError, match=r"only elements that pairs knows \(H C O\), but got Au"):
        check_potential(Sound(), strange)
