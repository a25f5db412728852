"""The compiled Ewald sum: equal to torch to the last digits, for any box, charges and number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.errors import EmbeddingError, MissingPackageError
from mlmm.kernels.ewald import _library
from mlmm.potentials.multipoles import multipole_energies, traceless

pytestmark = pytest.mark.usefixtures("kernels_by_default")

CELLS = {
    "cube": np.diag([2.6, 2.6, 2.6]),
    "flat": np.diag([3.1, 2.2, 4.0]),
    "leaning": np.array([[2.8, 0.0, 0.0], [0.6, 2.7, 0.0], [-0.7, 0.5, 2.9]]),
    "open": None,
}


@pytest.fixture(autouse=True)
def compiled():
    try:
        _library()
    except MissingPackageError:
        pytest.skip("no compiled kernel")


def system_of(cell: np.ndarray | None, n: int = 9, m: int = 500, seed: int = 1, **options):
    """A region in the middle of charges everywhere, some of them on top of its atoms; sum and arguments."""
    generator = np.random.default_rng(seed)
    box = np.diag([2.6, 2.6, 2.6]) if cell is None else cell
    region = 0.5 * box.sum(0) + 0.2 * generator.standard_normal((n, 3))
    outside = (3 * generator.random((m, 3)) - 1) @ box
    outside[:n] = region + 0.02 * generator.standard_normal((n, 3))
    q0 = generator.standard_normal(n)
    q0 += (1.0 - q0.sum()) / n
    excess = 0.2 * generator.standard_normal(n)
    arrays = (
        region,
        outside,
        q0 + excess - excess.mean(),
        0.02 * generator.standard_normal((n, 3)),
        0.003 * generator.standard_normal((n, 3, 3)),
    )
    tensors = [torch.tensor(array) for array in arrays]
    around = torch.tensor(generator.standard_normal(m))
    where = None if cell is None else torch.tensor(cell)
    return EwaldInsertion(torch.tensor(q0), around, where, **options), [*tensors, where]


def evaluate(insertion: EwaldInsertion, arguments: list, native: bool) -> list[torch.Tensor]:
    """Energies and their gradients by all five arguments, for weights that differ from atom to atom."""
    insertion.native = native
    leaves = [tensor.clone().requires_grad_(True) for tensor in arguments[:5]]
    energies = insertion(*leaves, arguments[5])
    weights = torch.linspace(0.5, 1.5, len(energies), dtype=torch.float64)
    return [energies.detach(), *torch.autograd.grad((weights * energies).sum(), leaves)]


@pytest.mark.parametrize("width", [0.0, 0.03])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_torch(cell, width):
    """Energies and five gradients; the quadrupole's own symmetric part is all that acts."""
    insertion, arguments = system_of(CELLS[cell], width=width)
    assert insertion.native
    found, exact = (evaluate(insertion, arguments, native) for native in (True, False))
    for k, (one, other) in enumerate(zip(found, exact, strict=True)):
        if k == 5:
            other = 0.5 * (other + other.transpose(1, 2))
        assert float((one - other).abs().max()) < 1e-12 * float(other.abs().max())
    # Control: a charge that is left out is seen at once.
    less, _ = system_of(CELLS[cell], width=width)
    less.external[-1] = 0.0
    assert float((evaluate(less, arguments, True)[0] - exact[0]).abs().max()) > 1e-8


def potentials(insertion: EwaldInsertion, arguments: list, native: bool) -> list[torch.Tensor]:
    """What a model takes, and the gradients of a weighted sum of it by positions and sources."""
    insertion.native = native
    leaves = [tensor.clone().requires_grad_(True) for tensor in arguments[:2]]
    found = insertion.potentials(*leaves, arguments[5])
    generator = torch.Generator().manual_seed(4)
    weights = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in found]
    total = sum((weight * part).sum() for weight, part in zip(weights, found, strict=True))
    return [*(part.detach() for part in found), *torch.autograd.grad(total, leaves)]


@pytest.mark.parametrize("width", [0.0, 0.03])
@pytest.mark.parametrize("cell", CELLS)
def test_potentials_are_what_the_energy_is_linear_in(cell, width):
    """Kernel and torch give one potential and one gradient; multipoles times potential is the energy."""
    insertion, arguments = system_of(CELLS[cell], width=width)
    insertion.images = False
    found, exact = (potentials(insertion, arguments, native) for native in (True, False))
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).abs().max()) < 1e-11 * float(other.abs().max())
    offset, *around = found[:4]
    quadrupoles = traceless(arguments[4] + arguments[4].transpose(1, 2))
    energies = offset + multipole_energies(*arguments[2:4], quadrupoles, *around)
    direct = insertion(*arguments[:4], quadrupoles, arguments[5])
    assert float((energies - direct).abs().max()) < 1e-10 * float(direct.abs().max())
    # Control: without the part of the fixed charges it is another energy.
    assert float((energies - offset - direct).abs().max()) > 1e-3 * float(direct.abs().max())


def test_a_potential_that_is_differentiated_twice_gives_the_same_bits():
    """What one pass keeps for its gradient serves another seed too, and is not used up."""
    insertion, arguments = system_of(CELLS["leaning"], width=0.03)
    leaves = [tensor.clone().requires_grad_(True) for tensor in arguments[:2]]
    _, potential, gradient, _ = insertion.potentials(*leaves, arguments[5])
    found = []
    for part in (potential.sum(), gradient.square().sum(), potential.sum()):
        found.append(torch.autograd.grad(part, leaves, retain_graph=True))
    assert all(torch.equal(one, other) for one, other in zip(found[0], found[2], strict=True))
    assert not torch.equal(found[0][1], found[1][1])


def test_number_of_threads_changes_no_bit():
    insertion, arguments = system_of(CELLS["leaning"], m=9000)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append([*evaluate(insertion, arguments, True), *potentials(insertion, arguments, True)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_few_charges_and_none():
    for m in (9, 11):
        insertion, arguments = system_of(CELLS["cube"], m=m, width=0.03)
        found, exact = (evaluate(insertion, arguments, native)[0] for native in (True, False))
        assert torch.allclose(found, exact, rtol=1e-12, atol=1e-9)
    insertion, arguments = system_of(CELLS["cube"])
    insertion = EwaldInsertion(insertion.reference, insertion.external[:0], arguments[5])
    insertion.images = False
    arguments[1] = arguments[1][:0]
    assert float(evaluate(insertion, arguments, True)[0].abs().max()) == 0.0


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("cell", ["cube", "open"])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_what_is_not_a_number_stays_so(which, cell, native):
    """In positions, charges and dipoles: the energy of its atom, or of all, is none either."""
    insertion, arguments = system_of(CELLS[cell], width=0.03)
    arguments[which] = arguments[which].clone()
    arguments[which].flatten()[4] = float("nan")
    found = evaluate(insertion, arguments, native)
    assert bool(torch.isnan(found[0].sum())) and bool(torch.isnan(found[2].sum()))


def test_a_module_that_was_cast_keeps_its_charges_and_waves():
    """To float32 and back: charges have seven digits left, and the kernel never reads them as others."""
    insertion, arguments = system_of(CELLS["leaning"], width=0.03)
    exact = [*evaluate(insertion, arguments, True), *potentials(insertion, arguments, True)]
    insertion.float()
    found = [*evaluate(insertion, arguments, True), *potentials(insertion, arguments, True)]
    for one, other in zip(found, exact, strict=True):
        assert 0.0 < float((one - other).abs().max()) < 1e-5 * float(other.abs().max())


def test_wrong_shapes_and_second_derivatives_are_refused():
    insertion, arguments = system_of(CELLS["cube"])
    with pytest.raises(EmbeddingError, match="shapes"):
        insertion(arguments[0], arguments[1][1:], *arguments[2:])
    x = arguments[0].clone().requires_grad_(True)
    energy = insertion(x, *arguments[1:]).sum()
    with pytest.raises(EmbeddingError, match="MLMM_KERNEL=torch"):
        torch.autograd.grad(energy, x, create_graph=True)
    cell = arguments[5].clone().requires_grad_(True)
    with pytest.raises(EmbeddingError, match="without gradient"):
        insertion(*arguments[:5], cell)
