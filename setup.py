"""The compiled kernels: one library for several levels of processor; nothing where there is no compiler."""

from __future__ import annotations

import hashlib
import pathlib
import platform
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = "mlmm/kernels/cpp"
SOURCES = ("amp_kernel.cpp", "ani_kernel.cpp", "ewald_kernel.cpp", "pair_kernel.cpp", "source_hash.cpp")
HEADERS = (
    *("amp_invariants.h", "amp_layers.h", "amp_network.h", "amp_response.h"),
    *("error_function.h", "ewald_pairs.h", "ewald_waves.h", "export.h", "gemm.h", "idle.h", "model.h"),
    *("neighbours.h", "networks.h", "pairs.h", "pieces.h"),
    *("region_pairs.h", "simd.h", "symmetry.h", "symmetry_gradient.h"),
)
# Nothing that assumes finite numbers: what is not a number must reach the host.
OPTIONS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
]
INSTRUCTION_SETS = {"generic": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS |= {"v3": ["-march=x86-64-v3"], "v4": ["-march=x86-64-v4"]}


def source_hash() -> str:
    """Of all its files, as `mlmm.kernels.library.source_hash` takes it: so a library tells that it is old."""
    digest = hashlib.sha256()
    for name in sorted((*SOURCES, *HEADERS)):
        digest.update(name.encode() + b"\0" + pathlib.Path(FOLDER, name).read_bytes() + b"\0")
    return f"0x{digest.hexdigest()[:16]}ULL"


class BuildKernel(build_ext):
    """Plain libraries for ctypes: a name without the version of Python, no entry point of a module."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


setup(
    cmdclass={"build_ext": BuildKernel},
    ext_modules=[
        Extension(
            f"{FOLDER.replace('/', '.')}.ani_{level}",
            [f"{FOLDER}/{source}" for source in SOURCES],
            depends=[f"{FOLDER}/{header}" for header in HEADERS],
            define_macros=[("MLMM_SOURCE_HASH", source_hash())],
            extra_compile_args=OPTIONS + flags,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            language="c++",
            optional=True,
        )
        for level, flags in INSTRUCTION_SETS.items()
    ],
)
