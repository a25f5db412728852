"""Energies, forces and samples of restraints, against their formulas."""

from __future__ import annotations

import copy
import math

import numpy as np
import openmm
import pytest
import torch
from cases import BOXES, cell_of, context_of, disturbed, system_of, variables
from toys import evaluate

from mlmm.build import BuiltSystem
from mlmm.collective_variables.bind import bind
from mlmm.collective_variables.definitions import BOX_EDGE, Biases, merged
from mlmm.collective_variables.openmm_forces import bias_forces, follow_box, set_parameters
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.collective_variables.rules import KINDS, RANGES
from mlmm.collective_variables.values import bias_energy, value, variable_values
from mlmm.units import GAS_CONSTANT


def restraint_on(variable: Variable, x: float, shape: str) -> Restraint:
    """One that acts on a variable whose value is x."""
    width = {"width": 0.01} if shape == "flat_bottom" else {}
    at = {"lower": x + 0.03, "upper": x - 0.03}.get(shape, x + 0.03)
    low, high = RANGES.get(variable.kind, (None, None))
    if variable.kind == "position":
        return Restraint(variable, force_constant=500.0, shape=shape, **width)
    at = at if low is None else max(low, at)
    return Restraint(variable, at if high is None else min(high, at), 500.0, shape, **width)


def with_restraint(kind: str, shape: str, box: str) -> tuple[BuiltSystem, Biases, np.ndarray]:
    built = system_of(BOXES[box])
    (variable,) = (v for v in variables(built) if v.kind == kind)
    positions = disturbed(built)
    bound = bind(built, [], [variable]).variables[0]
    x = float(value(bound, torch.tensor(positions), cell_of(built)))
    return built, bind(built, [restraint_on(variable, x, shape)]), positions


CASES = [
    (kind, shape)
    for kind in KINDS
    for shape in ("harmonic", "flat_bottom", "lower", "upper")
    if not (kind in ("torsion", "position") and shape in ("lower", "upper"))
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_energies_and_forces_of_both_twins(kind, shape, box):
    """Energy to 1e-10, forces to 1e-8, and the energy by its formula from the value."""
    built, biases, positions = with_restraint(kind, shape, box)
    energy, forces = evaluate(context_of(built, *bias_forces(biases)), positions)
    where = torch.tensor(positions, requires_grad=True)
    twin = bias_energy(biases, where, cell_of(built))
    assert energy == pytest.approx(float(twin.detach()), abs=1e-10)
    assert np.abs(forces + torch.autograd.grad(twin, where)[0].numpy()).max() < 1e-8
    assert energy > 1e-6 and np.abs(forces).max() > 1e-3
    if kind != "position":
        (restraint,) = biases
        off = variable_values(biases, where.detach(), cell_of(built))[restraint.variable.name] - restraint.at
        off = abs(off) - (0.01 if shape == "flat_bottom" else 0.0)
        assert energy == pytest.approx(250.0 * off**2, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_of_the_cpu_platform(kind):
    """What a run has: 1e-4 of the energy, 1e-4 of the largest force, in a box."""
    built, biases, positions = with_restraint(kind, "harmonic", "periodic")
    forces = bias_forces(biases)
    exact, single = (
        evaluate(context_of(built, *copy.deepcopy(forces), platform=name), positions)
        for name in ("Reference", "CPU")
    )
    assert single[0] == pytest.approx(exact[0], rel=1e-4)
    assert np.abs(single[1] - exact[1]).max() < 1e-4 * np.abs(exact[1]).max()


def test_position_restraints_act_on_each_atom():
    """E = k/2 sum_i |r_i − r_i0|², which no shape of their mean displacement is."""
    built = system_of(None)
    biases = bind(built, [Restraint(Variable("p", "position", [[0, 1, 6]]), force_constant=500.0)])
    positions = disturbed(built)
    squares = ((positions - built.positions)[[0, 1, 6]] ** 2).sum()
    energy, forces = evaluate(context_of(built, *bias_forces(biases)), positions)
    assert energy == pytest.approx(250.0 * squares)
    assert forces[6] == pytest.approx(-500.0 * (positions - built.positions)[6])
    assert np.abs(forces[[2, 3, 4, 5, 7]]).max() == 0


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("distance", "flat_bottom"),
        ("torsion", "flat_bottom"),
        ("position", "flat_bottom"),
        ("angle", "lower"),
    ],
)
def test_nothing_acts_inside_the_flat_part(kind, shape):
    """Energy and forces are 0, not small; at the start exactly, too, where the places are the positions."""
    built = system_of(None)
    (variable,) = (v for v in variables(built) if v.kind == kind)
    x = float(value(bind(built, [], [variable]).variables[0], torch.tensor(disturbed(built))))
    at = {} if kind == "position" else {"at": x - (0.2 if shape == "lower" else 0.0)}
    width = {"width": 0.3} if shape == "flat_bottom" else {}
    biases = bind(built, [Restraint(variable, force_constant=500.0, shape=shape, **at, **width)])
    context = context_of(built, *bias_forces(biases))
    for positions in (np.array(built.positions), disturbed(built)):
        energy, forces = evaluate(context, positions)
        assert energy == 0 and np.abs(forces).max() == 0
        assert float(bias_energy(biases, torch.tensor(positions))) == 0
    far = disturbed(built) + np.outer(np.isin(np.arange(8), variable.groups[0]), [2.9, 0.4, 0.7])
    assert evaluate(context, far)[0] > 0.1


def test_a_torsion_is_pulled_the_shorter_way():
    built = system_of(None)
    variable = Variable("phi", "torsion", [[0], [1], [2], [3]])
    for now, at in ((170, -170), (-179, 179), (60, -60), (100, -70)):
        biases = bind(built, [Restraint(variable, f"{at} degree", "0.01 kJ/mol/deg^2")])
        turned = math.radians(now)
        last = [0.1 * math.cos(turned), 0.1 * math.sin(turned), 0.2]
        positions = np.array(built.positions)
        positions[:4] = [[0.1, 0, 0], [0, 0, 0], [0, 0, 0.2], last]
        off = min(abs(now - at), 360 - abs(now - at))
        energy, _ = evaluate(context_of(built, *bias_forces(biases)), positions)
        assert energy == pytest.approx(0.005 * off**2, rel=1e-6)
        assert float(bias_energy(biases, torch.tensor(positions))) == pytest.approx(energy)


@pytest.mark.parametrize("kind", KINDS)
def test_no_net_force_and_no_torque(kind):
    """Of all but places in space, which are the control."""
    built, biases, positions = with_restraint(kind, "harmonic", "open")
    _, forces = evaluate(context_of(built, *bias_forces(biases)), positions)
    net, torque = forces.sum(axis=0), np.cross(positions, forces).sum(axis=0)
    limit = 1e-9 * np.abs(forces).sum()
    if kind == "position":
        assert np.abs(net).max() > 1 and np.abs(torque).max() > 0.1
    else:
        assert np.abs(net).max() < limit and np.abs(torque).max() < limit


def test_a_context_goes_from_window_to_window():
    """Its target and force constant are global parameters; two restraints on one variable have their own."""
    built = system_of(None)
    variable = Variable("d", "distance", [[0], [5]])
    walls = [
        Restraint(variable, 0.2, 800.0, "lower"),
        Restraint(variable, 0.3, 100.0, "flat_bottom", width=0.05, stages=["equilibrate"]),
    ]
    biases = bind(built, walls)
    assert [restraint.name for restraint in biases] == ["d", "d_2"]
    context = context_of(built, *bias_forces(biases))
    positions = disturbed(built)
    for at, k in ((0.5, 100.0), (0.6, 300.0)):
        context.setParameter("d_at", at)
        context.setParameter("d_force_constant", k)
        context.setParameter("d_2_force_constant", 0.0)
        energy, _ = evaluate(context, positions)
        other = bind(built, [Restraint(variable, at, k, "lower")])
        assert energy == pytest.approx(float(bias_energy(other, torch.tensor(positions))), abs=1e-10)
        assert energy > 0.1
    for stage in ("equilibrate", "produce", None):
        set_parameters(context, biases, stage)
        energy, _ = evaluate(context, positions)
        twin = float(bias_energy(biases, torch.tensor(positions), stage=stage))
        assert energy == pytest.approx(twin, abs=1e-10)
    assert context.getParameter("d_2_force_constant") == 100.0 and context.getParameter("d_2_width") == 0.05


@pytest.mark.parametrize("shape", ["harmonic", "flat_bottom"])
def test_places_follow_the_box(shape):
    """Box and molecules scaled: places move with their centre, so that nothing pulls the box back."""
    built = system_of(1.5)
    width = {"width": 0.001} if shape == "flat_bottom" else {}
    places = Variable("places", "position", [[0, 1, 2, 3]])
    biases = bind(built, [Restraint(places, force_constant=1000.0, shape=shape, **width)])
    context = context_of(built, *bias_forces(biases))
    positions = built.positions + np.random.default_rng(0).normal(0, 0.01, built.positions.shape)
    energy, _ = evaluate(context, positions)
    scale, centre = 1.03, built.positions[:4].mean(axis=0)
    moved, box = positions + (scale - 1) * centre, scale * np.array(built.box_vectors)
    context.setPeriodicBoxVectors(*box)
    stuck, _ = evaluate(context, moved)
    assert stuck > energy + 0.2  # control: places that stay where they were
    follow_box(context)
    assert context.getParameter(BOX_EDGE) == pytest.approx(1.5 * scale)
    assert evaluate(context, moved)[0] == pytest.approx(energy, abs=1e-9)
    twin = bias_energy(biases, torch.tensor(moved), torch.tensor(box))
    assert float(twin) == pytest.approx(energy, abs=1e-9)


def test_what_is_superposed_stays_one_molecule():
    """OpenMM wraps molecules into the box; those of one group have to go together."""
    built = system_of(1.5)
    shape = Variable("shape", "rmsd", [[0, 1, 6]])
    contacts = Variable("n", "coordination", [[0], [5]], contact_distance="0.2 nm")
    biases = bind(built, [Restraint(shape, 0.0, 1.0), Restraint(contacts, 1.0, 1.0)])
    molecules = context_of(built, *bias_forces(biases)).getMolecules()
    assert (0, 1, 6) in [tuple(molecule) for molecule in molecules]
    # A count of pairs joins nothing: a barostat moves each water that an ion counts by itself.
    assert (5,) in [tuple(molecule) for molecule in molecules]
    assert merged([(0, 1), (2, 3), (4,), (5, 6)], [(1, 4), (4, 5)]) == [(0, 1, 4, 5, 6), (2, 3)]


def sampled(force: openmm.Force, n: int, seed: int) -> np.ndarray:
    """Distances of two carbon atoms with nothing but a restraint between them, at 300 K."""
    system = openmm.System()
    for _ in range(2):
        system.addParticle(12.011)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300, 10.0, 0.02)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions([[0, 0, 0], [0.3, 0, 0]])
    context.setVelocitiesToTemperature(300, seed)
    found = []
    integrator.step(500)
    for _ in range(n):
        integrator.step(25)
        first, second = context.getState(positions=True).getPositions(asNumpy=True)._value
        found.append(np.linalg.norm(second - first))
    return np.array(found)


def moments(weight, at: float) -> tuple[float, float]:
    """Mean and variance of a distance with the density weight(r) r², by quadrature."""
    r = np.linspace(1e-6, at + 2.0, 400_001)
    density = weight(r)
    density /= density.sum()
    mean = float((r * density).sum())
    return mean, float(((r - mean) ** 2 * density).sum())


def judged(samples: np.ndarray, exact: tuple[float, float]) -> tuple[float, float]:
    """Mean and variance away from exact ones, in standard errors by blocks."""
    blocks = samples[: len(samples) // 20 * 20].reshape(20, -1)
    square = (blocks - exact[0]) ** 2
    return tuple(
        (part.mean() - target) / (part.mean(axis=1).std(ddof=1) / math.sqrt(20))
        for part, target in ((blocks, exact[0]), (square, exact[1]))
    )


def two_atoms() -> BuiltSystem:
    from openmm import app

    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    for k in range(2):
        topology.addAtom("C", app.element.carbon, topology.addResidue(f"C{k}", chain))
        system.addParticle(12.011)
    return BuiltSystem.from_openmm(topology, system, np.array([[0, 0, 0], [0.3, 0, 0]]))


@pytest.mark.parametrize("shape", ["harmonic", "flat_bottom"])
def test_two_free_atoms_sample_the_boltzmann_distribution(shape):
    """p(r) ~ r² exp(−E/kT): mean and variance within 4 standard errors; without r², more than 20 off."""
    built, kt, k, at, width = two_atoms(), GAS_CONSTANT * 300, 300.0, 0.3, 0.1
    flat = {"width": width} if shape == "flat_bottom" else {}
    biases = bind(built, [Restraint(Variable("d", "distance", [[0], [1]]), at, k, shape, **flat)])
    (force,) = bias_forces(biases)
    samples = sampled(force, 6000, seed=7)

    def boltzmann(r: np.ndarray) -> np.ndarray:
        off = r - at if shape == "harmonic" else np.maximum(0, abs(r - at) - width)
        return np.exp(-0.5 * k * off**2 / kt)

    assert max(map(abs, judged(samples, moments(lambda r: r**2 * boltzmann(r), at)))) < 4
    assert max(map(abs, judged(samples, moments(boltzmann, at)))) > 20
    if shape == "harmonic":
        # A stiff one: the variance is kT/k, of which r² changes a part in r_0² k/kT alone.
        stiff = moments(lambda r: r**2 * np.exp(-0.5 * 1e5 * (r - at) ** 2 / kt), at)
        assert stiff[1] == pytest.approx(kt / 1e5, rel=2e-3)
