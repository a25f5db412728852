"""The contract among charges: kept by small models of both kinds; every clause catches its breach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from field_models import ELEMENTS, Equilibrated, EquilibratedModule, Polarised, PolarisedModule, field_spec

import mlmm
from mlmm.errors import PotentialError
from mlmm.potentials import AtomEnergies, check_potential
from mlmm.potentials.contract.probes import random_molecule
from mlmm.structures import ExternalCharges
from mlmm.units import COULOMB

MOLECULE = random_molecule(ELEMENTS, 4, seed=1, spin_pairs=True)


class Changed(Equilibrated):
    """Another result than that of the sound model."""

    def atom_energies(self, structure):
        found = super().atom_energies(structure)
        if structure.external is None:
            return found
        return self.changed(found, structure, structure.external)


class HeldCharges(Changed):
    """The charges feel no force back: what acts on them is cut from the graph."""

    def around(self, structure):
        held = replace(structure.external, positions=structure.external.positions.detach())
        return super().around(replace(structure, external=held))

    def changed(self, found, structure, external):
        return found


class HeldAtoms(Changed):
    def changed(self, found, structure, external):
        return replace(found, energies=found.energies + 0.01 * (found.energies - found.energies.detach()))


class Attached(Changed):
    """A wall that stands in space: forces are gradients, and yet the whole is pushed."""

    def changed(self, found, structure, external):
        push = 0.1 * external.positions[:, 0].sum()
        return replace(found, energies=found.energies + push * external.charges.abs().sum() / len(structure))


class Leaking(Changed):
    def changed(self, found, structure, external):
        return replace(found, charges=found.charges + 1e-3)


class Silent(Changed):
    def changed(self, found, structure, external):
        return replace(found, charges=None)


class Offset(Changed):
    """An energy that appears as soon as anything is around."""

    def changed(self, found, structure, external):
        return replace(found, energies=found.energies + 0.01)


class Counting(Changed):
    """Depends on how many charges there are, not on what they are."""

    def changed(self, found, structure, external):
        return replace(found, energies=found.energies + 1e-3 * float((external.charges != 0).sum()))


class Truncated(Changed):
    """Coulomb's law that ends at 2 nm."""

    def around(self, structure):
        external = structure.external
        near = torch.cdist(external.positions, structure.positions).min(dim=1).values < 2.0
        kept = ExternalCharges(external.positions[near], external.charges[near], external.width)
        return super().around(replace(structure, external=kept))

    def changed(self, found, structure, external):
        return found


class NoDipoles(Changed):
    """Charges and dipoles that it gives are not those that it has in the energy."""

    def atom_energies(self, structure):
        found = super().atom_energies(structure)
        shift = torch.zeros(len(structure), 3, dtype=torch.float64)
        shift[0, 0] = 0.05
        return replace(found, dipoles=found.dipoles + shift)

    def changed(self, found, structure, external):
        return found


class WrongMultipoles(Equilibrated):
    def scriptable(self, numbers, centres=None, charge=0):
        return EquilibratedModule(list(numbers), charge, shown=1.5)


class WrongSlopes(Equilibrated):
    def scriptable(self, numbers, centres=None, charge=0):
        return EquilibratedModule(list(numbers), charge, alpha=2e-5)


class FartherThanDeclared(Polarised):
    def scriptable(self, numbers, centres=None, charge=0):
        return PolarisedModule(list(numbers), charge, reach=0.8)


class ForeignCoulomb(Polarised):
    """Its own energy has another Coulomb's law than the engine's."""

    def coulomb(self, multipoles, vectors, external):
        return 1.001 * super().coulomb(multipoles, vectors, external)


class Deaf(Equilibrated):
    """Says that it takes nothing, and takes what it is given."""

    def __init__(self):
        super().__init__()
        self.spec = field_spec("none")

    def atom_energies(self, structure):
        return super().atom_energies(replace(structure, external=None))


def failures(report):
    return " | ".join(result.name for result in report.results if not result.passed)


@pytest.mark.parametrize("model", [Equilibrated(), Polarised()], ids=["potential", "charges"])
def test_a_sound_model_keeps_the_contract_among_charges(model):
    report = check_potential(model, MOLECULE)
    assert report.passed, str(report)
    assert sum("charge" in result.name or "field" in result.name for result in report.results) >= 11


@pytest.mark.parametrize(
    ("model", "clause"),
    [
        (HeldCharges(), "forces on the charges"),
        (HeldAtoms(), "forces on the atoms"),
        (Attached(), "net force on atoms and charges"),
        (Leaking(), "in the field: sum of the charges"),
        (Silent(), "charges that are not given"),
        (Offset(), "no charges around less vacuum"),
        (Offset(), "charges of zero less vacuum"),
        (Counting(), "charges in two halves"),
        (Truncated(), "charge at 300 nm"),
        (NoDipoles(), "charge at 300 nm"),
        (WrongSlopes(), "TorchScript in the field less eager"),
        (WrongMultipoles(), "multipoles less derivatives"),
        (FartherThanDeclared(), "charges beyond the range"),
        (ForeignCoulomb(), "charge at 300 nm"),
        (ForeignCoulomb(), "TorchScript in the field less eager"),
        (Deaf(), "passed over in silence"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_clause_among_charges_catches_its_breach(model, clause):
    report = check_potential(model, MOLECULE)
    assert not report.passed and clause in failures(report)


def test_amp_bms_keeps_the_contract():
    report = check_potential(mlmm.load_potential("amp-bms", precision="float64"), MOLECULE)
    assert report.passed, str(report)


def test_forces_of_both_sides_come_from_one_call():
    """Coulomb's law alone: two atoms of fixed charges and one charge, by hand."""

    class Fixed(Equilibrated):
        def atom_energies(self, structure):
            charges = torch.tensor([0.5, -0.5], dtype=torch.float64)
            return AtomEnergies(charges * self.around(structure)[0], charges=charges)

    numbers = torch.tensor([1, 1])
    x = torch.tensor([[0.0, 0, 0], [0.1, 0, 0]], dtype=torch.float64)
    source = torch.tensor([[0.4, 0.0, 0.0]], dtype=torch.float64)
    structure = mlmm.Structure(numbers, x, external=ExternalCharges(source, torch.ones(1).double()))
    energy, forces, outer = mlmm.energy_and_all_forces(Fixed(), structure)
    assert energy == pytest.approx(0.5 * COULOMB * (1 / 0.4 - 1 / 0.3))
    assert outer[0, 0] == pytest.approx(0.5 * COULOMB * (1 / 0.16 - 1 / 0.09))
    assert forces[:, 0].tolist() == pytest.approx([-0.5 * COULOMB / 0.16, 0.5 * COULOMB / 0.09])
    energy, forces, outer = mlmm.energy_and_all_forces(Equilibrated(), replace(structure, external=None))
    assert outer.shape == (0, 3) and float(forces.sum(0).norm()) < 1e-10


def test_charges_that_cannot_be_are_sentences():
    structure = random_molecule(ELEMENTS, 4, spin_pairs=True)
    ani = mlmm.load_potential("ani1x")
    around = ExternalCharges(structure.positions + 1.0, torch.ones(len(structure)).double())
    with pytest.raises(PotentialError, match="no charges around a structure for ANI-1x"):
        ani.atom_energies(replace(structure, external=around))
    on_top = ExternalCharges(structure.positions[2:3] + 1e-3, torch.ones(1).double())
    with pytest.raises(PotentialError, match="charge 0 on top of atom 2"):
        Equilibrated().atom_energies(replace(structure, external=on_top))
    wide = replace(structure, external=replace(on_top, width=0.03))
    assert bool(torch.isfinite(Equilibrated().atom_energies(wide).energies).all())
    with pytest.raises(PotentialError, match=r"shape \(M,\) and their positions of shape \(M, 3\)"):
        ExternalCharges(structure.positions, torch.ones(2))
    with pytest.raises(PotentialError, match="a width of 0 nm"):
        ExternalCharges(structure.positions, torch.ones(len(structure)), -0.1)
    with pytest.raises(PotentialError, match="polarisation_range for charges alone"):
        field_spec("potential", polarisation_range=0.5)
    with pytest.raises(PotentialError, match="external = none"):
        field_spec("fields")


def test_a_structure_moves_with_its_charges():
    structure = random_molecule(ELEMENTS, 4)
    around = ExternalCharges(structure.positions + 1.0, torch.ones(len(structure)).double(), 0.02)
    moved = replace(structure, external=around).to("meta")
    assert moved.external.positions.device.type == "meta" and moved.external.width == 0.02
    assert "charges around" in str(replace(structure, external=around))
