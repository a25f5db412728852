"""Arithmetic of the device code, as C++ in single precision: exponentials that keep their digits."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from test_cuda_source import texts_of

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++")

_PROGRAM = """
#include <cmath>
#include <cstdio>
using std::exp2; using std::fma;
typedef float real;
#define NUMBER(x) x##f
#define DEVICE static
CODE
int main() {
    for (float x; fread(&x, 4, 1, stdin) == 1;) {
        const float found[2] = {exponential(x), exp2(x*1.44269504f)};
        fwrite(found, 4, 2, stdout);
    }
}
"""


def test_exponentials_keep_the_digits_that_quick_ones_lose(tmp_path):
    """Relative to double precision, down to where numbers are no longer normal; control: 2^(x log2 e)."""
    code = re.search(r"DEVICE real exponential\(.*?\n}\n", texts_of("neighbours")[0], re.DOTALL).group(0)
    (tmp_path / "program.cpp").write_text(_PROGRAM.replace("CODE", code), encoding="utf-8")
    command = [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-o", "program", "program.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True)
    x = np.random.default_rng(2).uniform(-80.0, 3.0, 100_000).astype(np.float32)
    made = subprocess.run([tmp_path / "program"], input=x.tobytes(), capture_output=True, check=True)
    found, quick = np.frombuffer(made.stdout, np.float32).reshape(-1, 2).T.astype(float)
    exact = np.exp(x.astype(float))
    assert np.abs(found / exact - 1.0).max() < 3e-7
    assert np.abs(quick / exact - 1.0).max() > 2e-6
