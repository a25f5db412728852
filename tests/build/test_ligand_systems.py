"""Ligands in whole systems: energies of the AMBER programs, trypsin, chorismate in water, 2CHT's analogue."""

import contextlib
import os
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
import openmm
import pytest
from ligands import BENZAMIDINIUM, CHORISMATE, LACTATE, PREPHENATE, needs_ambertools, pdb_lines, residue_of
from openmm import app, unit

from mlmm.build import BuiltSystem, Ligand, build_system, parametrise_ligand
from mlmm.build.ligands.matching import wrong_stereo
from mlmm.build.ligands.molecules import molecule_from_smiles
from mlmm.build.ligands.templates import molecules_of_template

pytest.importorskip("rdkit", reason='needs RDKit: pip install "mlmm[ligands]"')
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))


def structure_lines(name: str, residue: str) -> list[str]:
    """HETATM lines of one residue, by columns 18-26, of a file in MLMM_STRUCTURES."""
    for folder in os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep):
        if folder and (Path(folder) / name).is_file():
            lines = (Path(folder) / name).read_text().splitlines()
            return [line for line in lines if line.startswith("HETATM") and line[17:26] == residue]
    pytest.skip(f"set MLMM_STRUCTURES to a folder that holds {name} (wwPDB)")


def terms(system, positions) -> dict[str, float]:
    """Energy of every force in kJ/mol, Reference platform; Coulomb as what charges add to Lennard-Jones."""
    system = openmm.XmlSerializer.clone(system)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    uncharged = openmm.NonbondedForce(nonbonded)
    uncharged.setName("LennardJones")
    for index in range(uncharged.getNumParticles()):
        uncharged.setParticleParameters(index, 0.0, *uncharged.getParticleParameters(index)[1:])
    for index in range(uncharged.getNumExceptions()):
        first, second, _, sigma, epsilon = uncharged.getExceptionParameters(index)
        uncharged.setExceptionParameters(index, first, second, 0.0, sigma, epsilon)
    system.addForce(uncharged)
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    found = {
        force.getName(): context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        for group, force in enumerate(system.getForces())
    }
    found["Coulomb"] = found.pop("NonbondedForce") - found["LennardJones"]
    return {name: value for name, value in found.items() if name != "CMMotionRemover"}


@needs_ambertools()
def test_every_energy_term_is_that_of_the_amber_programs(tmp_path, monkeypatch, own_cache):
    """The template against the prmtop of LEaP, read by OpenMM, and GAFF's own angles, read by ParmEd."""
    import parmed

    kept = tmp_path / "amber"
    kept.mkdir()
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda prefix: contextlib.nullcontext(str(kept)))
    xml = parametrise_ligand(Ligand("LAC", LACTATE))
    (tmp_path / "lactate.xml").write_text(xml)
    structure = parmed.load_file(str(kept / "out.prmtop"))
    # The topology of LEaP under the template: OpenMM has to find the match by the graph.
    topology = app.AmberPrmtopFile(str(kept / "out.prmtop")).topology
    ours = app.ForceField("amber14/protein.ff14SB.xml", str(tmp_path / "lactate.xml")).createSystem(topology)
    charges = next(force for force in ours.getForces() if isinstance(force, openmm.NonbondedForce))
    for atom in structure.atoms:
        atom.charge = charges.getParticleParameters(atom.idx)[0]._value
    structure.save(str(tmp_path / "charged.prmtop"))
    theirs = app.AmberPrmtopFile(str(tmp_path / "charged.prmtop")).createSystem()
    sdf = (kept / "in.sdf").read_text().splitlines()
    start = (
        np.array([[float(x) for x in line.split()[:3]] for line in sdf[4 : 4 + len(structure.atoms)]]) / 10
    )
    parameters = parmed.amber.AmberParameterSet(
        str(Path(sysconfig.get_path("data")) / "dat/leap/parm/gaff2.dat"),
        str(kept / "extra.frcmod"),
    )
    for seed in range(3):
        positions = start + np.random.default_rng(seed).normal(0, 0.01, start.shape)
        mine, reference = terms(ours, positions), terms(theirs, positions)
        assert mine.keys() == reference.keys()
        for name in mine:
            # LEaP's angles are 4e-7 too large; ours are those of GAFF, see below.
            limit = 1e-5 if name == "HarmonicAngleForce" else 1e-6
            assert mine[name] == pytest.approx(reference[name], rel=limit), name
        bent = 0.0
        for angle in structure.angles:
            atoms = [angle.atom1, angle.atom2, angle.atom3]
            a, b, c = positions[[atom.idx for atom in atoms]]
            cosine = (a - b) @ (c - b) / np.linalg.norm(a - b) / np.linalg.norm(c - b)
            kind = parameters.angle_types[tuple(atom.type for atom in atoms)]
            kcal = kind.k * (np.arccos(cosine) - np.radians(kind.theteq)) ** 2
            bent += (kcal * unit.kilocalorie_per_mole).value_in_unit(unit.kilojoule_per_mole)
        assert mine["HarmonicAngleForce"] == pytest.approx(bent, rel=1e-6)


@needs_ambertools()
def test_benzamidinium_of_trypsin_from_its_smiles(tmp_path, own_cache):
    lines = structure_lines("3PTB.pdb", "BEN A   1")
    (tmp_path / "ben.pdb").write_text("\n".join([*lines, "END", ""]))
    ligand = Ligand("BEN", smiles=BENZAMIDINIUM, charge=1)
    built = build_system(tmp_path / "ben.pdb", ligands=[ligand], solvate=False)
    assert built.provenance["ligands"] == {"BEN": "NC(=[NH2+])c1ccccc1"}
    assert built.n_atoms == 18 and built.topology.getNumBonds() == 18 and built.provenance["net_charge"] == 1
    names = [atom.name for atom in built.topology.atoms()]
    assert names[:9] == [line[12:16].strip() for line in lines]
    # All of it is one plane but for the twist about C-C1: the amidinium with its hydrogens is flat.
    amidinium = [names.index(n) for n in ("C", "C1", "N1", "N2")]
    amidinium += [i for i, n in enumerate(names) if n.startswith("HN")]
    plane = built.positions[amidinium] - built.positions[amidinium].mean(axis=0)
    assert len(amidinium) == 8 and np.linalg.svd(plane)[1][2] < 0.02
    folder = built.save(tmp_path / "built")
    assert (folder / "ligands/BEN.xml").read_text() == built.ligands["BEN"]
    assert BuiltSystem.load(folder).ligands == built.ligands
    again = build_system(tmp_path / "ben.pdb", ligands=[folder / "ligands/BEN.xml"], solvate=False)
    assert again.positions.tobytes() == built.positions.tobytes()
    assert terms(again.system, built.positions) == terms(built.system, built.positions)


def chorismate_is_natural(built, positions) -> bool:
    """The stereocentres of the residue CHA or LIG in coordinates (N, 3) in nm."""
    residue = next(r for r in built.topology.residues() if r.name in ("CHA", "LIG"))
    atoms = [atom for atom in residue.atoms() if atom.element.symbol != "H"]
    template = molecules_of_template(ROOT / "forcefields/chorismate.xml")["CHA"]
    order = {atom.name: atom.index for atom in atoms}
    names = [atom.GetProp("name") for atom in template.GetAtoms()]
    if not set(names) <= set(order):
        template, names = molecule_from_smiles(CHORISMATE), [atom.name for atom in atoms]
    return wrong_stereo(template, positions[[order[name] for name in names]], names) == []


def test_chorismate_in_water_from_its_smiles_alone():
    built = build_system(smiles=CHORISMATE, padding="0.6 nm", nonbonded_cutoff="0.8 nm", seed=1)
    again = build_system(smiles=CHORISMATE, padding="0.6 nm", nonbonded_cutoff="0.8 nm", seed=1)
    assert again.positions.tobytes() == built.positions.tobytes()
    residues = [residue.name for residue in built.topology.residues()]
    assert residues[0] == "LIG" and residues.count("HOH") > 150 and residues.count("NA") == 2
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.001)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(built.topology, built.system, integrator)
    simulation.context.setPositions(built.positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(100)
    state = simulation.context.getState(energy=True, positions=True)
    assert -15_000 < state.getPotentialEnergy()._value < -5_000
    kinetic = state.getKineticEnergy()._value / (0.5 * unit.MOLAR_GAS_CONSTANT_R._value / 1000)
    n_free = 3 * built.n_atoms - built.system.getNumConstraints() - 3
    assert 150 < kinetic / n_free < 450
    assert chorismate_is_natural(built, np.array(state.getPositions(asNumpy=True)._value))


@pytest.mark.parametrize("site", ["BAR   201", "BAR   207"])
def test_the_analogue_in_2cht_becomes_chorismate_and_its_bond_opens(tmp_path, site):
    lines = structure_lines("2CHT.pdb", site)
    (tmp_path / "site.pdb").write_text("\n".join([*lines, "END", ""]))
    built = build_system(
        tmp_path / "site.pdb", ligands=["chorismate.xml"], mutate=["BAR -> CHA"], solvate=False
    )
    residue = next(built.topology.residues())
    assert residue.name == "CHA" and built.n_atoms == 24 and built.provenance["net_charge"] == -2
    index = {atom.name: atom.index for atom in residue.atoms()}
    pair = index["C1"], index["C9"]
    # C2 and C6 of the file.
    before = {line[12:16].strip(): [float(line[i : i + 8]) / 10 for i in (30, 38, 46)] for line in lines}
    assert np.linalg.norm(np.subtract(before["C2"], before["C6"])) < 0.16
    assert "C2–C6 (0.15" in "\n".join(built.provenance["decisions"])
    assert pair not in {(bond[0].index, bond[1].index) for bond in built.topology.bonds()}
    # The builder lets a changed molecule settle; minimised further, it stays open and as it is handed.
    assert np.linalg.norm(built.positions[pair[0]] - built.positions[pair[1]]) > 0.28
    assert chorismate_is_natural(built, built.positions)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=500)
    relaxed = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.linalg.norm(relaxed[pair[0]] - relaxed[pair[1]]) > 0.28
    assert chorismate_is_natural(built, relaxed)


def test_substrate_and_product_load_beside_a_peptide(tmp_path):
    peptide = (ROOT / "systems/alanine_dipeptide/input.pdb").read_text().splitlines()
    lines = [line for line in peptide if line.startswith("ATOM")]
    for number, (smiles, name) in enumerate(((CHORISMATE, "CHA"), (PREPHENATE, "PRE")), start=10):
        residue = residue_of(smiles)
        residue.positions[:] += [5.0 * (number - 9), 0, 0]
        lines += ["TER", *pdb_lines(residue, name, number)]
    (tmp_path / "all.pdb").write_text("\n".join([*lines, "END", ""]))
    files = ["chorismate.xml", "prephenate.xml"]
    built = build_system(tmp_path / "all.pdb", ligands=files, solvate=False)
    assert [residue.name for residue in built.topology.residues()][-2:] == ["CHA", "PRE"]
    assert built.provenance["net_charge"] == -4 and built.n_atoms == 22 + 24 + 24


@pytest.mark.slow
@needs_ambertools()
def test_trypsin_with_benzamidinium_and_calcium(tmp_path, own_cache):
    structure_lines("3PTB.pdb", "BEN A   1")
    ligand = Ligand("BEN", smiles=BENZAMIDINIUM, charge=1)
    built = build_system("3PTB", ligands=[ligand], padding="0.5 nm", nonbonded_cutoff="0.9 nm")
    residues = list(built.topology.residues())
    names = [residue.name for residue in residues]
    assert names.count("BEN") == 1 and "CA" in names
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    state = context.getState(energy=True, positions=True)
    assert np.isfinite(state.getPotentialEnergy()._value) and state.getPotentialEnergy()._value < -1e5
    # The amidinium holds on to ASP 189.
    place = np.array(state.getPositions(asNumpy=True)._value)
    asp = next(r for r in residues if r.name == "ASP" and r.id == "189")
    ben = residues[names.index("BEN")]
    oxygens = [atom.index for atom in asp.atoms() if atom.name in ("OD1", "OD2")]
    nitrogens = [atom.index for atom in ben.atoms() if atom.element.symbol == "N"]
    distances = np.linalg.norm(place[oxygens][:, None] - place[nitrogens][None], axis=-1)
    assert distances.min() < 0.32
