"""The systems that come with the project are built whole: atoms, charge, energy, repeatability."""

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from mlmm.build import BuiltSystem, build_system
from mlmm.build.surroundings.bulk import scaled_to
from mlmm.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DIPEPTIDE = ROOT / "systems/alanine_dipeptide/input.pdb"
LYSOZYME = ROOT / "systems/lysozyme_xylene/input.pdb"


def energy(system, positions, platform="Reference") -> float:
    """Potential energy in kJ/mol."""
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def charges(system) -> np.ndarray:
    force = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    return np.array([force.getParticleParameters(i)[0]._value for i in range(force.getNumParticles())])


def nonbonded(system) -> openmm.NonbondedForce:
    return next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))


@pytest.fixture(scope="module")
def dipeptide():
    return build_system(DIPEPTIDE, ionic_strength="0.15 M", seed=3)


def test_dipeptide_in_water(dipeptide):
    assert 2000 <= dipeptide.n_atoms <= 2500
    assert abs(charges(dipeptide.system).sum()) < 1e-9
    assert dipeptide.periodic
    assert nonbonded(dipeptide.system).getNonbondedMethod() == openmm.NonbondedForce.PME
    assert nonbonded(dipeptide.system).getCutoffDistance() == 1.0 * unit.nanometer
    # 1 nm on every side of the smallest sphere around the solute, whose radius Jung's theorem bounds by the
    # diameter
    solute = dipeptide.positions[:22]
    diameter = np.linalg.norm(solute[:, None] - solute[None], axis=-1).max()
    assert 0.999 * diameter <= dipeptide.box_vectors[0, 0] - 2.0 <= 1.001 * np.sqrt(3 / 2) * diameter
    names = {residue.name for residue in dipeptide.topology.residues()}
    assert names == {"ACE", "ALA", "NME", "HOH", "NA", "CL"}
    np.testing.assert_allclose(
        solute, app.PDBFile(str(DIPEPTIDE)).getPositions(asNumpy=True)._value, atol=1e-6
    )


def test_same_seed_same_system_other_seed_other_system(dipeptide):
    again = build_system(DIPEPTIDE, ionic_strength="0.15 M", seed=3)
    assert again.positions.tobytes() == dipeptide.positions.tobytes()
    assert openmm.XmlSerializer.serialize(again.system) == openmm.XmlSerializer.serialize(dipeptide.system)
    other = build_system(DIPEPTIDE, ionic_strength="0.15 M", seed=4)
    ions = [
        [a.index for a in built.topology.atoms() if a.residue.name == "NA"] for built in (dipeptide, other)
    ]
    assert not np.array_equal(dipeptide.positions[ions[0]], other.positions[ions[1]])


def test_dipeptide_energy_survives_saving_bit_by_bit(dipeptide, tmp_path):
    again = BuiltSystem.load(dipeptide.save(tmp_path / "built"))
    assert energy(again.system, again.positions) == energy(dipeptide.system, dipeptide.positions)
    assert again.provenance == dipeptide.provenance


def test_built_system_runs_in_plain_openmm(dipeptide):
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    simulation = app.Simulation(dipeptide.topology, dipeptide.system, integrator)
    simulation.context.setPositions(dipeptide.positions)
    simulation.minimizeEnergy(maxIterations=20)
    simulation.step(5)
    assert np.isfinite(simulation.context.getState(energy=True).getPotentialEnergy()._value)


def test_lysozyme_with_xylene_in_a_dodecahedron():
    built = build_system(
        LYSOZYME,
        ligands=["p-xylene.xml"],
        padding="0.3 nm",
        box_shape="dodecahedron",
        nonbonded_cutoff="0.9 nm",
    )
    assert 18_000 <= built.n_atoms <= 20_000
    assert abs(charges(built.system).sum()) < 1e-6
    assert sum(residue.name == "CL" for residue in built.topology.residues()) == 8
    ligand = next(residue for residue in built.topology.residues() if residue.name == "TMP")
    assert len(list(ligand.atoms())) == 18 and len(list(ligand.bonds())) == 18
    total = energy(built.system, built.positions, "CPU")
    assert np.isfinite(total) and total < 0
    # The padding is small because the dodecahedron is not: images of the protein stay beyond the cutoff.
    solute = built.positions[[a.index for a in built.topology.atoms() if a.residue.name not in {"HOH", "CL"}]]
    assert len(solute) == 2621
    for image in [image for image in np.ndindex(3, 3, 3) if image > (1, 1, 1)]:
        moved = solute[::2] + (np.array(image) - 1) @ built.box_vectors
        squared = ((solute[::2, None] - moved[None]) ** 2).sum(axis=-1)
        assert squared.min() > 0.9**2


# ---- p-xylene: forcefields/p-xylene.xml against the AMBER topology it was made from ----

#: nm; the geometry of input.pdb with every coordinate displaced at random by about 0.01 nm: all terms count.
DISTORTED = np.array(
    [
        [4.1268, 4.4533, 1.8436],
        [4.1521, 4.5628, 1.9566],
        [4.1771, 4.4645, 1.7221],
        [4.0038, 4.3771, 1.8781],
        [4.2804, 4.6214, 1.9186],
        [4.2866, 4.5469, 1.6821],
        [4.3405, 4.6187, 1.7941],
        [4.4567, 4.7221, 1.7563],
        [4.1243, 4.5539, 2.0632],
        [4.1249, 4.3741, 1.6303],
        [4.0401, 4.2666, 1.8573],
        [4.0010, 4.3685, 1.9930],
        [3.9165, 4.4125, 1.8201],
        [4.3187, 4.6971, 2.0061],
        [4.3221, 4.5293, 1.5852],
        [4.5431, 4.6588, 1.7144],
        [4.4012, 4.8109, 1.6964],
        [4.4812, 4.7636, 1.8570],
    ]
)
#: kJ/mol per term from ligand.prmtop of openmmtools 0.27.0, without cutoff or constraints:
#: parmed.load_file(prmtop) .createSystem(), one force group per force, Reference platform; Lennard-Jones with
#: all charges set to zero, Coulomb as the difference. The second number is the same topology with the two
#: changes that the header of p-xylene.xml explains: charges that sum to zero, and the improper at C7 in the
#: order C5-C6-C7-C8.
REFERENCE = {
    "bonds": (325.8122456461825, 325.8122456461825),
    "angles": (128.2180514182568, 128.2180514182568),
    "torsions": (49.48150982363013, 49.41791686618105),
    "lennard_jones": (18.06391796459172, 18.06391796459172),
    "coulomb": (-19.49022822093387, -19.502199171910505),
}


@pytest.fixture(scope="module")
def xylene_terms():
    """Energy terms in kJ/mol of the distorted p-xylene, from the force-field file next to ff14SB."""
    model = app.PDBFile(str(LYSOZYME))
    modeller = app.Modeller(model.topology, model.positions)
    modeller.delete([residue for residue in modeller.topology.residues() if residue.name != "TMP"])
    files = ["amber14/protein.ff14SB.xml", "amber14/tip3p.xml", str(ROOT / "forcefields/p-xylene.xml")]
    system = app.ForceField(*files).createSystem(modeller.topology, removeCMMotion=False)
    uncharged = openmm.NonbondedForce(nonbonded(system))
    for index in range(18):
        _, sigma, epsilon = uncharged.getParticleParameters(index)
        uncharged.setParticleParameters(index, 0.0, sigma, epsilon)
    for index in range(uncharged.getNumExceptions()):
        first, second, _, sigma, epsilon = uncharged.getExceptionParameters(index)
        uncharged.setExceptionParameters(index, first, second, 0.0, sigma, epsilon)
    system.addForce(uncharged)
    names = {"HarmonicBondForce": "bonds", "HarmonicAngleForce": "angles", "PeriodicTorsionForce": "torsions"}
    labels = {}
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
        labels[group] = names.get(force.getName(), "nonbonded")
    labels[system.getNumForces() - 1] = "lennard_jones"
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(DISTORTED)
    terms = {
        label: context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        for group, label in labels.items()
    }
    terms["coulomb"] = terms.pop("nonbonded") - terms["lennard_jones"]
    return terms, charges(system)


@pytest.mark.parametrize("term", REFERENCE)
def test_xylene_energy_terms_equal_those_of_its_amber_topology(xylene_terms, term):
    as_distributed, corrected = REFERENCE[term]
    assert xylene_terms[0][term] == pytest.approx(corrected, rel=1e-5)
    assert xylene_terms[0][term] == pytest.approx(as_distributed, rel=2e-3)


def test_xylene_is_neutral_and_symmetric(xylene_terms):
    charge = np.round(1e6 * xylene_terms[1]).astype(int)
    assert charge.sum() == 0
    pairs = [(0, 6), (1, 4), (2, 5), (3, 7), (8, 13), (9, 14), (10, 15), (11, 17), (12, 16)]
    assert all(charge[first] == charge[second] for first, second in pairs)


def test_a_density_needs_a_box(dipeptide_vacuum):
    with pytest.raises(ConfigError, match="a liquid in a periodic box"):
        scaled_to(dipeptide_vacuum, 33.4)
