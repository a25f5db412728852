"""The blend compiled into OpenMM parameters against the blend by subtraction: two routes, one energy."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import openmm
import pytest
import torch
from mm_systems import CLASSES, CUBIC, TRICLINIC, mixed_system, nonbonded, one_class
from tolerances import IDENTITY_MESH
from toys import chains, energy_and_forces

from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.replaced_terms import ReplacedTerms
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.blending.supermolecular import capped_region
from mlmm.build import BuiltSystem
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.forcefield.scale_pairs import INSIDE, SURROUNDINGS
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.forcefield.tables import read_mm_tables
from mlmm.schemes import SCHEMES
from mlmm.term_weights import TermWeights, make_term_weights
from mlmm.units import COULOMB
from mlmm.zones.region import select_region
from mlmm.zones.static import static_zones

SWITCHING = (0.35, 0.5)


def packed(**arguments) -> BuiltSystem:
    """Chains of six atoms at van der Waals distance: pairs of different molecules are within the range."""
    built = chains(n_molecules=4, n_atoms=6, **arguments)
    positions = np.array(built.positions)
    positions[:, 1] -= 0.17 * np.repeat(np.arange(4), 6)
    return dataclasses.replace(built, positions=positions)


def box_of(system: openmm.System) -> np.ndarray | None:
    if not system.usesPeriodicBoundaryConditions():
        return None
    return np.array([list(vector._value) for vector in system.getDefaultPeriodicBoxVectors()])


def in_torch(module, system, positions, weights=None) -> tuple[float, np.ndarray]:
    """Energy of a torch module (a weighted sum, for one that gives energies of atoms), and its forces."""
    box = box_of(system)
    x = torch.tensor(np.array(positions), requires_grad=True)
    energies = module(x, None if box is None else torch.tensor(box))
    energy = energies.sum() if weights is None else (energies * torch.tensor(weights)).sum()
    forces = -torch.autograd.grad(energy, x)[0] if energy.requires_grad else torch.zeros_like(x)
    return float(energy.detach()), forces.numpy()


def compiled(system, term_weights, positions) -> tuple[float, np.ndarray]:
    return energy_and_forces(scale_terms(system, term_weights)[0], positions)


def subtracted(system, term_weights, positions) -> tuple[float, np.ndarray]:
    """E_MM with the pairs inside the zone emptied, plus these pairs, less what is handed over."""
    tables = read_mm_tables(system)
    energy, forces = energy_and_forces(remove_zone_pairs(system, term_weights.active)[0], positions)
    pairs = in_torch(FullPairs(tables, term_weights.active), system, positions)
    handed = in_torch(ReplacedTerms(tables, term_weights), system, positions)
    return energy + pairs[0] - handed[0], forces + pairs[1] - handed[1]


def assert_same(found, expected, tolerance=IDENTITY_MESH):
    """Energy to 1e-8 kJ/mol, forces to 1e-8 kJ/mol/nm or 1e-8 of the largest."""
    assert found[0] == pytest.approx(expected[0], abs=tolerance)
    assert np.abs(found[1] - expected[1]).max() < tolerance * max(1.0, np.abs(expected[1]).max())


def hard_set(n_atoms: int, generator: np.random.Generator, bonds=()) -> tuple[np.ndarray, tuple]:
    """lambda of a hard set by atom, and the bonds that it cuts as caps."""
    atoms = frozenset(generator.permutation(n_atoms)[: int(0.6 * n_atoms)].tolist())
    cut = [pair for pair in np.array(bonds).tolist() if len(atoms.intersection(pair)) == 1]
    weights = np.isin(np.arange(n_atoms), list(atoms)).astype(float)
    return weights, tuple((b, a) if a in atoms else (a, b) for a, b in cut)


def random_term_weights(
    system, scheme: str, seed: int, invisible: int = 3, n: int | None = None
) -> TermWeights:
    """Random weights on random atoms, some of them invisible: terms are cut in every way."""
    generator, n_atoms = np.random.default_rng(seed), system.getNumParticles()
    visible = np.ones(n_atoms, dtype=bool)
    visible[generator.choice(n_atoms, invisible, replace=False)] = False
    if scheme == "capped":
        weights, caps = hard_set(n_atoms, generator, read_mm_tables(system).bond_atoms)
        return make_term_weights("supermolecular", weights, visible, SWITCHING, caps)
    n = int(0.6 * n_atoms) if n is None else n
    weights = np.zeros(n_atoms)
    values = np.where(generator.uniform(size=n) < 0.3, 1.0, generator.uniform(0.05, 0.95, n))
    weights[generator.choice(n_atoms, n, replace=False)] = values
    return make_term_weights(scheme, weights, visible, SWITCHING)


@pytest.mark.parametrize("box", [3.1, None])
@pytest.mark.parametrize("scheme", [*SCHEMES, "capped"])
def test_two_routes_give_one_energy(scheme, box):
    """Random weights on random atoms, three seeds: energy and forces of every scheme (V6)."""
    for seed in range(3):
        built = packed(seed=seed, box=box)
        term_weights = random_term_weights(built.system, scheme, seed)
        found = compiled(built.system, term_weights, built.positions)
        assert_same(found, subtracted(built.system, term_weights, built.positions))
        whole, _ = energy_and_forces(built.system, built.positions)
        assert (abs(found[0] - whole) > 1.0) is (scheme != "delta")


@pytest.mark.parametrize("scheme", [*SCHEMES, "capped"])
def test_two_routes_for_the_dipeptide_cut_through_its_backbone(dipeptide_water, scheme):
    """ff14SB and water under PME: a residue and what is around it in a smooth zone."""
    system, positions = dipeptide_water.system, dipeptide_water.positions
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, plateau="0.1 nm", width="0.2 nm", snap="hydrogen")
    weights = np.zeros(dipeptide_water.n_atoms)
    weights[list(zones.active)] = zones.active_weights
    caps = ()
    if scheme == "capped":
        weights = (weights > 0.5).astype(float)
        bonds = [(bond[0].index, bond[1].index) for bond in dipeptide_water.topology.bonds()]
        caps = capped_region(weights, bonds).caps
        assert caps
    visible = np.ones(dipeptide_water.n_atoms, dtype=bool)
    name = scheme.replace("capped", "supermolecular")
    term_weights = make_term_weights(name, weights, visible, SWITCHING, caps)
    found = compiled(system, term_weights, positions)
    assert_same(found, subtracted(system, term_weights, positions))
    assert zones.cut_bonds and len(zones.active) > 20
    whole, _ = energy_and_forces(system, positions)
    assert (abs(found[0] - whole) > 1.0) is (scheme != "delta")


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("scheme", ["per_atom", "supermolecular", "additive"])
def test_each_class_of_terms_alone(name, scheme):
    """E(compiled) + sum W f V = E_MM for every class of terms, to 1e-9 of its energy (V8)."""
    for seed in range(3):
        system = one_class(name, seed)
        term_weights = random_term_weights(system, scheme, seed, invisible=1, n=7)
        positions = np.random.default_rng(seed).normal(0, 0.3, (9, 3))
        energy, forces = compiled(system, term_weights, positions)
        handed, pull = in_torch(ReplacedTerms(read_mm_tables(system), term_weights), system, positions)
        whole, expected = energy_and_forces(system, positions)
        assert abs(energy + handed - whole) < 1e-9 * max(1.0, abs(whole), abs(handed))
        assert np.abs(forces + pull - expected).max() < 1e-9 * np.abs(expected).max()


@pytest.mark.parametrize("only", ["Lennard-Jones", "Coulomb", "both"])
@pytest.mark.parametrize("cell", [None, CUBIC, TRICLINIC], ids=["open", "cubic", "triclinic"])
@pytest.mark.parametrize("switch", [0.4, 0.7])
def test_pairs_alone(only, cell, switch):
    """Lennard-Jones with a switch inside and outside the switching range, Coulomb, 1-4 pairs, all images."""
    system, positions = nonbonded(cell, switch=switch)
    force = system.getForce(0)
    for i in range(system.getNumParticles()):
        charge, sigma, epsilon = force.getParticleParameters(i)
        force.setParticleParameters(
            i, charge * (only != "Lennard-Jones"), sigma, epsilon * (only != "Coulomb")
        )
    for scheme in ("per_atom", "supermolecular", "additive"):
        term_weights = random_term_weights(system, scheme, 4)
        found = compiled(system, term_weights, positions)
        expected = subtracted(system, term_weights, positions)
        assert found[0] == pytest.approx(expected[0], abs=IDENTITY_MESH)
        assert np.abs(found[1] - expected[1]).max() < 1e-8 * np.abs(expected[1]).max()


@pytest.mark.parametrize("method", ["Ewald", "CutoffPeriodic", "CutoffNonPeriodic"])
def test_other_ways_to_sum_pairs(method):
    """Ewald as PME; Lennard-Jones alone also with a plain cutoff, with and without a box."""
    system, positions = nonbonded(CUBIC)
    force = system.getForce(0)
    force.setNonbondedMethod(getattr(openmm.NonbondedForce, method))
    if method != "Ewald":
        for i in range(system.getNumParticles()):
            force.setParticleParameters(i, 0.0, *force.getParticleParameters(i)[1:])
    if method == "CutoffNonPeriodic":
        positions = positions - np.floor(positions / np.diag(CUBIC)) @ CUBIC
    for scheme in ("per_atom", "capped", "additive"):
        term_weights = random_term_weights(system, scheme, 1)
        found = compiled(system, term_weights, positions)
        assert_same(found, subtracted(system, term_weights, positions))
        assert abs(found[0] - energy_and_forces(system, positions)[0]) > 0.1


def test_all_classes_together():
    """Two springs of one class, Urey-Bradley, RB, CMAP, impropers and pairs in one system under PME."""
    system, positions = mixed_system()
    for scheme, seed in itertools.product(["per_atom", "capped", "additive"], range(2)):
        term_weights = random_term_weights(system, scheme, seed, invisible=1)
        assert_same(compiled(system, term_weights, positions), subtracted(system, term_weights, positions))


@pytest.mark.parametrize("box", [3.1, None])
@pytest.mark.parametrize("seed", range(3))
def test_short_range_energies_and_what_is_left_are_the_force_field(box, seed):
    """sum lambda_i eps_i^MM,sr + E(compiled) = E_MM for any weights (T4), with shares from elsewhere."""
    built = packed(seed=seed, box=box)
    weights = {"random": random_term_weights(built.system, "per_atom", seed).weights, "one": np.ones(24)}
    visible = np.arange(24) != 5
    module = ShortRangeEnergies(read_mm_tables(built.system), range(24), visible, *SWITCHING)
    whole = energy_and_forces(built.system, built.positions)
    for lam in weights.values():
        term_weights = make_term_weights("per_atom", lam, visible, SWITCHING)
        energy, forces = compiled(built.system, term_weights, built.positions)
        short, pull = in_torch(module, built.system, built.positions, lam)
        assert_same((energy + short, forces + pull), whole)
        assert abs(short) > 10.0


def test_small_weights_lead_to_the_force_field(dipeptide_water):
    """lambda = 0 leaves every number as it was (T1); a small one changes the energy in proportion."""
    built = chains(n_molecules=3, n_atoms=6)
    visible = np.ones(18, dtype=bool)
    whole, forces = energy_and_forces(built.system, built.positions)
    energies = []
    for weight in (0.0, 1e-6, 2e-6):
        weights = np.zeros(18)
        weights[2:9] = weight
        term_weights = make_term_weights("per_atom", weights, visible, SWITCHING)
        system, embedding = scale_terms(built.system, term_weights)
        energy, found = energy_and_forces(system, built.positions)
        energies.append(energy - whole)
        if weight == 0:
            assert energy == whole and (found == forces).all() and embedding.counts == {}
    assert energies[2] == pytest.approx(2 * energies[1], abs=1e-10) and abs(energies[1]) > 1e-6


class CentralShares(TermWeights):
    """Negative control: the middle of an angle or a torsion decides alone."""

    def bonded(self, atoms, shares=None):
        middle = np.zeros(np.shape(atoms))
        n = np.shape(atoms)[1]
        middle[:, [(n - 1) // 2, n // 2]] = 0.5
        middle[:, n // 2] += 0.5 * (n % 2)
        return super().bonded(atoms, middle if n > 2 else None)


def test_routes_with_different_shares_do_not_agree():
    """Negative control: shares are part of the contract; rules too."""
    built = packed(seed=1, box=3.1)
    term_weights = random_term_weights(built.system, "per_atom", 1)
    energy, _ = compiled(built.system, term_weights, built.positions)
    central = CentralShares(
        **{f.name: getattr(term_weights, f.name) for f in dataclasses.fields(term_weights)}
    )
    for other in (central, dataclasses.replace(term_weights, scheme="supermolecular")):
        assert abs(subtracted(built.system, other, built.positions)[0] - energy) > 1.0
        # The other route with the same shares agrees again.
        assert_same(
            compiled(built.system, other, built.positions), subtracted(built.system, other, built.positions)
        )


@pytest.mark.parametrize("name", [INSIDE, SURROUNDINGS])
def test_each_pair_force_is_needed(name):
    """Negative control: without one of the two custom forces the energy is wrong by far."""
    built = packed(seed=1, box=3.1)
    term_weights = random_term_weights(built.system, "per_atom", 1)
    system, _ = scale_terms(built.system, term_weights)
    whole, _ = energy_and_forces(system, built.positions)
    index = [force.getName() for force in system.getForces()].index(name)
    system.removeForce(index)
    without, _ = energy_and_forces(system, built.positions)
    assert abs(whole - without) > 1.0


def formula_forces() -> list[openmm.Force]:
    """Formulas with definitions, parameters of all kinds, tables, and names that a new one could take."""
    bond = openmm.CustomBondForce("k*d^2 + kept_share; d=r-length; kept_share=0.1*r")
    bond.addPerBondParameter("length")
    bond.addGlobalParameter("k", 300.0)
    bond.addEnergyParameterDerivative("k")
    angle = openmm.CustomAngleForce("kept_share + kept_share_*(theta-1)^2")
    angle.addPerAngleParameter("kept_share")
    angle.addGlobalParameter("kept_share_", 40.0)
    torsion = openmm.CustomTorsionForce("a-k*cos(theta)")
    torsion.addPerTorsionParameter("k")
    torsion.addPerTorsionParameter("a")
    compound = openmm.CustomCompoundBondForce(3, "table(distance(p1,p3))+c;c=angle(p1,p2,p3)")
    compound.addTabulatedFunction("table", openmm.Continuous1DFunction([1.0, 2.0, 4.0, 3.0], 0.0, 4.0))
    generator = np.random.default_rng(0)
    for _ in range(6):
        draw = [int(i) for i in generator.choice(9, 4, replace=False)]
        bond.addBond(*draw[:2], [generator.uniform(0.1, 0.3)])
        angle.addAngle(*draw[:3], [generator.uniform(1, 9)])
        torsion.addTorsion(*draw, generator.uniform(1, 9, 2).tolist())
        compound.addBond(draw[:3], [])
    return [bond, angle, torsion, compound]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("scheme", ["per_atom", "capped"])
def test_formulas_keep_their_share(number, scheme):
    """A custom bonded force keeps (1 − W) of every term, by each of its terms evaluated alone."""
    system = one_class("bond")
    term_weights = random_term_weights(system, scheme, 2, invisible=1, n=8)
    force = formula_forces()[number]
    kind = {1: "Angle", 2: "Torsion"}.get(number, "Bond")
    count = getattr(force, f"getNum{kind}s")()
    positions = np.random.default_rng(3).normal(0, 0.3, (9, 3))
    expected, pulls = 0.0, np.zeros((9, 3))
    for i in range(count):
        alone, term = formula_forces()[number], getattr(force, f"get{kind}Parameters")(i)
        silent = openmm.System()
        for _ in range(9):
            silent.addParticle(1.0)
        for j in range(count):  # the other terms move to one and the same place
            getattr(alone, f"set{kind}Parameters")(j, *term)
        silent.addForce(alone)
        energy, forces = energy_and_forces(silent, positions)
        atoms = term[0] if number == 3 else term[:-1]
        left = 1.0 - term_weights.bonded(np.array([atoms]))[0]
        expected += left * energy / count
        pulls += left * forces / count
    force.setName("formula")
    force.setForceGroup(7)
    system.addForce(force)
    embedded, embedding = scale_terms(system, term_weights)
    energy, forces = energy_and_forces(embedded, positions, groups=1 << 7)
    assert energy == pytest.approx(expected, abs=1e-9) and abs(expected) > 0.1
    np.testing.assert_allclose(forces, pulls, atol=1e-9 * np.abs(pulls).max())
    assert 0 < embedding.counts[type(force).__name__] <= count
    kept, embedding = scale_terms(system, term_weights, keep=["formula"])
    whole = energy_and_forces(system, positions, groups=1 << 7)[0]
    assert energy_and_forces(kept, positions, groups=1 << 7)[0] == whole != pytest.approx(expected, abs=1e-3)
    assert embedding.kept == ("formula",)


def ion_pair(box: float, tolerance: float) -> openmm.System:
    """Two charged atoms under PME with a cutoff of 0.9 nm."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for charge in (0.7, -0.4):
        system.addParticle(12.0)
        force.addParticle(charge, 0.34, 0.36)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.9)
    force.setEwaldErrorTolerance(tolerance)
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * box))
    system.addForce(force)
    return system


@pytest.mark.parametrize(("factor", "tolerance"), [(1.0, 1e-5), (1.5, 1e-5), (1.0, 1e-7)])
def test_remaining_pair_energy_under_pme(factor, tolerance):
    """Of the nearest image K q q tail + (1 − f) LJ is left at any distance, box and Ewald tolerance (V9)."""
    size = 2.0 * factor
    system = ion_pair(size, tolerance)
    start, end = SWITCHING
    term_weights = make_term_weights("per_atom", np.ones(2), np.ones(2, dtype=bool), SWITCHING)
    embedded, _ = scale_terms(system, term_weights)
    for r in (0.3, 0.42, 0.89, 0.91, size / 2 - 0.05):
        positions = np.array([[0.1, 0.2, 0.3], [0.1 + r, 0.2, 0.3]])
        whole, left = (energy_and_forces(s, positions)[0] for s in (system, embedded))
        x, p = min(max((r - start) / (end - start), 0), 1), r / end
        f = 1 - x**3 * (10 - 15 * x + 6 * x**2)
        wells = 4 * 0.36 * ((0.34 / r) ** 12 - (0.34 / r) ** 6) * (r < 0.9)
        bare = COULOMB * 0.7 * -0.4 / r
        tail = bare * p * (35 - 35 * p**2 + 21 * p**4 - 5 * p**6) / 16 if p < 1 else bare
        # E_MM brings its own images; what the nearest one gives there is bare + wells.
        assert left - whole + bare + wells == pytest.approx(tail + (1 - f) * wells, abs=1e-8)
        assert (abs(left - whole) > 0.1) is (r < end)


def on_the_processor(system, positions) -> np.ndarray:
    """Forces in single precision."""
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return context.getState(forces=True).getForces(asNumpy=True)._value


def rms(values) -> float:
    return float(np.sqrt(np.square(values).mean()))


def test_single_precision(dipeptide_water):
    """CPU platform against Reference: below 1e-4 of the rms force (V20)."""
    term_weights = random_term_weights(dipeptide_water.system, "per_atom", 0, invisible=1, n=60)
    weights = np.where(np.arange(dipeptide_water.n_atoms) < 22, 1.0, term_weights.weights)
    system, _ = scale_terms(dipeptide_water.system, dataclasses.replace(term_weights, weights=weights))
    _, forces = energy_and_forces(system, dipeptide_water.positions)
    assert rms(on_the_processor(system, dipeptide_water.positions) - forces) < 1e-4 * rms(forces)


def test_two_atoms_in_collision_keep_single_precision():
    """C–C from 0.30 to 0.12 nm inside the zone; pure subtraction from E_MM loses the digits (D5)."""
    built = packed(seed=2, box=3.1)
    weights = np.repeat([1.0, 1.0, 0.0, 0.0], 6)
    term_weights = make_term_weights("per_atom", weights, np.ones(24, dtype=bool), SWITCHING)
    system, _ = scale_terms(built.system, term_weights)
    handed = ReplacedTerms(read_mm_tables(built.system), term_weights)
    errors, naive = [], []
    for r in np.arange(0.12, 0.301, 0.03):
        positions = np.array(built.positions)
        # The second molecule comes down along y until its first atom is at r from the first of all.
        positions[6:12] += positions[0] + [0.0, r, 0.0] - positions[6]
        _, forces = energy_and_forces(system, positions)
        errors.append(rms(on_the_processor(system, positions) - forces) / rms(forces))
        pull = in_torch(handed, built.system, positions)[1]
        naive.append(rms(on_the_processor(built.system, positions) - pull - forces) / rms(forces))
    assert max(errors) < 1e-4
    assert max(naive) > 100 * max(errors)


@pytest.mark.slow
def test_a_thousand_frames_keep_single_precision():
    """Collisions from every side with all atoms displaced: rms below 1e-4, largest below 1e-2 (V20)."""
    built, generator = packed(seed=2, box=3.1), np.random.default_rng(5)
    term_weights = make_term_weights(
        "per_atom", np.repeat([1.0, 1.0, 0.5, 0.0], 6), np.ones(24, dtype=bool), SWITCHING
    )
    system, _ = scale_terms(built.system, term_weights)
    single = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
    exact = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    worst, largest = 0.0, 0.0
    for r in np.linspace(0.12, 0.30, 1000):
        positions = built.positions + generator.normal(scale=0.004, size=(24, 3))
        direction = generator.normal(size=3)
        positions[6:12] += positions[0] + r * direction / np.linalg.norm(direction) - positions[6]
        forces = []
        for context in (single, exact):
            context.setPositions(positions)
            forces.append(context.getState(forces=True).getForces(asNumpy=True)._value)
        difference, size = forces[0] - forces[1], rms(forces[1])
        worst = max(worst, rms(difference) / size)
        largest = max(largest, float(np.abs(difference).max()) / size)
    assert worst < 1e-4 and largest < 1e-2


def test_replaced_terms_in_torchscript():
    """The compiled module gives the same energy and forces, with and without a cell."""
    system, positions = mixed_system()
    for scheme in ("per_atom", "capped", "additive", "delta"):
        module = ReplacedTerms(read_mm_tables(system), random_term_weights(system, scheme, 1, invisible=1))
        plain = in_torch(module, system, positions)
        for _ in range(3):  # the later calls run optimised code
            scripted = in_torch(torch.jit.script(module), system, positions)
            assert scripted[0] == pytest.approx(plain[0], rel=1e-12)
            np.testing.assert_allclose(scripted[1], plain[1], atol=1e-11 * max(1.0, np.abs(plain[1]).max()))


def test_virtual_sites_of_visible_molecules_are_replaced():
    """A site outside the zone counts where the ownership sees it; one without its atoms is refused."""
    built = chains(n_molecules=2, n_atoms=4, box=None)
    system = openmm.XmlSerializer.clone(built.system)
    site = system.addParticle(0.0)
    system.setVirtualSite(site, openmm.TwoParticleAverageSite(5, 6, 0.4, 0.6))
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.addParticle(-0.5, 0.3, 0.0)
    for other in range(4, 8):
        force.addException(site, other, 0.0, 1.0, 0.0)
    positions = np.vstack([built.positions, 0.4 * built.positions[5] + 0.6 * built.positions[6]])
    positions[4:, 1] -= 0.22  # into the range of the switching function
    weights, energies = np.where(np.arange(9) < 4, 0.7, 0.0), []
    for seen in (True, False):
        visible = np.arange(9) < 8 + seen
        term_weights = make_term_weights("per_atom", weights, visible, SWITCHING)
        energies.append(compiled(system, term_weights, positions)[0])
        assert energies[-1] == pytest.approx(subtracted(system, term_weights, positions)[0], abs=1e-9)
    assert abs(energies[0] - energies[1]) > 0.1
    weights[site] = 0.7
    with pytest.raises(EmbeddingError, match="got 8 on another side"):
        scale_terms(system, make_term_weights("per_atom", weights, np.ones(9, dtype=bool), SWITCHING))


def test_constraints_on_the_zone_are_freed():
    """Constraints with an end in the zone leave, also where the bond term is handed over; others stay."""
    built = chains(n_molecules=2, n_atoms=4)
    system = openmm.XmlSerializer.clone(built.system)
    for pair in ((0, 1), (1, 2), (2, 3), (5, 6)):
        system.addConstraint(*pair, 0.15)
    weights = np.array([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    term_weights = make_term_weights("per_atom", weights, np.ones(8, dtype=bool), SWITCHING)
    embedded, embedding = scale_terms(system, term_weights)
    assert embedding.counts["constraints"] == 2 and embedded.getNumConstraints() == 2
    system.addConstraint(0, 3, 0.3)
    with pytest.raises(EmbeddingError, match="the constraint a0–a3 without a bond term"):
        scale_terms(system, term_weights, label=lambda i: f"a{i}")
    none = make_term_weights("delta", weights, np.ones(8, dtype=bool), None)
    assert scale_terms(system, none)[0].getNumConstraints() == 5


def test_scaled_system_is_recorded_and_its_input_unchanged():
    """Counts by class, what stays whole, names of the new forces, dropped terms; the input is not changed."""
    built = chains(n_molecules=3, n_atoms=4)
    system = openmm.XmlSerializer.clone(built.system)
    external = openmm.CustomExternalForce("x")
    external.addParticle(0, [])
    system.addForce(external)
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    before = openmm.XmlSerializer.serialize(system)
    weights = np.array([1.0, 1.0, 0.5] + [0.0] * 9)
    term_weights = make_term_weights("per_atom", weights, np.ones(12, dtype=bool), SWITCHING)
    embedded, embedding = scale_terms(system, term_weights)
    assert openmm.XmlSerializer.serialize(system) == before
    # Three bonds, one angle more than inside, one torsion; of the pairs, the one 1-4 pair of this molecule.
    assert embedding.counts == {
        "HarmonicBondForce": 3,
        "HarmonicAngleForce": 2,
        "PeriodicTorsionForce": 1,
        "NonbondedForce": 1,
    }
    assert embedding.scheme == "per_atom" and embedding.kept == ("CustomExternalForce", "MonteCarloBarostat")
    forces = {force.getName(): force for force in embedded.getForces()}
    assert forces["HarmonicBondForce"].getNumBonds() == 8  # the bond with W = 1 is gone
    around = forces[SURROUNDINGS]
    assert around.getNumExclusions() == forces["NonbondedForce"].getNumExceptions()
    assert around.getCutoffDistance() == forces["NonbondedForce"].getCutoffDistance()
    assert forces["NonbondedForce"].getExceptionsUsePeriodicBoundaryConditions()
    assert forces[INSIDE].getNumBonds() == 1 and not around.getUseLongRangeCorrection()


def test_a_scheme_without_pairs_leaves_them_alone():
    """`delta` leaves many-body and custom pair forces whole."""
    built = chains(n_molecules=2, n_atoms=6, box=None)
    system = openmm.XmlSerializer.clone(built.system)
    born, pairs = openmm.GBSAOBCForce(), openmm.CustomNonbondedForce("1/r")
    for _ in range(12):
        born.addParticle(0.1, 0.15, 0.8)
        pairs.addParticle([])
    system.addForce(born)
    system.addForce(pairs)
    weights, visible = np.where(np.arange(12) < 4, 1.0, 0.0), np.ones(12, dtype=bool)
    embedded, embedding = scale_terms(system, make_term_weights("delta", weights, visible, None))
    assert {"GBSAOBCForce", "CustomNonbondedForce"} <= set(embedding.kept)
    names = [force.getName() for force in embedded.getForces()]
    assert INSIDE not in names and SURROUNDINGS not in names
    old, new = (next(f for f in s.getForces() if "Nonbonded" in f.getName()) for s in (system, embedded))
    assert old.getNumExceptions() == new.getNumExceptions()
    for scheme in ("per_atom", "supermolecular", "additive"):
        with pytest.raises(EmbeddingError, match="got a CustomNonbondedForce"):
            scale_terms(system, make_term_weights(scheme, weights, visible, SWITCHING))


def test_bad_term_weights_and_switching_ranges_are_rejected():
    built = chains(n_molecules=2)
    weights, visible = np.ones(8), np.ones(8, dtype=bool)
    for message, term_weights in (
        (
            r"a switching range .* 'additive', but got none\. .*remove_region_terms",
            make_term_weights("additive", weights, visible, None),
        ),
        ("cutoff of 1 nm, but got r_on = 0.5", make_term_weights("per_atom", weights, visible, (0.5, 1.1))),
        ("0 <= r_on < r_off", make_term_weights("per_atom", weights, visible, (0.5, 0.5))),
        ("visibility of 8 atoms", make_term_weights("per_atom", weights[:7], visible, SWITCHING)),
    ):
        with pytest.raises(EmbeddingError, match=message):
            scale_terms(built.system, term_weights)
    with pytest.raises(EmbeddingError, match=r"a switching range .* got none"):
        ReplacedTerms(read_mm_tables(built.system), make_term_weights("per_atom", weights, visible, None))
    changes = {
        "LJPME": lambda force: force.setNonbondedMethod(openmm.NonbondedForce.LJPME),
        "reaction field": lambda force: force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic),
        "parameter offsets": lambda force: force.addParticleParameterOffset(
            "s" if force.addGlobalParameter("s", 0.0) == 0 else "", 0, 1.0, 0.0, 0.0
        ),
    }
    for message, arguments in (
        ("scheme = per_atom", ("loco", weights, visible, SWITCHING)),
        ("lambda from 0 to 1, but got 1.5 of atom 0", ("per_atom", 1.5 * weights, visible, SWITCHING)),
        (
            "lambda = 0 or 1 where caps stand on cut bonds, but got 0.5 of atom 0",
            ("supermolecular", 0.5 * weights, visible, SWITCHING, ((0, 1),)),
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            make_term_weights(*arguments)
    for name, change in changes.items():
        system = openmm.XmlSerializer.clone(built.system)
        change(next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)))
        with pytest.raises(EmbeddingError, match=name):
            scale_terms(system, make_term_weights("per_atom", weights, visible, SWITCHING))
