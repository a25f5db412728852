"""``mlmm label``: files, arguments, what is refused."""

import shutil

import pytest

from mlmm.cli import main
from mlmm.config.label_file import check_job, load_label_file, read_molecules
from mlmm.config.label_text import label_template
from mlmm.errors import ConfigError
from mlmm.learning.dataset.store import Dataset
from mlmm.reference import METHODS


@pytest.fixture
def frames(root, tmp_path, monkeypatch):
    """The example's structures in a folder of their own, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copy(root / "examples/labels/claisen_frames.xyz", tmp_path / "frames.xyz")


@pytest.mark.parametrize("method", METHODS)
def test_a_template_is_read_with_every_key_written_out(method, tmp_path):
    text = label_template(method)
    (tmp_path / "plain.toml").write_text(text)
    needed = ['method.calculator="emt"'] if method == "ase" else []
    assert load_label_file(tmp_path / "plain.toml", needed).method == method
    lines = [
        line[2:] if line.startswith("# ") and " = " in line and not line[2:3].isupper() else line
        for line in text.splitlines()
    ]
    # Two keys exclude each other: GPU ids and a scheduler.
    lines = [line for line in lines if not line.startswith(("gpus", "scheduler"))]
    (tmp_path / "full.toml").write_text("\n".join(lines))
    full = load_label_file(tmp_path / "full.toml")
    assert full.method == method and full.options


def test_the_example_is_labelled(frames, root, capsys):
    pytest.importorskip("tblite")
    file = str(root / "examples/labels/label.toml")
    arguments = ["label", file, "--set", "output.dataset=set", "--workers", "1"]
    assert main(arguments) == 0
    assert "new: 16" in capsys.readouterr().out
    dataset = Dataset("set")
    assert len(dataset.usable) == 16 and dataset.method == "GFN2-xTB (tblite)"
    assert dataset.origins[3]["file"] == "claisen_frames.xyz"
    energies = [label.energy for _, label in dataset.pairs()]
    # Reactant, the top between them, product: 4-pentenal is the lowest.
    assert max(energies[3:10]) > energies[0] > min(energies[-3:])
    assert main([*arguments[:-2], "--workers", "1"]) == 0
    assert "new: 0; labelled before: 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "a TOML file or structures to label"),
        (["frames.xyz"], "name = xtb | tblite"),
        (["frames.xyz", "--method", "gfn2"], "'gfn2'"),
        (["frames.xyz", "--method", "tblite", "--option", "solven=water"], "Did you mean 'solvent'?"),
        (["frames.xyz", "--method", "tblite", "--option", "accuracy=0"], "accuracy above 0"),
        (["nothing.xyz", "--method", "tblite"], "no nothing.xyz"),
        (["nothing.toml"], "mlmm label --template xtb"),
        (["frames.xyz", "--method", "tblite", "--set", "structures.first=16"], "none from frame 16 on"),
        (["frames.xyz", "--method", "tblite", "--set", "runs.every=2"], "sections"),
        (["label.toml", "--charge", "0"], "got --charge"),
        ([".", "--method", "xtb", "--charge", "0"], "charge = 0 for runs or sets"),
        (["--install", "pyscf"], "pip install pyscf"),
        (["--explain", "gfn2"], "a reference method"),
    ],
)
def test_what_is_refused(frames, arguments, said, capsys):
    assert main(["label", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_methods_are_listed_and_explained(capsys):
    assert main(["label", "--explain", "pyscf"]) == 0
    assert "density_fitting = true" in capsys.readouterr().out
    assert main(["label", "--template", "xtb"]) == 0
    assert 'name = "xtb"' in capsys.readouterr().out


def test_structures_are_chosen(frames, tmp_path):
    job = check_job(
        {
            "structures": {"files": ["frames.xyz"], "first": 1, "every": 5, "charge": -1, "multiplicity": 2},
            "method": {"name": "tblite"},
        }
    )
    found = read_molecules(job.structures)
    assert [one.origin["frame"] for one in found] == ["1", "6", "11"]
    assert {(one.charge, one.multiplicity) for one in found} == {(-1, 2)}
    (tmp_path / "bad.xyz").write_text("nothing\n")
    bad = check_job({"structures": {"files": ["bad.xyz"]}, "method": {"name": "xtb"}})
    with pytest.raises(ConfigError, match="a structure file that ASE reads"):
        read_molecules(bad.structures)
