"""ANI with lists of fixed length: the same numbers, NaN where a list is full, and no word to the host."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ani_gases import BOXES, LEANING, elements, gas, members_and_gradient
from hot_path import recorded
from tolerances import FINITE_DIFFERENCE

from mlmm.errors import PotentialError
from mlmm.hybrid.cuda_graphs import EnergyAndForces, SamePlaces
from mlmm.hybrid.hosts import RegionModule
from mlmm.potentials import committee_of, load_potential
from mlmm.potentials.ani import fixed_shape as ani_fixed
from mlmm.potentials.ani.fixed_shape import FixedSymmetryFunctions, neighbour_room
from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.structures import neighbour_pairs

# Of the largest energy of an atom, and of the largest force.
ENERGY = {"float32": 1e-6, "float64": 1e-10}
FORCE = {"float32": 1e-6, "float64": 1e-10}


@pytest.fixture(params=["ani1x", "ani2x"])
def name(request) -> str:
    if request.param == "ani2x":
        request.getfixturevalue("models_folder")
    return request.param


def both(name: str, precision: str = "float64", **options):
    """The same potential with lists as long as they have to be, and with lists of fixed length."""
    return [
        load_potential(name, precision=precision, kernel="torch", shapes=shapes, **options)
        for shapes in ("lists", "fixed")
    ]


def functions(numbers, centres, *rooms) -> tuple[SymmetryFunctions, FixedSymmetryFunctions]:
    """Symmetry functions of ANI-1x, float64, both ways."""
    parameters = load_potential("ani1x").parameters
    species = torch.tensor([(1, 6, 7, 8).index(int(number)) for number in numbers])
    free = SymmetryFunctions(parameters, species, torch.tensor(centres), torch.float64)
    return free, FixedSymmetryFunctions(free, *rooms)


@pytest.mark.parametrize(
    ("name", "box"), [*(("ani1x", box) for box in BOXES), ("ani2x", "leaning")], indirect=["name"]
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_equals_lists_in_every_box(name, precision, box):
    """Energies of each member, forces weighted differently for each member and atom; eager and scripted."""
    structure = gas(60, 1.2, elements(name), cell=BOXES[box], seed=1)
    numbers = structure.numbers.tolist()
    # Other atoms are neighbours only.
    for members, centres in ((None, None), ([1, 4], [5, 51, 2, 33, 34])):
        lists, fixed = (p.scriptable(numbers, centres) for p in both(name, precision, members=members))
        shape = (8 if members is None else 2, 60 if centres is None else 5)
        factors = torch.tensor(np.random.default_rng(2).uniform(0.1, 1, size=shape))
        expected = members_and_gradient(lists, structure.positions, structure.cell, factors)
        largest = expected[0].abs().max(), expected[1].abs().max()
        for module in (fixed, torch.jit.script(fixed)):
            for _ in range(3):
                found = members_and_gradient(module, structure.positions, structure.cell, factors)
                assert (found[0] - expected[0]).abs().max() <= ENERGY[precision] * largest[0]
                assert (found[1] - expected[1]).abs().max() <= FORCE[precision] * largest[1]
        if centres is None:
            continue
        # Negative control: without one of the neighbours the energies are others.
        fewer = torch.arange(60) != 20
        place = torch.cumsum(fewer, 0) - 1
        less = both(name, precision, members=members)[1].scriptable(
            structure.numbers[fewer].tolist(), place[centres].tolist()
        )
        energies = less(structure.positions[fewer], structure.cell).detach()
        assert (energies - expected[0]).abs().max() > 1e3 * ENERGY["float32"] * largest[0]


def test_forces_are_derivatives_in_a_leaning_box():
    """Central differences, with a weight between 0 and 1 for each atom and atoms that are neighbours only."""
    structure = gas(50, 1.1, [1, 6, 7, 8], cell=LEANING, seed=3)
    centres = list(range(0, 50, 2))
    module = both("ani1x")[1].scriptable(structure.numbers.tolist(), centres)
    factors = torch.linspace(0.0, 1.0, 25, dtype=torch.float64).expand(8, 25) / 8
    _, gradient = members_and_gradient(module, structure.positions, LEANING, factors)
    step = 1e-5
    for atom, axis in ((0, 0), (7, 1), (24, 2), (49, 0)):
        ends = []
        for sign in (1, -1):
            moved = structure.positions.clone()
            moved[atom, axis] += sign * step
            ends.append(float((module(moved, LEANING).detach() * factors).sum()))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope - gradient[atom, axis]) < FINITE_DIFFERENCE * gradient.abs().max()


@pytest.mark.parametrize("cutoff", ["radial", "angular"])
def test_neighbour_list_overflow_gives_nan(cutoff):
    """Up to the last place nothing is lost; one neighbour more makes the environment of that atom NaN."""
    structure = gas(40, 0.9, [1, 6, 7, 8], seed=5)
    positions, centres = 10.0 * structure.positions, list(range(40))
    counts = {
        name: torch.bincount(neighbour_pairs(positions, None, reach)[0], minlength=40)
        for name, reach in (("radial", 5.2), ("angular", 3.5))
    }
    room = {name: int(count.max()) for name, count in counts.items()}
    assert int((counts[cutoff] == room[cutoff]).sum()) < 40
    free, just = functions(structure.numbers, centres, room["radial"], room["angular"])
    expected = free(positions, None)
    torch.testing.assert_close(just(positions, None), expected, rtol=1e-12, atol=1e-12)
    limit = room[cutoff] - 1
    _, tight = functions(structure.numbers, centres, *(room | {cutoff: limit}).values())
    crowded = counts[cutoff] > limit
    if cutoff == "radial" and limit < room["angular"]:
        crowded |= counts["angular"] > limit
    found = tight(positions, None)
    assert crowded.any() and not crowded.all()
    assert found[crowded].isnan().all()
    torch.testing.assert_close(found[~crowded], expected[~crowded], rtol=1e-12, atol=1e-12)


def test_a_crowded_structure_has_no_energy_and_no_force(name):
    """The sum that the engine adds is NaN, and so is the force on the atoms around: the run stops."""
    structure = gas(60, 0.9, elements(name), seed=6)
    potential = load_potential(name, kernel="torch", shapes="fixed", neighbour_density=40.0)
    module, ones = potential.scriptable(structure.numbers.tolist()), torch.ones(8, 60, dtype=torch.float64)
    energies, gradient = members_and_gradient(module, structure.positions, None, ones)
    assert energies.sum().isnan() and gradient.isnan().any()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_nan_position_gives_nan_energy_and_forces(broken):
    structure = gas(20, 0.9, [1, 6, 7, 8], seed=7)
    positions = structure.positions.clone()
    positions[3, 1] = broken
    for cell in (None, LEANING):
        assert both("ani1x")[1].scriptable(structure.numbers.tolist())(positions, cell).isnan().all()


def test_empty_places_add_nothing():
    """A lonely atom, two atoms out of sight of each other, a list with more room: no change."""
    lonely = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    environment = functions([6], [0], 5, 5)[1](lonely, None)
    assert environment.shape == (1, 384) and torch.equal(environment, torch.zeros_like(environment))
    apart = torch.tensor([[0.0, 0, 0], [0.0, 0, 0.6]], dtype=torch.float64)
    lists, fixed = (p.scriptable([8, 1]) for p in both("ani1x"))
    energies, gradient = members_and_gradient(fixed, apart, None, torch.ones(8, 2, dtype=torch.float64))
    assert torch.equal(energies, lists(apart, None).detach()) and torch.equal(gradient, torch.zeros(2, 3))
    structure = gas(30, 0.9, [1, 6, 7, 8], seed=8)
    positions = 10.0 * structure.positions
    two = [
        functions(structure.numbers, range(30), *rooms)[1](positions, None) for rooms in ((25, 20), (29, 29))
    ]
    torch.testing.assert_close(two[0], two[1], rtol=1e-13, atol=1e-13)


def test_blocks_of_centres_change_nothing(monkeypatch):
    """A large system looks for neighbours of some centres at a time."""
    structure = gas(50, 1.1, [1, 6, 7, 8], cell=LEANING, seed=9)
    numbers, centres = structure.numbers.tolist(), [3, 1, 49, 20, 21, 7, 8]
    whole = both("ani1x")[1].scriptable(numbers, centres)
    monkeypatch.setattr(ani_fixed, "_PAIRS_AT_ONCE", 120)
    parts = both("ani1x")[1].scriptable(numbers, centres)
    assert parts.fixed_functions.centres_at_once == 2
    assert torch.equal(parts(structure.positions, LEANING), whole(structure.positions, LEANING))


def modules(shapes: str, structure, *, kernel: str = "torch"):
    """What a bridge evaluates for some atoms: their potential, and with forces in a place of their own."""
    from mlmm.blending.link_atoms import CappedModel
    from mlmm.blending.static import WeightedModel

    potential = load_potential("ani1x", kernel=kernel, shapes=shapes, members=[0, 3])
    numbers, n = structure.numbers.tolist(), len(structure)
    inside = list(range(0, n, 3))
    region = RegionModule(potential.scriptable([numbers[i] for i in inside]), torch.tensor(inside))
    blend = WeightedModel(potential.scriptable(numbers, inside), range(n), np.linspace(0.1, 1, len(inside)))
    capped = CappedModel(potential, [numbers[i] for i in inside], inside, [(0, 1), (3, 4)], [0.109, 0.101])
    return {
        "region": SamePlaces(region, n),
        "blend": SamePlaces(EnergyAndForces(blend), n),
        "capped": SamePlaces(EnergyAndForces(capped), n),
    }


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("what", ["region", "blend", "capped"])
def test_no_operation_waits_for_the_host(what, script):
    """Forward and backward; lists that are as long as they have to be do wait, which the recorder sees."""
    structure = gas(48, 1.1, [1, 6, 7, 8], cell=LEANING, seed=10)
    found = {}
    for shapes in ("fixed", "lists"):
        module = modules(shapes, structure)[what].eval()
        module = torch.jit.script(module) if script else module
        for _ in range(3):
            found[shapes] = recorded(lambda m=module: m(structure.positions, LEANING))
        assert len(found[shapes].operations) > 200
        assert any(name in ("elu_backward", "index_add") for name, _ in found[shapes].operations)
    assert found["fixed"].waits == []
    assert {"nonzero", "_local_scalar_dense", "bincount", "repeat_interleave"} <= set(found["lists"].waits)


@pytest.mark.parametrize("what", ["region", "blend", "capped"])
def test_operations_and_shapes_do_not_depend_on_positions(what):
    """The same sequence for a dense and a thin gas, in other boxes; that of the other path is another one."""
    dense = gas(48, 0.95, [1, 6, 7, 8], seed=11)
    paths = {"fixed": [], "lists": []}
    for shapes, found in paths.items():
        module = modules(shapes, dense)[what].eval()
        for scale in (1.0, 1.7):
            found.append(recorded(lambda m=module, s=scale: m(s * dense.positions, s * LEANING)).operations)
    assert paths["fixed"][0] == paths["fixed"][1]
    assert paths["lists"][0] != paths["lists"][1]


@pytest.mark.parametrize(("kernel", "script"), [("torch", False), ("auto", False), ("auto", True)])
def test_a_device_without_values_can_run_it(kernel, script):
    """torch's meta device knows shapes alone: to ask for a value fails there, as the other lists do.

    Nothing has chosen the path: any device but the processor gets lists of fixed length.
    """
    structure = gas(30, 1.0, [1, 6, 7, 8], cell=LEANING, seed=12)
    positions, cell = structure.positions.to("meta"), LEANING.to("meta")
    for module in modules("auto", structure, kernel=kernel).values():
        module = module.to("meta").eval()
        module = torch.jit.script(module) if script else module
        for x in (positions, positions.to(torch.float32)):
            path = recorded(lambda m=module, x=x: m(x, cell))
            assert path.devices == {"meta"} and path.waits == []
        energy, forces = module(x, cell)
        assert energy.shape == () and forces.shape == (30, 3) and forces.dtype == torch.float32
    for module in modules("lists", structure, kernel=kernel).values():
        module = module.to("meta")
        with pytest.raises((RuntimeError, NotImplementedError)):
            module(positions, cell)


def test_the_processor_keeps_lists_unless_told_otherwise():
    """There they are cheaper; "auto" is about the device alone."""
    structure = gas(30, 1.0, [1, 6, 7, 8], seed=13)
    module = load_potential("ani1x", kernel="torch", members=[0]).scriptable(structure.numbers.tolist())
    assert "nonzero" in recorded(lambda: module(structure.positions, None)).waits
    with pytest.raises(PotentialError, match="shapes = auto"):
        load_potential("ani1x", shapes="long")
    with pytest.raises(PotentialError, match="positive neighbour_density"):
        load_potential("ani1x", neighbour_density=0.0)


def test_committee_forwards_the_choice_of_members():
    """Joined members share one pass with the same lists; each member's energies are its own."""
    structure = gas(25, 0.95, [1, 6, 7, 8], seed=14)
    numbers = structure.numbers.tolist()
    parts = [
        load_potential("ani1x", kernel="torch", shapes="fixed", neighbour_density=250.0, members=m)
        for m in ([0, 1], [5, 6])
    ]
    joined = committee_of(parts)
    assert (joined.shapes, joined.neighbour_density) == ("fixed", 250.0)
    module = joined.scriptable(numbers)
    assert module.capturable and recorded(lambda: module(structure.positions, None)).waits == []
    whole = load_potential("ani1x", kernel="torch", shapes="lists").scriptable(numbers)
    expected = whole(structure.positions, None)[[0, 1, 5, 6]]
    assert (module(structure.positions, None) - expected).abs().max() < 1e-6 * expected.abs().max()
    # Of different kinds they stay apart, one after the other.
    mixed = committee_of([parts[0], load_potential("ani1x", kernel="torch", shapes="lists", members=[2, 3])])
    assert not mixed.scriptable(numbers).capturable


def test_room_for_neighbours_is_that_of_a_dense_solid():
    """Diamond, the densest of all in atoms, fits with the default; four times that density does not."""
    side = 0.35668  # nm
    corners = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]])
    basis = np.concatenate([corners, corners + 1]) / 4
    cells = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = torch.tensor(side * (cells[:, None] + basis).reshape(-1, 3))
    cell = torch.eye(3, dtype=torch.float64) * 4 * side
    for cutoff in (0.52, 0.35):
        count = torch.bincount(neighbour_pairs(points, cell, cutoff, torch.tensor([0]))[0])
        closer = torch.bincount(neighbour_pairs(points, cell, cutoff * 4 ** (1 / 3), torch.tensor([0]))[0])
        assert int(count) <= neighbour_room(cutoff, 200.0) < int(closer)
