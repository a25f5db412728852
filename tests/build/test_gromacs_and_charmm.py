"""Systems as GROMACS and CHARMM files: the energy of every term is ParmEd's, and what is refused."""

from __future__ import annotations

import re
import warnings

import numpy as np
import openmm
import pytest
from openmm import app, unit
from test_amber import run_file, terms

from mlmm.build.parametrised.charmm import charmm_topology, load_charmm
from mlmm.build.parametrised.gromacs import gromacs_topology, load_gromacs
from mlmm.config.load import load_config
from mlmm.config.objects import build_from
from mlmm.errors import ConfigError, EmbeddingError, StructureError
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import check_energy
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones

parmed = pytest.importorskip("parmed")

FREE = {"constraints": "none", "rigid_water": False, "nonbonded_cutoff": 0.8}


@pytest.fixture(scope="module")
def files(tmp_path_factory, dipeptide_water):
    """Alanine dipeptide in a box of water, written by ParmEd in both ways."""
    folder, built = tmp_path_factory.mktemp("parametrised"), dipeptide_water
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.openmm.load_topology(
            built.topology, built.system, built.positions * unit.nanometer
        )
        structure.save(str(folder / "t.top"))
        structure.save(str(folder / "t.gro"))
        structure.save(str(folder / "t.pdb"))
        structure.save(str(folder / "t.crd"), format="charmmcrd")
        parmed.charmm.CharmmPsfFile.from_structure(structure).write_psf(str(folder / "t.psf"))
        parameters = parmed.charmm.CharmmParameterSet.from_structure(structure)
        parameters.write(top=str(folder / "t.rtf"), par=str(folder / "t.prm"))
    return folder


def by_parmed(structure, box, *parameters, tail):
    """Terms of the peer in the same box, with or without a correction for the tail of Lennard-Jones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure.box = [*(10 * np.diag(box)), 90, 90, 90]
        system = structure.createSystem(
            *parameters, nonbondedMethod=app.PME, nonbondedCutoff=0.8 * unit.nanometer
        )
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setUseDispersionCorrection(tail)
    return system


def same_terms(built, peer):
    ours, expected = terms(built.system, built.positions), terms(peer, built.positions)
    for name, energy in expected.items():
        assert abs(energy) > 0.1 and ours.pop(name) == pytest.approx(energy, rel=1e-6), name
    assert not any(ours.values()), ours  # CHARMM's forces without terms


def test_energy_terms_of_gromacs_files_equal_those_of_parmed(files):
    built = load_gromacs(files / "t.top", files / "t.gro", **FREE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = parmed.load_file(str(files / "t.top"))
    same_terms(built, by_parmed(peer, built.box_vectors, tail=True))
    assert built.periodic and built.provenance["net_charge"] == 0
    # Water shares a chain; molecules are bonded.
    assert built.topology.getNumChains() == 2
    assert built.topology.getNumBonds() == sum(1 for _ in peer.bonds)
    assert [a.element.atomic_number for a in built.topology.atoms()] == [a.atomic_number for a in peer.atoms]


def test_energy_terms_of_charmm_files_equal_those_of_parmed(files, dipeptide_water):
    parameters = [files / "t.rtf", files / "t.prm"]
    box = np.diag(dipeptide_water.box_vectors)
    built = load_charmm(files / "t.psf", files / "t.crd", parameters, box=box, **FREE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = parmed.charmm.CharmmPsfFile(str(files / "t.psf"))
        known = parmed.charmm.CharmmParameterSet(*map(str, parameters))
    expected = by_parmed(peer, built.box_vectors, known, tail=False)
    same_terms(built, expected)
    # A term that is off by a thousandth is seen.
    bonds = next(f for f in built.system.getForces() if isinstance(f, openmm.HarmonicBondForce))
    for place in range(bonds.getNumBonds()):
        first, second, length, k = bonds.getBondParameters(place)
        bonds.setBondParameters(place, first, second, length, k * 1.001)
    with pytest.raises(AssertionError, match="HarmonicBondForce"):
        same_terms(built, expected)


def test_box_of_charmm_files_is_that_of_the_pdb_file(files, dipeptide_water):
    parameters = [files / "t.rtf", files / "t.prm"]
    built = load_charmm(files / "t.psf", files / "t.pdb", parameters, **FREE)
    np.testing.assert_allclose(built.box_vectors, dipeptide_water.box_vectors, atol=1e-4)
    alone = load_charmm(files / "t.psf", files / "t.crd", parameters, **FREE)
    assert not alone.periodic and "without cutoff" in "".join(alone.provenance["decisions"])


@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
@pytest.mark.parametrize("kind", ["gromacs", "charmm"])
def test_a_region_of_such_a_system_is_described_by_a_potential(files, ani1x, kind, scheme):
    if kind == "gromacs":
        built = load_gromacs(files / "t.top", files / "t.gro", **FREE)
    else:
        parameters = [files / "t.rtf", files / "t.prm"]
        built = load_charmm(files / "t.psf", files / "t.pdb", parameters, **FREE)
    region = select_region(built, "not water")
    zones = hard_zones(built, region) if scheme == "additive" else static_zones(built, region)
    if (kind, scheme) == ("charmm", "per_atom"):
        # Harmonic impropers cannot be shared out among atoms.
        with pytest.raises(EmbeddingError, match=r"CustomTorsionForce.*additive"):
            hybrid_system(built, zones, ani1x, scheme=scheme)
        return
    report = check_energy(hybrid_system(built, zones, ani1x, scheme=scheme))
    assert report.passed, report


def test_what_cannot_be_shared_out_is_refused_without_the_kernel_too(files, ani1x, monkeypatch):
    """Without a compiler OpenMM subtracts the pairs; the terms are the same. `additive` takes them."""
    monkeypatch.setenv("MLMM_KERNEL", "torch")
    built = load_charmm(files / "t.psf", files / "t.pdb", [files / "t.rtf", files / "t.prm"], **FREE)
    region = select_region(built, "not water")
    with pytest.raises(EmbeddingError, match=r"CustomTorsionForce.*additive"):
        hybrid_system(built, static_zones(built, region), ani1x, scheme="per_atom")
    assert hybrid_system(built, hard_zones(built, region), ani1x, scheme="additive").removed


def test_run_file_takes_gromacs_and_charmm_files_from_beside_it(files, tmp_path):
    for name in ("t.top", "t.gro", "t.psf", "t.pdb", "t.rtf", "t.prm"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    free = '\nconstraints = "none"\nrigid_water = false\nnonbonded_cutoff = "0.8 nm"'
    made = []
    for system in (
        'top = "t.top"\ngro = "t.gro"',
        'psf = "t.psf"\ncoordinates = "t.pdb"\nparameters = ["t.rtf", "t.prm"]',
    ):
        built = build_from(load_config(run_file(tmp_path, system + free)), lambda stage: None)
        made.append((built.n_atoms, built.provenance["source"]))
    assert made == [(made[0][0], "t.top"), (made[0][0], "t.psf")]


def changed(files, folder, name, *replacements):
    """A file with some text replaced, by pattern."""
    text = (files / name).read_text()
    for pattern, new in replacements:
        text, count = re.subn(pattern, new, text, count=1, flags=re.MULTILINE)
        assert count
    path = folder / name
    path.write_text(text)
    return path


def test_charges_and_elements_are_known_before_any_force(files):
    for topology, charges in (gromacs_topology(files / "t.top"), charmm_topology(files / "t.psf")):
        elements = [atom.element.symbol for atom in topology.atoms()]
        assert elements[:6] == ["H", "C", "H", "H", "C", "O"]
        assert len(charges) == len(elements) and abs(charges.sum()) < 1e-4


@pytest.mark.parametrize(
    ("replacements", "words"),
    [
        (
            [(r"^C1 +6 +12\.01", "C1 6 15.035")],
            "type C1, with a mass of 15.0351 amu.*all hydrogens",
        ),
        ([(r"^C1 +6 +12\.010780", "C1 0 14.027000")], "type C1, with a mass of 14.027 .*atomic numbers"),
        (
            [(r"\[ bonds \]", "[ position_restraints ]\n1 1 1000 1000 1000\n\n[ bonds ]")],
            "position_restraints",
        ),
        ([(r"\[ bonds \]", '#include "water.itp"\n\n[ bonds ]')], "water.itp.*include_dir"),
        ([(r"^\[ atomtypes \]", "[ atomtypes ]\nXX 1 2")], r"Too few fields.*\n \(at t.top: XX 1 2\)"),
        ([(r"^( +1 +)H1( )", r"\1Q9\2")], "an atom of type Q9.*force field's files"),
    ],
)
def test_gromacs_topologies_that_cannot_be_used_are_refused(files, tmp_path, replacements, words):
    # Masses in the lines of the atoms would hide those of the types.
    text = (files / "t.top").read_text()
    text = re.sub(r"^( *\d+ +\w+ +\d+ +\w+ +\w+ +\d+ +\S+) +\S+", r"\1", text, flags=re.MULTILINE)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "t.top").write_text(text)
    assert load_gromacs(folder / "t.top", files / "t.gro", **FREE).n_atoms > 100
    with pytest.raises(StructureError, match=words):
        load_gromacs(changed(folder, tmp_path, "t.top", *replacements), files / "t.gro", **FREE)


def test_files_that_do_not_belong_together_are_refused(files, tmp_path):
    lines = (files / "t.gro").read_text().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    (tmp_path / "order.gro").write_text("\n".join(lines) + "\n")
    (tmp_path / "half.gro").write_text("\n".join(lines[:20]) + "\n")
    for name, words in (
        ("order.gro", "atom 1 is .* in t.top"),
        ("half.gro", "GROMACS coordinates.*half.gro"),
    ):
        with pytest.raises(StructureError, match=words):
            load_gromacs(files / "t.top", tmp_path / name, **FREE)
    parameters = [files / "t.rtf", files / "t.prm"]
    without = changed(files, tmp_path, "t.prm", (r"^ANGLES\n(.*\n)+?DIHEDRALS", "ANGLES\n\nDIHEDRALS"))
    (tmp_path / "t.psf").write_text("no psf\n")
    for psf, coordinates, known, words in (
        (files / "t.psf", files / "t.crd", [files / "t.rtf", without], "parameters for every term"),
        (tmp_path / "t.psf", files / "t.crd", parameters, "a psf as CHARMM"),
        (files / "t.psf", files / "t.top", parameters, "coordinates as CHARMM card"),
    ):
        with pytest.raises(StructureError, match=words):
            load_charmm(psf, coordinates, known, **FREE)
    for settings, words in (
        ({"parameters": []}, "CHARMM files ending in"),
        ({"parameters": [files / "t.top", files / "t.gro"]}, "t.gro"),
        ({"parameters": parameters, "box": ["3 nm", "2 nm"]}, "three lengths"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_charmm(files / "t.psf", files / "t.crd", **settings, **FREE)


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ('top = "t.top"', "top and gro.*Add gro"),
        ('psf = "t.psf"\ncoordinates = "t.crd"', "Add parameters"),
        ('top = "t.top"\ngro = "t.gro"\npdb = "a.pdb"', "files of one system"),
        ('top = "t.top"\ngro = "t.gro"\nph = 5.0', "no ph .*has its parameters"),
        ('pdb = "a.pdb"\nbox = ["3 nm", "3 nm", "3 nm"]', "files of one system"),
    ],
)
def test_run_file_names_the_files_of_one_system(tmp_path, system, words):
    with pytest.raises(ConfigError, match=words):
        load_config(run_file(tmp_path, system))
