"""Compiled force-field pairs: the numbers of the torch path in every box, exact derivatives, every host."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import openmm
import pytest
import torch
from toys import energy_and_forces

from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.errors import EmbeddingError, MissingPackageError, PotentialError
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.system import hybrid_system
from mlmm.kernels import torch_pairs as pair_kernel
from mlmm.kernels.library import builds
from mlmm.kernels.torch_pairs import native_pairs_wanted, partners
from mlmm.potentials import load_potential
from mlmm.structures import minimum_image
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import static_zones


def _built() -> bool:
    try:
        pair_kernel._library()
    except MissingPackageError:
        return False
    return True


pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(not _built(), reason="the package was built without a compiler"),
]

CUBE = np.eye(3) * 1.9
# Reduced forms: a rhombic dodecahedron, and a box that leans to all sides and barely holds the cutoff.
DODECAHEDRON = 2.2 * np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]])
LEANING = np.array([[2.0, 0, 0], [0.7, 1.8, 0], [-0.6, 0.7, 1.7]])
BOXES = {"open": None, "cube": CUBE, "dodecahedron": DODECAHEDRON, "leaning": LEANING}
CUTOFF, RANGE = 0.8, (0.4, 0.7)
# Of the largest energy of an atom, and of the largest force.
ENERGY, FORCE = 1e-12, 1e-10


def force_field(n: int, box, *, seed: int, switch: float | None = None) -> MMTables:
    """Random parameters, exclusions and 1-4 pairs; some atoms have no charge, no well or neither."""
    rng = np.random.default_rng(seed)
    system, force = openmm.System(), openmm.NonbondedForce()
    for i in range(n):
        system.addParticle(0.0 if i % 10 == 9 else 1.0)
        charge = rng.normal(0, 0.4) * (rng.random() > 0.2)
        force.addParticle(charge, rng.uniform(0.1, 0.3), rng.uniform(0.1, 1.0) * (rng.random() > 0.3))
    for i in range(9, n, 10):
        system.setVirtualSite(i, openmm.TwoParticleAverageSite(i - 1, i - 2, 0.5, 0.5))
    pairs = {tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(3 * n)}
    for k, (a, b) in enumerate(sorted(pairs)):
        force.addException(a, b, *((0.0, 1.0, 0.0) if k % 3 else (0.1, 0.2, 0.3)))
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(CUTOFF)
    system.addForce(force)
    # A switch without periodic images too.
    return dataclasses.replace(read_mm_tables(system), cutoff=CUTOFF, switch=switch)


def gas(n: int, box, *, side: float = 1.7, closest: float = 0.17, seed: int = 0) -> np.ndarray:
    """Points at random, none closer than some distance to another, in random images."""
    rng = np.random.default_rng(seed)
    cell = None if box is None else torch.tensor(box)
    points = np.zeros((0, 3))
    while len(points) < n:
        point = rng.uniform(0, 1, 3) @ (np.eye(3) * side if box is None else box)
        if (minimum_image(torch.tensor(points - point), cell).norm(dim=1) > closest).all():
            points = np.vstack([points, point])
    return points if box is None else points + rng.integers(-1, 2, points.shape) @ box


def modules(tables, wanted, visible, ranges=RANGE) -> tuple[ShortRangeEnergies, ShortRangeEnergies]:
    """The torch path and the kernel."""
    reference, compiled = (ShortRangeEnergies(tables, wanted, visible, *ranges) for _ in range(2))
    assert compiled.compiled
    reference.compiled = False
    return reference, compiled


def evaluate(module, positions, box, weights, active=None):
    """Per-atom energies and the gradient of their weighted sum."""
    x = torch.tensor(positions, requires_grad=True)
    energies = module(x, None if box is None else torch.tensor(box), active)
    (gradient,) = torch.autograd.grad((energies * weights).sum(), x)
    return energies.detach(), gradient


def assert_equal(found, expected):
    assert (found[0] - expected[0]).abs().max() <= ENERGY * expected[0].abs().max()
    assert (found[1] - expected[1]).abs().max() <= FORCE * expected[1].abs().max()


def example(name: str, *, n=220, switch=None, seed=1):
    """Tables, wanted and visible atoms, an active subset, positions, box, random weights."""
    box = BOXES[name]
    rng = np.random.default_rng(seed)
    tables = force_field(n, box, seed=seed, switch=switch)
    wanted, visible = rng.permutation(n)[: n // 2], rng.random(n) < 0.8
    seen = wanted[visible[wanted]]
    active = torch.tensor(np.sort(seen)[:: 2 if seed % 2 else 1].copy())
    weights = torch.tensor(rng.normal(size=len(wanted)))
    return tables, wanted, visible, active, gas(n, box, seed=seed), box, weights


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("switch", [None, 0.5, 0.75])
def test_equals_torch_in_every_box(name, switch):
    """Random force fields, visible, wanted and active atoms, weights of either sign."""
    for seed in (1, 2):
        tables, wanted, visible, active, positions, box, weights = example(name, switch=switch, seed=seed)
        reference, compiled = modules(tables, wanted, visible)
        for chosen in (None, active):
            expected = evaluate(reference, positions, box, weights, chosen)
            assert expected[0].abs().max() > 1
            assert_equal(evaluate(compiled, positions, box, weights, chosen), expected)
    # Negative control: the comparison sees one atom moved by a millionth of an angstrom.
    positions[active[0], 0] += 1e-7
    other = evaluate(compiled, positions, box, weights, chosen)
    assert (other[1] - expected[1]).abs().max() > FORCE * expected[1].abs().max()


@pytest.mark.parametrize("name", BOXES)
def test_equals_torch_around_a_few_atoms(name):
    """A block smaller than the box, across its faces: the other search."""
    rng = np.random.default_rng(5)
    box = None if BOXES[name] is None else 2.5 * BOXES[name]
    n = 300
    tables = force_field(n, box, seed=5)
    positions = gas(n, box, side=2.0, seed=5)
    centre = np.zeros(3) if box is None else box.sum(axis=0)
    cell = None if box is None else torch.tensor(box)
    distance = minimum_image(torch.tensor(positions - centre), cell).norm(dim=1)
    wanted = torch.argsort(distance)[:12].numpy()
    reference, compiled = modules(tables, wanted, np.ones(n, bool))
    weights = torch.tensor(rng.normal(size=12))
    expected = evaluate(reference, positions, box, weights)
    assert len(reference.pair_energies(torch.tensor(positions), cell)[0]) > 30
    assert_equal(evaluate(compiled, positions, box, weights), expected)


def test_the_same_pairs_each_once():
    """The list itself: no pair twice, none with parameters of its own, none with itself or an unseen atom."""
    tables, wanted, visible, active, positions, box, _ = example("leaning")
    reference, compiled = modules(tables, wanted, visible)
    lists = []
    for module in (reference, compiled):
        first, second, half = module.pair_energies(torch.tensor(positions), torch.tensor(box), active)
        pairs = torch.stack([first, second]).sort(dim=0).values
        lists.append({(int(a), int(b)): float(e) for (a, b), e in zip(pairs.t(), half, strict=True)})
        assert len(lists[-1]) == len(first)
    assert lists[0].keys() == lists[1].keys() and len(lists[0]) > 1000
    # Pair by pair, where no sum hides anything.
    for pair, energy in lists[0].items():
        assert lists[1][pair] == pytest.approx(energy, rel=1e-11, abs=1e-13)


def test_every_build_equals_torch(monkeypatch):
    tables, wanted, visible, active, positions, box, weights = example("dodecahedron", switch=0.5)
    reference, compiled = modules(tables, wanted, visible)
    expected = evaluate(reference, positions, box, weights, active)
    for path in builds():
        library = pair_kernel._load(path)
        monkeypatch.setattr(pair_kernel, "_library", lambda library=library: library)
        assert_equal(evaluate(compiled, positions, box, weights, active), expected)


@pytest.mark.parametrize("switch", [None, 0.5])
def test_the_gradient_is_that_of_the_energy(switch):
    """Central differences of the weighted sum, atom by atom."""
    tables, wanted, visible, active, positions, box, weights = example("leaning", switch=switch)
    compiled = modules(tables, wanted, visible)[1]
    _, gradient = evaluate(compiled, positions, box, weights, active)
    cell, h = torch.tensor(box), 1e-5
    for atom in [*active[:4].tolist(), *np.flatnonzero(visible)[:4].tolist()]:
        for axis in range(3):
            sums = []
            for step in (h, -h):
                moved = torch.tensor(positions)
                moved[atom, axis] += step
                sums.append(float((compiled(moved, cell, active) * weights).sum()))
            slope = (sums[0] - sums[1]) / (2 * h)
            assert slope == pytest.approx(float(gradient[atom, axis]), abs=2e-6 * float(gradient.abs().max()))


def test_bitwise_the_same_again():
    tables, wanted, visible, active, positions, box, weights = example("cube")
    compiled = modules(tables, wanted, visible)[1]
    first = evaluate(compiled, positions, box, weights, active)
    # Another evaluation in between, in the same work space.
    evaluate(compiled, positions + 0.3, box, weights)
    for _ in range(3):
        again = evaluate(compiled, positions, box, weights, active)
        assert torch.equal(again[0], first[0]) and torch.equal(again[1], first[1])
    with torch.no_grad():
        assert torch.equal(compiled(torch.tensor(positions), torch.tensor(box), active), first[0])


def test_two_evaluations_keep_their_own_gradients():
    """Energies of two structures before either gradient is asked for."""
    tables, wanted, visible, _, positions, box, weights = example("cube")
    compiled = modules(tables, wanted, visible)[1]
    cell = torch.tensor(box)
    expected = [evaluate(compiled, p, box, weights)[1] for p in (positions, positions + 0.01 * positions**2)]
    xs = [torch.tensor(p, requires_grad=True) for p in (positions, positions + 0.01 * positions**2)]
    sums = [(compiled(x, cell) * weights).sum() for x in xs]
    for x, total, gradient in zip(xs, sums, expected, strict=True):
        assert torch.equal(torch.autograd.grad(total, x)[0], gradient)
    assert not torch.equal(expected[0], expected[1])


def test_no_pairs_give_zero():
    """Nobody within the range, all pairs special, no active atom, nobody visible: zeros."""
    n = 12
    tables = force_field(n, None, seed=3)
    compiled = modules(tables, range(n), np.ones(n, bool))[1]
    apart = torch.tensor(np.arange(3 * n).reshape(n, 3) * 1.0)
    near = torch.tensor(gas(n, None, side=0.8, seed=3))
    assert len(compiled.pair_energies(near, None)[0]) > 0
    assert len(compiled.pair_energies(apart, None)[0]) == 0
    assert len(compiled.pair_energies(near, None, torch.zeros(0, dtype=torch.int64))[0]) == 0
    blind = modules(tables, range(n), np.zeros(n, bool))[1]
    assert len(blind.pair_energies(near, None)[0]) == 0
    x = apart.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(compiled.pair_energies(x, None)[2].sum(), x)
    assert torch.equal(gradient, torch.zeros_like(x))


def test_partners_are_symmetric_and_unique():
    start, other = partners(np.array([[3, 1], [0, 3], [1, 3]]), 5)
    assert [other[start[i] : start[i + 1]].tolist() for i in range(5)] == [[3], [3], [], [0, 1], []]
    start, other = partners(np.zeros((0, 2), dtype=np.int64), 2)
    assert start.tolist() == [0, 0, 0] and len(other) == 0


@pytest.mark.parametrize("name", ["open", "cube"])
def test_nan_propagates(name):
    tables, wanted, visible, active, positions, box, weights = example(name)
    compiled = modules(tables, wanted, visible)[1]
    for atom in (int(active[0]), int(np.flatnonzero(visible)[-1])):
        for bad in (np.nan, np.inf):
            broken = positions.copy()
            broken[atom, 1] = bad
            energies, gradient = evaluate(compiled, broken, box, weights, active)
            slots = compiled.slots[active]
            assert energies[slots].isnan().all() and gradient.isnan().any()
    # The work space is usable afterwards.
    assert evaluate(compiled, positions, box, weights, active)[0].isfinite().all()


def test_scripted_frozen_and_saved():
    """What a TorchForce does with the module; a copy from a file needs nothing of this process."""
    tables, wanted, visible, active, positions, box, weights = example("leaning")
    compiled = modules(tables, wanted, visible)[1]
    expected = evaluate(compiled, positions, box, weights, active)
    scripted = torch.jit.script(compiled.eval())
    memory = io.BytesIO()
    torch.jit.save(scripted, memory)
    memory.seek(0)
    for module in (scripted, torch.jit.freeze(scripted), torch.jit.load(memory)):
        assert "short_range_pairs" in str(module.graph) or "short_range_pairs" in str(module.inlined_graph)
        for _ in range(3):
            found = evaluate(module, positions, box, weights, active)
            assert torch.equal(found[0], expected[0])
            # TorchScript sums the gradients of the terms in another order.
            assert_equal(found, expected)


def test_unsupported_derivatives_and_shapes_are_rejected():
    tables, wanted, visible, _, positions, box, weights = example("cube")
    compiled = modules(tables, wanted, visible)[1]
    x, cell = torch.tensor(positions, requires_grad=True), torch.tensor(box)
    with pytest.raises(EmbeddingError, match="first derivatives"):
        torch.autograd.grad(compiled(x, cell).sum(), x, create_graph=True)
    with pytest.raises(EmbeddingError, match="index out of range"):
        compiled.pair_energies(x, cell, torch.tensor([len(positions)]))
    with pytest.raises(EmbeddingError, match="shape"):
        compiled.pair_energies(x[:-1], cell)
    # A gradient in the box comes from torch, as before.
    cell.requires_grad_(True)
    (by_cell,) = torch.autograd.grad((compiled(x, cell) * weights).sum(), cell)
    assert by_cell.abs().max() > 1


def test_environment_variable_selects_torch_for_both_kernels(monkeypatch):
    """One variable for both kernels; without the library the same numbers by torch."""
    tables, wanted, visible, _, positions, box, weights = example("cube")
    expected = evaluate(ShortRangeEnergies(tables, wanted, visible, *RANGE), positions, box, weights)

    def never(*arguments):
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(pair_kernel, "_evaluate", never)
    with pytest.raises(AssertionError, match="called"):
        evaluate(ShortRangeEnergies(tables, wanted, visible, *RANGE), positions, box, weights)
    monkeypatch.setenv("MLMM_KERNEL", "torch")
    assert not native_pairs_wanted() and load_potential("ani1x").kernel == "torch"
    module = ShortRangeEnergies(tables, wanted, visible, *RANGE)
    assert_equal(evaluate(module, positions, box, weights), expected)
    monkeypatch.setenv("MLMM_KERNEL", "fast")
    with pytest.raises(PotentialError, match="'fast'"):
        native_pairs_wanted()


def test_without_the_library_or_with_an_old_one_torch_runs(monkeypatch, caplog):
    def old(path):
        raise AttributeError("undefined symbol: mlmm_pairs_forward")

    monkeypatch.setattr(pair_kernel, "_load", old)
    monkeypatch.setattr(pair_kernel, "_library", pair_kernel._library.__wrapped__)
    with caplog.at_level("INFO"):
        assert not native_pairs_wanted()
    assert "undefined symbol" in caplog.text
    monkeypatch.setenv("MLMM_KERNEL", "native")
    with pytest.raises(MissingPackageError, match="compiler"):
        native_pairs_wanted()


@pytest.fixture(scope="module")
def water():
    """Some 130 flexible water molecules."""
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")


@pytest.mark.parametrize("kind", ["static", "adaptive"])
def test_both_hosts_equal_torch(water, kind, monkeypatch):
    """TorchForce and PythonForce with compiled pairs give the energy and forces of the torch path."""
    region = region_from_atoms(water.topology, range(3), "molecule")
    compensation, changes = None, {"mm_side": "torch"}
    if kind == "static":
        zones = static_zones(water, region, "0.2 nm", "0.25 nm")
    else:
        zones, changes = adaptive_zones(water, region, "0.25 nm", "0.3 nm"), {}
        compensation = Compensation({"HOH": 0.0})

    def make(bridge):
        potential = load_potential("ani1x", precision="float64", members=[0], kernel="torch")
        hybrid = hybrid_system(
            water, zones, potential, scheme="per_atom", compensation=compensation, bridge=bridge
        )
        return hybrid.reassembled(**changes)

    with monkeypatch.context() as patch:
        patch.setenv("MLMM_KERNEL", "torch")
        reference = make("pythonforce")
    assert not reference.blend.short_range.compiled
    group = 1 << reference.force_groups["ml"]
    energy, forces = energy_and_forces(reference.system, water.positions, groups=group)
    largest = np.abs(forces).max()
    assert largest > 100
    for bridge in ("torchforce", "pythonforce"):
        hybrid = make(bridge)
        assert hybrid.blend.short_range.compiled
        found = energy_and_forces(hybrid.system, water.positions, groups=group)
        assert found[0] == pytest.approx(energy, rel=1e-11)
        assert np.abs(found[1] - forces).max() < 1e-10 * largest
