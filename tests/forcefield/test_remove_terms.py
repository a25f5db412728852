"""Each class of forces is divided exactly, kept, or refused by name."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from toys import SpringPotential, bonded_forces, chains, energy_and_forces

from mlmm.errors import EmbeddingError
from mlmm.forcefield.remove_terms import remove_region_terms
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

REGION_PAIRS = [0, 1, 2, 3]  # the first of three chains of four atoms


@pytest.mark.parametrize("name", sorted(bonded_forces(REGION_PAIRS)))
def test_bonded_terms_inside_leave_and_all_others_stay(name):
    """What is left is the energy of the crossing and the outside term, each computed alone."""
    built = chains(n_molecules=3, box=None)
    positions = built.positions
    crossing, outside = [3, 4, 5, 6], [8, 9, 10, 11]
    # A spring across the boundary is refused (test_cut_bond_is_named): for it, only the outside term.
    others = [outside] if name == "HarmonicBondForce" else [crossing, outside]
    alone = {}
    for atoms in (REGION_PAIRS, *others):
        system = openmm.System()
        for _ in range(12):
            system.addParticle(12.0)
        system.addForce(bonded_forces(atoms)[name])
        alone[tuple(atoms)] = energy_and_forces(system, positions)
    system = openmm.System()
    for _ in range(12):
        system.addParticle(12.0)
    force = bonded_forces(REGION_PAIRS)[name]
    count = {"Bond": "addBond", "Angle": "addAngle", "Torsion": "addTorsion"}
    kind = next(word for word in count if word in name.replace("CompoundBond", "Bond"))
    for atoms in others:
        term = bonded_forces(atoms)[name]
        getattr(force, count[kind])(*getattr(term, f"get{kind}Parameters")(0))
    force.setName("special")
    force.setForceGroup(9)
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    embedded, record = remove_region_terms(system, REGION_PAIRS)
    assert record.counts == {name: 1}
    energy, forces = energy_and_forces(embedded, positions)
    expected = [alone[tuple(atoms)] for atoms in others]
    assert energy == pytest.approx(sum(e for e, _ in expected), abs=1e-9)
    np.testing.assert_allclose(forces, sum(f for _, f in expected), atol=1e-8)
    assert abs(alone[tuple(REGION_PAIRS)][0]) > 1e-6
    kept = embedded.getForce(0)
    assert (kept.getName(), kept.getForceGroup()) == ("special", 9)
    assert kept.usesPeriodicBoundaryConditions()
    if name == "CustomBondForce":
        assert kept.getNumEnergyParameterDerivatives() == 1


def test_the_input_is_not_changed():
    built = chains(n_molecules=3)
    before = openmm.XmlSerializer.serialize(built.system)
    remove_region_terms(built.system, REGION_PAIRS)
    assert openmm.XmlSerializer.serialize(built.system) == before


def test_custom_nonbonded_pairs_inside_are_excluded():
    built = chains(n_molecules=2, box=None)
    force = openmm.CustomNonbondedForce("q/r; q=1")
    for _ in range(8):
        force.addParticle([])
    force.addExclusion(1, 0)
    system = openmm.System()
    for _ in range(8):
        system.addParticle(12.0)
    system.addForce(force)
    before, _ = energy_and_forces(system, built.positions)
    embedded, record = remove_region_terms(system, REGION_PAIRS)
    after, _ = energy_and_forces(embedded, built.positions)
    distances = np.linalg.norm(built.positions[:4, None] - built.positions[None, :4], axis=-1)
    pairs = 1 / distances[np.triu_indices(4, 1)]
    assert record.counts == {"CustomNonbondedForce": 5}
    assert before - after == pytest.approx(pairs.sum() - pairs[0], abs=1e-9)  # (0, 1) was excluded before


def test_constraints_inside_are_freed():
    built = chains(n_molecules=2)
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(built.system))
    for pair in ((0, 1), (2, 3), (4, 5)):
        system.addConstraint(*pair, 0.15)
    embedded, record = remove_region_terms(system, REGION_PAIRS)
    assert record.counts["constraints"] == 2
    assert [embedded.getConstraintParameters(i)[:2] for i in range(embedded.getNumConstraints())] == [[4, 5]]


def test_cut_bond_is_named():
    bonds = [(0, 1), (1, 2), (2, 3)]
    system, atoms = chains().system, [0, 1]
    with pytest.raises(EmbeddingError, match=r"the bond 1–2 across its boundary\. Set region\.complete"):
        remove_region_terms(system, atoms, bonds=bonds)
    remove_region_terms(system, atoms, bonds=bonds, capped=True)


def test_cut_spring_is_found_without_a_bond():
    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0)
    springs = openmm.HarmonicBondForce()
    springs.addBond(1, 2, 0.1, 1000.0)
    system.addForce(springs)
    with pytest.raises(EmbeddingError, match="the bond 1–2"):
        remove_region_terms(system, [0, 1])


def test_cut_constraint_is_found_without_a_bond():
    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0)
    system.addConstraint(1, 2, 0.1)
    with pytest.raises(EmbeddingError, match="the bond 1–2"):
        remove_region_terms(system, [0, 1])


def test_unknown_force_is_refused_by_name_unless_kept():
    built = chains()
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(built.system))
    restraint = openmm.CustomCentroidBondForce(2, "distance(g1,g2)^2")
    restraint.addGroup([0, 1])
    restraint.addGroup([2, 3])
    restraint.addBond([0, 1], [])
    restraint.setName("umbrella")
    system.addForce(restraint)
    with pytest.raises(EmbeddingError, match=r"CustomCentroidBondForce \('umbrella'\).*keep=\['umbrella'\]"):
        remove_region_terms(system, REGION_PAIRS)
    embedded, record = remove_region_terms(system, REGION_PAIRS, keep=["umbrella"])
    assert "umbrella" in record.kept
    assert any(force.getName() == "umbrella" for force in embedded.getForces())


def test_kept_bonded_force_is_left_whole():
    built = chains(box=None)
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(built.system))
    bias = openmm.CustomBondForce("100*r^2")
    bias.setName("bias")
    bias.addBond(0, 3)
    system.addForce(bias)
    _, record = remove_region_terms(system, REGION_PAIRS, keep=["bias"])
    assert "CustomBondForce" not in record.counts
    _, record = remove_region_terms(system, REGION_PAIRS)
    assert record.counts["CustomBondForce"] == 1


@pytest.mark.parametrize("force", [openmm.DrudeForce(), openmm.PythonForce(lambda state: (0.0, 0.0))])
def test_refused_forces(force):
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    with pytest.raises(EmbeddingError, match=type(force).__name__):
        remove_region_terms(system, [0])


def test_a_virtual_site_goes_with_its_atoms():
    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    remove_region_terms(system, [0, 1, 2])
    for apart in ([0, 1], [0, 2], [2]):
        with pytest.raises(
            EmbeddingError, match=r"virtual sites on the same side .*, but got 2 on another side"
        ):
            remove_region_terms(system, apart)


def test_offset_on_an_exception_inside_is_refused():
    built = chains()
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(built.system))
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.addGlobalParameter("knob", 0.5)
    force.addExceptionParameterOffset("knob", 0, 0.1, 0.0, 0.0)
    with pytest.raises(EmbeddingError, match="a parameter offset on the exception"):
        remove_region_terms(system, REGION_PAIRS)


def test_box_too_small_for_the_potential():
    built = chains(n_molecules=1, box=0.79, cutoff=0.3)
    zones = hard_zones(built, region_from_atoms(built.topology, REGION_PAIRS))
    with pytest.raises(EmbeddingError, match=r"at least 0.80 nm wide.*got 0.79 nm"):
        hybrid_system(built, zones, SpringPotential())
