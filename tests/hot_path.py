"""What a module asks of its device: every operation with the shapes that it makes, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Shapes that depend on values, or a value for the host, which has to wait for the device; what a CUDA graph
# cannot hold. `lift_fresh` is a tensor made from numbers of the host.
WAITS = (
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "argwhere"),
    *("masked_select", "bincount", "repeat_interleave", "lift_fresh", "lift_fresh_copy", "lift"),
    *("unique", "_unique", "_unique2", "unique_dim", "unique_consecutive"),
)


class HotPath(TorchDispatchMode):
    """Records operations, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        #: name of each operation, shapes and types of its results
        self.operations: list[tuple] = []
        #: operations that a CUDA graph cannot hold
        self.waits: list[str] = []
        #: where results are
        self.devices: set[str] = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        name = function.overloadpacket.__name__
        made = [x for x in _flat([result]) if isinstance(x, torch.Tensor)]
        self.operations.append((name, tuple((tuple(x.shape), x.dtype) for x in made)))
        self.devices |= {x.device.type for x in made}
        masks = [x for x in _flat(arguments[1:2]) if isinstance(x, torch.Tensor) and x.dtype == torch.bool]
        if name in WAITS or (name.startswith(("index", "_index", "_unsafe_index")) and masks):
            self.waits.append(name)
        return result


def _flat(values) -> list:
    return [x for value in values for x in (_flat(value) if isinstance(value, (tuple, list)) else [value])]


def recorded(evaluate: Callable[[], object]) -> HotPath:
    """The operations of one call."""
    with HotPath() as path:
        evaluate()
    return path
