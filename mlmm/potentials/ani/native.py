"""ANI networks compiled for the processor: the library and its torch operator, eager or in TorchScript.

The operator ``mlmm::ani_energies`` has the energies of the atoms as its value and analytic derivatives in the
positions. The library keeps packed weights under a number made from their content, so that copies of a module
inside the process find them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.kernels.library import KERNELS, Held, decide_kernel, open_build
from mlmm.modules import Module
from mlmm.potentials.ani.networks import ANINetworks
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.symmetry_functions import grid
from mlmm.units import ANGSTROM, HARTREE

__all__ = [
    "KERNELS",
    "NativeANI",
    "choose_kernel",
    "functions_of",
    "has_one_output",
    "instruction_set",
    "load_weights",
]

# Below so many centres a second thread costs more than it saves.
_CENTRES_PER_THREAD = 4
_PROBLEMS = {
    1: ("a model whose weights this process has loaded", "an unknown one: a module saved by another process"),
    2: ("networks for every element of a centre", "an element that the module was not bound to"),
    3: ("atoms and elements that exist", "an index out of range"),
    4: ("enough memory", "none left"),
    5: ("networks with one energy for each member", "another shape"),
}


def choose_kernel(kernel: str, parameters: ANIParameters, device: torch.device) -> str:
    """Resolve ``"auto"``: compiled on the processor where the library is there, else torch.

    Parameters
    ----------
    kernel : {"auto", "torch", "native"}
        "auto" yields to the environment variable ``MLMM_KERNEL``, if it is set.
    parameters : ANIParameters
    device : torch.device

    Returns
    -------
    str
        ``"torch"`` or ``"native"``.

    Raises
    ------
    PotentialError
        Another word, or the compiled kernel for another device or for networks that it cannot hold.
    MissingPackageError
        The compiled kernel where it was not built.
    """
    problem = None
    if device.type != "cpu":
        problem = f"device {device}"
    elif not has_one_output(parameters):
        problem = "networks with several outputs"
    return decide_kernel(kernel, "ANI networks", problem, _library)


def has_one_output(parameters: ANIParameters) -> bool:
    """Whether each network ends in the energy alone."""
    return all(parameters.weights[element][-1].shape[1] == 1 for element in parameters.elements)


def instruction_set() -> str | None:
    """Which build of the library runs here (``x86-64-v4``, ``x86-64-v3``, ``generic``); None without one."""
    try:
        return _library().mlmm_ani_level().decode()
    except MissingPackageError:
        return None


def _load(path: Path) -> ctypes.CDLL:
    """One build, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mlmm_ani_level.restype = ctypes.c_char_p
    library.mlmm_ani_has.argtypes = [integer, ctypes.c_int]
    library.mlmm_ani_new.argtypes = [integer, ctypes.c_int, pointer, pointer]
    library.mlmm_ani_element.argtypes = [integer, ctypes.c_int, ctypes.c_int, pointer, pointer, pointer]
    library.mlmm_ani_forward.argtypes = [
        *(integer, integer, pointer, pointer, pointer, integer, pointer),
        *(integer, ctypes.c_int, pointer, pointer),
    ]
    library.mlmm_ani_backward.argtypes = [pointer, pointer, ctypes.c_int, pointer]
    library.mlmm_ani_release.argtypes = [pointer]
    library.mlmm_ani_release.restype = None
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    """The best build for this processor."""
    return open_build("the compiled ANI kernel", _load)


def _check(code: int) -> None:
    if code:
        raise PotentialError(*_PROBLEMS[code], "bind the potential to these atoms again")


def _evaluate(
    positions: torch.Tensor,
    cell: torch.Tensor | None,
    species: torch.Tensor,
    centres: torch.Tensor,
    model: int,
    members: int,
    threads: int,
    keep: bool,
) -> tuple[torch.Tensor, Held | None]:
    """Energies (members, C) and, if wanted, what their gradient needs."""
    positions = positions.detach().to(torch.float64).contiguous()
    if positions.dim() != 2 or positions.shape[1] != 3 or species.shape != positions.shape[:1]:
        raise PotentialError(
            "positions (N, 3) of the atoms that the module was bound to",
            f"{tuple(positions.shape)} for {species.shape[0]} atoms",
            "bind the potential to these atoms",
        )
    if cell is not None:
        cell = cell.detach().to(torch.float64).contiguous()
        if cell.shape != (3, 3):
            raise PotentialError(
                "a cell of shape (3, 3)", str(tuple(cell.shape)), "pass the box vectors in rows"
            )
    species, centres = species.to(torch.int64).contiguous(), centres.to(torch.int64).contiguous()
    energies = torch.empty(members, centres.shape[0], dtype=torch.float64)
    library, held = _library(), ctypes.c_void_p()
    code = library.mlmm_ani_forward(
        model,
        positions.shape[0],
        positions.data_ptr(),
        None if cell is None else cell.data_ptr(),
        species.data_ptr(),
        centres.shape[0],
        centres.data_ptr(),
        members,
        threads,
        energies.data_ptr(),
        ctypes.byref(held) if keep else None,
    )
    _check(code)
    return energies, Held(library, library.mlmm_ani_release, held) if keep else None


class _Energies(torch.autograd.Function):
    """The operator with its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        positions: torch.Tensor,
        cell: torch.Tensor | None,
        species: torch.Tensor,
        centres: torch.Tensor,
        model: int,
        members: int,
        threads: int,
    ) -> torch.Tensor:
        energies, ctx.held = _evaluate(positions, cell, species, centres, model, members, threads, True)
        ctx.positions, ctx.threads = (positions.shape, positions.dtype), threads
        return energies

    @staticmethod
    def backward(ctx: Any, by_energy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise PotentialError(
                "first derivatives of the compiled kernel", "create_graph=True", 'write kernel = "torch"'
            )
        shape, dtype = ctx.positions
        gradient = torch.zeros(shape, dtype=torch.float64)
        by_energy = by_energy.to(torch.float64).contiguous()
        held = ctx.held
        _check(
            held.library.mlmm_ani_backward(
                held.pointer, by_energy.data_ptr(), ctx.threads, gradient.data_ptr()
            )
        )
        return gradient.to(dtype), None, None, None, None, None, None


def _energies(
    positions: torch.Tensor,
    cell: torch.Tensor | None,
    species: torch.Tensor,
    centres: torch.Tensor,
    model: int,
    members: int,
) -> torch.Tensor:
    """The operator without gradient."""
    threads = _threads(centres.shape[0])
    return _evaluate(positions, cell, species, centres, model, members, threads, False)[0]


def _differentiable(
    positions: torch.Tensor,
    cell: torch.Tensor | None,
    species: torch.Tensor,
    centres: torch.Tensor,
    model: int,
    members: int,
) -> torch.Tensor:
    """The operator where a gradient may be wanted."""
    if cell is not None and cell.requires_grad:
        raise PotentialError(
            "a cell without gradient",
            "one that requires it",
            'write kernel = "torch" for derivatives in the cell',
        )
    if not (positions.requires_grad and torch.is_grad_enabled()):
        return _energies(positions, cell, species, centres, model, members)
    threads = _threads(centres.shape[0])
    return _Energies.apply(positions, cell, species, centres, model, members, threads)


def _threads(centres: int) -> int:
    """As many as torch would use, where there is work for them."""
    return max(1, min(torch.get_num_threads(), centres // _CENTRES_PER_THREAD))


# Kept alive with the module: the operator goes when its library goes.
_OPERATORS = torch.library.Library("mlmm", "DEF")
_OPERATORS.define(
    "ani_energies(Tensor positions, Tensor? cell, Tensor species, Tensor centres, int model, int members)"
    " -> Tensor"
)
_OPERATORS.impl("ani_energies", _energies, "CPU")
_OPERATORS.impl("ani_energies", _differentiable, "AutogradCPU")


class NativeANI(Module):
    """Per-atom ANI energies by the compiled kernel; TorchScript can compile it.

    Parameters
    ----------
    networks : ANINetworks
        The same in torch, bound to the atoms: what is used where a host moves the module to another device.
    parameters : ANIParameters
    precision : {"float32", "float64"}
        Arithmetic of the networks; the symmetry functions are float64 always.
    """

    def __init__(self, networks: ANINetworks, parameters: ANIParameters, precision: str):
        super().__init__()
        self.networks = networks
        # Where a CUDA graph is captured, it is the networks in torch that run.
        self.capturable = networks.capturable
        functions = networks.symmetry_functions
        self.species = torch.nn.Buffer(functions.species)
        self.centres = torch.nn.Buffer(functions.centres)
        self.members = parameters.members
        elements = [network.species for network in networks.networks]
        self.model = load_weights(parameters, precision, elements)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """As `ANINetworks.forward`: (members, C), kJ/mol, for positions (N, 3) and cell (3, 3) in nm."""
        if positions.device.type != "cpu":
            return self.networks(positions, cell, centres)
        central = self.centres if centres is None else centres
        return torch.ops.mlmm.ani_energies(positions, cell, self.species, central, self.model, self.members)


def load_weights(parameters: ANIParameters, precision: str, elements: list[int]) -> int:
    """Give the library the networks of some elements; returns the number of the model.

    Parameters
    ----------
    parameters : ANIParameters
    precision : {"float32", "float64"}
    elements : list of int
        Places in ``parameters.elements``.
    """
    library, model = _library(), _content_number(parameters, precision)
    sizes, values = functions_of(parameters)
    _check(library.mlmm_ani_new(model, precision == "float64", sizes.ctypes.data, values.ctypes.data))
    for element in elements:
        if library.mlmm_ani_has(model, element):
            continue
        name = parameters.elements[element]
        weights = [np.ascontiguousarray(w, dtype=np.float64) for w in parameters.weights[name]]
        biases = [np.ascontiguousarray(b, dtype=np.float64) for b in parameters.biases[name]]
        widths = np.array([w.shape[1] for w in weights], dtype=np.int64)
        pointers = [(ctypes.c_void_p * len(a))(*(x.ctypes.data for x in a)) for a in (weights, biases)]
        _check(library.mlmm_ani_element(model, element, len(widths), widths.ctypes.data, *pointers))
    return model


def functions_of(parameters: ANIParameters) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (5,) and constants of the symmetry functions, as the library takes them."""
    constants = parameters.constants
    eta_radial, shift_radial = grid(constants["EtaR"], constants["ShfR"])
    eta_angular, shift_angular = grid(constants["EtaA"], constants["ShfA"])
    zeta, angle = grid(constants["Zeta"], constants["ShfZ"])
    sizes = np.array(
        [len(parameters.elements), len(eta_radial), len(eta_angular), len(zeta), parameters.members],
        dtype=np.int64,
    )
    scales = [float(constants["Rcr"]), float(constants["Rca"]), 1.0 / ANGSTROM, HARTREE]
    lists = (eta_radial, shift_radial, eta_angular, shift_angular, zeta, angle)
    return sizes, np.concatenate([scales, *(values.numpy() for values in lists)]).astype(np.float64)


def _content_number(parameters: ANIParameters, precision: str) -> int:
    """63 bits of a hash of everything that defines the energies."""
    digest = hashlib.blake2b(f"{precision} {parameters.elements}".encode(), digest_size=8)
    for name in sorted(parameters.constants):
        digest.update(f"{name} {np.asarray(parameters.constants[name], dtype=np.float64).tolist()}".encode())
    for element in parameters.elements:
        for array in (*parameters.weights[element], *parameters.biases[element]):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return int.from_bytes(digest.digest(), "little") >> 1
