"""Small made files of real kinds of chemistry: each is built with the right atoms, or refused by name.

The geometry is rough: atoms, bonds, names and charges are judged, not energies.
"""

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.build.ligands.definition import Ligand
from mlmm.build.plan import plan_system
from mlmm.errors import ConfigError, StructureError

CASES = Path(__file__).parent / "cases"
CHARMM = {"forcefield": ["charmm36.xml", "charmm36/water.xml"]}
LIGAND = Ligand("LIG", smiles="CC(=O)NCc1ccccc1")


def built(name, **options):
    return build_system(CASES / f"{name}.pdb", **({"solvate": False} | options))


def log(system):
    return "\n".join(system.provenance["decisions"])


def names(system):
    return [residue.name for residue in system.topology.residues()]


def written(folder, name, change):
    """The case with its lines changed."""
    lines = (CASES / f"{name}.pdb").read_text().splitlines()
    path = folder / f"{name}.pdb"
    path.write_text("\n".join(line for old in lines for line in change(old)) + "\n")
    return path


# ---- bonds between residues ----


@pytest.mark.parametrize("record", ["LINK", "distance"])
@pytest.mark.parametrize("ligands", [(), (LIGAND,)], ids=["unknown", "with its SMILES"])
def test_a_covalent_ligand_is_never_built_as_two_molecules(tmp_path, record, ligands):
    """The thioether SG-C1 of 0.182 nm, by its record or by its length alone."""
    keep = (lambda line: [line]) if record == "LINK" else (lambda line: [] if line[:4] == "LINK" else [line])
    path = written(tmp_path, "covalent_link_only", keep)
    with pytest.raises(StructureError, match=r"SG of CYS 3 of chain A - C1 of LIG 101 .*0\.182 nm") as caught:
        build_system(path, solvate=False, ligands=ligands)
    assert ("LINK" if record == "LINK" else "by their distance") in caught.value.got
    assert "<ExternalBond>" in caught.value.do


def test_a_ligand_at_the_distance_of_molecules_is_built(tmp_path):
    """Control: the same ligand 0.3 nm further away, without the record."""

    def apart(line):
        if line.startswith("LINK"):
            return []
        if line[17:20] == "LIG":
            line = f"{line[:30]}{float(line[30:38]) + 3.0:8.3f}{line[38:]}"
        return [line]

    plan = plan_system(written(tmp_path, "covalent_link_only", apart), solvate=False, ligands=[LIGAND])
    assert plan.problem is None and "bond between residues" not in str(plan)


def test_an_isopeptide_bond_is_rejected_by_its_name():
    with pytest.raises(StructureError) as caught:
        built("isopeptide_link")
    got = caught.value.got
    assert "isopeptide bond NZ of LYS 2 of chain A - CG of ASP 6 of chain A" in got
    assert "LINK" in got and "CONECT" in got
    assert "OD2" not in str(caught.value)  # which is not in the file


def test_a_modified_residue_is_replaced_alike_with_and_without_a_last_oxygen():
    """CSO, a sulfenic acid, has the charge of CYS."""
    one, other = built("cso"), built("cso_no_oxt")
    assert names(one) == names(other) == ["ALA", "GLY", "CYS", "GLY", "ALA"]
    assert one.n_atoms == other.n_atoms == 48
    assert all("CSO 3 of chain A replaced by CYS" in log(system) for system in (one, other))


def test_a_ring_of_residues_is_built_without_ends():
    """cyclo(Gly-Ala)3: the bond from the last C to the first N is found by its length; no OXT, one H on N."""
    system = built("cyclic")
    assert system.n_atoms == 51 and system.provenance["net_charge"] == 0
    assert "N of GLY 1 of chain A - C of ALA 6 of chain A" in log(system)
    assert not [atom for atom in system.topology.atoms() if atom.name in ("OXT", "H2", "H3")]


def test_the_same_peptide_cut_open_has_charged_ends(tmp_path):
    """Control: without its last residue the ring is a chain."""
    path = written(tmp_path, "cyclic", lambda line: [] if line[22:26].strip() == "6" else [line])
    system = build_system(path, solvate=False)
    ends = {atom.name for atom in system.topology.atoms()} & {"OXT", "H2", "H3"}
    assert ends == {"OXT", "H2", "H3"}


# ---- what the force field describes ----


@pytest.mark.parametrize("hydrogens", ["keep", "none"])
def test_hydroxyproline_keeps_its_atoms(tmp_path, hydrogens):
    """ff14SB has the template: with hydrogens and CONECT, and from heavy atoms alone."""

    def change(line):
        light = line[:6].strip() in ("ATOM", "HETATM") and line[76:78].strip() == "H"
        return [] if hydrogens == "none" and (light or line.startswith("CONECT")) else [line]

    system = build_system(written(tmp_path, "hyp_h", change), solvate=False)
    assert names(system) == ["GLY", "PRO", "HYP", "GLY"] and system.n_atoms == 46
    residue = list(system.topology.residues())[2]
    bonds = {frozenset((a.name, b.name)) for a, b in residue.internal_bonds()}
    assert {frozenset(("CG", "OD1")), frozenset(("OD1", "HD1"))} <= bonds


def test_hydroxyproline_without_its_template_becomes_proline():
    """Control: a force field without HYP."""
    system = built("hyp_h", forcefield=["amber99sb.xml", "tip3p.xml"])
    assert names(system) == ["GLY", "PRO", "PRO", "GLY"]
    assert "HYP 3 of chain A replaced by PRO" in log(system)


@pytest.mark.slow
def test_charmm36_with_its_ends_and_water():
    """Ends of chains are patches there, and water has another name; energies as by plain OpenMM."""
    system = built("with_water", constraints="none", rigid_water=False, **CHARMM)
    assert system.n_atoms == 84 and system.provenance["net_charge"] == -1
    force_field = app.ForceField(*CHARMM["forcefield"])
    plain = force_field.createSystem(system.topology, nonbondedMethod=app.NoCutoff, rigidWater=False)
    found, expected = (energies(one, system.positions) for one in (system.system, plain))
    assert found.keys() == expected.keys() and len(found) > 5
    assert found == pytest.approx(expected, rel=1e-9)


def energies(system, positions):
    """Energy of every force by its name, kJ/mol."""
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return {
        force.getName(): context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        for group, force in enumerate(system.getForces())
    }


@pytest.mark.parametrize("name", ["charmmgui", "amber_ions"])
def test_ions_and_water_under_the_names_of_charmm_and_amber(name):
    system = built(name)
    assert sorted(names(system)[-7:]) == ["CL", *["HOH"] * 4, "K", "NA"]
    elements = [atom.element.symbol for atom in system.topology.atoms() if atom.residue.name in ("NA", "K")]
    assert elements == ["Na", "K"] and system.n_atoms == 82 and system.provenance["net_charge"] == 1


def test_numbered_hydrogens_take_the_names_of_their_atoms(tmp_path):
    """All but the proton of a carboxylic acid, which no chain has: it is named, and the advice works."""
    with pytest.raises(StructureError, match="no hydrogens on OXT of ALA 4 of chain A") as caught:
        built("pymol_h")
    assert 'hydrogens = "strip"' in caught.value.do
    assert built("pymol_h", hydrogens="strip").n_atoms == 37
    path = written(tmp_path, "pymol_h", lambda line: [] if line[12:16].strip() == "H06" else [line])
    kept = build_system(path, solvate=False)
    assert kept.n_atoms == 37 and "17 hydrogens with names of another program" in log(kept)
    # Placed where the file has them.
    given = np.array([float(path.read_text().splitlines()[4][s : s + 8]) for s in (30, 38, 46)]) / 10
    assert np.abs(kept.positions - given).sum(axis=1).min() < 1e-6


def test_nucleic_acids_bring_their_force_field():
    system = built("dna")
    assert system.provenance["forcefield_files"][1:3] == ["amber14/DNA.OL15.xml", "amber14/RNA.OL3.xml"]
    assert names(system) == ["DA", "DC", "DG", "DT"] and system.provenance["net_charge"] == -3
    with pytest.raises(StructureError, match="unknown DA 1 of chain A") as caught:
        built("dna", forcefield=["amber14/protein.ff14SB.xml", "amber14/tip3p.xml"])
    advice = ["amber14-all.xml", "amber14/tip3p.xml"]
    assert str(advice).replace("'", '"') in caught.value.do
    assert built("dna", forcefield=advice).n_atoms == system.n_atoms


def test_a_5_prime_phosphate_is_left_out_and_said():
    system = built("dna5")
    assert names(system) == ["DA", "DC", "DG", "DT"] and system.n_atoms == built("dna").n_atoms
    entry = next(entry for entry in system.provenance["log"] if entry["kind"] == "5' phosphate")
    assert entry["warning"] and "OP3, P, OP1, OP2" in entry["text"]


# ---- metals ----


def test_four_cysteines_at_zinc_are_thiolates():
    system = built("zncys4")
    assert system.provenance["net_charge"] == -2
    assert log(system).count("is CYM: SG 0.233 nm from ZN 301 of chain E") == 4
    asked = built("zncys4", protonate={"*:CYS2": "CYM"})
    assert asked.n_atoms == system.n_atoms == 109


def test_cysteines_away_from_zinc_are_thiols(tmp_path):
    """Control: without the metal, and as asked for."""
    path = written(tmp_path, "zncys4", lambda line: [] if " ZN " in line else [line])
    assert build_system(path, solvate=False).provenance["net_charge"] == 0
    assert built("zncys4", protonate={"*:CYS2": "CYS"}).provenance["net_charge"] == 2
    with pytest.raises(ConfigError, match='"CYM" for a thiolate'):
        built("zncys4", protonate={"*:CYS2": "CYX"})


# ---- water with a fourth site ----


@pytest.mark.parametrize(
    ("options", "sites"),
    [
        ({"forcefield": "amber19", "water": "opc"}, 4),
        ({"forcefield": ["amber14/protein.ff14SB.xml", "amber14/tip4pew.xml"]}, 4),
        ({"forcefield": "amber14", "water": "opc3"}, 3),
    ],
    ids=["ff19SB and OPC", "TIP4P-Ew by files", "OPC3"],
)
def test_water_models_by_sites(options, sites):
    """Crystal water and bulk alike; the fourth site lies on the bisector, where the model puts it."""
    system = built("with_water", solvate=True, padding="0.3 nm", nonbonded_cutoff="0.6 nm", **options)
    waters = [list(r.atoms()) for r in system.topology.residues() if r.name == "HOH"]
    assert {len(atoms) for atoms in waters} == {sites} and len(waters) > 200
    if sites == 4:
        oxygen, one, other, site = (system.positions[[w[i].index for w in waters]] for i in range(4))
        bisector = 0.5 * (one + other) - oxygen
        along = (site - oxygen) / np.linalg.norm(site - oxygen, axis=1)[:, None]
        assert np.abs(np.cross(along, bisector)).max() < 1e-4
        assert np.ptp(np.linalg.norm(site - oxygen, axis=1)) < 2e-3
