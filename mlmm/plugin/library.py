"""The plugin that is compiled with the package: whether it is there for this OpenMM, and its functions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from pathlib import Path

import openmm

from mlmm.errors import MissingPackageError
from mlmm.kernels.library import builds, check_sources

__all__ = ["call", "load_plugin", "plugin_problem", "pointer", "register_platforms"]

_PATH = Path(__file__).with_name("cpp") / "ani_plugin.so"
_ADVICE = (
    "pip install openmm==8.6.1, install a C++17 compiler (g++ or clang++) and the package again, "
    'or use bridge = "auto"'
)


def plugin_problem() -> str | None:
    """Why `ANIForce` cannot be used here; None where it can."""
    try:
        load_plugin()
    except MissingPackageError as error:
        return str(error)
    return None


@functools.cache
def load_plugin() -> ctypes.CDLL:
    """The library, its kernels registered with OpenMM's platforms.

    Raises
    ------
    MissingPackageError
        A library that was not built, or for another OpenMM, or from other sources.
    """
    what = "the OpenMM plugin of mlmm"
    if not _PATH.exists():
        raise MissingPackageError(
            what, "not built: there was no C++ compiler, or no header of OpenMM", _ADVICE
        )
    try:
        builds()  # the networks on the processor
        library = ctypes.CDLL(str(_PATH))
        check_sources(library, _PATH)
        openmm.Platform.loadPluginLibrary(str(_PATH))
    except (OSError, openmm.OpenMMException) as error:
        raise MissingPackageError(
            what, f"one that says: {str(error).strip().rstrip('.')}", _ADVICE
        ) from error
    _declare(library)
    return library


def register_platforms() -> None:
    """Register with platforms that OpenMM loaded after the plugin."""
    load_plugin().registerKernelFactories()


def call(name: str, *arguments: object) -> None:
    """Call a function that returns 0 or leaves a message.

    Raises
    ------
    openmm.OpenMMException
        With that message.
    """
    library = load_plugin()
    if getattr(library, name)(*arguments) != 0:
        raise openmm.OpenMMException(library.mlmm_plugin_error().decode())


def pointer(wrapped: object, kind: type) -> int:
    """Where the C++ object behind one of OpenMM's Python objects is.

    Raises
    ------
    TypeError
        An object of another class, of which C++ would not know.
    """
    if not isinstance(wrapped, kind):
        raise TypeError(f"Expected an openmm.{kind.__name__}, but got a {type(wrapped).__name__}. Pass that.")
    return int(wrapped.this)  # type: ignore[attr-defined]


def _declare(library: ctypes.CDLL) -> None:
    pointer, integer, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.mlmm_plugin_error.restype = ctypes.c_char_p
    library.registerKernelFactories.restype = None
    for name, types in {
        "committee": [ctypes.c_char_p, pointer, pointer, pointer],
        "element": [pointer, word, word, pointer, pointer, pointer, pointer],
        "give": [pointer, pointer],
        "is": [pointer],
        "sizes": [pointer, pointer],
        "symbols": [pointer, ctypes.c_char_p, integer],
        "set_particles": [pointer, integer, pointer, pointer, pointer],
        "get_particles": [pointer, pointer, pointer, pointer],
        "set_caps": [pointer, integer, pointer, pointer, pointer, word],
        "get_caps": [pointer, pointer, pointer, pointer],
        "set_options": [pointer, word, word],
        "update": [pointer, pointer],
        "atom_energies": [pointer, pointer, integer, pointer],
        "moment": [pointer, word, pointer, pointer, word, *[pointer] * 4],
    }.items():
        getattr(library, f"mlmm_plugin_{name}").argtypes = types
    for name, types in {
        "blend_is": [pointer],
        "blend_kind": [pointer],
        "blend_sizes": [pointer, pointer],
        "blend_set_integers": [pointer, ctypes.c_char_p, integer, pointer],
        "blend_set_numbers": [pointer, ctypes.c_char_p, integer, pointer],
        "blend_get_integers": [pointer, ctypes.c_char_p, pointer, pointer],
        "blend_get_numbers": [pointer, ctypes.c_char_p, pointer, pointer],
        "members_new": [pointer, word, word, pointer],
        "members_evaluate": [pointer, pointer, pointer, word, pointer],
        "members_take": [pointer, pointer, pointer, pointer, pointer],
        "members_release": [pointer],
    }.items():
        getattr(library, f"mlmm_{name}").argtypes = types
    library.mlmm_blend_kind.restype = ctypes.c_char_p
    library.mlmm_members_take.restype = library.mlmm_members_release.restype = None


with contextlib.suppress(MissingPackageError):
    # So that a System with an ANIForce can be read from XML once this is imported.
    load_plugin()
