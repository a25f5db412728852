"""Documents hold: commands exist, Python runs, run files are read, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mlmm
from mlmm.cli.program import _parser, main
from mlmm.config.label_file import check_job
from mlmm.config.load import load_config
from mlmm.errors import ConfigError

ROOT = Path(__file__).parents[1]
GUIDE = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples/guide").glob("*.md"))
#: Pages whose commands, Python and run files a reader copies.
SHOWN = ["README.md", "CONTRIBUTING.md", "mlmm/README.md", *GUIDE]
DOCUMENTS = sorted(
    {
        *SHOWN,
        *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/README.md")),
        *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("systems/*/README.md")),
        *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/benchmarks/*.md")),
    }
)


@contextmanager
def leaves_nothing(repository: Path) -> Iterator[None]:
    """Fail if a repository has a file or folder afterwards, at its top or where files are, that is new."""

    def files() -> set[str]:
        found = {*repository.iterdir(), *repository.glob("runs/*"), *repository.glob("builds/*")}
        for folder in ("examples", "systems"):
            found |= {*(repository / folder).rglob("*")}
        return {str(path.relative_to(repository)) for path in found if not _cached(path)}

    before = files()
    yield
    assert not files() - before


def _cached(path: Path) -> bool:
    """Whether a file or folder is kept by Python or a tool of the tests."""
    return path.name.startswith(".") or "__pycache__" in path.parts


@pytest.fixture(autouse=True)
def _nothing_is_left():
    with leaves_nothing(ROOT):
        yield


def test_a_script_that_writes_into_the_repository_is_found(tmp_path):
    for place in ("water", "runs/water", "examples/guide/water"):
        with pytest.raises(AssertionError, match=place), leaves_nothing(tmp_path):
            (tmp_path / place).mkdir(parents=True)
    with leaves_nothing(tmp_path):
        (tmp_path / "examples/__pycache__").mkdir()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Every line of the shell blocks as words, without comments."""
    lines = [shlex.split(line, comments=True) for block in blocks(text, "sh") for line in block.splitlines()]
    return [words for words in lines if words]


def check_command(words: list[str]) -> None:
    """Fail if a command does not exist, or names a file of this repository that is not there."""
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets, words
    elif program == "mlmm" and "--help" not in arguments:
        options = _parser().parse_args(arguments)
        source = getattr(options, "config", None)
        pdb_id = arguments[0] in ("build", "init") and re.fullmatch(r"\d\w{3}", source or "")
        if source and not pdb_id and not source.startswith(("my/", "runs/")):
            assert (ROOT / source).exists(), words
    elif program.endswith(("python", "pytest")):
        for path in (
            word.partition("::")[0] for word in arguments if word.startswith(("tests/", "examples/"))
        ):
            assert (ROOT / path).exists(), words
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(.*?)\]", arguments[-1])) <= set(extras), words
    else:
        assert program in ("mlmm", "git") or program.startswith(".venv/bin/"), words


def run_python(code: str, folder: Path) -> str:
    """What a script prints, run from the repository as a reader would, but writing into `folder`."""
    for name in ("runs/", "builds/"):
        code = code.replace(f'"{name}', f'"{folder}/{name}')
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def test_python_of_the_readme_runs(tmp_path):
    (code,) = blocks((ROOT / "README.md").read_text(), "python")
    printed = run_python(code, tmp_path)
    assert "forces vs finite differences" in printed and "report.html" in printed
    assert (tmp_path / "runs/dipeptide/report.html").exists()


def test_readme_is_short_and_names_every_page_of_the_guide():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len((ROOT / "mlmm/README.md").read_text().splitlines()) <= 45
    index = (ROOT / "examples/guide/README.md").read_text()
    for page in GUIDE:
        if not page.endswith("guide/README.md"):
            assert f"({page})" in text and f"({Path(page).name})" in index, page


def test_the_scan_of_the_readme_runs(tmp_path, capsys):
    pytest.importorskip("tblite")
    ((program, *arguments),) = [w for w in commands((ROOT / "README.md").read_text()) if "scan" in w]
    assert program == "mlmm" and main([*arguments, "--out", str(tmp_path / "scan")]) == 0
    assert "report.html" in capsys.readouterr().out
    # The number of the guide, which the barrier of the path is near: examples/guide/reactions.md.
    result = json.loads((tmp_path / "scan/run.json").read_text())["result"]
    (shown,) = re.findall(
        r"\| scan of .*\| ([\d.]+) kJ/mol", (ROOT / "examples/guide/reactions.md").read_text()
    )
    assert result["barrier"] == pytest.approx(float(shown), abs=0.5)


def test_inside_mlmm_names_every_room_and_module():
    text = (ROOT / "mlmm/README.md").read_text()
    for path in (ROOT / "mlmm").iterdir():
        if (path / "__init__.py").exists():
            assert f"`{path.name}/`" in text, path.name
        elif path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.stem}`" in text, path.name


@pytest.mark.parametrize("page", SHOWN)
def test_commands_exist(page):
    text = (ROOT / page).read_text()
    for words in commands(text):
        check_command(words)
    # Commands within a sentence: the verb at least exists, and so do its options where a run file is named.
    for line in re.findall(r"`(mlmm [a-z]+ my/run\.toml[^`]*)`", text):
        check_command(shlex.split(line))


def test_commands_that_do_not_exist_are_found():
    for line in (
        "make nonsense",
        "mlmm run systems/nowhere.toml",
        "mlmm simulate my/run.toml",
        "pip install 'mlmm[nonsense]'",
        "python examples/03_nothing.py",
        "cd /",
    ):
        with pytest.raises((AssertionError, SystemExit)):
            check_command(shlex.split(line))


@pytest.mark.parametrize("page", [page for page in GUIDE if "```python" in (ROOT / page).read_text()])
def test_python_of_a_guide_page_runs(page, tmp_path):
    """The blocks of a page are one script, from top to bottom."""
    run_python("\n".join(blocks((ROOT / page).read_text(), "python")), tmp_path)


def read_run_file(text: str, folder: Path) -> None:
    """Read a piece of a run file, with what it leaves open filled in."""
    given = tomllib.loads(text)
    if "structures" in given:
        check_job(given)
        return
    shutil.copy(ROOT / "systems/n_methylacetamide/water_ani1x.json", folder / "water.json")
    shutil.copy(ROOT / "systems/allyl_vinyl_ether/reactant.xyz", folder / "molecule.xyz")
    if not {"pdb", "smiles", "prmtop"} & set(given.get("system", ())):
        header, source = "[system]\n", 'pdb = "x.pdb"\n'
        text = text.replace(header, header + source) if header in text else text + header + source
    if "region" not in given:
        text += '[region]\nselect = "all"\n'
    path = folder / "run.toml"
    path.write_text(text)
    load_config(path)


@pytest.mark.parametrize("page", [page for page in GUIDE if "```toml" in (ROOT / page).read_text()])
def test_run_files_of_a_guide_page_are_read(page, tmp_path):
    pieces = [text for text in blocks((ROOT / page).read_text(), "toml") if "[project." not in text]
    assert pieces
    for text in pieces:
        read_run_file(text, tmp_path)


def test_a_wrong_key_in_a_piece_of_a_run_file_is_found(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'timestep'"):
        read_run_file('[run]\ntimesteps = "1 fs"\n', tmp_path)


@pytest.mark.parametrize("page", DOCUMENTS)
def test_links_lead_somewhere(page):
    # A SMILES in a block of code may look like a link.
    text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", SHOWN)
def test_files_that_are_named_exist(page):
    """Tests, systems and examples in backquotes: `tests/build/test_amber.py`, `systems/lysozyme_xylene`."""
    for target in re.findall(r"`((?:tests|systems|examples|mlmm)/[\w/.]+)`", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target


def test_citation_has_the_version_and_licence_of_the_package():
    text = (ROOT / "CITATION.cff").read_text()
    facts = dict(re.findall(r"^([a-z-]+): *\"?([^\"\n]+)\"?$", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert facts["version"] == mlmm.__version__ and facts["title"].startswith("mlmm")
    assert facts["license"] == project["project"]["license"] == "MIT"
    # The version stands in mlmm/__init__.py alone: setuptools reads it there.
    assert "version" in project["project"]["dynamic"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mlmm.__version__"}
    assert f"## {mlmm.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_test_of_the_table_of_claims_exists(root):
    """tests/README.md: each line names tests that exist; V1 to V23 and the other kinds have lines."""
    text = (root / "tests/README.md").read_text()
    rows = [
        line
        for line in text.splitlines()
        if re.match(r"\| [\w ]+ \|", line) and not line.startswith("| | claim")
    ]
    claims = {*(f"V{k}" for k in range(1, 24)), "bias", "tail", "report", "build", "plugin"}
    claims |= {"labels", "data", "learn", "processes", "training", "paths", "free energies"}
    assert {row.split(" | ")[0].strip("| ") for row in rows} == claims
    for row in rows:
        named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (root / "tests" / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize(
    "name", ["01_dipeptide_in_water.py", "02_your_own_system_and_model.py", "04_train_a_potential.py"]
)
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


def run_notebook_file(root, notebook, replaced):
    """Cell after cell in a process of its own, from the folder of the notebook, as Jupyter does."""
    words = [word for pair in replaced.items() for word in pair]
    return subprocess.run(
        [sys.executable, str(root / "tests/notebooks.py"), str(notebook), *words],
        cwd=notebook.parent,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
    )


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_runs(root, tmp_path, path):
    short = {'"2 ps"': '"0.02 ps"', 'root / "runs/notebook"': f'"{tmp_path}/run"'}
    printed = run_notebook_file(root, path, short)
    assert printed.returncode == 0, printed.stderr
    for words in ("<b>HybridSystem</b>", "forces vs finite differences", "state", "largest force"):
        assert words in printed.stdout
    assert "FAILED" not in printed.stdout and (tmp_path / "run/report.html").exists()
    assert path.name in (root / "examples/README.md").read_text()
    # Outputs are made by the reader, and differ from one machine to the next.
    cells = json.loads(path.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_a_notebook_that_fails_is_found(root, tmp_path):
    """Control: an error in a cell, and a text to shorten that stands nowhere."""
    cells = [{"cell_type": "code", "source": ["x = 1\n", "x / 0"]}]
    (tmp_path / "bad.ipynb").write_text(json.dumps({"cells": cells}))
    printed = run_notebook_file(root, tmp_path / "bad.ipynb", {})
    assert printed.returncode == 1 and "ZeroDivisionError" in printed.stderr
    printed = run_notebook_file(root, tmp_path / "bad.ipynb", {'"2 ps"': '"1 fs"'})
    assert printed.returncode == 1 and "stands in no cell" in printed.stderr


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
