"""The package with and without a C++ compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "mlmm/potentials/kernel"


def test_setup_names_every_header():
    """A header that setup.py does not know would not start a new build when it changes."""
    text = (ROOT / "setup.py").read_text()
    assert all(f'"{header.name}"' in text for header in KERNEL.glob("*.h"))
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert any(name.startswith("setuptools") for name in included)


def test_no_flag_assumes_finite_numbers():
    text = (ROOT / "setup.py").read_text()
    for flag in ("fast-math", "Ofast", "finite-math-only", "unsafe-math", "march=native"):
        assert flag not in text


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The sources alone, so that nothing built here is taken along."""
    folder = tmp_path_factory.mktemp("source") / "mlmm"
    names = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
    folder.mkdir()
    for name in names:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "mlmm", folder / "mlmm", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.safetensors")
    )
    return folder


def wheel(folder: Path, out: Path, **environment: str) -> set[str]:
    """Names of the files in a wheel built in isolation."""
    shutil.rmtree(folder / "build", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(out), str(folder)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stderr or "Connection" in done.stderr:
        pytest.skip("the build's own requirements cannot be fetched here")
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return set(zipfile.ZipFile(file).namelist())


@pytest.mark.slow
def test_a_wheel_holds_the_kernel(copy, tmp_path):
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    assert "mlmm/potentials/kernel/ani_generic.so" in wheel(copy, tmp_path)


@pytest.mark.slow
def test_without_a_compiler_the_package_is_built_without_the_kernel(copy, tmp_path):
    names = wheel(copy, tmp_path, CC="/bin/false", CXX="/bin/false")
    assert "mlmm/potentials/ani.py" in names
    assert not any(name.endswith(".so") for name in names)
