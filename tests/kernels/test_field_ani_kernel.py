"""Field-aware ANI by the compiled kernel: equal to torch, output by output, with all derivatives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from field_networks import field_potential

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.field_ani.native import _library

pytestmark = pytest.mark.usefixtures("kernels_by_default")

BOX = torch.tensor([[2.0, 0.0, 0.0], [0.4, 2.1, 0.0], [-0.5, 0.3, 2.2]], dtype=torch.float64)
NUMBERS = [6, 1, 8, 7, 1, 6, 6, 1, 8, 1]


@pytest.fixture(autouse=True)
def compiled():
    try:
        _library()
    except MissingPackageError:
        pytest.skip("no compiled kernel")


def arguments_of(numbers: list[int], seed: int = 2) -> list[torch.Tensor]:
    """Atoms on a jittered lattice, split by the walls of the box, in some potential."""
    generator = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[: len(numbers)]
    positions = 0.13 * places + 0.015 * generator.standard_normal((len(numbers), 3)) - 0.1
    potential = 40.0 * generator.standard_normal(len(numbers))
    gradient = 500.0 * generator.standard_normal((len(numbers), 3))
    return [torch.tensor(array) for array in (positions, potential, gradient)]


def evaluate(module, arguments, cell=None) -> list[torch.Tensor]:
    """All outputs, and gradients of a sum of them with other weights for each."""
    leaves = [tensor.clone().requires_grad_(True) for tensor in arguments]
    bend = torch.zeros(len(leaves[0]), 3, 3, dtype=torch.float64)
    outputs = module.in_potential(leaves[0], cell, *leaves[1:], bend)[:3]
    generator = torch.Generator().manual_seed(1)
    total = sum((torch.randn(o.shape, generator=generator, dtype=o.dtype) * o).sum() for o in outputs)
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, leaves)]


def modules(numbers: list[int], charge: int = -1, **options):
    return [field_potential(numbers, kernel=k, **options).scriptable(numbers, charge=charge) for k in KERNELS]


KERNELS = ("native", "torch")


@pytest.mark.parametrize("cell", [None, BOX])
def test_equals_torch(cell):
    """Energies, charges, dipoles, and their gradients by positions, potential and its gradient."""
    native, in_torch = modules(NUMBERS)
    assert native.compiled and not in_torch.compiled
    arguments = arguments_of(NUMBERS)
    found, exact = (evaluate(module, arguments, cell) for module in (native, in_torch))
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).abs().max()) < 1e-11 * float(other.abs().max())
    # Control: the potential at one atom, and the total charge, are seen at once.
    arguments[1][3] += 1.0
    assert float((evaluate(native, arguments, cell)[1] - exact[1]).abs().max()) > 1e-5
    neutral, _ = modules(NUMBERS, charge=0)
    assert float((evaluate(neutral, arguments_of(NUMBERS), cell)[0] - exact[0]).abs().max()) > 1.0


def test_forces_are_gradients_of_the_energy():
    """Central differences in a position, the potential and its gradient; the charges add up to the total."""
    (native, _), arguments = modules(NUMBERS), arguments_of(NUMBERS)
    bend = torch.zeros(len(NUMBERS), 3, 3, dtype=torch.float64)

    def energy(given):
        return native.in_potential(given[0], BOX, *given[1:], bend)[0].sum()

    leaves = [tensor.clone().requires_grad_(True) for tensor in arguments]
    gradients = torch.autograd.grad(energy(leaves), leaves)
    for which, place, step in ((0, (2, 1), 1e-5), (1, (5,), 1e-2), (2, (7, 0), 1e-1)):
        values = []
        for sign in (1, -1):
            moved = [tensor.clone() for tensor in arguments]
            moved[which][place] += sign * step
            values.append(float(energy(moved)))
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float(gradients[which][place]), rel=1e-7, abs=1e-7)
    charges = native.in_potential(arguments[0], BOX, *arguments[1:], bend)[1]
    assert float(charges.sum()) == pytest.approx(-1.0, abs=1e-12)
    assert float(gradients[0].sum(0).abs().max()) < 1e-9 * float(gradients[0].abs().max())


def test_single_precision_is_as_good_as_that_of_torch():
    arguments = arguments_of(NUMBERS)
    exact = evaluate(modules(NUMBERS)[1], arguments)
    errors = []
    for module in modules(NUMBERS, precision="float32"):
        found = evaluate(module, arguments)
        errors.append([float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)])
    assert all(own < max(3 * other, 1e-6) for own, other in zip(*errors, strict=True))
    assert max(errors[0]) > 1e-9


def test_one_atom_many_atoms_and_threads():
    """One atom has the whole charge; sixty pass in several batches, with equal bits for any threads."""
    for numbers in ([8], [6, 1, 1, 8] * 15):
        native, in_torch = modules(numbers)
        arguments = arguments_of(numbers)
        found, exact = (evaluate(module, arguments) for module in (native, in_torch))
        for one, other in zip(found, exact, strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-10 * max(1.0, float(other.abs().max())))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = evaluate(native, arguments)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(again, found, strict=True))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_not_a_number_stays_so(which):
    arguments = arguments_of(NUMBERS)
    arguments[which].flatten()[4] = float("nan")
    found = evaluate(modules(NUMBERS)[0], arguments)
    assert bool(torch.isnan(found[0].sum())) and bool(torch.isnan(found[3].sum() + found[5].sum()))


def test_what_the_kernel_cannot_do_is_refused():
    (native, _), (x, potential, gradient) = modules(NUMBERS), arguments_of(NUMBERS)
    bend = torch.zeros(len(x), 3, 3, dtype=torch.float64)
    with pytest.raises(PotentialError, match="potential and gradient of shapes"):
        native.in_potential(x, None, potential[1:], gradient, bend)
    with pytest.raises(PotentialError, match="cell without gradient"):
        native.in_potential(x, BOX.clone().requires_grad_(True), potential, gradient, bend)
    moved = x.clone().requires_grad_(True)
    with pytest.raises(PotentialError, match="first derivatives"):
        torch.autograd.grad(
            native.in_potential(moved, None, potential, gradient, bend)[0].sum(), moved, create_graph=True
        )
    with pytest.raises(PotentialError, match="kernel = auto"):
        field_potential(NUMBERS, kernel="fast")


def test_a_module_from_another_process_says_so(tmp_path):
    """Weights are kept by the process that loaded them: a saved module without them is no other energy."""
    path = tmp_path / "module.pt"
    torch.jit.save(torch.jit.script(modules([8, 1, 1])[0].eval()), str(path))
    code = (
        "import torch, mlmm.potentials.field_ani.native\n"
        f"module = torch.jit.load({str(path)!r})\n"
        "try:\n    module(torch.eye(3).double() * 0.1, None)\n"
        "except Exception as error:\n    print('saved by another process' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True", done.stderr
