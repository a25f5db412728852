"""Molecules from frames: whole, in the nearest image, charges complete, caps as in the hybrid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import PlainSprings, chains

from mlmm.blending.link_atoms import CAP_LENGTHS
from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Produce
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.learning.acquisition.region_frames import RegionInCharges, frames_of_run
from mlmm.structures import minimum_image
from mlmm.units import COULOMB
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones


def _coulomb(molecule, charges) -> float:
    """Energy of fixed charges of the region with those around it."""
    apart = np.linalg.norm(molecule.positions[:, None] - molecule.external.positions[None], axis=2)
    return float(COULOMB * (charges[:, None] * molecule.external.charges[None] / apart).sum())


def test_images_are_the_nearest_and_molecules_whole():
    """Moving any molecule by box vectors changes nothing; pairs are at their minimum-image distance."""
    built = chains(n_molecules=5, box=3.0)
    cutter = RegionInCharges(built, range(4))
    first = cutter.molecule(built.positions, built.box_vectors)
    random = np.random.default_rng(0)
    moved = built.positions.copy()
    for members in built.molecules[1:]:
        moved[list(members)] += random.integers(-2, 3, 3) @ built.box_vectors
    second = cutter.molecule(moved, built.box_vectors)
    np.testing.assert_allclose(first.external.positions, second.external.positions, atol=1e-12)
    np.testing.assert_array_equal(first.positions, built.positions[:4])
    bonds = np.diff(first.external.positions.reshape(4, 4, 3), axis=1)
    expected = np.diff(built.positions[4:].reshape(4, 4, 3), axis=1)
    np.testing.assert_allclose(bonds, expected, atol=1e-12)
    # The nearest atom of each molecule is at its minimum-image distance.
    apart = first.positions[:, None] - first.external.positions[None]
    shortest = minimum_image(torch.tensor(apart), torch.tensor(built.box_vectors)).norm(dim=2).numpy()
    plain = np.linalg.norm(apart, axis=2)
    for k in range(4):
        assert abs(plain[:, 4 * k : 4 * k + 4].min() - shortest[:, 4 * k : 4 * k + 4].min()) < 1e-12


def test_radius_takes_whole_molecules():
    built = chains(n_molecules=6, box=None)
    distances = [
        np.linalg.norm(built.positions[:4, None] - built.positions[None, list(m)], axis=2).min()
        for m in built.molecules
    ]
    for radius in (0.3, 0.9, 2.0):
        cutter = RegionInCharges(built, range(4), f"{radius} nm")
        found = cutter.molecule(built.positions).external
        wanted = sum(distance <= radius for distance in distances[1:])
        assert (0 if found is None else len(found)) == 4 * wanted
    assert RegionInCharges(built, range(4), "0 nm").molecule(built.positions).external is None
    everything = RegionInCharges(built, range(4)).molecule(built.positions).external
    assert len(everything) == 20


def test_charges_are_those_of_the_force_field():
    """Coulomb energy of the region's own charges among them, against OpenMM without cutoff."""
    import openmm

    built = chains(n_molecules=4, box=None)
    (force,) = (f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    charges = np.array([force.getParticleParameters(i)[0]._value for i in range(built.n_atoms)])
    molecule = RegionInCharges(built, range(4)).molecule(built.positions)
    system = openmm.System()
    pairs = openmm.CustomNonbondedForce(f"{COULOMB}*q1*q2/r")
    pairs.addPerParticleParameter("q")
    for charge in charges:
        system.addParticle(1.0)
        pairs.addParticle([charge])
    pairs.addInteractionGroup(range(4), range(4, built.n_atoms))
    system.addForce(pairs)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(built.positions)
    energy = context.getState(getEnergy=True).getPotentialEnergy()._value
    np.testing.assert_allclose(_coulomb(molecule, charges[:4]), energy, rtol=1e-10)


def test_caps_and_the_charges_at_the_cut():
    """Two atoms of a chain of four: a hydrogen on the bond, no charge on it, the total kept."""
    built = chains(n_molecules=2, box=None)
    whole = RegionInCharges(built, range(4)).molecule(built.positions).external.charges.sum()
    molecule = RegionInCharges(built, [0, 1]).molecule(built.positions)
    assert molecule.numbers.tolist() == [6, 6, 1]
    bond = built.positions[2] - built.positions[1]
    expected = built.positions[1] + CAP_LENGTHS[6] * bond / np.linalg.norm(bond)
    np.testing.assert_allclose(molecule.positions[2], expected, atol=1e-12)
    nearest = np.linalg.norm(molecule.external.positions - built.positions[2], axis=1).min()
    assert nearest > 0.05  # atom 2 itself has lost its charge
    by_force_field = built.system.getForces()[3]
    rest = sum(by_force_field.getParticleParameters(i)[0]._value for i in (2, 3))
    np.testing.assert_allclose(molecule.external.charges.sum(), whole + rest, atol=1e-12)


def test_caps_are_those_of_the_hybrid(dipeptide_water):
    """A region cut out of the dipeptide: the places that the additive scheme shows its model."""
    built = dipeptide_water
    residue = [a.index for a in built.topology.atoms() if a.residue.name == "ACE"]
    cutter = RegionInCharges(built, residue, "0.6 nm")
    molecule = cutter.molecule(built.positions, built.box_vectors, {"run": "x"})
    assert molecule.numbers[-1] == 1 and len(molecule) == len(residue) + 1
    zones = hard_zones(built, region_from_atoms(built.topology, residue, "atoms"))
    hybrid = hybrid_system(built, zones, PlainSprings(), scheme="additive", bridge="pythonforce")
    capped = hybrid.blend.capped
    shown = capped(*as_tensors(built.positions, built.box_vectors)).numpy()
    np.testing.assert_allclose(molecule.positions, shown, atol=1e-12)
    # Control: the hydrogen is not where the atom is that it replaces.
    apart = np.linalg.norm(built.positions - molecule.positions[-1], axis=1).min()
    assert apart > 0.02
    waters = [m for m in built.molecules if len(m) == 3]
    # Whole waters: with the dipeptide's rest, whose replaced atom has no charge, all adds up to zero.
    assert abs(molecule.external.charges.sum() + _charge_of(built, residue)) < 1e-6
    assert len(molecule.external) < 3 * len(waters)


def _charge_of(built, atoms) -> float:
    import openmm

    (force,) = (f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    return sum(force.getParticleParameters(i)[0]._value for i in atoms)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    built = chains(n_molecules=3, box=3.0)
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    hybrid = hybrid_system(built, zones, PlainSprings(), bridge="pythonforce")
    folder = tmp_path_factory.mktemp("frames") / "run"
    return hybrid, simulate(
        hybrid,
        folder,
        [Equilibrate("5 fs"), Produce("40 fs")],
        platform="CPU",
        timestep="0.5 fs",
        trajectory_interval=10,
        seed=3,
    )


def test_frames_of_a_run(run):
    hybrid, directory = run
    found = frames_of_run(directory.path, window="w1")
    assert len(found) == 8 and all(len(m) == 4 and len(m.external) == 8 for m in found)
    assert found[5].origin == {"run": str(directory.path), "frame": "5", "window": "w1"}
    assert found[0].charge == hybrid.charge
    assert not np.allclose(found[0].positions, found[7].positions)
    some = frames_of_run(directory.path, first=1, every=3, radius="0 nm")
    assert [m.origin["frame"] for m in some] == ["1", "4", "7"] and some[0].external is None
    shape = found[4].positions - found[4].positions[0]
    np.testing.assert_allclose(some[1].positions - some[1].positions[0], shape, atol=1e-6)


def test_runs_that_have_no_frames(tmp_path, run):
    with pytest.raises(ConfigError, match="Give the folder of a run"):
        frames_of_run(tmp_path)
    with pytest.raises(ConfigError, match="every = 0"):
        frames_of_run(run[1].path, every=0)
    with pytest.raises(ConfigError, match="a region of some atoms"):
        RegionInCharges(chains(), [])
