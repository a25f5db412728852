"""Multipoles of a region among point charges, compiled for the processor: the torch operator.

The operator ``mlmm::ewald_energies`` has the energies of the region's atoms as its value, by Ewald's sum in
a box and by the plain sum without one, and analytic derivatives in all positions and in the multipoles. The
operator ``mlmm::ewald_potentials`` has the potential itself: the energies are linear in the multipoles, so
that their derivatives in these are the potential, its gradient and its second derivatives. Neither keeps
anything between calls but work space, so that a saved module runs in any process.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from mlmm.errors import EmbeddingError
from mlmm.kernels.library import Held, decide_kernel, open_build

__all__ = ["native_ewald_wanted"]

# Sources for which a second thread is worth its start.
_SOURCES_PER_THREAD = 2000
# Energy of the fixed charges, potential, gradient, second derivatives.
_ROW = 14


def native_ewald_wanted() -> bool:
    """Whether the sums are those of the compiled kernel; see `mlmm.kernels.library.decide_kernel`."""
    return decide_kernel("auto", "Ewald sums", None, _library) == "native"


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mlmm_ewald_forward.argtypes = [
        *(integer, pointer, integer, pointer, pointer, pointer, integer, pointer, integer, pointer),
        *(pointer, pointer, pointer, pointer, pointer, ctypes.c_int, pointer, pointer),
    ]
    library.mlmm_ewald_backward.argtypes = [pointer, pointer, ctypes.c_int, *[pointer] * 5]
    library.mlmm_ewald_potentials.argtypes = [
        *(integer, pointer, integer, pointer, pointer, pointer, integer, pointer, integer, pointer),
        *(pointer, pointer, ctypes.c_int, pointer, pointer),
    ]
    library.mlmm_ewald_potentials_backward.argtypes = [
        pointer,
        pointer,
        pointer,
        ctypes.c_int,
        *[pointer] * 2,
    ]
    library.mlmm_ewald_release.argtypes = [pointer]
    library.mlmm_ewald_release.restype = None
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    """The best build for this processor."""
    return open_build("the compiled kernel for Ewald sums", _load)


def _check(code: int) -> None:
    if code:
        raise EmbeddingError("enough memory for the Ewald sum", "none left", "use a smaller system")


def _threads(sources: int) -> int:
    """As many as torch would use, where there is work for them."""
    return max(1, min(torch.get_num_threads(), sources // _SOURCES_PER_THREAD))


def _numbers(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """In double precision, one after another, as the library takes them; a module may have been cast."""
    return [tensor.detach().to(torch.float64).contiguous() for tensor in tensors]


def _box(cell: torch.Tensor | None) -> torch.Tensor | None:
    """Box vectors in rows, as the library takes them."""
    if cell is None:
        return None
    cell = cell.detach().to(torch.float64).contiguous()
    if cell.shape != (3, 3):
        raise EmbeddingError("a cell of shape (3, 3)", str(tuple(cell.shape)), "pass the box vectors in rows")
    return cell


def _evaluate(
    positions: torch.Tensor,
    sources: torch.Tensor,
    charges: torch.Tensor,
    dipoles: torch.Tensor,
    quadrupoles: torch.Tensor,
    cell: torch.Tensor | None,
    source_charges: torch.Tensor,
    reference: torch.Tensor,
    triples: torch.Tensor,
    smooth: torch.Tensor,
    ranges: Sequence[float],
) -> tuple[torch.Tensor, Held]:
    """Energies (n,), and what their gradient needs."""
    n, m = reference.shape[0], source_charges.shape[0]
    expected = [(n, 3), (m, 3), (n,), (n, 3), (n, 3, 3)]
    given = [positions, sources, charges, dipoles, quadrupoles]
    if [tuple(tensor.shape) for tensor in given] != expected:
        raise EmbeddingError(
            f"positions, sources, charges, dipoles and quadrupoles of shapes {expected}",
            str([tuple(tensor.shape) for tensor in given]),
            "pass the atoms and charges that the sum was made for",
        )
    x, s, q, mu, theta = _numbers(given)
    source_charges, reference, triples, smooth = _numbers([source_charges, reference, triples, smooth])
    cell = _box(cell)
    energies = torch.empty(n, dtype=torch.float64)
    library, pointer = _library(), ctypes.c_void_p()
    code = library.mlmm_ewald_forward(
        n,
        x.data_ptr(),
        m,
        s.data_ptr(),
        source_charges.data_ptr(),
        None if cell is None else cell.data_ptr(),
        triples.shape[0],
        triples.data_ptr(),
        smooth.shape[0],
        smooth.data_ptr(),
        (ctypes.c_double * len(ranges))(*ranges),
        reference.data_ptr(),
        q.data_ptr(),
        mu.data_ptr(),
        theta.data_ptr(),
        _threads(m),
        energies.data_ptr(),
        ctypes.byref(pointer),
    )
    _check(code)
    return energies, Held(library, library.mlmm_ewald_release, pointer)


def _no_second_derivatives() -> NoReturn:
    raise EmbeddingError(
        "first derivatives of the compiled kernel",
        "create_graph=True",
        "set the environment variable MLMM_KERNEL=torch",
    )


def _no_gradient_by_cell(cell: torch.Tensor | None) -> None:
    if cell is not None and cell.requires_grad:
        raise EmbeddingError(
            "a cell without gradient",
            "one that requires it",
            "set the environment variable MLMM_KERNEL=torch for derivatives in the cell",
        )


class _Energies(torch.autograd.Function):
    """The operator with its derivative."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        energies, ctx.held = _evaluate(*arguments)
        ctx.given, ctx.others = [(a.shape, a.dtype) for a in arguments[:5]], len(arguments) - 5
        return energies

    @staticmethod
    def backward(ctx: Any, by_energy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            _no_second_derivatives()
        gradients = _backward(ctx.held, by_energy, [shape for shape, _ in ctx.given])
        types = [dtype for _, dtype in ctx.given]
        found = [gradient.to(dtype) for gradient, dtype in zip(gradients, types, strict=True)]
        return *found, *[None] * ctx.others


def _energies(*arguments: Any) -> torch.Tensor:
    """The operator without gradient."""
    return _evaluate(*arguments)[0]


def _differentiable(*arguments: Any) -> torch.Tensor:
    """The operator where a gradient may be wanted."""
    _no_gradient_by_cell(arguments[5])
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments[:5]):
        return _Energies.apply(*arguments)
    return _energies(*arguments)


def _backward(held: Held, seeds: torch.Tensor, shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Derivatives of sum(seeds · energies) in positions, sources, charges, dipoles and quadrupoles."""
    gradients = [torch.zeros(tuple(shape), dtype=torch.float64) for shape in shapes]
    seeds = seeds.to(torch.float64).contiguous()
    where = [gradient.data_ptr() for gradient in gradients]
    threads = _threads(gradients[1].shape[0])
    _check(held.library.mlmm_ewald_backward(held.pointer, seeds.data_ptr(), threads, *where))
    return gradients


def _potentials_held(
    positions: torch.Tensor, sources: torch.Tensor, cell: torch.Tensor | None, *settings: Any
) -> tuple[torch.Tensor, Held]:
    """Rows (n, 14) as `_potentials`, and what their gradient needs."""
    *numbers, ranges = settings
    charges, reference, triples, smooth = _numbers(numbers)
    n, m = reference.shape[0], charges.shape[0]
    if positions.shape != (n, 3) or sources.shape != (m, 3):
        raise EmbeddingError(
            f"positions and sources of shapes ({n}, 3) and ({m}, 3)",
            f"{tuple(positions.shape)} and {tuple(sources.shape)}",
            "pass the atoms and charges that the sum was made for",
        )
    x, s = _numbers([positions, sources])
    cell = _box(cell)
    rows = torch.empty(n, _ROW, dtype=torch.float64)
    library, pointer = _library(), ctypes.c_void_p()
    code = library.mlmm_ewald_potentials(
        n,
        x.data_ptr(),
        m,
        s.data_ptr(),
        charges.data_ptr(),
        None if cell is None else cell.data_ptr(),
        triples.shape[0],
        triples.data_ptr(),
        smooth.shape[0],
        smooth.data_ptr(),
        (ctypes.c_double * len(ranges))(*ranges),
        reference.data_ptr(),
        _threads(m),
        rows.data_ptr(),
        ctypes.byref(pointer),
    )
    _check(code)
    return rows, Held(library, library.mlmm_ewald_release, pointer)


def _potentials(*arguments: Any) -> torch.Tensor:
    """Energies without multipoles, potential, gradient, second derivatives but for their trace: (n, 14)."""
    return _potentials_held(*arguments)[0]


class _Potentials(torch.autograd.Function):
    """The operator with its derivative: that of the energy of what comes back as multipoles."""

    @staticmethod
    def forward(ctx: Any, positions: torch.Tensor, sources: torch.Tensor, *others: Any) -> torch.Tensor:
        rows, ctx.held = _potentials_held(positions, sources, *others)
        ctx.given, ctx.others = [(t.shape, t.dtype) for t in (positions, sources)], len(others)
        (ctx.reference,) = _numbers([others[2]])
        return rows

    @staticmethod
    def backward(ctx: Any, by_rows: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            _no_second_derivatives()
        gradients = [torch.zeros(shape, dtype=torch.float64) for shape, _ in ctx.given]
        by_rows, held = by_rows.to(torch.float64).contiguous(), ctx.held
        where = [gradient.data_ptr() for gradient in gradients]
        threads = _threads(gradients[1].shape[0])
        _check(
            held.library.mlmm_ewald_potentials_backward(
                held.pointer, by_rows.data_ptr(), ctx.reference.data_ptr(), threads, *where
            )
        )
        types = [dtype for _, dtype in ctx.given]
        found = [gradient.to(dtype) for gradient, dtype in zip(gradients, types, strict=True)]
        return *found, *[None] * ctx.others


def _differentiable_potentials(
    positions: torch.Tensor, sources: torch.Tensor, cell: torch.Tensor | None, *settings: Any
) -> torch.Tensor:
    """The operator where a gradient may be wanted."""
    _no_gradient_by_cell(cell)
    if torch.is_grad_enabled() and (positions.requires_grad or sources.requires_grad):
        return _Potentials.apply(positions, sources, cell, *settings)
    return _potentials(positions, sources, cell, *settings)


# Kept alive with the module: the operator goes when its library goes.
_OPERATORS = torch.library.Library("mlmm", "FRAGMENT")
_OPERATORS.define(
    "ewald_energies(Tensor positions, Tensor sources, Tensor charges, Tensor dipoles, Tensor quadrupoles,"
    " Tensor? cell, Tensor source_charges, Tensor reference, Tensor triples, Tensor smooth, float[] ranges)"
    " -> Tensor"
)
_OPERATORS.impl("ewald_energies", _energies, "CPU")
_OPERATORS.impl("ewald_energies", _differentiable, "AutogradCPU")
_OPERATORS.define(
    "ewald_potentials(Tensor positions, Tensor sources, Tensor? cell, Tensor source_charges,"
    " Tensor reference, Tensor triples, Tensor smooth, float[] ranges) -> Tensor"
)
_OPERATORS.impl("ewald_potentials", _potentials, "CPU")
_OPERATORS.impl("ewald_potentials", _differentiable_potentials, "AutogradCPU")
