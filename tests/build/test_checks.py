"""What is looked at before a system is handed over."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app

from mlmm.build import build_system, checks, stretched
from mlmm.build.bounds import check_bounds
from mlmm.build.parametrise import load_force_field
from mlmm.errors import ConfigError, StructureError


def test_mirror_image_changes_every_hand_and_nothing_else(dipeptide_vacuum):
    built = dipeptide_vacuum
    before = checks.handedness(built.topology, built.positions)
    assert len(before) == 1 and all(volume > 0.001 for volume in before.values())
    mirrored = built.positions * np.array([-1, 1, 1])
    after = checks.handedness(built.topology, mirrored)
    assert all(after[key] == pytest.approx(-volume) for key, volume in before.items())
    checks.check_handedness(before, before, "a.pdb")
    with pytest.raises(StructureError, match=r"mirror image.*a\.pdb.*CA of ALA 2 of chain A"):
        checks.check_handedness(before, after, "a.pdb")
    # The control: the energy does not tell one from the other.
    energies = [
        checks.check_energy(built.system, positions, built.topology)[1]
        for positions in (built.positions, mirrored)
    ]
    assert energies[0] == energies[1]


def test_clash_is_found_between_any_two_atoms(dipeptide_water):
    built = dipeptide_water
    checks.check_clashes(built.topology, built.positions, "a.pdb")
    positions = np.array(built.positions)
    positions[50] = positions[5] + [0.01, 0.02, 0.03]
    with pytest.raises(StructureError, match=r"0\.05 nm.*0\.0374 nm between O of ACE 1.*HOH"):
        checks.check_clashes(built.topology, positions, "a.pdb")


def test_long_peptide_bond_is_a_gap(dipeptide_vacuum):
    built = dipeptide_vacuum
    stretched.check_links(built.topology, built.positions, "a.pdb")
    positions = np.array(built.positions)
    positions[[atom.index for atom in built.topology.atoms() if atom.residue.name == "NME"]] += 0.1
    with pytest.raises(StructureError, match=r"shorter than 0\.2 nm.*ALA 2.*NME 3"):
        stretched.check_links(built.topology, positions, "a.pdb")


def test_energy_and_forces_are_finite_and_named(dipeptide_vacuum):
    built = dipeptide_vacuum
    positions, (remark,) = checks.check_energy(built.system, built.positions, built.topology)
    assert positions is built.positions
    assert "kJ/mol, largest force" in remark and "of chain A" in remark
    relaxed, remarks = checks.check_energy(built.system, built.positions, built.topology, iterations=50)
    energies = [checks.cpu_context(built.system, p).getState(energy=True) for p in (built.positions, relaxed)]
    first, second = (state.getPotentialEnergy()._value for state in energies)
    assert second < first - 1 and "relaxed by 50 iterations" in remarks[0]
    broken = np.array(built.positions)
    broken[3] = broken[4]
    with pytest.raises(StructureError, match=r"finite energy and forces.*overlapping atoms"):
        checks.check_energy(built.system, broken, built.topology)


def test_coordinates_in_nanometres_are_detected(dipeptide_vacuum):
    checks.check_extent(dipeptide_vacuum.positions, "a.pdb")
    with pytest.raises(StructureError, match=r"below 100 nm.*along [xyz] in a\.pdb"):
        checks.check_extent(200 * dipeptide_vacuum.positions, "a.pdb")


def test_every_residue_without_template_is_named(dipeptide_vacuum):
    force_field = load_force_field(["amber14/protein.ff14SB.xml"])
    checks.check_templates(force_field, dipeptide_vacuum.topology)
    topology = app.Topology()
    chain = topology.addChain("L")
    for number in ("7", "9"):
        topology.addAtom("C1", app.element.carbon, topology.addResidue("LIG", chain, number))
    with pytest.raises(StructureError, match=r"LIG 7 of chain L, LIG 9 of chain L.*ligands"):
        checks.check_templates(force_field, topology)


def test_fractional_net_charge_is_reported():
    system, force = openmm.System(), openmm.NonbondedForce()
    for charge in (0.3, 0.7):
        system.addParticle(1.0)
        force.addParticle(charge, 0.1, 0.0)
    system.addForce(force)
    assert checks.charge_of(system) == (1, [])
    force = system.getForce(0)
    force.setParticleParameters(0, 0.31, 0.1, 0.0)
    total, (remark,) = checks.charge_of(system)
    assert total == pytest.approx(1.01) and "1.0100 e, not a whole number" in remark


def test_relaxation_at_the_end_is_a_choice(root, dipeptide_vacuum):
    pdb = root / "systems/alanine_dipeptide/input.pdb"
    options = {"solvate": False, "constraints": "none", "rigid_water": False}
    relaxed = build_system(pdb, relax=30, **options)
    assert "relaxed by 30 iterations" in "\n".join(relaxed.provenance["decisions"])
    energies = [
        checks.cpu_context(built.system, built.positions).getState(energy=True).getPotentialEnergy()._value
        for built in (relaxed, dipeptide_vacuum)
    ]
    assert energies[0] < energies[1] - 1
    again = build_system(pdb, relax=30, **options)
    np.testing.assert_array_equal(again.positions, relaxed.positions)
    with pytest.raises(ConfigError, match="relax of 0 or more"):
        build_system(pdb, relax=-1, **options)


def spoiled(built, kind):
    """Positions with a methyl group too far from its nitrogen, or as they are."""
    positions = np.array(built.positions)
    index = {f"{a.residue.name} {a.name}": a.index for a in built.topology.atoms()}
    if kind == "bond":
        positions[index["NME C"]] += 0.08 * (positions[index["NME C"]] - positions[index["NME N"]]) / 0.1449
        for atom in built.topology.atoms():  # its hydrogens go with it
            if atom.residue.name == "NME" and atom.name in ("H1", "H2", "H3"):
                positions[atom.index] += positions[index["NME C"]] - built.positions[index["NME C"]]
    return positions


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bond", r"0\.2\d\d nm, not 0\.14\d nm, from C of NME 3 of chain A to N of NME 3"),
        ("force", "forces below 2e\\+06"),
    ],
)
def test_a_built_system_has_upper_bounds(dipeptide_vacuum, kind, words):
    """Control: the system as it was built."""
    built = dipeptide_vacuum
    forces = np.full(built.n_atoms, 100.0)
    check_bounds(built.topology, built.positions, built.system, forces)
    if kind == "force":
        forces[3] = 1.4e7
    with pytest.raises(StructureError, match=words) as caught:
        check_bounds(built.topology, spoiled(built, kind), built.system, forces)
    assert "relax = 500" in caught.value.do


def test_a_contact_of_atoms_that_are_not_bonded_has_a_lower_bound(dipeptide_water):
    built = dipeptide_water
    check_bounds(built.topology, built.positions, built.system, np.zeros(built.n_atoms))
    waters = [[a.index for a in r.atoms()] for r in built.topology.residues() if r.name == "HOH"]
    positions = np.array(built.positions)
    positions[waters[0]] += positions[waters[1][0]] + [0.15, 0, 0] - positions[waters[0][0]]
    with pytest.raises(StructureError, match=r"at least 0\.16 nm apart.*0\.150 nm between O of HOH"):
        check_bounds(built.topology, positions, built.system, np.zeros(built.n_atoms))
