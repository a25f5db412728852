"""The compiled kernels, one library for several levels of processor, and the OpenMM plugin.

Nothing is built where there is no compiler, and no plugin without the headers in the wheel of OpenMM.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pathlib
import platform
import sys
from importlib import metadata

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = "mlmm/kernels/cpp"
SOURCES = (
    *("amp_kernel.cpp", "ani_kernel.cpp", "ewald_kernel.cpp", "field_kernel.cpp", "pair_kernel.cpp"),
    "source_hash.cpp",
)
HEADERS = (
    *("amp_invariants.h", "amp_layers.h", "amp_network.h", "amp_response.h"),
    *("equilibration.h", "error_function.h", "ewald_pairs.h", "ewald_waves.h", "export.h"),
    *("field_model.h", "field_networks.h", "gemm.h", "idle.h", "model.h"),
    *("neighbours.h", "networks.h", "pairs.h", "pieces.h"),
    *("region_pairs.h", "simd.h", "symmetry.h", "symmetry_gradient.h"),
)
PLUGIN_FOLDER = "mlmm/plugin/cpp"
PLUGIN_SOURCES = (
    *("adaptive_blend.cpp", "adaptive_device.cpp", "ani_force.cpp", "blend_arrays.cpp", "blend_force.cpp"),
    *("blend_proxy.cpp", "committee.cpp", "common_kernel.cpp", "device_ani.cpp", "device_blend.cpp"),
    *("device_force.cpp", "device_networks.cpp"),
    *("member_energies.cpp", "network_plan.cpp", "networks.cpp", "on_device.cpp", "packing.cpp"),
    *("pair_blend.cpp", "plugin.cpp", "proxy.cpp"),
    *("reference_kernel.cpp", "source_hash.cpp", "supermolecular_blend.cpp", "supermolecular_device.cpp"),
    "xml_numbers.cpp",
)
PLUGIN_HEADERS = (
    *(
        "ani_force.h",
        "arrays.h",
        "blend_force.h",
        "centres.h",
        "committee.h",
        "guarded.h",
        "like_molecules.h",
    ),
    *("mm_terms.h", "network_plan.h", "networks.h", "on_device.h", "packing.h", "places.h"),
    *("xml_numbers.h", "zone_weights.h"),
    *(
        "device_ani.h",
        "device_blend.h",
        "device_cells.h",
        "device_force.h",
        "device_forces.h",
        "device_nearby.h",
        "device_neighbours.h",
    ),
    *("device_networks.h", "device_pairs.h", "device_rows.h", "device_symmetry.h"),
    *("device_tensor_cores.h", "device_terms.h"),
    "device_zone.h",
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


def source_hash(folder: str, files: tuple[str, ...]) -> str:
    """Of all its files, as `mlmm.kernels.library.source_hash` takes it: so a library tells that it is old."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + pathlib.Path(folder, name).read_bytes() + b"\0")
    return f"0x{digest.hexdigest()[:16]}ULL"


class BuildKernel(build_ext):
    """Plain libraries for ctypes: a name without the version of Python, no entry point of a module."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, ext: Extension) -> None:
        # The libraries share sources, not objects: in one folder they would overwrite one another's.
        own = copy.copy(self)
        own.build_temp = os.path.join(self.build_temp, ext.name)
        build_ext.build_extension(own, ext)

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


def kernels() -> list[Extension]:
    """The ANI networks and the pairs, for each level of processor."""
    return [
        Extension(
            f"{FOLDER.replace('/', '.')}.ani_{level}",
            [f"{FOLDER}/{source}" for source in SOURCES],
            depends=[f"{FOLDER}/{header}" for header in HEADERS],
            define_macros=[("MLMM_SOURCE_HASH", source_hash(FOLDER, (*SOURCES, *HEADERS)))],
            extra_compile_args=OPTIONS + flags,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            language="c++",
            optional=True,
        )
        for level, flags in INSTRUCTION_SETS.items()
    ]


def plugin() -> list[Extension]:
    """ANIForce, for the OpenMM in the environment of the build: its headers are read, it is not imported."""
    try:
        openmm = metadata.distribution("OpenMM")
    except metadata.PackageNotFoundError:
        return []
    libraries = pathlib.Path(str(openmm.locate_file("OpenMM.libs")))
    if sys.platform != "linux" or not (libraries / "include" / "OpenMM.h").exists():
        return []
    return [
        Extension(
            f"{PLUGIN_FOLDER.replace('/', '.')}.ani_plugin",
            [f"{PLUGIN_FOLDER}/{source}" for source in PLUGIN_SOURCES],
            depends=[f"{PLUGIN_FOLDER}/{header}" for header in PLUGIN_HEADERS],
            library_dirs=[str(libraries / "lib")],
            libraries=["OpenMM", "dl"],
            define_macros=[
                ("MLMM_SOURCE_HASH", source_hash(PLUGIN_FOLDER, (*PLUGIN_SOURCES, *PLUGIN_HEADERS))),
                ("MLMM_KERNELS_HASH", source_hash(FOLDER, (*SOURCES, *HEADERS))),
                ("MLMM_OPENMM_VERSION", f'"{openmm.version}"'),
                # That of OpenMM's wheels; some older compilers have another one by default.
                ("_GLIBCXX_USE_CXX11_ABI", "1"),
            ],
            # Of the system: warnings of OpenMM's own headers are not ours to change.
            extra_compile_args=[*OPTIONS, "-isystem", str(libraries / "include")],
            # A symbol that this OpenMM lacks is an error here or at loading, not an abort in a run.
            extra_link_args=["-Wl,-z,now", "-Wl,-z,defs"],
            language="c++",
            optional=True,
        )
    ]


setup(cmdclass={"build_ext": BuildKernel}, ext_modules=kernels() + plugin())
