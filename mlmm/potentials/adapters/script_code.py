"""The code in a TorchScript file: what could touch files is found before the file is loaded.

Loading already runs code: a class with ``__setstate__`` is called. So the source in the archive is searched,
by the reader that torch itself loads it with. All code that can ever run stands there: methods of every
module and class, functions, hooks and forks.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from mlmm.errors import PotentialError

__all__ = ["check_script"]

# Between two tokens: white space, a line that goes on, a comment.
_GAP = r"(?:\s|\\|#[^\n]*)*"
_SOURCE = {
    re.compile(rf"\.{_GAP}(?:save|from_file)\b"): "an operator that reads or writes files",
    re.compile(r"\brpc_(?:async|sync|remote)\b"): "an operator that runs on other machines",
    re.compile(r"__setstate__"): "a method that runs while the file is loaded",
    # With these an operator can be called without its name in one piece, or from a compiled library.
    re.compile(rf"\bgetattr{_GAP}\("): "an attribute looked up by text",
    re.compile(
        rf"(?<![\w.])ops\b(?!{_GAP}\.{_GAP}(?:aten|prim|profiler)\b)"
    ): "an operator of another library",
    re.compile(r"\bclasses\b"): "a class of a compiled library",
}
_CLASSES = re.compile(rb"torch[.\n]classes")
_OLD = "model.json"  # torch before 1.2


def check_script(path: str | Path) -> None:
    """Refuse a TorchScript file whose code reaches beyond arithmetic; nothing of it is run.

    Parameters
    ----------
    path : path

    Raises
    ------
    PotentialError
        By place in the archive and line.
    RuntimeError
        From torch: no archive.
    """
    reader = torch._C.PyTorchFileReader(str(path))
    for name in reader.get_all_records():
        if name == _OLD:
            raise _refusal(path, "code in a format of torch before 1.2", name)
        if name.endswith(".pkl") and _CLASSES.search(reader.get_record(name)):
            raise _refusal(path, "a class of a compiled library", name)
        if name.endswith(".py"):
            text = reader.get_record(name).decode("utf-8", errors="replace")
            for pattern, what in _SOURCE.items():
                found = pattern.search(text)
                if found:
                    line = text.count("\n", 0, found.start()) + 1
                    raise _refusal(path, f"{what} ({found[0].strip()})", f"{name}, line {line}")


def _refusal(path: str | Path, what: str, where: str) -> PotentialError:
    return PotentialError(
        f"trust in {path}, or TorchScript of arithmetic alone",
        f"{what} in {where}",
        "if you trust its source: trust=True in Python, --trust, or trust = true in [potential]",
    )
