"""What was found about the CUDA graph of a model, kept between runs: one small file in the cache for each.

The key is all that decides whether a graph is right and what it saves. A file that is damaged is as good as
none, and one that cannot be written costs the next run another measurement.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import openmm
import torch

from mlmm.cache import cache_folder
from mlmm.whole_files import write_json

__all__ = ["GraphChoice", "digest_of", "module_digest", "program_versions", "recall", "remember"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphChoice:
    """Whether a run records its model as a CUDA graph, and what that rests on.

    Parameters
    ----------
    taken : bool
    reason : str
        In words.
    without_ms, with_ms : float, optional
        Milliseconds of an evaluation of the model's forces without and with a graph, where both are right.
    """

    taken: bool
    reason: str
    without_ms: float | None = None
    with_ms: float | None = None


def digest_of(key: Mapping[str, Any]) -> str:
    """32 hexadecimal digits for a key of plain values."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def recall(key: Mapping[str, Any]) -> GraphChoice | None:
    """What is remembered for a key; None if nothing is, or nothing that can be read.

    Parameters
    ----------
    key : mapping
        Plain values, as JSON holds them.
    """
    path = _file(key)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != dict(key):
            return None
        choice = GraphChoice(**content["choice"])
        return choice if _is_whole(choice) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.info("cache file %s is not used: %s", path, error)
        return None


def remember(key: Mapping[str, Any], choice: GraphChoice) -> None:
    """Keep a choice for the next run; a folder that cannot be written to is a line in the log.

    Parameters
    ----------
    key : mapping
    choice : GraphChoice
    """
    path = _file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": dict(key), "choice": dataclasses.asdict(choice)})
    except OSError as error:
        logger.info("what was measured of CUDA graphs is not kept in the cache: %s", error)


def module_digest(module: torch.nn.Module) -> str:
    """32 hexadecimal digits for a module: its parts, their plain attributes and code, and all its numbers.

    Parameters
    ----------
    module : torch.nn.Module
        May be TorchScript, or hold some.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        # TorchScript has a class of its own for each module that it has read.
        kind = getattr(part, "original_name", type(part).__qualname__)
        plain = {word: value for word, value in vars(part).items() if _is_plain(value)}
        digest.update(json.dumps([name, kind, _code(part), plain], sort_keys=True, default=str).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content = tensor.detach().cpu().contiguous()
        digest.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


@functools.cache
def program_versions() -> dict[str, str]:
    """Versions of what records and replays graphs, and of this package, whose modules they hold."""
    return {
        "torch": torch.__version__,
        "openmm": openmm.version.full_version,
        # Wheels for other versions of CUDA have other names.
        "openmmtorch": _version_of(*metadata.packages_distributions().get("openmmtorch", ())),
        "mlmm": _version_of("mlmm"),
    }


def _version_of(*distributions: str) -> str:
    for name in distributions:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _file(key: Mapping[str, Any]) -> Path:
    return cache_folder("graphs") / f"{digest_of(key)}.json"


def _is_whole(choice: GraphChoice) -> bool:
    times = (choice.without_ms, choice.with_ms)
    numbers = all(value is None or isinstance(value, int | float) for value in times)
    return isinstance(choice.taken, bool) and isinstance(choice.reason, str) and numbers


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return isinstance(value, bool | int | float | str)


def _code(part: torch.nn.Module) -> str:
    """The code of a TorchScript module, without the numbers that a process gives its classes; else empty."""
    if not isinstance(part, torch.jit.ScriptModule):
        return ""
    try:
        return re.sub(r"___torch_mangle_\d+\.", "", str(part.code))
    except (AttributeError, RuntimeError):  # one without forward
        return ""
