"""The folder where downloads and computed parameters are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder(part: str) -> Path:
    """Return the folder of one kind of files; it need not exist.

    Parameters
    ----------
    part : {"models", "structures", "ligands", "graphs"}
        Below ``MLMM_CACHE``, or below ``mlmm`` in the user's cache folder (``XDG_CACHE_HOME`` or ``~/.cache``
        on Linux, ``~/Library/Caches`` on macOS).
    """
    own = os.environ.get("MLMM_CACHE")
    return (Path(own) if own else user_cache_path("mlmm", appauthor=False)) / part
