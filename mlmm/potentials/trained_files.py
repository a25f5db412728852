"""Files of trained potentials in the folders of models, by what their headers say; without torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlmm.cache import cache_folder

__all__ = ["FIELD_KINDS", "GRAPH_KIND", "KERNEL_KINDS", "learned_facts", "model_folders", "trained_models"]

#: Kinds of kernel models, as the header of their file names them.
KERNEL_KINDS = ("sparse_gp", "gdml")
#: Of models that see the charges around a region.
FIELD_KINDS = ("field_ani", "amp")
#: Of message-passing networks.
GRAPH_KIND = "graph_pes"
_LONGEST_HEADER = 10_000_000  # bytes


def model_folders() -> list[Path]:
    """Where potentials are looked for: folders of ``MLMM_MODELS``, then the cache."""
    given = [Path(folder) for folder in os.environ.get("MLMM_MODELS", "").split(os.pathsep) if folder]
    return [*given, cache_folder("models")]


def trained_models() -> dict[str, Path]:
    """Files of `mlmm train` in the folders of models, by the name to type: that of the file."""
    found: dict[str, Path] = {}
    for folder in model_folders():
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
            facts = learned_facts(path)
            if any("training" in about for about in facts.values()):
                found.setdefault(path.stem, path)
    return found


def learned_facts(path: Path) -> dict[str, dict]:
    """What the header of a safetensors file says, by kind, without reading the numbers; empty for others."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _LONGEST_HEADER:
                return {}
            metadata = json.loads(file.read(size)).get("__metadata__", {})
        facts = {key: json.loads(text) for key, text in metadata.items() if text.startswith("{")}
    except (OSError, ValueError, AttributeError):
        return {}
    return {key: about for key, about in facts.items() if isinstance(about, dict)}
