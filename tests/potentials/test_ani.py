"""ANI: equal to torchani on the same weights, invariant, local, smooth, the same in every form."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest
import tolerances
import torch

from mlmm.errors import PotentialError
from mlmm.potentials import energy_and_forces, load_potential
from mlmm.potentials.ani.potential import ANIPotential
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, HARTREE, KILOCALORIE

METHANE = np.array(
    [
        [0.03192167, 0.00638559, 0.01301679],
        [-0.83140486, 0.39370209, -0.26395324],
        [-0.66518241, -0.84461308, 0.20759389],
        [0.45554739, 0.54289633, 0.81170881],
        [0.66091919, -0.16799635, -0.91037834],
    ]
)  # angstrom


def structure(numbers, angstrom, cell=None) -> Structure:
    return Structure(
        torch.as_tensor(np.array(numbers)),
        torch.as_tensor(np.array(angstrom, dtype=np.float64) * ANGSTROM),
        cell if cell is None else torch.as_tensor(np.array(cell)),
    )


@pytest.fixture(scope="module")
def molecules(root, dipeptide_vacuum) -> dict[str, Structure]:
    """Methane, the dipeptide and 20 residues of a protein (H C N O), every atom displaced by 0.01 nm."""
    found = {"methane": structure([6, 1, 1, 1, 1], METHANE)}
    numbers = [atom.element.atomic_number for atom in dipeptide_vacuum.topology.atoms()]
    found["dipeptide"] = structure(numbers, dipeptide_vacuum.positions / ANGSTROM)
    protein = mdtraj.load(str(root / "systems/lysozyme_xylene/input.pdb"))
    generator = np.random.default_rng(7)
    for residue in protein.topology.residues:
        numbers = [atom.element.atomic_number for atom in residue.atoms]
        if len(found) < 22 and set(numbers) <= {1, 6, 7, 8} and residue.index % 7 == 1:
            positions = protein.xyz[0, [atom.index for atom in residue.atoms]].astype(float)
            moved = positions + generator.normal(0, 0.01, positions.shape)
            # Centred: the peer's float32 coordinates lose digits far from the origin.
            found[f"{residue.name}{residue.resSeq}"] = structure(
                numbers, (moved - moved.mean(axis=0)) / ANGSTROM
            )
    assert len(found) == 22
    return found


def test_equals_torchani_in_float32(molecules):
    peers = pytest.importorskip("peers", reason="pip install torchani==2.9.0")
    ours = load_potential("ani1x", precision="float32")
    peer = peers.torchani_model(ours, "1x", torch.float32)
    for name, molecule in molecules.items():
        energy, forces = energy_and_forces(ours, molecule)
        coordinates = (molecule.positions / ANGSTROM).float().unsqueeze(0).requires_grad_(True)
        # float64 self energies: the peer's total is compared without the rounding of a large float32 sum.
        total = peer((molecule.numbers.unsqueeze(0), coordinates)).energies.sum()
        self_energies = sum(ours.spec.reference_energies[int(z)] for z in molecule.numbers) / HARTREE
        gradient = torch.autograd.grad(total, coordinates)[0][0]
        assert energy / HARTREE + self_energies == pytest.approx(
            float(total.detach()), abs=tolerances.PEER_ENERGY_HARTREE
        ), name
        difference = forces * ANGSTROM / HARTREE + gradient
        assert difference.abs().max() < tolerances.PEER_FORCE_HARTREE_PER_ANGSTROM, name


def test_another_member_is_another_number(molecules):
    """Negative control of the comparison above: it can tell the members apart."""
    first = load_potential("ani1x", members=[0])
    second = load_potential("ani1x", members=[1])
    one, _ = energy_and_forces(first, molecules["dipeptide"])
    two, _ = energy_and_forces(second, molecules["dipeptide"])
    assert abs(one - two) / HARTREE > 100 * tolerances.PEER_ENERGY_HARTREE


def test_published_value_of_ani2x(models_folder, monkeypatch):
    """Member 0 on C(1,2,1) H(3,3,4) angstrom is published as -24199.869131544 kcal/mol.

    That number holds the self energies of C and H rounded to float32; without that rounding it is
    -24199.868255.
    """
    potential = load_potential("ani2x", members=[0], precision="float64")
    energy, _ = energy_and_forces(potential, structure([6, 1], [[1, 2, 1], [3, 3, 4]]))
    own = energy / HARTREE
    carbon, hydrogen = (
        potential.parameters.self_energies[potential.parameters.elements.index(e)] for e in "CH"
    )
    kilocalories = 627.5094738898777  # per hartree, as in the published number
    rounded = (own + float(np.float32(carbon)) + float(np.float32(hydrogen))) * kilocalories
    assert rounded == pytest.approx(-24199.869131544, abs=5e-6)
    exact = (own + carbon + hydrogen) * HARTREE / KILOCALORIE
    assert exact == pytest.approx(-24199.868254956, abs=1e-6)


def test_ani2x_equals_torchani(models_folder, molecules):
    peers = pytest.importorskip("peers", reason="pip install torchani==2.9.0")
    ours = load_potential("ani2x", precision="float32")
    peer = peers.torchani_model(ours, "2x", torch.float32)
    # A molecule with sulfur, fluorine and chlorine: the dipeptide with three hydrogens and an oxygen
    # replaced.
    numbers = molecules["dipeptide"].numbers.clone()
    hydrogens = (numbers == 1).nonzero()[:3, 0]
    numbers[hydrogens] = torch.tensor([9, 17, 16])
    molecule = Structure(numbers, molecules["dipeptide"].positions * 1.2)
    energy, forces = energy_and_forces(ours, molecule)
    coordinates = (molecule.positions / ANGSTROM).float().unsqueeze(0).requires_grad_(True)
    total = peer((numbers.unsqueeze(0), coordinates)).energies.sum()
    gradient = torch.autograd.grad(total, coordinates)[0][0]
    self_energies = sum(ours.spec.reference_energies[int(z)] for z in numbers) / HARTREE
    assert energy / HARTREE + self_energies == pytest.approx(
        float(total.detach()), abs=tolerances.PEER_ENERGY_HARTREE
    )
    assert (forces * ANGSTROM / HARTREE + gradient).abs().max() < tolerances.PEER_FORCE_HARTREE_PER_ANGSTROM


def test_members_one_by_one_equal_all_at_once(ani1x, molecules):
    members = ani1x.atom_energies(molecules["dipeptide"]).members
    for k in range(8):
        single = load_potential("ani1x", members=[k], precision="float64")
        assert torch.allclose(single.atom_energies(molecules["dipeptide"]).energies, members[k], atol=1e-9)
        assert single.atom_energies(molecules["dipeptide"]).spread is None


def test_spread_is_the_standard_deviation_over_members(ani1x, molecules):
    result = ani1x.atom_energies(molecules["dipeptide"])
    expected = np.std(result.members.numpy(), axis=0, ddof=1)
    np.testing.assert_allclose(result.spread.numpy(), expected, rtol=1e-12)
    total = np.std(result.members.numpy().sum(axis=1), ddof=1)
    assert float(result.total_spread) == pytest.approx(total, rel=1e-12)


def test_torchscript_equals_eager(ani1x, molecules):
    molecule = molecules["dipeptide"]
    script = torch.jit.script(ani1x.scriptable(molecule.numbers.tolist()))
    for _ in range(3):  # the profiling executor changes the graph after the first calls
        members = script(molecule.positions, None)
    assert torch.allclose(members, ani1x.atom_energies(molecule).members, rtol=0, atol=1e-9)


def test_periodic_equals_open_in_a_large_box_and_across_its_boundary(ani1x, molecules):
    molecule = molecules["dipeptide"]
    cell = np.array([[3.0, 0, 0], [1.0, 2.8, 0], [-0.7, 0.9, 2.7]])
    shifts = np.random.default_rng(0).integers(-2, 3, (len(molecule), 3)) @ cell
    energy, forces = energy_and_forces(ani1x, molecule)
    boxed = Structure(molecule.numbers, molecule.positions + torch.tensor(shifts), torch.tensor(cell))
    boxed_energy, boxed_forces = energy_and_forces(ani1x, boxed)
    assert boxed_energy == pytest.approx(energy, abs=1e-9)
    assert (forces - boxed_forces).abs().max() < 1e-8


def test_invariance(ani1x, molecules):
    molecule = molecules["dipeptide"]
    energy, forces = energy_and_forces(ani1x, molecule)
    rotation = torch.linalg.qr(torch.tensor(np.random.default_rng(1).normal(size=(3, 3))))[0]
    turned = Structure(molecule.numbers, molecule.positions @ rotation.T + torch.tensor([0.3, -1.0, 2.0]))
    turned_energy, turned_forces = energy_and_forces(ani1x, turned)
    assert turned_energy == pytest.approx(energy, abs=1e-9)
    assert (turned_forces - forces @ rotation.T).abs().max() < 1e-8
    order = torch.randperm(len(molecule), generator=torch.Generator().manual_seed(2))
    permuted = ani1x.atom_energies(Structure(molecule.numbers[order], molecule.positions[order])).energies
    assert torch.allclose(permuted, ani1x.atom_energies(molecule).energies[order], atol=1e-9)
    assert forces.sum(dim=0).abs().max() < 1e-9


def test_no_force_beyond_the_receptive_field(ani1x, molecules):
    """An atom further than the receptive field changes nothing; one just inside does (negative control)."""
    methane = molecules["methane"]
    reach = ani1x.spec.receptive_field
    alone = ani1x.atom_energies(methane).energies
    for distance, changes in ((reach + 1e-6, False), (reach - 0.02, True)):
        visitor = methane.positions[0] + torch.tensor([0.0, 0.0, 1.0]) * distance
        both = Structure(
            torch.cat([methane.numbers, torch.tensor([8])]), torch.cat([methane.positions, visitor[None]])
        )
        difference = float((ani1x.atom_energies(both).energies[0] - alone[0]).abs())
        assert (difference > 1e-9) is changes


@pytest.mark.parametrize("cutoff", [0.52, 0.35])
def test_force_goes_to_zero_at_the_cutoffs(ani1x, cutoff):
    """Energy and force are continuous where a neighbour leaves the radial or the angular shell."""

    def at(distance):
        positions = torch.tensor([[0.0, 0, 0], [0.11, 0, 0], [0, 0, distance]], dtype=torch.float64)
        return energy_and_forces(ani1x, Structure(torch.tensor([6, 1, 8]), positions))

    (inside, force_inside), (outside, force_outside) = at(cutoff - 1e-7), at(cutoff + 1e-7)
    assert abs(inside - outside) < 1e-4
    assert (force_inside - force_outside).abs().max() < 1e-2


def test_energies_depend_on_neighbours_alone(ani1x, molecules):
    """Energies of some atoms, with all others as neighbours only: the same as in the full evaluation; and
    the input may be cut at the receptive field (no atom beyond it matters), but not closer."""
    first = molecules["dipeptide"]
    second = Structure(first.numbers, first.positions + torch.tensor([0.0, 0.45, 0.1]))
    numbers = torch.cat([first.numbers, second.numbers])
    positions = torch.cat([first.positions, second.positions])
    full = ani1x.atom_energies(Structure(numbers, positions)).members
    centres = [4, 0, 2]
    some = torch.jit.script(ani1x.scriptable(numbers.tolist(), centres))(positions, None)
    assert torch.allclose(some, full[:, centres], rtol=0, atol=1e-9)
    distance = torch.linalg.norm(positions[:, None] - positions[centres][None], dim=-1).min(dim=1)[0]
    for reach, same in ((ani1x.spec.receptive_field, True), (ani1x.spec.receptive_field - 0.15, False)):
        seen = (distance < reach).nonzero()[:, 0].tolist()
        assert len(seen) < len(numbers)
        module = ani1x.scriptable(numbers[seen].tolist(), [seen.index(centre) for centre in centres])
        difference = (module(positions[seen], None) - full[:, centres]).abs().max()
        assert bool(difference < 1e-9) is same


def test_isolated_atom_has_a_finite_energy_and_no_force(ani1x):
    energy, forces = energy_and_forces(ani1x, structure([8], [[0.0, 0, 0]]))
    assert np.isfinite(energy)
    assert torch.equal(forces, torch.zeros(1, 3))


def test_unknown_element_is_named(ani1x):
    with pytest.raises(PotentialError, match=r"ANI-1x knows \(H C N O\), but got S, Cl\. Choose"):
        ani1x.atom_energies(structure([16, 17], [[0, 0, 0], [0, 0, 2]]))


def test_float32_agrees_with_float64(ani1x, molecules):
    """The isolated-atom energies never enter a float32 sum: the total is good to 1e-3 kJ/mol, not to 0.1."""
    single = load_potential("ani1x", precision="float32")
    assert isinstance(single, ANIPotential)
    for molecule in molecules.values():
        energy, forces = energy_and_forces(ani1x, molecule)
        energy32, forces32 = energy_and_forces(single, molecule)
        assert energy32 == pytest.approx(energy, abs=1e-3)
        assert (forces32 - forces).abs().max() < 1e-5 * forces.abs().max() + 0.1
