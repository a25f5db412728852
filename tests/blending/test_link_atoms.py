"""Hydrogen caps: where they stand, what force they pass on, which are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import tolerances
import torch
from toys import PlainSprings, SpringPotential, chains, energy_and_forces, toy_spec

from mlmm.blending.link_atoms import CAP_LENGTHS, CappedAtoms, CappedModel, cap_lengths, check_cap_distances
from mlmm.errors import EmbeddingError
from mlmm.hybrid.bridge import make_force
from mlmm.structures import Structure

# Alanine of ACE–ALA–NME and the two bonds that it shares with its neighbours, the atoms that stay first.
ALANINE = tuple(range(6, 16))
ALANINE_CAPS = ((6, 4), (14, 16))


def numbers_of(built) -> list[int]:
    return [atom.element.atomic_number for atom in built.topology.atoms()]


def capped_alanine(built, model) -> CappedModel:
    numbers = numbers_of(built)
    lengths = cap_lengths(ALANINE_CAPS, numbers, model.spec)
    return CappedModel(model, [numbers[i] for i in ALANINE], ALANINE, ALANINE_CAPS, lengths)


def test_a_cap_stands_on_the_bond_at_its_length(dipeptide_vacuum):
    """r_cap − r_A is parallel to r_B − r_A and d long; the atoms stay where they are."""
    positions = torch.tensor(dipeptide_vacuum.positions)
    capped = CappedAtoms(ALANINE, ALANINE_CAPS, (0.102, 0.109))(positions, None)
    assert capped.shape == (12, 3)
    assert torch.equal(capped[:10], positions[list(ALANINE)])
    for cap, (outer, inner), length in zip(capped[10:], ALANINE_CAPS, (0.102, 0.109), strict=True):
        bond = positions[inner] - positions[outer]
        assert float((cap - positions[outer]).norm()) == pytest.approx(length, abs=1e-14)
        assert float(torch.linalg.cross(cap - positions[outer], bond).norm()) < 1e-16
        assert float((cap - positions[outer]) @ bond) > 0


@pytest.mark.parametrize("tilt", [0.0, 0.7])
def test_a_cap_across_the_edge_of_the_box(tilt):
    """The bond is the shortest image's, in a cubic and in a triclinic box; the cap stays next to A."""
    cell = torch.tensor([[2.0, 0, 0], [tilt, 2.0, 0], [-tilt, tilt, 2.0]], dtype=torch.float64)
    outer, bond = torch.tensor([1.98, 1.97, 0.01]).double(), torch.tensor([0.09, 0.08, -0.07]).double()
    whole = CappedAtoms([0], [(0, 1)], [0.109])(torch.stack([outer, outer + bond]), None)
    for shift in ([-1, -1, 1], [2, 0, -1], [0, -3, 0]):
        moved = outer + bond + torch.tensor(shift, dtype=torch.float64) @ cell
        wrapped = CappedAtoms([0], [(0, 1)], [0.109])(torch.stack([outer, moved]), cell)
        torch.testing.assert_close(wrapped, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("potential", ["ani", "toy"])
def test_forces_through_caps(dipeptide_vacuum, ani1x, potential):
    """Central differences of every coordinate, those of A and B of the cut bonds among them (V21)."""
    model = capped_alanine(dipeptide_vacuum, ani1x if potential == "ani" else SpringPotential())
    positions = torch.tensor(dipeptide_vacuum.positions, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(positions), positions)
    step, largest = 1e-5, float(gradient.abs().max())
    with torch.no_grad():
        for atom in (4, 6, 8, 14, 16):
            for axis in range(3):
                shift = torch.zeros_like(positions)
                shift[atom, axis] = step
                numeric = (model(positions + shift) - model(positions - shift)) / (2 * step)
                error = abs(float(numeric - gradient[atom, axis]))
                assert error < tolerances.FINITE_DIFFERENCE * largest
    # B feels its cap; every other atom outside feels nothing. No net force.
    assert float(gradient[4].norm()) > 1e-3 * largest and float(gradient[16].norm()) > 1e-3 * largest
    outside = sorted(set(range(22)) - set(ALANINE) - {4, 16})
    assert float(gradient[outside].abs().max()) == 0
    assert float(gradient.sum(dim=0).abs().max()) < 1e-10 * largest


def test_a_cap_does_not_feel_the_length_of_the_bond(dipeptide_vacuum, ani1x):
    """The force on B is at right angles to the bond: r_cap depends on its direction alone."""
    model = capped_alanine(dipeptide_vacuum, ani1x)
    positions = torch.tensor(dipeptide_vacuum.positions, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(positions), positions)
    for outer, inner in ALANINE_CAPS:
        bond = (positions[inner] - positions[outer]).detach()
        assert abs(float(gradient[inner] @ bond)) < 1e-10 * float(gradient[inner].norm() * bond.norm())


def test_script_and_eager_and_plain_agree(dipeptide_vacuum, ani1x):
    """TorchScript, eager and the model's `atom_energies` on the capped structure are the same numbers."""

    class Plain:
        spec = ani1x.spec

        def atom_energies(self, structure):
            return ani1x.atom_energies(structure)

    positions = torch.tensor(dipeptide_vacuum.positions, requires_grad=True)
    model = capped_alanine(dipeptide_vacuum, ani1x)
    plain = capped_alanine(dipeptide_vacuum, Plain())
    scripted = torch.jit.script(model.eval())
    numbers = torch.tensor([numbers_of(dipeptide_vacuum)[i] for i in ALANINE] + [1, 1])
    where = CappedAtoms(ALANINE, ALANINE_CAPS, (0.102, 0.109))(positions.detach(), None)
    expected = ani1x.atom_energies(Structure(numbers, where))
    torch.testing.assert_close(model.members(positions, None), expected.members, rtol=0, atol=1e-9)
    torch.testing.assert_close(plain.members(positions, None), expected.members, rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(model(positions), positions)
    for other in (scripted, plain):
        energy = other(positions)
        assert float(energy.detach()) == pytest.approx(float(expected.energies.sum()), abs=1e-9)
        torch.testing.assert_close(torch.autograd.grad(energy, positions)[0], gradient, rtol=0, atol=1e-8)


def test_both_bridges_run_a_capped_region(dipeptide_water, ani1x):
    """TorchForce and PythonForce agree in energy and forces, also with the molecule across the box edge."""
    centre = dipeptide_water.positions[6]
    shifted = dipeptide_water.positions - centre
    box = np.diag(dipeptide_water.box_vectors)
    results = []
    for bridge, positions in (
        ("torchforce", dipeptide_water.positions),
        ("pythonforce", dipeptide_water.positions),
        ("torchforce", shifted - np.floor(shifted / box) * box),
    ):
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*dipeptide_water.box_vectors)
        for _ in range(dipeptide_water.n_atoms):
            system.addParticle(1.0)
        model = capped_alanine(dipeptide_water, ani1x)
        system.addForce(make_force(model, bridge=bridge, periodic=True, name="capped"))
        results.append(energy_and_forces(system, positions))
    largest = np.abs(results[0][1]).max()
    for energy, forces in results[1:]:
        assert energy == pytest.approx(results[0][0], abs=1e-8)
        assert np.abs(forces - results[0][1]).max() < tolerances.BRIDGES * largest


def test_a_capped_methyl_is_methane(dipeptide_vacuum, ani1x):
    """CH3–CO capped on the carbon: five atoms whose energy is within the strain of a methane by hand."""
    numbers = numbers_of(dipeptide_vacuum)
    atoms, caps = (0, 1, 2, 3), ((1, 4),)
    model = CappedModel(
        ani1x, [numbers[i] for i in atoms], atoms, caps, cap_lengths(caps, numbers, ani1x.spec)
    )
    corner = 0.109 / 3**0.5
    tetrahedron = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    methane = torch.tensor([[0, 0, 0], *tetrahedron], dtype=torch.float64) * corner
    expected = ani1x.atom_energies(Structure(torch.tensor([6, 1, 1, 1, 1]), methane)).energies.sum()
    assert float(model(torch.tensor(dipeptide_vacuum.positions))) == pytest.approx(float(expected), abs=15)
    # A cap as far away as the carbon that it replaces is no cap.
    stretched = CappedModel(ani1x, [numbers[i] for i in atoms], atoms, caps, (0.153,))
    assert float(stretched(torch.tensor(dipeptide_vacuum.positions)) - expected) > 100


def test_a_model_without_torchscript_gets_the_charge(dipeptide_vacuum):
    seen = []

    class Charged(PlainSprings):
        def atom_energies(self, structure):
            seen.append((structure.charge, structure.spin))
            return super().atom_energies(structure)

    CappedModel(Charged(), [6], [8], [(8, 10)], [0.109], charge=-1, multiplicity=2)(
        torch.tensor(dipeptide_vacuum.positions)
    )
    assert seen == [(-1, 2)]


def test_lengths_by_element():
    """C, N, O, Si, P, S, Se on A; the replaced atom does not matter."""
    numbers = [6, 7, 8, 14, 15, 16, 34, 30]
    caps = [(k, 7) for k in range(7)]
    assert cap_lengths(caps, numbers, toy_spec()) == (0.109, 0.102, 0.096, 0.148, 0.142, 0.134, 0.147)
    assert all(0.09 < length < 0.16 for length in CAP_LENGTHS.values())


def test_impossible_caps_are_rejected(dipeptide_vacuum, ani1x):
    numbers, label = numbers_of(dipeptide_vacuum), "ALA:{}".format
    no_hydrogen = dataclasses.replace(ani1x.spec, elements=(6, 7, 8))
    with pytest.raises(EmbeddingError, match="knows hydrogen, for caps, but got ANI-1x"):
        cap_lengths([(8, 10)], numbers, no_hydrogen)
    assert cap_lengths([], numbers, no_hydrogen) == ()
    with pytest.raises(
        EmbeddingError, match="a single bond under every cap, but got ALA:6–ALA:4, which is none"
    ):
        cap_lengths(
            [(8, 10), (6, 4)], numbers, ani1x.spec, is_single=lambda a, b: {a, b} != {4, 6}, label=label
        )
    with pytest.raises(EmbeddingError, match=r"caps on C N O .*, but got ALA:7 of the cut bond to ALA:6"):
        cap_lengths([(7, 6)], numbers, ani1x.spec, label=label)


def test_colliding_caps_are_rejected(dipeptide_vacuum):
    """One atom out of the middle of a chain leaves two hydrogens as near as in H2; a residue does not."""
    positions = torch.tensor(dipeptide_vacuum.positions)
    around_ca = [(6, 8), (14, 8)]
    with pytest.raises(
        EmbeddingError, match=r"0\.1 nm apart, but got 0\.0\d+ nm between those on 6–8 and 14–8"
    ):
        check_cap_distances(around_ca, (0.102, 0.109), positions)
    check_cap_distances([(4, 6), (16, 14)], (0.109, 0.102), positions)
    check_cap_distances([], (), positions)


def test_caps_that_collide_through_the_edge_of_the_box():
    built = chains(n_molecules=1, n_atoms=3)
    positions = torch.tensor(built.positions)
    cell = 3.0 * torch.eye(3, dtype=torch.float64)
    moved = positions.clone()
    moved[2, 0] += 3.0
    with pytest.raises(EmbeddingError, match="nm between those on"):
        check_cap_distances([(0, 1), (2, 1)], (0.109, 0.109), moved, cell)
