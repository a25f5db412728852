"""Trypsin with benzamidine and calcium: PDB and mmCIF of one entry give the same system."""

import numpy as np
import openmm
import pytest
from fragments import structure_file

from mlmm.build import build_system
from mlmm.errors import MissingPackageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        structure_file("3PTB.pdb") is None or structure_file("3PTB.cif") is None,
        reason="no 3PTB in MLMM_STRUCTURES",
    ),
]


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    pytest.importorskip("rdkit")
    from mlmm.build.ligands.definition import Ligand

    ligand = Ligand("BEN", smiles="NC(=[NH2+])c1ccccc1", charge=1)
    files = [structure_file(f"3PTB.{kind}") for kind in ("pdb", "cif")]
    try:
        return [build_system(file, ligands=[ligand], solvate=False) for file in files]
    except MissingPackageError as error:
        pytest.skip(str(error))


def test_atoms_coordinates_and_forces_are_the_same(systems):
    one, other = systems
    names = [
        [
            (a.name, a.residue.name, a.residue.id, a.residue.insertionCode.strip(), a.residue.chain.id)
            for a in built.topology.atoms()
        ]
        for built in systems
    ]
    assert names[0] == names[1]
    np.testing.assert_array_equal(one.positions, other.positions)
    xml = [openmm.XmlSerializer.serialize(built.system) for built in systems]
    assert xml[0] == xml[1]


def test_built_trypsin_is_complete(systems):
    built = systems[0]
    residues = list(built.topology.residues())
    assert sum(residue.name == "HOH" for residue in residues) == 62
    assert {"BEN", "CA"} <= {residue.name for residue in residues}
    sulfur = [(a, b) for a, b in built.topology.bonds() if a.name == b.name == "SG"]
    assert len(sulfur) == 6
    log = "\n".join(built.provenance["decisions"])
    assert "CA 480 of chain A is held by charge alone" in log and "62 of 62 waters kept" in log
    # Trypsin +6 without ligand and metal, benzamidinium +1, calcium +2.
    assert built.provenance["net_charge"] == 9
