"""The library that is compiled with the package: its builds, and who decides whether it is used."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from mlmm.errors import MissingPackageError, PotentialError

__all__ = [
    "KERNELS",
    "Held",
    "OutdatedKernelError",
    "builds",
    "check_sources",
    "decide_kernel",
    "open_build",
    "requested_kernel",
    "source_hash",
]

logger = logging.getLogger(__name__)
KERNELS = ("auto", "torch", "native")


class OutdatedKernelError(MissingPackageError):
    """The library was compiled from other sources than those beside it."""


def source_hash(folder: Path) -> int:
    """First 64 bits of SHA-256 over the names and contents of the C++ files of a folder; 0 where none are."""
    digest, files = (
        hashlib.sha256(),
        sorted([*folder.glob("*.cpp"), *folder.glob("*.h")], key=lambda f: f.name),
    )
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return int(digest.hexdigest()[:16], 16) if files else 0


def check_sources(library: ctypes.CDLL, path: Path) -> None:
    """Refuse a library that is older or newer than the sources beside it, as after `git pull`.

    Raises
    ------
    OutdatedKernelError
        One that was made of others, or before libraries could tell.
    """
    expected = source_hash(path.parent)
    if not expected:
        return
    try:
        function = library.mlmm_source_hash
    except AttributeError:
        found = 0
    else:
        function.restype = ctypes.c_uint64
        found = function()
    if found != expected:
        raise OutdatedKernelError(
            f"{path.name} compiled from the sources in {path.parent}",
            f"one of other sources ({found:016x}, not {expected:016x})",
            'type "pip install -e ." in the repository, or write kernel = "torch"',
        )


def builds() -> list[Path]:
    """The builds that this processor can run, best first; an OSError where none was made."""
    folder = Path(__file__).with_name("cpp")
    level = ctypes.CDLL(str(folder / "ani_generic.so")).mlmm_ani_processor()
    better = [folder / f"ani_v{k}.so" for k in (4, 3) if level >= k]
    return [*(path for path in better if path.exists()), folder / "ani_generic.so"]


def open_build(what: str, load: Callable[[Path], ctypes.CDLL]) -> ctypes.CDLL:
    """The best build for this processor, its functions declared by `load`.

    Raises
    ------
    MissingPackageError
        No build.
    OutdatedKernelError
        One of other sources.
    """
    try:
        path = builds()[0]
        check_sources(ctypes.CDLL(str(path)), path)
        return load(path)
    except (OSError, AttributeError) as error:
        raise MissingPackageError(
            what,
            str(error),
            'install a C++17 compiler (g++ or clang++) and the package again, or write kernel = "torch"',
        ) from error


class Held:
    """An evaluation that the library keeps for its gradient, released with this object.

    Parameters
    ----------
    library : ctypes.CDLL
        Which made it, and computes the gradient.
    release : callable
        Its function that takes the pointer back.
    pointer : ctypes.c_void_p
    """

    def __init__(
        self, library: ctypes.CDLL, release: Callable[[ctypes.c_void_p], None], pointer: ctypes.c_void_p
    ):
        self.library, self.release, self.pointer = library, release, pointer

    def __del__(self) -> None:
        self.release(self.pointer)


def requested_kernel(kernel: str) -> str:
    """The word itself, or for "auto" that of the environment variable ``MLMM_KERNEL``, if it is set."""
    return (os.environ.get("MLMM_KERNEL") or kernel) if kernel == "auto" else kernel


def decide_kernel(kernel: str, what: str, problem: str | None, load: Callable[[], object]) -> str:
    """Resolve ``"auto"``: compiled where that is possible and the library is there, else torch.

    Parameters
    ----------
    kernel : {"auto", "torch", "native"}
        "auto" yields to the environment variable ``MLMM_KERNEL``, if it is set.
    what : str
        What would run, for messages.
    problem : str or None
        Why the compiled kernel cannot run it.
    load : callable
        Loads the library.

    Returns
    -------
    str
        ``"torch"`` or ``"native"``.

    Raises
    ------
    PotentialError
        Another word, or ``"native"`` in spite of the problem.
    MissingPackageError
        ``"native"`` where the library was not built.
    """
    kernel = requested_kernel(kernel)
    if kernel not in KERNELS:
        raise PotentialError(f"kernel = {' | '.join(KERNELS)}", repr(kernel), 'write kernel = "auto"')
    if kernel == "torch":
        return kernel
    if problem is not None:
        if kernel == "native":
            raise PotentialError(
                f"{what} on the processor for kernel 'native'", problem, 'write kernel = "auto"'
            )
        logger.info("%s in torch: %s", what, problem)
        return "torch"
    try:
        load()
    except MissingPackageError as error:
        if kernel == "native":
            raise
        level = logging.WARNING if isinstance(error, OutdatedKernelError) else logging.INFO
        logger.log(level, "%s in torch: %s", what, error)
        return "torch"
    return "native"
