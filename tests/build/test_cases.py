"""Small made files of real kinds of chemistry: each is built with the right atoms, or refused by name.

The geometry is rough: atoms, bonds, names and charges are judged, not energies.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from mlmm.build import build_system
from mlmm.build.families import CHARMM_CAPS
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


def external_bond_file(path):
    """An OpenMM file of the ligand whose C1 is bonded to another residue: what the refusal advises."""
    chain = "C1 C2 N1 C3 C4 C5 C6 C7 C8 C9 C4".split()  # noqa: SIM905
    bonds = [*(f"{one} {other}" for one, other in pairwise(chain)), "C2 O1"]
    heavy = list(dict.fromkeys(name for bond in bonds for name in bond.split()))
    light = ["C1", "C1", "N1", "C3", "C3", "C5", "C6", "C7", "C8", "C9"]
    atoms = [(name, name[0]) for name in heavy] + [(f"H{i}", "H") for i in range(len(light))]
    pairs = [bond.split() for bond in bonds] + [(parent, f"H{i}") for i, parent in enumerate(light)]
    masses = {"C": 12.011, "N": 14.007, "O": 15.999, "H": 1.008}
    lengths = {"CC": 0.14, "CO": 0.123, "CN": 0.134, "CH": 0.109, "NH": 0.101}
    text = [
        "<ForceField><AtomTypes>",
        *(f'<Type name="L{e}" class="L{e}" element="{e}" mass="{m}"/>' for e, m in masses.items()),
        '</AtomTypes><Residues><Residue name="LIG">',
        *(f'<Atom name="{name}" type="L{element}" charge="0"/>' for name, element in atoms),
        *(f'<Bond atomName1="{one}" atomName2="{other}"/>' for one, other in pairs),
        '<ExternalBond atomName="C1"/></Residue></Residues><HarmonicBondForce>',
        *(f'<Bond class1="L{p[0]}" class2="L{p[1]}" length="{r}" k="3e5"/>' for p, r in lengths.items()),
        '<Bond type1="LC" type2="protein-S" length="0.182" k="2e5"/></HarmonicBondForce>',
        '<NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">',
        '<UseAttributeFromResidue name="charge"/>',
        *(f'<Atom type="L{e}" sigma="{0.1 if e == "H" else 0.33}" epsilon="0.3"/>' for e in masses),
        "</NonbondedForce></ForceField>",
    ]
    path.write_text("\n".join(text))
    return path


def test_a_covalent_ligand_with_a_file_of_its_own_is_built_as_one_molecule(tmp_path):
    """The advice of the refusal: the bond is a bond of the force field, and the sulfur has no proton."""
    system = built("covalent_link_only", ligands=[external_bond_file(tmp_path / "LIG.xml")])
    bonds = {frozenset((a.name, b.name)) for a, b in system.topology.bonds() if a.residue != b.residue}
    assert frozenset(("SG", "C1")) in bonds
    assert system.n_atoms == 68 and "HG" not in {atom.name for atom in system.topology.atoms()}
    index = {(a.residue.name, a.name): a.index for a in system.topology.atoms()}
    force = next(f for f in system.system.getForces() if isinstance(f, openmm.HarmonicBondForce))
    pairs = {frozenset(force.getBondParameters(i)[:2]) for i in range(force.getNumBonds())}
    assert frozenset((index["CYS", "SG"], index["LIG", "C1"])) in pairs


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


def test_an_unknown_name_with_the_atoms_of_a_template_is_said(tmp_path):
    """Its parameters are those of the template; D amino acids by name become their parent, with a warning."""
    path = written(tmp_path, "af", lambda line: [line.replace("ALA A   2", "XYZ A   2")])
    system = build_system(path, solvate=False)
    entry = next(entry for entry in system.provenance["log"] if entry["kind"] == "template")
    assert entry["warning"] and entry["text"].startswith(
        "XYZ 2 of chain A has the heavy atoms and bonds of ALA"
    )
    assert system.n_atoms == built("af").n_atoms
    assert not [e for e in built("af").provenance["log"] if e["kind"] == "template"]


@pytest.mark.parametrize(
    ("residue", "atoms", "advice"),
    [
        ("SF4", [("FE1", "FE"), ("FE2", "FE"), ("S1", "S"), ("S2", "S")], "bonded parameters in AmberTools"),
        (
            "NAG",
            [(n, n[0]) for n in ["C1", "C2", "C3", "C4", "C5", "C6", "N2", "O3", "O4", "O5", "O6"]],
            "leaprc.GLYCAM_06j-1",
        ),
        ("DRG", [("C1", "C"), ("C2", "C"), ("N1", "N")], "[system.ligand.DRG]"),
    ],
)
def test_the_advice_for_an_unknown_residue_fits_its_kind(tmp_path, residue, atoms, advice):
    lines = [
        f"HETATM{900 + i:5d} {name:<4s} {residue} B 201    {20 + 1.45 * i:8.3f}  20.000  20.000  1.00  0.00"
        f"          {element:>2s}"
        for i, (name, element) in enumerate(atoms)
    ]
    path = written(tmp_path, "af", lambda line: [*lines, line] if line.startswith("END") else [line])
    plan = plan_system(path, solvate=False)
    assert f"unknown {residue} 201 of chain B" in str(plan.problem) and advice in str(plan.problem)


SYSTEMS = [
    pytest.param("with_water", {"forcefield": "amber19", "water": "opc"}, 85, -1, id="ff19SB and OPC"),
    pytest.param("dna", {"water": "tip4pew"}, 126, -3, id="OL15"),
    pytest.param("zncys4", {}, 109, -2, id="zinc"),
    pytest.param("hyp_h", {}, 46, 0, id="hydroxyproline"),
    pytest.param("cyclic", {"forcefield": "amber19"}, 51, 0, id="ring"),
    pytest.param("with_water", CHARMM, 84, -1, id="CHARMM36", marks=pytest.mark.slow),
    pytest.param("cyclic", {"forcefield": "charmm36m"}, 51, 0, id="CHARMM36m", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "options", "atoms", "charge"), SYSTEMS)
def test_energies_term_by_term_are_those_of_plain_openmm(name, options, atoms, charge):
    """CHARMM's ends are patches and its water has another name; OPC has a site more than the file.

    OpenMM has no file of CHARMM36m's caps, which changes nothing where there are none.
    """
    system = built(name, constraints="none", rigid_water=False, **options)
    assert (system.n_atoms, system.provenance["net_charge"]) == (atoms, charge)
    files = [file for file in system.provenance["forcefield_files"] if file != CHARMM_CAPS]
    force_field = app.ForceField(*files)
    plain = force_field.createSystem(system.topology, nonbondedMethod=app.NoCutoff, rigidWater=False)
    found, expected = (energies(one, system.positions) for one in (system.system, plain))
    assert found.keys() == expected.keys() and len(found) > 4
    assert found == pytest.approx(expected, rel=1e-9)
    other = {key: value for key, value in energies(plain, 1.001 * system.positions).items() if value}
    assert other != pytest.approx({key: found[key] for key in other}, rel=1e-6)


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
        pytest.param({"forcefield": "amber14", "water": "tip4pew"}, 4, marks=pytest.mark.slow),
        ({"forcefield": "amber14", "water": "tip4pfb"}, 4),
        ({"forcefield": "amber14", "water": "opc3"}, 3),
    ],
    ids=["ff19SB and OPC", "TIP4P-Ew by files", "TIP4P-Ew", "TIP4P-FB", "OPC3"],
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
