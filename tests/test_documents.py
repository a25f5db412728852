"""What README and examples show works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from mlmm.cli.program import _parser


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text()


def test_python_of_the_readme_runs(root, readme, tmp_path):
    (code,) = blocks(readme, "python")
    # From the repository, as a reader would, but writing elsewhere.
    code = code.replace("runs/dipeptide", str(tmp_path / "run"))
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert "forces vs finite differences" in printed.stdout and "report.html" in printed.stdout
    assert (tmp_path / "run/report.html").exists()


def test_commands_of_the_readme_exist(root, readme):
    lines = [line.partition("#")[0].strip() for block in blocks(readme, "sh") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line]
    assert len(commands) >= 6
    targets = re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE)
    for program, *arguments in commands:
        if program == "make":
            assert arguments[0] in targets
        elif "--help" not in arguments:
            assert program == "mlmm"
            options = _parser().parse_args(arguments)
            pdb_id = arguments[0] == "build" and len(arguments[1]) == 4
            assert not hasattr(options, "config") or pdb_id or (root / options.config).exists()


def test_links_of_every_document_lead_somewhere(root):
    for document in [root / "README.md", *root.glob("*/README.md"), *root.glob("systems/*/README.md")]:
        # A SMILES in a block of code may look like a link.
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_test_of_the_table_of_claims_exists(root):
    """tests/README.md: each line names its tests, and each of V1 to V23 has lines."""
    text = (root / "tests/README.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| (V\d+|tail) \|", line)]
    assert {row.split(" | ")[0] for row in rows} == {*(f"| V{k}" for k in range(1, 24)), "| tail"}
    for row in rows:
        named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (root / "tests" / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("name", ["01_dipeptide_in_water.py", "02_your_own_system_and_model.py"])
def test_example_runs(root, tmp_path, name):
    path = root / "examples" / name
    assert len(path.read_text().splitlines()) <= 60
    arguments = ["--quick"] + (["--out", str(tmp_path / "run")] if "--out" in path.read_text() else [])
    printed = subprocess.run(
        [sys.executable, str(path), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert printed.returncode == 0, printed.stderr
    assert name in (root / "examples/README.md").read_text()


@pytest.mark.slow
def test_demo_makes_its_report(root, tmp_path):
    """The main job as `make demo` runs it."""
    run_file = str(root / "systems/lysozyme_xylene/run.toml")
    printed = subprocess.run(
        [sys.executable, "-m", "mlmm.cli", "run", run_file, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert printed.returncode == 0, printed.stderr
    assert (tmp_path / "run/report.html").stat().st_size > 500_000
