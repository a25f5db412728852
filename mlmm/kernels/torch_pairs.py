"""Short-range force-field pairs compiled for the processor: the torch operator, eager or in TorchScript.

The operator ``mlmm::short_range_pairs`` finds all pairs of active and visible atoms; its value is half of
their energies, with analytic derivatives in the positions. It keeps nothing between calls but work space:
what the force field says about the atoms are arguments, so that a saved module runs in any process.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.errors import EmbeddingError
from mlmm.kernels.library import Held, decide_kernel, open_build

__all__ = ["native_pairs_wanted", "partners"]

_PROBLEMS = {1: ("atoms that exist", "an index out of range"), 2: ("enough memory", "none left")}


def native_pairs_wanted() -> bool:
    """Whether pairs are evaluated by the compiled kernel; see `mlmm.kernels.library.decide_kernel`."""
    return decide_kernel("auto", "force-field pairs", None, _library) == "native"


def partners(pairs: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Partners of each atom i in some pairs (X, 2): those from place start[i] to start[i + 1], ascending.

    Returns
    -------
    start : ndarray, shape (N + 1,), int64
    other : ndarray, shape (2 X,), int64
        Fewer where a pair stands twice.
    """
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]) @ np.array([n_atoms, 1], dtype=np.int64))
    start = np.searchsorted(both, np.arange(n_atoms + 1, dtype=np.int64) * n_atoms)
    return start.astype(np.int64), (both % max(n_atoms, 1)).astype(np.int64)


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mlmm_pairs_forward.argtypes = [
        *(integer, pointer, pointer, integer, pointer, integer, pointer),
        *(pointer, pointer, pointer, pointer, pointer, pointer),
    ]
    library.mlmm_pairs_take.argtypes = [pointer] * 4
    library.mlmm_pairs_backward.argtypes = [pointer] * 3
    library.mlmm_pairs_release.argtypes = [pointer]
    for name in ("take", "backward", "release"):
        getattr(library, f"mlmm_pairs_{name}").restype = None
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    """The best build for this processor."""
    return open_build("the compiled kernel for force-field pairs", _load)


def _evaluate(
    positions: torch.Tensor,
    cell: torch.Tensor | None,
    active: torch.Tensor,
    seen: torch.Tensor,
    parameters: torch.Tensor,
    special_start: torch.Tensor,
    special_other: torch.Tensor,
    ranges: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Held]:
    """Both atoms and half of the energy of each pair, (P,) each, and what the gradient needs."""
    positions = positions.detach().to(torch.float64).contiguous()
    n = parameters.shape[0]
    if positions.shape != (n, 3) or special_start.shape != (n + 1,):
        raise EmbeddingError(
            f"positions of shape ({n}, 3)",
            str(tuple(positions.shape)),
            "pass the positions of the whole system",
        )
    if cell is not None:
        cell = cell.detach().to(torch.float64).contiguous()
        if cell.shape != (3, 3):
            raise EmbeddingError(
                "a cell of shape (3, 3)", str(tuple(cell.shape)), "pass the box vectors in rows"
            )
    active, seen = active.to(torch.int64).contiguous(), seen.to(torch.int64).contiguous()
    parameters = parameters.to(torch.float64).contiguous()
    library, pointer, size = _library(), ctypes.c_void_p(), ctypes.c_int64()
    code = library.mlmm_pairs_forward(
        n,
        positions.data_ptr(),
        None if cell is None else cell.data_ptr(),
        active.shape[0],
        active.data_ptr(),
        seen.shape[0],
        seen.data_ptr(),
        parameters.data_ptr(),
        special_start.data_ptr(),
        special_other.data_ptr(),
        (ctypes.c_double * len(ranges))(*ranges),
        ctypes.byref(size),
        ctypes.byref(pointer),
    )
    if code:
        raise EmbeddingError(*_PROBLEMS[code], "select the atoms again")
    held = Held(library, library.mlmm_pairs_release, pointer)
    first, second = torch.empty(2, size.value, dtype=torch.int64).unbind()
    half = torch.empty(size.value, dtype=torch.float64)
    library.mlmm_pairs_take(pointer, first.data_ptr(), second.data_ptr(), half.data_ptr())
    return first, second, half, held


class _Pairs(torch.autograd.Function):
    """The operator with its derivative."""

    @staticmethod
    def forward(ctx: Any, positions: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, ...]:
        first, second, half, ctx.held = _evaluate(positions, *arguments)
        ctx.positions, ctx.arguments = (positions.shape, positions.dtype), len(arguments)
        ctx.mark_non_differentiable(first, second)
        return first, second, half

    @staticmethod
    def backward(ctx: Any, by_first: Any, by_second: Any, by_half: torch.Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise EmbeddingError(
                "first derivatives of the compiled kernel",
                "create_graph=True",
                "set the environment variable MLMM_KERNEL=torch",
            )
        shape, dtype = ctx.positions
        gradient = torch.zeros(shape, dtype=torch.float64)
        by_half, held = by_half.to(torch.float64).contiguous(), ctx.held
        held.library.mlmm_pairs_backward(held.pointer, by_half.data_ptr(), gradient.data_ptr())
        return gradient.to(dtype), *[None] * ctx.arguments


def _pairs(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The operator without gradient."""
    return _evaluate(*arguments)[:3]


def _differentiable(
    positions: torch.Tensor, cell: torch.Tensor | None, *arguments: Any
) -> tuple[torch.Tensor, ...]:
    """The operator where a gradient may be wanted."""
    if cell is not None and cell.requires_grad:
        raise EmbeddingError(
            "a cell without gradient",
            "one that requires it",
            "set the environment variable MLMM_KERNEL=torch for derivatives in the cell",
        )
    if not (positions.requires_grad and torch.is_grad_enabled()):
        return _pairs(positions, cell, *arguments)
    return _Pairs.apply(positions, cell, *arguments)


# Kept alive with the module: the operator goes when its library goes.
_OPERATORS = torch.library.Library("mlmm", "FRAGMENT")
_OPERATORS.define(
    "short_range_pairs(Tensor positions, Tensor? cell, Tensor active, Tensor seen, Tensor parameters,"
    " Tensor special_start, Tensor special_other, float[] ranges) -> (Tensor, Tensor, Tensor)"
)
_OPERATORS.impl("short_range_pairs", _pairs, "CPU")
_OPERATORS.impl("short_range_pairs", _differentiable, "AutogradCPU")
