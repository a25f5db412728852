"""torchani with the project's own weights, to be compared with."""

from __future__ import annotations

import os

os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")

import torchani.models
from benchmarks.peers import torchani_model

__all__ = ["torchani", "torchani_model"]
