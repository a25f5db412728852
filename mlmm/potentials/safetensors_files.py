"""Arrays and facts of a potential in one safetensors file, written in one move; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.errors import PotentialError
from mlmm.whole_files import write_whole

__all__ = ["read_safetensors", "write_safetensors"]


def write_safetensors(
    path: str | Path, kind: str, arrays: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Replace a file by one of these arrays; a kill leaves the old one or the new one.

    Parameters
    ----------
    path : path
    kind : str
        Name of the entry that holds the facts.
    arrays : mapping of str to ndarray or torch.Tensor on the processor
    about : mapping
        Facts, for JSON.
    """
    from safetensors.numpy import save

    tensors = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    # One entry: safetensors writes several in an order that changes from run to run.
    content = save(tensors, metadata={kind: json.dumps(about, sort_keys=True)})
    # By Python, which leaves the mode to the umask; safetensors' own writer takes it from all but the owner.
    write_whole(path, content)


def read_safetensors(path: str | Path, kind: str, noun: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays and facts of a file of `write_safetensors`.

    Parameters
    ----------
    path : path
    kind : str
        Name of the entry that holds the facts.
    noun : str
        What the file should hold, for messages, such as "a kernel model".

    Raises
    ------
    PotentialError
        A file that is missing, damaged, of another kind, or with numbers that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {})[kind])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PotentialError(
            f"{noun} in {path}", f"{type(error).__name__}: {error}", "train it again"
        ) from error
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise PotentialError(f"finite numbers in {path}", f"NaN or infinity in {name}", "train it again")
    return arrays, about
