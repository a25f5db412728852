"""The device code of the plugin compiles for HIP, with clang and AMD's headers and without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_cuda_source import FORCES, KERNELS, source

#: Of Debian's packages libamdhip64-dev and rocm-device-libs.
HEADERS, LIBRARIES = Path("/usr/include"), Path("/usr/lib/x86_64-linux-gnu/amdgcn/bitcode")
CLANG = next(
    (path for n in ("", *range(30, 14, -1)) if (path := shutil.which(f"clang++-{n}".rstrip("-")))), None
)
#: OpenMM's HIP platform compiles with these.
_OPTIONS = ("-O3", "-ffast-math", "-munsafe-fp-atomics", "-Wno-hip-only")
_QUICK = {"SQRT": "__fsqrt_rn", "EXP": "__expf", "LOG": "__logf"}
#: As the check stands in the device code, and one of which this compiler leaves nothing for NaN.
_BY_BITS, _BY_VALUE = "isNoNumber(sum) || fabs(sum) > NUMBER(1e12)", "!(fabs(sum) < NUMBER(1e12))"

pytestmark = pytest.mark.skipif(
    CLANG is None or not (HEADERS / "hip").is_dir() or not LIBRARIES.is_dir(),
    reason="no clang with HIP: tests/README.md says how to have one without a GPU",
)


def assembly(folder: Path, program: str, processor: str = "gfx90a") -> str:
    """What HIP's compiler makes of a program."""
    root = folder / "rocm"
    if not root.exists():
        (root / "bin").mkdir(parents=True)
        (root / "bin/.hipVersion").write_text(
            "HIP_VERSION_MAJOR=5\nHIP_VERSION_MINOR=2\nHIP_VERSION_PATCH=3\n"
        )
        (root / "include").symlink_to(HEADERS)
        (root / "amdgcn").mkdir()
        (root / "amdgcn/bitcode").symlink_to(LIBRARIES)
    (folder / "program.hip").write_text("#include <hip/hip_runtime.h>\n" + program)
    target = [f"--offload-arch={processor}", f"--rocm-path={root}", "--offload-device-only", "-S"]
    files = ["-o", str(folder / "program.s"), str(folder / "program.hip")]
    command = [CLANG, "-x", "hip", *_OPTIONS, *target, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return (folder / "program.s").read_text()


def kernels_of(text: str) -> dict[str, int]:
    """Registers that each kernel has no room for."""
    found = re.findall(r"\.name:\s+(\w+)\n.*?\.vgpr_spill_count:\s*(\d+)", text, re.DOTALL)
    return {name: int(count) for name, count in found}


@pytest.mark.parametrize("processor", ["gfx90a", "gfx1030"])
@pytest.mark.parametrize("force", FORCES)
def test_device_code_compiles_for_hip(tmp_path, force, processor):
    """All kernels, in waves of 64 and of 32; those of the networks keep all numbers in registers."""
    found = kernels_of(assembly(tmp_path, source("mixed", force, True, _QUICK), processor))
    assert set(found) == KERNELS | FORCES[force][2]
    assert {found[name] for name in KERNELS} == {0}


def test_no_room_is_left_for_threads_that_are_not_there(tmp_path):
    """Without bounds the compiler leaves registers for 1,024 threads, and there are not enough."""
    program = source("mixed", "static", True, _QUICK).replace("__launch_bounds__(threads)", "")
    assert kernels_of(assembly(tmp_path, program))["describeAtoms"] > 50


def test_what_is_no_number_is_still_looked_for(tmp_path):
    """By the bits of a number: where numbers are compared, nothing of NaN is left."""
    program = source("mixed", "static", True, _QUICK)
    assert _BY_BITS in program
    for check, kept in ((_BY_BITS, True), (_BY_VALUE, False)):
        text = assembly(tmp_path, program.replace(_BY_BITS, check))
        networks = re.search(r"^evaluateNetworks:(.*?)^\s*s_endpgm", text, re.DOTALL | re.MULTILINE)
        assert ("0x7f000000" in networks[1]) == kept
