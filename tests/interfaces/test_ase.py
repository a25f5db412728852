"""The hybrid as ASE sees it: energies, forces, stress, boxes, frozen and relaxed environments."""

from __future__ import annotations

import copy
import sys

import ase
import numpy as np
import openmm
import pytest
import torch
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress
from mm_systems import four_site_water
from openmm import unit
from scipy.spatial.transform import Rotation
from toys import OnRealAtoms, PlainSprings, SpringPotential, chains

import mlmm
from mlmm.collective_variables.values import bias_energy
from mlmm.errors import (
    ConfigError,
    EmbeddingError,
    MissingPackageError,
    SelectionError,
    SimulationError,
    StructureError,
)
from mlmm.forcefield.reference_platform import forces_of, potential_of, reference_context
from mlmm.interfaces.relaxing import residual_force
from mlmm.interfaces.surface import Surface
from mlmm.units import ANGSTROM, ELECTRONVOLT
from mlmm.zones.region import region_from_atoms

FORCE = ELECTRONVOLT / ANGSTROM  # kJ/mol/nm per eV/Å


def without_steps(built):
    """The system with pair energies that end smoothly at the cutoff, so that small differences are exact."""
    system = copy.deepcopy(built.system)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setUseSwitchingFunction(True)
            force.setSwitchingDistance(0.65)
            force.setEwaldErrorTolerance(1e-6)
    return mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)


def hybrid_of(built, potential, selection="resname ACE ALA NME", **options):
    zones = mlmm.hard_zones(built, mlmm.select_region(built, selection))
    return mlmm.hybrid_system(built, zones, potential, **options)


@pytest.fixture(scope="module")
def vacuum(dipeptide_vacuum, ani1x):
    return hybrid_of(dipeptide_vacuum, ani1x, "name CB HB1 HB2 HB3 CA HA", scheme="per_atom")


@pytest.fixture(scope="module")
def water(dipeptide_water, ani1x):
    return hybrid_of(without_steps(dipeptide_water), ani1x, scheme="additive")


@pytest.fixture(scope="module")
def rigid_water(root):
    """Alanine dipeptide among rigid waters, with springs instead of a trained potential."""
    built = mlmm.build_system(
        root / "systems/alanine_dipeptide/input.pdb",
        padding="0.35 nm",
        nonbonded_cutoff="0.75 nm",
        constraints="none",
        seed=3,
    )
    return hybrid_of(without_steps(built), PlainSprings(), scheme="additive")


def openmm_numbers(hybrid, positions, box=None):
    """eV and eV/Å of the whole system by OpenMM's Reference platform."""
    context = reference_context(hybrid.system, box)
    energy, forces = potential_of(context, positions), forces_of(context, positions)
    return energy / ELECTRONVOLT, forces / FORCE


@pytest.mark.parametrize("name", ["vacuum", "water"])
def test_energy_and_forces_are_those_of_openmm(name, request):
    hybrid = request.getfixturevalue(name)
    built = hybrid.built
    moved = built.positions + np.random.default_rng(1).normal(0, 0.002, built.positions.shape)
    energy, forces = openmm_numbers(hybrid, moved)
    atoms = mlmm.as_ase(hybrid, platform="Reference")
    atoms.positions = moved / ANGSTROM
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-10)
    assert np.abs(atoms.get_forces() - forces).max() < 1e-10 * np.abs(forces).max()
    region = mlmm.as_ase(hybrid, "region", positions=moved, platform="Reference")
    assert region.get_potential_energy() == pytest.approx(energy, rel=1e-10)
    inside = list(hybrid.zones.region.atoms)
    assert np.abs(region.get_forces() - forces[inside]).max() < 1e-10 * np.abs(forces).max()
    # Control: the environment counts.
    other = mlmm.as_ase(hybrid, "region", platform="Reference")
    other.positions = region.positions
    assert abs(other.get_potential_energy() - energy) > 1e-3


def test_atoms_tell_what_they_are(water):
    atoms = mlmm.as_ase(water)
    built = water.built
    assert isinstance(atoms, ase.Atoms) and len(atoms) == built.n_atoms and atoms.pbc.all()
    assert atoms.numbers.tolist() == built.numbers.tolist()
    np.testing.assert_allclose(np.array(atoms.cell) * ANGSTROM, built.box_vectors, rtol=1e-14)
    masses = [built.system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(built.n_atoms)]
    np.testing.assert_allclose(atoms.get_masses(), masses)
    assert np.flatnonzero(atoms.get_tags() == 1).tolist() == list(water.zones.core)
    assert set(atoms.arrays["residuenames"][:22]) == {"ACE", "ALA", "NME"}
    some = mlmm.as_ase(water, "resname ALA and name CB HB1 HB2 HB3")
    assert some.symbols.get_chemical_formula() == "CH3"
    assert built.labels[some.arrays["system_index"][0]] == "ALA2:CB"
    assert len(some.calc.new_atoms(whole=True)) == built.n_atoms


def test_forces_are_the_gradient(vacuum):
    atoms = mlmm.as_ase(vacuum, platform="Reference")
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 8, 9, 14])
    forces = atoms.get_forces()
    assert np.abs(numerical - forces[[0, 8, 9, 14]]).max() < 1e-6 * np.abs(forces).max()
    assert np.abs(numerical + forces[[0, 8, 9, 14]]).max() > 0.1 * np.abs(forces).max()


def test_stress_is_that_of_ase_by_differences(water):
    """And its trace is −3 p of OpenMM's own energies of a larger and a smaller box."""
    built, step = water.built, 1e-4
    atoms = mlmm.as_ase(water, platform="Reference")
    stress, numerical = atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-4)
    assert np.abs(stress - numerical).max() < 1e-4 * np.abs(numerical).max()
    scales = (1.0 + step, 1.0 - step)
    larger, smaller = (openmm_numbers(water, built.positions * k, built.box_vectors * k)[0] for k in scales)
    trace = (larger - smaller) / (2.0 * step * atoms.get_volume())
    assert stress[:3].sum() == pytest.approx(trace, rel=1e-4)
    # Control: the positions alone, in a cell that stays, are not it.
    virial = -(atoms.positions * atoms.get_forces()).sum() / atoms.get_volume()
    assert abs(virial - trace) > 0.01 * abs(trace)


def test_a_turned_leaning_wrapped_cell_is_the_same_crystal(water):
    """ASE holds cells in any orientation and wraps atom by atom; OpenMM does neither."""
    atoms = mlmm.as_ase(water, platform="Reference")
    turned = mlmm.as_ase(water, platform="Reference")
    rotation = Rotation.from_rotvec([0.4, -0.9, 0.3]).as_matrix()
    cell = np.array(atoms.cell)
    turned.set_cell((cell + np.array([[0, 0, 0], cell[0], -cell[0]])) @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    turned.wrap()
    assert np.abs(turned.positions - atoms.positions @ rotation.T).max() > 5.0
    assert turned.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-8)
    forces = atoms.get_forces()
    assert np.abs(turned.get_forces() - forces @ rotation.T).max() < 1e-8 * np.abs(forces).max()
    full, other = (voigt_6_to_full_3x3_stress(x.get_stress()) for x in (atoms, turned))
    assert np.abs(other - rotation @ full @ rotation.T).max() < 1e-4 * np.abs(full).max()
    mirrored = atoms.copy()
    mirrored.calc = atoms.calc
    mirrored.set_cell(cell * [1, 1, -1], scale_atoms=False)
    with pytest.raises(ConfigError, match="right-handed"):
        mirrored.get_potential_energy()


def test_the_box_is_followed(water):
    built = water.built
    atoms = mlmm.as_ase(water, platform="Reference")
    before = atoms.get_potential_energy()
    atoms.set_cell(np.array(atoms.cell) * 1.01, scale_atoms=True)
    energy, forces = openmm_numbers(water, built.positions * 1.01, built.box_vectors * 1.01)
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-10)
    assert abs(energy - before) > 1e-2
    assert np.abs(atoms.get_forces() - forces).max() < 1e-9 * np.abs(forces).max()
    atoms.set_cell(np.array(atoms.cell) * 0.9, scale_atoms=True)
    with pytest.raises(ConfigError, match="twice as wide as the cutoff"):
        atoms.get_potential_energy()


def test_the_region_comes_to_rest_in_its_environment(vacuum):
    atoms = mlmm.as_ase(vacuum, "region", platform="Reference")
    before, frozen = atoms.get_potential_energy(), atoms.calc.system_positions
    with BFGS(atoms, logfile=None) as optimiser:
        assert optimiser.run(fmax=1e-3, steps=150)
    after = atoms.calc.system_positions
    assert atoms.get_potential_energy() < before - 1e-3
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 1e-3
    outside = np.setdiff1d(np.arange(22), vacuum.zones.region.atoms)
    assert (after[outside] == frozen[outside]).all() and not np.allclose(after, frozen)
    energy, _ = openmm_numbers(vacuum, after)
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-10)


def test_a_relaxed_environment_gives_the_gradient_of_the_minimum(vacuum):
    """Hellmann-Feynman: the force is that of E(R) = min E(R, x), not of E at x as it was."""
    options = {"environment": "relaxed", "tolerance": "0.001 kJ/mol/nm", "platform": "Reference"}
    atoms = mlmm.as_ase(vacuum, "region", **options)
    atoms.rattle(0.02, seed=2)
    relaxed = atoms.get_potential_energy()
    forces = atoms.get_forces()
    assert residual_force(atoms.calc._surface._context, atoms.calc._surface._free) < 1e-3
    frozen = mlmm.as_ase(vacuum, "region", positions=atoms.calc.system_positions, platform="Reference")
    assert frozen.get_potential_energy() == pytest.approx(relaxed, abs=1e-9)
    along = np.random.default_rng(0).normal(size=forces.shape)
    slopes = {}
    for name, surface in (("relaxed", atoms), ("frozen", frozen)):
        start, energies = surface.positions.copy(), []
        for step in (5e-4, -5e-4):
            surface.positions = start + step * along
            energies.append(surface.get_potential_energy())
        surface.positions = start
        slopes[name] = -(energies[0] - energies[1]) / 1e-3
        assert slopes[name] == pytest.approx((forces * along).sum(), rel=1e-3)
        # Second differences tell the two surfaces apart: an environment that follows is softer.
        slopes[f"{name} curvature"] = sum(energies) - 2.0 * relaxed
    assert slopes["relaxed curvature"] < 0.99 * slopes["frozen curvature"]
    before = mlmm.as_ase(vacuum, "region")
    before.positions = atoms.positions
    assert relaxed < before.get_potential_energy() - 1e-3


def test_an_environment_of_rigid_water_relaxes_and_keeps_its_shape(rigid_water):
    atoms = mlmm.as_ase(rigid_water, "region", environment="relaxed", tolerance="5 kJ/mol/nm")
    before = mlmm.as_ase(rigid_water, "region").get_potential_energy()
    assert atoms.get_potential_energy() < before - 1.0
    surface = atoms.calc._surface
    assert residual_force(surface._context, surface._free) <= 5.0
    where, system = atoms.calc.system_positions, rigid_water.system
    for i in range(0, system.getNumConstraints(), 50):
        a, b, length = system.getConstraintParameters(i)
        assert np.linalg.norm(where[a] - where[b]) == pytest.approx(length._value, rel=1e-4)
    again = atoms.calc.copy().new_atoms()
    assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)


def test_an_environment_that_cannot_come_to_rest_is_a_sentence(vacuum, monkeypatch):
    monkeypatch.setattr("mlmm.interfaces.relaxing._STEPS", 100)
    monkeypatch.setattr("mlmm.interfaces.relaxing._ITERATIONS", 1)
    atoms = mlmm.as_ase(vacuum, "region", environment="relaxed", tolerance=1e-9, platform="Reference")
    with pytest.raises(SimulationError, match="expected an environment at rest, with forces below 1e-09"):
        atoms.get_potential_energy()


def test_rigid_water_stays_rigid_in_ase(rigid_water):
    """Constraints are held by ASE; positions that break them have no energy."""
    oxygens = [a.index for a in rigid_water.built.topology.atoms() if a.residue.name == "HOH"][:30:3]
    atoms = mlmm.as_ase(rigid_water, [*range(22), *(o + k for o in oxygens for k in range(3))])
    (held,) = atoms.constraints
    assert len(held.pairs) == 30
    before = atoms.get_potential_energy()
    with BFGS(atoms, logfile=None) as optimiser:
        optimiser.run(fmax=0.01, steps=5)
    assert atoms.get_potential_energy() < before
    first, second = held.pairs.T
    lengths = np.linalg.norm(atoms.positions[first] - atoms.positions[second], axis=1)
    np.testing.assert_allclose(lengths, held.bondlengths, rtol=1e-6)
    atoms.set_constraint()
    atoms.positions[first[0]] += 0.1
    with pytest.raises(ConfigError, match=r"between HOH.* and HOH.*, which the force field holds constant"):
        atoms.get_potential_energy()
    with pytest.raises(EmbeddingError, match=r"of which only one is free\. Choose the whole molecule"):
        mlmm.as_ase(rigid_water, oxygens[:1])
    with pytest.raises(PropertyNotImplementedError, match="constraints, whose forces no energy contains"):
        mlmm.as_ase(rigid_water).get_stress()


def test_virtual_sites_follow_their_atoms():
    built = four_site_water()
    zones = mlmm.hard_zones(built, region_from_atoms(built.topology, range(4), "molecule"))
    hybrid = mlmm.hybrid_system(built, zones, OnRealAtoms(), scheme="per_atom")
    atoms = mlmm.as_ase(hybrid, platform="Reference")
    assert len(atoms) == 3 * built.n_atoms // 4 and set(atoms.numbers) == {1, 8}
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 1])
    assert np.abs(numerical - atoms.get_forces()[:2]).max() < 1e-5 * np.abs(atoms.get_forces()).max()
    # The site moves with the oxygen, and carries its share of the force.
    site = int(np.flatnonzero(built.virtual_sites)[0])
    atoms.positions[0] += [0.05, 0.0, 0.0]
    atoms.get_potential_energy()
    assert atoms.calc.system_positions[site, 0] - built.positions[site, 0] > 0.002
    with pytest.raises(SelectionError, match="virtual sites only"):
        mlmm.as_ase(hybrid, [site])


def total_energies(atoms, steps=200):
    """Potential and kinetic energy along velocity Verlet at 0.25 fs, eV."""
    widths = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    atoms.set_momenta(widths * np.random.default_rng(3).normal(size=(len(atoms), 3)))
    energies = []
    dynamics = VelocityVerlet(atoms, 0.25 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(steps)
    return np.array(energies)


def test_velocity_verlet_of_ase_conserves_the_energy(vacuum, monkeypatch):
    energies = total_energies(mlmm.as_ase(vacuum, platform="Reference"))
    spread = energies.std()
    assert spread < 2e-3
    # Control: forces that are 5 % off.
    original = Surface.energy_and_forces
    monkeypatch.setattr(
        Surface, "energy_and_forces", lambda self, *args: (lambda e, f: (e, 1.05 * f))(*original(self, *args))
    )
    assert total_energies(mlmm.as_ase(vacuum, platform="Reference")).std() > 10 * spread


def test_another_system_is_a_sentence(vacuum, water):
    atoms = mlmm.as_ase(vacuum)
    fewer = atoms[:-1]
    fewer.calc = atoms.calc
    with pytest.raises(StructureError, match="Expected the 22 atoms that this calculator was made for"):
        fewer.get_potential_energy()
    other = atoms.copy()
    other.numbers[4], other.calc = 7, atoms.calc
    with pytest.raises(StructureError, match="as atom 4, but got the element N"):
        other.get_potential_energy()
    other = atoms.copy()
    other.pbc, other.calc = True, atoms.calc
    with pytest.raises(ConfigError, match="not periodic"):
        other.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="but got an open one"):
        atoms.get_stress()
    region = mlmm.as_ase(water, "region")
    region.set_cell(np.array(region.cell) * 1.02)
    with pytest.raises(ConfigError, match="the cell of the environment, which stays"):
        region.get_potential_energy()


def test_wrong_choices_are_sentences(vacuum):
    with pytest.raises(ConfigError, match=r"environment = frozen \| relaxed"):
        mlmm.as_ase(vacuum, environment="free")
    with pytest.raises(ConfigError, match="an environment to relax"):
        mlmm.as_ase(vacuum, environment="relaxed")
    with pytest.raises(SelectionError, match="atom indices between 0 and 21"):
        mlmm.as_ase(vacuum, [22])
    with pytest.raises(SelectionError, match="a selection that matches atoms"):
        mlmm.as_ase(vacuum, "resname LIG")
    with pytest.raises(ConfigError, match="positions of 22 particles and no box"):
        mlmm.as_ase(vacuum, positions=np.zeros((3, 3)))
    with pytest.raises(ConfigError, match="tolerance as a force"):
        mlmm.as_ase(vacuum, "region", environment="relaxed", tolerance="1 eV")


def test_images_have_memories_of_their_own(vacuum):
    atoms = mlmm.as_ase(vacuum, "region", environment="relaxed")
    image = copy.deepcopy(atoms)
    assert image.calc is not atoms.calc
    image.rattle(0.05, seed=1)
    image.get_potential_energy()
    before = atoms.calc.system_positions
    assert not np.allclose(image.calc.system_positions, before, atol=1e-4)
    assert (atoms.calc.system_positions == before).all()


def test_without_ase_there_is_a_line_to_type(vacuum, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mlmm\[ase\]'"):
        mlmm.as_ase(vacuum)


def test_a_restraint_and_its_places_follow_the_cell():
    """Energy of the restrained less that of the free hybrid in a larger cell: the bias by torch."""
    built = chains(box=1.5, cutoff=0.7)
    zones = mlmm.hard_zones(built, region_from_atoms(built.topology, range(4)))
    free = mlmm.hybrid_system(built, zones, SpringPotential())
    places = mlmm.Variable("places", "position", [[0, 1, 2, 3]])
    held = free.restrained([mlmm.Restraint(places, force_constant=1000.0)])
    cell = 1.02 * np.array(built.box_vectors)
    moved = built.positions + np.random.default_rng(0).normal(0, 0.01, built.positions.shape)
    energies = [
        Surface(hybrid, np.arange(8), built.positions, built.box_vectors).energy_and_forces(moved, cell)[0]
        for hybrid in (held, free)
    ]
    bias = float(bias_energy(held.biases, torch.tensor(moved), torch.tensor(cell)))
    assert energies[0] - energies[1] == pytest.approx(bias, abs=1e-3) and bias > 0.1
    stuck = float(bias_energy(held.biases, torch.tensor(moved), torch.tensor(built.box_vectors)))
    assert abs(stuck - bias) > 0.1
