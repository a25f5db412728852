"""Hydrogens that OpenMM left on the wrong side are turned round, and nothing else is touched."""

from __future__ import annotations

import numpy as np
from openmm import app

from mlmm.build import checks
from mlmm.build.protons.hydrogens import mend_hydrogens
from mlmm.build.settle import settle_in_place


def alanine(built):
    return next(residue for residue in built.topology.residues() if residue.name == "ALA")


def wrong_side(built, name, parent):
    """Positions with one hydrogen mirrored at its atom."""
    atoms = {atom.name: atom.index for atom in alanine(built).atoms()}
    positions = np.array(built.positions)
    positions[atoms[name]] = 2 * positions[atoms[parent]] - positions[atoms[name]]
    return positions, atoms[name]


def test_good_hydrogens_stay(dipeptide_vacuum):
    positions, decisions = mend_hydrogens(dipeptide_vacuum.topology, dipeptide_vacuum.positions)
    np.testing.assert_array_equal(positions, dipeptide_vacuum.positions)
    assert decisions == []


def test_alpha_hydrogen_on_the_wrong_side_would_mirror_the_residue(dipeptide_vacuum):
    built = dipeptide_vacuum
    hands = checks.handedness(built.topology, built.positions)
    wrong, index = wrong_side(built, "HA", "CA")

    def minimised(positions):
        return checks.check_energy(built.system, positions, built.topology, iterations=500)[0]

    # The control: the minimiser turns the alpha carbon, not the hydrogen.
    turned = checks.handedness(built.topology, minimised(wrong))
    assert all(turned[key] * volume < 0 for key, volume in hands.items())
    mended, (decision,) = mend_hydrogens(built.topology, wrong)
    assert "HA of ALA 2 of chain A" in decision.text
    assert np.linalg.norm(mended[index] - built.positions[index]) < 0.02
    checks.check_handedness(hands, checks.handedness(built.topology, minimised(mended)), "a.pdb")


def test_amide_hydrogen_is_put_into_the_plane(dipeptide_vacuum):
    wrong, index = wrong_side(dipeptide_vacuum, "H", "N")
    mended, _ = mend_hydrogens(dipeptide_vacuum.topology, wrong)
    assert np.linalg.norm(mended[index] - dipeptide_vacuum.positions[index]) < 0.02


def test_changed_molecule_settles_while_the_rest_stays(dipeptide_vacuum):
    built = dipeptide_vacuum
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    positions = np.array(built.positions)
    ends = [atom.index for atom in built.topology.atoms() if atom.residue.name == "NME"]
    positions[ends[-1]] += 0.03
    settled, (decision,) = settle_in_place(built.topology, positions, force_field, {"NME"})
    numbers = decision.numbers
    assert numbers["after"] < numbers["before"] - 10
    heavy = [
        atom.index
        for atom in built.topology.atoms()
        if atom.residue.name != "NME" and atom.element != app.element.hydrogen
    ]
    np.testing.assert_array_equal(settled[heavy], positions[heavy])
    assert np.linalg.norm(settled[ends] - positions[ends], axis=1).max() > 0.01
    again = settle_in_place(built.topology, positions, force_field, {"LIG"})
    assert again[0] is positions and again[1] == []
