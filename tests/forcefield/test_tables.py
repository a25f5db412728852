"""A system becomes arrays without loss; what does not fit is refused by name."""

from __future__ import annotations

import itertools
import math

import numpy as np
import openmm
import pytest
from toys import chains

from mlmm.errors import EmbeddingError
from mlmm.forcefield.tables import read_mm_tables


def particles(n: int) -> openmm.System:
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    return system


def bonded_system() -> openmm.System:
    """One or two terms of each class; the second spring and the angle ask for periodic images."""
    system = particles(6)
    forces = [openmm.HarmonicBondForce(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()]
    forces[0].addBond(0, 1, 0.15, 1000.0)
    forces[1].addBond(0, 2, 0.25, 300.0)  # Urey-Bradley
    forces[1].setUsesPeriodicBoundaryConditions(True)
    forces[2].addAngle(0, 1, 2, 1.9, 400.0)
    forces[2].setUsesPeriodicBoundaryConditions(True)
    forces += [openmm.PeriodicTorsionForce(), openmm.RBTorsionForce()]
    forces[3].addTorsion(0, 1, 2, 3, 3, 0.5, 2.0)
    forces[4].addTorsion(1, 2, 3, 4, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    for size in (3, 4):
        forces.append(openmm.CMAPTorsionForce())
        forces[-1].addMap(size, [float(i) for i in range(size * size)])
        forces[-1].addTorsion(0, 0, 1, 2, 3, 1, 2, 3, 4)
    for force in forces:
        system.addForce(force)
    return system


def test_bonded_terms():
    tables = read_mm_tables(bonded_system())
    assert tables.bond_atoms.tolist() == [[0, 1], [0, 2]] and tables.bond_atoms.dtype == np.int64
    assert tables.bond_length.tolist() == [0.15, 0.25] and tables.bond_k.tolist() == [1000.0, 300.0]
    assert tables.bond_periodic.tolist() == [False, True] and tables.angle_periodic.tolist() == [True]
    assert tables.angle_atoms.tolist() == [[0, 1, 2]]
    assert (tables.angle_value.tolist(), tables.angle_k.tolist()) == ([1.9], [400.0])
    assert tables.torsion_atoms.tolist() == [[0, 1, 2, 3]] and tables.torsion_n.tolist() == [3]
    assert (tables.torsion_phase.tolist(), tables.torsion_k.tolist()) == ([0.5], [2.0])
    assert tables.rb_coefficients.tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    # The second force's first map is the second map of all; the first dihedral runs fastest in OpenMM.
    assert tables.cmap_map.tolist() == [0, 1] and tables.cmap_map.dtype == np.int64
    assert tables.cmap_energies[0].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert tables.cmap_energies[1].shape == (4, 4)
    assert tables.cmap_atoms.tolist() == [[0, 1, 2, 3, 1, 2, 3, 4]] * 2
    # Without a non-bonded force there are no charges and no cutoff.
    assert not tables.charge.any() and not tables.epsilon.any() and len(tables.exception_atoms) == 0
    assert tables.cutoff == math.inf and tables.switch is None and not tables.periodic


def test_an_empty_system_has_the_right_shapes():
    tables = read_mm_tables(particles(2))
    assert tables.bond_atoms.shape == (0, 2) and tables.cmap_atoms.shape == (0, 8)
    assert tables.rb_coefficients.shape == (0, 6) and tables.exception_atoms.shape == (0, 2)
    assert tables.exception_index(np.array([0]), np.array([1])).tolist() == [-1]


def test_nonbonded_parameters():
    built = chains(n_molecules=2, box=3.0, cutoff=1.1)
    force = next(f for f in built.system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.8)
    tables = read_mm_tables(built.system)
    assert (tables.cutoff, tables.switch, tables.periodic) == (1.1, 0.8, True)
    assert not tables.exceptions_periodic
    for i in range(8):
        expected = [p._value for p in force.getParticleParameters(i)]
        assert [tables.charge[i], tables.sigma[i], tables.epsilon[i]] == expected
    for i in range(force.getNumExceptions()):
        a, b, *own = force.getExceptionParameters(i)
        own_read = [tables.exception_charge[i], tables.exception_sigma[i], tables.exception_epsilon[i]]
        assert own_read == [p._value for p in own]
        assert tables.exception_index(np.array([a, b]), np.array([b, a])).tolist() == [i, i]
    pairs = np.array(list(itertools.combinations(range(8), 2))).T
    assert (tables.exception_index(*pairs) >= 0).sum() == force.getNumExceptions()
    force.setExceptionsUsePeriodicBoundaryConditions(True)
    assert read_mm_tables(built.system).exceptions_periodic
    force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    open_tables = read_mm_tables(built.system)
    # OpenMM ignores cutoff, switch and images here.
    assert (open_tables.cutoff, open_tables.switch, open_tables.periodic) == (math.inf, None, False)
    assert not open_tables.exceptions_periodic


def test_cmap_patches_join_smoothly_and_pass_through_the_map():
    rng = np.random.default_rng(0)
    system = bonded_system()
    next(f for f in system.getForces() if isinstance(f, openmm.CMAPTorsionForce)).setMapParameters(
        0, 3, rng.normal(size=9).tolist()
    )
    tables = read_mm_tables(system)
    for energies, patches in zip(tables.cmap_energies, tables.cmap_patches(), strict=True):
        size = len(energies)
        grid = patches.reshape(size, size, 4, 4)
        np.testing.assert_allclose(grid[:, :, 0, 0], energies, atol=1e-12)
        # Value, slope and curvature at x = 1 are those at x = 0 of the next patch, around the period too.
        following = np.roll(grid, -1, axis=0)
        np.testing.assert_allclose(grid.sum(axis=2), following[:, :, 0], atol=1e-12)
        slope = np.einsum("xymn,m->xyn", grid, [0, 1, 2, 3])
        np.testing.assert_allclose(slope, following[:, :, 1], atol=1e-12)


def test_virtual_sites():
    system = particles(3)
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    assert read_mm_tables(system).virtual.tolist() == [False, False, True]


def test_forces_without_terms_are_passed_over():
    system = bonded_system()
    system.addForce(openmm.CMMotionRemover())
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    system.addForce(openmm.CustomExternalForce("x^2"))
    bias = openmm.CustomBondForce("r")
    bias.setName("bias")
    system.addForce(bias)
    assert len(read_mm_tables(system, keep=["bias"]).bond_atoms) == 2
    assert len(read_mm_tables(system, keep=["CustomBondForce"]).bond_atoms) == 2


def nonbonded(**settings) -> openmm.NonbondedForce:
    force = openmm.NonbondedForce()
    for _ in range(6):
        force.addParticle(settings.get("charge", 0.0), 0.3, 0.5)
    force.setNonbondedMethod(settings.get("method", openmm.NonbondedForce.PME))
    if "offset" in settings:
        force.addGlobalParameter("s", 1.0)
    if settings.get("offset") == "particle":
        force.addParticleParameterOffset("s", 0, 0.1, 0.0, 0.0)
    if settings.get("offset") == "exception":
        force.addException(0, 1, 0.1, 0.3, 0.1)
        force.addExceptionParameterOffset("s", 0, 0.1, 0.0, 0.0)
    force.setIncludeDirectSpace(settings.get("direct", True))
    return force


REACTION_FIELD = (openmm.NonbondedForce.CutoffNonPeriodic, openmm.NonbondedForce.CutoffPeriodic)
REFUSED = [
    (lambda: openmm.CustomBondForce("r^2"), "CustomBondForce.*additive"),
    (lambda: openmm.CustomNonbondedForce("1/r"), "CustomNonbondedForce.*additive"),
    (lambda: openmm.CustomTorsionForce("theta"), "CustomTorsionForce.*additive"),
    (openmm.AmoebaMultipoleForce, "AmoebaMultipoleForce.*Remove it"),
    (openmm.DrudeForce, "DrudeForce.*Remove it"),
    (lambda: nonbonded(method=openmm.NonbondedForce.LJPME), "LJPME.*PME"),
    (lambda: nonbonded(charge=0.1, method=REACTION_FIELD[0]), "reaction field.*additive"),
    (lambda: nonbonded(charge=0.1, method=REACTION_FIELD[1]), "reaction field.*additive"),
    (lambda: nonbonded(offset="particle"), "parameter offsets.*additive"),
    (lambda: nonbonded(offset="exception"), "parameter offsets.*additive"),
    (lambda: nonbonded(direct=False), "includeDirectSpace"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message.split(".")[0] for _, message in REFUSED])
def test_refusals_name_the_force_and_the_way_out(make, message):
    system = bonded_system()
    system.addForce(make())
    with pytest.raises(EmbeddingError, match=message):
        read_mm_tables(system)


def test_a_second_nonbonded_force_is_refused():
    system = particles(6)
    system.addForce(nonbonded())
    read_mm_tables(system)
    system.addForce(nonbonded())
    with pytest.raises(EmbeddingError, match="one NonbondedForce"):
        read_mm_tables(system)


def test_a_cutoff_without_charges_is_no_reaction_field():
    for method in REACTION_FIELD:
        system = particles(6)
        system.addForce(nonbonded(method=method))
        tables = read_mm_tables(system)
        assert tables.cutoff == 1.0
        assert tables.periodic == (method == openmm.NonbondedForce.CutoffPeriodic)
