"""ANI committees on their way into a force of the plugin: by name, file or value, as plain arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmm.elements import SYMBOLS, element_names
from mlmm.errors import PotentialError
from mlmm.plugin.library import call
from mlmm.units import ANGSTROM, HARTREE

if TYPE_CHECKING:
    from mlmm.potentials.ani.neurochem import ANIParameters

__all__ = ["addresses", "find_committee", "give_networks", "symbols_of"]


def addresses(*arrays: np.ndarray) -> list[int]:
    """Where arrays lie in memory, for ctypes."""
    return [array.ctypes.data for array in arrays]


def find_committee(parameters: Any) -> ANIParameters:
    """The networks themselves, those of a potential, or by name or file."""
    from mlmm.potentials.ani.files import find_parameters
    from mlmm.potentials.ani.neurochem import ANIParameters

    if isinstance(parameters, ANIParameters):
        return parameters
    if isinstance(parameters, str):
        return find_parameters(parameters)
    raise PotentialError(
        "an ANI potential for an ANIForce: a name, a file or ANIParameters",
        type(parameters).__name__,
        'write the name, such as "ani2x", or use mlmm.hybrid_system for potentials of other families',
    )


def symbols_of(parameters: ANIParameters, numbers: Sequence[int]) -> list[str]:
    """Symbols of atomic numbers that the networks know (PotentialError for others)."""
    known = {SYMBOLS.index(symbol) for symbol in parameters.elements}
    unknown = sorted({int(number) for number in numbers} - known)
    if unknown:
        raise PotentialError(
            f"elements {element_names(sorted(known))} of the ANI networks",
            element_names(unknown),
            "choose a potential that knows them, or leave these particles out",
        )
    return [SYMBOLS[int(number)] for number in numbers]


def give_networks(force: int, parameters: ANIParameters, symbols: set[str]) -> None:
    """Hand the committee over, with the networks of the elements that are there."""
    constants = parameters.constants
    lists = []
    for rows, columns in (("EtaR", "ShfR"), ("EtaA", "ShfA"), ("Zeta", "ShfZ")):
        first, second = np.meshgrid(constants[rows], constants[columns], indexing="ij")
        lists += [first.ravel(), second.ravel()]
    scalars = [float(constants["Rcr"]), float(constants["Rca"]), 1.0 / ANGSTROM, HARTREE]
    values = np.concatenate([scalars, *lists]).astype(np.float64)
    sizes = np.array([len(lists[0]), len(lists[2]), len(lists[4]), parameters.members], dtype=np.int64)
    made = ctypes.c_void_p()
    names = " ".join(parameters.elements).encode()
    call("mlmm_plugin_committee", names, *addresses(sizes, values), ctypes.byref(made))
    try:
        for symbol in sorted(symbols):
            weights = [np.ascontiguousarray(w, dtype=np.float32) for w in parameters.weights[symbol]]
            biases = [np.ascontiguousarray(b, dtype=np.float32) for b in parameters.biases[symbol]]
            widths = np.array([w.shape[1] for w in weights], dtype=np.int64)
            counts = np.array(
                [[w.size, b.size] for w, b in zip(weights, biases, strict=True)], dtype=np.int64
            )
            pointers = [(ctypes.c_void_p * len(a))(*addresses(*a)) for a in (weights, biases)]
            place = parameters.elements.index(symbol)
            call("mlmm_plugin_element", made, place, len(widths), *addresses(widths, counts), *pointers)
    except BaseException:
        call("mlmm_plugin_give", made, None)
        raise
    call("mlmm_plugin_give", made, force)
