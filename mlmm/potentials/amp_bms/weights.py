"""Weights and tables of AMP-BMS as published: one safetensors file, its tables beside the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mlmm.errors import PotentialError
from mlmm.potentials.safetensors_files import write_safetensors

__all__ = ["AMPWeights", "read_amp_weights", "save_amp_weights"]


@dataclass(frozen=True)
class AMPWeights:
    """Tensors by their published names.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        float32 as published.
    about : dict
        Origin, licence and citation, from the file; of a training also its facts.
    """

    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]

    @property
    def bohr(self) -> float:
        """Length of the atomic unit that the model was made with, angstrom."""
        return float(self.about["bohr_angstrom"])

    @property
    def reference_energies(self) -> dict[int, float]:
        """Energies by atomic number that labels had and the model has not, kJ/mol; none as published."""
        found = self.about.get("reference_energies", {})
        return {int(number): float(energy) for number, energy in found.items()}

    @property
    def node_size(self) -> int:
        """Features of an atom."""
        return self.tensors["node_embedding.embedding.weight"].shape[1]

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor in another precision."""
        return self.tensors[name].to(dtype)

    def layers(self, prefix: str) -> list[int]:
        """Numbers of the linear layers below a prefix, in their order."""
        names = [name.removeprefix(prefix + ".") for name in self.tensors if name.startswith(prefix + ".")]
        return sorted({int(name.split(".")[0]) for name in names})

    def linear(self, prefix: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Matrix and bias, None where the layer has none."""
        bias = self.tensors.get(f"{prefix}.bias")
        return self.tensor(f"{prefix}.weight", dtype), None if bias is None else bias.to(dtype)


def read_amp_weights(path: str | Path) -> AMPWeights:
    """Read a weight file.

    Raises
    ------
    PotentialError
        A file that cannot be read, of another architecture, or with weights that are not finite.
    """
    try:
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about: dict[str, Any] = dict(file.metadata() or {})
            about |= json.loads(about.pop("amp", "{}"))
    except Exception as error:
        raise PotentialError(
            f"a safetensors file of AMP-BMS in {path}", str(error), "install the package again"
        ) from error
    missing = {"node_embedding.embedding.weight", "edge_embedding.0.weight", "D4.C6_0"} - set(tensors)
    if missing:
        raise PotentialError(
            f"the tensors of AMP-BMS in {path}",
            f"none called {', '.join(sorted(missing))}",
            "use its own file",
        )
    if "bohr_angstrom" not in about:
        raise PotentialError(
            f"bohr_angstrom in the metadata of {path}", "none", "use the file of this package"
        )
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise PotentialError(
            f"finite weights in {path}", f"others in {', '.join(broken)}", "fetch the file again"
        )
    return AMPWeights(tensors, about)


def save_amp_weights(weights: AMPWeights, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write one safetensors file that `read_amp_weights` takes, with further facts about the weights."""
    write_safetensors(path, "amp", weights.tensors, {**weights.about, **(about or {})})
