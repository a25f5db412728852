"""What a field-aware ANI potential is made of, and its file.

Beside the ANI networks each element has a network of one more kind, with three outputs of the symmetry
functions, and constants. With softplus s(x) = log(1 + exp(x)),

    chi = U (h_0 + c_chi),    alpha = s(h_1 + c_alpha) Å³,    J = U s(h_2 + c_J),    w = s(c_w) Å,

U = 100 kcal/mol per e or e².
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlmm.errors import PotentialError
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.safetensors_files import write_safetensors
from mlmm.units import KILOCALORIE

__all__ = [
    "CONSTANTS",
    "OUTPUTS",
    "UNIT",
    "FieldANIParameters",
    "load_field_ani",
    "save_field_ani",
    "start_constants",
]

#: kJ/mol per e or e².
UNIT = 100.0 * KILOCALORIE
#: Columns of the constants of an element.
CONSTANTS = ("chi", "alpha", "hardness", "width")
#: Of the networks of the field: electronegativity, polarisability, hardness.
OUTPUTS = 3
# Widths at the start, softplus(0.54) = 1 Å, as of valence shells; carbon is a little wider.
_WIDTHS = {"H": 0.54, "C": 0.7, "N": 0.6, "O": 0.54, "S": 1.0, "F": 0.4, "Cl": 0.9}


@dataclass(frozen=True)
class FieldANIParameters:
    """Networks and constants.

    Parameters
    ----------
    ani : ANIParameters
        Symmetry functions and the networks of the energy; one member.
    weights, biases : dict of str to list of ndarray
        Of the networks of the field, by element: (outputs, inputs) and (outputs,) of each layer; SiLU
        between.
    constants : dict of str to ndarray, shape (4,)
        By element, in the order of `CONSTANTS`.
    """

    ani: ANIParameters
    weights: Mapping[str, list[np.ndarray]]
    biases: Mapping[str, list[np.ndarray]]
    constants: Mapping[str, np.ndarray]


def start_constants(element: str) -> np.ndarray:
    """Constants of an element at the start of a training.

    No electronegativity, hardly any polarisability, and little more hardness than a smooth charge has.
    """
    return np.array([0.0, -5.0, -1.5, _WIDTHS.get(element, 0.7)], dtype=np.float64)


def save_field_ani(parameters: FieldANIParameters, path: str | Path, about: Mapping[str, str]) -> None:
    """Write one safetensors file: float32 weights, float64 constants, and what the potential is."""
    ani = parameters.ani
    tensors = {f"constants.{name}": np.atleast_1d(value) for name, value in ani.constants.items()}
    tensors["self_energies"] = ani.self_energies
    for element in ani.elements:
        for kind, weights, biases in (
            ("energy", ani.weights, ani.biases),
            ("field", parameters.weights, parameters.biases),
        ):
            for k, (weight, bias) in enumerate(zip(weights[element], biases[element], strict=True)):
                tensors[f"{kind}.{element}.{k}.weight"] = np.ascontiguousarray(weight)
                tensors[f"{kind}.{element}.{k}.bias"] = np.ascontiguousarray(bias)
        tensors[f"field.{element}.constants"] = np.asarray(parameters.constants[element], dtype=np.float64)
    write_safetensors(path, "field_ani", tensors, {**about, "elements": ani.elements, "field": "qeq"})


def load_field_ani(path: str | Path) -> tuple[FieldANIParameters, dict[str, str]]:
    """Read a file of `save_field_ani`; returns parameters and what the potential is.

    Raises
    ------
    PotentialError
        A file that cannot be read, that is damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {})["field_ani"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        elements = tuple(about.pop("elements"))
        if about.pop("field") != "qeq":
            raise KeyError("field = qeq")
        constants = {
            name.removeprefix("constants."): value[0] if name.endswith(("Rcr", "Rca")) else value
            for name, value in tensors.items()
            if name.startswith("constants.")
        }
        layers: dict[tuple[str, str, str], list[np.ndarray]] = {}
        for kind in ("energy", "field"):
            for element in elements:
                count = len(
                    [n for n in tensors if n.startswith(f"{kind}.{element}.") and n.endswith(".bias")]
                )
                for part in ("weight", "bias"):
                    layers[kind, element, part] = [
                        tensors[f"{kind}.{element}.{k}.{part}"] for k in range(count)
                    ]
        broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
        if broken:
            raise PotentialError(
                f"finite weights in {path}", f"NaN or infinity in {', '.join(broken)}", "get the file again"
            )
        ani = ANIParameters(
            elements,
            constants,
            tensors["self_energies"],
            {e: layers["energy", e, "weight"] for e in elements},
            {e: layers["energy", e, "bias"] for e in elements},
        )
        parameters = FieldANIParameters(
            ani,
            {e: layers["field", e, "weight"] for e in elements},
            {e: layers["field", e, "bias"] for e in elements},
            {e: tensors[f"field.{e}.constants"] for e in elements},
        )
    except PotentialError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PotentialError(
            f"field-aware ANI networks in {path}", f"{type(error).__name__}: {error}", "train them again"
        ) from error
    return parameters, about
