"""Scheme `difference`: sums over atoms equal whole energies, exact core, no steps, caps, levels, hosts."""

from __future__ import annotations

import dataclasses
import itertools
import logging

import numpy as np
import openmm
import pytest
import tolerances
import torch
from toys import chains, energy_and_forces, toy_spec

from mlmm.bridge import make_blend_force
from mlmm.caps import CappedAtoms, cap_lengths
from mlmm.difference import DifferenceBlend, TotalDifference, difference_blend, levels_of
from mlmm.errors import EmbeddingError, PotentialError
from mlmm.ownership import Level, ownership_of
from mlmm.potentials import AtomEnergies, load_potential
from mlmm.regions import molecules_of
from mlmm.structures import Structure, neighbour_pairs

RANGE = 0.4  # nm, of the toys


class Contacts(torch.nn.Module):
    """eps_i = sum_j Z_i Z_j (1 − r²/c²)³/100 [+ square], all of a pair on its lighter atom; two members."""

    def __init__(self, numbers: torch.Tensor, reach: float, many_body: float):
        super().__init__()
        self.reach, self.many_body = reach, many_body
        self.register_buffer("numbers", numbers)
        self.register_buffer("all_atoms", torch.arange(len(numbers)))

    def forward(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor | None,
        centres: torch.Tensor | None = None,
    ) -> torch.Tensor:
        central = self.all_atoms if centres is None else centres
        first, second, vectors = neighbour_pairs(positions, cell, self.reach, central)
        here, there = self.numbers[central[first]], self.numbers[second]
        # 2, 1 or 0 halves of the pair: a share as lopsided as a model's may be.
        halves = 1.0 + (here < there).to(torch.float64) - (here > there).to(torch.float64)
        close = (1.0 - vectors.square().sum(-1) / self.reach**2).clamp(min=0.0) ** 3
        sums = torch.zeros(central.shape[0], dtype=torch.float64).index_add(
            0, first, 0.005 * halves * here * there * close
        )
        sums = sums + self.many_body * sums.square()
        return torch.stack([sums, 1.5 * sums])


class ContactPotential:
    """`Contacts` with its TorchScript form."""

    def __init__(self, many_body: float = 0.0, reach: float = RANGE, **changes: object):
        self.spec = toy_spec("contacts", cutoff=reach, receptive_field=reach, trained_on="total", members=2)
        self.spec = dataclasses.replace(self.spec, **changes)
        self.many_body = many_body

    def scriptable(self, numbers, centres=None):
        assert centres is None
        return Contacts(torch.tensor(list(numbers), dtype=torch.float64), self.spec.cutoff, self.many_body)

    def atom_energies(self, structure):
        members = self.scriptable(structure.numbers.tolist())(structure.positions, structure.cell)
        return AtomEnergies(members.mean(dim=0), members)


class Messages:
    """Two layers of message passing: h_j = sum_k f_jk, g_i = sum_j f_ij tanh h_j, eps_i = g_i + g_i²/100.

    Without a TorchScript form. The square couples what two neighbours of an atom see.
    """

    def __init__(self, **changes: object):
        self.spec = toy_spec("messages", cutoff=RANGE, receptive_field=2 * RANGE, trained_on="total")
        self.spec = dataclasses.replace(self.spec, **changes)

    def atom_energies(self, structure):
        n, numbers = len(structure), structure.numbers.to(torch.float64)
        first, second, vectors = neighbour_pairs(structure.positions, structure.cell, RANGE)
        close = (1.0 - vectors.square().sum(-1) / RANGE**2).clamp(min=0.0) ** 3 * numbers[second]
        zeros = torch.zeros(n, dtype=torch.float64)
        features = zeros.index_add(0, first, 0.1 * close)
        sums = zeros.index_add(0, first, 10 * close * features.tanh()[second])
        return AtomEnergies(sums + 0.01 * sums.square())


@pytest.fixture(scope="module")
def ani() -> object:
    """One member of ANI-1x, float64."""
    return load_potential("ani1x", precision="float64", members=[0])


def atoms_of(built) -> tuple[list[int], list[tuple[int, int]]]:
    """Atomic numbers and bonds."""
    numbers = [atom.element.atomic_number for atom in built.topology.atoms()]
    return numbers, [(bond[0].index, bond[1].index) for bond in built.topology.bonds()]


def geometry(built) -> tuple[torch.Tensor, torch.Tensor | None]:
    cell = None if built.box_vectors is None else torch.tensor(built.box_vectors)
    return torch.tensor(built.positions, requires_grad=True), cell


def level_of(atoms, bonds) -> tuple[Level, ...]:
    """One hard set."""
    weights = np.zeros(1 + max(max(bond) for bond in bonds))
    weights[list(atoms)] = 1.0
    return levels_of(weights, bonds, 1)


def waters_by_distance(built) -> list[tuple[int, ...]]:
    """Water molecules of the dipeptide's box, the nearest first."""
    box, positions = np.diag(built.box_vectors), built.positions
    waters = [tuple(atoms) for atoms in molecules_of(built.topology) if len(atoms) == 3]

    def distance(atoms):
        separation = positions[list(atoms)][:, None] - positions[None, :22]
        return np.linalg.norm(separation - np.round(separation / box) * box, axis=-1).min()

    return sorted(waters, key=distance)


def smooth_weights(built) -> np.ndarray:
    """1 on alanine, 0.7 on the rest of the dipeptide, 0.3 on twelve waters."""
    weights = np.zeros(built.n_atoms)
    weights[:22], weights[6:16] = 0.7, 1.0
    weights[[atom for water in waters_by_distance(built)[:12] for atom in water]] = 0.3
    return weights


REGIONS = {
    "whole molecule": lambda built, bonds: level_of(range(22), bonds),
    "residue": lambda built, bonds: level_of(range(6, 16), bonds),
    "nested": lambda built, bonds: levels_of(smooth_weights(built), bonds, 4),
}


def whole_energies(model, numbers, visible, levels, positions, cell) -> torch.Tensor:
    """sum_l w_l [E(V) − E(V∖S_l, capped)] from energies of the whole system: the definition."""

    def total(atoms, caps, lengths):
        where = CappedAtoms(atoms, caps, lengths)(positions, cell)
        elements = torch.tensor([numbers[atom] for atom in atoms] + [1] * len(caps))
        return model.atom_energies(Structure(elements, where, cell)).energies.sum()

    energy = total(visible, (), ())
    for level in levels:
        kept = [atom for atom in visible if atom not in level.atoms]
        energy = energy - level.weight * total(kept, level.caps, cap_lengths(level.caps, numbers, model.spec))
    return energy


def assert_same(blend, expected, positions, cell, relative=1e-10):
    """Energy and forces."""
    energy = blend(positions, cell)
    found, wanted = (torch.autograd.grad(e, positions, retain_graph=True)[0] for e in (energy, expected))
    assert energy.item() == pytest.approx(expected.item(), abs=1e-8)
    largest = float(wanted.abs().max())
    assert largest > 1
    assert float((found - wanted).abs().max()) < relative * largest


@pytest.mark.parametrize("buffer", [None, 1.8])
@pytest.mark.parametrize("box", [3.0, None])
def test_pair_model_gives_every_pair_that_touches_the_region(box, buffer):
    """For a sum over pairs the difference is the sum over pairs with an atom inside, by a plain loop."""
    built = chains(n_molecules=4, n_atoms=5, box=box)
    inside, reach = set(range(5, 10)), 0.9
    positions, cell = geometry(built)
    expected, pairs = 0.0, 0
    for i, j in itertools.combinations(range(built.n_atoms), 2):
        if i in inside or j in inside:
            separation = built.positions[i] - built.positions[j]
            if box is not None:
                separation = separation - box * np.round(separation / box)
            squared = float(separation @ separation)
            if squared < reach**2:
                # 1.25: mean of the two members.
                expected += 1.25 * 0.01 * 36 * (1 - squared / reach**2) ** 3
                pairs += not (i in inside and j in inside)
    numbers, bonds = atoms_of(built)
    blend = difference_blend(
        ContactPotential(reach=reach), numbers, range(built.n_atoms), level_of(inside, bonds), buffer=buffer
    )
    assert blend(positions, cell).item() == pytest.approx(expected, abs=1e-12)
    assert pairs > 0  # some of them reach across the boundary


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("model", ["contacts", "many bodies", "messages", "messages, totals", "ani"])
def test_sums_over_atoms_are_whole_energies(dipeptide_water, ani, model, region):
    """What is evaluated near the region is the difference of the whole system's energies: to 1e-10 of max|F|.

    Lopsided shares, several layers, cut bonds with caps and nested sets included.
    """
    numbers, bonds = atoms_of(dipeptide_water)
    potential = {
        "contacts": ContactPotential(),
        "many bodies": ContactPotential(many_body=0.1),
        "messages": Messages(),
        "messages, totals": Messages(per_atom=False),
        "ani": ani,
    }[model]
    levels = REGIONS[region](dipeptide_water, bonds)
    visible = range(dipeptide_water.n_atoms)
    blend = difference_blend(potential, numbers, visible, levels)
    assert isinstance(blend, TotalDifference) is (model == "messages, totals")
    positions, cell = geometry(dipeptide_water)
    assert_same(blend, whole_energies(potential, numbers, visible, levels, positions, cell), positions, cell)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"receptive_field": 1.5 * RANGE}, False),
        ({"per_atom": False}, True),
        ({"per_atom": False, "receptive_field": RANGE}, False),
    ],
)
def test_the_receptive_field_is_needed_in_full(dipeptide_water, changes, right):
    """Negative control: a field declared smaller than two layers reach gives another energy (V12)."""
    numbers, bonds = atoms_of(dipeptide_water)
    positions, _ = geometry(dipeptide_water)
    visible, levels = range(dipeptide_water.n_atoms), level_of(range(22), bonds)
    exact = whole_energies(Messages(), numbers, visible, levels, positions, None).item()
    blend = difference_blend(Messages(**changes), numbers, visible, levels)
    error = abs(blend(positions, None).item() - exact)
    assert error < 1e-9 if right else error > 1e-6


def model_forces(model, numbers, positions, cell) -> torch.Tensor:
    """−dE(V)/dr: the model on everything."""
    energy = model.atom_energies(Structure(torch.tensor(numbers), positions, cell)).energies.sum()
    return -torch.autograd.grad(energy, positions)[0]


def forces_of(blend, positions, cell) -> torch.Tensor:
    return -torch.autograd.grad(blend(positions, cell), positions)[0]


@pytest.mark.parametrize("region", ["whole molecule", "with waters", "nested waters"])
def test_the_core_has_exactly_the_models_force(dipeptide_water, ani, region):
    """No bond is cut: on every atom of the smallest set the force is that of the model on all atoms."""
    numbers, bonds = atoms_of(dipeptide_water)
    weights = np.zeros(dipeptide_water.n_atoms)
    weights[:22] = 1.0
    for k, water in enumerate(waters_by_distance(dipeptide_water)[:10]):
        weights[list(water)] = {"whole molecule": 0.0, "with waters": 1.0, "nested waters": 0.3 + 0.06 * k}[
            region
        ]
    levels = levels_of(weights, bonds, 4)
    assert len(levels) == (4 if region == "nested waters" else 1)
    positions, cell = geometry(dipeptide_water)
    forces = forces_of(difference_blend(ani, numbers, range(len(numbers)), levels), positions, cell)
    exact = model_forces(ani, numbers, positions, cell)
    core, largest = sorted(levels[0].atoms), float(exact.abs().max())
    assert float((forces - exact)[core].abs().max()) < 1e-11 * largest
    # Atoms outside have another force: it is no copy of the model.
    near = list(set(waters_by_distance(dipeptide_water)[11]))
    assert float((forces - exact)[near].abs().max()) > 1e-3 * largest


def kept_forces(built, levels) -> np.ndarray:
    """Forces of the bonded terms that touch the region and stay with the force field, from OpenMM."""
    weights = np.zeros(built.n_atoms)
    weights[list(levels[-1].atoms)] = 1.0
    ownership = ownership_of("difference", weights, np.ones(built.n_atoms, dtype=bool), None, levels)
    system, found = openmm.System(), 0
    for _ in range(built.n_atoms):
        system.addParticle(1.0)
    for force in built.system.getForces():
        if isinstance(force, openmm.HarmonicAngleForce):
            copy, n, get = openmm.HarmonicAngleForce(), 3, force.getAngleParameters
            number, add = force.getNumAngles(), copy.addAngle
        elif isinstance(force, openmm.PeriodicTorsionForce):
            copy, n, get = openmm.PeriodicTorsionForce(), 4, force.getTorsionParameters
            number, add = force.getNumTorsions(), copy.addTorsion
        else:
            continue
        for index in range(number):
            term = get(index)
            touches = not levels[-1].atoms.isdisjoint(term[:n])
            if touches and ownership.bonded(np.array([term[:n]]))[0] < 1:
                add(*term)
                found += 1
        system.addForce(copy)
    assert found
    return energy_and_forces(system, built.positions)[1]


CUTS = {
    "residue, two peptide bonds": (range(6, 16), (6, 14)),
    "methyl, CA–CB": (range(10, 14), (10,)),
    "half, CA–C": (range(14), (8,)),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_bond_leaves_an_error_on_its_inner_end_alone(dipeptide_water, ani, cut):
    """The force is the model's on every atom inside but the one that a cap points to, whatever its depth."""
    atoms, inner = CUTS[cut]
    numbers, bonds = atoms_of(dipeptide_water)
    levels = level_of(atoms, bonds)
    assert tuple(sorted(b for _, b in levels[0].caps)) == inner
    positions, cell = geometry(dipeptide_water)
    blend = difference_blend(ani, numbers, range(len(numbers)), levels, positions=positions, cell=cell)
    exact = model_forces(ani, numbers, positions, cell).numpy()
    error = forces_of(blend, positions, cell).numpy() + kept_forces(dipeptide_water, levels) - exact
    others = sorted(levels[0].atoms - set(inner))
    largest = np.abs(exact).max()
    assert np.abs(error[others]).max() < 1e-11 * largest
    at_the_cut = np.linalg.norm(error[list(inner)], axis=1).max()
    assert 1 < at_the_cut < 0.3 * largest


def test_errors_at_cuts_add_up_with_the_weights(dipeptide_water, ani):
    """Nested sets: the inner end of a cut has the error of that set alone times its weight."""
    numbers, bonds = atoms_of(dipeptide_water)
    weights = np.zeros(dipeptide_water.n_atoms)
    weights[:22], weights[6:16], weights[10:14] = 0.3, 0.5, 1.0
    levels = levels_of(weights, bonds, 4)
    assert [(level.weight, len(level.atoms), len(level.caps)) for level in levels] == [
        (0.5, 4, 1),
        (0.25, 10, 2),
        (0.25, 22, 0),
    ]
    positions, cell = geometry(dipeptide_water)
    exact = model_forces(ani, numbers, positions, cell)

    def error(some) -> torch.Tensor:
        blend = difference_blend(ani, numbers, range(len(numbers)), some)
        return (forces_of(blend, positions, cell) - exact)[6:16]

    found = error(levels)[4]  # CB, inside every set and at the cut of the smallest
    alone = error([Level(1.0, levels[0].atoms, levels[0].caps)])[4]
    assert float(alone.norm()) > 1
    torch.testing.assert_close(found, 0.5 * alone, rtol=0, atol=1e-9 * float(exact.abs().max()))


@pytest.fixture(scope="module")
def approach(dipeptide_water):
    """(numbers, bonds, function): positions with the oxygen of a water at a distance from the molecule.

    The function moves it further by a shift. Open boundary; other waters near the dipeptide.
    """
    numbers, bonds = atoms_of(dipeptide_water)
    positions, box = dipeptide_water.positions, np.diag(dipeptide_water.box_vectors)
    solute = positions[:22]
    chosen = [solute]
    for water in waters_by_distance(dipeptide_water)[:40]:
        where = positions[list(water)]
        nearest = solute[np.linalg.norm(wrapped(where[0] - solute, box), axis=1).argmin()]
        chosen.append(nearest + wrapped(where[0] - nearest, box) + where - where[0])
    still = np.concatenate(chosen)
    mover = positions[list(water)] - positions[water[0]]
    direction = np.array([0.3, 0.8, -0.52])
    direction /= np.linalg.norm(direction)
    along = np.linspace(0, 3, 30001)
    path = solute.mean(axis=0) + along[:, None] * direction
    distances = np.linalg.norm(path[:, None] - solute[None], axis=-1).min(axis=1)
    # Other waters out of the way.
    clear = [still[:22]]
    for first in range(22, len(still), 3):
        if np.linalg.norm(path - still[first], axis=1).min() > 0.22:
            clear.append(still[first : first + 3])
    still = np.concatenate(clear)
    n_waters = (len(still) - 22) // 3 + 1

    def place(distance: float, shift: float) -> torch.Tensor:
        begin = path[int(np.flatnonzero(distances < distance)[-1])]
        return torch.tensor(np.concatenate([still, begin + shift * direction + mover]))

    return numbers[:22] + [8, 1, 1] * n_waters, bonds[:21], place


def wrapped(separation: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Shortest image in a rectangular box."""
    return separation - box * np.round(separation / box)


def largest_step(blend, place, distance: float) -> tuple[float, float]:
    """Largest and median second difference of the energy: a water crosses a distance in steps of 1e-4 nm."""
    with torch.no_grad():
        energies = [blend(place(distance, 1e-4 * (k - 11.5)), None).item() for k in range(24)]
    second = np.abs(np.diff(energies, 2))
    return float(second.max()), float(np.median(second))


@pytest.mark.parametrize("buffer", [None, 1.04])
@pytest.mark.parametrize("multiple", [1.0, 1.5, 2.0])
def test_the_energy_has_no_step(approach, ani, buffer, multiple):
    """A water crosses one receptive field, one and a half, two: no step in 1e-4 nm stands out (V13)."""
    numbers, bonds, place = approach
    levels = level_of(range(22), bonds)
    blend = difference_blend(ani, numbers, range(len(numbers)), levels, buffer=buffer)
    largest, median = largest_step(blend, place, multiple * ani.spec.receptive_field)
    assert largest < 3 * median + 1e-8


@pytest.mark.parametrize("buffer", [0.51, 0.7])
def test_a_thin_buffer_has_steps(approach, ani, buffer, caplog):
    """Negative control: totals over less than two receptive fields jump when an atom enters; a warning."""
    numbers, bonds, place = approach
    with caplog.at_level(logging.WARNING):
        blend = difference_blend(ani, numbers, range(len(numbers)), level_of(range(22), bonds), buffer=buffer)
    assert "below twice the receptive field of ANI-1x (1.04 nm): the energy has steps" in caplog.text
    largest, median = largest_step(blend, place, buffer)
    assert largest > 100 * median


def test_a_buffer_of_two_receptive_fields_is_exact(dipeptide_water, ani):
    """Error on the core of totals over a buffer: falls with its thickness, nothing at twice the field."""
    numbers, bonds = atoms_of(dipeptide_water)
    positions, _ = geometry(dipeptide_water)
    exact = model_forces(ani, numbers, positions, None)
    largest, errors = float(exact.abs().max()), []
    for buffer in (0.51, 0.7, 1.04):
        blend = difference_blend(ani, numbers, range(len(numbers)), level_of(range(22), bonds), buffer=buffer)
        seen = blend.seen(positions.detach(), None)
        assert len(seen) < len(numbers)
        errors.append(float((forces_of(blend, positions, None) - exact)[:22].square().mean().sqrt()))
    assert errors[0] > errors[1] > 1e-4 * largest > 1e-9 * largest > errors[2]


@pytest.fixture(scope="module")
def nested(dipeptide_water, ani1x):
    """Cut bonds, nested sets, all members."""
    numbers, bonds = atoms_of(dipeptide_water)
    levels = levels_of(smooth_weights(dipeptide_water), bonds, 4)
    assert len(levels) == 3 and [len(level.caps) for level in levels] == [2, 0, 0]
    return difference_blend(ani1x, numbers, range(len(numbers)), levels)


def test_finite_differences(dipeptide_water, ani):
    """Central differences of the whole module: core, both ends of cuts, outer sets, outside."""
    numbers, bonds = atoms_of(dipeptide_water)
    levels = levels_of(smooth_weights(dipeptide_water), bonds, 4)
    waters = waters_by_distance(dipeptide_water)
    positions, cell = geometry(dipeptide_water)
    blend = difference_blend(ani, numbers, range(len(numbers)), levels)
    forces = forces_of(blend, positions, cell)
    step, largest = 1e-5, float(forces.abs().max())
    with torch.no_grad():
        for atom in (8, 6, 4, 14, 16, waters[0][0], waters[11][1], waters[13][0]):
            for axis in (0, 2):
                shift = torch.zeros_like(positions)
                shift[atom, axis] = step
                down, up = (blend(positions + sign * shift, cell).item() for sign in (-1, 1))
                error = abs((down - up) / (2 * step) - float(forces[atom, axis]))
                assert error < tolerances.FINITE_DIFFERENCE * largest


def test_both_bridges_agree(dipeptide_water, nested):
    """TorchForce and PythonForce, and the module called without OpenMM."""
    results = []
    for bridge in ("torchforce", "pythonforce"):
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*dipeptide_water.box_vectors)
        for _ in range(dipeptide_water.n_atoms):
            system.addParticle(1.0)
        system.addForce(make_blend_force(nested, bridge=bridge, periodic=True, name="difference"))
        results.append(energy_and_forces(system, dipeptide_water.positions))
    positions, cell = geometry(dipeptide_water)
    results.append((nested(positions, cell).item(), forces_of(nested, positions, cell).numpy()))
    largest = np.abs(results[0][1]).max()
    for energy, forces in results[1:]:
        assert energy == pytest.approx(results[0][0], abs=1e-8)
        assert np.abs(forces - results[0][1]).max() < tolerances.BRIDGES * largest


def test_members_average_to_the_energy(dipeptide_water, nested):
    """Each member's difference; their spread is that of the hybrid energy, not of the passes."""
    positions, cell = geometry(dipeptide_water)
    members = nested.members(positions, cell).detach()
    assert members.shape == (8,)
    assert float(members.mean()) == pytest.approx(nested(positions, cell).item(), abs=1e-10)
    alone = load_potential("ani1x", precision="float64", members=[3])
    numbers, bonds = atoms_of(dipeptide_water)
    levels = levels_of(smooth_weights(dipeptide_water), bonds, 4)
    single = difference_blend(alone, numbers, range(len(numbers)), levels)(positions, cell).item()
    assert float(members[3]) == pytest.approx(single, abs=1e-9)
    assert float(members.std()) > 1e-3


def test_no_net_force_and_any_image(dipeptide_water, nested):
    """Only relative vectors count (T6); molecules may stand in any image (V10)."""
    positions, cell = geometry(dipeptide_water)
    forces = forces_of(nested, positions, cell)
    assert float(forces.sum(dim=0).abs().max()) < 1e-9 * float(forces.abs().sum())
    moved, generator = np.array(dipeptide_water.positions), np.random.default_rng(4)
    for molecule in molecules_of(dipeptide_water.topology):
        moved[list(molecule)] += generator.integers(-2, 3, 3) @ dipeptide_water.box_vectors
    assert nested(torch.tensor(moved), cell).item() == pytest.approx(
        nested(positions, cell).item(), abs=tolerances.IMAGES
    )


@pytest.mark.parametrize("per_atom", [True, False])
def test_invisible_atoms_do_not_exist(dipeptide_water, per_atom):
    """Without the waters of an invisible kind: the energy of the system without them, no force on them."""
    numbers, bonds = atoms_of(dipeptide_water)
    hidden = [atom for water in waters_by_distance(dipeptide_water)[3:9] for atom in water]
    visible = [atom for atom in range(len(numbers)) if atom not in set(hidden)]
    for atom in hidden:
        numbers[atom] = 0
    potential = ContactPotential(many_body=0.1, per_atom=per_atom)
    levels = level_of([*range(6, 16), *hidden[:3]], bonds)
    positions, cell = geometry(dipeptide_water)
    blend = difference_blend(potential, numbers, visible, levels)
    assert_same(blend, whole_energies(potential, numbers, visible, levels, positions, cell), positions, cell)
    assert float(forces_of(blend, positions, cell)[hidden].abs().max()) == 0


@pytest.mark.parametrize("per_atom", [True, False])
@pytest.mark.parametrize("model", [ContactPotential, Messages])
def test_all_inside_and_nothing_near(model, per_atom):
    """S = everything is the model's energy; S alone in space too, with atoms far away that do not matter."""
    built = chains(n_molecules=2, n_atoms=4, box=None)
    numbers, bonds = atoms_of(built)
    positions, _ = geometry(built)
    potential = model(per_atom=per_atom)
    everything = difference_blend(potential, numbers, range(8), level_of(range(8), bonds))
    total = potential.atom_energies(Structure(torch.tensor(numbers), positions)).energies.sum()
    assert everything(positions).item() == pytest.approx(total.item(), abs=1e-12)
    apart = positions.detach().clone()
    apart[4:] += 10.0
    alone = potential.atom_energies(Structure(torch.tensor(numbers[:4]), apart[:4])).energies.sum()
    blend = difference_blend(potential, numbers, range(8), level_of(range(4), bonds))
    assert blend(apart).item() == pytest.approx(alone.item(), abs=1e-12)


def test_levels_by_their_definition(dipeptide_water):
    """Nested, weights that add up to 1, lambda rounded to n steps, a cap where a set cuts a bond."""
    _, bonds = atoms_of(dipeptide_water)
    weights = np.random.default_rng(5).uniform(size=dipeptide_water.n_atoms)
    weights[:4] = 1.0
    for n in (1, 3, 8):
        levels = levels_of(weights, bonds, n)
        assert len(levels) == n
        assert sum(level.weight for level in levels) == pytest.approx(1.0, abs=1e-14)
        for smaller, larger in itertools.pairwise(levels):
            assert smaller.atoms < larger.atoms
        rounded = sum(level.weight * np.isin(np.arange(len(weights)), list(level.atoms)) for level in levels)
        np.testing.assert_allclose(rounded, np.round(weights * n) / n, atol=1e-12)
        for level in levels:
            cut = {bond for bond in bonds if len(level.atoms.intersection(bond)) == 1}
            assert {tuple(sorted(cap)) for cap in level.caps} == {tuple(sorted(bond)) for bond in cut}
            assert all(outer not in level.atoms and inner in level.atoms for outer, inner in level.caps)


def test_equal_sets_become_one():
    weights, bonds = [1.0, 1.0, 0.5, 0.0], [(0, 1), (1, 2), (2, 3)]
    hard = levels_of([1.0, 1.0, 0.0, 0.0], bonds, 5)
    assert [(level.weight, level.caps) for level in hard] == [(pytest.approx(1.0), ((2, 1),))]
    assert [(level.weight, sorted(level.atoms)) for level in levels_of(weights, bonds, 4)] == [
        (0.5, [0, 1]),
        (0.5, [0, 1, 2]),
    ]


def test_what_cannot_be_is_refused(dipeptide_water, ani):
    numbers, bonds = atoms_of(dipeptide_water)
    visible, residue = range(len(numbers)), level_of(range(6, 16), bonds)

    def blend(spec=ani.spec, visible=visible, levels=residue, **more):
        model = ContactPotential()
        model.spec = spec
        return difference_blend(model, numbers, visible, levels, **more)

    assert isinstance(blend(), DifferenceBlend)
    changed = dataclasses.replace
    with pytest.raises(EmbeddingError, match=r"finite range .* got ANI-1x, whose interactions have no limit"):
        blend(changed(ani.spec, long_range=True))
    with pytest.raises(EmbeddingError, match="knows hydrogen, for caps"):
        blend(changed(ani.spec, elements=(6, 7, 8)), visible=[i for i in visible if numbers[i] != 1])
    with pytest.raises(PotentialError, match="only elements that ANI-1x knows"):
        blend(changed(ani.spec, elements=(1, 6, 8)))
    with pytest.raises(EmbeddingError, match="a single bond under every cap; got atom 4–atom 6"):
        blend(is_single=lambda a, b: {a, b} != {4, 6}, label="atom {}".format)
    with pytest.raises(EmbeddingError, match="cut bonds between atoms that ANI-1x knows; got 4–6"):
        blend(visible=[i for i in visible if i != 4])
    with pytest.raises(EmbeddingError, match="atoms that the potential knows in every level; got none"):
        blend(visible=range(22, 100))
    with pytest.raises(EmbeddingError, match="atoms that the potential knows in every level; got none"):
        blend(levels=())
    positions, cell = geometry(dipeptide_water)
    with pytest.raises(EmbeddingError, match=r"caps at least 0\.1 nm apart"):
        blend(levels=[Level(1.0, frozenset({8}), ((6, 8), (14, 8)))], positions=positions, cell=cell)
    with pytest.raises(EmbeddingError, match="at least one level; got 0"):
        levels_of([1.0, 0.0], [], 0)
    with pytest.raises(EmbeddingError, match=r"a core of lambda = 1; got a largest lambda of 0\.7"):
        levels_of([0.7, 0.0], [], 2)
