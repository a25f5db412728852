"""Files of ANI committees, and committees by name; without torch.

One safetensors file holds float32 weights, float64 constants and what the potential is; a folder in
NeuroChem format is read by `mlmm.potentials.ani.neurochem`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.errors import PotentialError
from mlmm.potentials.ani.neurochem import ANIParameters, read_neurochem
from mlmm.potentials.known import installed_file, known_by_name, known_potentials
from mlmm.potentials.safetensors_files import write_safetensors

__all__ = ["find_parameters", "load_ani_file", "save_ani_file"]


def find_parameters(name: str) -> ANIParameters:
    """The committee of a name, a file or a folder in NeuroChem format.

    Raises
    ------
    PotentialError
        An unknown name, a potential of another family, or weights that are missing or damaged.
    """
    known = known_by_name(name)
    if known is not None and known.kind == "ani":
        path = installed_file(known)
    elif known is None and Path(name).exists():
        path = Path(name)
    else:
        names = ", ".join(other.name for other in known_potentials() if other.kind == "ani")
        raise PotentialError(
            f"ANI networks by name ({names}), a file or a folder",
            repr(name) if known is None else f"{name}, which is of another family",
            "write one of these names; other potentials go through mlmm.hybrid_system",
        )
    return read_neurochem(path) if path.is_dir() else load_ani_file(path)[0]


def save_ani_file(parameters: ANIParameters, path: str | Path, about: Mapping[str, Any]) -> None:
    """Write a committee to one safetensors file: float32 weights, float64 constants, metadata."""
    tensors = {f"constants.{name}": np.atleast_1d(value) for name, value in parameters.constants.items()}
    tensors["self_energies"] = parameters.self_energies
    for element in parameters.elements:
        for k, (weight, bias) in enumerate(
            zip(parameters.weights[element], parameters.biases[element], strict=True)
        ):
            tensors[f"{element}.{k}.weight"] = np.ascontiguousarray(weight)
            tensors[f"{element}.{k}.bias"] = np.ascontiguousarray(bias)
    write_safetensors(path, "ani", tensors, {**about, "elements": parameters.elements})


def load_ani_file(path: str | Path) -> tuple[ANIParameters, dict[str, Any]]:
    """Read a file of `save_ani_file`; returns the parameters and the metadata.

    Raises
    ------
    PotentialError
        A file that is missing, damaged or not an ANI committee.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {})["ani"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        elements = tuple(about.pop("elements"))
        constants = {
            name.removeprefix("constants."): value
            if len(value) > 1 or name[-3:] not in ("Rcr", "Rca")
            else value[0]
            for name, value in tensors.items()
            if name.startswith("constants.")
        }
        depth = max(int(name.split(".")[1]) for name in tensors if name.endswith(".weight")) + 1
        weights = {e: [tensors[f"{e}.{k}.weight"] for k in range(depth)] for e in elements}
        biases = {e: [tensors[f"{e}.{k}.bias"] for k in range(depth)] for e in elements}
        parameters = ANIParameters(elements, constants, tensors["self_energies"], weights, biases)
        for name, value in tensors.items():
            if not np.isfinite(value).all():
                raise PotentialError(
                    f"finite weights in {path}", f"NaN or infinity in {name}", "get the file again"
                )
    except PotentialError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PotentialError(
            f"an ANI committee in {path}", f"{type(error).__name__}: {error}", "install the package again"
        ) from error
    return parameters, about
