"""State of a fit in one file that is either the old or the new one, whenever the process is killed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlmm.errors import ConfigError
from mlmm.potentials.safetensors_files import write_safetensors

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors and facts of a fit after some epoch."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


def write_checkpoint(path: Path, state: Checkpoint, fingerprint: str) -> None:
    """Replace the file at once: what is read later is one whole state."""
    tensors = {name: value.detach().cpu() for name, value in state.tensors.items()}
    write_safetensors(path, "fit", tensors, {"fingerprint": _digest(fingerprint), **state.facts})


def read_checkpoint(path: Path, fingerprint: str) -> Checkpoint:
    """Read a file of `write_checkpoint`.

    Raises
    ------
    ConfigError
        A damaged file, or one of a fit of other data, options or networks.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["fit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        found = facts.pop("fingerprint")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"the state of a fit in {path}", f"{type(error).__name__}: {error}", "delete it and train again"
        ) from error
    if found != _digest(fingerprint):
        raise ConfigError(
            f"the state of this fit in {path}",
            "that of other data, options or networks",
            "train into another folder, or delete the file",
        )
    return Checkpoint(tensors, facts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
