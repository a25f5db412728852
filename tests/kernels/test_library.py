"""The package with and without a C++ compiler."""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from mlmm.kernels import library as kernel_library
from mlmm.kernels.library import (
    OutdatedKernelError,
    check_sources,
    decide_kernel,
    open_build,
    source_hash,
)

pytestmark = pytest.mark.usefixtures("kernels_by_default")

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "mlmm/kernels/cpp"
PLUGIN = ROOT / "mlmm/plugin/cpp"


@pytest.mark.parametrize("folder", [KERNEL, PLUGIN], ids=["kernels", "plugin"])
def test_setup_names_every_header(folder):
    """A header that setup.py does not know would not start a new build when it changes."""
    text = (ROOT / "setup.py").read_text()
    assert all(f'"{file.name}"' in text for file in (*folder.glob("*.h"), *folder.glob("*.cpp")))
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert any(name.startswith("setuptools") for name in included)


def test_the_build_and_the_environment_have_one_openmm():
    """The plugin works with the OpenMM for which it was compiled and with no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (built,) = (name for name in project["build-system"]["requires"] if name.startswith("openmm"))
    assert built in project["project"]["dependencies"] and "==" in built
    assert built in (ROOT / "requirements.lock").read_text().lower().split()
    assert f"pip install {built}," in (ROOT / "mlmm/plugin/library.py").read_text()


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
    names = wheel(copy, tmp_path)
    assert {"mlmm/kernels/cpp/ani_generic.so", "mlmm/plugin/cpp/ani_plugin.so"} <= names


@pytest.mark.slow
def test_without_a_compiler_the_package_is_built_without_the_kernel(copy, tmp_path):
    names = wheel(copy, tmp_path, CC="/bin/false", CXX="/bin/false")
    assert "mlmm/potentials/ani/native.py" in names
    assert not any(name.endswith(".so") for name in names)


def test_setup_gives_the_library_the_hash_of_its_sources(monkeypatch):
    """The same number on both sides: what is compiled in, and what is compared with."""
    import setuptools

    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    kernels = f"0x{source_hash(KERNEL):016x}ULL"
    for extension in given["ext_modules"]:
        of_plugin = extension.name.endswith("ani_plugin")
        folder, macros = PLUGIN if of_plugin else KERNEL, dict(extension.define_macros)
        assert macros["MLMM_SOURCE_HASH"] == f"0x{source_hash(folder):016x}ULL"
        assert {Path(source).name for source in extension.sources} == {f.name for f in folder.glob("*.cpp")}
        assert not of_plugin or macros["MLMM_KERNELS_HASH"] == kernels


def compiled(folder: Path, *macros: str, source: str = "source_hash.cpp") -> ctypes.CDLL:
    """One file of a folder as a library beside it."""
    path = folder / f"made_{len(list(folder.glob('*.so')))}.so"
    subprocess.run(
        ["c++", "-std=c++17", "-shared", "-fPIC", *macros, str(folder / source), "-o", str(path)], check=True
    )
    return ctypes.CDLL(str(path))


@pytest.fixture
def sources(tmp_path) -> Path:
    """A copy of the C++ files."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    for path in (*KERNEL.glob("*.cpp"), *KERNEL.glob("*.h")):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_a_library_of_other_sources_is_refused(sources):
    """Current; then one header changes; then the library knows nothing of sources; then there are none."""
    path = sources / "ani_generic.so"
    library = compiled(sources, f"-DMLMM_SOURCE_HASH=0x{source_hash(sources):x}ULL")
    check_sources(library, path)
    with (sources / "simd.h").open("a") as file:
        file.write("// changed\n")
    with pytest.raises(OutdatedKernelError, match=r'of other sources .*\. Type "pip install -e \."'):
        check_sources(library, path)
    check_sources(compiled(sources, f"-DMLMM_SOURCE_HASH=0x{source_hash(sources):x}ULL"), path)
    (sources / "before.cc").write_text("extern int nothing;\n")
    before = compiled(sources, source="before.cc")
    with pytest.raises(OutdatedKernelError, match="0000000000000000"):
        check_sources(before, path)
    for file in (*sources.glob("*.cpp"), *sources.glob("*.h")):
        file.unlink()
    check_sources(before, path)  # a wheel without sources: nothing to compare with


def test_an_outdated_library_is_not_used_and_a_warning_says_so(sources, monkeypatch, caplog):
    """Asked for "auto", torch runs with a warning; "native" is refused; a current library is loaded."""
    library = compiled(sources, f"-DMLMM_SOURCE_HASH=0x{source_hash(sources):x}ULL")
    monkeypatch.setattr(kernel_library, "builds", lambda: [Path(library._name)])
    assert open_build("a kernel", lambda path: path) == Path(library._name)
    with (sources / "pairs.h").open("a") as file:
        file.write("\n")

    def load():
        return open_build("a kernel", lambda path: path)

    with caplog.at_level("WARNING"):
        assert decide_kernel("auto", "a kernel", None, load) == "torch"
    assert "a kernel in torch" in caplog.text and "pip install -e ." in caplog.text
    with pytest.raises(OutdatedKernelError, match="of other sources"):
        decide_kernel("native", "a kernel", None, load)


def test_the_library_of_this_checkout_is_that_of_its_sources():
    """Fails after a change of the C++ files until the package is installed again."""
    try:
        paths = kernel_library.builds()
    except OSError:
        pytest.skip("the package was installed without a C++ compiler")
    plugin = PLUGIN / "ani_plugin.so"
    for path in (*paths, *([plugin] if plugin.exists() else [])):
        check_sources(ctypes.CDLL(str(path)), path)
