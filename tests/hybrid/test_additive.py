"""Scheme `additive`: exactly the region's own force field leaves, nothing else changes."""

from __future__ import annotations

import itertools

import numpy as np
import openmm
import pytest
import tolerances
from openmm import unit
from toys import SpringPotential, chains, energy_and_forces

from mlmm.hybrid.system import hybrid_system
from mlmm.units import COULOMB
from mlmm.zones.region import molecules_of, region_from_atoms, select_region
from mlmm.zones.static import hard_zones


def own_force_field(system: openmm.System, atoms: list[int], positions: np.ndarray) -> float:
    """Energy of a region alone by another route: bonded terms and a plain sum over pairs.

    Pairs are taken at the distance given by `positions` and Lennard-Jones without cutoff, so the region must
    be whole and smaller than the cutoff.
    """
    inside = set(atoms)
    alone = openmm.System()
    for _ in range(system.getNumParticles()):
        alone.addParticle(1.0)
    total = 0.0
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            own = openmm.HarmonicBondForce()
            for i in range(force.getNumBonds()):
                a, b, length, k = force.getBondParameters(i)
                if {a, b} <= inside:
                    own.addBond(a, b, length, k)
            alone.addForce(own)
        elif isinstance(force, openmm.HarmonicAngleForce):
            own = openmm.HarmonicAngleForce()
            for i in range(force.getNumAngles()):
                *trio, angle, k = force.getAngleParameters(i)
                if set(trio) <= inside:
                    own.addAngle(*trio, angle, k)
            alone.addForce(own)
        elif isinstance(force, openmm.PeriodicTorsionForce):
            own = openmm.PeriodicTorsionForce()
            for i in range(force.getNumTorsions()):
                a, b, c, d, *rest = force.getTorsionParameters(i)
                if {a, b, c, d} <= inside:
                    own.addTorsion(a, b, c, d, *rest)
            alone.addForce(own)
        elif isinstance(force, openmm.NonbondedForce):
            total += pair_sum(force, atoms, positions)
    return total + energy_and_forces(alone, positions)[0]


def pair_sum(force: openmm.NonbondedForce, atoms: list[int], positions: np.ndarray) -> float:
    exceptions = {}
    for i in range(force.getNumExceptions()):
        a, b, *parameters = force.getExceptionParameters(i)
        exceptions[min(a, b), max(a, b)] = [p._value for p in parameters]
    total = 0.0
    for a, b in itertools.combinations(sorted(atoms), 2):
        r = np.linalg.norm(positions[a] - positions[b])
        if (a, b) in exceptions:
            product, sigma, epsilon = exceptions[a, b]
        else:
            (qa, sa, ea), (qb, sb, eb) = ([p._value for p in force.getParticleParameters(i)] for i in (a, b))
            product, sigma, epsilon = qa * qb, (sa + sb) / 2, np.sqrt(ea * eb)
        total += COULOMB * product / r + 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
    return total


@pytest.mark.parametrize("box", [None, 3.0])
@pytest.mark.parametrize("n_region", [1, 2])
def test_identity(box, n_region):
    """E_hybrid - E_ML + E_MM(region alone) = E_MM, under PME too, also for a region of two molecules."""
    built = chains(n_molecules=4, box=box, cutoff=1.4)
    atoms = list(range(4 * n_region))
    hybrid = hybrid_system(
        built,
        hard_zones(built, region_from_atoms(built.topology, atoms)),
        SpringPotential(),
        bridge="torchforce",
    )
    full, _ = energy_and_forces(built.system, built.positions)
    rest, _ = energy_and_forces(hybrid.system, built.positions, groups=0x1F)
    own = own_force_field(built.system, atoms, built.positions)
    tolerance = tolerances.IDENTITY if box is None else tolerances.IDENTITY_MESH
    assert rest + own == pytest.approx(full, abs=tolerance)
    assert abs(own) > 1.0  # the identity is not about zeros


def test_identity_for_the_dipeptide_in_water(dipeptide_water, ani1x):
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), ani1x, scheme="additive")
    full, _ = energy_and_forces(dipeptide_water.system, dipeptide_water.positions)
    rest, _ = energy_and_forces(hybrid.system, dipeptide_water.positions, groups=0x1F)
    own = own_force_field(dipeptide_water.system, list(region.atoms), dipeptide_water.positions)
    # Pairs beyond the cutoff: the exception removes their Coulomb energy, but their Lennard-Jones was never
    # there.
    nonbonded = next(f for f in dipeptide_water.system.getForces() if isinstance(f, openmm.NonbondedForce))
    cutoff = nonbonded.getCutoffDistance().value_in_unit(unit.nanometer)
    positions = dipeptide_water.positions[list(region.atoms)]
    largest = np.linalg.norm(positions[:, None] - positions[None], axis=-1).max()
    assert largest < cutoff
    assert rest + own == pytest.approx(full, abs=tolerances.IDENTITY_MESH)


def test_region_energy_is_the_models_own(dipeptide_water, ani1x):
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), ani1x, scheme="additive")
    ml, _ = energy_and_forces(hybrid.system, dipeptide_water.positions, groups=1 << hybrid.force_groups["ml"])
    direct = hybrid.region_energies(dipeptide_water.positions).energies.sum()
    assert ml == pytest.approx(float(direct), abs=1e-9)


def test_wrapping_molecules_changes_nothing(dipeptide_water, ani1x):
    """Every molecule by its own box vectors, region included."""
    region = select_region(dipeptide_water, "resname ACE ALA NME or resSeq 20")
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), ani1x, scheme="additive")
    assert len(region) > 22  # the region holds a water too: exceptions join different molecules
    before, forces = energy_and_forces(hybrid.system, dipeptide_water.positions)
    generator = np.random.default_rng(5)
    moved = np.array(dipeptide_water.positions)
    for molecule in molecules_of(dipeptide_water.topology):
        moved[list(molecule)] += generator.integers(-2, 3, 3) @ dipeptide_water.box_vectors
    after, moved_forces = energy_and_forces(hybrid.system, moved)
    assert after == pytest.approx(before, abs=tolerances.IMAGES)
    assert np.abs(moved_forces - forces).max() < 1e-6


def test_wrapping_needs_periodic_exceptions(dipeptide_water, ani1x):
    """Negative control: with exceptions that ignore the box, the same move changes the energy."""
    waters = [r for r in dipeptide_water.topology.residues() if r.name == "HOH"][:2]
    region = region_from_atoms(dipeptide_water.topology, [a.index for r in waters for a in r.atoms()])
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), ani1x, scheme="additive")
    force = next(f for f in hybrid.system.getForces() if isinstance(f, openmm.NonbondedForce))
    assert force.getExceptionsUsePeriodicBoundaryConditions()
    force.setExceptionsUsePeriodicBoundaryConditions(False)
    before, _ = energy_and_forces(hybrid.system, dipeptide_water.positions)
    moved = np.array(dipeptide_water.positions)
    moved[[a.index for a in waters[0].atoms()]] += dipeptide_water.box_vectors[0]
    after, _ = energy_and_forces(hybrid.system, moved)
    assert abs(after - before) > 0.1


def test_a_fresh_system_is_the_same_system(dipeptide_vacuum, ani1x):
    hybrid = hybrid_system(
        dipeptide_vacuum, hard_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "all")), ani1x
    )
    first, forces = energy_and_forces(hybrid.system, dipeptide_vacuum.positions)
    second, other = energy_and_forces(hybrid.create_system(), dipeptide_vacuum.positions)
    assert first == second
    assert np.array_equal(forces, other)
    assert hybrid.create_system() is not hybrid.system


def test_a_region_stays_one_molecule_for_openmm(dipeptide_water, ani1x):
    """Without bond terms OpenMM would wrap its atoms one by one: they are joined by bonds without energy."""
    zones = hard_zones(dipeptide_water, select_region(dipeptide_water, "resname ACE ALA NME"))
    for scheme in ("additive", "per_atom"):
        system = hybrid_system(dipeptide_water, zones, ani1x, scheme=scheme).system
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        middle = np.diag(dipeptide_water.box_vectors) / 2
        first = dipeptide_water.positions[8]
        context.setPositions(dipeptide_water.positions - first + middle * [0, 1, 1])  # across a face
        x = context.getState(positions=True, enforcePeriodicBox=True).getPositions(asNumpy=True)._value[:22]
        assert np.linalg.norm(x[:, None] - x[None], axis=2).max() < 1.2
