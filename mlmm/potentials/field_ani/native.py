"""Field-aware ANI compiled for the processor: the library and its torch operator.

The operator ``mlmm::field_ani`` has energies, charges and dipoles of the atoms as its value, with analytic
derivatives in the positions and in the potential of the surroundings and its gradient. The library keeps
packed weights under a number made from their content, so that copies of a module in the process find them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.errors import PotentialError
from mlmm.kernels.library import Held, decide_kernel, open_build
from mlmm.kernels.operators import define_operator
from mlmm.potentials.ani.native import functions_of, has_one_output
from mlmm.potentials.field_ani.parameters import UNIT, FieldANIParameters
from mlmm.units import ANGSTROM, COULOMB

__all__ = ["choose_field_kernel", "load_field_weights"]

_COLUMNS = 5  # energy, charge, dipole
# Below so many atoms a second thread costs more than it saves.
_ATOMS_PER_THREAD = 4
_PROBLEMS = {
    1: ("a model whose weights this process has loaded", "an unknown one: a module saved by another process"),
    2: ("networks for every element", "an element that the module was not bound to"),
    3: ("elements that exist", "an index out of range"),
    4: ("enough memory", "none left"),
    5: ("networks with one energy, and three outputs for the field", "other shapes"),
}


def choose_field_kernel(kernel: str, parameters: FieldANIParameters, device: torch.device) -> bool:
    """Whether the model runs in the compiled kernel; see `mlmm.kernels.library.decide_kernel`."""
    problem = None
    if device.type != "cpu":
        problem = f"device {device}"
    elif not has_one_output(parameters.ani):
        problem = "networks with several outputs"
    return decide_kernel(kernel, "field-aware ANI", problem, _library) == "native"


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.mlmm_field_new.argtypes = [integer, number, pointer, pointer, pointer]
    library.mlmm_field_has.argtypes = [integer, number]
    library.mlmm_field_element.argtypes = [
        *(integer, number),
        *(number, pointer, pointer, pointer),
        *(number, pointer, pointer, pointer),
        pointer,
    ]
    library.mlmm_field_forward.argtypes = [
        *(integer, integer, pointer, pointer, pointer, pointer, pointer),
        *(ctypes.c_double, number, pointer, pointer),
    ]
    library.mlmm_field_backward.argtypes = [pointer, pointer, number, *[pointer] * 3]
    library.mlmm_field_release.argtypes = [pointer]
    library.mlmm_field_release.restype = None
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    """The best build for this processor."""
    return open_build("the compiled kernel of field-aware ANI", _load)


def _check(code: int) -> None:
    if code:
        raise PotentialError(*_PROBLEMS[code], "bind the potential to these atoms again")


def _threads(atoms: int) -> int:
    """As many as torch would use, where there is work for them."""
    return max(1, min(torch.get_num_threads(), atoms // _ATOMS_PER_THREAD))


def _evaluate(
    positions: torch.Tensor,
    potential: torch.Tensor,
    gradient: torch.Tensor,
    cell: torch.Tensor | None,
    species: torch.Tensor,
    total: float,
    model: int,
) -> tuple[torch.Tensor, Held]:
    """Outputs (n, 5), and what their gradient needs."""
    n = species.shape[0]
    given = (positions, potential, gradient)
    expected = [(n, 3), (n,), (n, 3)]
    if [tuple(tensor.shape) for tensor in given] != expected:
        raise PotentialError(
            f"positions, potential and gradient of shapes {expected}",
            str([tuple(tensor.shape) for tensor in given]),
            "bind the potential to these atoms",
        )
    x, phi, slope = (tensor.detach().to(torch.float64).contiguous() for tensor in given)
    if cell is not None:
        cell = cell.detach().to(torch.float64).contiguous()
        if cell.shape != (3, 3):
            raise PotentialError(
                "a cell of shape (3, 3)", str(tuple(cell.shape)), "pass the box vectors in rows"
            )
    species = species.to(torch.int64).contiguous()
    outputs = torch.empty(n, _COLUMNS, dtype=torch.float64)
    library, pointer = _library(), ctypes.c_void_p()
    code = library.mlmm_field_forward(
        model,
        n,
        x.data_ptr(),
        None if cell is None else cell.data_ptr(),
        species.data_ptr(),
        phi.data_ptr(),
        slope.data_ptr(),
        total,
        _threads(n),
        outputs.data_ptr(),
        ctypes.byref(pointer),
    )
    _check(code)
    return outputs, Held(library, library.mlmm_field_release, pointer)


def _backward(held: Held, by_outputs: torch.Tensor, gradients: list[torch.Tensor]) -> None:
    where = [gradient.data_ptr() for gradient in gradients]
    threads = _threads(by_outputs.shape[0])
    _check(held.library.mlmm_field_backward(held.pointer, by_outputs.data_ptr(), threads, *where))


define_operator(
    "field_ani(Tensor positions, Tensor potential, Tensor gradient, Tensor? cell, Tensor species,"
    " float total, int model) -> Tensor",
    _evaluate,
    _backward,
    differentiable=3,
    cell=3,
)


def load_field_weights(parameters: FieldANIParameters, twofold: bool, elements: Iterable[int]) -> int:
    """Give the library the networks of some elements; returns the number of the model.

    Parameters
    ----------
    parameters : FieldANIParameters
    twofold : bool
        Networks in float64 instead of float32.
    elements : iterable of int
        Places in ``parameters.ani.elements``.
    """
    library, model = _library(), _content_number(parameters, twofold)
    sizes, values = functions_of(parameters.ani)
    units = np.array([UNIT, COULOMB / ANGSTROM, ANGSTROM])
    _check(
        library.mlmm_field_new(model, int(twofold), sizes.ctypes.data, values.ctypes.data, units.ctypes.data)
    )
    for element in elements:
        if library.mlmm_field_has(model, element):
            continue
        name = parameters.ani.elements[element]
        energy = _Layers(parameters.ani.weights[name], parameters.ani.biases[name], 1)
        field = _Layers(parameters.weights[name], parameters.biases[name], 0)
        constants = np.ascontiguousarray(parameters.constants[name], dtype=np.float64)
        arguments = [*energy.arguments, *field.arguments, constants.ctypes.data]
        _check(library.mlmm_field_element(model, element, *arguments))
    return model


class _Layers:
    """Layers of one element as the library takes them, alive as long as this object."""

    def __init__(self, weights: Iterable[np.ndarray], biases: Iterable[np.ndarray], axis: int):
        self.arrays = [[np.ascontiguousarray(a, dtype=np.float64) for a in k] for k in (weights, biases)]
        self.widths = np.array([array.shape[axis] for array in self.arrays[0]], dtype=np.int64)
        self.pointers = [(ctypes.c_void_p * len(k))(*(a.ctypes.data for a in k)) for k in self.arrays]

    @property
    def arguments(self) -> list[Any]:
        """Number of layers, widths, weights and biases."""
        return [len(self.widths), self.widths.ctypes.data, *self.pointers]


def _content_number(parameters: FieldANIParameters, twofold: bool) -> int:
    """63 bits of a hash of everything that defines the outputs."""
    ani = parameters.ani
    digest = hashlib.blake2b(f"field {twofold} {ani.elements}".encode(), digest_size=8)
    for name in sorted(ani.constants):
        digest.update(f"{name} {np.asarray(ani.constants[name], dtype=np.float64).tolist()}".encode())
    for e in ani.elements:
        layers = (*ani.weights[e], *ani.biases[e], *parameters.weights[e], *parameters.biases[e])
        for array in (*layers, parameters.constants[e]):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return int.from_bytes(digest.digest(), "little") >> 1
