"""The shared library of xtb through ctypes: one single point, in atomic units, with point charges.

Sequence and signatures are those of xtb's C header, version 1. The library does not depend on the version of
Python, so that the one in a wheel for another Python serves as well. It keeps parameters in global variables:
one process, one calculation at a time.

xtb 6.5.1 returns wrong gradients where two atoms have a coordinate in common to the last digits (1e-12 nm),
as in molecules that were built in a plane of the axes: off by thousands of kJ/mol/nm for a C-C bond along x
(https://github.com/grimme-lab/xtb/issues/986). Hence every molecule is turned into a skew orientation first,
and its gradients back.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_void_p
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mlmm.errors import ConfigError, MissingPackageError

__all__ = ["SinglePoint", "XTBError", "library_version", "load_library", "single_point"]

# What libxtb of a wheel needs, in order; they lie beside it under names of their own.
_SIBLINGS = ("libquadmath*", "libgfortran*", "libgomp*", "libopenblas*", "libmctc*")
_VOID = {
    "xtb_setVerbosity": [c_void_p, c_int],
    "xtb_setAccuracy": [c_void_p, c_void_p, c_double],
    "xtb_setElectronicTemp": [c_void_p, c_void_p, c_double],
    "xtb_setMaxIter": [c_void_p, c_void_p, c_int],
    "xtb_loadGFN2xTB": [c_void_p, c_void_p, c_void_p, c_char_p],
    "xtb_setExternalCharges": [c_void_p, c_void_p, POINTER(c_int), c_void_p, c_void_p, c_void_p],
    "xtb_singlepoint": [c_void_p, c_void_p, c_void_p, c_void_p],
    "xtb_getEnergy": [c_void_p, c_void_p, POINTER(c_double)],
    "xtb_getGradient": [c_void_p, c_void_p, c_void_p],
    "xtb_getPCGradient": [c_void_p, c_void_p, c_void_p],
    "xtb_getCharges": [c_void_p, c_void_p, c_void_p],
    "xtb_getDipole": [c_void_p, c_void_p, c_void_p],
    "xtb_getError": [c_void_p, c_void_p, POINTER(c_int)],
    "xtb_delEnvironment": [POINTER(c_void_p)],
    "xtb_delMolecule": [POINTER(c_void_p)],
    "xtb_delCalculator": [POINTER(c_void_p)],
    "xtb_delResults": [POINTER(c_void_p)],
}
_MOLECULE: list[Any] = [
    c_void_p,
    POINTER(c_int),
    c_void_p,
    c_void_p,
    POINTER(c_double),
    POINTER(c_int),
    c_void_p,
    c_void_p,
]


# A rotation by 1 rad about (3, 5, 7): nothing that people build is aligned with the axes afterwards.
_TURN = Rotation.from_rotvec(np.array([3.0, 5.0, 7.0]) / np.sqrt(83.0)).as_matrix()


class XTBError(Exception):
    """A calculation that xtb gave up, in its own words: no convergence, or a molecule that cannot be."""


@dataclass(frozen=True)
class SinglePoint:
    """Answer of xtb in atomic units: energy, gradients (N, 3) and (M, 3), charges (N,), dipole (3,)."""

    energy: float
    gradient: np.ndarray
    charge_gradient: np.ndarray | None
    charges: np.ndarray
    dipole: np.ndarray


def find_xtb(path: str = "") -> Path | str:
    """Find the library: `path`, ``MLMM_XTB_LIBRARY``, the wheel's, conda's or the system's.

    Raises
    ------
    ConfigError
        A path that does not exist.
    MissingPackageError
    """
    named = path or os.environ.get("MLMM_XTB_LIBRARY", "")
    if named:
        if not Path(named).is_file():
            raise ConfigError(
                "the shared library of xtb", f"{named}, which does not exist", "correct the path"
            )
        return Path(named)
    folders = []
    package = importlib.util.find_spec("xtb")
    if package is not None and package.submodule_search_locations:
        folders += [Path(place).parent / "xtb.libs" for place in package.submodule_search_locations]
    if os.environ.get("CONDA_PREFIX"):
        folders.append(Path(os.environ["CONDA_PREFIX"]) / "lib")
    for folder in folders:
        for pattern in ("libxtb*.so*", "libxtb*.dylib"):
            for found in sorted(folder.glob(pattern)):
                return found
    system = find_library("xtb")
    if system is None:
        raise MissingPackageError(
            "the shared library of xtb, for GFN2-xTB among point charges",
            "none",
            "pip install xtb==22.1, with Python 3.11, or install libxtb6 (Debian) or xtb (conda-forge); "
            "MLMM_XTB_LIBRARY is the path of a libxtb.so elsewhere, such as in an unpacked wheel",
        )
    return system


@functools.lru_cache(maxsize=4)
def load_library(path: str = "") -> ctypes.CDLL:
    """Load the library, with one thread unless ``OMP_NUM_THREADS`` says otherwise. Errors as `find_xtb`."""
    found = find_xtb(path)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if isinstance(found, Path):
        for pattern in _SIBLINGS:
            for sibling in sorted(found.parent.glob(pattern))[:1]:
                ctypes.CDLL(str(sibling))
    try:
        library = ctypes.CDLL(str(found))
    except OSError as error:
        raise MissingPackageError(
            "a library of xtb that loads", f"{found}: {error}", "install it with the libraries that it needs"
        ) from error
    for name, arguments in _VOID.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    for name in ("xtb_newEnvironment", "xtb_newCalculator", "xtb_newResults"):
        function = getattr(library, name)
        function.argtypes, function.restype = [], c_void_p
    library.xtb_newMolecule.restype = c_void_p
    library.xtb_newMolecule.argtypes = _MOLECULE
    library.xtb_checkEnvironment.restype = c_int
    library.xtb_checkEnvironment.argtypes = [c_void_p]
    return library


def library_version(path: str = "") -> str:
    """Version of the library, from its file's name; "unknown" where that has none."""
    found = re.search(r"(?:so\.)(\d+(?:\.\d+)+)|(\d+(?:\.\d+)+)\.dylib", str(Path(find_xtb(path)).resolve()))
    return (found[1] or found[2]) if found else "unknown"


def single_point(
    numbers: np.ndarray,
    positions: np.ndarray,
    charge: int,
    unpaired: int,
    *,
    parameters: Path | None = None,
    external: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    accuracy: float = 0.1,
    temperature: float = 300.0,
    iterations: int = 250,
    library: str = "",
    turn: bool = True,
) -> SinglePoint:
    """GFN2-xTB energy and gradients by xtb.

    Parameters
    ----------
    numbers : ndarray, shape (N,)
    positions : ndarray, shape (N, 3), bohr
    charge, unpaired : int
        Net charge; unpaired electrons.
    parameters : Path, optional
        Parameter file; built-in parameters without.
    external : (numbers, positions, charges), optional
        Point charges, e, at positions (M, 3) in bohr, with the hardness of the elements `numbers`.
    accuracy : float
        xtb's factor for thresholds: 0.1 converges the energy to 1e-7 hartree.
    temperature : float
        Of the electrons, K.
    iterations : int
    library : str
        Path of the library; found if empty.
    turn : bool
        Whether the molecule is given to xtb in a skew orientation, about its centre.

    Raises
    ------
    XTBError
        Whatever xtb calls an error.
    """
    lib = load_library(library)
    numbers = np.ascontiguousarray(numbers, dtype=np.int32)
    rotation = _TURN if turn else np.eye(3)
    centre = positions.mean(axis=0) if turn else np.zeros(3)
    positions = np.ascontiguousarray((positions - centre) @ rotation, dtype=np.float64)
    count = len(numbers)
    environment = c_void_p(lib.xtb_newEnvironment())
    molecule, calculator, results = c_void_p(), c_void_p(), c_void_p()

    def check() -> None:
        if lib.xtb_checkEnvironment(environment):
            text, size = ctypes.create_string_buffer(2048), c_int(2048)
            lib.xtb_getError(environment, text, byref(size))
            raise XTBError(" ".join(text.value.decode(errors="replace").split()))

    try:
        lib.xtb_setVerbosity(environment, 0)
        molecule.value = lib.xtb_newMolecule(
            environment, byref(c_int(count)), numbers.ctypes.data, positions.ctypes.data,
            byref(c_double(charge)), byref(c_int(unpaired)), None, None,
        )  # fmt: skip
        check()
        calculator.value = lib.xtb_newCalculator()
        lib.xtb_loadGFN2xTB(
            environment, molecule, calculator, None if parameters is None else os.fsencode(parameters)
        )
        check()
        lib.xtb_setAccuracy(environment, calculator, accuracy)
        lib.xtb_setElectronicTemp(environment, calculator, temperature)
        lib.xtb_setMaxIter(environment, calculator, iterations)
        check()
        among = 0
        if external is not None and len(external[0]):
            kinds = np.ascontiguousarray(external[0], dtype=np.int32)
            places = np.ascontiguousarray((external[1] - centre) @ rotation, dtype=np.float64)
            values = np.ascontiguousarray(external[2], dtype=np.float64)
            among = len(kinds)
            lib.xtb_setExternalCharges(
                environment, calculator, byref(c_int(among)),
                kinds.ctypes.data, values.ctypes.data, places.ctypes.data,
            )  # fmt: skip
            check()
        results.value = lib.xtb_newResults()
        lib.xtb_singlepoint(environment, molecule, calculator, results)
        check()
        energy = c_double()
        gradient, charges, dipole = np.zeros((count, 3)), np.zeros(count), np.zeros(3)
        lib.xtb_getEnergy(environment, results, byref(energy))
        lib.xtb_getGradient(environment, results, gradient.ctypes.data)
        lib.xtb_getCharges(environment, results, charges.ctypes.data)
        lib.xtb_getDipole(environment, results, dipole.ctypes.data)
        charge_gradient = np.zeros((among, 3)) if external is not None else None
        if among and charge_gradient is not None:
            lib.xtb_getPCGradient(environment, results, charge_gradient.ctypes.data)
        check()
    finally:
        for name, handle in (
            ("Results", results), ("Calculator", calculator),
            ("Molecule", molecule), ("Environment", environment),
        ):  # fmt: skip
            if handle:
                getattr(lib, f"xtb_del{name}")(byref(handle))
    back = rotation.T
    return SinglePoint(
        energy.value,
        gradient @ back,
        None if charge_gradient is None else charge_gradient @ back,
        charges,
        dipole @ back + charge * centre,
    )
