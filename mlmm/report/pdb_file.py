"""Reading the PDB files of a run without what the reader says about their numbers."""

from __future__ import annotations

import os
import warnings
from typing import Any

__all__ = ["load_pdb"]


def load_pdb(path: str | os.PathLike[str]) -> Any:
    """An `mdtraj.Trajectory` of a PDB file; it is silent about numbers that wrap and odd boxes."""
    import mdtraj

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return mdtraj.load_pdb(str(path))
