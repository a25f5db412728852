"""Arrays and facts of a potential in one safetensors file, written in one move; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.whole_files import write_whole

__all__ = ["write_safetensors"]


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
