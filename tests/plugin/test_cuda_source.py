"""The device code of the plugin compiles for CUDA, with NVIDIA's run-time compiler and without a GPU."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from importlib import util
from pathlib import Path

import pytest

import mlmm

CPP = Path(mlmm.__file__).parent / "plugin/cpp"
_FOUND = util.find_spec("nvidia.cuda_nvrtc") if util.find_spec("nvidia") else None
_FOLDERS = list(_FOUND.submodule_search_locations or []) if _FOUND else []
LIBRARY = next((path for folder in _FOLDERS for path in Path(folder, "lib").glob("libnvrtc.so.*")), None)

#: What OpenMM's CUDA platform puts before a program of the common dialect.
_PRELUDE = """
#define KERNEL extern "C" __global__
#define DEVICE __device__
#define LOCAL __shared__
#define LOCAL_ARG
#define GLOBAL
#define RESTRICT __restrict__
#define LOCAL_ID threadIdx.x
#define GLOBAL_ID (blockIdx.x*blockDim.x+threadIdx.x)
#define GLOBAL_SIZE (blockDim.x*gridDim.x)
#define GROUP_ID blockIdx.x
#define NUM_GROUPS gridDim.x
#define SYNC_THREADS __syncthreads();
#define ATOMIC_ADD(dest, value) atomicAdd(dest, value)
typedef long long mm_long;
typedef unsigned long long mm_ulong;
"""
#: Of ANI-1x on alanine dipeptide, with a cap, its atoms sorted into cells.
_DEFINES = {
    **{"NUM_ATOMS": 23, "NUM_CENTRES": 23, "NUM_CAPS": 1, "NUM_SPECIES": 4, "NUM_BLOCKS": 14},
    **{"NUM_RADIAL": 16, "NUM_MEANS": 4, "NUM_ANGLES": 8, "MOST_FUNCTIONS": 32, "FUNCTIONS": 384},
    **{"MEMBERS": 8, "ROWS": 16, "PART_ROWS": 8, "NUM_TILES": 5, "NETWORK_GROUP": 256, "STEPS": 1},
    **{
        "MOST_COLUMNS": 5,
        "PARTS": 5120,
        "HIDDEN": 3,
        "WIDTH_LAST": 96,
        "LAST_BEFORE": 288,
        "ALL_WIDTHS": 384,
    },
    "FORWARD_LAYERS": "FIRST_LAYER(384, 160, 5, 4, 0, 3932160) "
    "FORWARD(1, 160, 128, 4, 4, 3937280, 5248000, 160) FORWARD(2, 128, 96, 3, 4, 5252096, 6038528, 288)",
    "BACKWARD_LAYERS": "BACKWARD(2, 128, 96, 4, 4, 5645312, 160) BACKWARD(1, 160, 128, 5, 4, 4592640, 0) "
    "FIRST_LAYER_BACK(384, 160, 3, 1, 1966080)",
    **{"DESCRIBE_GROUP": 128, "MOST_NEAR": 1024, "CELLS_ALONG": 18, "CELL_GROUP": 512},
    **{"FORCE_GROUP": 128, "FORCE_SHARES": 8, "PADDED_NUM_ATOMS": 2336, "USE_PERIODIC": 1},
    **{"RADIAL_CUTOFF": "NUMBER(5.2e+00)", "ANGULAR_CUTOFF": "NUMBER(3.5e+00)"},
    **{"LENGTH": "NUMBER(1.0e+01)", "ENERGY": "NUMBER(2.6e+03)", "CELL_EDGE": "NUMBER(5.21e-01)"},
}
#: Rows that the device chooses, of a zone with force-field terms of every kind; and those of two structures.
_MOVING = {"MOVING_ROWS": 1, "NUM_CANDIDATES": 46, "ROW_GROUP": 512}
_ADAPTIVE = _MOVING | {
    **{"NUM_MOLECULES": 7, "NUM_CENTRE_ATOMS": 2, "NUM_KNOTS": 4, "ZONE_GROUP": 32, "PAIR_GROUP": 64},
    **{"NUM_OWNED": 23, "NUM_PAIR_ATOMS": 22, "NUM_CORE": 3, "PAIRS_WRAP": 1, "NUM_TERMS": 14},
    **{f"NUM_{terms}": 2 for terms in ("BONDS", "PAIRS", "CORE_PAIRS", "BENDS", "TORSIONS", "RBS", "CMAPS")},
    **{f"FIRST_{place}_{what}": 40 for place in ("BEND", "TORSION", "CMAP") for what in ("ATOM", "NUMBER")},
    **{
        name: "(0.25f)"
        for name in ("PLATEAU", "WIDTH", "R_ON", "COULOMB", "FIELD_SWITCH_ON", "CORE_SWITCH_ON")
    },
    **{name: "(0.5f)" for name in ("R_OFF", "FIELD_SWITCH_WIDTH", "CORE_CUTOFF", "CORE_SWITCH_WIDTH")},
    **{"CORE_ALPHA": "(3.0f)", "TWO_BY_ROOT_PI": "(1.128379f)"},
}
_SUPERMOLECULAR = _MOVING | {"TWO_SIDES": 1, "NUM_SOURCES": 5}
_ALL = ("symmetry", "networks", "forces")
#: Of each force: what its program is made of, further definitions, and its kernels.
FORCES = {
    "static": (("rows", *_ALL), {}, set()),
    "adaptive": (
        ("rows", *_ALL, "zone", "pairs", "terms"),
        _ADAPTIVE,
        {"makeRows", "zoneWeights", "zoneForces", "replacedPairs", "corePairs", "replacedTerms"},
    ),
    "supermolecular": (("rows", *_ALL, "nearby"), _SUPERMOLECULAR, {"makeRows", "chooseCandidates"}),
}
KERNELS = {"sortIntoCells", "describeAtoms", "evaluateNetworks", "addForces"}


def texts_of(part: str) -> list[str]:
    """Strings with device code in one header."""
    text = (CPP / f"device_{part}.h").read_text()
    return re.findall(r'R"KERNEL\((.*?)\)KERNEL"', text, re.DOTALL)


def device_code(force: str) -> str:
    """In the order of the program: what is chosen and sorted first, a layer for each kind of memory."""
    macros, chosen = texts_of("rows")
    arithmetic, search = texts_of("neighbours")
    of_functions, of_rows, layer, tiles, networks = texts_of("networks")
    texts = {
        "networks": tiles + texts_of("tensor_cores")[0] + of_functions + layer + of_rows + layer + networks,
        "rows": macros + arithmetic + texts_of("cells")[0] + ("" if force == "static" else chosen) + search,
    }
    return "".join(texts.get(part) or "".join(texts_of(part)) for part in FORCES[force][0])


def source(precision: str, force: str, whole_power: bool, quick: Mapping[str, str] | None = None) -> str:
    """The program as OpenMM would hand it to the compiler; `quick` functions of a platform's own."""
    twofold = precision == "double"
    real, mixed = "double" if twofold else "float", "float" if precision == "single" else "double"
    ending = "" if twofold else "f"
    macros = {"SQRT": "sqrt", "EXP": "exp", "LOG": "log"}
    defines = {name: function + ending for name, function in macros.items()} | dict(quick or {})
    for name, kind in (("real", real), ("mixed", mixed)):
        defines |= {f"make_{name}{n}": f"make_{kind}{n}" for n in (2, 3, 4)}
    defines |= {"USE_MIXED_PRECISION": 1} if precision == "mixed" else {}
    defines |= {"USE_DOUBLE_PRECISION": 1} if twofold else {"USE_TENSOR_CORES": 1}
    defines |= _DEFINES | (
        {"WHOLE_POWER": "result = result*result;result = result*x;"} if whole_power else {}
    )
    defines |= FORCES[force][1]
    lines = [f"#define {name} {value}" for name, value in defines.items()]
    for name, kind in (("real", real), ("mixed", mixed)):
        lines += [f"typedef {kind}{n} {name}{n};" for n in ("", 2, 3, 4)]
    return "\n".join(lines) + _PRELUDE + device_code(force)


def compiled(program: str) -> tuple[str, str]:
    """PTX, or nothing, and what the compiler says."""
    library, pointer, size = ctypes.CDLL(str(LIBRARY)), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(pointer), program.encode(), None, 0, None, None) == 0
    options = (ctypes.c_char_p * 2)(b"-arch=compute_80", b"--use_fast_math")
    code = library.nvrtcCompileProgram(pointer, 2, options)
    texts = []
    for what in ("PTX", "ProgramLog") if code == 0 else ("ProgramLog",):
        getattr(library, f"nvrtcGet{what}Size")(pointer, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(pointer, text)
        texts.append(text.value.decode())
    return ("", *texts) if code else (texts[0], texts[1])


@pytest.mark.skipif(LIBRARY is None, reason="torch came without NVIDIA's run-time compiler")
@pytest.mark.parametrize("precision", ["single", "mixed", "double"])
@pytest.mark.parametrize("force", FORCES)
def test_device_code_compiles_for_cuda(precision, force):
    """All kernels, for whole exponents (ANI-1x) and others (ANI-2x); with a typing error it does not."""
    for whole_power in (True, False) if force == "static" else (True,):
        ptx, log = compiled(source(precision, force, whole_power))
        assert set(re.findall(r"\.entry (\w+)", ptx)) == KERNELS | FORCES[force][2], log
        assert "red.global.add.u64" in ptx or "atom.global.add.u64" in ptx
    if force == "static":
        ptx, log = compiled(source(precision, force, True).replace("real sine", "reel sine"))
        assert not ptx and "error" in log


@pytest.mark.parametrize("force", FORCES)
def test_device_code_computes_in_no_precision_of_its_own(force):
    """No number of a fixed type, which one of the precisions would not have, and no word of one dialect."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", device_code(force), flags=re.DOTALL)
    assert not re.search(r"\b(float|double|half|long long|size_t)\b", code)
    assert not re.search(r"\b\d+\.\d*f?\b", re.sub(r"NUMBER\([^)]*\)|\(mixed\) 0\.5f", "", code))
    assert "get_global_id" not in code and "threadIdx" not in code and "blockIdx" not in code
