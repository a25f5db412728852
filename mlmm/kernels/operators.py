"""Torch operators of the compiled kernels: a value, and first derivatives by what the library kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlmm.errors import PotentialError
from mlmm.kernels.library import Held

__all__ = ["define_operator"]

# Kept alive with the module: operators go when their library goes.
_OPERATORS = torch.library.Library("mlmm", "FRAGMENT")


def define_operator(
    schema: str,
    evaluate: Callable[..., tuple[torch.Tensor, Held]],
    backward: Callable[[Held, torch.Tensor, list[torch.Tensor]], None],
    *,
    differentiable: int,
    cell: int,
) -> None:
    """Define ``mlmm::NAME`` for the processor.

    Parameters
    ----------
    schema : str
        As torch writes it, beginning with the name.
    evaluate : callable
        Of the operator's arguments; returns the value in float64 and what its gradient needs.
    backward : callable
        Adds to float64 gradients by the first arguments, for derivatives by the value.
    differentiable : int
        Number of first arguments that derivatives are taken by.
    cell : int
        Place of the box vectors, by which there are no derivatives.
    """

    class Operator(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
            value, ctx.held = evaluate(*arguments)
            ctx.given = [(each.shape, each.dtype) for each in arguments[:differentiable]]
            ctx.others = len(arguments) - differentiable
            return value

        @staticmethod
        def backward(ctx: Any, by_value: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            if torch.is_grad_enabled():
                raise PotentialError(
                    "first derivatives of the compiled kernel", "create_graph=True", 'write kernel = "torch"'
                )
            gradients = [torch.zeros(shape, dtype=torch.float64) for shape, _ in ctx.given]
            backward(ctx.held, by_value.to(torch.float64).contiguous(), gradients)
            types = [dtype for _, dtype in ctx.given]
            found = [gradient.to(dtype) for gradient, dtype in zip(gradients, types, strict=True)]
            return *found, *[None] * ctx.others

    def plain(*arguments: Any) -> torch.Tensor:
        return evaluate(*arguments)[0]

    def with_gradient(*arguments: Any) -> torch.Tensor:
        box = arguments[cell]
        if box is not None and box.requires_grad:
            raise PotentialError(
                "a cell without gradient",
                "one that requires it",
                'write kernel = "torch" for derivatives in the cell',
            )
        if torch.is_grad_enabled() and any(each.requires_grad for each in arguments[:differentiable]):
            found: torch.Tensor = Operator.apply(*arguments)
            return found
        return plain(*arguments)

    name = schema.partition("(")[0]
    _OPERATORS.define(schema)
    _OPERATORS.impl(name, plain, "CPU")
    _OPERATORS.impl(name, with_gradient, "AutogradCPU")
