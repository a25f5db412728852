"""AMP-BMS: equal to the published program, its forces are gradients, charge and momentum are conserved.

`amp_bms_reference.npz` holds values of rinikerlab/amp_bms 935f178 (float64 arithmetic, published weights) in
angstrom, kJ/mol and e; geometries: ASE's G2 set (MIT), and GFN2 and TIP3P dynamics.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import mlmm
from mlmm.errors import PotentialError
from mlmm.potentials.amp_bms.potential import AMPPotential
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.structures import ExternalCharges, Structure

REFERENCE = np.load(Path(__file__).with_name("amp_bms_reference.npz"))
WEIGHTS = Path(mlmm.__file__).parent / "data/amp_bms.safetensors"
SYSTEMS = sorted({name.split("/")[0] for name in REFERENCE})
SCALING = {"vacuum": 0.35, "field": 0.35, "unscaled": 1.0}


@pytest.fixture(scope="module")
def amp() -> AMPPotential:
    return AMPPotential.from_file(WEIGHTS, precision="float64")


def structure_of(system: str, requires_grad: bool = False) -> Structure:
    positions = torch.tensor(0.1 * REFERENCE[f"{system}/x"]).requires_grad_(requires_grad)
    numbers = torch.tensor(REFERENCE[f"{system}/numbers"])
    return Structure(numbers, positions, None, int(REFERENCE[f"{system}/charge"]))


def charges_around(system: str, requires_grad: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.tensor(0.1 * REFERENCE[f"{system}/px"]).requires_grad_(requires_grad)
    return positions, torch.tensor(REFERENCE[f"{system}/pq"])


def in_field(potential, structure, positions, charges):
    """Energies among charges, and all that comes with them."""
    around = ExternalCharges(positions, charges)
    found = potential.atom_energies(dataclasses.replace(structure, external=around))
    return found.energies, found


def nothing_around() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize("run", SCALING)
@pytest.mark.parametrize("system", SYSTEMS)
def test_equals_the_published_program(system, run, kernel):
    """Energy to 1e-8 kJ/mol, forces on atoms and on charges to 1e-7 kJ/mol/Å, multipoles to 1e-10."""
    options = {"precision": "float64", "polarisation_scaling": SCALING[run], "kernel": kernel}
    potential = AMPPotential.from_file(WEIGHTS, **options)
    structure = structure_of(system, requires_grad=True)
    around = nothing_around() if run == "vacuum" else charges_around(system, requires_grad=True)
    energies, multipoles = in_field(potential, structure, *around)
    energy = energies.sum()
    assert float(energy.detach()) == pytest.approx(REFERENCE[f"{system}/{run}/energy"][0], abs=1e-8)
    (gradient,) = torch.autograd.grad(energy, structure.positions, retain_graph=True)
    assert np.abs(-0.1 * gradient.numpy() - REFERENCE[f"{system}/{run}/F"]).max() < 1e-7
    if run != "vacuum":
        (gradient,) = torch.autograd.grad(energy, around[0])
        assert np.abs(-0.1 * gradient.numpy() - REFERENCE[f"{system}/{run}/F_mm"]).max() < 1e-7
    found = (multipoles.charges, 10 * multipoles.dipoles, 100 * multipoles.quadrupoles)
    for name, value in zip(("q", "mu", "Q"), found, strict=True):
        assert np.abs(value.detach().numpy() - REFERENCE[f"{system}/{run}/{name}"]).max() < 1e-10


def test_forces_on_atoms_and_on_charges_are_gradients(amp):
    """Central differences of both sides; without the response of the multipoles they do not agree."""
    system, step = "methylammonium", 2e-6
    structure, (places, charges) = structure_of(system), charges_around(system)

    def energy(moved: Structure, sources: torch.Tensor) -> float:
        return float(in_field(amp, moved, sources, charges)[0].sum())

    positions = structure.positions.clone().requires_grad_(True)
    sources = places.clone().requires_grad_(True)
    whole = in_field(amp, Structure(structure.numbers, positions, None, 1), sources, charges)[0].sum()
    gradients = torch.autograd.grad(whole, [positions, sources])
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    generator = np.random.default_rng(1)
    nearest = int(torch.cdist(structure.positions, places).min(dim=0).values.argmin())
    for which, atom in [(0, int(k)) for k in generator.integers(0, 8, 4)] + [(1, nearest), (1, 100)]:
        axis = int(generator.integers(0, 3))
        values = []
        for sign in (1, -1):
            both = [structure.positions.clone(), places.clone()]
            both[which][atom, axis] += sign * step
            values.append(energy(Structure(structure.numbers, both[0], None, 1), both[1]))
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float(gradients[which][atom, axis]), abs=1e-7 * largest)
    # Control: the force of fixed multipoles lacks what they answer to the charges.
    _, fixed = in_field(amp, structure, places, charges)
    frozen = sources.detach().clone().requires_grad_(True)
    around = potential_of_charges(frozen.unsqueeze(0) - structure.positions.unsqueeze(1), charges)
    parts = (fixed.charges, fixed.dipoles, fixed.quadrupoles)
    (wrong,) = torch.autograd.grad(multipole_energies(*parts, *around).sum(), frozen)
    assert float((wrong - gradients[1]).abs().max()) > 1e-3 * largest


def test_the_whole_has_no_net_force_and_no_torque(amp):
    structure = structure_of("chorismate_R", requires_grad=True)
    sources, charges = charges_around("chorismate_R", requires_grad=True)
    energy = in_field(amp, structure, sources, charges)[0].sum()
    on_atoms, on_charges = torch.autograd.grad(energy, [structure.positions, sources])
    largest = float(on_atoms.abs().max())
    assert float((on_atoms.sum(0) + on_charges.sum(0)).abs().max()) < 1e-11 * largest
    torque = torch.linalg.cross(structure.positions.detach(), on_atoms).sum(0)
    torque = torque + torch.linalg.cross(sources.detach(), on_charges).sum(0)
    assert float(torque.abs().max()) < 1e-11 * largest
    # Control: the atoms alone are pulled.
    assert float(on_atoms.sum(0).abs().max()) > 1e-3 * largest


@pytest.mark.parametrize("system", SYSTEMS)
def test_charges_add_up_to_the_total(amp, system):
    structure = structure_of(system)
    for around in (nothing_around(), charges_around(system)):
        _, multipoles = in_field(amp, structure, *around)
        assert float(multipoles.charges.sum()) == pytest.approx(structure.charge, abs=1e-12)
        traces = multipoles.quadrupoles.diagonal(dim1=1, dim2=2).sum(1)
        assert float(traces.abs().max()) < 1e-12


def test_no_charge_and_a_distant_one_are_vacuum(amp):
    """A charge of zero changes no bit; a distant one acts on the total charge as k Q c/r."""
    structure = structure_of("methylammonium")
    vacuum = float(amp.atom_energies(structure).energies.sum())
    near = torch.tensor([[0.0, 0.0, 0.6]], dtype=torch.float64)
    assert float(in_field(amp, structure, near, torch.zeros(1).double())[0].sum()) == pytest.approx(
        vacuum, abs=1e-10
    )
    far = structure.positions.mean(0, keepdim=True) + torch.tensor([[0.0, 0.0, 500.0]])
    one = torch.ones(1, dtype=torch.float64)
    shift = float(in_field(amp, structure, far, one)[0].sum()) - vacuum
    assert shift == pytest.approx(138.93545764438198 / 500.0, rel=1e-3)
    assert abs(float(in_field(amp, structure, near, one)[0].sum()) - vacuum) > 10.0


def test_torchscript_and_single_precision(amp):
    structure = structure_of("acetate_plus_2_water")
    around = charges_around("acetate_plus_2_water")
    module = torch.jit.script(amp.scriptable(structure.numbers.tolist(), charge=structure.charge).eval())
    exact, multipoles = in_field(amp, structure, *around)
    found = module.in_field(structure.positions, None, *around)
    assert torch.allclose(found[1], multipoles.charges, atol=1e-12)
    vacuum = amp.atom_energies(structure).energies
    assert torch.allclose(module(structure.positions, None)[0], vacuum, atol=1e-9)
    single, _ = in_field(AMPPotential.from_file(WEIGHTS, precision="float32"), structure, *around)
    error = float((single.sum() - exact.sum()).abs())
    assert 0 < error < 0.05


def test_images_in_a_box_are_the_molecule_itself(amp):
    """Atoms and charges in other images change nothing, in a box wider than twice the region."""
    structure, (places, charges) = structure_of("water"), charges_around("water")
    cell = torch.diag(torch.tensor([6.0, 6.0, 6.0], dtype=torch.float64))
    whole = in_field(amp, Structure(structure.numbers, structure.positions, cell), places, charges)[0]
    wrapped = structure.positions + torch.tensor([[6.0, 0, 0], [0, -6.0, 0], [0, 0, 12.0]]).double()
    moved = places - torch.tensor([6.0, 0.0, 0.0]).double()
    found = in_field(amp, Structure(structure.numbers, wrapped, cell), moved, charges)[0]
    assert torch.allclose(found, whole, atol=1e-9)
    half = structure.positions + torch.tensor([[3.0, 0, 0], [0, 0, 0], [0, 0, 0]]).double()
    assert not torch.allclose(
        in_field(amp, Structure(structure.numbers, half, cell), places, charges)[0], whole, atol=1e-3
    )


def test_elements_without_training_are_refused(amp):
    boron = Structure(torch.tensor([5, 1, 1, 1]), torch.eye(4, 3).double() * 0.12)
    with pytest.raises(PotentialError, match="B"):
        amp.atom_energies(boron)
