"""The library that is compiled with the package: its builds, and who decides whether it is used."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from pathlib import Path

from mlmm.errors import MissingPackageError, PotentialError

__all__ = ["KERNELS", "builds", "decide_kernel", "open_build"]

logger = logging.getLogger(__name__)
KERNELS = ("auto", "torch", "compiled")


def builds() -> list[Path]:
    """The builds that this processor can run, best first; an OSError where none was made."""
    folder = Path(__file__).with_name("potentials") / "kernel"
    level = ctypes.CDLL(str(folder / "ani_generic.so")).mlmm_ani_processor()
    better = [folder / f"ani_v{k}.so" for k in (4, 3) if level >= k]
    return [*(path for path in better if path.exists()), folder / "ani_generic.so"]


def open_build(what: str, load: Callable[[Path], ctypes.CDLL]) -> ctypes.CDLL:
    """The best build for this processor, its functions declared by `load`.

    Raises
    ------
    MissingPackageError
        No build, or one that is older than the function.
    """
    try:
        return load(builds()[0])
    except (OSError, AttributeError) as error:
        raise MissingPackageError(
            what,
            str(error),
            'install a C++17 compiler (g++ or clang++) and the package again, or write kernel = "torch"',
        ) from error


def decide_kernel(kernel: str, what: str, problem: str | None, load: Callable[[], object]) -> str:
    """Resolve ``"auto"``: compiled where that is possible and the library is there, else torch.

    Parameters
    ----------
    kernel : {"auto", "torch", "compiled"}
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
        ``"torch"`` or ``"compiled"``.

    Raises
    ------
    PotentialError
        Another word, or ``"compiled"`` in spite of the problem.
    MissingPackageError
        ``"compiled"`` where the library was not built.
    """
    if kernel == "auto":
        kernel = os.environ.get("MLMM_KERNEL") or "auto"
    if kernel not in KERNELS:
        raise PotentialError(f"kernel = {' | '.join(KERNELS)}", repr(kernel), 'write kernel = "auto"')
    if kernel == "torch":
        return kernel
    if problem is not None:
        if kernel == "compiled":
            raise PotentialError(
                f"{what} on the processor for kernel 'compiled'", problem, 'write kernel = "auto"'
            )
        logger.info("%s in torch: %s", what, problem)
        return "torch"
    try:
        load()
    except MissingPackageError as error:
        if kernel == "compiled":
            raise
        logger.info("%s in torch: %s", what, error)
        return "torch"
    return "compiled"
