"""Names and numbers of the structure file in what a run writes: insertion codes, long chains and numbers."""

from __future__ import annotations

import warnings

import gemmi
import pytest
from peptides import peptide

import mlmm
from mlmm.report import read_record, write_report


def run_of(folder, ani1x, change):
    """A short run of six residues, changed before they are written as mmCIF."""
    structure = gemmi.read_pdb_string("\n".join([*peptide(6), "TER", "END"]))
    structure.setup_entities()
    change(structure[0][0])
    (folder / "in.cif").write_text(structure.make_mmcif_document().as_string())
    built = mlmm.build_system(folder / "in.cif", solvate=False, constraints="none", rigid_water=False)
    zones = mlmm.hard_zones(built, mlmm.select_region(built, "resid 1"))
    hybrid = mlmm.hybrid_system(built, zones, ani1x, scheme="per_atom")
    stages = [mlmm.Minimise(max_iterations=2), mlmm.Produce("1 fs", timestep="0.5 fs")]
    return mlmm.simulate(hybrid, folder / "run", stages, platform="Reference")


def inserted(chain):
    chain[1].seqid = gemmi.SeqId(16, "A")


def ids(path):
    """Chain, number with insertion code, and name of every residue."""
    chains = gemmi.read_structure(str(path))[0]
    return [(chain.name, str(residue.seqid), residue.name) for chain in chains for residue in chain]


def test_insertion_codes_survive_in_pdb(tmp_path, ani1x):
    run = run_of(tmp_path, ani1x, inserted)
    expected = [("A", "16", "ILE"), ("A", "16A", "VAL"), ("A", "18", "GLY")]
    for name in ("topology.pdb", "final.pdb"):
        assert ids(run.file(name))[:3] == expected
        # Lambda stays in its column.
        values = [float(line[60:66]) for line in run.file(name).read_text().splitlines() if "VAL" in line]
        assert values and set(values) == {1.0}
    assert not run.file("topology.cif").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(read_record(run.path))


def test_what_no_pdb_holds_is_mmcif_beside_it(tmp_path, ani1x):
    def long(chain):
        inserted(chain)
        chain.name = "heavy chain"[:5]
        chain[2].seqid = gemmi.SeqId(12345, " ")

    run = run_of(tmp_path, ani1x, long)
    expected = [("heavy", "16", "ILE"), ("heavy", "16A", "VAL"), ("heavy", "12345", "GLY")]
    for name in ("topology.cif", "final.cif"):
        assert ids(run.file(name))[:3] == expected
    assert len(ids(run.file("topology.pdb"))) == 6


def test_the_log_of_the_build_is_in_the_run(tmp_path, ani1x):
    run = run_of(tmp_path, ani1x, inserted)
    text = run.file("build_log.txt").read_text()
    assert "in.cif" in text and "sha256" in text and "hydrogens added" in text
    assert run.file("build_log.json").exists()


def test_a_system_of_ones_own_needs_no_log(tmp_path, dipeptide_vacuum, ani1x):
    own = mlmm.BuiltSystem.from_openmm(
        dipeptide_vacuum.topology, dipeptide_vacuum.system, dipeptide_vacuum.positions
    )
    zones = mlmm.hard_zones(own, mlmm.select_region(own, "all"))
    hybrid = mlmm.hybrid_system(own, zones, ani1x, scheme="additive")
    run = mlmm.simulate(hybrid, tmp_path / "run", [mlmm.Minimise(max_iterations=1)], platform="Reference")
    assert run.state == "finished" and not run.file("build_log.txt").exists()


@pytest.mark.parametrize("serial", ["*****", "    1"])
def test_a_reader_of_pdb_files_is_quiet(tmp_path, serial):
    from mlmm.report.pdb_file import load_pdb

    lines = [f"ATOM  {serial}{line[11:]}" for line in peptide(3)]
    box = "CRYST1    2.000    2.000    2.000  90.00  90.00  90.00 P 1           1"
    (tmp_path / "x.pdb").write_text("\n".join([box, *lines, "END", ""]))
    import mdtraj

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_pdb(tmp_path / "x.pdb").n_atoms == len(lines)
    with pytest.warns(UserWarning):
        mdtraj.load_pdb(str(tmp_path / "x.pdb"))
