"""The network of AMP-BMS compiled for the processor: the library and its torch operator.

The operator ``mlmm::amp_network`` has what `AMPNetwork` gives for the atoms as its value, with analytic
derivatives in the positions of atoms and charges. The library keeps packed weights under a number made from
their content, so that copies of a module inside the process find them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from pathlib import Path

import numpy as np
import torch

from mlmm.errors import PotentialError
from mlmm.kernels.library import Held, decide_kernel, open_build
from mlmm.kernels.operators import define_operator
from mlmm.potentials.amp_bms.network import MESSAGE_CUTOFF, POLARISATION_CUTOFF
from mlmm.potentials.amp_bms.weights import AMPWeights

__all__ = ["choose_amp_kernel", "load_amp_weights"]

# In the order of the library.
_PARTS = (
    "edge_embedding",
    "eq_message_layers.0",
    "eq_message_layers.1",
    "in_message_layers.0",
    "in_message_layers.1",
    "in_update_layers.0",
    "in_update_layers.1",
    "QM_coeffs",
    "QM_monos",
    "V.potential",
)
_OUTPUTS = 15  # energy, charge, factor of C6, dipole, quadrupole
_PROBLEMS = {
    1: ("a model whose weights this process has loaded", "an unknown one: a module saved by another process"),
    2: ("enough memory", "none left"),
    3: ("elements of the table", "another atomic number"),
    4: ("networks of the published shapes", "others"),
}


def choose_amp_kernel(kernel: str, device: torch.device) -> bool:
    """Whether the network runs in the compiled kernel; see `mlmm.kernels.library.decide_kernel`."""
    problem = None if device.type == "cpu" else f"device {device}"
    return decide_kernel(kernel, "AMP-BMS", problem, _library) == "native"


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mlmm_amp_has.argtypes = [integer]
    library.mlmm_amp_new.argtypes = [integer, ctypes.c_int, pointer, pointer]
    library.mlmm_amp_forward.argtypes = [
        *(integer, integer, pointer, pointer, integer, pointer, pointer),
        *(ctypes.c_double, pointer, pointer, pointer),
    ]
    library.mlmm_amp_backward.argtypes = [pointer] * 4
    library.mlmm_amp_release.argtypes = [pointer]
    library.mlmm_amp_release.restype = None
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    """The best build for this processor."""
    return open_build("the compiled kernel of AMP-BMS", _load)


def _check(code: int) -> None:
    if code:
        raise PotentialError(*_PROBLEMS[code], "bind the potential to these atoms again")


def _evaluate(
    positions: torch.Tensor,
    sources: torch.Tensor,
    source_charges: torch.Tensor,
    cell: torch.Tensor | None,
    species: torch.Tensor,
    charge_width: float,
    model: int,
) -> tuple[torch.Tensor, Held]:
    """Outputs (n, 15), and what their gradient needs."""
    n, m = species.shape[0], source_charges.shape[0]
    if positions.shape != (n, 3) or sources.shape != (m, 3):
        raise PotentialError(
            f"positions of shapes ({n}, 3) and ({m}, 3)",
            f"{tuple(positions.shape)} and {tuple(sources.shape)}",
            "bind the potential to these atoms",
        )
    x, s, c = (t.detach().to(torch.float64).contiguous() for t in (positions, sources, source_charges))
    if cell is not None:
        cell = cell.detach().to(torch.float64).contiguous()
    species = species.to(torch.int64).contiguous()
    outputs = torch.empty(n, _OUTPUTS, dtype=torch.float64)
    library, pointer = _library(), ctypes.c_void_p()
    code = library.mlmm_amp_forward(
        model,
        n,
        x.data_ptr(),
        species.data_ptr(),
        m,
        s.data_ptr(),
        c.data_ptr(),
        charge_width,
        None if cell is None else cell.data_ptr(),
        outputs.data_ptr(),
        ctypes.byref(pointer),
    )
    _check(code)
    return outputs, Held(library, library.mlmm_amp_release, pointer)


def _backward(held: Held, by_outputs: torch.Tensor, gradients: list[torch.Tensor]) -> None:
    where = [gradient.data_ptr() for gradient in gradients]
    _check(held.library.mlmm_amp_backward(held.pointer, by_outputs.data_ptr(), *where))


define_operator(
    "amp_network(Tensor positions, Tensor sources, Tensor source_charges, Tensor? cell, Tensor species,"
    " float charge_width, int model) -> Tensor",
    _evaluate,
    _backward,
    differentiable=2,
    cell=3,
)


def load_amp_weights(weights: AMPWeights, twofold: bool, polarisation_scaling: float) -> int:
    """Give the library the networks; returns the number of the model.

    Parameters
    ----------
    weights : AMPWeights
    twofold : bool
        Networks in float64 instead of float32.
    polarisation_scaling : float
    """
    elements = weights.tensor("node_embedding.embedding.weight", torch.float64)
    hidden, bias = weights.linear("B_coefficients.0", torch.float64)
    assert bias is not None
    values = [
        elements,
        weights.tensor("radial_embedding.frequencies", torch.float64),
        torch.tensor([MESSAGE_CUTOFF]),
        weights.tensor("radial_embedding_qmmm.frequencies", torch.float64),
        hidden,
        bias,
        weights.linear(f"B_coefficients.{weights.layers('B_coefficients')[1]}", torch.float64)[0],
        torch.tensor([POLARISATION_CUTOFF, polarisation_scaling], dtype=torch.float64),
    ]
    shapes = [elements.shape[0]]
    for part in _PARTS:
        numbers = weights.layers(part)
        shapes.append(len(numbers))
        for number in numbers:
            matrix, offset = weights.linear(f"{part}.{number}", torch.float64)
            shapes += [*matrix.shape, int(offset is not None)]
            values += [matrix] if offset is None else [matrix, offset]
    blob = np.concatenate([value.to(torch.float64).numpy().ravel() for value in values])
    digest = hashlib.blake2b(f"amp {twofold} {shapes}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(blob).data)
    model = int.from_bytes(digest.digest(), "little") >> 1
    library = _library()
    if not library.mlmm_amp_has(model):
        sizes = np.array(shapes, dtype=np.int64)
        _check(library.mlmm_amp_new(model, int(twofold), sizes.ctypes.data, blob.ctypes.data))
    return model
