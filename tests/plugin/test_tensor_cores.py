"""The layers on tensor cores, without them: device code as C++, products of a warp as NVIDIA defines them."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from ani_contexts import context_of, evaluated, force_of, picked, system_of, tolerance
from ani_gases import gas
from test_cuda_source import texts_of

from mlmm.plugin import plugin_problem

COMPILER = shutil.which("g++")

ROWS, TILES, FUNCTIONS, WIDTHS = 21, ((0, 16), (16, 5)), 384, (64, 96, 32)
#: Places of weights, transposed weights and biases, layer after layer, as `packing.cpp` has them.
INPUTS = (FUNCTIONS, *WIDTHS[:-1])
SIZES = [a * b for a, b in zip(INPUTS, WIDTHS, strict=True)]
STARTS = np.concatenate([[0], np.cumsum([2 * s + w for s, w in zip(SIZES, WIDTHS, strict=True)])]).tolist()

#: Threads of a group are threads, and what they share is static. PTX ISA, "Matrix Fragments for mma.m16n8k8";
#: sums are cut off, not rounded, and what is not a number has all bits set.
_SHIM = """
#include <cmath>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <thread>
#include <vector>
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static float2 make_float2(float a, float b) { return {a, b}; }
static float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
typedef float real; typedef float2 real2; typedef float4 real4; typedef double mixed;
#define make_real2 make_float2
#define make_real4 make_float4
#define NUMBER(x) x##f
#define __CUDA_ARCH__ 900
#define __launch_bounds__(a, b)
#define KERNEL
#define DEVICE static inline
#define LOCAL static
#define LOCAL_ARG
#define GLOBAL
#define RESTRICT __restrict__
static thread_local int thread;
static int group;
#define LOCAL_ID thread
#define GROUP_ID group
#define NUM_GROUPS NUM_TILES
static pthread_barrier_t all, warps[NETWORK_GROUP/32];
#define SYNC_THREADS pthread_barrier_wait(&all);
static real exponential(real x) { return std::exp(x); }
static int isNoNumber(real x) { return !std::isfinite(x); }
#define AT_MOST(threads)
static unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
static float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static float fragmentsA[NETWORK_GROUP][4], fragmentsB[NETWORK_GROUP][2];
static void product(float* c, const unsigned (&a)[4], const unsigned (&b)[2]) {
    const int lane = thread%32, first = thread-lane, low = 0xffffe000;
    for (int i = 0; i < 4; i++) fragmentsA[thread][i] = __uint_as_float(a[i] & low);
    for (int i = 0; i < 2; i++) fragmentsB[thread][i] = __uint_as_float(b[i] & low);
    pthread_barrier_wait(&warps[thread/32]);
    for (int i = 0; i < 4; i++) {
        const int row = lane/4+8*(i/2), column = 2*(lane%4)+i%2;
        double sum = c[i];
        for (int k = 0; k < 8; k++)
            sum += (double) fragmentsA[first+row%8*4+k%4][row/8+2*(k/4)]*fragmentsB[first+column*4+k%4][k/4];
        c[i] = sum;  // and what does not fit is cut off
        if (std::fabs((double) c[i]) > std::fabs(sum)) c[i] = std::nextafter(c[i], 0.0f);
        if (sum != sum) c[i] = __uint_as_float(0x7fffffff);
    }
    pthread_barrier_wait(&warps[thread/32]);
}
"""
_MAIN = """
int main() {
    std::vector<float> weights(WEIGHTS), last(LAST), rowWeights(NUM_CENTRES);
    std::vector<float4> functions((NUM_CENTRES+ROWS)*FUNCTIONS/4);
    fread(weights.data(), 4, WEIGHTS, stdin); fread(last.data(), 4, LAST, stdin);
    fread(rowWeights.data(), 4, NUM_CENTRES, stdin); fread(functions.data(), 4, NUM_CENTRES*FUNCTIONS, stdin);
    std::vector<float4> aligned(WEIGHTS/4+1);
    memcpy(aligned.data(), weights.data(), 4*WEIGHTS);
    std::vector<float> slopes(NUM_CENTRES*FUNCTIONS, NAN), energies(NUM_CENTRES, NAN);
    std::vector<double> total(NUM_TILES, 0.0);
    int status[2] = {0, 0};
    pthread_barrier_init(&all, 0, NETWORK_GROUP);
    for (auto& warp : warps) pthread_barrier_init(&warp, 0, 32);
    for (group = 0; group < NUM_TILES; group++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < NETWORK_GROUP; i++)
            threads.emplace_back([&, i] {
                thread = i;
                evaluateNetworks(1, 1, tiles, widths, (const float*) aligned.data(), last.data(),
                    rowWeights.data(), (const float*) functions.data(),
                    slopes.data(), energies.data(), status, total.data());
            });
        for (auto& thread : threads) thread.join();
    }
    fwrite(slopes.data(), 4, slopes.size(), stdout); fwrite(energies.data(), 4, energies.size(), stdout);
    fwrite(status, 4, 1, stdout);
    return 0;
}
"""


def program(*faults: tuple[str, str]) -> str:
    """One element and one member, three hidden layers; with faults in the code if they are given."""
    macros = texts_of("rows")[0]
    of_functions, of_rows, layer, tiles, networks = texts_of("networks")
    tensor_cores = texts_of("tensor_cores")[0]
    for fault in faults:
        assert fault[0] in tensor_cores
        tensor_cores = tensor_cores.replace(*fault)
    code = macros + tiles + tensor_cores + of_functions + layer + of_rows + layer + networks
    operation = "    product(sums, {a0, a1, a2, a3}, {b0, b1});\n"
    code, found = re.subn(r'    asm\("mma\.sync.*?\);\n', operation, code, flags=re.DOTALL)
    assert found == 1
    forward, backward, before = "", "", 0
    for k, (i, o, size, start) in enumerate(zip(INPUTS, WIDTHS, SIZES, STARTS, strict=False)):
        if k == 0:
            forward += f"FIRST_LAYER({i}, {o}, 1, 1, {start}, {start + 2 * size}) "
            backward = f"FIRST_LAYER_BACK({i}, {o}, 1, 1, {start + size})"
        else:
            forward += f"FORWARD({k}, {i}, {o}, 1, 1, {start}, {start + 2 * size}, {before}) "
            backward = f"BACKWARD({k}, {i}, {o}, 1, 1, {start + size}, {before - i}) " + backward
        before += o
    defines = {
        **{"NUM_CENTRES": ROWS, "NUM_TILES": len(TILES), "MEMBERS": 1, "ROWS": 16, "PART_ROWS": 8},
        **{"NETWORK_GROUP": 256, "STEPS": 1, "MOST_COLUMNS": 1, "PARTS": 16 * max(WIDTHS), "HIDDEN": 3},
        **{"FUNCTIONS": FUNCTIONS, "WIDTH_LAST": WIDTHS[-1], "LAST_BEFORE": sum(WIDTHS[:-1])},
        **{"ALL_WIDTHS": sum(WIDTHS), "ENERGY": "1.0f", "USE_TENSOR_CORES": 1},
        **{"FORWARD_LAYERS": forward, "BACKWARD_LAYERS": backward},
        **{"WEIGHTS": STARTS[-1], "LAST": WIDTHS[-1] + 1},
    }
    numbers = ", ".join(f"0, {first}, {count}" for first, count in TILES)
    given = f"static int tiles[] = {{{numbers}}}, widths[] = {{{', '.join(map(str, WIDTHS))}}};\n"
    return (
        "".join(f"#define {name} {value}\n" for name, value in defines.items()) + _SHIM + given + code + _MAIN
    )


def on_tensor_cores(folder, data: bytes, *faults: tuple[str, str]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Gradients in the symmetry functions and energies of all rows; whether it told of a broken one."""
    (folder / "program.cpp").write_text(program(*faults), encoding="utf-8")
    command = [COMPILER, "-std=c++17", "-O1", "-w", "-pthread", "-o", "program", "program.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([folder / "program"], input=data, capture_output=True, check=True)
    found = np.frombuffer(done.stdout, "f4")
    slopes, energies = found[: ROWS * FUNCTIONS], found[ROWS * FUNCTIONS : -1]
    return slopes.reshape(ROWS, FUNCTIONS), energies, found[-1] != 0


@pytest.fixture(scope="module")
def networks() -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """Weights as they lie on a device, symmetry functions, and energies and gradients by numpy in float64."""
    generator = np.random.default_rng(5)
    matrices = [
        generator.normal(0, 1.2 / np.sqrt(i), (o, i)).astype("f4")
        for i, o in zip(INPUTS, WIDTHS, strict=True)
    ]
    biases = [generator.normal(0, 0.1, o).astype("f4") for o in WIDTHS]
    last = generator.normal(0, 0.3, WIDTHS[-1] + 1).astype("f4")
    weights = generator.uniform(0.2, 1.0, ROWS).astype("f4")
    functions = generator.uniform(0.0, 1.0, (ROWS, FUNCTIONS)).astype("f4")
    packed = []
    for matrix, bias in zip(matrices, biases, strict=True):
        for own in (matrix, matrix.T):  # (quarters of the inputs, outputs, 4)
            packed.append(own.reshape(len(own), -1, 4).transpose(1, 0, 2).ravel())
        packed.append(bias)
    data = b"".join(np.ascontiguousarray(x).tobytes() for x in (*packed, last, weights))
    values, x = [], functions.astype(float)
    for matrix, bias in zip(matrices, biases, strict=True):
        x = x @ matrix.T + bias
        x = np.where(x > 0, x, 0.1 * np.expm1(10 * np.minimum(x, 0)))
        values.append(x)
    gradient = weights[:, None] * last[:-1].astype(float)
    for matrix, value in zip(matrices[::-1], values[::-1], strict=True):
        gradient = (gradient * np.where(value > 0, 1, 1 + 10 * value)) @ matrix
    return data, functions, x @ last[:-1] + last[-1], gradient


@pytest.mark.skipif(COMPILER is None, reason="no g++")
def test_they_are_the_networks_and_three_products_are_needed(tmp_path, networks):
    """Energies and gradients against double precision, rows of a full tile and of one that is not.

    Controls: places of a fragment that are swapped, one product for three, and sums left to tensor cores.
    """
    data, functions, exact, gradient = networks

    def errors(*faults: tuple[str, str]) -> tuple[float, float]:
        slopes, energies, broken = on_tensor_cores(tmp_path, data + functions.tobytes(), *faults)
        assert not broken
        apart = np.abs(slopes - gradient).max() / np.abs(gradient).max()
        return apart, np.sqrt(np.mean((energies - exact) ** 2)) / np.abs(exact).max()

    swapped = (
        "a[0].high, a[1].high, a[2].high, a[3].high, b0.high",
        "a[0].high, a[2].high, a[1].high, a[3].high, b0.high",
    )
    one = ("__float_as_uint(x-__uint_as_float(parts.high))+0x1000", "0")
    inside = (("real part[4] = {0, 0, 0, 0};", "real (&part)[4] = sums[t];"), ("sums[t][i] += part[i];", ";"))
    of_forces, of_energies = errors()
    assert of_forces < 1e-6 and of_energies < 3e-7
    assert errors(swapped)[0] > 0.1
    assert errors(one)[0] > 1e-4
    assert errors(*inside)[1] > 4 * of_energies


@pytest.mark.skipif(COMPILER is None, reason="no g++")
def test_what_is_not_a_number_stays_so_in_its_row(tmp_path, networks):
    """The bits of a device's own, which rounding would make a zero of; the other rows are as they were.

    Control: without the line that looks for it all energies are finite.
    """
    data, functions, _, _ = networks
    broken = functions.copy()
    broken[3, 40] = np.uint32(0x7FFFFFFF).view("f4")
    slopes, energies, told = on_tensor_cores(tmp_path, data + broken.tobytes())
    plain_slopes, plain_energies, _ = on_tensor_cores(tmp_path, data + functions.tobytes())
    others = np.arange(ROWS) != 3
    assert told and np.isnan(energies[3]) and np.isnan(slopes[3]).all()
    assert np.array_equal(slopes[others], plain_slopes[others])
    assert np.array_equal(energies[others], plain_energies[others])
    without = ("(rows[i] == rows[i] ? a[i].high : 0x7fffe000)", "a[i].high")
    assert np.isfinite(on_tensor_cores(tmp_path, data + broken.tobytes(), without)[1]).all()


@pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built")
@pytest.mark.parametrize("platform", picked("CUDA-single", "CUDA-mixed"))
def test_on_a_device_they_give_the_same_forces(platform, monkeypatch, capfd):
    """As the processor; other last digits than the device's other arithmetic has; they are not refused."""
    numbers = [1, 1, 8, 6, 1, 7, 1, 8] * 17
    where = gas(len(numbers), 1.5, [1], seed=4).positions.numpy()

    def forces(host: tuple[str, dict[str, str]]) -> np.ndarray:
        return evaluated(context_of(system_of(len(numbers), force_of(numbers)), host), where)[1]

    expected, without = forces(("CPU", {"Threads": "1"})), forces(platform)
    monkeypatch.setenv("MLMM_TENSOR_CORES", "1")
    found = forces(platform)
    assert "not used" not in capfd.readouterr().err
    assert np.abs(found - expected).max() < tolerance(platform) * np.abs(expected).max()
    assert not np.array_equal(found, without)
