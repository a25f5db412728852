"""Reader of the NeuroChem folder format in which the ANI networks are published.

A folder holds one ``*.params`` file (symmetry functions), ``sae_linfit.dat`` (isolated-atom energies) and a
folder ``train<k>`` for each member, with one ``.nnf`` description and raw float32 weight files for each
element.
"""

from __future__ import annotations

import bz2
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlmm.errors import PotentialError

__all__ = ["ANIParameters", "read_neurochem"]

_CELU, _LINEAR = 9, 6  # NeuroChem's codes: CELU with alpha = 0.1; no activation


@dataclass(frozen=True)
class ANIParameters:
    """Everything that defines an ANI potential, in its own units (angstrom, hartree).

    Parameters
    ----------
    elements : tuple of str
        Symbols in the order of the symmetry functions.
    constants : dict of str to ndarray
        ``Rcr, Rca`` (scalars), ``EtaR, ShfR, EtaA, Zeta, ShfA, ShfZ``: eqs. 3 and 4 of doi
        10.1039/C6SC05720A.
    self_energies : ndarray, shape (elements,), float64
        Isolated-atom energies, hartree.
    weights, biases : dict of str to list of ndarray
        For each element and layer: (members, outputs, inputs) and (members, outputs), float32.
    """

    elements: tuple[str, ...]
    constants: dict[str, np.ndarray]
    self_energies: np.ndarray
    weights: dict[str, list[np.ndarray]]
    biases: dict[str, list[np.ndarray]]

    @property
    def members(self) -> int:
        """Number of members of the committee."""
        return len(self.weights[self.elements[0]][0])


def read_neurochem(folder: str | Path) -> ANIParameters:
    """Read a committee of ANI networks from a NeuroChem folder.

    Parameters
    ----------
    folder : path
        For instance ``ani-2x_8x``, which holds ``train0`` … ``train7``.

    Raises
    ------
    PotentialError
        A file that is missing, of another size than declared, or with an activation that ANI does not use.
    """
    folder = Path(folder)
    settings = sorted(folder.glob("*.params"))
    if len(settings) != 1:
        raise PotentialError(
            f"one *.params file in {folder}",
            f"{len(settings)} of them",
            "give the folder that holds train0, train1, …",
        )
    constants, elements = _read_constants(settings[0])
    # Some published folders also hold an empty file called train.
    found = [path for path in folder.glob("train*") if path.is_dir()]
    members = sorted(found, key=lambda path: int(re.sub(r"\D", "", path.name) or -1))
    if not members:
        raise PotentialError(
            f"folders train0, train1, … in {folder}", "none", "copy the whole published folder"
        )
    weights: dict[str, list[np.ndarray]] = {}
    biases: dict[str, list[np.ndarray]] = {}
    for element in elements:
        networks = [_read_network(member / "networks", element) for member in members]
        weights[element] = [
            np.stack(layer) for layer in zip(*(network[0] for network in networks), strict=True)
        ]
        biases[element] = [
            np.stack(layer) for layer in zip(*(network[1] for network in networks), strict=True)
        ]
    return ANIParameters(
        elements, constants, _read_self_energies(folder / "sae_linfit.dat", elements), weights, biases
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PotentialError(
            f"the file {path.name}", str(error), "copy the whole published folder"
        ) from error


def _read_constants(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Symmetry-function constants and the order of the elements."""
    values = dict(re.findall(r"(\w+)\s*=\s*\[?([^\]\n]+)\]?", _read_text(path)))
    try:
        constants = {
            name: np.array([float(x) for x in values[name].split(",")])
            for name in ("EtaR", "ShfR", "EtaA", "Zeta", "ShfA", "ShfZ")
        }
        constants |= {name: np.array(float(values[name])) for name in ("Rcr", "Rca")}
        return constants, tuple(symbol.strip() for symbol in values["Atyp"].split(","))
    except (KeyError, ValueError) as error:
        raise PotentialError(
            f"ANI constants in {path}", f"no usable {error}", "copy the published file again"
        ) from error


def _read_self_energies(path: Path, elements: tuple[str, ...]) -> np.ndarray:
    """Isolated-atom energies (hartree) in the order of the elements."""
    found = {symbol: float(energy) for symbol, energy in re.findall(r"(\w+),\d+=(\S+)", _read_text(path))}
    missing = [symbol for symbol in elements if symbol not in found]
    if missing:
        raise PotentialError(
            f"self energies in {path}", f"none for {missing}", "copy the published file again"
        )
    return np.array([found[symbol] for symbol in elements])


def _read_network(folder: Path, element: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights (outputs, inputs) and biases (outputs,) of one member's network for one element."""
    path = folder / f"ANN-{element}.nnf"
    try:
        raw = path.read_bytes()
        # A decimal length, "=", a newline, then a bzip2 stream.
        text = bz2.decompress(raw[raw.index(b"=") + 2 :]).decode("ascii")
    except (OSError, ValueError) as error:
        raise PotentialError(
            f"a NeuroChem network in {path}", str(error), "copy the published folder again"
        ) from error
    size = re.search(r"inputsize=(\d+);", text)
    if size is None:
        raise PotentialError(f"inputsize=… in {path}", "none", "copy the published folder again")
    inputs = int(size[1])
    layers = re.findall(
        r"nodes=(\d+);\s*activation=(\d+);.*?weights=FILE:([^\[]+)\[(\d+)\];\s*biases=FILE:([^\[]+)\[(\d+)\];",
        text,
        re.DOTALL,
    )
    activations = [int(layer[1]) for layer in layers]
    if not layers or activations != [_CELU] * (len(layers) - 1) + [_LINEAR]:
        raise PotentialError(
            f"CELU layers and a linear one in {path}", f"activations {activations}", "use an ANI model"
        )
    weights, biases = [], []
    for nodes, _, weight_file, _, bias_file, _ in layers:
        outputs = int(nodes)
        weights.append(_read_floats(folder / weight_file, outputs * inputs).reshape(outputs, inputs))
        biases.append(_read_floats(folder / bias_file, outputs))
        inputs = outputs
    return weights, biases


def _read_floats(path: Path, count: int) -> np.ndarray:
    try:
        values = np.fromfile(path, dtype="<f4")
    except OSError as error:
        raise PotentialError(
            f"the weight file {path}", str(error), "copy the published folder again"
        ) from error
    if values.size != count or not np.isfinite(values).all():
        raise PotentialError(
            f"{count} finite numbers in {path}", f"{values.size}", "copy the published folder again"
        )
    return values
