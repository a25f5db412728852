"""Multipoles of a region among point charges, compiled for the processor: the torch operator.

The operator ``mlmm::ewald_energies`` has the energies of the region's atoms as its value, by Ewald's sum in
a box and by the plain sum without one, and analytic derivatives in all positions and in the multipoles. It
keeps nothing between calls but work space, so that a saved module runs in any process.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mlmm.errors import EmbeddingError
from mlmm.kernels.library import Held, decide_kernel, open_build

__all__ = ["native_ewald_wanted"]

# Sources for which a second thread is worth its start.
_SOURCES_PER_THREAD = 2000


def native_ewald_wanted() -> bool:
    """Whether the sums are those of the compiled kernel; see `mlmm.kernels.library.decide_kernel`."""
    return decide_kernel("auto", "Ewald sums", None, _library) == "native"


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mlmm_ewald_forward.argtypes = [
        *(integer, pointer, integer, pointer, pointer, pointer, integer, pointer),
        *(pointer, pointer, pointer, pointer, pointer, ctypes.c_int, pointer, pointer),
    ]
    library.mlmm_ewald_backward.argtypes = [pointer, pointer, ctypes.c_int, *[pointer] * 5]
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
    x, s, q, mu, theta = (tensor.detach().to(torch.float64).contiguous() for tensor in given)
    if cell is not None:
        cell = cell.detach().to(torch.float64).contiguous()
        if cell.shape != (3, 3):
            raise EmbeddingError(
                "a cell of shape (3, 3)", str(tuple(cell.shape)), "pass the box vectors in rows"
            )
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
            raise EmbeddingError(
                "first derivatives of the compiled kernel",
                "create_graph=True",
                "set the environment variable MLMM_KERNEL=torch",
            )
        gradients = [torch.zeros(shape, dtype=torch.float64) for shape, _ in ctx.given]
        by_energy, held = by_energy.to(torch.float64).contiguous(), ctx.held
        _check(
            held.library.mlmm_ewald_backward(
                held.pointer,
                by_energy.data_ptr(),
                _threads(gradients[1].shape[0]),
                *(gradient.data_ptr() for gradient in gradients),
            )
        )
        types = [dtype for _, dtype in ctx.given]
        found = [gradient.to(dtype) for gradient, dtype in zip(gradients, types, strict=True)]
        return *found, *[None] * ctx.others


def _energies(*arguments: Any) -> torch.Tensor:
    """The operator without gradient."""
    return _evaluate(*arguments)[0]


def _differentiable(*arguments: Any) -> torch.Tensor:
    """The operator where a gradient may be wanted."""
    cell = arguments[5]
    if cell is not None and cell.requires_grad:
        raise EmbeddingError(
            "a cell without gradient",
            "one that requires it",
            "set the environment variable MLMM_KERNEL=torch for derivatives in the cell",
        )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments[:5]):
        return _Energies.apply(*arguments)
    return _energies(*arguments)


# Kept alive with the module: the operator goes when its library goes.
_OPERATORS = torch.library.Library("mlmm", "FRAGMENT")
_OPERATORS.define(
    "ewald_energies(Tensor positions, Tensor sources, Tensor charges, Tensor dipoles, Tensor quadrupoles,"
    " Tensor? cell, Tensor source_charges, Tensor reference, Tensor triples, float[] ranges) -> Tensor"
)
_OPERATORS.impl("ewald_energies", _energies, "CPU")
_OPERATORS.impl("ewald_energies", _differentiable, "AutogradCPU")
