"""Regions: what a selection takes, completion, cut bonds; periodic images around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import chains

from mlmm.dynamics.imaging import RegionImages
from mlmm.errors import SelectionError
from mlmm.zones.region import molecules_of, region_from_atoms, select_region
from mlmm.zones.static import hard_zones


def test_selection_and_completion(dipeptide_water):
    residue = select_region(dipeptide_water, "resname ALA and name CA")
    assert len(residue) == 10 and residue.residues == ("ALA2",)
    assert residue.notes == ("9 atoms added to complete each residue",)
    names = {a.index: a.name for a in dipeptide_water.topology.atoms()}
    assert sorted((names[a], names[b]) for a, b in residue.cut_bonds) == [("C", "N"), ("N", "C")]
    molecule = select_region(dipeptide_water, "resname ALA and name CA", complete="molecule")
    assert len(molecule) == 22 and molecule.cut_bonds == ()
    atoms = select_region(dipeptide_water, "resname ALA and name CA", complete="atoms")
    assert len(atoms) == 1 and len(atoms.cut_bonds) == 4 and atoms.notes == ()
    assert all(a in atoms.atoms and b not in atoms.atoms for a, b in atoms.cut_bonds)


@pytest.mark.parametrize(
    ("selection", "complete", "message"),
    [
        ("resname XYZ", "residue", "which matches none. Residue names here: ACE ALA HOH NME"),
        ("resname ==", "residue", "'resname ==', which ends too early. Write for example"),
        ("", "residue", "'', which is empty"),
        (
            "resname = ALA",
            "residue",
            "not understood from '= ALA' on. Write == where two things are compared",
        ),
        ("resnam ALA", "residue", "not understood from 'ALA' on. Did you mean 'resname' by 'resnam'?"),
        ("(name CA or resid 1", "residue", "which ends too early"),
        ("nonsense == 3", "residue", "which compares what cannot be compared"),
        # mdtraj takes the next three words for names of residues, and ALA for the region.
        (
            "resname ALA nad name CA",
            "residue",
            "where 'nad' and 'name' are read as values of 'resname'. Write 'and' or 'or' before 'name'",
        ),
        ("resSeq 2 resname ALA", "residue", "where '2' and 'resname' are read as values of 'resSeq'"),
        ("all", "chain", "complete = atoms | residue | molecule, but got 'chain'"),
    ],
)
def test_bad_selections_are_rejected(dipeptide_water, selection, complete, message):
    with pytest.raises(SelectionError) as caught:
        select_region(dipeptide_water, selection, complete)
    assert message in str(caught.value)
    # mdtraj's own words are its grammar, a page long.
    assert "Group:" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_name_that_is_not_there_is_warned_of(dipeptide_water, caplog):
    """One of several: what the others select goes on. Names that are there, and quotes, are left alone."""
    region = select_region(dipeptide_water, "resname ACE ALE NME or name CA CX")
    assert region.residues == ("ACE1", "ALA2", "NME3")
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2
    assert "no residue here is called ALE" in said[0] and "no atom here is called CX" in said[1]
    caplog.clear()
    select_region(dipeptide_water, "(resname ACE ALA NME) and not (name CA 'CB' or resSeq 1 to 2)")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("atoms", [[], [-1], [8], [0, 99]])
def test_bad_atom_indices_are_rejected(atoms):
    with pytest.raises(SelectionError, match="atom indices between 0 and 7"):
        region_from_atoms(chains(n_molecules=2).topology, atoms)


def test_molecules_partition_the_atoms(dipeptide_water):
    molecules = molecules_of(dipeptide_water.topology)
    assert len(molecules[0]) == 22 and {len(m) for m in molecules[1:]} == {3}
    assert sorted(atom for m in molecules for atom in m) == list(range(dipeptide_water.n_atoms))


def test_weights_of_hard_zones(dipeptide_water):
    zones = hard_zones(dipeptide_water, select_region(dipeptide_water, "resname ACE ALA NME"))
    weights = zones.weights(torch.zeros(dipeptide_water.n_atoms, 3))
    assert weights.sum() == 22 and set(weights.tolist()) == {0.0, 1.0}
    assert zones.hard and not zones.moves and zones.switchable_atoms == ()


def test_region_of_another_system_is_refused(dipeptide_water):
    region = select_region(dipeptide_water, "index 100")
    with pytest.raises(SelectionError, match="a region of a system with 8 atoms, but got atom index"):
        hard_zones(chains(n_molecules=2), region)


@pytest.mark.parametrize(
    "shape", [np.eye(3), [[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]], ids=["cube", "dodecahedron"]
)
def test_images_are_gathered_around_the_region(dipeptide_water, shape):
    """From any images: molecules whole, moved by box vectors only, centres in the cell around the region."""
    box = 2.2 * np.array(shape)
    molecules = molecules_of(dipeptide_water.topology)
    generator = np.random.default_rng(0)
    scattered = np.array(dipeptide_water.positions)
    for molecule in molecules:
        scattered[list(molecule)] += generator.integers(-3, 4, 3) @ box
    gathered = RegionImages(dipeptide_water.topology, range(22)).gather(scattered, box)
    origin = gathered[:22].mean(axis=0)
    np.testing.assert_allclose(origin, box.sum(axis=0) / 2, atol=1e-9)
    for molecule in molecules:
        atoms = list(molecule)
        moved = gathered[atoms] - scattered[atoms] - (gathered[0] - scattered[0])
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-9)
        steps = moved[0] @ np.linalg.inv(box)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
        distance = gathered[atoms].mean(axis=0) - origin
        assert (np.abs(distance) <= np.diag(box) / 2 + 1e-9).all()
    assert RegionImages(dipeptide_water.topology, [0]).gather(scattered, None) is scattered


def test_a_long_selection_has_a_short_label(dipeptide_water):
    assert select_region(dipeptide_water, "resname ALA").label == "resname ALA"
    some = select_region(
        dipeptide_water, "resname ALA or (resname ACE and name CH3) or (resname NME and name N)"
    )
    assert some.label == "ACE1, ALA2, NME3"
    many = select_region(
        dipeptide_water, "resname ACE or resname ALA or resname NME or resname HOH and mass > 0"
    )
    assert many.label == f"ACE1, ALA2, NME3 and {len(many.residues) - 3} more residues"
    assert len(many.residues) == 192
