"""Caps of CHARMM36m as residues of their own: the terms of the one residue that CHARMM makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.build.parametrise import load_force_field

DIPEPTIDE = Path(__file__).parents[2] / "systems/alanine_dipeptide/input.pdb"


def energies(system: openmm.System, positions: np.ndarray) -> dict[str, float]:
    """By name of the force, kJ/mol."""
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    return {
        force.getName(): context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        for group, force in enumerate(system.getForces())
        if not isinstance(force, openmm.CMMotionRemover)
    }


def test_terms_of_caps_are_those_of_the_patched_residue():
    """ALAD of CHARMM36 is the same molecule in one residue; the file without impropers is not enough."""
    built = build_system(DIPEPTIDE, forcefield="charmm36m", solvate=False, constraints="none")
    assert built.provenance["forcefield_files"][:2] == ["charmm36_2024.xml", "charmm36m_caps.xml"]
    whole = app.Topology()
    residue = whole.addResidue("ALAD", whole.addChain())
    atoms = {
        atom: whole.addAtom(f"{atom.name}{atom.residue.index}", atom.element, residue)
        for atom in built.topology.atoms()
    }
    for bond in built.topology.bonds():
        whole.addBond(atoms[bond[0]], atoms[bond[1]])
    force_field = load_force_field(["charmm36_2024.xml"])
    patched = force_field.createSystem(whole, nonbondedMethod=app.NoCutoff)
    # Out of every plane, so that impropers count.
    where = built.positions + 0.01 * np.random.default_rng(3).standard_normal(built.positions.shape)
    found, expected = energies(built.system, where), energies(patched, where)
    assert found.keys() == expected.keys() and len(expected) == 8
    for name, energy in expected.items():
        assert found[name] == pytest.approx(energy, rel=1e-9), name
    # Control: without the two impropers of the caps.
    force = next(f for f in patched.getForces() if isinstance(f, openmm.CustomTorsionForce))
    assert force.getNumTorsions() == 4
    for index in range(4):
        *quartet, (k, angle) = force.getTorsionParameters(index)
        if quartet[0] in (4, 16):
            force.setTorsionParameters(index, *quartet, (0.0 * k, angle))
    assert abs(energies(patched, where)["CustomTorsionForce"] - expected["CustomTorsionForce"]) > 0.1
