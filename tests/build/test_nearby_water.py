"""Water that a build will put near a region is foreseen; what is uncertain is left to the build."""

from __future__ import annotations

import pytest

from mlmm.build.nearby_water import water_will_be_near
from mlmm.build.options import BuildOptions
from mlmm.build.plan import plan_structure
from mlmm.neighbours import nearest


def foreseen(root, system, distance, residue, **changes):
    """Whether water is foreseen within a distance of the heavy atoms of one kind of residue."""
    options = BuildOptions(**changes)
    planned = plan_structure(root / f"systems/{system}/input.pdb", options)
    atoms = [atom.index for atom in planned.topology.atoms() if atom.residue.name == residue]
    assert len(planned.positions) == planned.topology.getNumAtoms()
    return water_will_be_near(planned, options, atoms, distance)


@pytest.mark.parametrize(("distance", "water"), [(0.5, True), (0.35, False), (0.0, False)])
def test_water_around_a_dipeptide(root, dipeptide_water, distance, water):
    """Said only where it is sure, and there it is so in the built system."""
    assert foreseen(root, "alanine_dipeptide", distance, "ALA") is water
    built = dipeptide_water
    oxygens = [a.index for a in built.topology.atoms() if a.residue.name == "HOH" and a.name == "O"]
    solute = [a.index for a in built.topology.atoms() if a.residue.name == "ALA"]
    assert not water or nearest(built.positions[solute], built.positions[oxygens])[0].min() < distance


@pytest.mark.parametrize("solvent", ["none", "droplet"])
def test_no_box_is_no_certainty(root, solvent):
    droplet = {"centre": "resname NME", "radius": "2.0 nm", "mobile": "1.6 nm"}
    changes = {"droplet": droplet} if solvent == "droplet" else {}
    assert not foreseen(root, "alanine_dipeptide", 0.6, "ALA", solvent=solvent, **changes)


def test_a_buried_ligand_may_have_no_water_near(root):
    """p-Xylene in the cavity of T4 lysozyme: none for 0.5 nm, and beyond the protein there is."""
    ligand = {"ligands": [root / "systems/lysozyme_xylene/p-xylene.xml"]}
    assert not foreseen(root, "lysozyme_xylene", 0.5, "TMP", **ligand)
    assert foreseen(root, "lysozyme_xylene", 1.5, "TMP", **ligand)


def test_water_of_the_structure_counts_without_solvent(root, tmp_path):
    """One molecule, its oxygen at 0.3 nm from the carbonyl oxygen."""
    lines = (root / "systems/alanine_dipeptide/input.pdb").read_text().splitlines(keepends=True)
    carbonyl = next(line for line in lines if line[12:20] == " O   ALA")
    x, y, z = (float(carbonyl[k : k + 8]) for k in (30, 38, 46))
    water = f"HETATM  900  O   HOH B 900    {x:8.3f}{y:8.3f}{z + 3.0:8.3f}  1.00  0.00           O  \n"
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    (tmp_path / "input.pdb").write_text("".join([*atoms, "TER\n", water, "END\n"]))
    options = BuildOptions(solvent="none")
    planned = plan_structure(tmp_path / "input.pdb", options)
    atoms = [atom.index for atom in planned.topology.atoms() if atom.residue.name == "ALA"]
    near = [water_will_be_near(planned, options, atoms, distance) for distance in (0.25, 0.4)]
    assert near == [False, True]
    # The water itself is not near itself.
    assert not water_will_be_near(planned, options, [planned.topology.getNumAtoms() - 1], 0.4)
