"""Per-atom force-field energies: the sum is OpenMM's, shares are equal, the switching function is smooth."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import openmm
import pytest
import tolerances
import torch
from mm_systems import CLASSES, CUBIC, TRICLINIC, mixed_system, nonbonded, one_class, pair_loop
from toys import chains, energy_and_forces

from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.functions import short_range_inverse, switching_function
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.errors import EmbeddingError
from mlmm.forcefield.tables import read_mm_tables

EXACT = 1e-9  # relative
FAR = 1e12  # nm: a switching function that hands over everything, its tail below 1e-9 of any pair


def evaluate(module, positions, cell=None, weights=None):
    """Per-atom energies, and forces of their (weighted) sum."""
    x = torch.tensor(positions, requires_grad=True)
    energies = module(x, None if cell is None else torch.tensor(cell))
    total = energies.sum() if weights is None else (energies * torch.tensor(weights)).sum()
    # Without any term the energies are constants.
    forces = -torch.autograd.grad(total, x)[0] if total.requires_grad else torch.zeros_like(x)
    return energies.detach().numpy(), forces.numpy()


def assert_same(energies, forces, reference, tolerance=EXACT):
    energy, expected = reference
    assert abs(energies.sum() - energy) <= tolerance * max(1.0, abs(energy))
    assert np.abs(forces - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_alone_is_openmm(name):
    """Energy and forces of every class of terms, at random positions that visit all signs and quadrants."""
    system = one_class(name)
    tables = read_mm_tables(system)
    module = ShortRangeEnergies(tables, range(9), np.ones(9, bool), FAR / 2, FAR)
    for seed in range(5):
        positions = np.random.default_rng(seed).normal(0, 0.3, (9, 3))
        assert_same(*evaluate(module, positions), energy_and_forces(system, positions))


@pytest.mark.parametrize("name", CLASSES[:-1])
@pytest.mark.parametrize("periodic", [False, True])
def test_images_only_where_the_force_takes_them(name, periodic):
    """Atoms far from each other across a box: plain differences, or nearest images, as in OpenMM."""
    system = one_class(name)
    system.setDefaultPeriodicBoxVectors(*TRICLINIC)
    for force in system.getForces():
        force.setUsesPeriodicBoundaryConditions(periodic)
    rng = np.random.default_rng(1)
    positions = rng.normal(0, 0.3, (9, 3)) + rng.integers(-1, 2, (9, 3)) @ TRICLINIC
    module = ShortRangeEnergies(read_mm_tables(system), range(9), np.ones(9, bool), 0.3, 0.5)
    assert_same(*evaluate(module, positions, TRICLINIC), energy_and_forces(system, positions))


@pytest.mark.parametrize("name", CLASSES[:-1])
def test_an_invisible_atom_removes_exactly_its_terms(name):
    """What disappears is the energy of the terms with the atom, by OpenMM with all other terms deleted."""
    hidden, system = 2, one_class(name)
    positions = np.random.default_rng(3).normal(0, 0.3, (9, 3))
    with_it, without_it = openmm.System(), openmm.System()
    for part, contains in ((with_it, True), (without_it, False)):
        for _ in range(9):
            part.addParticle(1.0)
        for force in system.getForces():
            smaller = type(force)()
            kind = {"HarmonicBondForce": "Bond", "HarmonicAngleForce": "Angle"}.get(
                type(force).__name__, "Torsion"
            )
            if kind == "Torsion" and name == "CMAP":
                for i in range(force.getNumMaps()):
                    smaller.addMap(*force.getMapParameters(i))
            for i in range(getattr(force, f"getNum{kind}s")()):
                term = getattr(force, f"get{kind}Parameters")(i)
                width = {"Bond": slice(0, 2), "Angle": slice(0, 3), "Torsion": slice(0, 4)}[kind]
                atoms = term[1:9] if name == "CMAP" else term[width]
                if (hidden in atoms) == contains:
                    getattr(smaller, f"add{kind}")(*term)
            part.addForce(smaller)
    visible = np.arange(9) != hidden
    module = ShortRangeEnergies(read_mm_tables(system), range(9), visible, 0.3, 0.5)
    energies, forces = evaluate(module, positions)
    assert_same(energies, forces, energy_and_forces(without_it, positions))
    assert energies[hidden] == 0 and abs(energy_and_forces(with_it, positions)[0]) > 1e-3


def test_equal_shares_term_by_term():
    """One term of each kind: every atom gets 1/n, CMAP 1/5 per atom or 1/8 per place."""
    positions = np.random.default_rng(0).normal(0, 0.2, (8, 3))

    def shares(force, n=8):
        system = openmm.System()
        for _ in range(n):
            system.addParticle(1.0)
        system.addForce(force)
        module = ShortRangeEnergies(read_mm_tables(system), range(n), np.ones(n, bool), 0.3, 0.5)
        energies = evaluate(module, positions[:n])[0]
        return energies / energies.sum()

    bond, angle = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    bond.addBond(1, 3, 0.1, 100.0)
    angle.addAngle(1, 3, 2, 1.0, 100.0)
    np.testing.assert_allclose(shares(bond), [0, 1 / 2, 0, 1 / 2, 0, 0, 0, 0])
    np.testing.assert_allclose(shares(angle), [0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0])
    torsion = openmm.PeriodicTorsionForce()
    torsion.addTorsion(1, 3, 2, 5, 2, 0.3, 5.0)
    np.testing.assert_allclose(shares(torsion), [0, 1 / 4, 1 / 4, 1 / 4, 0, 1 / 4, 0, 0])
    for dihedrals, expected in (
        ((0, 1, 2, 3, 1, 2, 3, 4), [1 / 5] * 5 + [0] * 3),
        ((0, 1, 2, 3, 2, 3, 4, 5), [1 / 8, 1 / 8, 2 / 8, 2 / 8, 1 / 8, 1 / 8, 0, 0]),
        ((0, 1, 2, 3, 4, 5, 6, 7), [1 / 8] * 8),
    ):
        cmap = openmm.CMAPTorsionForce()
        cmap.addMap(6, np.random.default_rng(1).normal(5, 1, 36).tolist())
        cmap.addTorsion(0, *dihedrals)
        np.testing.assert_allclose(shares(cmap), expected, atol=1e-14)


@pytest.mark.parametrize("cell", [None, CUBIC, TRICLINIC], ids=["open", "cubic", "triclinic"])
def test_pairs_by_an_independent_loop(cell):
    """Per-atom non-bonded energies with switch, exceptions and invisible atoms, for a region and for all."""
    system, positions = nonbonded(cell)
    tables = read_mm_tables(system)
    visible = np.random.default_rng(8).random(48) < 0.8
    expected = pair_loop(system, positions, cell, visible, 0.35, 0.8)
    scale = np.abs(expected).max()
    for atoms in (range(48), [40, 3, 17, 5, 29]):
        energies = evaluate(ShortRangeEnergies(tables, atoms, visible, 0.35, 0.8), positions, cell)[0]
        assert np.abs(energies - expected[list(atoms)]).max() < EXACT * scale
    # Controls: the same loop with f K q q / r, and with all atoms visible, is far away.
    for wrong in (
        pair_loop(system, positions, cell, visible, 0.35, 0.8, coulomb="multiplied"),
        pair_loop(system, positions, cell, np.ones(48, bool), 0.35, 0.8),
    ):
        assert np.abs(wrong - expected).max() > 0.1 * scale


def test_sum_rule_and_shares():
    """Sum over all atoms = sum of f_t V_t; other shares move energy between atoms and leave the sum."""
    built = chains(n_molecules=4, box=3.0, cutoff=1.0)
    bonded = copy.deepcopy(built.system)
    bonded.removeForce([isinstance(f, openmm.NonbondedForce) for f in bonded.getForces()].index(True))
    cell, visible = np.eye(3) * 3.0, np.ones(16, bool)
    expected = energy_and_forces(bonded, built.positions)[0]
    expected += pair_loop(built.system, built.positions, cell, visible, 0.35, 0.7).sum()
    module = ShortRangeEnergies(read_mm_tables(built.system), range(16), visible, 0.35, 0.7)
    energies = evaluate(module, built.positions, cell)[0]
    assert abs(energies.sum() - expected) < 1e-10 * np.abs(energies).sum()
    central = copy.deepcopy(module)
    ends = torch.tensor([1, 0, 1]).repeat(module.n_angles).bool()
    first = 2 * module.n_bonds
    # The middle atom takes the whole angle.
    central.share[first : first + 3 * module.n_angles] = torch.where(ends, 0.0, 1.0).to(torch.float64)
    swapped = evaluate(central, built.positions, cell)[0]
    assert abs(swapped.sum() - energies.sum()) < 1e-10 * np.abs(energies).sum()
    assert np.abs(swapped - energies).max() > 1e-3


def derivatives(function, r, order):
    """Value and derivatives by autograd at one distance."""
    x = torch.tensor([r], dtype=torch.float64, requires_grad=True)
    values = [function(x)]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    return np.array([value.item() for value in values])


def test_switching_function_is_smooth():
    """f is C2 at both ends, 1/r without its tail is C3 at r_off; the slopes are right in between."""
    step = 1e-9
    for r, width in ((0.35, 0.15), (0.5, 0.15)):
        below, above = (
            derivatives(lambda x: switching_function(x, 0.35, 0.5), r + s, 2) for s in (-step, step)
        )
        assert np.all(np.abs(above - below) * width ** np.arange(3) < 1e-6)
    below, above = (derivatives(lambda x: short_range_inverse(x, 0.5), 0.5 + s, 3) for s in (-step, step))
    assert np.all(np.abs(above - below) * 0.5 ** np.arange(1, 5) < 1e-6)
    assert np.all(above == 0)
    for r in (0.36, 0.42, 0.49):
        assert 0 < derivatives(lambda x: switching_function(x, 0.35, 0.5), r, 0)[0] < 1
        numeric = (
            derivatives(lambda x: short_range_inverse(x, 0.5), r + 1e-5, 0)[0]
            - derivatives(lambda x: short_range_inverse(x, 0.5), r - 1e-5, 0)[0]
        ) / 2e-5
        assert numeric == pytest.approx(derivatives(lambda x: short_range_inverse(x, 0.5), r, 1)[1], rel=1e-6)


def test_short_range_coulomb_leaves_a_smooth_tail():
    """Force of v_sr = 1/r² minus the force of the tail, (70p − 84p³ + 30p⁵)/(16 a²), never above 1.7/a²."""
    a = 0.5
    r = np.linspace(0.05, 0.4999, 200)
    p = r / a
    tail = (70 * p - 84 * p**3 + 30 * p**5) / (16 * a * a)
    force = np.array([-derivatives(lambda x: short_range_inverse(x, a), value, 1)[1] for value in r])
    np.testing.assert_allclose(force, 1 / r**2 - tail, rtol=1e-9, atol=1e-9)
    assert tail.max() < 1.7 / a**2
    # Control: f(r)/r on 0.35–0.5 nm leaves a force several times that of the charges themselves.
    multiplied = np.array(
        [-derivatives(lambda x: switching_function(x, 0.35, a) / x, value, 1)[1] for value in r]
    )
    assert (np.abs(multiplied - 1 / r**2) * r**2).max() > 4


def test_switch_of_openmm_below_r_off():
    """With r_off at the cutoff and r_on beyond the switch, Lennard-Jones below r_on is OpenMM's own."""
    system, positions = nonbonded(CUBIC, switch=0.5)
    force = system.getForce(0)
    for i in range(48):
        _, sigma, epsilon = force.getParticleParameters(i)
        force.setParticleParameters(i, 0.0, sigma, epsilon)
    for i in range(force.getNumExceptions()):
        force.setExceptionParameters(i, *force.getExceptionParameters(i)[:2], 0.0, 1.0, 0.0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setUseDispersionCorrection(False)
    module = ShortRangeEnergies(read_mm_tables(system), range(48), np.ones(48, bool), 1.0 - 1e-9, 1.0)
    energies, forces = evaluate(module, positions, CUBIC)
    assert_same(energies, forces, energy_and_forces(system, positions))


def without_pairs(system: openmm.System, atoms) -> openmm.System:
    """A copy with an empty exception for every pair of some atoms."""
    system = copy.deepcopy(system)
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    for a, b in itertools.combinations(sorted(atoms), 2):
        force.addException(a, b, 0.0, 1.0, 0.0, True)
    if force.usesPeriodicBoundaryConditions():
        force.setExceptionsUsePeriodicBoundaryConditions(True)
    return system


@pytest.mark.parametrize(
    ("cell", "switched"),
    [(None, False), (CUBIC, True), (CUBIC, False), (TRICLINIC, True)],
    ids=["open", "cubic", "cubic without switch", "triclinic"],
)
def test_full_pairs_restore_what_exceptions_remove(cell, switched):
    """E(pairs of C emptied) + FullPairs = E, forces too; with 1-4 pairs, exclusions, cutoff and switch."""
    system, positions = nonbonded(cell)
    if cell is not None:
        system.getForce(0).setUseSwitchingFunction(switched)
    tables, core = read_mm_tables(system), list(range(5, 30))
    energies, forces = evaluate(FullPairs(tables, core), positions, cell)
    energy, remaining = energy_and_forces(without_pairs(system, core), positions)
    whole = energy_and_forces(system, positions)
    if cell is None:
        assert_same(np.array([energies.sum() + energy]), forces + remaining, whole)
    else:
        assert abs(energies.sum() + energy - whole[0]) < tolerances.IDENTITY_MESH
        assert np.abs(forces + remaining - whole[1]).max() < 1e-6 * np.abs(whole[1]).max()
    assert abs(energies.sum()) > 10
    order = [core[3], core[0], core[9]]
    few = evaluate(FullPairs(tables, order), positions, cell)[0]
    back = evaluate(FullPairs(tables, order[::-1]), positions, cell)[0]
    np.testing.assert_allclose(few, back[::-1], rtol=1e-12)


def test_finite_differences_and_torchscript():
    """Forces of a randomly weighted sum, by differences; the compiled module gives the same numbers."""
    system, positions = mixed_system()
    tables = read_mm_tables(system)
    weights = np.random.default_rng(1).random(6)
    visible = np.arange(9) != 4
    modules = [ShortRangeEnergies(tables, [0, 1, 2, 7, 5, 8], visible, 0.3, 0.6), FullPairs(tables, range(6))]
    for module in modules:
        check_differences(module, positions, CUBIC, weights, range(9))
        scripted = torch.jit.script(module)
        for _ in range(3):  # the later calls run optimised code
            for cell in (CUBIC, None):
                plain, compiled = (evaluate(m, positions, cell, weights) for m in (module, scripted))
                np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-12, atol=1e-12)
                np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-10, atol=1e-9)


def check_differences(module, positions, cell, weights, atoms, step=1e-5):
    forces = evaluate(module, positions, cell, weights)[1]
    worst = 0.0
    for i, k in itertools.product(atoms, range(3)):
        shifted = [positions.copy(), positions.copy()]
        shifted[0][i, k] -= step
        shifted[1][i, k] += step
        low, high = (evaluate(module, x, cell)[0] @ weights for x in shifted)
        worst = max(worst, abs((low - high) / (2 * step) - forces[i, k]))
    assert worst < tolerances.FINITE_DIFFERENCE * np.abs(forces).max()
    return worst / np.abs(forces).max()


def test_images():
    """Molecules moved by box vectors change nothing; single atoms neither, with wrap."""
    built = chains(n_molecules=3, box=3.0)
    tables, cell, visible = read_mm_tables(built.system), np.eye(3) * 3.0, np.ones(12, bool)
    rng = np.random.default_rng(0)
    whole = np.repeat(rng.integers(-2, 3, (3, 3)), 4, axis=0) @ cell
    atoms = rng.integers(-2, 3, (12, 3)) @ cell
    for wrap, shift in ((False, whole), (True, whole), (True, atoms)):
        module = ShortRangeEnergies(tables, range(8), visible, 0.35, 0.6, wrap=wrap)
        energies = evaluate(module, built.positions, cell)[0]
        moved = evaluate(module, built.positions + shift, cell)[0]
        assert np.abs(moved - energies).max() < tolerances.IMAGES


def test_atoms_on_a_line_have_finite_forces():
    system = openmm.System()
    for _ in range(4):
        system.addParticle(1.0)
    angle, torsion = openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    angle.addAngle(0, 1, 2, 3.0, 100.0)
    torsion.addTorsion(0, 1, 2, 3, 2, 0.0, 5.0)
    system.addForce(angle)
    system.addForce(torsion)
    positions = np.zeros((4, 3))
    positions[:, 0] = np.arange(4) * 0.15
    module = ShortRangeEnergies(read_mm_tables(system), range(4), np.ones(4, bool), 0.3, 0.5)
    energies, forces = evaluate(module, positions)
    assert np.isfinite(energies).all() and np.isfinite(forces).all()
    assert energies.sum() == pytest.approx(0.5 * 100 * (np.pi - 3.0) ** 2 + 10.0)


def test_no_term_at_all_and_broken_positions():
    system, positions = mixed_system()
    tables = read_mm_tables(system)
    assert evaluate(ShortRangeEnergies(tables, [], np.ones(9, bool), 0.3, 0.5), positions, CUBIC)[
        0
    ].shape == (0,)
    nothing = ShortRangeEnergies(tables, range(9), np.zeros(9, bool), 0.3, 0.5)
    assert np.all(evaluate(nothing, positions, CUBIC)[0] == 0)
    positions[3] = np.nan
    # NaN must arrive where it can be reported, not crash in a table look-up.
    module = ShortRangeEnergies(tables, range(9), np.ones(9, bool), 0.3, 0.5)
    assert np.isnan(evaluate(module, positions, CUBIC)[0][3])


def test_dipeptide_in_water(dipeptide_water):
    """ff14SB and TIP3P: finite, forces by differences on the peptide and on waters around it."""
    tables = read_mm_tables(dipeptide_water.system)
    cell, positions = dipeptide_water.box_vectors, dipeptide_water.positions
    module = ShortRangeEnergies(tables, range(22), ~tables.virtual, 0.35, 0.5)
    energies, forces = evaluate(module, positions, cell)
    assert np.isfinite(energies).all() and np.isfinite(forces).all()
    outside = 22 + np.argsort(-np.abs(forces[22:]).max(axis=1))[:4]
    assert np.abs(forces[outside]).min() >= 0 and np.abs(forces[outside]).max() > 1.0
    assert np.abs(forces.sum(axis=0)).max() < 1e-9 * np.abs(forces).max()
    check_differences(module, positions, cell, np.linspace(0, 1, 22), [0, 4, 8, 14, *outside])


def test_bad_ranges_and_atoms_are_rejected():
    tables = read_mm_tables(nonbonded(CUBIC)[0])
    every = np.ones(48, bool)
    for message, arguments in (
        ("r_off within the force field's cutoff of 1 nm", (range(5), every, 0.5, 1.1)),
        ("0 <= r_on < r_off", (range(5), every, 0.6, 0.5)),
        ("got 48", ([47, 48], every, 0.3, 0.5)),
        ("an atom twice", ([4, 4], every, 0.3, 0.5)),
        ("boolean array of shape", (range(5), np.ones(47, bool), 0.3, 0.5)),
        ("boolean array of shape", (range(5), np.ones(48), 0.3, 0.5)),
    ):
        with pytest.raises(EmbeddingError, match=message):
            ShortRangeEnergies(tables, *arguments)
