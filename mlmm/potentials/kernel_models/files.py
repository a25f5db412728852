"""Kernel models in one safetensors file: arrays in float64, everything else as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.errors import PotentialError

__all__ = ["read_kernel_file"]


def read_kernel_file(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays and facts of the file of a kernel model.

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
            f"a kernel model in {path}", f"{type(error).__name__}: {error}", "train it again"
        ) from error
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise PotentialError(f"finite numbers in {path}", f"NaN or infinity in {name}", "train it again")
    return arrays, about
