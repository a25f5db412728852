"""Pickles run code when they are read: they are refused unless somebody vouches for them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from mlmm.errors import PotentialError

__all__ = ["check_trust", "load_pickle"]


def check_trust(path: str | Path, trust: bool) -> None:
    """Refuse a pickle that nobody vouches for (PotentialError)."""
    if not trust:
        raise PotentialError(
            f"trust in {path}, a pickle, which runs code when it is read",
            "none given",
            "if you trust its source: trust=True in Python, --trust, or trust = true in [potential]",
        )


def load_pickle(path: str | Path, trust: bool, device: str) -> Any:
    """Read a file of ``torch.save``.

    Raises
    ------
    PotentialError
        Not trusted, or not readable.
    """
    check_trust(path, trust)
    try:
        with warnings.catch_warnings():
            # Models that were written by an older torch warn of their own format.
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location=device, weights_only=False)
    except Exception as error:  # a pickle may raise anything
        text = str(error).strip().partition("\n")[0]
        raise PotentialError(
            f"a model in {path}", f"{type(error).__name__}: {text}", "get the file again, or its package"
        ) from error
