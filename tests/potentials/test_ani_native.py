"""The compiled ANI kernel: the numbers of the torch path in every box, exact derivatives, always the same."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from ani_gases import BOXES, CUBE, LEANING, elements, gas, members_and_gradient

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.kernels.library import builds
from mlmm.potentials import energy_and_forces, load_potential
from mlmm.potentials.ani import native as ani_kernel
from mlmm.potentials.ani.native import instruction_set
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.potential import ANIPotential
from mlmm.structures import Structure

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(instruction_set() is None, reason="the package was built without a compiler"),
]

# Of the largest energy of an atom, and of the largest force.
ENERGY = {"float32": 1e-6, "float64": 1e-12}
FORCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(autouse=True)
def exact_slopes(monkeypatch):
    """torch's own derivative of CELU holds 1/0.1 rounded to float32, also in float64."""

    def celu(x, alpha):
        return x.clamp(min=0.0) + alpha * torch.expm1(x.clamp(max=0.0) / alpha)

    monkeypatch.setattr(torch, "celu", celu)


@pytest.fixture(params=["ani1x", "ani2x"])
def name(request) -> str:
    if request.param == "ani2x":
        request.getfixturevalue("models_folder")
    return request.param


def pair(name: str, precision: str, members=None):
    """The reference in float64 and the kernel."""
    reference = load_potential(name, precision="float64", kernel="torch", members=members)
    return reference, load_potential(name, precision=precision, kernel="native", members=members)


def assert_equal(found, expected, precision: str):
    assert (found[0] - expected[0]).abs().max() <= ENERGY[precision] * expected[0].abs().max()
    assert (found[1] - expected[1]).abs().max() <= FORCE[precision] * expected[1].abs().max()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_equals_torch_in_every_box(name, precision, box):
    """Energies of each member and forces weighted differently for each member and atom."""
    structure = gas(70, 1.25, elements(name), cell=BOXES[box], seed=1)
    reference, compiled = pair(name, precision)
    factors = torch.tensor(np.random.default_rng(2).uniform(0.1, 1, size=(8, 70)))
    numbers = structure.numbers.tolist()
    expected, found = (
        members_and_gradient(p.scriptable(numbers), structure.positions, structure.cell, factors)
        for p in (reference, compiled)
    )
    assert_equal(found, expected, precision)
    # Negative control: the comparison sees one atom moved by a thousandth of an angstrom.
    moved = structure.positions.clone()
    moved[0, 0] += 1e-4
    other = members_and_gradient(compiled.scriptable(numbers), moved, structure.cell, factors)
    assert (other[0] - expected[0]).abs().max() > 10 * ENERGY["float32"] * expected[0].abs().max()


def test_every_build_equals_torch(name, monkeypatch):
    """Also those for older processors, which differ in the width of vectors and the tiles of products."""
    structure = gas(70, 1.2, elements(name), cell=LEANING, seed=18)
    factors = torch.full((2, 70), 0.5, dtype=torch.float64)
    numbers = structure.numbers.tolist()
    paths = builds()
    assert paths[-1].name == "ani_generic.so"
    for path in paths:
        library = ani_kernel._load(path)
        monkeypatch.setattr(ani_kernel, "_library", lambda library=library: library)
        for precision in ("float32", "float64"):
            results = [
                members_and_gradient(p.scriptable(numbers), structure.positions, LEANING, factors)
                for p in pair(name, precision, [1, 4])
            ]
            assert_equal(results[1], results[0], precision)
    levels = [ani_kernel._load(path).mlmm_ani_level() for path in paths]
    assert len(set(levels)) == len(levels)


@pytest.mark.parametrize("box", ["open", "leaning"])
@pytest.mark.parametrize("members", [[3], [0, 5, 6]])
def test_subsets_of_centres_and_members_equal_torch(box, members):
    structure = gas(80, 1.3, elements("ani1x"), cell=BOXES[box], seed=3)
    centres = [5, 71, 2, 33, 34]
    factors = torch.tensor(np.random.default_rng(4).uniform(0.1, 1, (len(members), len(centres))))
    results = [
        members_and_gradient(
            p.scriptable(structure.numbers.tolist(), centres), structure.positions, structure.cell, factors
        )
        for p in pair("ani1x", "float32", members)
    ]
    assert_equal(results[1], results[0], "float32")
    # The same centres given with the positions.
    module = pair("ani1x", "float32", members)[1].scriptable(structure.numbers.tolist())
    given = members_and_gradient(module, structure.positions, structure.cell, factors, torch.tensor(centres))
    assert torch.equal(given[0], results[1][0]) and torch.equal(given[1], results[1][1])


def test_an_isolated_atom_and_a_pair_equal_torch():
    """No neighbour, one neighbour, two neighbours: blocks of the symmetry functions are empty."""
    points = [[[0.0, 0, 0]], [[0, 0, 0], [0.1, 0, 0]], [[0, 0, 0], [0.1, 0, 0], [0.0, 0.11, 0.02]]]
    for positions in points:
        for number in (1, 8):
            numbers = [number, 1, 6][: len(positions)]
            structure = Structure(torch.tensor(numbers), torch.tensor(positions, dtype=torch.float64))
            reference, compiled = pair("ani1x", "float64", [2])
            energy, forces = energy_and_forces(reference, structure)
            ours, our_forces = energy_and_forces(compiled, structure)
            assert ours == pytest.approx(energy, rel=1e-12)
            assert (our_forces - forces).abs().max() <= FORCE["float64"] * forces.abs().max()


def test_hundreds_of_neighbours_equal_torch():
    """No limit on their number: 260 atoms squeezed into 0.35 nm around three centres."""
    structure = gas(260, 0.35, [1, 6, 7, 8], closest=0.03, seed=5)
    results = [
        members_and_gradient(
            p.scriptable(structure.numbers.tolist(), [0, 1, 2]), structure.positions, None, torch.ones(1, 3)
        )
        for p in pair("ani1x", "float64", [0])
    ]
    assert_equal(results[1], results[0], "float64")


def test_ten_thousand_visible_atoms_change_nothing():
    """A block of atoms far away, in a box and without one; every one of them may be a neighbour."""
    structure = gas(40, 0.9, elements("ani1x"), seed=6)
    generator = np.random.default_rng(7)
    far = torch.tensor(generator.uniform(0, 4, (10_000, 3))) + torch.tensor([3.0, 0, 0])
    numbers = structure.numbers.tolist() + [8] * len(far)
    positions = torch.cat([structure.positions, far])
    compiled = load_potential("ani1x", kernel="native")
    factors = torch.ones(8, 40, dtype=torch.float64)
    alone = members_and_gradient(
        compiled.scriptable(structure.numbers.tolist()), structure.positions, None, factors
    )
    for cell in (None, 9.0 * torch.eye(3, dtype=torch.float64)):
        module = compiled.scriptable(numbers, range(40))
        energies, gradient = members_and_gradient(module, positions, cell, factors)
        torch.testing.assert_close(energies, alone[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient[:40], alone[1], rtol=0, atol=1e-6 * alone[1].abs().max().item())
        assert (gradient[40:] == 0).all()


def test_cells_equal_all_pairs_in_a_large_box():
    """Centres all over a leaning box of many cells, which no block around them can hold."""
    cell = 2.0 * LEANING
    structure = gas(1500, 2.4, [1, 8], cell=cell, closest=0.07, seed=8)
    centres = list(range(0, 1500, 10))
    factors = torch.ones(1, len(centres), dtype=torch.float64)
    results = [
        members_and_gradient(
            p.scriptable(structure.numbers.tolist(), centres), structure.positions, cell, factors
        )
        for p in pair("ani1x", "float64", [0])
    ]
    assert_equal(results[1], results[0], "float64")


def test_forces_are_the_derivative_of_the_energy(name):
    """Central differences of its own energy in float64; the forces of float32 are from the same code."""
    structure = gas(24, 0.8, elements(name), cell=CUBE, closest=0.1, seed=9)
    compiled = load_potential(name, precision="float64", kernel="native", members=[1])
    _, forces = energy_and_forces(compiled, structure)
    h, largest = 2e-5, forces.abs().max()

    def energy(positions):
        return float(compiled.atom_energies(Structure(structure.numbers, positions, CUBE)).energies.sum())

    for atom in range(0, 24, 3):
        for axis in range(3):
            step = torch.zeros_like(structure.positions)
            step[atom, axis] = h
            x = structure.positions
            # Fourth order: only the cutoffs, where the third derivative jumps, are left.
            difference = (
                8 * (energy(x + step) - energy(x - step)) - energy(x + 2 * step) + energy(x - 2 * step)
            ) / (12 * h)
            assert abs(difference + forces[atom, axis]) < 1e-6 * largest


def test_the_same_bit_by_bit_with_any_number_of_threads():
    structure = gas(120, 1.25, elements("ani1x"), cell=CUBE, seed=10)
    module = load_potential("ani1x", kernel="native").scriptable(structure.numbers.tolist())
    factors = torch.full((8, 120), 0.125, dtype=torch.float64)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(members_and_gradient(module, structure.positions, CUBE, factors))
    finally:
        torch.set_num_threads(before)
    for energies, gradient in results[1:]:
        assert torch.equal(energies, results[0][0]) and torch.equal(gradient, results[0][1])


def test_calls_from_several_threads_do_not_mix():
    structures = [gas(30, 0.8, elements("ani1x"), seed=seed) for seed in range(4)]
    potential = load_potential("ani1x", kernel="native")
    modules = [potential.scriptable(s.numbers.tolist()) for s in structures]
    factors = torch.ones(8, 30, dtype=torch.float64)
    expected = [
        members_and_gradient(m, s.positions, None, factors) for m, s in zip(modules, structures, strict=True)
    ]
    wrong = []

    def work(k: int) -> None:
        for _ in range(20):
            energies, gradient = members_and_gradient(modules[k], structures[k].positions, None, factors)
            if not (torch.equal(energies, expected[k][0]) and torch.equal(gradient, expected[k][1])):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("cell", [None, CUBE], ids=["open", "box"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("atom", [0, 20])
def test_nan_position_propagates(cell, broken, atom):
    """Also where it is that of an atom that is only seen."""
    structure = gas(30, 0.9, elements("ani1x"), seed=11)
    module = load_potential("ani1x", kernel="native").scriptable(structure.numbers.tolist(), range(10))
    positions = structure.positions.clone()
    positions[atom, 1] = broken
    factors = torch.ones(8, 10, dtype=torch.float64)
    energies, gradient = members_and_gradient(module, positions, cell, factors)
    assert energies.isnan().all() and gradient.isnan().all()


def test_coincident_atoms_give_nan():
    structure = gas(10, 0.6, elements("ani1x"), seed=12)
    positions = structure.positions.clone()
    positions[3] = positions[7]
    module = load_potential("ani1x", kernel="native").scriptable(structure.numbers.tolist())
    _, gradient = members_and_gradient(module, positions, None, torch.ones(8, 10, dtype=torch.float64))
    assert gradient[3].isnan().any()


def small_parameters(**changes) -> ANIParameters:
    """Networks that nobody published: two elements, odd widths, several EtaA or Zeta, one hidden layer."""
    generator = np.random.default_rng(13)
    constants = {
        "Rcr": np.array(4.0),
        "Rca": np.array(3.0),
        "EtaR": np.array([3.0, 9.0]),
        "ShfR": np.array([0.8, 1.5, 2.7]),
        "EtaA": np.array([5.0]),
        "Zeta": np.array([1.0]),
        "ShfA": np.array([0.7, 1.9]),
        "ShfZ": np.array([0.3, 1.1, 2.2]),
    } | {key: np.array(value) for key, value in changes.items() if key != "widths"}
    angular = np.prod([constants[key].size for key in ("EtaA", "Zeta", "ShfA", "ShfZ")])
    inputs = int(2 * 6 + 3 * angular)
    weights, biases = {}, {}
    for element in ("H", "O"):
        widths = [inputs, *changes.get("widths", (7, 13)), 1]
        shapes = list(zip(widths[1:], widths[:-1], strict=True))
        weights[element] = [generator.normal(0, 0.3, (2, *s)).astype(np.float32) for s in shapes]
        biases[element] = [generator.normal(0, 0.3, (2, s[0])).astype(np.float32) for s in shapes]
    return ANIParameters(("H", "O"), constants, np.zeros(2), weights, biases)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Zeta": [2.5, 8.0, 17.0]},
        {"EtaA": [2.0, 5.0, 8.0]},
        {"widths": ()},
        {"widths": (5,)},
        {"widths": (31, 9, 6, 4)},
    ],
    ids=str,
)
def test_any_networks_of_the_family_equal_torch(changes):
    structure = gas(25, 0.7, [1, 8], seed=14)
    parameters = small_parameters(**changes)
    for precision in ("float32", "float64"):
        results = [
            members_and_gradient(
                ANIPotential(parameters, name="small", precision=p, kernel=kernel).scriptable(
                    structure.numbers.tolist()
                ),
                structure.positions,
                None,
                torch.ones(2, 25, dtype=torch.float64),
            )
            for p, kernel in (("float64", "torch"), (precision, "native"))
        ]
        assert_equal(results[1], results[0], precision)


def test_models_of_equal_content_share_weights_and_others_do_not():
    structure = gas(12, 0.6, [1, 8], seed=15)
    first, same = small_parameters(), small_parameters()
    other = small_parameters()
    other.weights["O"][0][0, 0, 0] += 1e-3
    models = [
        ANIPotential(p, name="small", kernel="native").scriptable(structure.numbers.tolist())
        for p in (first, same, other)
    ]
    assert models[0].model == models[1].model != models[2].model
    energies = [m(structure.positions, None) for m in models]
    assert torch.equal(energies[0], energies[1]) and not torch.equal(energies[0], energies[2])


def test_a_second_derivative_and_one_in_the_cell_are_errors():
    structure = gas(12, 0.6, [1, 8], seed=16)
    module = load_potential("ani1x", kernel="native").scriptable(structure.numbers.tolist())
    x = structure.positions.clone().requires_grad_(True)
    with pytest.raises(PotentialError, match="first derivatives"):
        torch.autograd.grad(module(x, None).sum(), x, create_graph=True)
    with pytest.raises(PotentialError, match="cell without gradient"):
        module(structure.positions, CUBE.clone().requires_grad_(True))


def test_unknown_weights_and_wrong_indices_are_errors():
    structure = gas(12, 0.6, [1, 8], seed=17)
    module = load_potential("ani1x", kernel="native").scriptable(structure.numbers.tolist())
    with pytest.raises(PotentialError, match="index out of range"):
        module(structure.positions, None, torch.tensor([12]))
    with pytest.raises(PotentialError, match="bound to"):
        module(structure.positions[:5], None)
    module.model += 1
    with pytest.raises(PotentialError, match="whose weights this process has loaded"):
        module(structure.positions, None)


def test_kernel_option_and_environment_variable_select_torch(monkeypatch):
    assert load_potential("ani1x").kernel == "native"
    assert load_potential("ani1x", kernel="torch").kernel == "torch"
    monkeypatch.setenv("MLMM_KERNEL", "torch")
    assert load_potential("ani1x").kernel == "torch"
    assert load_potential("ani1x", kernel="native").kernel == "native"
    monkeypatch.setenv("MLMM_KERNEL", "fast")
    with pytest.raises(PotentialError, match="'fast'"):
        load_potential("ani1x")


def test_without_the_library_auto_is_torch_and_native_says_what_to_install(monkeypatch, caplog):
    def missing():
        raise MissingPackageError("the compiled ANI kernel", "no file", "install a C++17 compiler")

    monkeypatch.setattr("mlmm.potentials.ani.native._library", missing)
    with caplog.at_level("INFO"):
        assert load_potential("ani1x").kernel == "torch"
    assert "compiler" in caplog.text
    with pytest.raises(MissingPackageError, match="compiler"):
        load_potential("ani1x", kernel="native")
