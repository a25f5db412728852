"""One row for each class of forces: its terms are listed, renumbered, emptied and scaled without loss."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from toys import bonded_forces, energy_and_forces

from mlmm.errors import EmbeddingError
from mlmm.forcefield import tables as module
from mlmm.forcefield.remove_terms import remove_region_terms
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.forcefield.term_catalogue import (
    BONDED,
    CATALOGUE,
    CHARGED,
    REFUSED,
    TABULATED,
    bonded_pairs,
    described,
    empty_copy,
)
from mlmm.hybrid.force_groups import grouped
from mlmm.term_weights import make_term_weights

ATOMS = [4, 2, 0, 3]


def particles(force: openmm.Force | None = None) -> openmm.System:
    system = openmm.System()
    for _ in range(6):
        system.addParticle(12.0)
    if force is not None:
        system.addForce(copy.deepcopy(force))
    return system


def positions() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.0, 0.4, (6, 3))


def xml(force: openmm.Force) -> str:
    return openmm.XmlSerializer.serialize(force)


def test_every_bonded_class_has_a_test_row():
    assert set(bonded_forces(ATOMS)) == set(BONDED)


def test_every_force_class_of_openmm_is_handled_or_refused_with_a_reason():
    classes = {
        name
        for name, kind in vars(openmm).items()
        if isinstance(kind, type) and issubclass(kind, openmm.Force)
    }
    assert classes - {"Force"} == set(CATALOGUE) | set(REFUSED)
    assert (
        not set(CATALOGUE) & set(REFUSED)
        and {
            *REFUSED,
            "CustomGBForce",
            "GBSAOBCForce",
            "LCPOForce",
        }
        > CHARGED
    )
    assert all(len(reason) > 10 for reason in REFUSED.values())


@pytest.mark.parametrize("name", BONDED)
def test_an_empty_copy_with_the_terms_added_again_is_the_same_force(name):
    force, terms = bonded_forces(ATOMS)[name], BONDED[name]
    force.setName("special")
    force.setForceGroup(7)
    force.setUsesPeriodicBoundaryConditions(True)
    every, empty = terms.parameters(force), empty_copy(force)
    assert len(every) == terms.count(force) == 1 and terms.count(empty) == 0
    assert xml(empty) != xml(force)
    terms.add(empty, every[0])
    assert xml(empty) == xml(force)


@pytest.mark.parametrize("name", BONDED)
def test_terms_are_renumbered(name):
    """Moving the term to other atoms, or moving the atoms, gives the same energy."""
    force, terms, where = bonded_forces(ATOMS)[name], BONDED[name], positions()
    (parameters,) = terms.parameters(force)
    atoms = terms.atoms(parameters)
    assert set(atoms) <= set(ATOMS) and atoms[:2] == ATOMS[:2]
    order = np.array([3, 1, 5, 0, 2, 4])  # atom i becomes order[i]
    moved = empty_copy(force)
    terms.add(moved, terms.with_atoms(parameters, [int(order[atom]) for atom in atoms]))
    there = np.empty_like(where)
    there[order] = where
    expected = energy_and_forces(particles(force), where)[0]
    assert abs(expected) > 1e-3
    assert energy_and_forces(particles(moved), there)[0] == pytest.approx(expected, rel=1e-12)
    assert energy_and_forces(particles(moved), where)[0] != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", BONDED)
def test_a_scaled_term_keeps_its_part_of_the_energy(name):
    """With lambda = 0.3 on all its atoms a term keeps 0.7 of its energy and forces."""
    system, where = particles(bonded_forces(ATOMS)[name]), positions()
    weights = make_term_weights("per_atom", np.full(6, 0.3), np.ones(6, dtype=bool), (0.1, 0.2))
    scaled, record = scale_terms(system, weights)
    assert record.counts == {name: 1}
    energy, forces = energy_and_forces(system, where)
    left, left_forces = energy_and_forces(scaled, where)
    assert left == pytest.approx(0.7 * energy, rel=1e-12)
    np.testing.assert_allclose(left_forces, 0.7 * forces, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TABULATED)
def test_columns_of_the_tables_hold_the_terms(name):
    tables = read_mm_tables(particles(bonded_forces(ATOMS)[name]))
    assert isinstance(tables, MMTables)
    (parameters,) = BONDED[name].parameters(bonded_forces(ATOMS)[name])
    columns = TABULATED[name]
    assert tables.terms(columns, "atoms").tolist() == [BONDED[name].atoms(parameters)]
    numbers = np.column_stack([tables.terms(columns, column) for column, _ in columns.names])
    assert numbers.tolist() == [BONDED[name].numbers(parameters)]
    for other in set(TABULATED) - {name}:
        assert len(tables.terms(TABULATED[other], "atoms")) == 0


def test_groups_of_energies():
    """Each class lands in the group that its row names; classes without energy in none."""
    system = particles()
    for force in bonded_forces(ATOMS).values():
        system.addForce(force)
    system.addForce(openmm.CMMotionRemover())
    extra = openmm.CustomExternalForce("x")
    groups = grouped(system, extra)
    names = {group: name for name, group in groups.items()}
    for force in system.getForces()[:-2]:
        assert names[force.getForceGroup()] == CATALOGUE[type(force).__name__].group
    assert names[extra.getForceGroup()] == "ml" and system.getForces()[-2].getForceGroup() == 0


def test_bonded_pairs():
    system = particles(bonded_forces(ATOMS)["HarmonicBondForce"])
    system.addForce(bonded_forces([1, 5, 0, 2])["HarmonicBondForce"])
    system.addForce(bonded_forces([3, 5, 0, 2])["CustomBondForce"])
    assert bonded_pairs(system) == {frozenset([4, 2]), frozenset([1, 5])}


@pytest.mark.parametrize("make", [openmm.AmoebaWcaDispersionForce, openmm.DrudeForce, openmm.RGForce])
def test_refusals_say_why(make):
    force = make([0, 1]) if make is openmm.RGForce else make()
    reason = REFUSED[make.__name__]
    assert described(force).endswith(f", which is {reason}")
    for divide in (read_mm_tables, lambda system: remove_region_terms(system, [0])):
        with pytest.raises(EmbeddingError, match=f"a {make.__name__} .*which is {reason}"):
            divide(particles(force))


def test_a_system_is_read_once(monkeypatch):
    """Equal content gives the same read-only tables; one changed number or another kept force, new ones."""
    calls, read = [], module._read
    monkeypatch.setattr(module, "_read", lambda *arguments: calls.append(1) or read(*arguments))
    force = bonded_forces(ATOMS)["HarmonicBondForce"]
    force.addBond(1, 5, 0.12345, 17.0)
    system = particles(force)
    first = read_mm_tables(system)
    assert read_mm_tables(openmm.XmlSerializer.clone(system), keep=["nothing there"]) is first
    assert len(calls) == 1
    with pytest.raises(ValueError, match="read-only"):
        first.bond_k[0] = 0.0
    assert len(read_mm_tables(system, keep=["HarmonicBondForce"]).bond_k) == 0
    system.getForce(0).setBondParameters(1, 1, 5, 0.12345, np.nextafter(17.0, 18.0))
    changed = read_mm_tables(system)
    assert changed.bond_k[1] == np.nextafter(17.0, 18.0) and first.bond_k[1] == 17.0
    assert len(calls) == 3


def test_only_the_last_few_systems_are_remembered():
    for k in range(10):
        force = openmm.HarmonicBondForce()
        force.addBond(0, 1, 0.1, 100.0 + k)
        assert read_mm_tables(particles(force)).bond_k == 100.0 + k
    assert len(module._READ) <= module._MOST_READ
