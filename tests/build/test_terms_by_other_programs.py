"""Every energy term of built systems against other programs.

Amber's force fields are assigned by LEaP from its own files, CHARMM36 by ParmEd from CHARMM's files; sander
computes the energies. No parameter and no formula of OpenMM is on that side.
"""

import warnings
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit

parmed = pytest.importorskip("parmed")

import amber_reference as reference  # noqa: E402
import charmm_reference  # noqa: E402

from mlmm.build import build_system  # noqa: E402
from mlmm.build.parametrised.gromacs import load_gromacs  # noqa: E402

CASES = Path(__file__).parent / "cases"
LYSOZYME = Path(__file__).resolve().parents[2] / "systems/lysozyme_xylene/input.pdb"
PLAIN = {"solvate": False, "constraints": "none"}
pytestmark = pytest.mark.skipif(
    reference.program("sander") is None or reference.program("tleap") is None,
    reason="sander and tleap of AmberTools are not installed",
)


def bonds(topology):
    """Bonded pairs; the two hydrogens of water count, as LEaP has a bond between them."""
    pairs = {frozenset((one.index, other.index)) for one, other in topology.bonds()}
    for residue in topology.residues():
        if residue.name == "HOH":
            pairs.add(frozenset(a.index for a in residue.atoms() if a.name in ("H1", "H2")))
    return pairs


def different(found, expected):
    """Terms that differ by more than 1e-6."""
    return {
        name: (found[name], expected[name])
        for name in reference.TERMS
        if found[name] != pytest.approx(expected[name], rel=1e-6, abs=1e-6)
    }


GLYCANS = ("UYB", "4YB", "VMB", "0MA", "0MA", "0fA")
AMBER = [
    # Structure, options, what LEaP loads, impropers that LEaP orders otherwise.
    pytest.param(
        CASES / "with_water.pdb",
        {"forcefield": "amber19", "water": "opc"},
        ("protein.ff19SB", "water.opc"),
        1,
        id="ff19SB and OPC",
    ),
    pytest.param(CASES / "dna.pdb", {}, ("DNA.OL15", "water.tip3p"), 1, id="OL15"),
    pytest.param(
        CASES / "n_glycan.pdb", {}, ("protein.ff14SB", "GLYCAM_06j-1", "water.tip3p"), 1, id="GLYCAM"
    ),
    pytest.param(CASES / "zncys4.pdb", {}, ("protein.ff14SB", "water.tip3p"), 0, id="zinc"),
    pytest.param(
        LYSOZYME,
        {"forcefield": "amber19", "remove": ["TMP"]},
        ("protein.ff19SB", "water.tip3p"),
        1,
        id="lysozyme",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("path", "options", "sources", "n_other"), AMBER)
def test_amber_systems_have_the_parameters_of_leap_and_the_energies_of_sander(
    tmp_path, path, options, sources, n_other
):
    built = build_system(path, **PLAIN, **options)
    chosen = {}
    if "GLYCAM_06j-1" in sources:
        residues = list(built.topology.residues())
        chosen = dict(zip(residues[5:], GLYCANS, strict=True)) | {residues[0]: "ACE", residues[2]: "NLN"}
    leaprc = [f"leaprc.{source}" for source in sources]
    structure, order = reference.by_leap(tmp_path, built, leaprc, chosen)
    bonded, positions = bonds(built.topology), reference.geometry(built)

    ours = reference.torsions(built.system, bonded)
    theirs = reference.torsions(structure.createSystem(), bonded, order)
    assert ours[0] == theirs[0] and ours[1] == theirs[1]
    as_leap = reference.by_sander(tmp_path, structure, positions[order], reference.AMBER)
    assert reference.reordered(structure, order, ours[2]) == n_other
    found = reference.by_openmm(built.system, positions, bonded)
    expected = reference.by_sander(tmp_path, structure, positions[order], reference.AMBER)
    assert not different(found, expected)
    # LEaP's own order of atoms in those impropers, and nothing else, moves the torsions a little.
    assert set(different(found, as_leap)) == ({"torsions"} if n_other else set())
    # A geometry that is off by a thousandth is seen in every term.
    other = reference.by_openmm(built.system, 1.001 * positions, bonded)
    assert set(different(other, expected)) >= {"bonds", "lennard_jones", "coulomb"}


@pytest.mark.slow
def test_charmm36m_has_the_terms_of_charmm_files_but_its_own_map_and_pair(tmp_path):
    """CHARMM36m changed CHARMM36 in two places: the map, and the pair of guanidinium and carboxylate.

    Huang et al., Nature Methods 14, 71 (2017), doi 10.1038/nmeth.4067. The pair is written here by hand.
    """
    built = build_system(LYSOZYME, **PLAIN, forcefield="charmm36m", remove=["TMP"])
    found, expected, by_sander = charmm_terms(tmp_path, built, [("NC2", "OC", 0.154919, 3.637)])
    for term in ("bonds", "angles", "torsions", "coulomb", "urey_bradley", "impropers"):
        assert found[term] == pytest.approx(expected[term], rel=1e-9) and abs(expected[term]) > 1
    assert set(different({**found, "others": 0.0}, {**by_sander, "others": 0.0})) == set()
    assert by_sander["others"] == pytest.approx(sum(expected[name] for name in reference.OTHERS), rel=1e-6)
    assert found["cmap"] != pytest.approx(expected["cmap"], rel=1e-3)
    plain = charmm_terms(tmp_path, built)[2]
    assert abs(plain["lennard_jones"] - found["lennard_jones"]) > 10


@pytest.mark.slow
def test_charmm36_of_openmm_lacks_the_improper_of_the_last_residue(tmp_path):
    """Every other term of `charmm36.xml` is that of CHARMM's files, the map of the backbone too."""
    options = {"forcefield": ["charmm36.xml", "charmm36/water.xml"]}
    built = build_system(CASES / "with_water.pdb", **PLAIN, **options)
    warned = [entry["text"] for entry in built.provenance["log"] if entry["warning"]]
    assert any("GLU 6 of chain A" in text and 'forcefield = "charmm36m"' in text for text in warned)
    found, expected, by_sander = charmm_terms(tmp_path, built)
    assert not different(expected, by_sander)
    assert not different({**found, "others": 0.0}, {**expected, "others": 0.0})
    for term in ("urey_bradley", "cmap"):
        assert found[term] == pytest.approx(expected[term], rel=1e-9) and abs(expected[term]) > 0.1
    at = {a.name: a.index for r in built.topology.residues() if r.name == "GLU" for a in r.atoms()}
    force = openmm.CustomTorsionForce("96.0 * 4.184 * theta^2")
    force.addTorsion(at["C"], at["CA"], at["O"], at["OXT"])
    built.system.addForce(force)
    found = reference.by_openmm(built.system, reference.geometry(built), bonds(built.topology))
    assert found["impropers"] == pytest.approx(expected["impropers"], rel=1e-9)


def charmm_terms(folder, built, pairs=()):
    """Terms of the built system, of ParmEd's System from CHARMM's files, and by sander."""
    rows = reference.named_residues(built)
    psf, bonded = charmm_reference.by_charmm(built, rows, pairs), bonds(built.topology)
    positions = reference.geometry(built)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chamber = parmed.amber.ChamberParm.from_structure(psf)
        peer = psf.createSystem()
    by_sander = reference.by_sander(folder, chamber, positions, reference.CHARMM)
    found, expected = (reference.by_openmm(s, positions, bonded) for s in (built.system, peer))
    return found, expected, by_sander


def test_gromacs_files_have_the_energies_of_sander(tmp_path, dipeptide_water):
    """Read by ParmEd, written as an Amber topology, computed by sander, every pair."""
    built = dipeptide_water
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = built.positions * unit.nanometer
        structure = parmed.openmm.load_topology(built.topology, built.system, places)
        structure.save(str(tmp_path / "t.top"))
        structure.save(str(tmp_path / "t.gro"))
        peer = parmed.amber.AmberParm.from_structure(parmed.load_file(str(tmp_path / "t.top")))
    peer.box = None
    read = load_gromacs(
        tmp_path / "t.top", tmp_path / "t.gro", constraints="none", rigid_water=False, nonbonded_cutoff=0.8
    )
    positions = np.round(read.positions, 8)
    found = reference.by_openmm(read.system, positions, bonds(read.topology))
    expected = reference.by_sander(tmp_path, peer, positions, reference.AMBER)
    assert not different(found, expected)
    assert min(abs(found[name]) for name in reference.TERMS[:5]) > 1
