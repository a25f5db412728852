"""Scheme `per_atom`: identities for any weights, forces, both bridges, bonds across the boundary."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import tolerances
import torch
from toys import (
    ForceFieldPotential,
    PlainSprings,
    chains,
    energy_and_forces,
    random_zones,
    zones_with,
)

from mlmm.errors import EmbeddingError
from mlmm.hybrid.assemble import assemble
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import finite_difference_error
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones

BRIDGES = ["torchforce", "pythonforce"]


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("seed", range(3))
def test_identity_for_random_weights(bridge, seed):
    """eps^ML = eps^MM gives the force field back, whatever the weights (T4): energy and forces."""
    built = chains(n_molecules=4, n_atoms=6, seed=seed)
    hybrid = hybrid_system(
        built, random_zones(built, 14, seed), ForceFieldPotential(built), scheme="per_atom", bridge=bridge
    )
    expected, forces = energy_and_forces(built.system, built.positions)
    energy, found = energy_and_forces(hybrid.system, built.positions)
    assert energy == pytest.approx(expected, abs=tolerances.IDENTITY_MESH)
    assert np.abs(found - forces).max() < 1e-9 * np.abs(forces).max() + 1e-8
    # The parts are no zeros.
    ml, _ = energy_and_forces(hybrid.system, built.positions, groups=1 << hybrid.force_groups["ml"])
    assert abs(ml) > 1.0


def test_identity_for_the_dipeptide_cut_through_its_backbone(dipeptide_water):
    """The same with ff14SB under PME, a residue and its surroundings in the zone: to 1e-8 kJ/mol (V2)."""
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, plateau="0.0 nm", width="0.3 nm", snap="hydrogen")
    assert zones.transition and zones.cut_bonds
    hybrid = hybrid_system(dipeptide_water, zones, ForceFieldPotential(dipeptide_water), scheme="per_atom")
    expected, forces = energy_and_forces(dipeptide_water.system, dipeptide_water.positions)
    energy, found = energy_and_forces(hybrid.system, dipeptide_water.positions)
    assert energy == pytest.approx(expected, abs=tolerances.IDENTITY)
    assert np.abs(found - forces).max() < 1e-8


def test_identity_needs_the_pairs_that_left(dipeptide_water):
    """Negative control: without the pairs inside the zone the identity fails by hundreds of kJ/mol."""
    region = select_region(dipeptide_water, "resname ALA")
    hybrid = hybrid_system(
        dipeptide_water,
        hard_zones(dipeptide_water, region),
        ForceFieldPotential(dipeptide_water),
        scheme="per_atom",
    ).reassembled(mm_side="torch")
    positions = torch.tensor(dipeptide_water.positions)
    box = torch.tensor(dipeptide_water.box_vectors)
    assert abs(float(hybrid.blend.full_pairs(positions, box).sum())) > 10


@pytest.mark.parametrize("gauge", [0.0, 40.0])
def test_uniform_weights_are_linear_and_free_of_gauge(gauge):
    """E(l) = (1 − l) E(0) + l E(1) for equal weights l on all atoms (T3), whatever the gauge (V5)."""
    built = chains(n_molecules=3, n_atoms=5)
    mm, _ = energy_and_forces(built.system, built.positions)

    def energy(weight: float, gauge: float) -> float:
        zones = zones_with(built, dict.fromkeys(range(built.n_atoms), weight))
        potential = ForceFieldPotential(built, scale=1.3, gauge=gauge)
        hybrid = hybrid_system(built, zones, potential, scheme="per_atom", bridge="pythonforce")
        return energy_and_forces(hybrid.system, built.positions)[0]

    whole = energy(1.0, 0.0)
    assert abs(whole - mm) > 1.0
    for weight in (0.1, 0.5, 0.9):
        expected = (1 - weight) * mm + weight * whole
        assert energy(weight, gauge) == pytest.approx(expected, abs=tolerances.IDENTITY_MESH)


def test_weights_that_differ_feel_the_gauge():
    """Negative control of the test above: the gauge is real where the weights are not equal."""
    built = chains(n_molecules=3, n_atoms=5)
    zones = random_zones(built, 9)
    energies = []
    for gauge in (0.0, 40.0):
        potential = ForceFieldPotential(built, gauge=gauge)
        hybrid = hybrid_system(built, zones, potential, scheme="per_atom", bridge="pythonforce")
        energies.append(energy_and_forces(hybrid.system, built.positions)[0])
    assert abs(energies[0] - energies[1]) > 0.1


def test_weight_one_everywhere_is_the_model_and_the_tail():
    """E = E_ML + E_MM − sum eps^MM,sr, with both sums evaluated outside OpenMM (T2)."""
    built = chains(n_molecules=3, n_atoms=5, box=None)
    potential = ForceFieldPotential(built, scale=0.7)
    hybrid = hybrid_system(
        built, zones_with(built, dict.fromkeys(range(built.n_atoms), 1.0)), potential, scheme="per_atom"
    )
    energy, _ = energy_and_forces(hybrid.system, built.positions)
    mm, _ = energy_and_forces(built.system, built.positions)
    positions = torch.tensor(built.positions)
    short = ForceFieldPotential(built).scriptable([6] * built.n_atoms)(positions, None).sum()
    model = potential.scriptable([6] * built.n_atoms)(positions, None).sum()
    assert energy == pytest.approx(float(model) + mm - float(short), abs=tolerances.IDENTITY)


@pytest.fixture(scope="module")
def ani_blend(dipeptide_water, ani1x):
    """Alanine in ANI-1x, a zone through the peptide bonds and the water around."""
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, plateau="0.1 nm", width="0.2 nm", snap="hydrogen")
    return hybrid_system(dipeptide_water, zones, ani1x, scheme="per_atom", bridge="torchforce")


def test_finite_differences_with_ani(ani_blend):
    assert ani_blend.zones.transition and ani_blend.zones.cut_bonds
    for bridge in BRIDGES:
        spec = dataclasses.replace(ani_blend.spec, bridge=bridge)
        checked = dataclasses.replace(ani_blend, spec=spec, assembled=assemble(spec))
        assert finite_difference_error(checked, n_coordinates=15) < tolerances.FINITE_DIFFERENCE


def test_bridges_agree_with_ani(ani_blend):
    positions = ani_blend.built.positions
    other = ani_blend.create_system("pythonforce")
    energy, forces = energy_and_forces(ani_blend.system, positions)
    other_energy, other_forces = energy_and_forces(other, positions)
    assert other_energy == pytest.approx(energy, rel=tolerances.BRIDGES)
    assert np.abs(forces - other_forces).max() < tolerances.BRIDGES * np.abs(forces).max()


def test_a_model_without_torchscript_gives_the_same(ani_blend, ani1x):
    """Only `atom_energies`, on what lies within its reach: the same numbers."""

    class Plain:
        spec = ani1x.spec
        atom_energies = staticmethod(ani1x.atom_energies)

    hybrid = hybrid_system(ani_blend.built, ani_blend.zones, Plain(), scheme="per_atom")
    assert hybrid.bridge == "pythonforce"
    energy, forces = energy_and_forces(ani_blend.system, ani_blend.built.positions)
    other, found = energy_and_forces(hybrid.system, ani_blend.built.positions)
    assert other == pytest.approx(energy, abs=1e-8)
    assert np.abs(found - forces).max() < 1e-7


def test_momentum_and_images(ani_blend):
    """The blend has no net force (T6), and moving whole molecules by box vectors changes nothing (V10)."""
    from mlmm.zones.region import molecules_of

    built, group = ani_blend.built, 1 << ani_blend.force_groups["ml"]
    _, forces = energy_and_forces(ani_blend.system, built.positions, groups=group)
    assert np.abs(forces.sum(axis=0)).max() < 1e-9 * np.abs(forces).sum()
    moved = np.array(built.positions)
    generator = np.random.default_rng(2)
    for molecule in molecules_of(built.topology):
        moved[list(molecule)] += generator.integers(-2, 3, 3) @ built.box_vectors
    after, _ = energy_and_forces(ani_blend.system, moved)
    before, _ = energy_and_forces(ani_blend.system, built.positions)
    assert after == pytest.approx(before, abs=tolerances.IMAGES)


def test_energy_error_is_of_second_order(ani1x):
    """NVE through a smooth zone that cuts bonds: halving the step quarters the energy error."""
    from energy_noise import energy_noise

    built = chains(n_molecules=2, n_atoms=6, box=None)
    zones = random_zones(built, 8)
    hybrid = hybrid_system(built, zones, ForceFieldPotential(built, scale=1.2), scheme="per_atom")
    coarse, fine = (energy_noise(hybrid.system, built.positions, step, 0.4) for step in (0.001, 0.0005))
    assert coarse / fine == pytest.approx(4.0, abs=0.8)


def test_rigid_molecules_in_the_zone_are_refused(dipeptide_water):
    system = openmm.XmlSerializer.clone(dipeptide_water.system)
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            a, b, length, _ = force.getBondParameters(0)
            force.setBondParameters(0, a, a + 30, length, 0.0)
    system.addConstraint(a, b, length)
    import mlmm

    built = mlmm.BuiltSystem.from_openmm(dipeptide_water.topology, system, dipeptide_water.positions)
    zones = hard_zones(built, select_region(built, "resname ACE ALA NME"))
    with pytest.raises(EmbeddingError, match=r'without a bond term\. Build with constraints = "none"'):
        hybrid_system(built, zones, ForceFieldPotential(dipeptide_water), scheme="per_atom")


def test_wrong_combinations_are_refused(dipeptide_water):
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    smooth = static_zones(dipeptide_water, region)
    with pytest.raises(EmbeddingError, match="atoms with lambda between 0 and 1"):
        hybrid_system(dipeptide_water, smooth, PlainSprings())
    with pytest.raises(EmbeddingError, match=r"a scheme for plain springs .*: additive, but got 'per_atom'"):
        hybrid_system(dipeptide_water, smooth, PlainSprings(), scheme="per_atom")
