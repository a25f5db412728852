"""The base of torch modules, with buffers that a type checker knows.

torch declares every attribute of a module as a tensor or another module, so that neither can be used as
what it is. TorchScript does not read annotations of buffers; this base leaves attributes open for the type
checker, and is `torch.nn.Module` itself when the code runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

__all__ = ["Module"]

if TYPE_CHECKING:

    class Module(torch.nn.Module):
        """`torch.nn.Module` with attributes of any type."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Module = torch.nn.Module
